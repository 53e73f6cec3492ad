//! `rbuild run`
//!
//! Read in this order: here, [`settings`] (what flags and files say, of which [`sources`],
//! [`env_file`] and [`project`] read some), [`buildspec`], [`mod@facts`], [`environment`],
//! [`mod@place`]. [`dry_run`] prints what would run; [`resume`] and [`state`] are what is kept
//! between builds.

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    iter::repeat,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rbuild_agent::{
    artifacts::{self, ArtifactsError, LocalArtifacts, Location},
    buildspec::Buildspec,
    event::Event,
    plan::{Inputs, Plan},
    resume::State,
    run::{self, Outcome, Reason, Report, RunError},
    secret::Redactor,
    shell::{End, LocalShell, PrivateFolder, Setup, ShellError},
};
use signal_hook::{
    consts::{SIGHUP, TERM_SIGNALS},
    iterator::Signals,
};

use crate::{
    args::{Global, Run},
    console::{self, builds::View, excerpt::excerpt, size},
    failure::{Failure, Kind},
    host,
};

mod buildspec;
mod dry_run;
mod env_file;
mod environment;
mod facts;
mod git;
mod place;
mod project;
mod resume;
mod settings;
mod sources;
mod state;

use buildspec::{Source, warn_of_unknown_keys};
use dry_run::DryRun;
use facts::facts;
use place::Place;
use settings::{Destination, Files, Settings, Start};

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
}

pub(crate) fn run(args: &Run, global: &Global) -> Result<(), Failure> {
    let started = host::now();
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
    warn_of_unknown_keys(&source.shown, &buildspec.unknown_keys);
    let buildspec = settings.fit(buildspec)?;
    let state = match settings.resumes {
        true => Some(resume::load(&folder, &buildspec.phases)?),
        false => None,
    };
    let build = Build { args, global, settings, folder, source, buildspec, state, started };
    match args.debugging.dry_run {
        true => build.print(),
        false => build.run(),
    }
}

impl Build<'_> {
    /// Prints the plan.
    fn print(self) -> Result<(), Failure> {
        let base_environment = environment::base(self.args, self.global)?;
        let inputs = self.inputs(base_environment, PathBuf::new(), 1);
        let Self { args, settings, source, buildspec, state, .. } = self;
        let plan =
            Plan::new(buildspec.clone(), inputs).map_err(|err| Failure::of(Kind::Input, err))?;
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
        let program = host::program()?;
        // From here on, a signal ends the build in order, and nothing is left behind.
        let stop = signals()?;
        let _terminal = self.settings.breaks.are_any().then(host::terminal).transpose()?;
        let base_environment = environment::base(self.args, self.global)?;
        let private = private_folder(&program)?;
        let (programs, number) = (private.programs(), state::next_build_number(&self.folder));
        let inputs = self.inputs(base_environment, programs.clone(), number);
        let Self { args, settings, folder, source, buildspec, state, started, .. } = self;
        let plan = Plan::new(buildspec, inputs).map_err(|err| Failure::of(Kind::Input, err))?;
        let mut place = place(&settings.destination, &plan)?;
        let mut artifacts = local_artifacts(&settings.destination, &folder, &place)?;
        let setup = Setup {
            supervisor: &program,
            shell: plan.shell().name(),
            environment: plan.environment(),
            directory: plan.source(),
            stop: Some(stop),
        };
        let mut shell = LocalShell::start(private, setup).map_err(shell_failure)?;
        match &state {
            Some(state) => resume::warn_of_withheld(state),
            None => resume::forget(&folder),
        }
        let mut view = View::new(args.log);
        let mut redactor = Redactor::default();
        let report = run::run(&plan, &mut shell, &mut artifacts, &mut |event| {
            if let Event::SecretsKnown(known) = event {
                redactor = known.clone();
            }
            view.show(&event);
        });
        let ended = shell.finish(&mut |bytes| view.output(bytes));
        let shown = view.finish();
        let mut report = report.map_err(run_failure)?;
        ended.map_err(shell_failure)?;
        place.settle(&mut report.artifacts)?;
        let next = keep(&report, &plan, &programs, &redactor, settings.start);
        tell(&report, host::now().saturating_sub(started));
        verdict(&report, &source).map_err(|failure| failure.hint_if(next))?;
        shown
    }

    /// What the plan is made of, besides the buildspec.
    fn inputs(&self, base_environment: Variables, programs: PathBuf, number: u64) -> Inputs {
        let Settings { sources, variables, choices, .. } = &self.settings;
        let secondary = sources.secondary.clone();
        let overrides = variables.env_files.iter().chain(&variables.flags);
        Inputs {
            buildspec_path: self.source.path.clone(),
            base_environment,
            project_variables: variables.project.clone(),
            overrides: overrides.cloned().collect(),
            choices: *choices,
            facts: facts(&self.settings, &self.folder, secondary, self.started, number),
            programs,
        }
    }
}

