//! How a build is shown: as CodeBuild's log, on a terminal, in few words, to GitHub Actions, or as
//! events for programs. Here is what all of these have in common: which one it is, what nobody must
//! see, and standard output.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rbuild_agent::{
    artifacts::Skipped,
    buildspec::{IgnoredKey, UnknownKey},
    event::Event,
    phase::State,
    secret::MaskedOutput,
};
use time::{OffsetDateTime, macros::format_description};

use super::{
    course::Course,
    github::{Github, lines::Piece},
    json::{self, Json},
    plain,
    progress::Progress,
};
use crate::{
    args::{Log, Run},
    build_log::BuildLog,
    failure::{Failure, Kind, Spot},
    host,
};

/// A way to show a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Codebuild,
    Progress,
    Plain,
    Github,
    Json,
}

/// What is around this process, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
struct Surroundings {
    is_github: bool,
    is_codebuild: bool,
    is_terminal: bool,
}

/// Shows the events of one build.
pub(crate) struct View {
    face: Face,
    course: Course,
    /// The output of commands, on its way to be shown.
    output: MaskedOutput,
    out: Out,
    /// Tells the time since 1970.
    clock: fn() -> Duration,
}

/// What a way to show a build has to remember.
enum Face {
    Codebuild(BuildLog),
    Progress(Progress),
    /// Whether a command has begun a line and not ended it.
    Plain {
        is_in_line: bool,
    },
    Github {
        github: Github,
        files: StepFiles,
    },
    Json(Json),
}

/// The files in which the runner of GitHub Actions looks for what a step leaves.
#[derive(Default)]
struct StepFiles {
    outputs: Option<PathBuf>,
    summary: Option<PathBuf>,
}

/// Standard output.
struct Out {
    /// Without a buffer: a piece of output is written at once, and whole.
    stream: Option<File>,
    is_drawn_on: bool,
    /// The first thing that was not taken.
    lost: Option<Failure>,
}

/// So many bytes are worth a write of their own.
const LARGE: usize = 1 << 16;
/// The most keys of one file that are warned about.
const MOST_KEYS: usize = 20;

impl Mode {
    /// What the arguments ask for.
    pub(crate) fn of(args: &Run) -> Self {
        match args.json {
            true => Self::Json,
            false => Self::of_log(
                args.log,
                Surroundings {
                    is_github: host::is_github_actions(),
                    is_codebuild: host::is_codebuild(),
                    is_terminal: host::is_terminal(),
                },
            ),
        }
    }

    fn of_log(log: Log, around: Surroundings) -> Self {
        match log {
            Log::Progress => Self::Progress,
            Log::Plain => Self::Plain,
            Log::Github => Self::Github,
            Log::Auto if around.is_github => Self::Github,
            // CodeBuild's agent writes its own lines; ours would be a second build to readers.
            Log::Auto if around.is_codebuild => Self::Plain,
            Log::Auto if around.is_terminal => Self::Progress,
            Log::Auto | Log::Codebuild => Self::Codebuild,
        }
    }
}

impl View {
    pub(crate) fn new(args: &Run, course: Course) -> Self {
        let mode = Mode::of(args);
        Self::with(mode, course, Out::new(mode), host::now)
    }

    fn with(mode: Mode, course: Course, out: Out, clock: fn() -> Duration) -> Self {
        let face = match mode {
            Mode::Codebuild => Face::Codebuild(BuildLog::default()),
            Mode::Progress => Face::Progress(Progress::default()),
            Mode::Plain => Face::Plain { is_in_line: false },
            Mode::Github => Face::Github {
                github: Github::new(host::is_github_actions(), host::random_word),
                files: StepFiles {
                    outputs: host::variable("GITHUB_OUTPUT").map(PathBuf::from),
                    summary: host::variable("GITHUB_STEP_SUMMARY").map(PathBuf::from),
                },
            },
            Mode::Json => Face::Json(Json::default()),
        };
        Self { face, course, output: MaskedOutput::default(), out, clock }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Event<'_>) {
        if let Event::Output(bytes) = event {
            return self.output(bytes);
        }
        self.course.follow(event, (self.clock)());
        match event {
            Event::CommandFinished { .. } | Event::BreakpointReached { .. } => self.flush(),
            Event::StageFinished { state, .. } => {
                self.flush();
                if *state != State::Succeeded {
                    super::note_state(*state);
                }
            }
            Event::SecretsKnown(redactor) => {
                super::hide(redactor);
                self.flush();
                self.output = redactor.output();
            }
            event => warn(event, self.course.buildspec()),
        }
        self.tell(event);
    }

