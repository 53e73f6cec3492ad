//! `rbuild run`

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    iter::repeat,
    os::fd::OwnedFd,
    path::{
        Component::{CurDir, Normal},
        Path, PathBuf,
    },
    time::Duration,
};

use rbuild_agent::{
    artifacts::{self, ArtifactsError, LocalArtifacts, Location},
    buildspec::{Buildspec, Problem, UnknownKey, Value, Variable},
    choice::Choices,
    environment::Facts,
    plan::{Inputs, Plan},
    run::{self, Outcome, Reason, Report, RunError},
    shell::{End, LocalShell, PrivateFolder, Setup, ShellError},
};
use signal_hook::{
    consts::{SIGHUP, TERM_SIGNALS},
    iterator::Signals,
};

use crate::{
    args::{Global, Packaging, Run},
    console::{self, builds::View, excerpt::excerpt, size},
    failure::{Failure, Kind},
    host, input,
};

mod environment;
mod git;
mod place;

use place::Place;

/// The buildspec as a person knows it: its name, and its text for excerpts.
struct Source {
    shown: String,
    path: PathBuf,
    text: String,
}

pub(crate) fn run(args: &Run, global: &Global) -> Result<(), Failure> {
    let started = host::now();
    let folder = source_folder(args)?;
    let (source, buildspec) = read_buildspec(args, &folder)?;
    let program = host::program()?;
    // From here on, a signal ends the build in order, and nothing is left behind.
    let stop = signals()?;
    let (facts, base_environment) = (facts(&folder, started), environment::base(args, global)?);
    let private = private_folder(&program)?;
    let inputs = Inputs {
        buildspec_path: source.path.clone(),
        base_environment,
        overrides: args.env.iter().map(plain).collect(),
        project_variables: Vec::new(),
        choices: Choices::default(),
        facts,
        programs: private.programs(),
    };
    warn_of_unknown_keys(&source.shown, &buildspec.unknown_keys);
    let plan = Plan::new(buildspec, inputs).map_err(|err| Failure::of(Kind::Input, err))?;
    let mut place = Place::new(args, &folder, plan.artifacts().is_some())?;
    let mut artifacts = local_artifacts(args, &folder, &place)?;
    let setup = Setup {
        supervisor: &program,
        shell: plan.shell().name(),
        environment: plan.environment(),
        directory: plan.source(),
        stop: Some(stop),
        deadline: None,
        terminal: None,
        choices: Choices::default(),
    };
    let mut shell = LocalShell::start(private, setup).map_err(shell_failure)?;
    let mut view = View::new(args.log);
    let report = run::run(&plan, &mut shell, &mut artifacts, &mut |event| view.show(&event));
    let ended = shell.finish(&mut |bytes| view.output(bytes));
    let shown = view.finish();
    let mut report = report.map_err(run_failure)?;
    ended.map_err(shell_failure)?;
    place.settle(&mut report.artifacts)?;
    tell(&report, host::now().saturating_sub(started));
    verdict(&report, &source)?;
    shown
}

