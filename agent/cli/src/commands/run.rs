//! `rbuild run`
//!
//! Read in this order: here, [`settings`] (what flags and files say, of which [`sources`],
//! [`env_file`] and [`project`] read some), [`buildspec`], [`runtimes`], [`mod@facts`],
//! [`environment`], [`git_credentials`], [`artifacts`] and [`mod@place`] (where they go),
//! [`verdict`] (what is said in the end). [`dry_run`] prints what would run; [`resume`] and
//! [`state`] are what is kept between builds.

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    iter::repeat,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rbuild_agent::{
    buildspec::Buildspec,
    event::Event,
    plan::{Inputs, Plan, PlanError, Resume, Start},
    resume::State,
    run::{self, Ports, Report},
    secret::{Redactor, Secret, Secrets},
    shell::{LocalShell, PrivateFolder, Setup, Terminal, check_user},
};
use signal_hook::{
    consts::{SIGHUP, TERM_SIGNALS},
    iterator::Signals,
};

use crate::{
    args::{Global, Run},
    aws::{Asked, Aws},
    console::{self, builds::View, course::Course},
    failure::{Failure, Kind},
    host,
    secrets::{AwsSecrets, FileSecrets},
};

mod artifacts;
mod buildspec;
mod dry_run;
mod env_file;
mod environment;
mod facts;
mod git;
mod git_credentials;
mod place;
mod project;
mod resume;
mod runtimes;
mod settings;
mod sources;
mod state;
mod verdict;

pub(super) use buildspec::LARGEST_BUILDSPEC;

use buildspec::Source;
use dry_run::DryRun;
use facts::facts;
use settings::{Files, Settings};
use verdict::{run_failure, shell_failure, start_failure, tell, verdict};

/// A build that is known, and did not begin.
struct Build<'a> {
    args: &'a Run,
    global: &'a Global,
    settings: Settings,
    /// The source folder, in full and without links: commands see it.
    folder: PathBuf,
    source: Source,
    buildspec: Buildspec,
    /// What is known of the build before, if this one goes on with it.
    state: Option<State>,
    started: Duration,
    /// When it has run too long.
    deadline: Option<Instant>,
}

pub(crate) fn run(args: &Run, global: &Global) -> Result<(), Failure> {
    let started = host::now();
    if !args.debugging.dry_run {
        console::begin(args);
    }
    let mut settings = Settings::new(args, Files::read(args)?)?;
    settings.notes.iter().for_each(|it| console::warn(it));
    let folder = match &settings.sources.primary {
        Some(folder) => source_folder(folder)?,
        None => source_folder(&host::current_folder()?)?,
    };
    for (_, secondary) in &mut settings.sources.secondary {
        *secondary = source_folder(secondary)?;
    }
    let (source, buildspec) = buildspec::read(&settings.buildspec, &folder)?;
    let buildspec = settings.fit(buildspec)?;
    let state = match settings.resumes {
        true => Some(resume::load(&folder, &buildspec.phases)?),
        false => None,
    };
    let deadline = settings.timeout.and_then(|it| Instant::now().checked_add(it));
    let build =
        Build { args, global, settings, folder, source, buildspec, state, started, deadline };
    match args.debugging.dry_run {
        true => build.print(),
        false => build.run(),
    }
}

/// The folder that comes first on the commands' PATH, and the build's number.
struct Own {
    programs: PathBuf,
    number: u64,
}

