//! The shells of this machine.
//!
//! **Architecture invariant:** starts one process, the supervisor, which starts all others; and
//! never waits for something that a command could withhold.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::Access,
    io::Errno,
    process::{Pid, Signal},
    thread::{Gid, Uid},
};

use crate::{
    choice::{Choices, PowerShell, Unset},
    environment::Environment,
    shell::{
        Beginning, CommandLine, End, Expansion, Interaction, PrivateFolder, SUPERVISE, Shell,
        ShellError, Snapshot, Terminal,
        channel::{self, Order, Report, Request},
        folder,
        given::{self, Given},
        powershell, processes,
        script::{self, Save, Script, Variables},
        state,
        terminal::Session,
        user::{self, Identity},
    },
};

/// What a [`LocalShell`] needs.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The program that calls [`supervise`](super::supervise) when its first argument is
    /// [`SUPERVISE`].
    pub supervisor: &'a Path,
    /// The name of the shell, or its path.
    pub shell: &'a str,
    /// The variables of the first command. Those whose names no shell can have are the same for
    /// all commands.
    pub environment: &'a Environment,
    /// Where the first command starts.
    pub directory: &'a Path,
    /// Where signals come from, a byte for each, its number. The first asks all processes of the
    /// build to end, and kills those that have not after five seconds; the second kills at once.
    pub stop: Option<OwnedFd>,
    /// When the build has run too long: then it ends as if someone had asked it to.
    pub deadline: Option<Instant>,
    /// What a person uses, should one get a shell.
    pub terminal: Option<Terminal>,
    /// What AWS leaves open.
    pub choices: Choices,
}

/// A shell on this machine.
///
/// Dropping it ends all that its commands have started. While there is one, this process is a
/// subreaper (prctl(2)): should someone kill the supervisor, what ran under it is ended here.
#[derive(Debug)]
pub struct LocalShell {
    folder: PrivateFolder,
    program: PathBuf,
    dialect: Dialect,
    choices: Choices,
    /// The variables that all commands have, since no shell can change them.
    fixed: Vec<(OsString, OsString)>,
    /// The folder with the source, where words are expanded.
    source: PathBuf,
    /// Where the first command started.
    start: PathBuf,
    /// The variables of the first command.
    first: Arc<Vec<u8>>,
    /// What the next command starts with.
    now: State,
    /// What the last one started with.
    before: State,
    /// What the last order gave.
    given: Option<Gave>,
    /// How many commands were run.
    number: u64,
    /// Whether something may be left of an earlier command.
    has_run: bool,
    user: User,
    supervisor: Child,
    control: UnixStream,
    orders: io::PipeWriter,
    /// What all commands write to; background processes keep it open.
    output: io::PipeReader,
    buffer: Vec<u8>,
    stop: Option<OwnedFd>,
    deadline: Option<Instant>,
    /// Why nothing runs any more: someone asked for that, or the time is up.
    over: Option<End>,
    terminal: Option<Terminal>,
    was_subreaper: bool,
}

/// A state of the shell that commands carry on.
#[derive(Clone, Debug)]
struct State {
    /// As the shell saved them.
    variables: Arc<Vec<u8>>,
    directory: PathBuf,
}

/// What a command saved.
struct Saved {
    /// None if its variables are not carried.
    variables: Option<Vec<u8>>,
    directory: PathBuf,
}

/// What commands were given that start with some state.
#[derive(Debug)]
struct Gave {
    of: Arc<Vec<u8>>,
    /// What they are to read; if that is much, it is in a file.
    statements: Option<Vec<u8>>,
}

/// Which language a shell speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Posix,
    PowerShell,
}

/// To whom the files of the folder belong.
#[derive(Debug, Default)]
struct User {
    name: Option<String>,
    /// None if that is who runs rbuild.
    identity: Option<Identity>,
}

/// What a shell is to do.
#[derive(Clone, Copy)]
struct Task<'a> {
    /// What it starts with.
    state: &'a State,
    /// Where it starts.
    directory: &'a Path,
    text: &'a OsStr,
    succeeding: bool,
    user: Option<&'a str>,
    save: Save<'a>,
}

