//! Runs commands: the port [`Shell`], and [`LocalShell`], the one place that starts processes.
//!
//! Read in this order: here (what a build asks for), `folder` (the files that carry variables and
//! the working directory from one command to the next), `script` (what a shell gets to read),
//! `supervisor` (the process above all commands of a build), `channel` (what is said to it).
//!
//! Each command is a new process of the shell that reads `script.sh`. Variables and working
//! directory are carried through files; functions, aliases, and options are not. This is what
//! CodeBuild does in version 0.2 of the buildspec.
//!
//! **Architecture invariant:** knows no phases and no buildspecs, and decides nothing about a
//! build. What a command started is gone when the build is over, however it ends.

mod channel;
mod folder;
mod script;
mod supervisor;

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::Access,
    io::Errno,
};
use thiserror::Error;

use crate::environment::Environment;
use channel::{Report, Request};
use script::Script;

pub use folder::PrivateFolder;
pub use supervisor::supervise;

/// The first argument of the process that is to call [`supervise`].
pub const SUPERVISE: &str = "__supervise";

/// Runs commands, one after another.
pub trait Shell {
    /// Ends all that commands have left running, and starts afresh: the next command is the first
    /// one. It is called before any other.
    fn begin(&mut self, beginning: Beginning<'_>) -> Result<(), ShellError>;

    /// Runs a command, and hands over what it writes as it writes it.
    fn run(
        &mut self,
        line: CommandLine<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError>;

    /// What the shell makes of words, with the variables of the last command, but in the folder
    /// with the source; the inner `Err` is how the shell ended if it could not.
    /// Commands that come later do not notice.
    fn expand(
        &mut self,
        expansion: Expansion<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Result<Vec<OsString>, End>, ShellError>;

    /// The state that the command before the last one left behind, which the last one started
    /// with; what to go back to if the last one failed.
    fn snapshot(&mut self) -> Result<Snapshot, ShellError>;

    /// Lets a person use the terminal with a shell that has the state of the last command, until
    /// that shell ends. Commands that come later do not notice.
    fn interact(&mut self, line: Interaction<'_>) -> Result<End, ShellError>;

    /// The signal with which someone asked the build to stop, if someone did.
    fn stop_requested(&mut self) -> Option<i32>;

    /// Whether the build has taken as long as it may.
    fn out_of_time(&mut self) -> bool;
}

/// What the first command starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning<'a> {
    /// Its variables.
    pub environment: &'a Environment,
    /// Where it starts.
    pub directory: &'a Path,
    /// The folder with the source, where words are expanded.
    pub source: &'a Path,
}

/// What is carried from one command to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All variables, sorted by name.
    pub variables: Vec<(OsString, OsString)>,
    /// The working directory.
    pub directory: PathBuf,
}

/// What a person gets a shell for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interaction<'a> {
    /// Whether nothing failed so far: the value of `CODEBUILD_BUILD_SUCCEEDING`.
    pub succeeding: bool,
    /// Who runs it, if that is not who runs rbuild.
    pub user: Option<&'a str>,
    /// Whether the shell starts with the state before the last command, and not after it.
    pub before_last: bool,
}

/// What a shell is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a> {
    /// The text of the command, which may have many lines.
    pub text: &'a str,
    /// Whether nothing failed so far: the value of `CODEBUILD_BUILD_SUCCEEDING`.
    pub succeeding: bool,
    /// Who runs it, if that is not who runs rbuild.
    pub user: Option<&'a str>,
    /// Whether its variables and working directory are those of the next command; if not, the
    /// next command starts with what the first one started with.
    pub carries: bool,
}

impl<'a> CommandLine<'a> {
    /// A command of a build in which nothing failed so far, run by who runs rbuild.
    pub fn new(text: &'a str) -> Self {
        Self { text, succeeding: true, user: None, carries: true }
    }
}

/// What a shell is to expand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expansion<'a> {
    /// The words, each of which the shell finds between double quotes.
    pub words: &'a [String],
    /// Whether nothing failed so far: the value of `CODEBUILD_BUILD_SUCCEEDING`.
    pub succeeding: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
    /// It was ended, or never started, since the build was asked to stop with this signal.
    Stopped(i32),
    /// It was ended, or never started, since the build took too long.
    TimedOut,
}

