//! What is of the language and left out: its form is checked all the same, by the tables of keys.

use super::Walk;
use crate::{
    buildspec::{
        keys::{Kind, Section, TOP},
        problem::{Fault, WRONG_TYPE},
    },
    source::Place,
    yaml::{Entry, Node, Value},
};

impl Walk {
    /// Checks a key of the file, and notes that it is left out.
    ///
    /// What CodeBuild reads must be of the right types; all else that is wrong is tolerated, since
    /// a build does not need it.
    pub(super) fn left_out(&mut self, entry: Entry, reason: &'static str) {
        self.ignore(&entry, reason);
        let before = self.problems.len();
        let Some(position) = TOP.position(&entry.key) else { return };
        self.check(entry.node, TOP.keys[position].kind, &entry.key);
        let found = self.problems.split_off(before);
        let (wrong, tolerated): (Vec<_>, _) =
            found.into_iter().partition(|it| it.rule == WRONG_TYPE);
        self.problems.extend(wrong);
        self.spec.tolerated.extend(tolerated);
    }

    fn check(&mut self, node: Node, kind: Kind, path: &str) {
        match kind {
            Kind::Text | Kind::Form(_) => drop(self.optional(node, path)),
            Kind::OneOf(values) | Kind::AnyCase(values) => self.check_one_of(node, values, path),
            Kind::Bool => drop(self.boolean(node, path)),
            Kind::Count => self.check_count(node, path),
            Kind::Texts(most) => self.check_texts(node, most, path),
            Kind::Values => self.check_values(node, Kind::Text, path),
            Kind::ValueLists => self.check_values(node, Kind::Texts(usize::MAX), path),
            Kind::Mapping(section) => {
                let place = node.place;
                self.check_section(node, section, place, path);
            }
            Kind::Named(section, most) => {
                for Entry { key, place, node } in self.named(node, path, most) {
                    self.check_section(node, section, place, &format!("{path}.{key}"));
                }
            }
            Kind::List(section) => {
                for item in self.list(node, path) {
                    let place = item.place;
                    self.check_section(item, section, place, path);
                }
            }
        }
    }

    /// Checks a mapping; `place` is where to say that a key is missing.
    fn check_section(&mut self, node: Node, section: &Section, place: Place, path: &str) {
        let Some(entries) = self.map(node, path) else { return };
        for required in section.required {
            let is_there = |it: &Entry| it.key == *required && it.node.value != Value::Null;
            if !entries.iter().any(is_there) {
                self.missing(format!("{path}.{required}"), place);
            }
        }
        let name = path.split('.').next().unwrap_or(path);
        for Entry { key, node, .. } in self.known(entries, section, name) {
            if let Some(position) = section.position(&key) {
                self.check(node, section.keys[position].kind, &format!("{path}.{key}"));
            }
        }
    }

    /// All that is left out and has a choice takes it in any case.
    fn check_one_of(&mut self, node: Node, values: &[&str], path: &str) {
        let place = node.place;
        let Some(value) = self.optional(node, path) else { return };
        if !values.iter().any(|it| it.eq_ignore_ascii_case(&value)) {
            let values: Vec<String> = values.iter().map(|it| format!("`{it}`")).collect();
            let wanted = format!("write one of {}", values.join(", "));
            self.problems.push(Fault::Value { key: path.to_owned(), value, wanted }.at(place));
        }
    }

    fn check_count(&mut self, node: Node, path: &str) {
        let place = node.place;
        let Some(value) = self.optional(node, path) else { return };
        if !value.parse::<u32>().is_ok_and(|it| it > 0) {
            let wanted = "write a whole number from 1 on".to_owned();
            self.problems.push(Fault::Value { key: path.to_owned(), value, wanted }.at(place));
        }
    }

    fn check_texts(&mut self, node: Node, most: usize, path: &str) {
        let texts = self.texts(node, path);
        if let Some((place, _)) = texts.get(most) {
            self.problems.push(Fault::TooMany { key: path.to_owned(), most }.at(*place));
        }
    }

    fn check_values(&mut self, node: Node, kind: Kind, path: &str) {
        for (name, _, node) in self.variable_names(node, path) {
            self.check(node, kind, &format!("{path}.{name}"));
        }
    }
}