/// So many bytes of statements are read with the text of the user, and more from a file.
const SHORT: usize = 4096;

/// How much of the output is handed over at once.
const BUFFER: usize = 128 * 1024;

/// How much of it waits in the pipe, where the system allows that.
const PIPE: usize = 1024 * 1024;

/// How often the size of a terminal is looked at.
const TICK: Duration = Duration::from_millis(200);

impl LocalShell {
    /// Starts the supervisor. Variables and scripts go through `folder`.
    pub fn start(folder: PrivateFolder, setup: Setup<'_>) -> Result<Self, ShellError> {
        let Setup { supervisor, shell, environment, directory, .. } = setup;
        let shell = find_shell(shell, environment.value("PATH").unwrap_or_default())?;
        let dialect = match powershell::is_powershell(&shell) {
            true => Dialect::PowerShell,
            false => Dialect::Posix,
        };
        let fixed = environment.iter().filter(|(name, _)| !script::is_identifier(name));
        let fixed: Vec<_> =
            fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let started = start_supervisor(supervisor, &folder, &shell, dialect, &fixed);
        let Started { child, control, orders, output } = started
            .map_err(|source| ShellError::Supervisor { path: supervisor.to_owned(), source })?;
        let state = State { variables: Arc::default(), directory: directory.to_owned() };
        Ok(Self {
            folder,
            program: shell,
            dialect,
            choices: setup.choices,
            fixed,
            source: directory.to_owned(),
            start: directory.to_owned(),
            first: Arc::clone(&state.variables),
            now: state.clone(),
            before: state,
            given: None,
            number: 0,
            has_run: false,
            user: User::default(),
            supervisor: child,
            control,
            orders,
            output,
            buffer: vec![0; BUFFER],
            stop: setup.stop,
            deadline: setup.deadline,
            over: None,
            terminal: setup.terminal,
            was_subreaper: become_subreaper(),
        })
    }

    /// Ends all that commands have left running, and hands over what that writes until then.
    pub fn finish(mut self, output: &mut dyn FnMut(&[u8])) -> Result<(), ShellError> {
        // What ends now has its own limit.
        self.deadline = None;
        self.send(Request::Quit)?;
        loop {
            let ready = self.wait_for_output()?;
            if ready.output {
                self.read_output(BUFFER, output)?;
            }
            if ready.stop {
                // It may have exited by now, which is what we wait for.
                let _ = self.pass_on_stop();
            }
            if ready.control && channel::report(&self.control).is_none() {
                return self.drain(output);
            }
        }
    }

    /// Waits until the supervisor reports, and hands over all that was written before.
    fn wait(&mut self, output: &mut dyn FnMut(&[u8])) -> Result<Report, ShellError> {
        loop {
            let ready = self.wait_for_output()?;
            if ready.output {
                self.read_output(BUFFER, output)?;
            }
            if ready.stop {
                self.pass_on_stop()?;
            }
            if !ready.control {
                continue;
            }
            let report = self.listen()?;
            // When everything is to end, it also reports that the command ended.
            if self.over.is_none() || report == Report::Quiet {
                self.drain(output)?;
                return Ok(report);
            }
        }
    }

    /// Ends all that commands have left running. What that writes waits in the pipe, and is handed
    /// over with the output of the next command.
    fn reset(&mut self) -> Result<(), ShellError> {
        self.send(Request::Reset)?;
        loop {
            let [control, stop] = poll(
                [Some(reads(&self.control)), self.stop.as_ref().map(reads)],
                self.time_left(),
            )?;
            self.watch_the_clock()?;
            if stop {
                self.pass_on_stop()?;
            }
            if control && self.listen()? == Report::Quiet {
                return Ok(());
            }
        }
    }

