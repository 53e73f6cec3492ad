//! What comes before the first phase: what is known is told, secrets are fetched, the shell
//! begins, and runtimes are selected.
//!
//! **Architecture invariant:** values that nobody must see are told as such before anything that
//! could show them happens.

use crate::{
    event::Event,
    secret::{Redactor, Reference, Secret, Wanted},
    shell::{Beginning, CommandLine, ShellError},
};

use super::{Break, Build, Reason};

impl Build<'_> {
    pub(super) fn download(&mut self) -> Result<(), Break> {
        self.hide(self.plan.hidden().to_vec());
        self.describe_source();
        self.fetch()?;
        self.begin()?;
        if let Some(runtimes) = self.plan.skipped_runtimes() {
            (self.emit)(Event::RuntimesSkipped(runtimes));
        }
        if self.plan.resume().is_none() {
            self.select_runtimes()?;
        }
        self.describe_phases();
        Ok(())
    }

    fn describe_source(&mut self) {
        let (plan, emit) = (self.plan, &mut *self.emit);
        let (directory, buildspec) = (plan.source(), plan.buildspec_path());
        emit(Event::SourceFound { directory, buildspec });
        for it in plan.phases().iter().filter(|it| it.commands.is_empty()) {
            emit(Event::PhaseWithoutCommands(it.phase));
        }
        if !plan.unknown_keys().is_empty() {
            emit(Event::UnknownKeys(plan.unknown_keys()));
        }
        if !plan.ignored_keys().is_empty() {
            emit(Event::IgnoredKeys(plan.ignored_keys()));
        }
        if let Some(shell) = plan.shell_asked_for() {
            emit(Event::ShellSelected(shell));
        }
    }

    fn describe_phases(&mut self) {
        let (plan, emit) = (self.plan, &mut *self.emit);
        emit(Event::EnvironmentReady { directory: plan.start_directory() });
        emit(Event::PhasesFound(plan.phases().len()));
        for it in plan.phases() {
            let commands = it.commands.len();
            emit(Event::PhaseFound { phase: it.phase, commands });
        }
    }

    /// Fetches the secrets, and completes the variables of the first command.
    fn fetch(&mut self) -> Result<(), Break> {
        let mut environment = self.plan.environment().clone();
        let wanted = environment.wanted();
        if !wanted.is_empty() {
            (self.emit)(secrets_wanted(wanted));
            let values = self.ports.secrets.fetch(wanted);
            let values = values.map_err(|err| Break::Failed(Reason::Secrets(err)))?;
            self.hide([&values, self.plan.hidden()].concat());
            environment = environment
                .with_secrets(values)
                .map_err(|err| Break::Failed(Reason::Environment(err)))?;
        }
        self.environment = match self.plan.resume() {
            Some(resume) => environment.after(&resume.set, &resume.unset),
            None => environment,
        };
        Ok(())
    }

    fn hide(&mut self, values: Vec<Secret>) {
        if !values.is_empty() {
            let redactor = Redactor::new(values, self.plan.choices().masking);
            (self.emit)(Event::SecretsKnown(&redactor));
        }
    }

    /// Lets the next command be the first one.
    pub(super) fn begin(&mut self) -> Result<(), ShellError> {
        self.ports.shell.begin(Beginning {
            environment: &self.environment,
            directory: self.plan.start_directory(),
            source: self.plan.source(),
        })
    }

    /// Runs the commands that select runtimes. They are rbuild's own: whoever runs the commands of
    /// the buildspec, these are run by who runs rbuild.
    pub(super) fn select_runtimes(&mut self) -> Result<(), Break> {
        let plan = self.plan;
        for runtime in plan.runtimes() {
            let (name, version) = (runtime.name.as_str(), runtime.version.as_str());
            (self.emit)(Event::RuntimeSelected { name, version });
            for command in &runtime.commands {
                let text = format!("{}{}", runtime.assignments, command.text);
                let end = self.execute(command, CommandLine::new(&text), None)?;
                Self::judge(command, end)?;
            }
        }
        Ok(())
    }
}

fn secrets_wanted(wanted: &[Wanted]) -> Event<'static> {
    let is_parameter = |it: &&Wanted| matches!(it.reference, Reference::Parameter(_));
    let parameters = wanted.iter().filter(is_parameter).count();
    Event::SecretsWanted { parameters, secrets: wanted.len() - parameters }
}
