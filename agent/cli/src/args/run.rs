//! What may be typed after `rbuild run`.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;

/// How the log of a build is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// Progress on a terminal, groups on GitHub Actions, else CodeBuild's lines
    #[default]
    Auto,
    /// CodeBuild's lines
    Codebuild,
    /// Progress, under which the output of commands scrolls
    Progress,
    /// Commands and what they write, nothing drawn
    Plain,
    /// Groups, masks and annotations for GitHub Actions
    Github,
}

/// How artifacts are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Packaging {
    /// Files in a folder
    None,
    /// One zip file
    Zip,
}

/// Who encrypts artifacts in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// S3 itself.
    S3,
    /// KMS, with this key, or with that of S3 in the account.
    Kms(Option<String>),
}

/// A phase of a buildspec, by the name that it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum PhaseName {
    Install,
    PreBuild,
    Build,
    PostBuild,
}

/// A choice where AWS's documentation leaves it open. The first of each name is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compat {
    /// A build fails in which a phase with `on-failure: CONTINUE` failed (default)
    #[value(name = "on-failure-continue=fail")]
    ContinueFail,
    /// It succeeds, if nothing else failed
    #[value(name = "on-failure-continue=pass")]
    ContinuePass,
    /// Nothing runs after a phase with `on-failure: ABORT` failed (default)
    #[value(name = "on-failure-abort=stop")]
    AbortStop,
    /// The artifacts are collected
    #[value(name = "on-failure-abort=upload")]
    AbortUpload,
    /// `on-failure: RETRY` tries the build again, from the start (default)
    #[value(name = "retry=build")]
    RetryBuild,
    /// It tries the phase again, with the state that it left behind
    #[value(name = "retry=phase")]
    RetryPhase,
    /// Of two artifacts of one name the last is kept (default)
    #[value(name = "collisions=last")]
    CollisionsLast,
    /// The first is kept
    #[value(name = "collisions=first")]
    CollisionsFirst,
    /// The build fails
    #[value(name = "collisions=error")]
    CollisionsError,
    /// A variable that a command unsets is gone (default)
    #[value(name = "unset=keep")]
    UnsetKeep,
    /// It is there again for the next command, with its first value
    #[value(name = "unset=restore")]
    UnsetRestore,
    /// Of a secret of many lines, the whole and each line are masked (default)
    #[value(name = "mask=lines")]
    MaskLines,
    /// The whole alone is masked
    #[value(name = "mask=whole")]
    MaskWhole,
    /// PowerShell's `$env:` variables last from one command to the next (default)
    #[value(name = "powershell-variables=carry")]
    PowershellCarry,
    /// They do not
    #[value(name = "powershell-variables=forget")]
    PowershellForget,
}

#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Later wins among variables: the buildspec, the project, env files, NAME=VALUE.

Examples:
  rbuild run                                  ./buildspec.yml, in this folder
  rbuild run ci/buildspec.yml -e STAGE=test --env-file ci.env
  rbuild run -C shop -a out --artifacts-packaging zip
  rbuild run --secrets .env.secrets           no AWS is needed for secrets then
  rbuild run --dry-run                        what would run, with numbers
  rbuild run --break-before 3                 a shell before the third command
  rbuild run --resume                         go on where the last build failed
  rbuild run | tee build.log                  CodeBuild's own log lines

As the project does it on AWS, its artifacts into a folder:
  aws codebuild batch-get-projects --names shop > shop.json
  rbuild run --project shop.json -a out

In place of codebuild_build.sh, with the same arguments:
  rbuild run -i IMAGE -a out -s . -s lib:../lib -e build.env -b ci/buildspec.yml -c"
)]
pub(crate) struct Run {
    /// The buildspec, relative to the source folder [default: the project's, or buildspec.yml]
    pub(crate) buildspec: Option<PathBuf>,

    /// The source folder, which commands start in [default: the current one]
    #[arg(short = 'C', long = "directory", value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,

