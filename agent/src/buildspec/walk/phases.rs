//! `phases`: what runs, who runs it, and what happens if it fails.

use super::{MOST_SUGGESTIONS, Walk, kind};
use crate::{
    buildspec::{
        Command, PhaseCommands, RuntimeVersion,
        keys::{INSTALL, PHASE},
        on_failure,
        problem::Fault,
        suggest::nearest,
    },
    phase::{OnFailure, Phase},
    source::Place,
    yaml::{Entry, Node, Value},
};

impl Walk {
    pub(super) fn phases(&mut self, entry: Entry) {
        if entry.node.value == Value::Null {
            return self.problems.push(Fault::Empty { key: "phases".to_owned() }.at(entry.place));
        }
        for entry in self.map(entry.node, "phases").unwrap_or_default() {
            match Phase::named(&entry.key) {
                Some(phase) => self.phase(phase, entry.node),
                None => self.unknown_phase(entry.key, entry.place),
            }
        }
        self.spec.phases.sort_by_key(|it| it.phase);
    }

    fn unknown_phase(&mut self, name: String, place: Place) {
        let suggestion = match self.problems.len() < MOST_SUGGESTIONS {
            true => nearest(&name, &Phase::ALL.map(Phase::name)),
            false => None,
        };
        self.problems.push(Fault::Phase { name, suggestion }.at(place));
    }

    fn phase(&mut self, phase: Phase, body: Node) {
        let section = if phase == Phase::Install { &INSTALL } else { &PHASE };
        let mut found = PhaseCommands {
            phase,
            run_as: None,
            on_failure: None,
            commands: Vec::new(),
            finally: Vec::new(),
        };
        for Entry { key, node, .. } in self.section(body, section, phase.name(), &phase.to_string())
        {
            let path = format!("{}.{key}", phase.name());
            match key.as_str() {
                "run-as" => found.run_as = self.user(node, &path),
                "on-failure" => found.on_failure = self.on_failure(node, path),
                "runtime-versions" => self.runtimes(node, &path),
                "commands" => found.commands = self.commands(node, &path),
                _ => found.finally = self.commands(node, &path),
            }
        }
        self.spec.phases.push(found);
    }

    fn commands(&mut self, node: Node, path: &str) -> Vec<Command> {
        let mut commands = Vec::new();
        for (index, Node { place, value }) in self.list(node, path).into_iter().enumerate() {
            let text = match value {
                Value::Text(text) => text,
                // CodeBuild counts and runs it.
                Value::Null => String::new(),
                Value::List(_) | Value::Map(_) => {
                    let (key, found) = (path.to_owned(), kind(&value));
                    let fault = Fault::Command { key, number: index + 1, found, line: place.line };
                    self.problems.push(fault.at(place));
                    continue;
                }
            };
            if self.has_no_nul(&text, path, place) {
                commands.push(Command { text, place });
            }
        }
        commands
    }

    fn on_failure(&mut self, node: Node, key: String) -> Option<OnFailure> {
        let place = node.place;
        let value = self.optional(node, &key).filter(|it| !it.is_empty())?;
        match on_failure::parse(&value) {
            Ok(on_failure) => Some(on_failure),
            Err(source) => {
                self.problems.push(Fault::OnFailure { key, value, source }.at(place));
                None
            }
        }
    }

    /// A mapping of names to versions; a list of such mappings is one, too.
    fn runtimes(&mut self, node: Node, path: &str) {
        match node.value {
            Value::List(items) => {
                for item in items {
                    self.runtimes_of(item, path);
                }
            }
            _ => self.runtimes_of(node, path),
        }
    }

    fn runtimes_of(&mut self, node: Node, path: &str) {
        for Entry { key: name, place, node } in self.map(node, path).unwrap_or_default() {
            if let Some(version) = self.scalar(node, &format!("{path}.{name}")) {
                self.spec.runtimes.push(RuntimeVersion { name, version, place });
            }
        }
    }
}