    /// Copies between the terminals until the shell ends, or everything is to end.
    fn converse(&mut self, session: &mut Session<'_>) -> Result<Option<Report>, ShellError> {
        while self.over.is_none() {
            let tick = self.time_left().map_or(TICK, |it| it.min(TICK));
            let (ours, has_typed) = session.ours();
            let fds = [
                Some(reads(&self.control)),
                self.stop.as_ref().map(reads),
                session.input().map(reads),
                Some(reads(ours)),
                Some((ours.as_fd(), PollFlags::OUT)).filter(|_| has_typed),
            ];
            let [control, stop, input, shows, has_room] = poll(fds, Some(tick))?;
            self.watch_the_clock()?;
            session.resize();
            if stop {
                self.pass_on_stop()?;
            }
            if input {
                session.read();
            }
            if has_room {
                session.write();
            }
            if shows {
                session.show();
            }
            if control {
                return self.listen().map(Some);
            }
        }
        Ok(None)
    }

    /// Runs a shell for a person, and waits for its end.
    fn converse_in(&mut self, terminal: &Terminal, task: Task<'_>) -> Result<End, ShellError> {
        let failed = |source| ShellError::Terminal { source };
        let mut session = Session::start(terminal).map_err(failed)?;
        let path = session.path().to_owned();
        let identity = self.user.identity.clone();
        if let Some(Identity { uid, .. }) = identity {
            rustix::fs::chown(&path, Some(Uid::from_raw(uid)), None)
                .map_err(|errno| failed(errno.into()))?;
        }
        self.order(task, Order { identity, terminal: Some(path), variables: None })?;
        match self.converse(&mut session)? {
            Some(report) => {
                session.finish();
                self.end_of(report)
            }
            None => {
                // A shell that a person uses ignores SIGTERM, and ends when its terminal does.
                drop(session);
                let report = self.wait(&mut |_| {})?;
                self.end_of(report)
            }
        }
    }

    fn listen(&mut self) -> Result<Report, ShellError> {
        channel::report(&self.control).ok_or_else(|| self.supervisor_is_gone())
    }

    /// Ends what the supervisor left behind that somebody killed.
    fn supervisor_is_gone(&mut self) -> ShellError {
        let _ = self.supervisor.wait();
        processes::end_orphans();
        ShellError::SupervisorGone
    }

    fn wait_for_output(&mut self) -> Result<Ready, ShellError> {
        let fds =
            [Some(reads(&self.control)), self.stop.as_ref().map(reads), Some(reads(&self.output))];
        let [control, stop, output] = poll(fds, self.time_left())?;
        self.watch_the_clock()?;
        Ok(Ready { output, control, stop })
    }