    /// Shows what something wrote.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        self.pass_on(|output, out| output.push(bytes, out));
    }

    /// Shows what `give` gives. Large pieces go as they are; small ones, which come where something
    /// was masked, together.
    fn pass_on(&mut self, give: impl FnOnce(&mut MaskedOutput, &mut dyn FnMut(&[u8]))) {
        let Self { face, course, output, out, .. } = self;
        let mut together = Vec::new();
        give(output, &mut |piece| {
            if together.is_empty() && LARGE <= piece.len() {
                return face.output(piece, course, out);
            }
            together.extend_from_slice(piece);
            if LARGE <= together.len() {
                face.output(&together, course, out);
                together.clear();
            }
        });
        if !together.is_empty() {
            face.output(&together, course, out);
        }
    }

    /// Ends what is drawn; an error if a part of the log was lost.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush();
        let Self { face, course, out, .. } = &mut self;
        match face {
            Face::Progress(progress) => {
                let rest = progress.end_line();
                progress.finish();
                out.write(&rest);
            }
            Face::Github { github, files } => {
                let pieces = github.end_group();
                put(&pieces, out);
                super::with_lines(|lines| lines.resume(&mut |bytes| out.write(bytes)));
                out.append(files.summary.as_deref(), &github.summary(course));
            }
            Face::Codebuild(_) | Face::Plain { .. } | Face::Json(_) => {}
        }
        self.out.lost.map_or(Ok(()), Err)
    }

    /// Shows an event that is no output.
    fn tell(&mut self, event: &Event<'_>) {
        let Self { face, course, out, .. } = self;
        match face {
            Face::Codebuild(log) => {
                let mut bytes = Vec::new();
                // Writing to memory does not fail.
                let _ = log.write(event, &log_time(course.now()), course, &mut bytes);
                out.write(&bytes);
            }
            Face::Progress(progress) => out.write(&progress.show(event, course)),
            Face::Plain { is_in_line } => {
                let words = plain::words(event, course);
                let end = !words.is_empty() && std::mem::take(is_in_line);
                out.write(&[if end { "\n" } else { "" }, &words].concat().into_bytes());
            }
            Face::Github { github, files } => {
                let pieces = github.show(event, course);
                put(&pieces, out);
                if let Event::VariablesExported(variables) = event {
                    out.append(files.outputs.as_deref(), &github.outputs(variables, course));
                }
            }
            Face::Json(_) => out.write(json::lines(event, course).as_bytes()),
        }
    }

    /// Shows what was held back of the output.
    fn flush(&mut self) {
        self.pass_on(MaskedOutput::flush);
        let Self { face, course, out, .. } = self;
        if let Face::Json(json) = face {
            out.write(json.flush(course).as_bytes());
        }
    }
}

impl Face {
    /// Shows output in which nothing is secret.
    fn output(&mut self, bytes: &[u8], course: &Course, out: &mut Out) {
        match self {
            Self::Codebuild(log) => {
                log.output(bytes);
                out.write(bytes);
            }
            Self::Progress(progress) => out.write(&progress.output(bytes)),
            Self::Plain { is_in_line } => {
                *is_in_line = bytes.last().map_or(*is_in_line, |last| *last != b'\n');
                out.write(bytes);
            }
            Self::Github { .. } => {
                super::with_lines(|lines| lines.quote(bytes, &mut |bytes| out.write(bytes)));
            }
            Self::Json(json) => {
                json.output(bytes, course, &mut |line| out.write(line.as_bytes()));
            }
        }
    }
}

