//! Walks the YAML of a buildspec file, key by key.
//!
//! The tables of keys here are all that is known of the language: `read` is what is built,
//! `refused` is what is of the language and is not built yet.

use crate::{
    buildspec::{
        Artifacts, Buildspec, Command, PhaseCommands, Problem, ShellName, UnknownKey,
        Value as Given, Variable, problem::Fault, suggest::nearest,
    },
    phase::Phase,
    source::Place,
    yaml::{self, Entry, Node, Value},
};

/// The keys of one section.
struct Section {
    read: &'static [&'static str],
    refused: &'static [&'static str],
}

const TOP: Section = Section {
    read: &["version", "env", "phases", "artifacts"],
    refused: &["run-as", "proxy", "batch", "reports", "cache"],
};

const ENV: Section = Section {
    read: &["shell", "variables"],
    refused: &["parameter-store", "secrets-manager", "exported-variables", "git-credential-helper"],
};

const INSTALL: Section = Section {
    read: &["commands", "finally"],
    refused: &["run-as", "on-failure", "runtime-versions"],
};

const PHASE: Section =
    Section { read: &["commands", "finally"], refused: &["run-as", "on-failure"] };

const ARTIFACTS: Section = Section {
    read: &["files", "base-directory", "discard-paths", "name"],
    refused: &["exclude-paths", "enable-symlinks", "s3-prefix", "secondary-artifacts"],
};

pub(super) fn inspect(bytes: &[u8]) -> (Buildspec, Vec<Problem>) {
    let root = match yaml::parse(bytes) {
        Ok(root) => root,
        Err(err) => {
            let place = err.place();
            return (Buildspec::default(), vec![Fault::Yaml(err).problem(place)]);
        }
    };
    let mut walk = Walk::default();
    walk.root(root);
    walk.problems.sort();
    // What is wrong in an anchored part is wrong wherever it is used.
    walk.problems.dedup();
    (walk.spec, walk.problems)
}

#[derive(Default)]
struct Walk {
    spec: Buildspec,
    problems: Vec<Problem>,
}

impl Walk {
    fn root(&mut self, root: Node) {
        let Value::Map(entries) = root.value else {
            let found = kind(&root.value);
            return self.problems.push(Fault::Root { found }.at(root.place));
        };
        for key in ["version", "phases"] {
            if entries.iter().all(|it| it.key != key) {
                self.problems.push(Fault::Missing { key: key.to_owned() }.problem(None));
            }
        }
        for entry in self.known(entries, &TOP, "", "buildspec") {
            match entry.key.as_str() {
                "version" => self.version(entry),
                "env" => self.env(entry),
                "phases" => self.phases(entry),
                _ => self.artifacts(entry),
            }
        }
    }

    fn version(&mut self, entry: Entry) {
        let place = entry.node.place;
        match self.text(entry, "version") {
            Some(version) if version == "0.2" => {}
            Some(version) => self.problems.push(Fault::Version { version }.at(place)),
            None => {}
        }
    }

    fn env(&mut self, entry: Entry) {
        let Some(entries) = self.map(entry.node, "env") else { return };
        for entry in self.known(entries, &ENV, "env.", "env") {
            match entry.key.as_str() {
                "shell" => self.shell(entry),
                _ => self.variables(entry),
            }
        }
    }

    fn shell(&mut self, entry: Entry) {
        let place = entry.node.place;
        let Some(name) = self.text(entry, "env.shell") else { return };
        self.spec.shell = ShellName::named(&name);
        if self.spec.shell.is_none() {
            self.problems.push(Fault::Shell { name }.at(place));
        }
    }

    fn variables(&mut self, entry: Entry) {
        for entry in self.map(entry.node, "env.variables").unwrap_or_default() {
            let Entry { key: name, place, node } = entry;
            if name.is_empty() || name.contains(['=', '\0']) {
                self.problems.push(Fault::VariableName { name }.at(place));
                continue;
            }
            if name.starts_with("CODEBUILD_") {
                self.problems.push(Fault::Reserved { name }.at(place));
                continue;
            }
            if let Some(value) = self.scalar(node, &format!("env.variables.{name}")) {
                let value = Given::Plain(value);
                self.spec.variables.push(Variable { name, value, place: Some(place) });
            }
        }
    }

    fn phases(&mut self, entry: Entry) {
        if entry.node.value == Value::Null {
            return self.problems.push(Fault::Empty { key: "phases".to_owned() }.at(entry.place));
        }
        for entry in self.map(entry.node, "phases").unwrap_or_default() {
            match Phase::named(&entry.key) {
                Some(phase) => self.phase(phase, entry.node),
                None => {
                    let suggestion = nearest(&entry.key, &Phase::ALL.map(Phase::name));
                    let fault = Fault::Phase { name: entry.key, suggestion };
                    self.problems.push(fault.at(entry.place));
                }
            }
        }
        self.spec.phases.sort_by_key(|it| it.phase);
    }

    fn phase(&mut self, phase: Phase, body: Node) {
        let Some(entries) = self.map(body, phase.name()) else { return };
        let section = if phase == Phase::Install { &INSTALL } else { &PHASE };
        let prefix = format!("{}.", phase.name());
        let mut found = PhaseCommands {
            phase,
            run_as: None,
            on_failure: None,
            commands: Vec::new(),
            finally: Vec::new(),
        };
        for entry in self.known(entries, section, &prefix, &phase.to_string()) {
            let commands = self.commands(&entry.key, entry.node, &prefix);
            match entry.key.as_str() {
                "commands" => found.commands = commands,
                _ => found.finally = commands,
            }
        }
        self.spec.phases.push(found);
    }