    /// Hands over at most `limit` bytes of output. There must be some, or the end of it.
    fn read_output(
        &mut self,
        limit: usize,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<usize, ShellError> {
        let limit = limit.min(BUFFER);
        let count = retry(|| rustix::io::read(&self.output, &mut self.buffer[..limit]))?;
        if count > 0 {
            output(&self.buffer[..count]);
        }
        Ok(count)
    }

    /// Hands over what is in the pipe now, and waits for nothing: a background process may keep
    /// it open for ever.
    fn drain(&mut self, output: &mut dyn FnMut(&[u8])) -> Result<(), ShellError> {
        let waiting = rustix::io::ioctl_fionread(&self.output).map_err(wait_error)?;
        let mut waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        while waiting > 0 {
            match self.read_output(waiting, output)? {
                0 => break,
                count => waiting -= count,
            }
        }
        Ok(())
    }

    /// How long until the time is up.
    fn time_left(&self) -> Option<Duration> {
        let deadline = self.deadline.filter(|_| self.over.is_none())?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Asks everything to end when the time is up.
    fn watch_the_clock(&mut self) -> Result<(), ShellError> {
        if self.time_left() != Some(Duration::ZERO) {
            return Ok(());
        }
        self.over = Some(End::TimedOut);
        self.send(Request::Stop)
    }

    /// Why nothing runs any more, if that is so.
    fn is_over(&mut self) -> Option<End> {
        self.stop_requested();
        if self.time_left() == Some(Duration::ZERO) {
            self.over = Some(End::TimedOut);
        }
        self.over
    }

    /// Reads one byte of the stop channel, and tells the supervisor.
    fn pass_on_stop(&mut self) -> Result<(), ShellError> {
        let is_first = self.over.is_none();
        if self.read_stop() {
            self.send(if is_first { Request::Stop } else { Request::Kill })?;
        }
        Ok(())
    }

    /// Reads one byte of the stop channel; false if nobody can write to it any more.
    fn read_stop(&mut self) -> bool {
        let Some(stop) = &self.stop else { return false };
        let mut byte = [0];
        match retry(|| rustix::io::read(stop, &mut byte)) {
            Ok(1) => {
                self.over.get_or_insert(End::Stopped(i32::from(byte[0])));
                true
            }
            Ok(_) | Err(_) => {
                self.stop = None;
                false
            }
        }
    }

    fn send(&mut self, request: Request) -> Result<(), ShellError> {
        self.wake();
        channel::send(&self.control, request).map_err(|_| self.supervisor_is_gone())
    }

    /// Lets the supervisor go on: a command may have stopped it.
    fn wake(&self) {
        // If it is gone, that shows when it is asked for something.
        let _ = rustix::process::kill_process(Pid::from_child(&self.supervisor), Signal::CONT);
    }

    /// Lets the process of the next command do what `task` says.
    fn order(&mut self, task: Task<'_>, mut order: Order) -> Result<(), ShellError> {
        order.variables = self.give(&task.state.variables)?;
        let given = self.folder.given();
        let statements = self.given.as_ref().and_then(|it| it.statements.as_deref());
        let script = Script {
            directory: task.directory,
            text: task.text,
            succeeding: task.succeeding,
            user: task.user,
            variables: statements.map_or(Variables::File(&given), Variables::Statements),
            save: task.save,
        };
        let (path, text) = match self.dialect {
            Dialect::Posix => (self.folder.script(), script::script(&script)),
            Dialect::PowerShell => (self.folder.powershell_script(), powershell::script(&script)),
        };
        folder::write(&path, &text).map_err(|source| ShellError::File { path, source })?;
        self.has_run = true;
        channel::order(&self.orders, &order).map_err(|_| self.supervisor_is_gone())
    }

    /// Sees to it that the next command starts with these variables; what it is started with, if
    /// that is not what the last one was started with.
    fn give(&mut self, variables: &Arc<Vec<u8>>) -> Result<Option<Vec<u8>>, ShellError> {
        if self.given.as_ref().is_some_and(|it| Arc::ptr_eq(&it.of, variables)) {
            return Ok(None);
        }
        let texts = self.texts(variables);
        let Given { variables: block, statements, are_lines } = match self.dialect {
            Dialect::Posix => given::given(&texts),
            Dialect::PowerShell => Given::in_file(texts.concat()),
        };
        // The text of the user is on line four, whatever comes before.
        let statements = match are_lines && statements.len() <= SHORT {
            true => Some(statements),
            false => {
                let path = self.folder.given();
                let written = folder::write(&path, &statements);
                written.map_err(|source| ShellError::File { path, source })?;
                None
            }
        };
        self.given = Some(Gave { of: Arc::clone(variables), statements });
        Ok(Some(block))
    }

    /// All that says which variables there are; what comes later wins.
    fn texts<'v>(&'v self, variables: &'v Arc<Vec<u8>>) -> Vec<&'v [u8]> {
        let first = Some(&self.first)
            .filter(|it| self.choices.unset == Unset::Restore && !Arc::ptr_eq(it, variables));
        first.into_iter().chain([variables]).map(|it| it.as_slice()).collect()
    }

    fn run_task(
        &mut self,
        task: Task<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError> {
        let identity = self.user.identity.clone();
        self.order(task, Order { identity, ..Order::default() })?;
        let report = self.wait(output)?;
        self.end_of(report)
    }

    fn end_of(&self, report: Report) -> Result<End, ShellError> {
        match (report, self.over) {
            (_, Some(end)) => Ok(end),
            (Report::Exited(status), None) => Ok(End::Exited(status)),
            (Report::Killed(signal), None) => Ok(End::Killed(signal)),
            (Report::NotStarted(errno), None) => Err(ShellError::NotStarted {
                path: self.program.clone(),
                source: io::Error::from_raw_os_error(errno),
            }),
            (Report::Quiet, None) => Err(ShellError::SupervisorGone),
        }
    }

    /// Gives the folder and the output to who runs the next command.
    fn hand_over(&mut self, name: Option<&str>) -> Result<(), ShellError> {
        if self.user.name.as_deref() == name {
            return Ok(());
        }
        let identity = name.map(user::identity).transpose()?.flatten();
        if self.user.identity != identity {
            self.folder.hand_over(identity.as_ref())?;
            // `/dev/stdout` can be opened by its owner alone.
            let (uid, gid) = match &identity {
                Some(it) => (Uid::from_raw(it.uid), Gid::from_raw(it.gid)),
                None => (rustix::process::geteuid(), rustix::process::getegid()),
            };
            rustix::fs::fchown(&self.output, Some(uid), Some(gid)).map_err(wait_error)?;
        }
        self.user = User { name: name.map(str::to_owned), identity };
        Ok(())
    }

    /// Whether commands save their variables.
    fn saves_variables(&self) -> bool {
        self.dialect == Dialect::Posix || self.choices.powershell == PowerShell::Carry
    }

    /// Takes over the state that the last command saved, if it saved one.
    fn carry_on(&mut self) -> Result<(), ShellError> {
        let saved = match self.dialect {
            Dialect::Posix => {
                let content = read_if_there(&self.folder.saved())?;
                let saved = content.as_deref().and_then(|it| script::saved(it, self.number));
                saved.map(|(variables, directory)| Saved {
                    variables: Some(variables.to_vec()),
                    directory,
                })
            }
            Dialect::PowerShell => self.saved_by_powershell()?,
        };
        let Some(Saved { variables, directory }) = saved else { return Ok(()) };
        self.now.directory = directory;
        // Most commands leave all variables as they are, and then there is nothing to give.
        if let Some(variables) = variables.filter(|it| *it != *self.now.variables) {
            self.now.variables = Arc::new(variables);
        }
        Ok(())
    }

    fn saved_by_powershell(&self) -> Result<Option<Saved>, ShellError> {
        let Some(mut directory) = read_if_there(&self.folder.directory())? else { return Ok(None) };
        if directory.pop() != Some(b'\n') {
            return Ok(None);
        }
        let variables = match self.saves_variables() {
            true => read_if_there(&self.folder.saved())?,
            false => None,
        };
        Ok(Some(Saved { variables, directory: OsString::from_vec(directory).into() }))
    }

    /// The state that the first command starts with.
    fn beginning(&self) -> State {
        State { variables: Arc::clone(&self.first), directory: self.start.clone() }
    }
}

/// What a file holds; none if there is no such file, or a command has made a folder of it.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, ShellError> {
    match folder::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(err) => match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => Ok(None),
            _ => Err(ShellError::File { path: path.to_owned(), source: err }),
        },
    }
}

