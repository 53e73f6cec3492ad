//! `env.git-credential-helper`: git in the commands of a build gets the credentials of the source.
//!
//! They are found as git itself would find them for whoever runs rbuild, but that nobody is asked
//! for them; on GitHub Actions there is a token instead. Commands get them by a file in the
//! private folder of the build, and for the host of the source alone.
//!
//! **Architecture invariant:** a password is in no variable and in no argument. The variables
//! name the file.

use std::{
    ffi::{OsStr, OsString},
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rbuild_agent::{
    secret::Secret,
    shell::{PrivateFolder, ShellError},
};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Variables, git::git};
use crate::{console, host};

/// Gives the commands of a build the credentials of the source in `folder`, or warns that there
/// are none. Returns what output must not show then.
pub(super) fn give(
    folder: &Path,
    private: &PrivateFolder,
    variables: &mut Variables,
) -> Result<Vec<Secret>, ShellError> {
    match GitCredentials::find(folder) {
        Ok(credentials) => {
            let file = private.put(FILE, &credentials.store())?;
            credentials.add_to(variables, &file);
            Ok(credentials.secrets())
        }
        Err(warning) => {
            console::warn(&warning);
            Ok(Vec::new())
        }
    }
}

/// The name of the file in the private folder.
const FILE: &str = PrivateFolder::CREDENTIALS;

/// How long a credential helper of the user may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of its answer.
const LONGEST_ANSWER: u64 = 100_000;

/// The credentials of a host.
#[derive(Debug, PartialEq, Eq)]
struct GitCredentials {
    /// Scheme and host, `https://github.com`.
    site: String,
    user: String,
    password: Secret,
}

impl GitCredentials {
    /// The credentials of the source in `folder`, or a warning that there are none.
    fn find(folder: &Path) -> Result<Self, String> {
        let none = |why: String| format!("`git-credential-helper` has nothing to give: {why}");
        let url = git(folder, &["remote", "get-url", "origin"])
            .ok_or_else(|| none("the source has no remote `origin`".to_owned()))?;
        let site = Site::of(&url).ok_or_else(|| {
            none("the remote `origin` of the source is no https:// URL".to_owned())
        })?;
        let token = || token(&site, host::variable);
        let found = token().or_else(|| fill(folder, &url).and_then(|it| answer(&site, &it)));
        found.ok_or_else(|| {
            let advice = "`git credential fill` does not know any";
            none(match site.is_github(host::variable) {
                true => format!("GITHUB_TOKEN is not set, and for {} {advice}", site.host),
                false => format!("for {} {advice}", site.host),
            })
        })
    }

    /// The text of a file for `git credential-store`.
    fn store(&self) -> Vec<u8> {
        let (scheme, host) = self.site.split_once("://").unwrap_or_default();
        let (user, password) = (escaped(&self.user), escaped(self.password.expose()));
        format!("{scheme}://{user}:{password}@{host}\n").into_bytes()
    }

    /// What output must not show: the password as it is, and as the file has it.
    fn secrets(&self) -> Vec<Secret> {
        vec![self.password.clone(), Secret::new(escaped(self.password.expose()))]
    }

