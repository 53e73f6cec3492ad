//! Every decision about a build, before anything runs.
//!
//! **Architecture invariant:** pure. [`run`](crate::run) does what a [`Plan`] says and decides
//! nothing that could have been decided here.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    buildspec::{
        Artifacts, Buildspec, Command, IgnoredKey, PhaseCommands, RuntimeVersion,
        SecondaryArtifacts, ShellName, UnknownKey, Value, Variable, Version,
    },
    choice::Choices,
    environment::{Environment, EnvironmentError, Facts, is_identifier},
    phase::{OnFailure, Phase, Stage},
    secret::Secret,
    source::Place,
};

/// What a build is made of, besides its buildspec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Where the buildspec is.
    pub buildspec_path: PathBuf,
    /// The variables that the caller passes on.
    pub base_environment: Vec<(OsString, OsString)>,
    /// The variables of the project, which win over those of the buildspec.
    pub project_variables: Vec<Variable>,
    /// Variables that were asked for with this build, which win over all others.
    pub overrides: Vec<Variable>,
    /// What nobody must see, besides the secrets of the build.
    pub hidden: Vec<Secret>,
    /// What was chosen where AWS leaves it open.
    pub choices: Choices,
    /// What is true of this build on this machine.
    pub facts: Facts,
    /// The folder that comes first on the PATH.
    pub programs: PathBuf,
    /// Which stages run.
    pub start: Start,
    /// Where an earlier build ended that this one goes on with.
    pub resume: Option<Resume>,
    /// Where a person looks at the build.
    pub breaks: Breaks,
    /// The runtimes that this machine has, of those that the buildspec asks for.
    pub runtime_commands: Vec<RuntimeSelected>,
}

/// Which stages of a build run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// All.
    #[default]
    All,
    /// This phase, and what comes after it.
    From(Phase),
    /// This phase alone; no artifacts are collected.
    Only(Phase),
}

/// Where and with what a build goes on that an earlier one began.
///
/// Kept is what the commands of the earlier one changed. All other variables, secrets above all,
/// are as they are for a build that begins now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The number of the command that runs first, counted from 0 as [`Plan::steps`] does; it is in
    /// the `commands` of its phase.
    pub step: usize,
    /// Where it starts.
    pub directory: PathBuf,
    /// The variables that earlier commands set.
    pub set: Vec<(OsString, OsString)>,
    /// The variables that earlier commands unset.
    pub unset: Vec<OsString>,
}

/// Where a person looks at a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaks {
    /// The numbers of the commands before which that is, counted from 0 as [`Plan::steps`] does.
    pub before: Vec<usize>,
    /// Whether it is after each command that fails, too.
    pub on_failure: bool,
}

/// A version of a runtime that this machine has, and how it gets to be the one that is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeSelected {
    /// The name of the runtime.
    pub name: String,
    /// The version.
    pub version: String,
    /// The variables of its commands.
    pub variables: Vec<(String, String)>,
    /// The commands that select it.
    pub commands: Vec<String>,
}

/// A build that can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    source: PathBuf,
    buildspec_path: PathBuf,
    environment: Environment,
    definitions: Vec<Definition>,
    hidden: Vec<Secret>,
    choices: Choices,
    start: Start,
    resume: Option<Resume>,
    breaks: Breaks,
    runtimes: Vec<Runtime>,
    buildspec: Buildspec,
}

/// The definition of a variable that won over all others of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The name of the variable.
    pub name: String,
    /// Its value, or where that is.
    pub value: Value,
    /// Who says so.
    pub origin: Origin,
}

/// Who defines a variable. Later wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The buildspec.
    Buildspec,
    /// The project.
    Project,
    /// Whoever asked for this build.
    Override,
}

/// A runtime, and the commands that select it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) version: String,
    /// What the shell gets before each command, to set the variables that it needs.
    pub(crate) assignments: String,
    /// The commands, each where the buildspec asks for the runtime.
    pub(crate) commands: Vec<Command>,
}

/// A command of a phase, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Its number among the commands of all phases, counted from 0.
    pub number: usize,
    /// The phase that it is in.
    pub phase: Phase,
    /// The list that it is in.
    pub list: List,
    /// The command.
    pub command: &'a Command,
}

/// A list of commands of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// What runs until something fails.
    Commands,
    /// What runs after that in any case.
    Finally,
}

