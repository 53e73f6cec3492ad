//! A place in which a test runs the program as a user would: a source folder, a home, a store, and
//! nothing of the environment of whoever runs the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fmt, fs,
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use regex::Regex;
use rustix::process::Signal;

use crate::{oracle, process::Process, scratch, scratch::Scratch, store};

/// Where programs are looked for: where Debian puts them, whatever the caller's PATH says.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A scratch place with `src`, `home`, `store` and `tmp`.
#[derive(Debug)]
pub struct Sandbox {
    dir: Arc<Scratch>,
    program: PathBuf,
    runs: AtomicUsize,
}

impl Sandbox {
    /// A sandbox for this program, with these files in `src`.
    pub fn new(program: &str, files: &[(&str, &str)]) -> Self {
        let dir = Arc::new(Scratch::new());
        for folder in ["src", "home", "tmp", "out"] {
            fs::create_dir(dir.join(folder)).expect("folder of a sandbox");
        }
        let sandbox = Self { dir, program: program.into(), runs: AtomicUsize::new(0) };
        for (path, text) in files {
            sandbox.write(path, text);
        }
        sandbox
    }

    /// The folder of all that is in the sandbox.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The source folder, in which programs run.
    pub fn src(&self) -> PathBuf {
        self.dir.join("src")
    }

    /// The home folder, empty at first.
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The program's store, which does not exist at first.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Writes a file below the source folder (`../home/x` goes to the home folder).
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.src().join(path);
        scratch::write(&path, bytes);
        path
    }

    /// A run of the program under test.
    pub fn rbuild<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.run(&self.program, args)
    }

    /// A run of any program, in the same environment.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = S>,
    ) -> Run {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut words = vec![program.as_ref().as_os_str().to_owned()];
        words.extend(args.into_iter().map(|it| it.as_ref().to_owned()));
        let text = |path: PathBuf| path.into_os_string();
        let env = BTreeMap::from([
            ("HOME".into(), text(self.home())),
            ("LANG".into(), "C.UTF-8".into()),
            ("PATH".into(), PATH.into()),
            ("RBUILD_STORE".into(), text(self.store())),
            ("TMPDIR".into(), text(self.dir.join("tmp"))),
            ("USER".into(), "root".into()),
        ]);
        Run {
            words,
            env,
            cwd: self.src(),
            input: Vec::new(),
            limit: Duration::from_mins(2),
            files: self.dir.join("out").join(number.to_string()),
            dir: Arc::clone(&self.dir),
        }
    }
}

/// A program that is about to be started.
#[derive(Debug)]
#[must_use]
pub struct Run {
    words: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    cwd: PathBuf,
    input: Vec<u8>,
    limit: Duration,
    files: PathBuf,
    dir: Arc<Scratch>,
}

impl Run {
    /// With this variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Without this variable.
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.remove(OsStr::new(name));
        self
    }

    /// In this folder.
    pub fn in_dir(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = cwd.into();
        self
    }

    /// With this on its standard input, which is empty otherwise.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Killed, and the test failed, when it runs for longer (two minutes if nothing is said).
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Started by another program, whose words these are (`strace -f …`).
    pub fn under<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        let words = words.into_iter().map(|it| it.as_ref().to_owned());
        self.words.splice(0..0, words);
        self
    }

    /// Runs it to its end.
    pub fn go(self) -> Finished {
        self.start().finish()
    }

    /// Runs it to its end, which must be a good one.
    #[track_caller]
    pub fn ok(self) -> Finished {
        let finished = self.go();
        assert!(finished.status.success(), "{finished}");
        finished
    }

    /// Starts it.
    pub fn start(self) -> Running {
        let [out, err, input] = ["out", "err", "in"].map(|it| self.files.with_extension(it));
        fs::write(&input, &self.input).expect("file for standard input");
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.cwd)
            .stdin(File::open(&input).expect("file for standard input"))
            .stdout(File::create(&out).expect("file for standard output"))
            .stderr(File::create(&err).expect("file for standard error"));
        let process = Process::start(command);
        let store = self.env.get(OsStr::new("RBUILD_STORE")).map(PathBuf::from);
        Running { process, out, err, store, limit: self.limit, dir: self.dir }
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    process: Process,
    out: PathBuf,
    err: PathBuf,
    store: Option<PathBuf>,
    limit: Duration,
    dir: Arc<Scratch>,
}

