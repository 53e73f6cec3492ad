//! What AWS leaves open, and what is chosen where nobody says otherwise.
//!
//! Each of these is a question that the documentation of `CodeBuild` does not answer. The first
//! variant is what rbuild does; the others are there for those who know better.

/// All choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// How a build ends in which a phase with `on-failure: CONTINUE` failed.
    pub after_continue: AfterContinue,
    /// What runs after a phase with `on-failure: ABORT` failed.
    pub after_abort: AfterAbort,
    /// What `on-failure: RETRY` tries again.
    pub retry: RetryScope,
    /// Which of two artifacts of the same name is kept.
    pub collision: Collision,
    /// What becomes of a variable of the build that a command unsets.
    pub unset: Unset,
    /// What of a secret of many lines is masked.
    pub masking: Masking,
    /// Whether variables are carried from one command of `PowerShell` to the next.
    pub powershell: PowerShell,
}

/// How a build ends in which a phase with `on-failure: CONTINUE` failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterContinue {
    /// It failed.
    #[default]
    Fail,
    /// It succeeded, if nothing else failed.
    Pass,
}

/// What runs after a phase with `on-failure: ABORT` failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterAbort {
    /// Nothing.
    #[default]
    Stop,
    /// The artifacts are collected.
    Upload,
}

/// What `on-failure: RETRY` tries again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryScope {
    /// The build, from INSTALL on, with the variables and the folder that it started with.
    #[default]
    Build,
    /// The phase, with the variables and the folder that it left behind.
    Phase,
}

/// Which of two artifacts of the same name is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collision {
    /// The last one, in the order of their paths.
    #[default]
    Last,
    /// The first one.
    First,
    /// Neither: there are no artifacts then.
    Error,
}

/// What becomes of a variable of the build that a command unsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unset {
    /// It is gone for the commands that come later.
    #[default]
    Keep,
    /// It is there again, with its first value.
    Restore,
}

/// What of a secret of many lines is masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masking {
    /// The whole, and each of its lines.
    #[default]
    Lines,
    /// The whole alone.
    Whole,
}

/// Whether variables are carried from one command of `PowerShell` to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerShell {
    /// Those of `$env:` are, as with other shells.
    #[default]
    Carry,
    /// None is.
    Forget,
}
