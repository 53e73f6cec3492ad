//! `env`: the shell, the variables, and where their values come from.

use super::Walk;
use crate::{
    buildspec::{
        ExportedName, ShellName, UnknownKey, Value, Variable, Version,
        keys::{ENV, ENVIRONMENT_VARIABLES},
        problem::Fault,
    },
    secret::{Reference, SecretsManagerReference},
    source::Place,
    yaml::{Entry, Node},
};

/// Makes a reference of the text at a path.
type Read = fn(String, String) -> Result<Reference, Fault>;

impl Walk {
    pub(super) fn env(&mut self, node: Node) {
        for entry in self.section(node, &ENV, "env", "env") {
            let path = format!("env.{}", entry.key);
            match entry.key.as_str() {
                "shell" => self.shell(entry, &path),
                "variables" => self.variables(entry.node, &path),
                "parameter-store" => self.references(entry.node, &path, parameter),
                "secrets-manager" => self.references(entry.node, &path, secret),
                "exported-variables" => self.exported(entry.node, &path),
                _ => self.spec.git_credentials = self.boolean(entry.node, &path),
            }
        }
    }

    /// What `env` was called in version 0.1.
    pub(super) fn environment_variables(&mut self, entry: Entry) {
        let path = "environment_variables";
        if self.spec.version != Version::V0_1 {
            let Entry { key, place, .. } = entry;
            let (section, suggestion) = ("buildspec".to_owned(), Some("env"));
            return self.spec.unknown_keys.push(UnknownKey { section, key, place, suggestion });
        }
        for Entry { key, node, .. } in self.section(entry.node, &ENVIRONMENT_VARIABLES, path, path)
        {
            self.variables(node, &format!("{path}.{key}"));
        }
    }

    fn shell(&mut self, entry: Entry, path: &str) {
        let place = entry.node.place;
        let Some(name) = self.needed(entry, path) else { return };
        self.spec.shell = ShellName::named(&name);
        self.spec.shell_place = Some(place);
        if self.spec.shell.is_none() {
            self.problems.push(Fault::Shell { name }.at(place));
        }
    }

    fn variables(&mut self, node: Node, path: &str) {
        for (name, place, node) in self.variable_names(node, path) {
            if let Some(value) = self.scalar(node, &format!("{path}.{name}")) {
                let value = Value::Plain(value);
                self.spec.variables.push(Variable { name, value, place: Some(place) });
            }
        }
    }

    fn references(&mut self, node: Node, path: &str, read: Read) {
        for (name, place, node) in self.variable_names(node, path) {
            let (path, at) = (format!("{path}.{name}"), node.place);
            let Some(text) = self.scalar(node, &path) else { continue };
            match read(text, path) {
                Ok(reference) => {
                    let value = Value::Secret(reference);
                    self.spec.variables.push(Variable { name, value, place: Some(place) });
                }
                Err(fault) => self.problems.push(fault.at(at)),
            }
        }
    }

    /// The entries whose keys can be names of variables that a file sets; tells of all others.
    pub(super) fn variable_names(&mut self, node: Node, path: &str) -> Vec<(String, Place, Node)> {
        let mut found = Vec::new();
        for Entry { key: name, place, node } in self.map(node, path).unwrap_or_default() {
            if !is_variable_name(&name) {
                self.problems.push(Fault::VariableName { name }.at(place));
            } else if name.starts_with("CODEBUILD_") {
                self.problems.push(Fault::Reserved { name }.at(place));
            } else {
                found.push((name, place, node));
            }
        }
        found
    }

    fn exported(&mut self, node: Node, path: &str) {
        for (place, name) in self.texts(node, path) {
            match is_variable_name(&name) {
                true => self.spec.exported.push(ExportedName { name, place }),
                false => self.problems.push(Fault::VariableName { name }.at(place)),
            }
        }
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn parameter(text: String, key: String) -> Result<Reference, Fault> {
    match text.is_empty() {
        true => Err(Fault::Parameter { key }),
        false => Ok(Reference::Parameter(text)),
    }
}

fn secret(text: String, key: String) -> Result<Reference, Fault> {
    match SecretsManagerReference::parse(&text) {
        Ok(reference) => Ok(Reference::SecretsManager(reference)),
        Err(source) => Err(Fault::Reference { key, source }),
    }
}
