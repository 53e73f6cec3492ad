//! The flags between the name of an instruction and its arguments.

use super::{
    Place, Switch, Word,
    error::{DockerfileError, ErrorKind},
    lines::Part,
    suggest,
    words::ExpandError,
};

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// One value.
    One,
    /// A value each time that it is given.
    Many,
    /// `true`, `false`, or nothing.
    Switch,
}

/// The flags of an instruction that has them.
pub(super) type Known = &'static [(&'static str, Takes)];

pub(super) const ADD: Known = &[
    ("checksum", Takes::One),
    ("chmod", Takes::One),
    ("chown", Takes::One),
    ("exclude", Takes::Many),
    ("keep-git-dir", Takes::Switch),
    ("link", Takes::Switch),
    ("unpack", Takes::Switch),
];
pub(super) const COPY: Known = &[
    ("chmod", Takes::One),
    ("chown", Takes::One),
    ("exclude", Takes::Many),
    ("from", Takes::One),
    ("link", Takes::Switch),
    ("parents", Takes::Switch),
];
pub(super) const FROM: Known = &[("platform", Takes::One)];
pub(super) const HEALTHCHECK: Known = &[
    ("interval", Takes::One),
    ("retries", Takes::One),
    ("start-interval", Takes::One),
    ("start-period", Takes::One),
    ("timeout", Takes::One),
];
pub(super) const RUN: Known = &[
    ("device", Takes::Many),
    ("mount", Takes::Many),
    ("network", Takes::One),
    ("security", Takes::One),
];

/// The flags of one instruction, each of them known and complete.
pub(super) struct Flags {
    flags: Vec<Flag>,
}

struct Flag {
    name: String,
    value: Option<String>,
    place: Place,
    value_place: Place,
}

impl Flags {
    /// Takes the flags off the front of `part`, and gives the rest.
    pub(super) fn split<'a>(
        part: Part<'a>,
        instruction: &'static str,
        known: Known,
    ) -> Result<(Self, Part<'a>), DockerfileError> {
        let mut flags = Self { flags: Vec::new() };
        let mut rest = part.trim();
        while rest.text.starts_with("--") {
            let (word, length) = unquote(rest)?;
            let flag = rest.slice(0, length);
            rest = rest.after(length).trim();
            if word == "--" {
                break;
            }
            let flag = Flag::new(&word, flag);
            flags.check(&flag, instruction, known)?;
            flags.flags.push(flag);
        }
        Ok((flags, rest))
    }

    fn check(
        &self,
        flag: &Flag,
        instruction: &'static str,
        known: Known,
    ) -> Result<(), DockerfileError> {
        let Flag { name, value, .. } = flag;
        let Some((_, takes)) = known.iter().find(|(it, _)| it == name) else {
            let suggestion = suggest::closest(name, known.iter().map(|(it, _)| *it));
            let flag_name = shown(name);
            let kind = ErrorKind::UnknownFlag { instruction, flag: flag_name, suggestion };
            return Err(kind.at(flag.place));
        };
        if *takes != Takes::Many && self.flags.iter().any(|it| it.name == *name) {
            return Err(ErrorKind::FlagTwice { flag: name.clone() }.at(flag.place));
        }
        match (takes, value.as_deref()) {
            (Takes::One | Takes::Many, None) | (Takes::Switch, Some("")) => {
                Err(ErrorKind::FlagWithoutValue { flag: name.clone() }.at(flag.place))
            }
            (Takes::Switch, Some(value)) if switch(value).is_none() => {
                let kind = ErrorKind::FlagNotBoolean { flag: name.clone(), value: shown(value) };
                Err(kind.at(flag.value_place))
            }
            _ => Ok(()),
        }
    }

    /// The value of a flag that takes one; an empty one is none, as in `BuildKit`.
    pub(super) fn one(&self, name: &str) -> Option<Word> {
        self.many(name).into_iter().find(|it| !it.text.is_empty())
    }

    /// The values of a flag that takes many.
    pub(super) fn many(&self, name: &str) -> Vec<Word> {
        let flags = self.flags.iter().filter(|it| it.name == name);
        let word = |it: &Flag| {
            let text = it.value.clone()?;
            Some(Word { text, place: it.value_place })
        };
        flags.filter_map(word).collect()
    }

    /// A switch, if it was set.
    pub(super) fn switch(&self, name: &str) -> Option<Switch> {
        let flag = self.flags.iter().find(|it| it.name == name)?;
        let is_on = flag.value.as_deref().is_none_or(|it| switch(it) == Some(true));
        Some(Switch { is_on, place: flag.place })
    }
}

impl Flag {
    fn new(word: &str, part: Part<'_>) -> Self {
        let word = &word[2..];
        let place = part.place();
        let value_place = part.place_at(part.text.find('=').map_or(0, |it| it + 1));
        match word.split_once('=') {
            Some((name, value)) => {
                Self { name: name.to_owned(), value: Some(value.to_owned()), place, value_place }
            }
            None => Self { name: word.to_owned(), value: None, place, value_place: place },
        }
    }
}

fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The first word of `part` without its quotes, and how many bytes it takes with them.
fn unquote(part: Part<'_>) -> Result<(String, usize), DockerfileError> {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = part.text.char_indices();
    while let Some((at, char)) = chars.next() {
        match quote {
            None if char.is_whitespace() => return Ok((word, at)),
            None if char == '\'' || char == '"' => quote = Some((char, at)),
            Some((open, _)) if char == open => quote = None,
            // Whatever the escape character of the file is, here it is this one.
            _ if char == '\\' => word.extend(chars.next().map(|(_, it)| it)),
            _ => word.push(char),
        }
    }
    match quote {
        Some((quote, at)) => {
            Err(ErrorKind::Words(ExpandError::Quote { quote, at }).at(part.place_at(at)))
        }
        None => Ok((word, part.text.len())),
    }
}

/// A word for a message: cut if nobody would read it.
pub(super) fn shown(word: &str) -> String {
    match word.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}