/// Why the shell cannot run commands.
#[derive(Debug, Error)]
pub enum ShellError {
    /// The folder for variables and scripts cannot be made.
    #[error("the folder `{path}` for the build's variables could not be made")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file in that folder cannot be written or read.
    #[error("`{path}` could not be used")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no such shell.
    #[error("the shell `{name}` was not found on the PATH")]
    NoShell {
        /// Its name.
        name: String,
    },
    /// The shell cannot be started.
    #[error("the shell `{path}` could not be started")]
    NotStarted {
        /// Which program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The supervisor cannot be started.
    #[error("the supervisor of the build, `{path}`, could not be started")]
    Supervisor {
        /// Which program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The supervisor is gone, and all that ran under it may be, too.
    #[error("the supervisor of the build is gone")]
    SupervisorGone,
    /// Waiting for output or for the supervisor failed.
    #[error("waiting for the command failed")]
    Wait {
        /// What the system says.
        source: io::Error,
    },
}

/// What a [`LocalShell`] needs.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The program that calls [`supervise`] when its first argument is [`SUPERVISE`].
    pub supervisor: &'a Path,
    /// The name of the shell, or its path.
    pub shell: &'a str,
    /// The variables of the first command.
    pub environment: &'a Environment,
    /// Where the first command starts.
    pub directory: &'a Path,
    /// Where signals come from, a byte for each, its number. The first asks all processes of the
    /// build to end, and kills those that have not after five seconds; the second kills at once.
    pub stop: Option<OwnedFd>,
}

/// A POSIX shell on this machine.
///
/// Dropping it ends all that its commands have started.
#[derive(Debug)]
pub struct LocalShell {
    folder: PrivateFolder,
    shell: PathBuf,
    /// The folder with the source, where words are expanded.
    source: PathBuf,
    /// Where the next command starts.
    directory: PathBuf,
    supervisor: Child,
    control: UnixStream,
    /// What all commands write to; background processes keep it open.
    output: io::PipeReader,
    buffer: Vec<u8>,
    stop: Option<OwnedFd>,
    stopped: Option<i32>,
}

/// The size of the pipe.
const BUFFER: usize = 64 * 1024;

impl LocalShell {
    /// Starts the supervisor. Variables and scripts go through `folder`.
    pub fn start(folder: PrivateFolder, setup: Setup<'_>) -> Result<Self, ShellError> {
        let Setup { supervisor: program, shell, environment, directory, stop } = setup;
        let shell = find_shell(shell, environment.value("PATH").unwrap_or_default())?;
        let not_started = |source| ShellError::Supervisor { path: program.to_owned(), source };
        let (control, theirs) = UnixStream::pair().map_err(not_started)?;
        let (output, writer) = io::pipe().map_err(not_started)?;
        let supervisor = Command::new(program)
            .args([OsStr::new(SUPERVISE), folder.path().as_os_str(), shell.as_os_str()])
            .env_clear()
            .envs(environment.iter().filter(|(name, _)| !script::is_identifier(name)))
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(writer.try_clone().map_err(not_started)?)
            .stderr(writer)
            .spawn()
            .map_err(not_started)?;
        Ok(Self {
            folder,
            shell,
            source: directory.to_owned(),
            directory: directory.to_owned(),
            supervisor,
            control,
            output,
            buffer: vec![0; BUFFER],
            stop,
            stopped: None,
        })
    }

    /// Ends all that commands have left running, and hands over what that writes until then.
    pub fn finish(mut self, output: &mut dyn FnMut(&[u8])) -> Result<(), ShellError> {
        self.send(Request::Quit)?;
        loop {
            let ready = self.wait_for_something()?;
            if ready.output {
                self.read_output(BUFFER, output)?;
            }
            if ready.stop {
                // It may have exited by now, which is what we wait for.
                let _ = self.pass_on_stop();
            }
            if ready.control && channel::report(&self.control).is_none() {
                return self.drain(output);
            }
        }
    }

