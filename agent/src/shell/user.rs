//! Who runs a command, if that is not who runs rbuild.
//!
//! **Architecture invariant:** users are those of `/etc/passwd` and `/etc/group`, and of nothing
//! else: a static program cannot load what a C library would ask.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::shell::ShellError;

/// What a process has of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All groups, that of `gid` among them.
    pub(super) groups: Vec<u32>,
}

/// How much of a file is read.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Whether commands can be run as this user: whether there is one, and we may.
pub fn check_user(name: &str) -> Result<(), ShellError> {
    identity(name).map(|_| ())
}

/// What a process of this user has; none if this process has it.
pub(super) fn identity(name: &str) -> Result<Option<Identity>, ShellError> {
    let users = read(Path::new("/etc/passwd"))?;
    let no_user = || ShellError::NoUser { name: name.to_owned() };
    let (uid, gid) = find_user(&users, name).ok_or_else(no_user)?;
    let own = rustix::process::geteuid();
    if own.as_raw() == uid {
        return Ok(None);
    }
    if !own.is_root() {
        return Err(ShellError::NotRoot { name: name.to_owned() });
    }
    // Some images have no such file.
    let groups = read(Path::new("/etc/group")).unwrap_or_default();
    Ok(Some(Identity { uid, gid, groups: groups_of(&groups, name, gid) }))
}

fn read(path: &Path) -> Result<Vec<u8>, ShellError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(LIMIT).read_to_end(&mut content)?;
        Ok(content)
    };
    read().map_err(|source| ShellError::File { path: PathBuf::from(path), source })
}

/// The fields of each line.
fn entries(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| Some(str::from_utf8(line).ok()?.split(':').collect()))
}

/// The user and the group of `name` (passwd(5)).
fn find_user(passwd: &[u8], name: &str) -> Option<(u32, u32)> {
    entries(passwd).find_map(|fields| match fields[..] {
        [it, _, uid, gid, ..] if it == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
        _ => None,
    })
}

/// The groups of `name`, sorted (group(5)).
fn groups_of(file: &[u8], name: &str, first: u32) -> Vec<u32> {
    let mut groups = vec![first];
    groups.extend(entries(file).filter_map(|fields| match fields[..] {
        [_, _, gid, members] if members.split(',').any(|it| it == name) => gid.parse::<u32>().ok(),
        _ => None,
    }));
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_and_nothing_else_is() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n\xff:x:1:1\n\nann:x:1000:100::/:\nodd:x:y:1:\nann:x:5:5:\nshort:x:1";
        assert_eq!(find_user(passwd, "root"), Some((0, 0)));
        assert_eq!(find_user(passwd, "ann"), Some((1000, 100)));
        for name in ["", "odd", "short", "an", "x", "0"] {
            assert_eq!(find_user(passwd, name), None, "{name}");
        }
        let groups =
            b"root:x:0:\ndocker:x:999:bob,ann\nusers:x:100:ann\nann2:x:7:anna\nodd:x:?:ann\nx:y";
        assert_eq!(groups_of(groups, "ann", 100), [100, 999]);
        assert_eq!(groups_of(b"", "ann", 100), [100]);
    }

    #[test]
    fn there_is_a_root_and_no_nosuchuser() {
        let err = check_user("nosuchuser").unwrap_err();
        assert_eq!(err.to_string(), "there is no user `nosuchuser` in `/etc/passwd`");
        let other = check_user("root").is_err();
        assert_eq!(other, !rustix::process::geteuid().is_root(), "only root may be root");
    }
}
