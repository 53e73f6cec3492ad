//! `artifacts`: what to collect after the build, and what else.

use super::Walk;
use crate::{
    buildspec::{
        Artifacts, SecondaryArtifacts,
        keys::{ARTIFACTS, MOST_SECONDARY_ARTIFACTS, SECONDARY_ARTIFACTS, Section},
        problem::Fault,
    },
    source::Place,
    yaml::{Entry, Node, Value},
};

impl Walk {
    pub(super) fn artifacts(&mut self, entry: Entry) {
        if entry.node.value != Value::Null {
            self.spec.artifacts = self.some_artifacts(entry, &ARTIFACTS, "artifacts");
        }
    }

    /// The body of `artifacts`, or of one of the secondary ones.
    fn some_artifacts(&mut self, entry: Entry, section: &Section, path: &str) -> Option<Artifacts> {
        let entries = self.map(entry.node, path)?;
        let name = path.split('.').nth(1).unwrap_or(path);
        let mut found = Artifacts::default();
        let mut is_wrong = false;
        for Entry { key, node, .. } in self.known(entries, section, name) {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "files" => {
                    let before = self.problems.len();
                    found.files = self.strings(node, &path);
                    is_wrong = self.problems.len() > before;
                }
                "name" => found.name = self.optional(node, &path),
                "discard-paths" => found.discard_paths = self.boolean(node, &path),
                "base-directory" => found.base_directory = self.optional(node, &path),
                "exclude-paths" => found.exclude_paths = self.strings(node, &path),
                "enable-symlinks" => found.enable_symlinks = self.boolean(node, &path),
                "s3-prefix" => found.s3_prefix = self.optional(node, &path),
                _ => self.secondary(node, &path),
            }
        }
        if found.files.is_empty() && !is_wrong {
            self.missing(format!("{path}.files"), entry.place);
        }
        Some(found)
    }

    fn secondary(&mut self, node: Node, path: &str) {
        for entry in self.named(node, path, MOST_SECONDARY_ARTIFACTS) {
            let (identifier, place) = (entry.key.clone(), entry.place);
            self.identifier(&identifier, place);
            let path = format!("{path}.{identifier}");
            if let Some(artifacts) = self.some_artifacts(entry, &SECONDARY_ARTIFACTS, &path) {
                let found = SecondaryArtifacts { identifier, place, artifacts };
                self.spec.secondary_artifacts.push(found);
            }
        }
    }

    fn identifier(&mut self, name: &str, place: Place) {
        let is_fine = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
        if name.is_empty() || !name.bytes().all(is_fine) {
            self.problems.push(Fault::Identifier { name: name.to_owned() }.at(place));
        }
    }
}
