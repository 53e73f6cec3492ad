//! Asks a person on the terminal of this process, wherever its streams go.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Whether what is typed is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    On,
    Off,
}

/// Shows nothing of what is typed, until it is dropped.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no setting.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
        let _ = writeln!(self.terminal);
    }
}

/// The line that a person types as an answer.
pub(crate) fn ask(question: &str, echo: Echo) -> io::Result<String> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(question.as_bytes())?;
    let silence = match echo {
        Echo::Off => Some(Silence::new(&terminal)?),
        Echo::On => None,
    };
    let mut answer = String::new();
    BufReader::new((&terminal).take(LONGEST)).read_line(&mut answer)?;
    drop(silence);
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}