    fn commands(&mut self, key: &str, node: Node, prefix: &str) -> Vec<Command> {
        let key = format!("{prefix}{key}");
        let items = self.list(node, &key);
        let mut commands = Vec::new();
        for (index, Node { place, value }) in items.into_iter().enumerate() {
            let text = match value {
                Value::Text(text) => text,
                // CodeBuild counts and runs it.
                Value::Null => String::new(),
                Value::List(_) | Value::Map(_) => {
                    let (key, found) = (key.clone(), kind(&value));
                    let fault = Fault::Command { key, number: index + 1, found, line: place.line };
                    self.problems.push(fault.at(place));
                    continue;
                }
            };
            if self.has_no_nul(&text, &key, place) {
                commands.push(Command { text, place });
            }
        }
        commands
    }

    fn artifacts(&mut self, entry: Entry) {
        let place = entry.place;
        if entry.node.value == Value::Null {
            return;
        }
        let Some(entries) = self.map(entry.node, "artifacts") else { return };
        let mut found = Artifacts::default();
        let mut is_wrong = false;
        for entry in self.known(entries, &ARTIFACTS, "artifacts.", "artifacts") {
            match entry.key.as_str() {
                "files" => {
                    let before = self.problems.len();
                    found.files = self.files(entry.node);
                    is_wrong = self.problems.len() > before;
                }
                "base-directory" => {
                    found.base_directory = self.optional(entry.node, "artifacts.base-directory");
                }
                "name" => found.name = self.optional(entry.node, "artifacts.name"),
                _ => found.discard_paths = self.boolean(entry.node, "artifacts.discard-paths"),
            }
        }
        if found.files.is_empty() && !is_wrong {
            let key = "artifacts.files".to_owned();
            self.problems.push(Fault::Missing { key }.at(place));
        }
        self.spec.artifacts = Some(found);
    }

    fn files(&mut self, node: Node) -> Vec<String> {
        let items = self.list(node, "artifacts.files");
        items.into_iter().filter_map(|it| self.optional(it, "artifacts.files")).collect()
    }

    /// The entries that are built; tells of all others.
    fn known(
        &mut self,
        entries: Vec<Entry>,
        section: &Section,
        prefix: &str,
        name: &str,
    ) -> Vec<Entry> {
        let mut known = Vec::new();
        for entry in entries {
            if section.read.contains(&entry.key.as_str()) {
                known.push(entry);
            } else if section.refused.contains(&entry.key.as_str()) {
                let key = format!("{prefix}{}", entry.key);
                self.problems.push(Fault::NotYet { key }.at(entry.place));
            } else {
                let suggestion = nearest(&entry.key, &[section.read, section.refused].concat());
                let Entry { key, place, .. } = entry;
                let section = name.to_owned();
                self.spec.unknown_keys.push(UnknownKey { section, key, place, suggestion });
            }
        }
        known
    }

    /// The keys of a mapping; none if there is nothing.
    fn map(&mut self, node: Node, key: &str) -> Option<Vec<Entry>> {
        match node.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(Vec::new()),
            value => {
                self.wrong_kind(&value, key, "a mapping", node.place);
                None
            }
        }
    }

    /// The items of a list; a scalar is a list of one, nothing is a list of none.
    fn list(&mut self, node: Node, key: &str) -> Vec<Node> {
        match node.value {
            Value::List(items) => items,
            Value::Null => Vec::new(),
            Value::Text(_) => vec![node],
            value @ Value::Map(_) => {
                self.wrong_kind(&value, key, "a list", node.place);
                Vec::new()
            }
        }
    }

    /// The text of a key that must have one.
    fn text(&mut self, entry: Entry, key: &str) -> Option<String> {
        if entry.node.value == Value::Null {
            self.problems.push(Fault::Empty { key: key.to_owned() }.at(entry.place));
            return None;
        }
        self.scalar(entry.node, key)
    }

    /// The text of a key; none if there is nothing.
    fn optional(&mut self, node: Node, key: &str) -> Option<String> {
        match node.value {
            Value::Null => None,
            _ => self.scalar(node, key),
        }
    }

    /// Some text; nothing is empty text.
    fn scalar(&mut self, node: Node, key: &str) -> Option<String> {
        match node.value {
            Value::Text(text) => self.has_no_nul(&text, key, node.place).then_some(text),
            Value::Null => Some(String::new()),
            value => {
                self.wrong_kind(&value, key, "text", node.place);
                None
            }
        }
    }

    /// Yes or no, in all the ways of YAML 1.1; nothing is no.
    fn boolean(&mut self, node: Node, key: &str) -> bool {
        let place = node.place;
        let Some(value) = self.optional(node, key) else { return false };
        match value.to_lowercase().as_str() {
            "yes" | "y" | "true" | "on" => true,
            "no" | "n" | "false" | "off" | "" => false,
            _ => {
                self.problems.push(Fault::Bool { key: key.to_owned(), value }.at(place));
                false
            }
        }
    }

    fn has_no_nul(&mut self, text: &str, key: &str, place: Place) -> bool {
        let has_nul = text.contains('\0');
        if has_nul {
            self.problems.push(Fault::Nul { key: key.to_owned() }.at(place));
        }
        !has_nul
    }

    fn wrong_kind(&mut self, value: &Value, key: &str, wanted: &'static str, place: Place) {
        let fault = Fault::Kind { key: key.to_owned(), found: kind(value), wanted };
        self.problems.push(fault.at(place));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}
