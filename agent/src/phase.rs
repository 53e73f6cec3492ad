//! The parts of a build, and which one comes after which.
//!
//! A [`Phase`] is a part that a buildspec has commands for; a [`Stage`] is any part that the log
//! tells of. CodeBuild calls both "phase".

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use crate::choice::{AfterAbort, Choices, RetryScope};

/// A part of a build that a buildspec has commands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Prepares the machine.
    Install,
    /// Prepares the build, e.g., logs in to a registry.
    PreBuild,
    /// Builds.
    Build,
    /// Publishes or cleans up; runs after a failed build too.
    PostBuild,
}

/// A part of a build that the log tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Finds the source and reads its buildspec.
    DownloadSource,
    /// Runs the commands of a phase.
    Commands(Phase),
    /// Collects and packs the artifacts.
    UploadArtifacts,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// All of it worked.
    Succeeded,
    /// Something in it did not.
    Failed,
    /// Someone stopped the build.
    Stopped,
    /// The build took too long.
    TimedOut,
}

/// What a phase asks for if it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The build ends here.
    Abort,
    /// The next phase runs.
    Continue,
    /// It is tried again, and if that does not help, what comes is what comes without this.
    Retry(Retry),
}

/// How often something is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many times, from 0 to 100.
    pub count: u8,
    /// A regular expression that the output must match; any output will do if there is none.
    pub pattern: Option<String>,
}

impl Retry {
    /// The pattern, if there is one.
    ///
    /// Classes such as `\d` are those of ASCII, as they are for `CodeBuild`, and output need not be
    /// UTF-8. Patterns that mean nothing then, such as `\pL`, are read with the tables of Unicode.
    pub fn regex(&self) -> Result<Option<Regex>, regex::Error> {
        let Some(pattern) = &self.pattern else { return Ok(None) };
        let read = |unicode| RegexBuilder::new(pattern).unicode(unicode).build();
        read(false).or_else(|_| read(true)).map(Some)
    }

    /// Whether it is of use after a failure with this output.
    pub fn applies_to(&self, output: &[u8]) -> bool {
        // One that is no pattern matches nothing; a plan refuses to have it.
        self.regex().is_ok_and(|it| it.is_none_or(|it| it.is_match(output)))
    }
}

impl Phase {
    /// All phases, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Install, Self::PreBuild, Self::Build, Self::PostBuild];

    /// The phase that a buildspec calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// The name that a buildspec has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::PreBuild => "pre_build",
            Self::Build => "build",
            Self::PostBuild => "post_build",
        }
    }
}

impl Stage {
    /// Where every build starts.
    pub const FIRST: Self = Self::DownloadSource;

    /// The stage that comes after this one, which ended as `state`, if any does.
    #[must_use]
    pub fn after(
        self,
        state: State,
        on_failure: Option<&OnFailure>,
        choices: &Choices,
    ) -> Option<Self> {
        use Phase::{Build, Install, PostBuild, PreBuild};
        let state = match (state, on_failure) {
            (State::Failed, Some(OnFailure::Continue)) => State::Succeeded,
            (State::Failed, Some(OnFailure::Abort)) => {
                let uploads = choices.after_abort == AfterAbort::Upload;
                return uploads.then_some(Self::UploadArtifacts);
            }
            (state, _) => state,
        };
        match (self, state) {
            (_, State::Stopped | State::TimedOut) => None,
            (Self::DownloadSource, State::Succeeded) => Some(Self::Commands(Install)),
            (Self::Commands(Install), State::Succeeded) => Some(Self::Commands(PreBuild)),
            (Self::Commands(PreBuild), State::Succeeded) => Some(Self::Commands(Build)),
            (Self::Commands(Build), _) => Some(Self::Commands(PostBuild)),
            (Self::Commands(PostBuild), _) => Some(Self::UploadArtifacts),
            (Self::UploadArtifacts, _) | (_, State::Failed) => None,
        }
    }

