//! What a buildspec says, as far as it can be read, with the place of everything.
//!
//! **Architecture invariant:** nothing is judged here: what is not what it should be is left out,
//! and the parser has said so. So rules find what they can in a file that cannot be run, too.

use crate::{
    buildspec::ShellName,
    phase::{OnFailure, Phase, Retry},
    source::Place,
    yaml::{Entry, Node, Value},
};

/// A buildspec, as it is written.
#[derive(Debug, Default)]
pub(super) struct Outline<'t> {
    pub(super) root: Option<&'t Node>,
    pub(super) shell: Option<Text<'t>>,
    /// `env.variables`.
    pub(super) variables: Vec<Variable<'t>>,
    /// The names of `env.parameter-store` and `env.secrets-manager`.
    pub(super) fetched: Vec<&'t str>,
    pub(super) exported: Vec<Text<'t>>,
    /// In the order in which they run.
    pub(super) phases: Vec<PhaseOutline<'t>>,
    /// Those of the build, then the secondary ones.
    pub(super) artifacts: Vec<ArtifactsOutline<'t>>,
}

/// Some text, and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t> {
    pub(super) text: &'t str,
    pub(super) place: Place,
}

/// A variable with its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variable<'t> {
    pub(super) name: &'t str,
    pub(super) value: Text<'t>,
}

/// A phase.
#[derive(Debug)]
pub(super) struct PhaseOutline<'t> {
    pub(super) phase: Phase,
    pub(super) place: Place,
    pub(super) on_failure: Option<OnFailure>,
    /// `runtime-versions`: the names.
    pub(super) runtimes: Vec<Text<'t>>,
    pub(super) commands: Vec<Item<'t>>,
    pub(super) finally: Vec<Item<'t>>,
}

/// An item of a list of commands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'t> {
    /// A command.
    Command(Text<'t>),
    /// Nothing at all.
    Null(Place),
}

/// `artifacts`, or one of the secondary ones.
#[derive(Debug, Default)]
pub(super) struct ArtifactsOutline<'t> {
    pub(super) files: Vec<Text<'t>>,
    pub(super) base_directory: Option<Text<'t>>,
    pub(super) exclude_paths: Vec<Text<'t>>,
}

impl<'t> Outline<'t> {
    pub(super) fn of(root: Option<&'t Node>) -> Self {
        let Some(root) = root else { return Self::default() };
        let env = value(root, "env");
        let in_env = |key: &str| env.and_then(|it| value(it, key));
        let fetched = ["parameter-store", "secrets-manager"].into_iter().filter_map(in_env);
        Self {
            root: Some(root),
            shell: in_env("shell").and_then(text),
            variables: in_env("variables").map(variables).unwrap_or_default(),
            fetched: fetched.flat_map(entries).map(|it| it.key.as_str()).collect(),
            exported: in_env("exported-variables").map(texts).unwrap_or_default(),
            phases: value(root, "phases").map(phases).unwrap_or_default(),
            artifacts: value(root, "artifacts").map(artifacts).unwrap_or_default(),
        }
    }

    /// All commands, in the order in which they run.
    pub(super) fn commands(&self) -> impl Iterator<Item = Text<'t>> {
        self.phases.iter().flat_map(PhaseOutline::texts)
    }

    pub(super) fn phase(&self, phase: Phase) -> Option<&PhaseOutline<'t>> {
        self.phases.iter().find(|it| it.phase == phase)
    }

    /// The shell for which commands are written.
    pub(super) fn shell_name(&self) -> ShellName {
        self.shell.and_then(|it| ShellName::named(it.text)).unwrap_or(ShellName::Sh)
    }

    /// Whether commands are for a shell of the POSIX family.
    pub(super) fn is_posix(&self) -> bool {
        let is_known = self.shell.is_none_or(|it| ShellName::named(it.text).is_some());
        is_known && self.shell_name() != ShellName::Pwsh
    }
}

