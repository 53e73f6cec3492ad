//! What a person may type after `rbuild check` and `rbuild schema`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, error::ErrorKind};
use rbuild_agent::check::switches::{Setting, Switches};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A comment `# rbuild: allow RULE` in a file allows what is in its line, or in the next.

Examples:
  rbuild check                                ./buildspec.yml
  rbuild check ci/*.yml --deny warnings       every warning is an error
  rbuild check --allow SC2086 --warn multi-line-status
  git show HEAD:buildspec.yml | rbuild check -
  rbuild check --format sarif > rbuild.sarif
  rbuild check --format json | jq '.findings[] | select(.level == \"error\")'

JSON has `version` (1), `findings` and `summary`. A finding has `file`, `rule`, `level` (error,
warning, note) and `message`, and, where they are known, `line`, `column`, `endLine`, `endColumn`
(from 1, in characters; the end is behind the last), `hint`, and `aws`: what CodeBuild says of it.

Exit status: 0 no errors, 2 errors, 3 a machine problem."
)]
pub(crate) struct Check {
    /// The buildspecs; `-` is standard input
    #[arg(value_name = "FILE", default_value = "buildspec.yml")]
    pub(crate) files: Vec<PathBuf>,

    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) rules: Rules,

    /// Leave out what the program shellcheck would say of the commands
    #[arg(long)]
    pub(crate) no_shellcheck: bool,

    /// Print all rules, their levels, and what they find
    #[arg(long)]
    pub(crate) list_rules: bool,

    /// Say what could not be looked at, too
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// `github` in a workflow of GitHub Actions, else `text`
    Auto,
    /// With the lines that are meant
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, as code scanning services take it
    Sarif,
    /// Annotations of GitHub Actions
    Github,
}

/// `--allow`, `--warn`, and `--deny`, in the order in which they were typed.
#[derive(Debug, Default)]
pub(crate) struct Rules(pub(crate) Switches);

const SWITCHES: [(&str, Setting, &str); 3] = [
    ("allow", Setting::Allow, "Do not tell of this rule; may be repeated, the last one wins"),
    ("warn", Setting::Warn, "Make this rule a warning; may be repeated"),
    ("deny", Setting::Deny, "Make this rule, or all `warnings`, an error; may be repeated"),
];

impl clap::Args for Rules {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(SWITCHES.map(|(name, _, help)| {
            Arg::new(name).long(name).value_name("RULE").action(ArgAction::Append).help(help)
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut typed: Vec<(usize, &String, Setting)> = SWITCHES
            .iter()
            .flat_map(|(id, setting, _)| {
                let names = matches.get_many::<String>(id).into_iter().flatten();
                let indices = matches.indices_of(id).into_iter().flatten();
                indices.zip(names).map(|(index, name)| (index, name, *setting))
            })
            .collect();
        typed.sort_by_key(|(index, ..)| *index);
        let mut switches = Switches::default();
        for (_, name, setting) in typed {
            let set = switches.set(name, setting);
            set.map_err(|err| clap::Error::raw(ErrorKind::InvalidValue, format!("{err}\n")))?;
        }
        Ok(Self(switches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rbuild schema > buildspec.schema.json       for editors: completion, and errors while typing
  rbuild schema events                        what each line of `rbuild run --json` is")]
pub(crate) struct Schema {
    /// Of what
    #[arg(value_enum, default_value_t = Subject::Buildspec)]
    pub(crate) subject: Subject,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// A buildspec file
    Buildspec,
    /// The events that `rbuild run --json` prints
    Events,
}