impl Shell for LocalShell {
    fn begin(&mut self, beginning: Beginning<'_>) -> Result<(), ShellError> {
        if self.is_over().is_some() {
            // What an earlier try left behind is no state of this one.
            self.now = self.beginning();
            return Ok(());
        }
        if std::mem::take(&mut self.has_run) {
            self.reset()?;
        }
        self.hand_over(None)?;
        let text = match self.dialect {
            Dialect::Posix => script::variables(beginning.environment),
            Dialect::PowerShell => powershell::variables(beginning.environment),
        };
        self.first = Arc::new(text);
        self.given = None;
        beginning.source.clone_into(&mut self.source);
        beginning.directory.clone_into(&mut self.start);
        self.now = self.beginning();
        self.before = self.beginning();
        Ok(())
    }

    fn run(
        &mut self,
        line: CommandLine<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError> {
        if !line.carries {
            self.now = self.beginning();
        }
        self.before = self.now.clone();
        if let Some(end) = self.is_over() {
            return Ok(end);
        }
        self.hand_over(line.user)?;
        self.number += 1;
        let (variables, directory) = (self.folder.saved(), self.folder.directory());
        let has_directory = line.carries && self.dialect == Dialect::PowerShell;
        if has_directory {
            self.folder.forget_directory()?;
        }
        let save = Save {
            variables: Some(variables.as_path()).filter(|_| line.carries && self.saves_variables()),
            directory: Some(directory.as_path()).filter(|_| has_directory),
            number: self.number,
        };
        let state = self.before.clone();
        let task = Task {
            state: &state,
            directory: &state.directory,
            text: OsStr::new(line.text),
            succeeding: line.succeeding,
            user: line.user,
            save,
        };
        let end = self.run_task(task, output)?;
        if line.carries {
            self.carry_on()?;
        }
        Ok(end)
    }

    fn expand(
        &mut self,
        Expansion { words, succeeding }: Expansion<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Result<Vec<OsString>, End>, ShellError> {
        if let Some(end) = self.is_over() {
            return Ok(Err(end));
        }
        self.hand_over(None)?;
        let path = self.folder.answer();
        let directory = self.source.clone();
        let text = match self.dialect {
            Dialect::Posix => script::expansion(words, &directory, &path),
            Dialect::PowerShell => powershell::expansion(words, &directory, &path).into(),
        };
        let state = self.now.clone();
        let task = Task {
            state: &state,
            directory: &directory,
            text: &text,
            succeeding,
            user: None,
            save: Save::default(),
        };
        let end = self.run_task(task, output)?;
        if end != End::Exited(0) {
            return Ok(Err(end));
        }
        let answer = folder::read(&path).map_err(|source| ShellError::File { path, source })?;
        let words = answer.split_inclusive(|byte| *byte == 0);
        Ok(Ok(words.map(|it| OsStr::from_bytes(&it[..it.len() - 1]).to_owned()).collect()))
    }

    fn snapshot(&mut self) -> Result<Snapshot, ShellError> {
        let mut variables: std::collections::BTreeMap<OsString, OsString> =
            self.fixed.iter().cloned().collect();
        for text in self.texts(&self.before.variables) {
            variables.extend(match self.dialect {
                Dialect::Posix => state::parse_variables(text),
                Dialect::PowerShell => state::parse_terminated(text),
            });
        }
        let variables = variables.into_iter().collect();
        Ok(Snapshot { variables, directory: self.before.directory.clone() })
    }

    fn interact(&mut self, line: Interaction<'_>) -> Result<End, ShellError> {
        if !line.before_last {
            self.before = self.now.clone();
        }
        if let Some(end) = self.is_over() {
            return Ok(end);
        }
        let terminal = self.terminal.take().ok_or(ShellError::NoTerminal)?;
        self.hand_over(line.user)?;
        let state = self.before.clone();
        let text = match self.dialect {
            Dialect::Posix => script::interaction(&self.program),
            Dialect::PowerShell => powershell::interaction(&self.program).into(),
        };
        let task = Task {
            state: &state,
            directory: &state.directory,
            text: &text,
            succeeding: line.succeeding,
            user: line.user,
            save: Save::default(),
        };
        let end = self.converse_in(&terminal, task);
        self.terminal = Some(terminal);
        end
    }

    fn stop_requested(&mut self) -> Option<i32> {
        if self.over.is_none() && self.stop.as_ref().is_some_and(is_readable) {
            self.read_stop();
        }
        match self.over {
            Some(End::Stopped(signal)) => Some(signal),
            _ => None,
        }
    }

    fn out_of_time(&mut self) -> bool {
        self.is_over() == Some(End::TimedOut)
    }
}

impl Drop for LocalShell {
    fn drop(&mut self) {
        // The supervisor ends everything as soon as nobody can ask it for anything. If one of
        // these fails, it is gone.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        self.wake();
        if !self.supervisor.wait().is_ok_and(|it| it.success()) {
            processes::end_orphans();
        }
        if !self.was_subreaper {
            let _ = rustix::process::set_child_subreaper(None);
        }
    }
}

/// A supervisor, and our ends of its channels.
struct Started {
    child: Child,
    control: UnixStream,
    orders: io::PipeWriter,
    output: io::PipeReader,
}

fn start_supervisor(
    program: &Path,
    folder: &PrivateFolder,
    shell: &Path,
    dialect: Dialect,
    variables: &[(OsString, OsString)],
) -> io::Result<Started> {
    let (control, theirs) = UnixStream::pair()?;
    let (orders_read, orders) = io::pipe()?;
    let (output, writer) = io::pipe()?;
    // Without this, what writes much waits more often.
    let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE);
    let mut command = Command::new(program);
    command.arg(SUPERVISE).arg(folder.path()).arg(shell);
    match dialect {
        Dialect::Posix => command.arg(folder.script()),
        Dialect::PowerShell => command.args(powershell::ARGUMENTS).arg(folder.powershell_script()),
    };
    let child = command
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(writer)
        .stderr(orders_read)
        .spawn()?;
    Ok(Started { child, control, orders, output })
}

/// Lets this process be the parent of those whose parent is gone; true if it was already.
fn become_subreaper() -> bool {
    let was = rustix::process::child_subreaper().is_ok_and(|it| it.is_some());
    if !was {
        // Without, there is one guard less.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
    was
}

/// What can be read without waiting.
struct Ready {
    output: bool,
    control: bool,
    stop: bool,
}

/// The program that `name` stands for, on the PATH `path`.
fn find_shell(name: &str, path: &OsStr) -> Result<PathBuf, ShellError> {
    let is_program = |it: &PathBuf| it.is_file() && rustix::fs::access(it, Access::EXEC_OK).is_ok();
    let mut candidates = match name.contains('/') {
        true => vec![PathBuf::from(name)],
        false => std::env::split_paths(path).map(|it| it.join(name)).collect(),
    };
    // A relative entry of the PATH would mean another program after each `cd`.
    candidates.retain(|it| it.is_absolute());
    candidates
        .into_iter()
        .find(is_program)
        .ok_or_else(|| ShellError::NoShell { name: name.to_owned() })
}

/// A file, and what it is to be ready for.
type Wanted<'f> = (BorrowedFd<'f>, PollFlags);

fn reads(fd: &impl AsFd) -> Wanted<'_> {
    (fd.as_fd(), PollFlags::IN)
}