    /// Waits until the supervisor reports, and hands over all that was written before.
    fn wait(&mut self, output: &mut dyn FnMut(&[u8])) -> Result<Report, ShellError> {
        loop {
            let ready = self.wait_for_something()?;
            if ready.output {
                self.read_output(BUFFER, output)?;
            }
            if ready.stop {
                self.pass_on_stop()?;
            }
            if ready.control {
                let report = channel::report(&self.control).ok_or(ShellError::SupervisorGone)?;
                // When asked to stop, it also reports that the command ended.
                if self.stopped.is_none() || report == Report::Quiet {
                    self.drain(output)?;
                    return Ok(report);
                }
            }
        }
    }

    fn wait_for_something(&self) -> Result<Ready, ShellError> {
        let mut fds = vec![
            PollFd::new(&self.output, PollFlags::IN),
            PollFd::new(&self.control, PollFlags::IN),
        ];
        fds.extend(self.stop.as_ref().map(|stop| PollFd::new(stop, PollFlags::IN)));
        poll(&mut fds, None)?;
        let is_ready = |index: usize| fds.get(index).is_some_and(|it| !it.revents().is_empty());
        Ok(Ready { output: is_ready(0), control: is_ready(1), stop: is_ready(2) })
    }

    /// Hands over at most `limit` bytes of output. There must be some, or the end of it.
    fn read_output(
        &mut self,
        limit: usize,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<usize, ShellError> {
        let limit = limit.min(BUFFER);
        let count = retry(|| rustix::io::read(&self.output, &mut self.buffer[..limit]))?;
        if count > 0 {
            output(&self.buffer[..count]);
        }
        Ok(count)
    }

    /// Hands over what is in the pipe now, and waits for nothing: a background process may keep
    /// it open for ever.
    fn drain(&mut self, output: &mut dyn FnMut(&[u8])) -> Result<(), ShellError> {
        let waiting = rustix::io::ioctl_fionread(&self.output).map_err(wait_error)?;
        let mut waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        while waiting > 0 {
            match self.read_output(waiting, output)? {
                0 => break,
                count => waiting -= count,
            }
        }
        Ok(())
    }

    /// Reads one byte of the stop channel, and tells the supervisor.
    fn pass_on_stop(&mut self) -> Result<(), ShellError> {
        let is_first = self.stopped.is_none();
        if self.read_stop() {
            self.send(if is_first { Request::Stop } else { Request::Kill })?;
        }
        Ok(())
    }

    /// Reads one byte of the stop channel; false if nobody can write to it any more.
    fn read_stop(&mut self) -> bool {
        let Some(stop) = &self.stop else { return false };
        let mut byte = [0];
        match retry(|| rustix::io::read(stop, &mut byte)) {
            Ok(1) => {
                self.stopped.get_or_insert(i32::from(byte[0]));
                true
            }
            Ok(_) | Err(_) => {
                self.stop = None;
                false
            }
        }
    }

    fn send(&self, request: Request) -> Result<(), ShellError> {
        channel::send(&self.control, request).map_err(|_| ShellError::SupervisorGone)
    }

    fn run_script(
        &mut self,
        script: &Script<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError> {
        if let Some(signal) = self.stop_requested() {
            return Ok(End::Stopped(signal));
        }
        let path = self.folder.script();
        fs::write(&path, script::script(&self.folder, script))
            .map_err(|source| ShellError::File { path, source })?;
        self.send(Request::Run)?;
        match (self.wait(output)?, self.stopped) {
            (_, Some(signal)) => Ok(End::Stopped(signal)),
            (Report::Exited(status), None) => {
                self.directory = self.next_directory()?;
                Ok(End::Exited(status))
            }
            (Report::Killed(signal), None) => Ok(End::Killed(signal)),
            (Report::NotStarted(errno), None) => Err(ShellError::NotStarted {
                path: self.shell.clone(),
                source: io::Error::from_raw_os_error(errno),
            }),
            (Report::Quiet, None) => Err(ShellError::SupervisorGone),
        }
    }

    /// Where the last command that saved its state left off.
    fn next_directory(&self) -> Result<PathBuf, ShellError> {
        let path = self.folder.directory();
        match fs::read(&path) {
            Ok(mut content) if content.ends_with(b"\n") => {
                content.pop();
                Ok(OsString::from_vec(content).into())
            }
            Ok(_) => Ok(self.directory.clone()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(self.directory.clone()),
            Err(source) => Err(ShellError::File { path, source }),
        }
    }
}

impl Shell for LocalShell {
    fn begin(&mut self, beginning: Beginning<'_>) -> Result<(), ShellError> {
        let path = self.folder.variables();
        fs::write(&path, script::variables(beginning.environment))
            .map_err(|source| ShellError::File { path, source })?;
        beginning.source.clone_into(&mut self.source);
        beginning.directory.clone_into(&mut self.directory);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot, ShellError> {
        Err(ShellError::SupervisorGone)
    }

    fn interact(&mut self, _: Interaction<'_>) -> Result<End, ShellError> {
        Err(ShellError::SupervisorGone)
    }

    fn run(
        &mut self,
        line: CommandLine<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError> {
        let directory = self.directory.clone();
        let CommandLine { text, succeeding, .. } = line;
        let script = Script { directory: &directory, text: OsStr::new(text), succeeding };
        self.run_script(&script, output)
    }

    fn expand(
        &mut self,
        Expansion { words, succeeding }: Expansion<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Result<Vec<OsString>, End>, ShellError> {
        let path = self.folder.answer();
        let text = script::expansion(words, &self.source, &path);
        let directory = self.source.clone();
        let script = Script { directory: &directory, text: &text, succeeding };
        let end = self.run_script(&script, output)?;
        if end != End::Exited(0) {
            return Ok(Err(end));
        }
        let answer = fs::read(&path).map_err(|source| ShellError::File { path, source })?;
        let words = answer.split_inclusive(|byte| *byte == 0);
        Ok(Ok(words.map(|it| OsStr::from_bytes(&it[..it.len() - 1]).to_owned()).collect()))
    }

    fn stop_requested(&mut self) -> Option<i32> {
        if self.stopped.is_none() && self.stop.as_ref().is_some_and(is_readable) {
            self.read_stop();
        }
        self.stopped
    }

    fn out_of_time(&mut self) -> bool {
        false
    }
}

impl Drop for LocalShell {
    fn drop(&mut self) {
        // The supervisor ends everything as soon as nobody can ask it for anything. If one of
        // these fails, it is gone, and there is nothing left to do.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.supervisor.wait();
    }
}

/// What can be read without waiting.
struct Ready {
    output: bool,
    control: bool,
    stop: bool,
}

/// The program that `name` stands for, on the PATH `path`.
fn find_shell(name: &str, path: &OsStr) -> Result<PathBuf, ShellError> {
    let is_program = |it: &PathBuf| it.is_file() && rustix::fs::access(it, Access::EXEC_OK).is_ok();
    let mut candidates = match name.contains('/') {
        true => vec![PathBuf::from(name)],
        false => std::env::split_paths(path).map(|it| it.join(name)).collect(),
    };
    // A relative entry of the PATH would mean another program after each `cd`.
    candidates.retain(|it| it.is_absolute());
    candidates
        .into_iter()
        .find(is_program)
        .ok_or_else(|| ShellError::NoShell { name: name.to_owned() })
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().is_empty()
}

fn poll(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, ShellError> {
    retry(|| rustix::event::poll(fds, timeout))
}

/// Calls again for as long as a signal interrupts.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, ShellError> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(wait_error),
        }
    }
}

fn wait_error(errno: Errno) -> ShellError {
    ShellError::Wait { source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_found_on_the_path_and_nowhere_else() {
        let found = |name, path: &str| find_shell(name, OsStr::new(path)).ok();
        assert_eq!(found("sh", "/nowhere:/bin:/usr/bin"), Some("/bin/sh".into()));
        assert_eq!(found("/bin/bash", ""), Some("/bin/bash".into()));
        assert_eq!(found("sh", "/nowhere:bin:."), None);
        assert_eq!(found("passwd", "/etc"), None);
    }
}