impl Out {
    fn new(mode: Mode) -> Self {
        let stream = rustix::stdio::stdout().try_clone_to_owned().map(File::from);
        let is_drawn_on = mode == Mode::Progress;
        match stream {
            Ok(stream) => Self { stream: Some(stream), is_drawn_on, lost: None },
            Err(err) => Self { stream: None, is_drawn_on, lost: Some(lost(err)) },
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(stream) = self.stream.as_mut().filter(|_| !bytes.is_empty()) else { return };
        let mut write = || stream.write_all(bytes);
        let written = match self.is_drawn_on {
            true => super::drawn().suspend(write),
            false => write(),
        };
        if let Err(err) = written {
            self.stream = None;
            // A reader that has seen enough does not stop the build.
            if err.kind() != io::ErrorKind::BrokenPipe {
                self.lost.get_or_insert(lost(err));
            }
        }
    }

    /// Writes to the end of a file.
    fn append(&mut self, path: Option<&Path>, text: &str) {
        let Some(path) = path.filter(|_| !text.is_empty()) else { return };
        let file = OpenOptions::new().append(true).create(true).open(path);
        if let Err(err) = file.and_then(|mut it| it.write_all(text.as_bytes())) {
            let message = format!("the step's file `{}` could not be written", path.display());
            self.lost.get_or_insert(Failure::new(Kind::Outside, message).because(err));
        }
    }
}

/// Writes pieces for GitHub Actions.
fn put(pieces: &[Piece], out: &mut Out) {
    super::with_lines(|lines| {
        for piece in pieces {
            lines.put(piece, &mut |bytes| out.write(bytes));
        }
    });
}

fn lost(err: io::Error) -> Failure {
    let message = "a part of the log could not be written to standard output";
    Failure::new(Kind::Outside, message).because(err)
}

/// Tells of what may be wrong.
fn warn(event: &Event<'_>, buildspec: &Spot) {
    let at = |line, column| Spot { line, column, ..buildspec.clone() };
    match event {
        Event::UnknownKeys(keys) => {
            for key in keys.iter().take(MOST_KEYS) {
                super::warn_at(&at(key.place.line, key.place.column), &unknown(key));
            }
            warn_of_more(keys.len());
        }
        Event::IgnoredKeys(keys) => {
            for key in keys.iter().take(MOST_KEYS) {
                super::warn_at(&at(key.place.line, key.place.column), &ignored(key));
            }
            warn_of_more(keys.len());
        }
        Event::NameCollision { name, dropped, .. } => {
            let (name, dropped) = (name.display(), dropped.display());
            super::warn(&format!("two artifacts are called `{name}`: `{dropped}` is left out"));
        }
        Event::FileSkipped { path, reason } => {
            let path = path.display();
            super::warn(&match reason {
                Skipped::DanglingLink => format!("`{path}` is left out: the link leads nowhere"),
                Skipped::NotAFile => format!("`{path}` is left out: it is no regular file"),
            });
        }
        Event::ExportRefused { name } => {
            super::warn(&format!("`{name}` is not exported: CodeBuild lets no build do that"));
        }
        Event::ExportUnset { name } => {
            super::warn(&format!("`{name}` is not exported: there is no such variable"));
        }
        _ => {}
    }
}

fn warn_of_more(count: usize) {
    if MOST_KEYS < count {
        super::warn(&format!("{} more keys are not mentioned", count - MOST_KEYS));
    }
}

/// CodeBuild's own words go to the log; what they lack is told here.
fn unknown(key: &UnknownKey) -> String {
    let mean = key.suggestion.map(|it| format!(": did you mean `{it}`?")).unwrap_or_default();
    format!("`{}` means nothing here{mean}", key.key)
}

fn ignored(key: &IgnoredKey) -> String {
    format!("`{}` is left out: {}", key.key, key.reason)
}

/// The time of a line of the log: UTC, with microseconds.
fn log_time(since_1970: Duration) -> String {
    let format =
        format_description!("[year]/[month]/[day] [hour]:[minute]:[second].[subsecond digits:6]");
    let time = OffsetDateTime::UNIX_EPOCH + since_1970;
    time.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests;
