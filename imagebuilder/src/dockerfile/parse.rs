//! Lines to instructions.

use std::collections::{HashSet, VecDeque};

use super::{
    Arg, Directives, Dockerfile, DockerfileError, ErrorKind, Instruction, Place, Stage, Warning,
    WarningKind, Word, directives,
    flags::{self, Flags, shown},
    healthcheck, heredoc,
    instruction::{Add, Command, CommandLine, Copy, Healthcheck, Heredoc, Pair, Run, Source},
    json::{self, Json},
    lines::{Line, Lines, Part, is_separator},
    suggest, words,
};

type Result<T> = std::result::Result<T, DockerfileError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

const KEYWORDS: [(&str, Keyword); 18] = [
    ("ADD", Keyword::Add),
    ("ARG", Keyword::Arg),
    ("CMD", Keyword::Cmd),
    ("COPY", Keyword::Copy),
    ("ENTRYPOINT", Keyword::Entrypoint),
    ("ENV", Keyword::Env),
    ("EXPOSE", Keyword::Expose),
    ("FROM", Keyword::From),
    ("HEALTHCHECK", Keyword::Healthcheck),
    ("LABEL", Keyword::Label),
    ("MAINTAINER", Keyword::Maintainer),
    ("ONBUILD", Keyword::Onbuild),
    ("RUN", Keyword::Run),
    ("SHELL", Keyword::Shell),
    ("STOPSIGNAL", Keyword::StopSignal),
    ("USER", Keyword::User),
    ("VOLUME", Keyword::Volume),
    ("WORKDIR", Keyword::Workdir),
];

/// An instruction that was named, and not read yet.
struct Statement<'a> {
    name: &'static str,
    keyword: Keyword,
    whole: Part<'a>,
    flags: Flags,
    args: Part<'a>,
}

/// Reads a whole Dockerfile.
pub(super) fn dockerfile(text: &str) -> Result<Dockerfile> {
    let directives = directives::parse(text)?;
    let mut parser = Parser::new(text, &directives);
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    while let Some(line) = parser.lines.logical() {
        parser.warn_of_gap(&line);
        let statement = Statement::parse(line.whole())?;
        if statement.keyword == Keyword::From {
            stages.push(parser.stage(&statement)?);
            continue;
        }
        let is_arg = statement.keyword == Keyword::Arg;
        match stages.last_mut() {
            Some(stage) => stage.instructions.push(parser.instruction(statement)?),
            None if is_arg => global_args.extend(parser.arg(statement.args)?),
            None => {
                let kind = ErrorKind::BeforeFrom { instruction: statement.name };
                return Err(kind.at(statement.whole.place()));
            }
        }
    }
    if stages.is_empty() {
        return Err(ErrorKind::NoStage.at(Place::START));
    }
    Ok(Dockerfile { directives, global_args, stages, warnings: parser.warnings })
}

impl<'a> Statement<'a> {
    fn parse(whole: Part<'a>) -> Result<Self> {
        let (word, rest) = whole.split_at(is_separator);
        let known = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word.text));
        let Some((name, keyword)) = known else {
            let names = KEYWORDS.iter().map(|(name, _)| *name);
            let suggestion = suggest::closest(word.text, names);
            let kind = ErrorKind::UnknownInstruction { name: shown(word.text), suggestion };
            return Err(kind.at(word.place()));
        };
        let (flags, args) = Flags::split(rest, name, keyword.flags())?;
        if args.text.is_empty() {
            return Err(ErrorKind::NoArguments { instruction: name }.at(word.place()));
        }
        Ok(Self { name, keyword: *keyword, whole, flags, args })
    }

    fn no_arguments(&self) -> DockerfileError {
        ErrorKind::NoArguments { instruction: self.name }.at(self.args.place())
    }
}

impl Keyword {
    fn flags(self) -> flags::Known {
        match self {
            Self::Add => flags::ADD,
            Self::Copy => flags::COPY,
            Self::From => flags::FROM,
            Self::Healthcheck => flags::HEALTHCHECK,
            Self::Run => flags::RUN,
            _ => &[],
        }
    }
}

