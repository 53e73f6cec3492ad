//! What `--dry-run` prints: the plan of a build.
//!
//! **Architecture invariant:** pure, and shows no value that is kept in a store of secrets.

use std::{collections::BTreeMap, fmt::Write as _};

use rbuild_agent::{
    artifacts::Packaging,
    buildspec::{self, Buildspec, Command, PhaseCommands, RuntimeVersion, Value},
    phase::{OnFailure, Phase},
    plan::{Plan, Start},
    secret::{CREDENTIALS, Reference},
};
use serde_json::{Map, json};

use super::{
    buildspec::Source,
    project::Target,
    settings::{Destination, Settings},
};
use crate::console;

/// What is printed.
pub(super) struct DryRun<'a> {
    pub(super) settings: &'a Settings,
    pub(super) source: &'a Source,
    pub(super) plan: &'a Plan,
    /// What the plan was made from.
    pub(super) buildspec: &'a Buildspec,
    /// The number of the first command, counted from 0, if the build goes on.
    pub(super) resumed: Option<usize>,
}

/// A command and its number, counted from 1.
struct Step<'a> {
    number: usize,
    phase: Phase,
    is_finally: bool,
    command: &'a Command,
    runs: bool,
}

/// A variable, and who says so.
struct Defined<'a> {
    level: &'static str,
    value: &'a Value,
}

