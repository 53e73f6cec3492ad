//! Every decision about a build, before anything runs.
//!
//! **Architecture invariant:** pure. [`run`](crate::run) does what a [`Plan`] says and decides
//! nothing that could have been decided here.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    buildspec::{
        Artifacts, Buildspec, Command, PhaseCommands, SecondaryArtifacts, ShellName, UnknownKey,
        Variable,
    },
    choice::Choices,
    environment::{Environment, EnvironmentError, Facts},
    phase::Phase,
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
    /// What was chosen where AWS leaves it open.
    pub choices: Choices,
    /// What is true of this build on this machine.
    pub facts: Facts,
    /// The folder that comes first on the PATH.
    pub programs: PathBuf,
}

/// A build that can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    source: PathBuf,
    buildspec_path: PathBuf,
    environment: Environment,
    choices: Choices,
    buildspec: Buildspec,
}

impl Plan {
    /// Decides how `buildspec` runs.
    pub fn new(buildspec: Buildspec, inputs: Inputs) -> Result<Self, EnvironmentError> {
        let environment = Environment::new(
            &inputs.base_environment,
            &[&buildspec.variables, &inputs.project_variables, &inputs.overrides],
            &inputs.facts,
            &inputs.programs,
        )?;
        let Inputs { buildspec_path, facts, choices, .. } = inputs;
        Ok(Self { source: facts.source, buildspec_path, environment, choices, buildspec })
    }

    /// What was chosen where AWS leaves it open.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// What else to collect after the build, each by itself.
    pub fn secondary_artifacts(&self) -> &[SecondaryArtifacts] {
        &self.buildspec.secondary_artifacts
    }

    /// The folder with the source: where the first command starts.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Where the buildspec is.
    pub fn buildspec_path(&self) -> &Path {
        &self.buildspec_path
    }

    /// The variables of the first command.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The shell that the buildspec asks for.
    pub fn shell_asked_for(&self) -> Option<ShellName> {
        self.buildspec.shell
    }

    /// The shell that runs the commands.
    pub fn shell(&self) -> ShellName {
        self.buildspec.shell.unwrap_or(ShellName::Sh)
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

    /// What to collect after the build.
    pub fn artifacts(&self) -> Option<&Artifacts> {
        self.buildspec.artifacts.as_ref()
    }

    /// The keys that mean nothing.
    pub fn unknown_keys(&self) -> &[UnknownKey] {
        &self.buildspec.unknown_keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildspec::Value;

    fn plan(text: &str, overrides: &[(&str, &str)]) -> Result<Plan, EnvironmentError> {
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
        assert_eq!(refused, Err(EnvironmentError::Reserved { name: "CODEBUILD_CI".into() }));
    }
}