/// Keeps where a build that did not succeed can go on, and says how; a build that succeeded has
/// nothing left to do. A phase that ran alone is no build.
fn keep(
    report: &Report,
    plan: &Plan,
    programs: &Path,
    redactor: &Redactor,
    start: Start,
) -> Option<String> {
    if let Start::Only(_) = start {
        return None;
    }
    match &report.resume {
        None => {
            resume::forget(plan.source());
            None
        }
        Some(point) => resume::keep(point, plan, programs, redactor)
            .then(|| format!("rbuild run … --resume goes on with command {}", point.step + 1)),
    }
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

/// Where artifacts go, if there are any.
fn place(destination: &Destination, plan: &Plan) -> Result<Place, Failure> {
    match destination {
        _ if plan.artifacts().is_none() => Ok(Place::nowhere()),
        Destination::Folder { asked, .. } => Place::new(asked.as_deref(), plan.source()),
        Destination::Uri { .. } | Destination::Project { .. } => {
            let message = "artifacts cannot go to S3 yet";
            Err(Failure::new(Kind::Input, message).hint("name a folder: -a DIR"))
        }
        Destination::Nowhere => Ok(Place::nowhere()),
    }
}

/// Keeps the artifacts in `place`.
fn local_artifacts(
    destination: &Destination,
    folder: &Path,
    place: &Place,
) -> Result<LocalArtifacts, Failure> {
    let packaging = match destination {
        Destination::Folder { packaging, .. } => *packaging,
        Destination::Uri { .. } | Destination::Project { .. } | Destination::Nowhere => {
            artifacts::Packaging::Folder
        }
    };
    let modified = host::source_date_epoch()?.and_then(|it| u64::try_from(it).ok());
    let destination = place.destination().to_owned();
    Ok(LocalArtifacts { source: folder.to_owned(), destination, packaging, modified })
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

/// What is left to say after the log.
fn tell(report: &Report, time: Duration) {
    for packed in &report.artifacts {
        let files = if packed.files == 1 { "file" } else { "files" };
        let (count, size) = (packed.files, size::bytes(packed.bytes));
        let path = match &packed.location {
            Location::Local(path) => path.display().to_string(),
            Location::Remote(uri) => uri.clone(),
        };
        console::say(&format!("artifacts: {path} ({count} {files}, {size})"));
    }
    if matches!(report.outcome, Outcome::Succeeded) {
        console::say(&format!("the build succeeded in {}", size::time(time)));
    }
}

fn verdict(report: &Report, source: &Source) -> Result<(), Failure> {
    match &report.outcome {
        Outcome::Succeeded => Ok(()),
        Outcome::Stopped { stage, signal } => {
            let message = format!("stopped by {} in {stage}", host::signal_name(*signal));
            Err(Failure::new(Kind::Stopped(*signal), message))
        }
        Outcome::Failed(failure) => match &failure.reason {
            Reason::Command { command, end } => {
                let end = match end {
                    End::Exited(status) => format!("exited with status {status}"),
                    End::Killed(signal) => format!("was killed by {}", host::signal_name(*signal)),
                    End::Stopped(_) => "was stopped".to_owned(),
                    End::TimedOut => "ran out of time".to_owned(),
                };
                let message = format!("the build failed in {}: a command {end}", failure.stage);
                let place = command.place;
                let excerpt = excerpt(&source.shown, &source.text, place.line, place.column);
                Err(Failure::new(Kind::Build, message).excerpt(excerpt))
            }
            Reason::Artifacts(err) => Err(artifacts_failure(Kind::Build, err)),
        },
    }
}

fn artifacts_failure(kind: Kind, err: &ArtifactsError) -> Failure {
    let failure = Failure::new(kind, format!("the artifacts could not be collected: {err}"));
    match std::error::Error::source(err) {
        Some(cause) => failure.note(format!("caused by: {cause}")),
        None => failure,
    }
}

fn run_failure(err: RunError) -> Failure {
    match err {
        RunError::Artifacts { source } => artifacts_failure(Kind::Outside, &source),
        RunError::Shell { .. } => Failure::of(Kind::Outside, err),
    }
}

fn shell_failure(err: ShellError) -> Failure {
    match err {
        ShellError::NoShell { .. } => Failure::of(Kind::Input, err)
            .hint("commands need a shell; `env.shell` in the buildspec chooses one"),
        err => Failure::of(Kind::Outside, err),
    }
}

/// Variables as the agent takes them.
type Variables = Vec<(OsString, OsString)>;
