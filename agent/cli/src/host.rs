//! What is known of this machine and process: the environment, the clock, the terminal, signals.
//!
//! **Architecture invariant:** the only module that reads the environment and the clock.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    hash::{BuildHasher as _, RandomState},
    io::{self, IsTerminal as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use rbuild_imagebuilder::config::Platform;
use rustix::{
    fs::{Mode, OFlags},
    rand::{GetRandomFlags, getrandom},
};
use signal_hook::{consts::TERM_SIGNALS, iterator::Signals};

use crate::{
    console,
    failure::{Failure, Kind},
};

/// The value of a variable; one that is empty counts as not set.
pub(crate) fn variable(name: &str) -> Option<String> {
    variable_or_empty(name).filter(|it| !it.is_empty())
}

/// The value of a variable, which may be the name of any file; one that is empty counts as not set.
pub(crate) fn variable_os(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|it| !it.is_empty())
}

/// The value of a variable, which may be set and empty.
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
pub(crate) fn variable_or_empty(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// All variables.
pub(crate) fn variables() -> BTreeMap<OsString, OsString> {
    env::vars_os().collect()
}

/// The time since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// The time that `SOURCE_DATE_EPOCH` fixes, in seconds since 1970
/// (reproducible-builds.org, "`SOURCE_DATE_EPOCH`").
pub(crate) fn source_date_epoch() -> Result<Option<i64>, Failure> {
    let Some(text) = variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Some(seconds.into())),
        Err(_) => {
            let message = format!("SOURCE_DATE_EPOCH is `{text}`, which is no time");
            Err(Failure::new(Kind::Input, message)
                .hint("give the seconds since 1970, e.g., the output of `git log -1 --format=%ct`"))
        }
    }
}

/// The platform that images are for: this machine's.
pub(crate) fn platform() -> Platform {
    Platform::linux(env::consts::ARCH)
}

/// Whether this process was started to supervise the processes of a build.
pub(crate) fn is_supervisor() -> bool {
    env::args_os().nth(1).is_some_and(|it| it == rbuild_agent::shell::SUPERVISE)
}

/// Whether a person looks at both streams, so that progress can be drawn over what scrolls.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Whether this is a step of a workflow on GitHub Actions
/// (GitHub Docs, "Variables reference", `GITHUB_ACTIONS`).
pub(crate) fn is_github_actions() -> bool {
    variable("GITHUB_ACTIONS").is_some_and(|it| it == "true")
}

/// The folder that GitHub Actions has checked the source out to.
pub(crate) fn github_workspace() -> Option<PathBuf> {
    let folder = variable("GITHUB_WORKSPACE").map(PathBuf::from)?;
    // The source folder is known without links, too.
    Some(folder.canonicalize().unwrap_or(folder))
}

/// Whether this is a build of CodeBuild itself, and not one of rbuild's own.
pub(crate) fn is_codebuild() -> bool {
    variable("CODEBUILD_BUILD_ARN").is_some() && variable("CODEBUILD_LOCAL_BUILD").is_none()
}

/// The store's folder: what is asked for, or a folder in the user's cache.
pub(crate) fn store_folder(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    match asked {
        Some(folder) => Ok(folder.to_owned()),
        None => user_folder("XDG_CACHE_HOME", ".cache").ok_or_else(|| {
            Failure::new(Kind::Input, "there is no place for the store: HOME is not set")
                .hint("set HOME, or name a folder with --store")
        }),
    }
}

/// A folder of the user's for files of rbuild.
pub(crate) fn user_folder(variable_name: &str, below_home: &str) -> Option<PathBuf> {
    let base = match variable(variable_name).map(PathBuf::from).filter(|it| it.is_absolute()) {
        Some(folder) => folder,
        None => home()?.join(below_home),
    };
    Some(base.join("rbuild"))
}

/// The user's home.
pub(crate) fn home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from)
}

/// This program, to start it again.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|err| {
        Failure::new(Kind::Outside, "the program's own file was not found")
            .because(err)
            .hint("rbuild needs /proc for this")
    })
}

/// The current folder.
pub(crate) fn current_folder() -> Result<PathBuf, Failure> {
    env::current_dir().map_err(|err| {
        Failure::new(Kind::Input, "the current folder could not be read").because(err)
    })
}

/// Ends the process with 128 plus the number when a signal asks for it, and says so, with a hint
/// on what is there then.
///
/// For commands that may stop anywhere: the store holds nothing that is half-written.
pub(crate) fn stop_on_signals(hint: &'static str) -> Result<(), Failure> {
    let mut signals = Signals::new(TERM_SIGNALS)
        .map_err(|err| Failure::new(Kind::Outside, "signals could not be watched").because(err))?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let (told, is_told) = mpsc::channel();
            // If no thread can be started, nothing is told, and the wait is over at once.
            let _ = thread::Builder::new().spawn(move || {
                tell_of_stop(signal, hint);
                let _ = told.send(());
            });
            let _ = is_told.recv_timeout(LONGEST_FAREWELL);
            stop(Kind::Stopped(signal));
        }
    });
    Ok(())
}

/// How long a stopped process may take to say so: whoever reads standard error may have stopped
/// reading, while another thread waits for it.
const LONGEST_FAREWELL: Duration = Duration::from_millis(500);

fn tell_of_stop(signal: i32, hint: &'static str) {
    console::clear();
    let message = format!("stopped by {}", signal_name(signal));
    console::print_error(&Failure::new(Kind::Stopped(signal), message).hint(hint));
}

/// Ends the process with 128 plus the number of `signal` if it is still there after a time:
/// whoever reads its output may have stopped reading.
pub(crate) fn stop_after(time: Duration, signal: i32) {
    // If no thread can be started, the process ends when its output is read.
    let _ = thread::Builder::new().spawn(move || {
        let (_nobody, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(time);
        stop(Kind::Stopped(signal));
    });
}

#[expect(clippy::exit, reason = "other threads may be anywhere, and there is nothing to undo")]
fn stop(kind: Kind) {
    process::exit(i32::from(kind.status()));
}

/// A word of 128 bits, in hexadecimal, that nobody can guess.
pub(crate) fn random_word() -> String {
    let mut bytes = [0; 16];
    let filled = loop {
        match getrandom(&mut bytes, GetRandomFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => break result,
        }
    };
    let number = match filled {
        Ok(16) => u128::from_ne_bytes(bytes),
        // The keys of the standard library's hash tables are random, too.
        _ => {
            let half = || u128::from(RandomState::new().hash_one(0));
            half() << 64 | half()
        }
    };
    format!("{number:032x}")
}

/// The terminal of this process, wherever its streams go.
pub(crate) fn terminal() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).map_err(|err| {
        Failure::new(Kind::Input, "there is no terminal for a shell")
            .because(io::Error::from(err))
            .hint("leave out --break-before and --break-on-failure, or run rbuild in a terminal")
    })
}

/// The name of a signal, for people.
pub(crate) fn signal_name(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => name.to_owned(),
        None => format!("signal {signal}"),
    }
}
