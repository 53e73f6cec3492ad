//! The programs that keep credentials, `docker-credential-NAME`: one word as argument, one value
//! on standard input, JSON on standard output (docker-credential-helpers, README).

use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use rbuild_imagebuilder::registry::{Credential, docker_config::Helper};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use serde::{Deserialize, Serialize};

use crate::console::{self, size};

/// How long a program is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Then it is said who is waited for: someone may have to type a password.
    silent: Duration,
    /// Then it is ended.
    limit: Duration,
}

const PATIENCE: Patience =
    Patience { silent: Duration::from_secs(5), limit: Duration::from_mins(5) };

/// Why a program did not do what it should.
#[derive(Debug)]
pub(crate) enum HelperError {
    /// Its name would lead elsewhere.
    Name(String),
    /// It could not be run.
    NotRun { program: String, source: io::Error },
    /// It said no.
    Failed { program: String, said: String },
    /// It did not come to an end.
    Slow { program: String, limit: Duration },
    /// It said something that is no credential.
    Garbage { program: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// The credential that a program has for its server, if it has one.
pub(crate) fn get(helper: &Helper) -> Result<Option<Credential>, HelperError> {
    let output = match run(helper, "get", helper.server.as_bytes()) {
        Ok(output) => output,
        // A file that was copied from another machine may name what is not here.
        Err(HelperError::NotRun { source, .. })
            if source.kind() == io::ErrorKind::NotFound && !helper.is_certain =>
        {
            return Ok(None);
        }
        Err(err) => return Err(err),
    };
    if !output.status.success() {
        let said = said(&output);
        let is_unknown = said.to_lowercase().contains("not found") || !helper.is_certain;
        if is_unknown {
            return Ok(None);
        }
        return Err(HelperError::Failed { program: program(helper), said });
    }
    let garbage = |_| HelperError::Garbage { program: program(helper) };
    let Wire { username, secret, .. } = serde_json::from_slice(&output.stdout).map_err(garbage)?;
    if username.is_empty() && secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential { username, password: secret }))
}

/// Gives a credential to a program to keep.
pub(crate) fn store(helper: &Helper, credential: &Credential) -> Result<(), HelperError> {
    let wire = Wire {
        server_url: helper.server.clone(),
        username: credential.username.clone(),
        secret: credential.password.clone(),
    };
    let input =
        serde_json::to_vec(&wire).map_err(|_| HelperError::Garbage { program: program(helper) })?;
    finish(helper, &run(helper, "store", &input)?)
}

/// Tells a program to forget a credential; that it has none is as good.
pub(crate) fn erase(helper: &Helper) -> Result<(), HelperError> {
    let output = run(helper, "erase", helper.server.as_bytes())?;
    if said(&output).to_lowercase().contains("not found") {
        return Ok(());
    }
    finish(helper, &output)
}

fn finish(helper: &Helper, output: &Output) -> Result<(), HelperError> {
    if output.status.success() {
        return Ok(());
    }
    Err(HelperError::Failed { program: program(helper), said: said(output) })
}

fn program(helper: &Helper) -> String {
    format!("docker-credential-{}", helper.name)
}

fn run(helper: &Helper, word: &str, input: &[u8]) -> Result<Output, HelperError> {
    if helper.name.contains(['/', '\0']) {
        return Err(HelperError::Name(helper.name.clone()));
    }
    let program = program(helper);
    let mut command = Command::new(&program);
    match attend(command.arg(word), input, PATIENCE, &program) {
        Ok(Some(output)) => Ok(output),
        Ok(None) => Err(HelperError::Slow { program, limit: PATIENCE.limit }),
        Err(source) => Err(HelperError::NotRun { program, source }),
    }
}

/// Runs a program to its end; none if that does not come, and it was ended.
fn attend(
    command: &mut Command,
    input: &[u8],
    patience: Patience,
    program: &str,
) -> io::Result<Option<Output>> {
    let is_alone = !has_terminal();
    if is_alone {
        command.process_group(0);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (tell, told) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // One that needs no input may be gone already; its status says how it went.
        thread::spawn(move || stdin.write_all(&input));
    }
    let streams = (gather(child.stdout.take(), &tell), gather(child.stderr.take(), &tell));
    watch(&child, tell);
    if !is_done(&told, patience.silent) {
        console::say(&format!("waiting for `{program}`: does it ask for a password or a key?"));
        if !is_done(&told, patience.limit.saturating_sub(patience.silent)) {
            end(&mut child, is_alone)?;
            return Ok(None);
        }
    }
    let (stdout, stderr) = (joined(streams.0)?, joined(streams.1)?);
    Ok(Some(Output { status: child.wait()?, stdout, stderr }))
}