    /// Lets git use the file at `file`, and nothing else for this host. What `variables` set by
    /// `GIT_CONFIG_COUNT` already stays (git-config(1)).
    fn add_to(&self, variables: &mut Variables, file: &Path) {
        let count = variables.iter().find(|it| it.0 == "GIT_CONFIG_COUNT");
        let count = count.and_then(|it| it.1.to_str()?.parse::<usize>().ok()).unwrap_or_default();
        let key = format!("credential.{}.helper", self.site);
        let mut helper = OsString::from("store --file=");
        helper.push(quoted(file));
        // An empty value takes away the helpers that were set before.
        for (number, value) in (count..).zip([OsString::new(), helper]) {
            set(variables, format!("GIT_CONFIG_KEY_{number}"), key.clone().into());
            set(variables, format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        set(variables, "GIT_CONFIG_COUNT".to_owned(), (count + 2).to_string().into());
    }
}

fn set(variables: &mut Variables, name: String, value: OsString) {
    variables.retain(|it| it.0 != OsStr::new(&name));
    variables.push((name.into(), value));
}

/// A host that git asks by HTTP.
struct Site {
    scheme: &'static str,
    /// With its port, if it has one.
    host: String,
}

impl Site {
    /// The site of a URL by which credentials may be sent: by TLS, or to this machine.
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit_once('@').map_or(authority, |it| it.1);
        let is_sound = |it: char| it.is_ascii_alphanumeric() || "-._:[]".contains(it);
        if host.is_empty() || !host.chars().all(is_sound) {
            return None;
        }
        let name = host.rsplit_once(':').map_or(host, |it| it.0);
        let scheme = match scheme {
            "https" => "https",
            "http" if ["127.0.0.1", "localhost", "[::1]"].contains(&name) => "http",
            _ => return None,
        };
        Some(Self { scheme, host: host.to_owned() })
    }

    /// Whether it is that for which GitHub gives tokens (GitHub's documentation, "Variables
    /// reference", `GITHUB_SERVER_URL`).
    fn is_github(&self, variable: impl Fn(&str) -> Option<String>) -> bool {
        let server = variable("GITHUB_SERVER_URL");
        let server = server.as_deref().unwrap_or("https://github.com");
        let server = server.trim_end_matches('/').strip_prefix("https://").unwrap_or_default();
        self.scheme == "https" && (self.host == server || self.host == "github.com")
    }

    fn credentials(&self, user: &str, password: &str) -> GitCredentials {
        let site = format!("{}://{}", self.scheme, self.host);
        GitCredentials { site, user: user.to_owned(), password: Secret::new(password.to_owned()) }
    }
}

/// The token for GitHub that the environment has.
fn token(site: &Site, variable: impl Fn(&str) -> Option<String>) -> Option<GitCredentials> {
    if !site.is_github(&variable) {
        return None;
    }
    let token = ["GITHUB_TOKEN", "GH_TOKEN"].into_iter().find_map(variable)?;
    Some(site.credentials("x-access-token", token.trim()))
}

/// What git's credential helpers answer, as rbuild's own environment and the checkout have them.
fn fill(folder: &Path, url: &str) -> Option<String> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "core.askPass=", "credential", "fill"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_ASKPASS")
        .env_remove("SSH_ASKPASS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    let text = converse(&mut child, format!("url={url}\n\n"));
    if text.is_none() {
        // A helper waits for someone.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait().ok()?;
    text.filter(|_| status.success())
}

/// Says `question`, and waits for all of the answer.
fn converse(child: &mut Child, question: String) -> Option<String> {
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let (answered, answer) = mpsc::channel();
    thread::spawn(move || {
        // A git that reads nothing answers nothing.
        let _ = stdin.write_all(question.as_bytes());
        drop(stdin);
        let mut text = String::new();
        if stdout.take(LONGEST_ANSWER).read_to_string(&mut text).is_ok() {
            let _ = answered.send(text);
        }
    });
    answer.recv_timeout(PATIENCE).ok()
}

/// The credentials in an answer (gitcredentials(7), "IOFMT" of git-credential(1)).
fn answer(site: &Site, text: &str) -> Option<GitCredentials> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|it| it.split_once('='));
        lines.find(|it| it.0 == name).map(|it| it.1).filter(|it| !it.is_empty())
    };
    Some(site.credentials(value("username")?, value("password")?))
}

