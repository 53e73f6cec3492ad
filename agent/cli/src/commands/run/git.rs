//! What git knows of the source folder.

use std::{
    path::Path,
    process::{Command, Stdio},
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
    let commit = git(folder, &["rev-parse", "--verify", "--quiet", "HEAD"]);
    Git {
        branch: commit
            .as_ref()
            .and_then(|_| git(folder, &["symbolic-ref", "--short", "-q", "HEAD"])),
        url: git(folder, &["config", "--get", "remote.origin.url"]).map(|it| without_password(&it)),
        commit,
    }
}

/// What git answers, if it does.
pub(super) fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
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