impl DryRun<'_> {
    /// The plan for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |it: String| {
            text.push_str(&console::visible(&it));
            text.push('\n');
        };
        line(format!("source     {}", self.plan.source().display()));
        for (id, folder) in &self.settings.sources.secondary {
            line(format!("  {id}  {}", folder.display()));
        }
        line(format!("buildspec  {}", self.source.shown));
        line(format!("shell      {}", self.plan.shell().name()));
        if let Some(user) = &self.buildspec.run_as {
            line(format!("run as     {}", user.name));
        }
        if let Some(timeout) = self.settings.timeout {
            line(format!("timeout    {}", console::size::time(timeout)));
        }
        for RuntimeVersion { name, version, .. } in &self.buildspec.runtimes {
            line(format!("runtime    {name} {version}"));
        }
        let parts = [
            self.phase_lines(),
            self.variable_lines(),
            self.artifact_lines(),
            self.ignored_lines(),
        ];
        parts.into_iter().flatten().for_each(line);
        text
    }

    fn phase_lines(&self) -> Vec<String> {
        let steps = self.steps();
        let width = steps.len().to_string().len();
        let mut lines = Vec::new();
        for phase in self.plan.phases() {
            let mut title = format!("\n{}", phase.phase);
            if let Some(user) = &phase.run_as {
                let _ = write!(title, ", run as {}", user.name);
            }
            if let Some(on_failure) = &phase.on_failure {
                let _ = write!(title, ", on failure {}", told(on_failure));
            }
            if !self.runs(phase.phase) {
                title.push_str(": left out");
            }
            lines.push(title);
            for step in steps.iter().filter(|it| it.phase == phase.phase) {
                let number = step.number;
                let finally = if step.is_finally { "finally: " } else { "" };
                let is_marked = !step.runs && self.runs(step.phase);
                let note = if is_marked { "(left out) " } else { "" };
                let place = format!("{}:{}", self.source.shown, step.command.place.line);
                let mut texts = step.command.text.trim_end().lines();
                let first = texts.next().unwrap_or_default();
                lines.push(format!("  {number:>width$}  {note}{finally}{first}  ({place})"));
                let indent = " ".repeat(width + 4);
                lines.extend(texts.map(|it| format!("{indent}{it}")));
            }
        }
        lines
    }

    fn variable_lines(&self) -> Vec<String> {
        let variables = self.variables();
        if variables.is_empty() && self.buildspec.exported.is_empty() {
            return Vec::new();
        }
        let mut lines = vec!["\nvariables".to_owned()];
        for (name, Defined { level, value }) in variables {
            lines.push(match value {
                Value::Plain(_) if CREDENTIALS.contains(&name) => {
                    format!("  {name}=***  ({level})")
                }
                Value::Plain(value) => {
                    format!("  {name}={}  ({level})", value.replace('\n', "\n    "))
                }
                Value::Secret(reference) => {
                    let (store, name_there) = place_of(reference);
                    format!("  {name} from {store} {name_there}  ({level})")
                }
            });
        }
        let exported = self.buildspec.exported.iter().map(|it| it.name.as_str());
        let exported: Vec<&str> = exported.collect();
        if !exported.is_empty() {
            lines.push(format!("  exported at the end: {}", exported.join(", ")));
        }
        lines
    }

    /// What the buildspec asks for and rbuild does not do.
    fn ignored_lines(&self) -> Vec<String> {
        let ignored = self.buildspec.ignored_keys.iter();
        let mut lines: Vec<String> = ignored
            .map(|it| {
                let line = it.place.line;
                format!("  {}: {}  ({}:{line})", it.key, it.reason, self.source.shown)
            })
            .collect();
        if !lines.is_empty() {
            lines.insert(0, "\nleft out".to_owned());
        }
        lines
    }

    fn artifact_lines(&self) -> Vec<String> {
        let of = |artifacts: &buildspec::Artifacts, id: Option<&str>| {
            let mut told = format!("  {}", artifacts.files.join(", "));
            if let Some(folder) = &artifacts.base_directory {
                let _ = write!(told, " in {folder}");
            }
            if !artifacts.exclude_paths.is_empty() {
                let _ = write!(told, " without {}", artifacts.exclude_paths.join(", "));
            }
            if let Some(name) = &artifacts.name {
                let _ = write!(told, ", named {name}");
            }
            format!("{told} to {}", self.destination(id))
        };
        let is_alone = matches!(self.settings.start, Start::Only(_));
        let primary = self.plan.artifacts().filter(|_| !is_alone);
        let mut lines: Vec<String> = primary.map(|it| of(it, None)).into_iter().collect();
        if !is_alone {
            let secondary = self.plan.secondary_artifacts().iter();
            lines.extend(secondary.map(|it| {
                format!("  {}:{}", it.identifier, of(&it.artifacts, Some(&it.identifier)))
            }));
        }
        if !lines.is_empty() {
            lines.insert(0, "\nartifacts".to_owned());
        }
        lines
    }

    /// Where artifacts go.
    fn destination(&self, id: Option<&str>) -> String {
        let form = |packaging| match packaging {
            Packaging::Folder => "files",
            Packaging::Zip => "zip",
        };
        match &self.settings.destination {
            Destination::Folder { asked: Some(folder), packaging } => {
                format!("{} ({})", folder.display(), form(*packaging))
            }
            Destination::Folder { asked: None, packaging } => {
                format!("rbuild's own folder ({})", form(*packaging))
            }
            Destination::Uri { uri, packaging, .. } => format!("{uri} ({})", form(*packaging)),
            Destination::Project { primary, secondary } => {
                let own = secondary.iter().find(|it| Some(it.0.as_str()) == id).map(|it| &it.1);
                match if id.is_some() { own } else { primary.as_ref() } {
                    Some(target) => format!("{} ({})", uri(target), form(target.packaging)),
                    None => "nowhere".to_owned(),
                }
            }
            Destination::Nowhere => "nowhere".to_owned(),
        }
    }

    /// The plan for programs.
    pub(super) fn json(&self) -> String {
        let steps = self.steps();
        let variables = self.variables();
        let sources = self.settings.sources.secondary.iter();
        let sources = sources.map(|(id, it)| (id.clone(), it.display().to_string().into()));
        let plan = json!({
            "version": 1,
            "source": self.plan.source().display().to_string(),
            "secondarySources": sources.collect::<Map<_, _>>(),
            "buildspec": self.source.shown,
            "shell": self.plan.shell().name(),
            "runAs": self.buildspec.run_as.as_ref().map(|it| &it.name),
            "timeoutSeconds": self.settings.timeout.map(|it| it.as_secs()),
            "runtimes": list(&self.buildspec.runtimes, |it| {
                json!({"name": it.name, "version": it.version})
            }),
            "phases": list(self.plan.phases(), |it| self.phase_json(it)),
            "commands": list(&steps, step_json),
            "variables": list(&variables, |(name, it)| variable_json(name, it)),
            "exportedVariables": list(&self.buildspec.exported, |it| it.name.as_str().into()),
            "artifacts": self.artifacts_json(),
            "ignored": list(&self.buildspec.ignored_keys, |it| it.key.as_str().into()),
        });
        format!("{plan:#}\n")
    }

    fn phase_json(&self, phase: &PhaseCommands) -> serde_json::Value {
        json!({
            "name": phase.phase.name(),
            "runs": self.runs(phase.phase),
            "runAs": phase.run_as.as_ref().map(|it| &it.name),
            "onFailure": phase.on_failure.as_ref().map(told),
        })
    }

    fn artifacts_json(&self) -> Vec<serde_json::Value> {
        if let Start::Only(_) = self.settings.start {
            return Vec::new();
        }
        let of = |it: &buildspec::Artifacts, id: Option<&str>| {
            json!({
                "identifier": id,
                "files": it.files,
                "baseDirectory": it.base_directory,
                "excludePaths": it.exclude_paths,
                "name": it.name,
                "destination": self.destination(id),
            })
        };
        let primary = self.plan.artifacts().map(|it| of(it, None));
        let secondary = self.plan.secondary_artifacts().iter();
        let secondary = secondary.map(|it| of(&it.artifacts, Some(&it.identifier)));
        primary.into_iter().chain(secondary).collect()
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let phases = self.plan.phases().iter();
        let all = phases.flat_map(|it| {
            let commands = it.commands.iter().map(move |command| (it.phase, false, command));
            commands.chain(it.finally.iter().map(move |command| (it.phase, true, command)))
        });
        let first = self.resumed.unwrap_or_default();
        all.enumerate()
            .map(|(index, (phase, is_finally, command))| {
                let runs = first <= index && self.runs(phase);
                Step { number: index + 1, phase, is_finally, command, runs }
            })
            .collect()
    }

    fn runs(&self, phase: Phase) -> bool {
        match self.settings.start {
            Start::All => true,
            Start::From(first) => first <= phase,
            Start::Only(only) => only == phase,
        }
    }

    /// The variables of all levels, by name; of each the one that wins.
    fn variables(&self) -> BTreeMap<&str, Defined<'_>> {
        let variables = &self.settings.variables;
        let levels = [
            ("buildspec", self.buildspec.variables.as_slice()),
            ("project", &variables.project),
            ("env file", &variables.env_files),
            ("--env", &variables.flags),
        ];
        let defined = levels.into_iter().flat_map(|(level, all)| {
            all.iter().map(move |it| (it.name.as_str(), Defined { level, value: &it.value }))
        });
        defined.collect()
    }
}

