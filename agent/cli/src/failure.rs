//! What a person is told when something goes wrong, and the exit status that a script gets.

use std::{error::Error, fmt, io, path::PathBuf, process::ExitCode};

/// Whose fault it is, and so what to do about it. The exit statuses are documented in README.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The user's own build, or the rollout of the user's own service, failed.
    Build,
    /// A file or an argument is wrong: trying again won't help.
    Input,
    /// The machine, the network, or a service failed: trying again may help.
    Outside,
    /// rbuild itself was told to stop by this signal.
    Stopped(i32),
}

/// A place in a file that a person wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The file as the person knows it.
    pub(crate) file: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// The line, counted from 1; 0 if no line is meant.
    pub(crate) line: usize,
    /// The column, counted from 1; 0 if no column is meant.
    pub(crate) column: usize,
}

/// A failure, with all that is known about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    message: String,
    spot: Option<Spot>,
    excerpt: Option<String>,
    cause: Option<Box<dyn Error>>,
    note: Option<String>,
    hint: Option<String>,
}

impl Kind {
    /// What programs know it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Input => "input",
            Self::Outside => "outside",
            Self::Stopped(_) => "stopped",
        }
    }

    /// The exit status.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Input => 2,
            Self::Outside => 3,
            Self::Stopped(signal) => 128 + u8::try_from(signal).unwrap_or_default(),
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, spot: None, excerpt: None, cause: None, note: None, hint: None }
    }

    /// A failure of which all was said: only its exit status is left.
    pub(crate) fn told(kind: Kind) -> Self {
        Self::new(kind, "")
    }

    /// Whether there is nothing left to say.
    pub(crate) fn is_told(&self) -> bool {
        self.message.is_empty()
    }

    /// A failure that says what an error says, and what caused it.
    pub(crate) fn of(kind: Kind, error: impl Error + 'static) -> Self {
        let message = error.to_string();
        Self { cause: Some(Box::new(Told(Box::new(error)))), ..Self::new(kind, message) }
    }

    pub(crate) fn because(self, cause: impl Error + 'static) -> Self {
        Self { cause: Some(Box::new(cause)), ..self }
    }

    /// Says where, to programs; people see the excerpt.
    pub(crate) fn at(self, spot: Spot) -> Self {
        Self { spot: Some(spot), ..self }
    }

    /// What is wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Where, if that is in one place.
    pub(crate) fn spot(&self) -> Option<&Spot> {
        self.spot.as_ref()
    }

    /// What caused it, and what caused that, and so on: each text once.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut last = self.message.clone();
        let mut next = self.cause.as_deref();
        while let Some(cause) = next {
            // Errors that pass on another's text would say it twice.
            let text = cause.to_string();
            if text != last {
                causes.push(text.clone());
            }
            last = text;
            next = cause.source();
        }
        causes
    }

    /// What else there is to say.
    pub(crate) fn noted(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// What to do about it.
    pub(crate) fn hinted(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn excerpt(self, excerpt: String) -> Self {
        Self { excerpt: Some(excerpt), ..self }
    }

    pub(crate) fn note(self, note: String) -> Self {
        Self { note: Some(note), ..self }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn hint_if(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }
}

/// The first cause of a kind, however deep: streams pass on what is wrong as their own errors.
pub(crate) fn cause_of<T: Error + 'static>(err: &io::Error) -> Option<&T> {
    let mut next: Option<&(dyn Error + 'static)> = Some(err);
    while let Some(err) = next {
        if let Some(found) = err.downcast_ref() {
            return Some(found);
        }
        // An `io::Error` passes over the error in it, to what caused that.
        next = match err.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => err.source(),
        };
    }
    None
}

/// An error whose own text was told already: only what caused it is left to say.
#[derive(Debug)]
struct Told(Box<dyn Error>);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        for cause in self.causes() {
            write!(f, "\ncaused by: {cause}")?;
        }
        if let Some(note) = &self.note {
            write!(f, "\n{note}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        Self::from(kind.status())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn tells_what_why_and_what_to_do() {
        let failure = Failure::new(Kind::Outside, "layer sha256:ab could not be uploaded")
            .because(io::Error::other("connection reset"))
            .hint("run the command again: layers that were uploaded are kept");
        expect![[r"
            error: layer sha256:ab could not be uploaded
            caused by: connection reset
            hint: run the command again: layers that were uploaded are kept"]]
        .assert_eq(&failure.to_string());
    }

    #[test]
    fn a_text_is_told_once() {
        let failure = Failure::of(Kind::Input, io::Error::other(io::Error::other("no")));
        assert_eq!(failure.to_string(), "error: no");
    }

    #[test]
    fn every_kind_has_its_status() {
        let kinds = [Kind::Build, Kind::Input, Kind::Outside, Kind::Stopped(2)];
        assert_eq!(kinds.map(Kind::status), [1, 2, 3, 130]);
    }
}
