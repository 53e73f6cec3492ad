//! A shell for a person: the person's terminal, and the one that the shell gets instead.
//!
//! The shell has a terminal of its own, so that what it does with it ends with it, and so that
//! Ctrl-C is for what runs in the foreground there. The person's terminal hands on every byte
//! meanwhile.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pty::OpenptFlags,
    termios::{OptionalActions, Termios, Winsize},
};

use crate::shell::channel;

/// Where a person types, and sees what comes of it. Both may be the same.
#[derive(Debug)]
pub struct Terminal {
    /// What the person types comes from here.
    pub input: OwnedFd,
    /// What the person sees goes there.
    pub output: OwnedFd,
}

/// A terminal that hands on every byte, until this value goes.
struct Raw<'t> {
    input: &'t OwnedFd,
    before: Termios,
}

impl<'t> Raw<'t> {
    fn enter(input: &'t OwnedFd) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(input)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(input, OptionalActions::Now, &raw)?;
        Ok(Self { input, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // What shows in the shell has been shown; what was typed for it is not for who comes next.
        let _ = rustix::termios::tcsetattr(self.input, OptionalActions::Flush, &self.before);
    }
}

/// A person who uses a shell.
pub(super) struct Session<'t> {
    terminal: &'t Terminal,
    _raw: Raw<'t>,
    ours: OwnedFd,
    /// The terminal of the shell.
    theirs: PathBuf,
    /// Keeps that open: our end of a terminal that nobody has open says so again and again.
    _held: OwnedFd,
    size: Option<Winsize>,
    /// What was typed, and does not fit in.
    typed: VecDeque<u8>,
    /// Whether more may be typed.
    is_open: bool,
}

/// How much is copied at once.
const BUFFER: usize = 16 * 1024;

impl<'t> Session<'t> {
    /// Makes a terminal like that of the person.
    pub(super) fn start(terminal: &'t Terminal) -> io::Result<Self> {
        let ours =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&ours)?;
        rustix::pty::unlockpt(&ours)?;
        let theirs = OsString::from_vec(rustix::pty::ptsname(&ours, Vec::new())?.into_bytes());
        let theirs = PathBuf::from(theirs);
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let held = rustix::fs::open(&theirs, flags, Mode::empty())?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let raw = Raw::enter(&terminal.input)?;
        let mut session = Self {
            terminal,
            _raw: raw,
            ours,
            theirs,
            _held: held,
            size: None,
            typed: VecDeque::new(),
            is_open: true,
        };
        session.resize();
        Ok(session)
    }

    /// The terminal of the shell.
    pub(super) fn path(&self) -> &Path {
        &self.theirs
    }

    /// What the person types, if there is room for it.
    pub(super) fn input(&self) -> Option<&OwnedFd> {
        Some(&self.terminal.input).filter(|_| self.is_open && self.typed.is_empty())
    }

    /// Our end of the terminal of the shell, and whether something is to be written to it.
    pub(super) fn ours(&self) -> (&OwnedFd, bool) {
        (&self.ours, !self.typed.is_empty())
    }

    /// Lets the terminal of the shell have the size of that of the person.
    pub(super) fn resize(&mut self) {
        let size = rustix::termios::tcgetwinsize(&self.terminal.output).ok();
        if let Some(size) = size.filter(|_| size != self.size) {
            // The shell does without.
            let _ = rustix::termios::tcsetwinsize(&self.ours, size);
            self.size = Some(size);
        }
    }

    /// Reads what was typed.
    pub(super) fn read(&mut self) {
        let mut buffer = [0; BUFFER];
        match rustix::io::read(&self.terminal.input, &mut buffer) {
            Ok(0) => self.hang_up(),
            Ok(count) => self.typed.extend(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.hang_up(),
        }
    }

    /// Nobody types any more: the shell reads its end, as with Ctrl-D.
    fn hang_up(&mut self) {
        self.is_open = false;
        self.typed.extend([4]);
    }

    /// Hands on what was typed.
    pub(super) fn write(&mut self) {
        let (typed, _) = self.typed.as_slices();
        if typed.is_empty() {
            return;
        }
        match rustix::io::write(&self.ours, typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.typed.clear(),
        }
    }

    /// Shows what the shell wrote, and true if there was something.
    pub(super) fn show(&mut self) -> bool {
        let mut buffer = [0; BUFFER];
        match rustix::io::read(&self.ours, &mut buffer) {
            Ok(count) if 0 < count => {
                // Who does not look misses it.
                let _ = channel::write(self.terminal.output.as_fd(), &buffer[..count]);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Shows the rest.
    pub(super) fn finish(mut self) {
        let mut left = 1024;
        while 0 < left && self.show() {
            left -= 1;
        }
    }
}