/// Why a build cannot run.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PlanError {
    /// A variable cannot be.
    #[error(transparent)]
    Environment(EnvironmentError),
    /// There is no command to break before.
    #[error("there is no command {} to break before: the buildspec has {steps}", .step.saturating_add(1))]
    NoSuchBreak {
        /// The number of the command, counted from 0. The text counts from 1, as people do.
        step: usize,
        /// How many commands there are.
        steps: usize,
    },
    /// There is no command to go on with.
    #[error("there is no command {} to go on with, or it is in `finally`", .step.saturating_add(1))]
    NoSuchStep {
        /// The number of the command, counted from 0. The text counts from 1, as people do.
        step: usize,
    },
    /// What output must match for another try is no pattern.
    #[error("the pattern of `on-failure` in `{}` is not a regular expression", .phase.name())]
    Pattern {
        /// The phase that has it.
        phase: Phase,
        /// Why it is none.
        source: regex::Error,
    },
}

impl Plan {
    /// Decides how `buildspec` runs.
    pub fn new(buildspec: Buildspec, inputs: Inputs) -> Result<Self, PlanError> {
        let layers: [&[Variable]; 3] =
            [&buildspec.variables, &inputs.project_variables, &inputs.overrides];
        let environment =
            Environment::new(&inputs.base_environment, &layers, &inputs.facts, &inputs.programs)
                .map_err(PlanError::Environment)?;
        let definitions = definitions(layers);
        let of_the_file = |it: RuntimeSelected| runtime(it, &buildspec);
        let runtimes = inputs.runtime_commands.into_iter().map(of_the_file).collect();
        let Inputs { buildspec_path, facts, hidden, choices, start, resume, breaks, .. } = inputs;
        let source = facts.source;
        let plan = Self {
            source,
            buildspec_path,
            environment,
            definitions,
            hidden,
            choices,
            start,
            resume,
            breaks,
            runtimes,
            buildspec,
        };
        plan.check_steps()?;
        plan.check_patterns()?;
        Ok(plan)
    }

    fn check_steps(&self) -> Result<(), PlanError> {
        let steps = self.steps();
        if let Some(step) = self.breaks.before.iter().find(|it| steps.len() <= **it) {
            return Err(PlanError::NoSuchBreak { step: *step, steps: steps.len() });
        }
        let is_good = |it: &Resume| steps.get(it.step).is_some_and(|it| it.list == List::Commands);
        match &self.resume {
            Some(resume) if !is_good(resume) => Err(PlanError::NoSuchStep { step: resume.step }),
            _ => Ok(()),
        }
    }