impl Build<'_> {
    /// Prints the plan.
    fn print(self) -> Result<(), Failure> {
        let base_environment = environment::base(self.args, self.global)?;
        let own = Own { programs: PathBuf::new(), number: 1 };
        let inputs = self.inputs(base_environment, own, Vec::new())?;
        let Self { args, settings, source, buildspec, state, .. } = self;
        let plan = plan(buildspec.clone(), inputs)?;
        let dry_run = DryRun {
            settings: &settings,
            source: &source,
            plan: &plan,
            buildspec: &buildspec,
            resumed: state.map(|it| it.step),
        };
        console::print_data(match args.json {
            true => dry_run.json(),
            false => dry_run.text(),
        })
    }

    /// Runs the build, shows it, and keeps what it leaves behind.
    fn run(self) -> Result<(), Failure> {
        self.check_users()?;
        let program = host::program()?;
        // From here on, a signal ends the build in order, and nothing is left behind.
        let stop = signals()?;
        let terminal = self.settings.are_breaks().then(terminal).transpose()?;
        let mut base_environment = environment::base(self.args, self.global)?;
        let private = private_folder(&program)?;
        let hidden = self.hidden(&private, &mut base_environment)?;
        let programs = private.programs();
        let number = state::next_build_number(&self.folder);
        let own = Own { programs: programs.clone(), number };
        let inputs = self.inputs(base_environment, own, hidden)?;
        let Self { args, settings, folder, source, buildspec, state, started, deadline, .. } = self;
        let proxy = buildspec.proxy;
        let plan = plan(buildspec, inputs)?;
        let aws = aws(&settings);
        let mut secrets: Box<dyn Secrets> = match &args.secrets {
            Some(file) => Box::new(FileSecrets::read(file)?),
            None => Box::new(AwsSecrets::new(&aws)),
        };
        let mut artifacts = artifacts::Keeper::new(&settings.destination, &plan, &aws, proxy)?;
        let setup = Setup {
            supervisor: &program,
            shell: plan.shell().name(),
            environment: plan.environment(),
            directory: plan.start_directory(),
            stop: Some(stop),
            deadline,
            terminal,
            choices: *plan.choices(),
        };
        let mut shell =
            LocalShell::start(private, setup).map_err(|err| start_failure(err, &plan, &source))?;
        match &state {
            Some(state) => resume::warn_of_withheld(state),
            None if is_whole(&plan) => resume::forget(&folder),
            None => {}
        }
        let mut view = View::new(args, Course::new(source.spot(), plan.phases()));
        let mut redactor = Redactor::default();
        let ports =
            Ports { shell: &mut shell, secrets: &mut *secrets, artifacts: artifacts.port() };
        let report = run::run(&plan, ports, &mut |event| {
            if let Event::SecretsKnown(known) = event {
                redactor = known.clone();
            }
            view.show(&event);
        });
        let ended = shell.finish(&mut |bytes| view.output(bytes));
        let shown = view.finish();
        let mut report = report.map_err(|err| run_failure(err, &plan, &source))?;
        ended.map_err(shell_failure)?;
        artifacts.settle(&mut report.artifacts)?;
        let next = keep(&report, &plan, &programs, &redactor, state.as_ref());
        tell(&report, host::now().saturating_sub(started));
        verdict(&report, &source).map_err(|failure| failure.hint_if(next))?;
        shown
    }

    /// Checks that there are the users who are to run commands, and that we may be them.
    fn check_users(&self) -> Result<(), Failure> {
        let of_phases = self.buildspec.phases.iter().filter_map(|it| it.run_as.as_ref());
        self.buildspec.run_as.iter().chain(of_phases).try_for_each(|user| {
            check_user(&user.name)
                .map_err(|err| self.source.failure(shell_failure(err), Some(user.place)))
        })
    }

    /// Values that output must not show and that are no secrets of the buildspec: credentials.
    /// Those of the source are put where git finds them, if the buildspec asks for that.
    fn hidden(
        &self,
        private: &PrivateFolder,
        base_environment: &mut Variables,
    ) -> Result<Vec<Secret>, Failure> {
        let mut hidden = environment::credentials(base_environment);
        if self.buildspec.git_credentials {
            let given = git_credentials::give(&self.folder, private, base_environment);
            hidden.extend(given.map_err(shell_failure)?);
        }
        Ok(hidden)
    }

    /// What the plan is made of, besides the buildspec.
    fn inputs(
        &self,
        base_environment: Variables,
        own: Own,
        hidden: Vec<Secret>,
    ) -> Result<Inputs, Failure> {
        let Settings { sources, variables, choices, start, breaks, .. } = &self.settings;
        let secondary = sources.secondary.clone();
        let overrides: Vec<_> =
            variables.env_files.iter().chain(&variables.flags).cloned().collect();
        let layers = [&self.buildspec.variables, &variables.project, &overrides];
        let runtime_commands = runtimes::select(
            self.args.runtimes_file.as_deref(),
            &self.buildspec,
            &runtimes::Known { base: &base_environment, layers },
            &self.source,
        )?;
        Ok(Inputs {
            buildspec_path: self.source.path.clone(),
            project_variables: variables.project.clone(),
            overrides,
            hidden,
            choices: *choices,
            facts: facts(&self.settings, &self.folder, secondary, self.started, own.number),
            start: *start,
            resume: self.state.as_ref().map(|state| Resume {
                step: state.step,
                directory: state.directory.clone(),
                set: state.variables(&own.programs),
                unset: state.unset.clone(),
            }),
            programs: own.programs,
            breaks: breaks.clone(),
            runtime_commands,
            base_environment,
        })
    }
}