impl<'t> PhaseOutline<'t> {
    /// The commands of both lists.
    pub(super) fn texts(&self) -> impl Iterator<Item = Text<'t>> {
        self.commands.iter().chain(&self.finally).filter_map(|it| match it {
            Item::Command(text) => Some(*text),
            Item::Null(_) => None,
        })
    }
}

impl Item<'_> {
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Command(text) => text.place,
            Self::Null(place) => *place,
        }
    }
}

/// The keys of a mapping; none if it is something else.
pub(super) fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null | Value::Text(_) | Value::List(_) => &[],
    }
}

/// The entry of that name in a mapping.
pub(super) fn entry<'t>(node: &'t Node, key: &str) -> Option<&'t Entry> {
    entries(node).iter().find(|it| it.key == key)
}

/// What a mapping has under that name.
pub(super) fn value<'t>(node: &'t Node, key: &str) -> Option<&'t Node> {
    entry(node, key).map(|it| &it.node)
}

/// The items of a list; anything else is a list of one.
pub(super) fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Null => &[],
        Value::Text(_) | Value::Map(_) => std::slice::from_ref(node),
    }
}

pub(super) fn text(node: &Node) -> Option<Text<'_>> {
    match &node.value {
        Value::Text(text) => Some(Text { text, place: node.place }),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

fn texts(node: &Node) -> Vec<Text<'_>> {
    items(node).iter().filter_map(text).collect()
}

fn variables(node: &Node) -> Vec<Variable<'_>> {
    let variables = entries(node).iter();
    variables.filter_map(|it| Some(Variable { name: &it.key, value: text(&it.node)? })).collect()
}

fn phases(node: &Node) -> Vec<PhaseOutline<'_>> {
    let phases = entries(node).iter();
    let mut phases: Vec<PhaseOutline<'_>> = phases
        .filter_map(|it| Phase::named(&it.key).map(|phase| phase_outline(phase, it)))
        .collect();
    phases.sort_by_key(|it| it.phase);
    phases
}

fn phase_outline(phase: Phase, entry: &Entry) -> PhaseOutline<'_> {
    let body = &entry.node;
    let list = |key: &str| value(body, key).map(commands).unwrap_or_default();
    let runtimes = value(body, "runtime-versions").map(entries).unwrap_or_default();
    PhaseOutline {
        phase,
        place: entry.place,
        on_failure: value(body, "on-failure").and_then(text).and_then(|it| on_failure(it.text)),
        runtimes: runtimes.iter().map(|it| Text { text: &it.key, place: it.place }).collect(),
        commands: list("commands"),
        finally: list("finally"),
    }
}

/// What a phase asks for. How often it is tried again does not matter here.
fn on_failure(text: &str) -> Option<OnFailure> {
    let text = text.to_ascii_uppercase();
    match text.as_str() {
        "ABORT" => Some(OnFailure::Abort),
        "CONTINUE" => Some(OnFailure::Continue),
        text if text.starts_with("RETRY") => {
            Some(OnFailure::Retry(Retry { count: 3, pattern: None }))
        }
        _ => None,
    }
}

fn commands(node: &Node) -> Vec<Item<'_>> {
    let items = items(node).iter();
    items
        .filter_map(|it| match it.value {
            Value::Null => Some(Item::Null(it.place)),
            _ => text(it).map(Item::Command),
        })
        .collect()
}

fn artifacts(node: &Node) -> Vec<ArtifactsOutline<'_>> {
    let secondary = value(node, "secondary-artifacts").map(entries).unwrap_or_default();
    let all = std::iter::once(node).chain(secondary.iter().map(|it| &it.node));
    all.map(|node| ArtifactsOutline {
        files: value(node, "files").map(texts).unwrap_or_default(),
        base_directory: value(node, "base-directory").and_then(text),
        exclude_paths: value(node, "exclude-paths").map(texts).unwrap_or_default(),
    })
    .collect()
}