    /// Set a variable, or all of an env file if it is one; may be repeated
    #[arg(
        short,
        long = "env",
        value_name = "NAME=VALUE|FILE",
        help_heading = SETTINGS
    )]
    pub(crate) env: Vec<String>,

    /// Set the variables of a file with NAME=VALUE lines; may be repeated
    ///
    /// Empty lines and those that begin with `#` mean nothing. Values are literal, quotes too. A
    /// NAME alone takes the value that rbuild itself has.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    pub(crate) env_file: Vec<PathBuf>,

    /// Build as this project does: the output of `aws codebuild batch-get-projects`
    #[arg(long, value_name = "FILE[#NAME]", help_heading = SETTINGS)]
    pub(crate) project: Option<PathBuf>,

    /// Take secrets from this file (NAME=VALUE lines, or JSON), and not from AWS
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    pub(crate) secrets: Option<PathBuf>,

    /// The AWS profile, for rbuild and for commands
    #[arg(short, long, value_name = "PROFILE", help_heading = SETTINGS)]
    pub(crate) profile: Option<String>,

    /// End the build after 90s, 30m or 1h; a number alone is minutes [default: the project's, or never]
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = SETTINGS)]
    pub(crate) timeout: Option<Duration>,

    /// Choose runtime-versions as a runtimes.yml of an image of CodeBuild says
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    pub(crate) runtimes_file: Option<PathBuf>,

    /// Give the commands all of rbuild's own environment
    #[arg(long, help_heading = SETTINGS)]
    pub(crate) inherit_env: bool,

    /// Choose where AWS's documentation leaves it open; may be repeated
    #[arg(long, value_enum, value_name = "NAME=VALUE", help_heading = SETTINGS)]
    pub(crate) compat: Vec<Compat>,

    /// Where artifacts go [default: ~/.local/state/rbuild/artifacts/…]
    #[arg(short, long, value_name = "DIR|s3://…", help_heading = ARTIFACTS)]
    pub(crate) artifacts: Option<PathBuf>,

    /// How artifacts are packed [default: as the project says, or none]
    #[arg(long, value_enum, value_name = "FORM", help_heading = ARTIFACTS)]
    pub(crate) artifacts_packaging: Option<Packaging>,

    /// Have S3 encrypt artifacts [default: as the project or the bucket says]
    #[arg(
        long,
        value_name = "AES256|aws:kms[:KEY]",
        value_parser = encryption,
        requires = "artifacts",
        help_heading = ARTIFACTS
    )]
    pub(crate) artifacts_encryption: Option<Encryption>,

    /// Upload artifacts to where the project has them on AWS
    #[arg(
        long,
        requires = "project",
        conflicts_with_all = ["artifacts", "artifacts_packaging", "only"],
        help_heading = ARTIFACTS
    )]
    pub(crate) upload: bool,

    #[command(flatten)]
    pub(crate) debugging: Debugging,

    /// How the log is shown
    #[arg(long, value_enum, default_value_t = Log::Auto, help_heading = OUTPUT)]
    pub(crate) log: Log,

    /// Print JSON, an event a line
    #[arg(long, conflicts_with = "log", help_heading = OUTPUT)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) local_agent: LocalAgent,
}

/// What helps to find out why a build fails.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Debugging {
    /// Print what would run, and run nothing
    #[arg(long, help_heading = DEBUGGING)]
    pub(crate) dry_run: bool,

    /// Begin with this phase
    #[arg(long, value_enum, value_name = "PHASE", help_heading = DEBUGGING)]
    pub(crate) from: Option<PhaseName>,

    /// Run this phase alone, and collect no artifacts
    #[arg(
        long,
        value_enum,
        value_name = "PHASE",
        conflicts_with = "from",
        help_heading = DEBUGGING
    )]
    pub(crate) only: Option<PhaseName>,

    /// Open a shell before this command, by its number in --dry-run; may be repeated
    #[arg(long, value_name = "N", help_heading = DEBUGGING)]
    pub(crate) break_before: Vec<usize>,

    /// Open a shell where a command failed
    #[arg(long, help_heading = DEBUGGING)]
    pub(crate) break_on_failure: bool,

    /// Go on with the command at which the last build of this source ended
    #[arg(long, conflicts_with_all = ["from", "only"], help_heading = DEBUGGING)]
    pub(crate) resume: bool,
}