    fn check_patterns(&self) -> Result<(), PlanError> {
        for PhaseCommands { phase, on_failure, .. } in &self.buildspec.phases {
            if let Some(OnFailure::Retry(retry)) = on_failure {
                let wrong = |source| PlanError::Pattern { phase: *phase, source };
                retry.regex().map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// What was chosen where AWS leaves it open.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// What else to collect after the build, each by itself.
    pub fn secondary_artifacts(&self) -> &[SecondaryArtifacts] {
        &self.buildspec.secondary_artifacts
    }

    /// The folder with the source: where the first command starts, unless an earlier build began.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Where the first command that runs starts.
    pub fn start_directory(&self) -> &Path {
        self.resume.as_ref().map_or(&self.source, |it| &it.directory)
    }

    /// Where the buildspec is.
    pub fn buildspec_path(&self) -> &Path {
        &self.buildspec_path
    }

    /// The variables of a build that begins now; values of secrets are still to be fetched.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The variables that the buildspec, the project, or whoever asked for this build defines,
    /// sorted by name.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// What nobody must see, besides the secrets of the build.
    pub fn hidden(&self) -> &[Secret] {
        &self.hidden
    }

    /// The shell that the buildspec asks for.
    pub fn shell_asked_for(&self) -> Option<ShellName> {
        self.buildspec.shell
    }

    /// Where it asks for it.
    pub fn shell_place(&self) -> Option<Place> {
        self.buildspec.shell_place
    }

    /// The shell that runs the commands.
    pub fn shell(&self) -> ShellName {
        self.buildspec.shell.unwrap_or(ShellName::Sh)
    }

    /// Whether variables and the working directory are carried from one command to the next.
    pub fn carries(&self) -> bool {
        self.buildspec.version == Version::V0_2
    }

    /// The phases of the file, in the order in which they run.
    pub fn phases(&self) -> &[PhaseCommands] {
        &self.buildspec.phases
    }

    /// What `phase` runs until something fails.
    pub fn commands(&self, phase: Phase) -> &[Command] {
        self.buildspec.phase(phase).map_or(&[], |it| &it.commands)
    }

    /// What `phase` runs at its end in any case.
    pub fn finally(&self, phase: Phase) -> &[Command] {
        self.buildspec.phase(phase).map_or(&[], |it| &it.finally)
    }

    /// All commands, in the order in which they run if none fails.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let mut steps = Vec::new();
        for PhaseCommands { phase, commands, finally, .. } in &self.buildspec.phases {
            let commands = commands.iter().map(|it| (List::Commands, it));
            for (list, command) in commands.chain(finally.iter().map(|it| (List::Finally, it))) {
                steps.push(Step { number: steps.len(), phase: *phase, list, command });
            }
        }
        steps
    }

    /// Who runs the commands of `phase`, if that is not who runs rbuild.
    pub fn user(&self, phase: Phase) -> Option<&str> {
        let of_phase = self.buildspec.phase(phase).and_then(|it| it.run_as.as_ref());
        of_phase.or(self.buildspec.run_as.as_ref()).map(|it| it.name.as_str())
    }

    /// What `stage` asks for if it fails.
    pub fn on_failure(&self, stage: Stage) -> Option<&OnFailure> {
        let Stage::Commands(phase) = stage else { return None };
        self.buildspec.phase(phase)?.on_failure.as_ref()
    }

    /// Which stages were asked for.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Whether `stage` runs when the build gets there.
    pub fn runs(&self, stage: Stage) -> bool {
        let Stage::Commands(phase) = stage else {
            let is_left_out = matches!(self.start, Start::Only(_));
            return stage == Stage::DownloadSource || !is_left_out;
        };
        let is_asked_for = match self.start {
            Start::All => true,
            Start::From(first) => first <= phase,
            Start::Only(only) => phase == only,
        };
        let is_over = self
            .resume
            .as_ref()
            .is_some_and(|it| self.steps().get(it.step).is_some_and(|step| phase < step.phase));
        is_asked_for && !is_over
    }

    /// Where an earlier build ended that this one goes on with.
    pub fn resume(&self) -> Option<&Resume> {
        self.resume.as_ref()
    }

    /// Where a person looks at the build.
    pub fn breaks(&self) -> &Breaks {
        &self.breaks
    }

    /// The runtimes that are selected before the first phase.
    pub(crate) fn runtimes(&self) -> &[Runtime] {
        &self.runtimes
    }

    /// The runtimes that the buildspec asks for, if this machine cannot select any of them and
    /// that matters: `docker` is no runtime of today, and every machine may pass over it.
    pub(crate) fn skipped_runtimes(&self) -> Option<&[RuntimeVersion]> {
        let matters = self.buildspec.runtimes.iter().any(|it| it.name != "docker");
        (matters && self.runtimes.is_empty()).then_some(&self.buildspec.runtimes)
    }

    /// The names of the variables to tell at the end of the build, and of those that are not to
    /// be: credentials, secrets of the project, and what no shell can have (`CodeBuild` user guide,
    /// "Build specification reference", `env/exported-variables`).
    pub fn exported(&self) -> (Vec<&str>, Vec<&str>) {
        let mut names: Vec<&str> = Vec::new();
        for it in &self.buildspec.exported {
            if !names.contains(&it.name.as_str()) {
                names.push(&it.name);
            }
        }
        names.into_iter().partition(|name| self.is_exportable(name))
    }

    fn is_exportable(&self, name: &str) -> bool {
        let is_secret_of_project = self.definitions.iter().any(|it| {
            it.name == name
                && it.origin != Origin::Buildspec
                && matches!(it.value, Value::Secret(_))
        });
        is_identifier(name) && !name.starts_with("AWS_") && !is_secret_of_project
    }

    /// What to collect after the build.
    pub fn artifacts(&self) -> Option<&Artifacts> {
        self.buildspec.artifacts.as_ref()
    }

    /// The keys that mean nothing.
    pub fn unknown_keys(&self) -> &[UnknownKey] {
        &self.buildspec.unknown_keys
    }

    /// The keys of the language that are left out.
    pub fn ignored_keys(&self) -> &[IgnoredKey] {
        &self.buildspec.ignored_keys
    }
}

/// The definition of each variable that counts, sorted by name.
fn definitions(layers: [&[Variable]; 3]) -> Vec<Definition> {
    let origins = [Origin::Buildspec, Origin::Project, Origin::Override];
    let mut winners = BTreeMap::new();
    for (layer, origin) in layers.into_iter().zip(origins) {
        for Variable { name, value, .. } in layer {
            winners.insert(name, (value, origin));
        }
    }
    let definition = |(name, (value, origin)): (&String, (&Value, Origin))| Definition {
        name: name.clone(),
        value: value.clone(),
        origin,
    };
    winners.into_iter().map(definition).collect()
}

fn runtime(selected: RuntimeSelected, buildspec: &Buildspec) -> Runtime {
    let RuntimeSelected { name, version, variables, commands } = selected;
    let place = buildspec.runtimes.iter().find(|it| it.name == name).map(|it| it.place);
    let place = place.unwrap_or(Place { line: 1, column: 1 });
    let mut assignments = String::new();
    for (name, value) in variables.iter().filter(|(name, _)| is_identifier(name)) {
        assignments += &[name, "='", &value.replace('\'', r"'\''"), "'\n"].concat();
    }
    let commands = commands.into_iter().map(|text| Command { text, place }).collect();
    Runtime { name, version, assignments, commands }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buildspec::ExportedName, secret::Reference};

    fn plan(text: &str, overrides: &[(&str, &str)]) -> Result<Plan, PlanError> {
        let plain = |(name, value): &(&str, &str)| Variable {
            name: (*name).to_owned(),
            value: Value::Plain((*value).to_owned()),
            place: None,
        };
        let overrides = overrides.iter().map(plain).collect();
        let facts = Facts { source: "/src".into(), ..Facts::default() };
        let inputs = Inputs { overrides, facts, ..Inputs::default() };
        Plan::new(Buildspec::parse(text.as_bytes()).unwrap(), inputs)
    }

    #[test]
    fn commands_are_found_by_phase_and_the_shell_is_sh_unless_asked() {
        let plan =
            plan("version: 0.2\nphases: {build: {commands: a, finally: [b, c]}}", &[]).unwrap();
        let texts = |it: &[Command]| it.iter().map(|it| it.text.clone()).collect::<String>();
        assert_eq!(texts(plan.commands(Phase::Build)), "a");
        assert_eq!(texts(plan.finally(Phase::Build)), "bc");
        assert_eq!(texts(plan.commands(Phase::Install)), "");
        assert_eq!(plan.shell(), ShellName::Sh);
        assert_eq!(plan.source(), Path::new("/src"));
    }

    #[test]
    fn flags_win_over_the_buildspec() {
        let text = "version: 0.2\nphases: {}\nenv: {shell: bash, variables: {A: file}}";
        let planned = plan(text, &[("A", "flag")]).unwrap();
        assert_eq!(planned.environment().value("A"), Some("flag".as_ref()));
        assert_eq!(planned.shell(), ShellName::Bash);
        let refused = plan(text, &[("CODEBUILD_CI", "false")]);
        let reserved = EnvironmentError::Reserved { name: "CODEBUILD_CI".into() };
        assert_eq!(refused, Err(PlanError::Environment(reserved)));
    }

    const PHASES: &str = "version: 0.2
phases:
  build: {commands: [c, d], finally: [e]}
  install: {commands: [a], finally: [b]}
";

    fn with(inputs: Inputs) -> Result<Plan, PlanError> {
        Plan::new(Buildspec::parse(PHASES.as_bytes()).unwrap(), inputs)
    }

    #[test]
    fn steps_are_numbered_in_the_order_in_which_they_run() {
        let plan = plan(PHASES, &[]).unwrap();
        let steps = plan.steps().into_iter().map(|it| {
            let Step { number, phase, list, command } = it;
            format!("{number} {phase} {list:?} {}", command.text)
        });
        assert_eq!(
            steps.collect::<Vec<_>>(),
            [
                "0 INSTALL Commands a",
                "1 INSTALL Finally b",
                "2 BUILD Commands c",
                "3 BUILD Commands d",
                "4 BUILD Finally e"
            ]
        );
    }

    #[test]
    fn steps_that_are_not_there_are_refused() {
        let before = |before: &[usize]| {
            let breaks = Breaks { before: before.to_vec(), on_failure: false };
            with(Inputs { breaks, ..Inputs::default() }).map_err(|it| it.to_string())
        };
        let none = "there is no command 6 to break before: the buildspec has 5";
        assert!(before(&[0, 4]).is_ok());
        assert_eq!(before(&[0, 5]).unwrap_err(), none);
        assert!(before(&[usize::MAX]).is_err());
        for (step, is_good) in [
            (0, true),
            (1, false),
            (2, true),
            (3, true),
            (4, false),
            (5, false),
            (usize::MAX, false),
        ] {
            let resume = Some(Resume { step, ..Resume::default() });
            let made = with(Inputs { resume, ..Inputs::default() });
            assert_eq!(made.is_ok(), is_good, "{step}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        let mut buildspec = Buildspec::parse(PHASES.as_bytes()).unwrap();
        let pattern = Some("(".to_owned());
        buildspec.phases[1].on_failure =
            Some(OnFailure::Retry(crate::phase::Retry { count: 1, pattern }));
        let refused = Plan::new(buildspec, Inputs::default()).unwrap_err().to_string();
        assert_eq!(refused, "the pattern of `on-failure` in `build` is not a regular expression");
    }

    #[test]
    fn what_runs_depends_on_what_was_asked_for_and_on_where_another_ended() {
        let stages = [
            Stage::DownloadSource,
            Stage::Commands(Phase::Install),
            Stage::Commands(Phase::PreBuild),
            Stage::Commands(Phase::Build),
            Stage::Commands(Phase::PostBuild),
            Stage::UploadArtifacts,
        ];
        for (start, step, want) in [
            (Start::All, None, "111111"),
            (Start::From(Phase::PreBuild), None, "101111"),
            (Start::Only(Phase::PreBuild), None, "101000"),
            (Start::All, Some(0), "111111"),
            (Start::All, Some(2), "100111"),
            (Start::Only(Phase::PreBuild), Some(2), "100000"),
        ] {
            let resume = step.map(|step| Resume { step, ..Resume::default() });
            let plan = with(Inputs { start, resume, ..Inputs::default() }).unwrap();
            let runs: String =
                stages.iter().map(|it| if plan.runs(*it) { '1' } else { '0' }).collect();
            assert_eq!(runs, want, "{start:?} {step:?}");
        }
    }

    #[test]
    fn the_definition_that_wins_is_known_with_its_origin() {
        let literal = |name: &str, value: &str| Variable {
            name: name.into(),
            value: Value::Plain(value.into()),
            place: None,
        };
        let secret = |name: &str| Variable {
            name: name.into(),
            value: Value::Secret(Reference::Parameter(format!("/{name}"))),
            place: None,
        };
        let exported =
            |name: &str| ExportedName { name: name.into(), place: Place { line: 1, column: 1 } };
        let mut buildspec = Buildspec::parse(PHASES.as_bytes()).unwrap();
        buildspec.variables = vec![literal("A", "1"), secret("B"), secret("C"), literal("C", "2")];
        let names = ["D", "A", "B", "C", "E", "F", "A", "AWS_X", "a-b", "new"];
        buildspec.exported = names.map(exported).to_vec();
        let inputs = Inputs {
            project_variables: vec![secret("D"), secret("E"), literal("A", "2")],
            overrides: vec![literal("E", "3"), secret("F")],
            ..Inputs::default()
        };
        let plan = Plan::new(buildspec, inputs).unwrap();
        let drawn = plan.definitions().iter().map(|it| {
            let value = match &it.value {
                Value::Plain(value) => value.clone(),
                Value::Secret(reference) => format!("{reference:?}"),
            };
            format!("{} {:?} {value}\n", it.name, it.origin)
        });
        expect_test::expect![[r#"
            A Project 2
            B Buildspec Parameter("/B")
            C Buildspec 2
            D Project Parameter("/D")
            E Override 3
            F Override Parameter("/F")
        "#]]
        .assert_eq(&drawn.collect::<String>());
        let want = (vec!["A", "B", "C", "E", "new"], vec!["D", "F", "AWS_X", "a-b"]);
        assert_eq!(plan.exported(), want);
    }
}