fn list<T>(
    all: impl IntoIterator<Item = T>,
    json: impl Fn(T) -> serde_json::Value,
) -> Vec<serde_json::Value> {
    all.into_iter().map(json).collect()
}

fn step_json(step: &Step<'_>) -> serde_json::Value {
    json!({
        "number": step.number,
        "phase": step.phase.name(),
        "finally": step.is_finally,
        "line": step.command.place.line,
        "column": step.command.place.column,
        "runs": step.runs,
        "command": step.command.text,
    })
}

fn variable_json(name: &str, defined: &Defined<'_>) -> serde_json::Value {
    let level = defined.level;
    match defined.value {
        Value::Plain(_) if CREDENTIALS.contains(&name) => {
            json!({"name": name, "from": level, "value": "***"})
        }
        Value::Plain(value) => json!({"name": name, "from": level, "value": value}),
        Value::Secret(reference) => {
            let (store, name_there) = place_of(reference);
            json!({"name": name, "from": level, "store": store, "reference": name_there})
        }
    }
}

/// The store of a secret, and its name there.
fn place_of(reference: &Reference) -> (&'static str, String) {
    match reference {
        Reference::Parameter(name) => ("parameter-store", name.clone()),
        Reference::SecretsManager(it) => {
            let parts = [&it.json_key, &it.version_stage, &it.version_id];
            let parts = parts.map(|it| it.as_deref().unwrap_or_default()).join(":");
            let name = format!("{}:{parts}", it.secret_id);
            ("secrets-manager", name.trim_end_matches(':').to_owned())
        }
    }
}

fn uri(target: &Target) -> String {
    match &target.path {
        Some(path) => format!("s3://{}/{}", target.bucket, path.trim_matches('/')),
        None => format!("s3://{}", target.bucket),
    }
}

/// As a buildspec has it.
fn told(on_failure: &OnFailure) -> String {
    match on_failure {
        OnFailure::Abort => "ABORT".to_owned(),
        OnFailure::Continue => "CONTINUE".to_owned(),
        OnFailure::Retry(retry) => match &retry.pattern {
            Some(pattern) => format!("RETRY-{}-{pattern}", retry.count),
            None => format!("RETRY-{}", retry.count),
        },
    }
}