/// A text as a part of a URL (RFC 3986, 2.3).
fn escaped(text: &str) -> String {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~".contains(&it);
    let escape = |it: u8| match is_plain(it) {
        true => char::from(it).to_string(),
        false => format!("%{it:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> OsString {
    let mut quoted = OsString::from("'");
    for (index, part) in split(path.as_os_str()).into_iter().enumerate() {
        if 0 < index {
            quoted.push(r"'\''");
        }
        quoted.push(part);
    }
    quoted.push("'");
    quoted
}

fn split(text: &OsStr) -> Vec<&OsStr> {
    use std::os::unix::ffi::OsStrExt as _;
    text.as_bytes().split(|it| *it == b'\'').map(OsStr::from_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn site(url: &str) -> Site {
        Site::of(url).unwrap()
    }

    #[test]
    fn credentials_go_by_tls_or_to_this_machine() {
        for (url, want) in [
            ("https://github.com/o/r.git", Some("https://github.com")),
            ("https://me:p@h.example:8443/r", Some("https://h.example:8443")),
            ("https://h.example?x@y", Some("https://h.example")),
            ("http://127.0.0.1:80/r", Some("http://127.0.0.1:80")),
            ("http://localhost/r", Some("http://localhost")),
            ("http://github.com/o/r", None),
            ("http://localhost.example/r", None),
            ("http://127.0.0.1@evil.example/r", None),
            ("git@github.com:o/r.git", None),
            ("ssh://git@github.com/o/r", None),
            ("https:///r", None),
            ("https://a\nb/r", None),
            ("/srv/r.git", None),
        ] {
            let found = Site::of(url).map(|it| format!("{}://{}", it.scheme, it.host));
            assert_eq!(found.as_deref(), want, "for `{url}`");
        }
    }

    #[test]
    fn a_token_of_github_is_for_github_alone() {
        let variables = |it: &str| match it {
            "GH_TOKEN" => Some("t0ken".to_owned()),
            "GITHUB_SERVER_URL" => Some("https://ghe.example".to_owned()),
            _ => None,
        };
        for (url, want) in [
            ("https://github.com/o/r", true),
            ("https://ghe.example/o/r", true),
            ("https://github.com.example/o/r", false),
            ("https://github.com:8443/o/r", false),
            ("http://localhost/o/r", false),
        ] {
            assert_eq!(token(&site(url), variables).is_some(), want, "for `{url}`");
        }
        let found = token(&site("https://github.com/o/r"), variables).unwrap();
        assert_eq!(found.store(), b"https://x-access-token:t0ken@github.com\n");
        assert_eq!(token(&site("https://github.com/o/r"), |_| None), None);
    }

    #[test]
    fn an_answer_without_a_password_is_none() {
        let site = site("https://h.example/r");
        let found = answer(&site, "protocol=https\nusername=me\npassword=a=b:/ \u{e9}\n").unwrap();
        assert_eq!(found, site.credentials("me", "a=b:/ \u{e9}"));
        assert_eq!(found.store(), b"https://me:a%3Db%3A%2F%20%C3%A9@h.example\n");
        assert_eq!(found.secrets()[1].expose(), "a%3Db%3A%2F%20%C3%A9");
        for text in ["", "username=me\n", "username=me\npassword=\n", "password=x\n"] {
            assert_eq!(answer(&site, text), None, "for {text:?}");
        }
    }

    fn git_in(folder: &Path, args: &[&str]) {
        let status = Command::new("git").arg("-C").arg(folder).args(args).status().unwrap();
        assert!(status.success(), "git {args:?}");
    }

    fn checkout(url: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        git_in(folder.path(), &["init", "--quiet"]);
        git_in(folder.path(), &["remote", "add", "origin", url]);
        folder
    }

    #[test]
    fn git_gets_from_the_file_what_its_helpers_gave() {
        let source = checkout("https://h.example/o/r.git");
        let helper = "!f() { test $1 = get && echo username=me && echo \"password=p w'd%\"; }; f";
        git_in(source.path(), &["config", "credential.helper", helper]);
        let found = GitCredentials::find(source.path()).unwrap();
        assert_eq!((&*found.user, found.password.expose()), ("me", "p w'd%"));

        let place = tempfile::tempdir().unwrap();
        let private = PrivateFolder::create(&[place.path()], Path::new("/bin/true")).unwrap();
        let mut given = Variables::new();
        let hidden = give(source.path(), &private, &mut given).unwrap();
        assert_eq!(hidden, found.secrets());
        assert_eq!(fs::read(private.path().join(FILE)).unwrap(), found.store());
        assert_eq!(given.len(), 5, "{given:?}");

        // A folder whose name has to be quoted, and a checkout with a helper that is wrong.
        let private = tempfile::tempdir().unwrap();
        let file = private.path().join("it's here");
        fs::write(&file, found.store()).unwrap();
        let other = checkout("https://h.example/o/other.git");
        let wrong = "!f() { echo username=wrong; echo password=wrong; }; f";
        git_in(other.path(), &["config", "credential.helper", wrong]);
        let mut variables: Variables = vec![
            ("GIT_CONFIG_COUNT".into(), "1".into()),
            ("GIT_CONFIG_KEY_0".into(), "user.name".into()),
            ("GIT_CONFIG_VALUE_0".into(), "me".into()),
        ];
        found.add_to(&mut variables, &file);
        let git = |input: &str, args: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(other.path()).args(args).env("GIT_TERMINAL_PROMPT", "0");
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.envs(variables.iter().cloned()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
        };
        let answer = git("url=https://h.example/o/other.git\n\n", &["credential", "fill"]);
        assert!(answer.contains("username=me\npassword=p w'd%\n"), "{answer}");
        let answer = git("url=https://elsewhere.example/\n\n", &["credential", "fill"]);
        assert!(answer.contains("password=wrong\n"), "{answer}");
        assert_eq!(git("", &["config", "user.name"]), "me\n");
    }

    #[test]
    fn a_source_without_credentials_is_a_warning() {
        let none = tempfile::tempdir().unwrap();
        git_in(none.path(), &["init", "--quiet"]);
        let ssh = checkout("git@h.example:o/r.git");
        let unknown = checkout("https://h.example/o/r.git");
        git_in(unknown.path(), &["config", "credential.helper", ""]);
        for (folder, want) in [
            (&none, "the source has no remote `origin`"),
            (&ssh, "the remote `origin` of the source is no https:// URL"),
            (&unknown, "for h.example `git credential fill` does not know any"),
        ] {
            let warning = GitCredentials::find(folder.path()).unwrap_err();
            assert_eq!(warning, format!("`git-credential-helper` has nothing to give: {want}"));
        }
    }
}
