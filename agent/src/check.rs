//! What can be known of a buildspec file without running it.
//!
//! Read in this order: [`rule`] (all that is looked for), here (what comes out), `outline` and
//! `script` (the file, and its commands, as far as they can be read), then a module for each
//! family of rules, and [`switches`] (what a person wants to hear of).
//!
//! **Architecture invariant:** pure, in bounded time: bytes in, findings out, in an order that
//! depends on the bytes alone. Rules read what is written in the file, and nothing else: no other
//! file, no environment, and no service. A rule that cannot be sure says nothing.
//!
//! **Architecture invariant:** no finding repeats a value that looks like a secret.

mod accidents;
mod bashisms;
mod deprecated;
mod exports;
mod lines;
mod outline;
mod patterns;
mod problems;
mod reach;
pub mod rule;
mod script;
mod secrets;
mod status;
pub mod switches;

use std::{borrow::Cow, collections::HashSet};

use crate::{
    buildspec::{Buildspec, ShellName},
    check::{lines::Lines, outline::Outline, rule::Level, switches::Switches},
    secret::Secret,
    source::Place,
    yaml,
};

/// Something in a file that is wrong, or may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it starts, if it is in one place.
    pub place: Option<Place>,
    /// Behind its last character, if that is known.
    pub end: Option<Place>,
    /// The name of the rule: one of [`rule::all`], or what another program calls its own.
    pub rule: Cow<'static, str>,
    /// How bad it is; what has none is not told of unless someone asks for it.
    pub level: Option<Level>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What `CodeBuild` says of it, if that is known.
    pub aws: Option<String>,
}

/// All that was found in a file.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    findings: Vec<Finding>,
    /// The commands for which a POSIX shell is asked, for a closer look by others.
    pub scripts: Vec<Script>,
    /// The values in the file that look like secrets: who shows its lines must mask them.
    pub secrets: Vec<Secret>,
    allowed: switches::Comments,
}

/// A command, and the place of each of its characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What the shell gets.
    pub text: String,
    /// Which shell gets it.
    pub shell: ShellName,
    /// Where it starts.
    start: Place,
    /// The place of each character; none if they could not be found in the file.
    places: Option<Vec<Place>>,
}

/// Looks for everything.
pub fn check(bytes: &[u8]) -> Checked {
    let (spec, problems) = Buildspec::inspect(bytes);
    let lines = Lines::of(bytes);
    let tree = yaml::parse(bytes).ok();
    let outline = Outline::of(tree.as_ref());
    let scripts = scripts(&outline, &lines);
    let file = File { lines: &lines, outline: &outline, scripts: &scripts };
    let mut findings = problems::findings(&spec, problems, &file);
    for rules in FAMILIES {
        findings.extend(rules(&file));
    }
    let secrets = secrets::values(&outline);
    let allowed = switches::Comments::of(lines.all());
    let scripts = if outline.is_posix() { scripts } else { Vec::new() };
    Checked { findings, scripts, secrets, allowed }
}

/// The families of rules that look at what is written, whether or not it can be run.
const FAMILIES: [fn(&File<'_>) -> Vec<Finding>; 8] = [
    accidents::findings,
    bashisms::findings,
    deprecated::findings,
    exports::findings,
    patterns::findings,
    reach::findings,
    secrets::findings,
    status::findings,
];

/// A file, as rules see it.
struct File<'f> {
    lines: &'f Lines<'f>,
    outline: &'f Outline<'f>,
    /// The commands in the order of the file, each once.
    scripts: &'f [Script],
}

/// The commands of the file, each once: an alias stands for the same text.
fn scripts(outline: &Outline<'_>, lines: &Lines<'_>) -> Vec<Script> {
    let shell = outline.shell_name();
    let mut seen = HashSet::new();
    let commands = outline.commands().filter(|it| seen.insert(it.place));
    let commands = commands.map(|it| Script {
        text: it.text.to_owned(),
        shell,
        start: it.place,
        places: lines.places(it.place, it.text),
    });
    commands.collect()
}

impl Finding {
    fn new(rule: &'static str, place: impl Into<Option<Place>>, message: String) -> Self {
        let level = rule::named(rule).and_then(|it| it.level);
        let (rule, place) = (Cow::Borrowed(rule), place.into());
        Self { place, end: None, rule, level, message, hint: None, aws: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With the places from the byte `start` to `end` of a command.
    fn within(self, script: &Script, start: usize, end: usize) -> Self {
        let (place, end) = script.span(start, end);
        Self { place: Some(place), end, ..self }
    }
}

impl Checked {
    /// Adds what someone else found.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// What a person wants to hear of, in the order of the file.
    pub fn settle(&self, switches: &Switches) -> Vec<Finding> {
        let asked = self.findings.iter().filter_map(|it| {
            let level = switches.level(&it.rule, it.level)?;
            (!self.allowed.allow(it)).then(|| Finding { level: Some(level), ..it.clone() })
        });
        let mut findings: Vec<Finding> = asked.collect();
        findings.sort();
        // What is wrong in an anchored part is wrong wherever it is used.
        findings.dedup();
        findings
    }
}

impl Script {
    /// The place of the character in `column` of `line`, both counted from 1.
    pub fn place(&self, line: usize, column: usize) -> Place {
        let Some(places) = &self.places else { return self.start };
        let before = self.text.split_inclusive('\n').take(line.saturating_sub(1));
        let index: usize = before.map(|it| it.chars().count()).sum();
        let index = index.saturating_add(column.saturating_sub(1));
        places.get(index).or(places.last()).copied().unwrap_or(self.start)
    }

    /// The places of the bytes `start` and `end`; the latter only if both are in one line.
    fn span(&self, start: usize, end: usize) -> (Place, Option<Place>) {
        let Some(places) = &self.places else { return (self.start, None) };
        let index = |byte: usize| self.text.get(..byte).unwrap_or_default().chars().count();
        let first = places.get(index(start)).copied().unwrap_or(self.start);
        let last = index(end).checked_sub(1).and_then(|it| places.get(it));
        let end = last.filter(|it| it.line == first.line && first <= **it);
        (first, end.map(|it| Place { column: it.column + 1, ..*it }))
    }
}

#[cfg(test)]
mod tests;
