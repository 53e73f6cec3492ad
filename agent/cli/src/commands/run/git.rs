//! What git knows of the source folder.

use std::{
    io,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Which version of the source this is; nothing if git does not know.
#[derive(Debug, Default)]
pub(super) struct Git {
    pub(super) commit: Option<String>,
    pub(super) branch: Option<String>,
    pub(super) url: Option<String>,
}

/// Asks git; a folder that is in no checkout costs nothing.
pub(super) fn ask(folder: &Path) -> Git {
    if !folder.ancestors().any(|it| it.join(".git").exists()) {
        return Git::default();
    }
    // Both run at once: a process takes git as long as the rest of rbuild's beginning.
    let head = start(folder, &["rev-parse", "HEAD", "--abbrev-ref", "HEAD"]);
    let url = start(folder, &["config", "--get", "remote.origin.url"]);
    let (head, url) = (answer(head), answer(url));
    let (commit, branch) = head.as_deref().and_then(|it| it.split_once('\n')).unzip();
    Git {
        commit: commit.map(str::to_owned),
        // This is what it says of a commit that is on no branch.
        branch: branch.filter(|it| *it != "HEAD").map(str::to_owned),
        url: url.map(|it| without_password(&it)),
    }
}

/// What git answers, if it does.
pub(super) fn git(folder: &Path, args: &[&str]) -> Option<String> {
    answer(start(folder, args))
}

fn start(folder: &Path, args: &[&str]) -> io::Result<Child> {
    Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

fn answer(started: io::Result<Child>) -> Option<String> {
    let output = started.ok()?.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The URL without what stands before `@`: it may be a password or a token.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{}", &rest[user.len() + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(folder: &Path, args: &[&str]) {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"];
        let status = Command::new("git").arg("-C").arg(folder).args(identity).args(args).status();
        assert!(status.unwrap().success(), "{args:?}");
    }

    #[test]
    fn a_checkout_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let it = folder.path();
        assert_eq!(ask(it).commit, None);
        make(it, &["init", "--quiet", "--initial-branch", "a/b"]);
        make(it, &["remote", "add", "origin", "https://u:p@h.example/o"]);
        let empty = ask(it);
        assert_eq!((empty.commit, empty.branch), (None, None));
        assert_eq!(empty.url.as_deref(), Some("https://h.example/o"));
        make(it, &["commit", "--quiet", "--allow-empty", "--message", "first"]);
        let commit = git(it, &["rev-parse", "HEAD"]);
        let on_branch = ask(it);
        assert_eq!((&on_branch.commit, on_branch.branch.as_deref()), (&commit, Some("a/b")));
        make(it, &["tag", "a/b"]);
        let expected = git(it, &["symbolic-ref", "--short", "HEAD"]);
        assert_eq!(ask(it).branch, expected, "a tag has the name of the branch");
        make(it, &["checkout", "--quiet", "--detach"]);
        let detached = ask(it);
        assert_eq!((detached.commit, detached.branch), (commit, None));
    }

    #[test]
    fn passwords_in_urls_are_not_passed_on() {
        for (url, want) in [
            ("https://u:p@h.example/o/r.git", "https://h.example/o/r.git"),
            ("https://h.example/o/r@2.git", "https://h.example/o/r@2.git"),
            ("git@h.example:o/r.git", "git@h.example:o/r.git"),
        ] {
            assert_eq!(without_password(url), want);
        }
    }
}