struct Parser<'a> {
    lines: Lines<'a>,
    escape: char,
    stage_names: HashSet<String>,
    warnings: Vec<Warning>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, directives: &Directives) -> Self {
        let escape = directives.escape;
        let lines = Lines::new(text, escape);
        Self { lines, escape, stage_names: HashSet::new(), warnings: Vec::new() }
    }

    fn warn(&mut self, kind: WarningKind, place: Place) {
        self.warnings.push(Warning { kind, place });
    }

    fn warn_of_gap(&mut self, line: &Line) {
        if let Some(place) = line.gap {
            self.warn(WarningKind::EmptyContinuation, place);
        }
    }

    fn stage(&mut self, from: &Statement<'_>) -> Result<Stage> {
        let (image, name) = match from.args.words().as_slice() {
            [image] => (*image, None),
            [image, r#as, name] if r#as.text.eq_ignore_ascii_case("as") => (*image, Some(*name)),
            [_, wrong, ..] => return Err(ErrorKind::FromArguments.at(wrong.place())),
            [] => return Err(from.no_arguments()),
        };
        let name = match name {
            Some(name) => Some(self.stage_name(name)?),
            None => None,
        };
        Ok(Stage {
            image: self.word(image)?,
            platform: self.flag(&from.flags, "platform")?,
            name,
            place: from.whole.place(),
            source: from.whole.text.to_owned(),
            instructions: Vec::new(),
        })
    }

    fn stage_name(&mut self, part: Part<'_>) -> Result<Word> {
        let (name, place) = (part.text.to_lowercase(), part.place());
        let is_part =
            |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-_.".contains(it);
        if !name.starts_with(|it: char| it.is_ascii_lowercase()) || !name.chars().all(is_part) {
            return Err(ErrorKind::StageName { name: shown(part.text) }.at(place));
        }
        if matches!(name.as_str(), "scratch" | "context") {
            self.warn(WarningKind::StageReserved { name: name.clone() }, place);
        }
        if !self.stage_names.insert(name.clone()) {
            self.warn(WarningKind::StageTwice { name: name.clone() }, place);
        }
        Ok(Word { text: name, place })
    }

    fn instruction(&mut self, statement: Statement<'_>) -> Result<Instruction> {
        let (place, source) = (statement.whole.place(), statement.whole.text.to_owned());
        let command = self.command(statement)?;
        Ok(Instruction { command, place, last_line: self.lines.number, source })
    }

    fn command(&mut self, statement: Statement<'_>) -> Result<Command> {
        let Statement { name, keyword, args, .. } = statement;
        Ok(match keyword {
            Keyword::Add => Command::Add(self.add(&statement)?),
            Keyword::Arg => Command::Arg(self.arg(args)?),
            Keyword::Cmd => Command::Cmd(self.command_line(name, args)?),
            Keyword::Copy => Command::Copy(self.copy(&statement)?),
            Keyword::Entrypoint => Command::Entrypoint(self.command_line(name, args)?),
            Keyword::Env => Command::Env(self.pairs(name, args)?),
            Keyword::Expose => Command::Expose(self.words(&args.words())?),
            Keyword::Healthcheck => Command::Healthcheck(self.healthcheck(&statement)?),
            Keyword::Label => Command::Label(self.pairs(name, args)?),
            Keyword::Maintainer => {
                self.warn(WarningKind::Maintainer, statement.whole.place());
                Command::Maintainer(plain(args))
            }
            Keyword::Onbuild => Command::Onbuild(Box::new(self.onbuild(args)?)),
            Keyword::Run => Command::Run(self.run(&statement)?),
            Keyword::Shell => Command::Shell(shell(&statement)?),
            Keyword::StopSignal => Command::StopSignal(self.word(args)?),
            Keyword::User => Command::User(self.word(args)?),
            Keyword::Volume => Command::Volume(self.volume(&statement)?),
            Keyword::Workdir => Command::Workdir(self.word(args)?),
            // Stages begin elsewhere, and nothing else may hold this one.
            Keyword::From => {
                let kind = ErrorKind::Onbuild { instruction: name };
                return Err(kind.at(statement.whole.place()));
            }
        })
    }

    fn onbuild(&mut self, args: Part<'_>) -> Result<Instruction> {
        let inner = Statement::parse(args)?;
        if matches!(inner.keyword, Keyword::From | Keyword::Maintainer | Keyword::Onbuild) {
            return Err(ErrorKind::Onbuild { instruction: inner.name }.at(args.place()));
        }
        self.instruction(inner)
    }

    fn add(&mut self, statement: &Statement<'_>) -> Result<Add> {
        let flags = &statement.flags;
        let (sources, destination) = self.sources(statement)?;
        Ok(Add {
            sources,
            destination,
            chown: self.flag(flags, "chown")?,
            chmod: self.flag(flags, "chmod")?,
            link: flags.switch("link"),
            exclude: self.flags(flags, "exclude")?,
            checksum: self.flag(flags, "checksum")?,
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
        })
    }

    fn copy(&mut self, statement: &Statement<'_>) -> Result<Copy> {
        let flags = &statement.flags;
        let (sources, destination) = self.sources(statement)?;
        Ok(Copy {
            sources,
            destination,
            from: flags.one("from"),
            chown: self.flag(flags, "chown")?,
            chmod: self.flag(flags, "chmod")?,
            link: flags.switch("link"),
            parents: flags.switch("parents"),
            exclude: self.flags(flags, "exclude")?,
        })
    }

    /// The sources and the destination of ADD and COPY.
    fn sources(&mut self, statement: &Statement<'_>) -> Result<(Vec<Source>, Word)> {
        let Statement { name, args, .. } = *statement;
        let mut words = self.list(name, args)?;
        let destination = words.pop().ok_or_else(|| statement.no_arguments())?;
        if words.is_empty() {
            return Err(ErrorKind::NoDestination { instruction: name }.at(args.place()));
        }
        if matches!(json::parse(args), Json::Texts(_)) {
            return Ok((words.into_iter().map(Source::Path).collect(), destination));
        }
        if heredoc::head(&destination.text, 0).is_some() {
            let kind = ErrorKind::HeredocDestination { instruction: name };
            return Err(kind.at(destination.place));
        }
        let heredocs = self.heredocs(args)?;
        let sources = with_heredocs(words, heredocs).map_err(|Word { text, place }| {
            ErrorKind::HeredocUnused { instruction: name, name: shown(&text) }.at(place)
        })?;
        Ok((sources, destination))
    }

    fn run(&mut self, statement: &Statement<'_>) -> Result<Run> {
        let Statement { name, args, ref flags, .. } = *statement;
        let command = self.command_line(name, args)?;
        let heredocs = match command {
            CommandLine::Shell(_) => self.heredocs(args)?,
            CommandLine::Exec(_) => Vec::new(),
        };
        Ok(Run {
            command,
            heredocs,
            mounts: flags.many("mount"),
            network: flags.one("network"),
            security: flags.one("security"),
            devices: flags.many("device"),
        })
    }

    /// The heredocs that `args` begin, with the lines that follow.
    fn heredocs(&mut self, args: Part<'_>) -> Result<Vec<Heredoc>> {
        let mut heredocs = Vec::new();
        for head in heredoc::heads(args) {
            let heredoc::Head { name, expands, strips_tabs, descriptor, at } = head;
            let place = args.place_at(at);
            let Some(body) = self.lines.heredoc(&name, strips_tabs) else {
                return Err(ErrorKind::HeredocOpen { name: shown(&name) }.at(place));
            };
            let body = body.to_owned();
            heredocs.push(Heredoc { name, body, expands, strips_tabs, descriptor, place });
        }
        Ok(heredocs)
    }

    fn healthcheck(&mut self, statement: &Statement<'_>) -> Result<Healthcheck> {
        let Statement { name, args, ref flags, .. } = *statement;
        let (word, rest) = args.split_at(char::is_whitespace);
        let rest = rest.trim();
        if word.text.eq_ignore_ascii_case("NONE") {
            return match rest.text {
                "" => Ok(Healthcheck::None),
                _ => Err(ErrorKind::HealthcheckNone.at(rest.place())),
            };
        }
        if !word.text.eq_ignore_ascii_case("CMD") {
            return Err(ErrorKind::HealthcheckKind { word: shown(word.text) }.at(word.place()));
        }
        let command = self.command_line(name, rest)?;
        let is_empty = match &command {
            CommandLine::Shell(text) => text.text.is_empty(),
            CommandLine::Exec(words) => words.is_empty(),
        };
        if is_empty {
            return Err(ErrorKind::HealthcheckCommand.at(word.place()));
        }
        healthcheck::check(flags, command)
    }

    fn command_line(&mut self, name: &'static str, args: Part<'_>) -> Result<CommandLine> {
        match json::parse(args) {
            Json::Texts(words) => Ok(CommandLine::Exec(words)),
            Json::Mixed => Err(ErrorKind::NotTexts.at(args.place())),
            Json::None => {
                self.warn_of_no_array(name, args);
                Ok(CommandLine::Shell(plain(args)))
            }
        }
    }

    fn warn_of_no_array(&mut self, instruction: &'static str, args: Part<'_>) {
        if json::was_meant(args.text) {
            self.warn(WarningKind::NotJson { instruction }, args.place());
        }
    }

    fn volume(&mut self, statement: &Statement<'_>) -> Result<Vec<Word>> {
        let volumes = self.list(statement.name, statement.args)?;
        let volumes: Vec<Word> = volumes
            .into_iter()
            .map(|it| Word { text: it.text.trim().to_owned(), place: it.place })
            .collect();
        if let Some(empty) = volumes.iter().find(|it| it.text.is_empty()) {
            return Err(ErrorKind::EmptyVolume.at(empty.place));
        }
        if volumes.is_empty() {
            return Err(statement.no_arguments());
        }
        Ok(volumes)
    }

    /// Words, as an array or between white space.
    fn list(&mut self, name: &'static str, args: Part<'_>) -> Result<Vec<Word>> {
        match json::parse(args) {
            Json::Texts(words) => words.into_iter().map(|it| self.checked(it)).collect(),
            Json::Mixed => Err(ErrorKind::NotTexts.at(args.place())),
            Json::None => {
                self.warn_of_no_array(name, args);
                self.words(&args.words())
            }
        }
    }

    fn arg(&mut self, args: Part<'_>) -> Result<Vec<Arg>> {
        let declared = quoted_words(args, self.escape);
        let arg = |part: Part<'_>| match part.text.find('=') {
            None => Ok(Arg { name: self.word(part)?, default: None }),
            Some(equals) => {
                let Pair { key, value } = self.pair(part, equals)?;
                Ok(Arg { name: key, default: Some(value) })
            }
        };
        declared.into_iter().map(arg).collect()
    }

    fn pairs(&mut self, name: &'static str, args: Part<'_>) -> Result<Vec<Pair>> {
        let words = quoted_words(args, self.escape);
        if words.first().is_some_and(|it| !it.text.contains('=')) {
            self.warn(WarningKind::NoEquals { instruction: name }, args.place());
            return Ok(vec![self.old_pair(name, args)?]);
        }
        let pair = |part: Part<'_>| {
            let wrong = || ErrorKind::NoEquals { instruction: name, word: shown(part.text) };
            let equals = part.text.find('=').ok_or_else(|| wrong().at(part.place()))?;
            self.pair(part, equals)
        };
        words.into_iter().map(pair).collect()
    }

    /// The old form of ENV and LABEL: a name, and all the rest as its value.
    fn old_pair(&self, name: &'static str, args: Part<'_>) -> Result<Pair> {
        let (key, value) = args.split_at(is_separator);
        let value = value.trim();
        if value.text.is_empty() {
            let kind = ErrorKind::NoValue { instruction: name, name: shown(key.text) };
            return Err(kind.at(key.place()));
        }
        Ok(Pair { key: self.word(key)?, value: self.word(value)? })
    }

    fn pair(&self, part: Part<'_>, equals: usize) -> Result<Pair> {
        if equals == 0 {
            return Err(ErrorKind::NoName.at(part.place()));
        }
        let (key, value) = (part.slice(0, equals), part.after(equals + 1));
        Ok(Pair { key: self.word(key)?, value: self.word(value)? })
    }

    fn words(&self, parts: &[Part<'_>]) -> Result<Vec<Word>> {
        parts.iter().map(|it| self.word(*it)).collect()
    }

    /// A word that will be expanded: its quotes and variables are well-formed.
    fn word(&self, part: Part<'_>) -> Result<Word> {
        match words::check(part.text, self.escape) {
            Ok(()) => Ok(plain(part)),
            Err(err) => {
                let place = part.place_at(err.at());
                Err(ErrorKind::Words(err).at(place))
            }
        }
    }

    /// The same for a word that is not in the file as it is.
    fn checked(&self, word: Word) -> Result<Word> {
        match words::check(&word.text, self.escape) {
            Ok(()) => Ok(word),
            Err(err) => Err(ErrorKind::Words(err).at(word.place)),
        }
    }

    fn flag(&self, flags: &Flags, name: &str) -> Result<Option<Word>> {
        flags.one(name).map(|it| self.checked(it)).transpose()
    }

    fn flags(&self, flags: &Flags, name: &str) -> Result<Vec<Word>> {
        flags.many(name).into_iter().map(|it| self.checked(it)).collect()
    }
}