impl Running {
    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until `look` finds something while it runs, and fails the test otherwise.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, look: impl FnMut(&Process) -> Option<T>) -> T {
        let found = self.process.until(self.limit, look);
        found.unwrap_or_else(|| panic!("waited in vain for {what}:\n{}", self.so_far()))
    }

    /// Waits until this was printed on stdout or stderr.
    #[track_caller]
    pub fn until_it_says(&mut self, words: &str) {
        let files = [self.out.clone(), self.err.clone()];
        self.until(words, |_| files.iter().any(|it| read(it).contains(words)).then_some(()));
    }

    /// Sends it a signal, as Ctrl-C does to the foreground.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end. If that is a good one, every image that the run has made is as it should
    /// be.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let Some(status) = self.process.ends_within(self.limit) else {
            panic!("still running after {:?}:\n{}", self.limit, self.so_far());
        };
        if let Some(store) = self.store.as_deref().filter(|_| status.success()) {
            assert_new_images_are_sound(store);
        }
        let (stdout, stderr) = (read(&self.out), read(&self.err));
        Finished { stdout, stderr, status, dir: self.dir }
    }

    fn so_far(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", read(&self.out), read(&self.err))
    }
}

/// All that a user sees of a run.
#[derive(Debug)]
pub struct Finished {
    /// What it printed as data.
    pub stdout: String,
    /// What it printed for people.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
    dir: Arc<Scratch>,
}

impl Finished {
    /// The last line of stdout, which must have one.
    #[track_caller]
    pub fn line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_else(|| panic!("printed nothing on stdout:\n{self}"))
    }

    /// Asserts that it ended with this status.
    #[track_caller]
    pub fn has_status(&self, status: i32) -> &Self {
        assert_eq!(self.status.code(), Some(status), "{self}");
        self
    }

    /// Asserts that it refused something as rbuild does: with this status, and on stderr an error
    /// that has all these phrases in it.
    #[track_caller]
    pub fn fails(&self, status: i32, phrases: &[&str]) -> &Self {
        self.has_status(status);
        let has_error = self.stderr.lines().any(|line| line.starts_with("error: "));
        assert!(has_error, "no line starts with `error: `\n{self}");
        for phrase in phrases {
            assert!(self.stderr.contains(phrase), "nothing is said of `{phrase}`\n{self}");
        }
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }
}

impl fmt::Display for Finished {
    /// Everything, with what differs from run to run masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                writeln!(f, "--- {name}\n{}", scrub(text, self.dir.path()).trim_end())?;
            }
        }
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => writeln!(f, "--- exit {code}"),
            (None, signal) => writeln!(f, "--- killed by signal {}", signal.unwrap_or_default()),
        }
    }
}

/// `text` with times as `T`, and the folders of a sandbox by their names.
pub fn scrub(text: &str, sandbox: &Path) -> String {
    static TIME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(\.\d+)?").expect("a pattern that compiles")
    });
    let text = TIME.replace_all(text, "T").into_owned();
    let names = [
        ("src", "<SRC>"),
        ("store", "<STORE>"),
        ("home", "<HOME>"),
        ("tmp", "<TMP>"),
        ("", "<SANDBOX>"),
    ];
    names.into_iter().fold(text, |text, (folder, name)| {
        let path = sandbox.join(folder);
        text.replace(path.to_string_lossy().trim_end_matches('/'), name)
    })
}

/// Images with more than this are not read here: it would take a test's time and memory.
const MOST: u64 = 64 << 20;

/// Has the oracle read those images of a store that have layers that were made there, each image
/// once in all tests of this process.
#[track_caller]
fn assert_new_images_are_sound(store: &Path) {
    static READ: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let packs = store::files(&store.join("packs"));
    let size: u64 = packs.iter().filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum();
    if MOST < size {
        return;
    }
    let is_new = |it: &String| READ.lock().expect("a lock").insert(it.clone());
    for hex in store::images(store).into_iter().filter(is_new) {
        let report = oracle::stored(store, &format!("sha256:{hex}"));
        // Others may have removed it meanwhile.
        let is_there = store.join("images").join(&hex).exists();
        assert!(report.faults.is_empty() || !is_there, "image {hex}:\n{report}");
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_masked() {
        let text =
            "[Container] 2024/01/15 10:11:12.345678 YAML location is /tmp/x/src/b.yml\n/tmp/x/o";
        let want = "[Container] T YAML location is <SRC>/b.yml\n<SANDBOX>/o";
        assert_eq!(scrub(text, Path::new("/tmp/x")), want);
    }

    #[test]
    fn a_run_sees_nothing_of_the_callers_environment() {
        let seen = Sandbox::new("env", &[]).rbuild([] as [&str; 0]).env("A", "b").ok();
        let names: Vec<_> = seen.stdout.lines().filter_map(|it| it.split('=').next()).collect();
        assert_eq!(names, ["A", "HOME", "LANG", "PATH", "RBUILD_STORE", "TMPDIR", "USER"]);
    }
}