/// Whether the program may ask someone there, which only those of our own process group may.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Reads all that comes. That `tell` is dropped says that it is done.
fn gather(
    stream: Option<impl Read + Send + 'static>,
    tell: &Sender<()>,
) -> JoinHandle<io::Result<Vec<u8>>> {
    let tell = tell.clone();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.map_or(Ok(0), |mut it| it.read_to_end(&mut bytes));
        drop(tell);
        read.map(|_| bytes)
    })
}

/// Drops `tell` when the program is at its end. It stays a zombie, so that its number is its own.
fn watch(child: &Child, tell: Sender<()>) {
    let pid = Pid::from_child(child);
    thread::spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), options).err() == Some(Errno::INTR) {}
        drop(tell);
    });
}

/// Waits until nobody can tell anything any more.
fn is_done(told: &mpsc::Receiver<()>, time: Duration) -> bool {
    told.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
}

/// Ends a program, with all that it started if it has a process group of its own.
fn end(child: &mut Child, is_alone: bool) -> io::Result<()> {
    match is_alone {
        true => kill_process_group(Pid::from_child(child), Signal::KILL)?,
        false => child.kill()?,
    }
    child.wait().map(drop)
}

fn joined(thread: JoinHandle<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that reads has died")))
}

/// Programs say what is wrong on either stream; secrets are on neither then.
fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    let lines = texts.iter().flat_map(|it| it.lines().map(str::trim));
    let line = lines.filter(|it| !it.is_empty()).take(1).collect::<String>();
    line.chars().filter(|it| !it.is_control()).take(200).collect()
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}` is no name of a credential helper"),
            Self::NotRun { program, .. } => write!(f, "`{program}` could not be run"),
            Self::Failed { program, said } if said.is_empty() => {
                write!(f, "`{program}` failed and said nothing")
            }
            Self::Failed { program, said } => write!(f, "`{program}` failed: {said}"),
            Self::Slow { program, limit } => {
                write!(f, "`{program}` did not answer in {}", size::time(*limit))
            }
            Self::Garbage { program } => write!(f, "`{program}` gave no credential"),
        }
    }
}

impl Error for HelperError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotRun { source, .. } => Some(source),
            Self::Name(_) | Self::Failed { .. } | Self::Slow { .. } | Self::Garbage { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_program_says_is_read_to_its_end() {
        let large = "x".repeat(1 << 20);
        let output =
            attend(&mut shell("cat; echo no >&2; exit 3"), large.as_bytes(), PATIENCE, "x");
        let Output { status, stdout, stderr } = output.unwrap().unwrap();
        assert_eq!((status.code(), stdout.len(), stderr), (Some(3), 1 << 20, b"no\n".to_vec()));
        // One that reads nothing.
        let output = attend(&mut shell("exit 0"), large.as_bytes(), PATIENCE, "x");
        assert!(output.unwrap().unwrap().status.success());
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_what_it_started_too() {
        let patience =
            Patience { silent: Duration::from_millis(10), limit: Duration::from_secs(2) };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let output = attend(&mut shell(&script), b"", patience, "docker-credential-slow");
        assert!(output.unwrap().is_none());
        let started = std::fs::read_to_string(file).unwrap();
        let stat = format!("/proc/{}/stat", started.trim());
        // One that nobody has asked about yet is as good as gone.
        let is_there = || std::fs::read_to_string(&stat).is_ok_and(|it| !it.contains(") Z "));
        let begun = Instant::now();
        while !has_terminal() && is_there() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{started} is still there");
            thread::yield_now();
        }
        let err =
            HelperError::Slow { program: "docker-credential-x".into(), limit: PATIENCE.limit };
        assert_eq!(err.to_string(), "`docker-credential-x` did not answer in 5m00s");
    }
}