/// The source folder, in full and without links: commands see it.
fn source_folder(args: &Run) -> Result<PathBuf, Failure> {
    let folder = match &args.directory {
        Some(folder) => folder.clone(),
        None => host::current_folder()?,
    };
    let full = fs::canonicalize(&folder).map_err(|err| {
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

/// The most bytes of a buildspec; those of real teams have some thousands.
const LARGEST_BUILDSPEC: u64 = 2_000_000;
/// The most problems of one file that are shown.
const MOST_PROBLEMS: usize = 20;

fn read_buildspec(args: &Run, folder: &Path) -> Result<(Source, Buildspec), Failure> {
    let path = folder.join(&args.buildspec);
    let shown = args.buildspec.display().to_string();
    if path.is_dir() {
        let message = format!("the buildspec `{shown}` is a folder");
        return Err(Failure::new(Kind::Input, message).hint("name the file in it"));
    }
    if leads_outside(&args.buildspec, folder) {
        let message = format!("the buildspec `{shown}` is a link that leads out of the source");
        return Err(Failure::new(Kind::Input, message)
            .hint("name the file itself by its absolute path, if it is meant"));
    }
    let bytes = input::read(&path, LARGEST_BUILDSPEC).map_err(|err| {
        let message = format!("the buildspec `{shown}` could not be read");
        let hint = (err.kind() == io::ErrorKind::NotFound)
            .then(|| format!("it is looked for in the source folder, {}", folder.display()));
        Failure::new(Kind::Input, message).because(err).hint_if(hint)
    })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let source = Source { shown, path, text };
    match Buildspec::parse(&bytes) {
        Ok(buildspec) => Ok((source, buildspec)),
        Err(problems) => Err(invalid(&source, problems)),
    }
}

/// Whether a path below the source folder leads out of it. The link came with the source, and
/// could have lines of the user's own files shown; `..` and absolute paths are the user's wish.
fn leads_outside(buildspec: &Path, folder: &Path) -> bool {
    let is_below = buildspec.components().all(|it| matches!(it, Normal(_) | CurDir));
    is_below && fs::canonicalize(folder.join(buildspec)).is_ok_and(|it| !it.starts_with(folder))
}

/// Shows all problems of a file; the last becomes the failure of the command.
fn invalid(source: &Source, problems: Vec<Problem>) -> Failure {
    let mut last = Failure::new(Kind::Input, format!("`{}` is not valid", source.shown));
    let (all, count) = (problems.len(), problems.len().min(MOST_PROBLEMS));
    for (index, problem) in problems.into_iter().take(count).enumerate() {
        let Problem { place, message, hint, aws } = problem;
        let mut failure = Failure::new(Kind::Input, message).hint_if(hint);
        failure = failure.excerpt(match place {
            Some(place) => excerpt(&source.shown, &source.text, place.line, place.column),
            None => format!(" --> {}", source.shown),
        });
        if let Some(aws) = aws {
            failure = failure.note(format!("CodeBuild says: YAML_FILE_ERROR: {aws}"));
        }
        if index + 1 < count {
            console::print_error(&failure);
        }
        last = failure;
    }
    if count < all {
        console::say(&format!("({} more problems are not shown)", all - count));
    }
    last
}

fn warn_of_unknown_keys(file: &str, keys: &[UnknownKey]) {
    for key in keys.iter().take(MOST_PROBLEMS) {
        console::warn(&unknown_key(file, key));
    }
    if MOST_PROBLEMS < keys.len() {
        console::warn(&format!("{} more keys mean nothing here", keys.len() - MOST_PROBLEMS));
    }
}

/// CodeBuild's own words go to the log; what they lack is told here.
fn unknown_key(file: &str, key: &UnknownKey) -> String {
    let mean = key.suggestion.map(|it| format!(": did you mean `{it}`?")).unwrap_or_default();
    let (line, column) = (key.place.line, key.place.column);
    format!("{file}:{line}:{column}: `{}` means nothing here{mean}", key.key)
}

/// A variable with a value that is no secret.
fn plain((name, value): &(String, String)) -> Variable {
    Variable { name: name.clone(), value: Value::Plain(value.clone()), place: None }
}

/// The folder in memory that variables are carried in; on disk only where there is no such.
fn private_folder(program: &Path) -> Result<PrivateFolder, Failure> {
    let temporary = host::variable("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from);
    PrivateFolder::create(&[Path::new("/dev/shm"), &temporary], program).map_err(shell_failure)
}

fn facts(folder: &Path, started: Duration) -> Facts {
    let git = git::ask(folder);
    Facts {
        source: folder.to_owned(),
        build_number: 1,
        build_uuid: "00000000-0000-0000-0000-000000000000".to_owned(),
        start_time: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
        initiator: host::variable("USER").unwrap_or_else(|| "rbuild".to_owned()),
        resolved_source_version: git.commit.clone(),
        source_version: git.branch.or(git.commit),
        source_repo_url: git.url,
        region: host::variable("AWS_REGION").or_else(|| host::variable("AWS_DEFAULT_REGION")),
    }
}

/// Keeps the artifacts in `place`.
fn local_artifacts(args: &Run, folder: &Path, place: &Place) -> Result<LocalArtifacts, Failure> {
    let packaging = match args.artifacts_packaging {
        Packaging::None => artifacts::Packaging::Folder,
        Packaging::Zip => artifacts::Packaging::Zip,
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
        ShellError::NoUser { .. } => Failure::of(Kind::Input, err)
            .hint("`run-as` in the buildspec names a user of this machine"),
        ShellError::NotRoot { .. } => {
            Failure::of(Kind::Input, err).hint("run rbuild as root, or take `run-as` out")
        }
        ShellError::NoTerminal => Failure::of(Kind::Input, err),
        err => Failure::of(Kind::Outside, err),
    }
}

/// Variables as the agent takes them.
type Variables = Vec<(OsString, OsString)>;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use expect_test::expect;
    use rbuild_agent::source::Place;

    use super::*;

    #[test]
    fn links_that_came_with_the_source_do_not_lead_out_of_it() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let folder = top.join("src");
        fs::create_dir_all(folder.join("ci")).unwrap();
        fs::write(top.join("secret"), "").unwrap();
        fs::write(folder.join("ci/spec.yml"), "").unwrap();
        for (target, link) in [
            ("../secret", "outside.yml"),
            ("ci/spec.yml", "inside.yml"),
            ("../src/ci/spec.yml", "around.yml"),
            ("..", "up"),
        ] {
            symlink(target, folder.join(link)).unwrap();
        }
        let absolute = folder.join("outside.yml").display().to_string();
        for (buildspec, want) in [
            ("outside.yml", true),
            ("./outside.yml", true),
            ("up/secret", true),
            ("inside.yml", false),
            ("around.yml", false),
            ("ci/spec.yml", false),
            ("missing.yml", false),
            ("../secret", false),
            ("ci/../outside.yml", false),
            (&absolute, false),
        ] {
            assert_eq!(leads_outside(Path::new(buildspec), &folder), want, "for `{buildspec}`");
        }
    }

    #[test]
    fn a_file_is_named_wherever_it_is_wrong() {
        let source = Source { shown: "ci/a.yml".into(), path: "a.yml".into(), text: String::new() };
        let problems = Buildspec::parse(b"").unwrap_err();
        expect![[r#"
            error: the file is empty
             --> ci/a.yml
            hint: write `version: 0.2`, and `phases` with `commands` in them"#]]
        .assert_eq(&invalid(&source, problems).to_string());
        let place = Place { line: 6, column: 5 };
        let (section, key) = ("BUILD".into(), "comands".into());
        let key = UnknownKey { section, key, place, suggestion: Some("commands") };
        let want = "ci/a.yml:6:5: `comands` means nothing here: did you mean `commands`?";
        assert_eq!(unknown_key(&source.shown, &key), want);
    }
}
