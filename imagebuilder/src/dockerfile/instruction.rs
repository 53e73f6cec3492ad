//! What a line of a Dockerfile becomes.

use super::{Place, Switch, Word};

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub command: Command,
    /// Where its name is.
    pub place: Place,
    /// The last line that belongs to it, heredocs included.
    pub last_line: usize,
    /// What was written, with continuations joined and without the text of heredocs.
    pub source: String,
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Vec<Arg>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<Pair>),
    /// `EXPOSE`; see [`super::ports`].
    Expose(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<Pair>),
    /// `MAINTAINER`
    Maintainer(Word),
    /// `ONBUILD`, with what it puts off.
    Onbuild(Box<Instruction>),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<Word>),
    /// `STOPSIGNAL`
    StopSignal(Word),
    /// `USER`
    User(Word),
    /// `VOLUME`
    Volume(Vec<Word>),
    /// `WORKDIR`
    Workdir(Word),
}

/// The declaration of a build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: Word,
    /// Its default, with its quotes.
    pub default: Option<Word>,
}

/// A name and its value, both with their quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub key: Word,
    /// The value.
    pub value: Word,
}

/// A command, for the shell or without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// What the shell gets.
    Shell(Word),
    /// A program and its arguments; may be empty.
    Exec(Vec<Word>),
}

/// `COPY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied, at least one.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: Word,
    /// `--from`: a stage, an image, or a context.
    pub from: Option<Word>,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: Option<Switch>,
    /// `--parents`
    pub parents: Option<Switch>,
    /// `--exclude`, as often as it is given.
    pub exclude: Vec<Word>,
}

/// `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What is added, at least one.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: Word,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: Option<Switch>,
    /// `--exclude`, as often as it is given.
    pub exclude: Vec<Word>,
    /// `--checksum`
    pub checksum: Option<Word>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<Switch>,
    /// `--unpack`
    pub unpack: Option<Switch>,
}

/// What COPY and ADD take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path, a pattern or a URL.
    Path(Word),
    /// A file whose content is in the Dockerfile.
    Heredoc(Heredoc),
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Its heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, as often as it is given.
    pub mounts: Vec<Word>,
    /// `--network`
    pub network: Option<Word>,
    /// `--security`
    pub security: Option<Word>,
    /// `--device`, as often as it is given.
    pub devices: Vec<Word>,
}

/// A text that follows its instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, and the name of the file in COPY and ADD.
    pub name: String,
    /// The text as it is in the file, with its line ends.
    pub body: String,
    /// Whether variables in it are expanded: its name has no quotes.
    pub expands: bool,
    /// Whether `<<-` strips the tabs at the start of its lines.
    pub strips_tabs: bool,
    /// The file descriptor before `<<`, 0 if there is none.
    pub descriptor: u32,
    /// Where `<<` is.
    pub place: Place,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Switches off what the base has.
    None,
    /// Runs a command now and then.
    Check(Check),
}

/// How to check health; times are in nanoseconds, and 0 where nothing was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The command.
    pub command: CommandLine,
    /// `--interval`
    pub interval: u64,
    /// `--timeout`
    pub timeout: u64,
    /// `--start-period`
    pub start_period: u64,
    /// `--start-interval`
    pub start_interval: u64,
    /// `--retries`, 0 where nothing was given.
    pub retries: u32,
}

impl Heredoc {
    /// The text as COPY and ADD write it before variables are expanded.
    pub fn text(&self) -> String {
        if !self.strips_tabs {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|it| it.trim_start_matches('\t')).collect()
    }
}

impl Instruction {
    /// What was written, with the text of heredocs: what ONBUILD leaves in an image.
    pub fn full_source(&self) -> String {
        let mut text = self.source.clone();
        for heredoc in self.heredocs() {
            text.push('\n');
            text.push_str(&heredoc.body);
            text.push_str(&heredoc.name);
        }
        text
    }

    /// The heredocs that belong to it.
    pub fn heredocs(&self) -> Vec<&Heredoc> {
        match &self.command {
            Command::Run(run) => run.heredocs.iter().collect(),
            Command::Copy(copy) => heredocs_of(&copy.sources),
            Command::Add(add) => heredocs_of(&add.sources),
            Command::Onbuild(inner) => inner.heredocs(),
            _ => Vec::new(),
        }
    }
}

fn heredocs_of(sources: &[Source]) -> Vec<&Heredoc> {
    let heredocs = sources.iter().filter_map(|it| match it {
        Source::Heredoc(heredoc) => Some(heredoc),
        Source::Path(_) => None,
    });
    heredocs.collect()
}

impl Command {
    /// The name of the instruction.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}