/// Waits until one of the files is ready, or `timeout` is over; which ones are.
fn poll<const N: usize>(
    wanted: [Option<Wanted<'_>>; N],
    timeout: Option<Duration>,
) -> Result<[bool; N], ShellError> {
    let mut fds: Vec<PollFd<'_>> =
        wanted.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    let timeout = timeout.and_then(|it| Timespec::try_from(it).ok());
    retry(|| rustix::event::poll(&mut fds, timeout.as_ref()))?;
    let mut polled = fds.iter();
    Ok(wanted.map(|it| it.is_some() && polled.next().is_some_and(|it| !it.revents().is_empty())))
}

fn is_readable(fd: &OwnedFd) -> bool {
    poll([Some(reads(fd))], Some(Duration::ZERO)).is_ok_and(|[it]| it)
}

/// Calls again for as long as a signal interrupts.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, ShellError> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(wait_error),
        }
    }
}

fn wait_error(errno: Errno) -> ShellError {
    ShellError::Wait { source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_found_on_the_path_and_nowhere_else() {
        let found = |name, path: &str| find_shell(name, OsStr::new(path)).ok();
        assert_eq!(found("sh", "/nowhere:/bin:/usr/bin"), Some("/bin/sh".into()));
        assert_eq!(found("/bin/bash", ""), Some("/bin/bash".into()));
        assert_eq!(found("sh", "/nowhere:bin:."), None);
        assert_eq!(found("passwd", "/etc"), None);
    }
}