    /// The stage that comes after this one if it is to be tried again.
    #[must_use]
    pub fn again(self, scope: RetryScope) -> Self {
        match scope {
            RetryScope::Build => Self::Commands(Phase::Install),
            RetryScope::Phase => self,
        }
    }
}

/// The name that the log has for it, e.g., `PRE_BUILD`.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Install => "INSTALL",
            Self::PreBuild => "PRE_BUILD",
            Self::Build => "BUILD",
            Self::PostBuild => "POST_BUILD",
        })
    }
}

/// The name that the log has for it, e.g., `UPLOAD_ARTIFACTS`.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DownloadSource => f.write_str("DOWNLOAD_SOURCE"),
            Self::Commands(phase) => phase.fmt(f),
            Self::UploadArtifacts => f.write_str("UPLOAD_ARTIFACTS"),
        }
    }
}

/// The name that the log has for it, e.g., `SUCCEEDED`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Stopped => "STOPPED",
            Self::TimedOut => "TIMED_OUT",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What runs if `stage` ends as `state` and all others succeed.
    #[track_caller]
    fn check(odd: &str, state: State, want: &str) {
        let of = |it: Stage| if it.to_string() == odd { state } else { State::Succeeded };
        let ran: Vec<String> = std::iter::successors(Some(Stage::FIRST), |it| {
            it.after(of(*it), None, &Choices::default())
        })
        .map(|it| it.to_string())
        .collect();
        assert_eq!(ran.join(" "), want, "if {odd} is {state}");
    }

    #[test]
    fn all_stages_run_in_order() {
        let all = "DOWNLOAD_SOURCE INSTALL PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS";
        check("none", State::Succeeded, all);
        for stage in all.split(' ') {
            check(stage, State::Succeeded, all);
        }
    }

    #[test]
    fn a_failed_preparation_ends_the_build_and_a_failed_build_does_not() {
        let to_install = "DOWNLOAD_SOURCE INSTALL";
        let all = "DOWNLOAD_SOURCE INSTALL PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS";
        for (stage, want) in [
            ("DOWNLOAD_SOURCE", "DOWNLOAD_SOURCE"),
            ("INSTALL", to_install),
            ("PRE_BUILD", "DOWNLOAD_SOURCE INSTALL PRE_BUILD"),
            ("BUILD", all),
            ("POST_BUILD", all),
            ("UPLOAD_ARTIFACTS", all),
        ] {
            check(stage, State::Failed, want);
        }
    }

    #[test]
    fn a_stopped_build_goes_nowhere() {
        for (stage, want) in [
            ("DOWNLOAD_SOURCE", "DOWNLOAD_SOURCE"),
            ("BUILD", "DOWNLOAD_SOURCE INSTALL PRE_BUILD BUILD"),
            ("POST_BUILD", "DOWNLOAD_SOURCE INSTALL PRE_BUILD BUILD POST_BUILD"),
        ] {
            check(stage, State::Stopped, want);
        }
    }

    #[test]
    fn a_pattern_is_searched_in_output_that_may_be_anything() {
        for (pattern, output, want) in [
            (None, "", true),
            (Some("time"), "connection timed out", true),
            (Some("^time"), "connection timed out", false),
            (Some(".*timed out.*"), "one\nconnection timed out\ntwo", true),
            (Some("(?i)TIMED"), "connection timed out", true),
            (Some(r"5\d\d"), "HTTP 503", true),
            (Some(r"5\d\d"), "HTTP 5٣٣", false),
            (Some("é"), "é", true),
            (Some("[é]"), "é", true),
            (Some("("), "(", false),
        ] {
            let retry = Retry { count: 1, pattern: pattern.map(str::to_owned) };
            assert_eq!(retry.applies_to(output.as_bytes()), want, "{pattern:?} {output}");
        }
        let retry = Retry { count: 1, pattern: Some("a.b".into()) };
        assert!(retry.applies_to(b"\xff a\xffb"));
    }

    #[test]
    fn phases_are_found_by_name() {
        for phase in Phase::ALL {
            assert_eq!(Phase::named(phase.name()), Some(phase));
        }
        assert_eq!(Phase::named("Build"), None);
    }
}
