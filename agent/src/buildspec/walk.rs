//! Walks the YAML of a buildspec file, key by key.
//!
//! What the keys are is in the tables of [`keys`](super::keys). Here is how each kind of value is
//! read, and what the whole file is made of; the parts have a module each.

mod artifacts;
mod batch;
mod env;
mod left_out;
mod phases;

use super::{
    Buildspec, IgnoredKey, Problem, UnknownKey, User, Version,
    keys::{PROXY, Section, TOP},
    problem::Fault,
    suggest::nearest,
};
use crate::{
    source::Place,
    yaml::{self, Entry, Node, Value},
};

/// For so many unknown keys it is looked what was meant; nobody reads more.
const MOST_SUGGESTIONS: usize = 100;

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
    walk.spec.ignored_keys.sort_by_key(|it| it.place);
    walk.spec.unknown_keys.sort_by_key(|it| it.place);
    for problems in [&mut walk.problems, &mut walk.spec.tolerated] {
        problems.sort();
        // What is wrong in an anchored part is wrong wherever it is used.
        problems.dedup();
    }
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
        let has = |key: &str| entries.iter().find(|it| it.key == key).map(|it| it.place);
        if has("version").is_none() {
            self.problems.push(Fault::Missing { key: "version".to_owned() }.problem(None));
        }
        match (has("phases"), has("batch")) {
            (Some(_), _) => {}
            (None, Some(place)) => self.problems.push(Fault::BatchOnly.at(place)),
            (None, None) => {
                self.problems.push(Fault::Missing { key: "phases".to_owned() }.problem(None));
            }
        }
        // The version comes first: some keys are of one version alone.
        for entry in self.known(entries, &TOP, "buildspec") {
            self.top(entry);
        }
    }

    fn top(&mut self, entry: Entry) {
        match entry.key.as_str() {
            "version" => self.version(entry),
            "run-as" => self.spec.run_as = self.user(entry.node, "run-as"),
            "env" => self.env(entry.node),
            "environment_variables" => self.environment_variables(entry),
            "proxy" => self.proxy(entry.node),
            "phases" => self.phases(entry),
            "artifacts" => self.artifacts(entry),
            "batch" => self.batch(entry),
            "reports" => self.left_out(entry, "rbuild does not process reports yet"),
            _ => self.left_out(entry, "rbuild keeps no cache yet"),
        }
    }

    fn version(&mut self, entry: Entry) {
        let place = entry.node.place;
        match self.needed(entry, "version") {
            Some(version) if version == "0.2" => {}
            Some(version) if version == "0.1" => self.spec.version = Version::V0_1,
            Some(version) => self.problems.push(Fault::Version { version }.at(place)),
            None => {}
        }
    }

    fn proxy(&mut self, node: Node) {
        for Entry { key, node, .. } in self.section(node, &PROXY, "proxy", "proxy") {
            let path = format!("proxy.{key}");
            match key.as_str() {
                "upload-artifacts" => self.spec.proxy.upload_artifacts = self.boolean(node, &path),
                _ => self.spec.proxy.logs = self.boolean(node, &path),
            }
        }
    }

    /// Notes that `entry` is of the language, and left out.
    fn ignore(&mut self, entry: &Entry, reason: &'static str) {
        if entry.node.value != Value::Null {
            let (key, place) = (entry.key.clone(), entry.place);
            self.spec.ignored_keys.push(IgnoredKey { key, place, reason });
        }
    }

    /// The known keys of the mapping `node`, in the order of their table.
    fn section(&mut self, node: Node, section: &Section, path: &str, name: &str) -> Vec<Entry> {
        let entries = self.map(node, path).unwrap_or_default();
        self.known(entries, section, name)
    }

    /// The keys of `section`, in the order of their table; tells of all others. The log knows the
    /// section as `name`.
    fn known(&mut self, entries: Vec<Entry>, section: &Section, name: &str) -> Vec<Entry> {
        let mut known = Vec::new();
        for entry in entries {
            match section.position(&entry.key) {
                Some(position) => known.push((position, entry)),
                None => self.unknown(entry, section, name),
            }
        }
        known.sort_by_key(|(position, _)| *position);
        known.into_iter().map(|(_, entry)| entry).collect()
    }

    fn unknown(&mut self, entry: Entry, section: &Section, name: &str) {
        let suggestion = match self.spec.unknown_keys.len() < MOST_SUGGESTIONS {
            true => nearest(&entry.key, &section.names()),
            false => None,
        };
        let Entry { key, place, .. } = entry;
        self.spec.unknown_keys.push(UnknownKey {
            section: name.to_owned(),
            key,
            place,
            suggestion,
        });
    }

    /// The entries of a mapping; none if there is nothing.
    fn map(&mut self, node: Node, path: &str) -> Option<Vec<Entry>> {
        match node.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(Vec::new()),
            value => {
                self.wrong_kind(&value, path, "a mapping", node.place);
                None
            }
        }
    }

    /// The entries of a mapping of any names, with at most so many.
    fn named(&mut self, node: Node, path: &str, most: usize) -> Vec<Entry> {
        let entries = self.map(node, path).unwrap_or_default();
        if let Some(first) = entries.get(most) {
            self.problems.push(Fault::TooMany { key: path.to_owned(), most }.at(first.place));
        }
        entries
    }

    /// The items of a list; a scalar is a list of one, nothing is a list of none.
    fn list(&mut self, node: Node, path: &str) -> Vec<Node> {
        match node.value {
            Value::List(items) => items,
            Value::Null => Vec::new(),
            Value::Text(_) => vec![node],
            value @ Value::Map(_) => {
                self.wrong_kind(&value, path, "a list", node.place);
                Vec::new()
            }
        }
    }

    /// The scalars of a list, and where they are; items that are nothing are left out.
    fn texts(&mut self, node: Node, path: &str) -> Vec<(Place, String)> {
        let items = self.list(node, path);
        let text = |it: Node| Some((it.place, self.optional(it, path)?));
        items.into_iter().filter_map(text).collect()
    }

    /// The scalars of a list.
    fn strings(&mut self, node: Node, path: &str) -> Vec<String> {
        self.texts(node, path).into_iter().map(|(_, text)| text).collect()
    }

    /// The text of a key that must have one.
    fn needed(&mut self, entry: Entry, path: &str) -> Option<String> {
        if entry.node.value == Value::Null {
            self.problems.push(Fault::Empty { key: path.to_owned() }.at(entry.place));
            return None;
        }
        self.scalar(entry.node, path)
    }

    /// The text of a key; none if there is nothing.
    fn optional(&mut self, node: Node, path: &str) -> Option<String> {
        match node.value {
            Value::Null => None,
            _ => self.scalar(node, path),
        }
    }

    /// Some text; nothing is empty text.
    fn scalar(&mut self, node: Node, path: &str) -> Option<String> {
        match node.value {
            Value::Text(text) => self.has_no_nul(&text, path, node.place).then_some(text),
            Value::Null => Some(String::new()),
            value => {
                self.wrong_kind(&value, path, "text", node.place);
                None
            }
        }
    }

    /// The name of a user; empty text is no name.
    fn user(&mut self, node: Node, path: &str) -> Option<User> {
        let place = node.place;
        let name = self.optional(node, path).filter(|it| !it.is_empty())?;
        Some(User { name, place })
    }

    /// Yes or no, in all the ways of YAML 1.1; nothing is no.
    fn boolean(&mut self, node: Node, path: &str) -> bool {
        let place = node.place;
        let Some(value) = self.optional(node, path) else { return false };
        match value.to_lowercase().as_str() {
            "yes" | "y" | "true" | "on" => true,
            "no" | "n" | "false" | "off" | "" => false,
            _ => {
                self.problems.push(Fault::Bool { key: path.to_owned(), value }.at(place));
                false
            }
        }
    }

    fn has_no_nul(&mut self, text: &str, path: &str, place: Place) -> bool {
        let has_nul = text.contains('\0');
        if has_nul {
            self.problems.push(Fault::Nul { key: path.to_owned() }.at(place));
        }
        !has_nul
    }

    fn wrong_kind(&mut self, value: &Value, path: &str, wanted: &'static str, place: Place) {
        let fault = Fault::Kind { key: path.to_owned(), found: kind(value), wanted };
        self.problems.push(fault.at(place));
    }

    fn missing(&mut self, key: String, place: Place) {
        self.problems.push(Fault::Missing { key }.at(place));
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