/// The flags of AWS's `codebuild_build.sh` that are not among the others.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct LocalAgent {
    /// The source folder, or a secondary source if it has an ID; may be repeated
    #[arg(short, long, value_name = "[ID:]DIR", help_heading = LOCAL_AGENT)]
    pub(crate) source: Vec<PathBuf>,

    /// The buildspec, relative to the current folder or the source
    #[arg(short, value_name = "FILE", help_heading = LOCAL_AGENT)]
    pub(crate) buildspec_file: Option<PathBuf>,

    /// The image that commands would run in: they run on this machine, with a warning
    #[arg(short, value_name = "IMAGE", help_heading = LOCAL_AGENT)]
    pub(crate) image: Option<String>,

    /// The image of the agent: rbuild needs none
    #[arg(short = 'l', value_name = "IMAGE", help_heading = LOCAL_AGENT)]
    pub(crate) agent_image: Option<String>,

    /// The folder for reports: there are none yet, with a warning
    #[arg(short, value_name = "DIR", help_heading = LOCAL_AGENT)]
    pub(crate) reports: Option<PathBuf>,

    /// Use this machine's AWS settings: always so
    #[arg(short = 'c', help_heading = LOCAL_AGENT)]
    pub(crate) aws_settings: bool,

    /// Build in the source folder itself: always so
    #[arg(short, help_heading = LOCAL_AGENT)]
    pub(crate) mount_source: bool,

    /// Run privileged: there is no container to be so
    #[arg(short = 'd', help_heading = LOCAL_AGENT)]
    pub(crate) privileged: bool,
}

const SETTINGS: &str = "Settings of the build";
const ARTIFACTS: &str = "Artifacts";
const DEBUGGING: &str = "Debugging";
const OUTPUT: &str = "Output";
const LOCAL_AGENT: &str = "As codebuild_build.sh has them (with -a, -e and -p)";

/// Reads who encrypts artifacts in S3.
fn encryption(text: &str) -> Result<Encryption, String> {
    match text.strip_prefix("aws:kms") {
        None if text == "AES256" => Ok(Encryption::S3),
        Some("") => Ok(Encryption::Kms(None)),
        Some(key) if key.starts_with(':') && 1 < key.len() => {
            Ok(Encryption::Kms(Some(key[1..].to_owned())))
        }
        _ => Err("write it as AES256, aws:kms, or aws:kms:KEY".to_owned()),
    }
}

/// Reads a time such as `90s`, `30m`, `1h30m`, or a number of minutes.
fn time(text: &str) -> Result<Duration, String> {
    let unclear = || "write it as 90s, 30m, 1h, or a number of minutes".to_owned();
    let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let text = if is_number { &format!("{text}m") } else { text };
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit()).ok_or_else(unclear)?;
        let count: u64 = rest[..end].parse().map_err(|_| unclear())?;
        let unit = match rest.as_bytes()[end] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return Err(unclear()),
        };
        seconds =
            count.checked_mul(unit).and_then(|it| it.checked_add(seconds)).ok_or_else(unclear)?;
        rest = &rest[end + 1..];
    }
    match seconds {
        0 => Err("a build needs some time".to_owned()),
        // The clock of the system counts no further.
        it if it > u64::from(u32::MAX) => Err("that is more than a century".to_owned()),
        it => Ok(Duration::from_secs(it)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_by_s3_or_by_a_key() {
        let key = |it: &str| Ok(Encryption::Kms(Some(it.to_owned())));
        let unclear = Err("write it as AES256, aws:kms, or aws:kms:KEY".to_owned());
        for (text, want) in [
            ("AES256", Ok(Encryption::S3)),
            ("aws:kms", Ok(Encryption::Kms(None))),
            ("aws:kms:alias/shop", key("alias/shop")),
            ("aws:kms:arn:aws:kms:eu-west-1:1:key/2", key("arn:aws:kms:eu-west-1:1:key/2")),
            ("aws:kms:", unclear.clone()),
            ("kms", unclear.clone()),
            ("", unclear),
        ] {
            assert_eq!(encryption(text), want, "for `{text}`");
        }
    }

    #[test]
    fn times_have_units_and_minutes_need_none() {
        let unclear = Err("write it as 90s, 30m, 1h, or a number of minutes");
        for (text, want) in [
            ("90s", Ok(90)),
            ("30m", Ok(1800)),
            ("1h", Ok(3600)),
            ("1h30m", Ok(5400)),
            ("5", Ok(300)),
            ("0", Err("a build needs some time")),
            ("", Err("a build needs some time")),
            ("0s", Err("a build needs some time")),
            ("m", unclear),
            ("5 m", unclear),
            ("5d", unclear),
            ("-5", unclear),
            ("1.5h", unclear),
            ("5é", unclear),
            ("1h30", unclear),
            ("99999999999999999999", unclear),
            ("9999999999999999999h", unclear),
            ("99999999999", Err("that is more than a century")),
        ] {
            let read = time(text).map(|it| it.as_secs());
            assert_eq!(read.as_ref().map_err(String::as_str).copied(), want, "for `{text}`");
        }
    }
}