fn plain(part: Part<'_>) -> Word {
    Word { text: part.text.to_owned(), place: part.place() }
}

/// Puts each heredoc in the place of the word that begins it; the error is one without its other
/// half, which happens where quotes and white space cut a line differently.
fn with_heredocs(
    words: Vec<Word>,
    heredocs: Vec<Heredoc>,
) -> std::result::Result<Vec<Source>, Word> {
    let mut heredocs = VecDeque::from(heredocs);
    let mut sources = Vec::with_capacity(words.len());
    for word in words {
        let Some(head) = heredoc::head(&word.text, 0) else {
            sources.push(Source::Path(word));
            continue;
        };
        match heredocs.pop_front() {
            Some(heredoc) if heredoc.name == head.name => sources.push(Source::Heredoc(heredoc)),
            _ => return Err(Word { text: head.name, place: word.place }),
        }
    }
    match heredocs.pop_front() {
        Some(Heredoc { name, place, .. }) => Err(Word { text: name, place }),
        None => Ok(sources),
    }
}

fn shell(statement: &Statement<'_>) -> Result<Vec<Word>> {
    let place = statement.args.place();
    match json::parse(statement.args) {
        Json::Texts(words) if words.is_empty() => Err(statement.no_arguments()),
        Json::Texts(words) => Ok(words),
        Json::Mixed => Err(ErrorKind::NotTexts.at(place)),
        Json::None => Err(ErrorKind::ShellForm.at(place)),
    }
}

/// The parts between white space that is neither quoted nor escaped, with their quotes.
fn quoted_words(part: Part<'_>, escape: char) -> Vec<Part<'_>> {
    let mut words = Vec::new();
    let (mut start, mut quote) = (None, None);
    let mut chars = part.text.char_indices();
    while let Some((at, char)) = chars.next() {
        if quote.is_none() && char.is_whitespace() {
            words.extend(start.take().map(|it| part.slice(it, at)));
            continue;
        }
        start.get_or_insert(at);
        if char == escape && quote != Some('\'') {
            chars.next();
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '\'' | '"') {
            quote = Some(char);
        }
    }
    words.extend(start.map(|it| part.after(it)));
    words
}