fn plan(buildspec: Buildspec, inputs: Inputs) -> Result<Plan, Failure> {
    Plan::new(buildspec, inputs).map_err(|err| {
        let hint = matches!(err, PlanError::NoSuchBreak { .. })
            .then_some("--dry-run shows the numbers of commands");
        Failure::of(Kind::Input, err).hint_if(hint)
    })
}

/// AWS as the flags and the project have it.
fn aws(settings: &Settings) -> Aws {
    let region = settings.project.as_ref().and_then(|it| it.region.clone());
    Aws::asked(Asked { profile: settings.profile.clone(), region })
}

fn terminal() -> Result<Terminal, Failure> {
    let input = host::terminal()?;
    let output = input.try_clone().map_err(|err| {
        Failure::new(Kind::Outside, "the terminal could not be used").because(err)
    })?;
    Ok(Terminal { input, output })
}

/// Keeps where a build that did not succeed can go on, and says how; a build that succeeded has
/// nothing left to do.
fn keep(
    report: &Report,
    plan: &Plan,
    programs: &Path,
    redactor: &Redactor,
    before: Option<&State>,
) -> Option<String> {
    if !is_whole(plan) {
        return None;
    }
    match &report.resume {
        None => {
            resume::forget(plan.source());
            None
        }
        Some(point) => resume::keep(point, plan, programs, redactor, before)
            .then(|| format!("rbuild run … --resume goes on with command {}", point.step + 1)),
    }
}

/// Whether this is a build. One phase alone is none: what is known of the build before stays.
fn is_whole(plan: &Plan) -> bool {
    !matches!(plan.start(), Start::Only(_))
}

/// A folder of the source, in full and without links.
fn source_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let full = fs::canonicalize(folder).map_err(|err| {
        let message = format!("the source folder `{}` could not be read", folder.display());
        Failure::new(Kind::Input, message).because(err)
    })?;
    match full.is_dir() {
        true => Ok(full),
        false => {
            let message = format!("the source folder `{}` is not a folder", folder.display());
            Err(Failure::new(Kind::Input, message))
        }
    }
}

/// The folder in memory that variables are carried in; on disk only where there is no such.
fn private_folder(program: &Path) -> Result<PrivateFolder, Failure> {
    let temporary = host::variable("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from);
    PrivateFolder::create(&[Path::new("/dev/shm"), &temporary], program).map_err(shell_failure)
}

/// How long a build may take to stop: its commands have five seconds. If it takes longer, nobody
/// reads its output; then rbuild ends, and the supervisor ends the rest.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same when it was asked a second time.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// A stream with a byte, its number, for every signal that asks rbuild to stop.
fn signals() -> Result<OwnedFd, Failure> {
    let unwatched =
        |err: io::Error| Failure::new(Kind::Outside, "signals could not be watched").because(err);
    let (reader, mut writer) = io::pipe().map_err(unwatched)?;
    let mut signals = Signals::new(TERM_SIGNALS.iter().chain([&SIGHUP])).map_err(unwatched)?;
    std::thread::spawn(move || {
        for (signal, patience) in
            signals.forever().zip([PATIENCE].into_iter().chain(repeat(IMPATIENCE)))
        {
            // The build may be over, and nobody may read.
            let _ = writer.write_all(&[u8::try_from(signal).unwrap_or_default()]);
            host::stop_after(patience, signal);
        }
    });
    Ok(reader.into())
}

/// Variables as the agent takes them.
type Variables = Vec<(OsString, OsString)>;
