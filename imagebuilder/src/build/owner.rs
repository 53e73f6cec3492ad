//! Who `--chown` and `USER` mean: numbers, or names in `/etc/passwd` and `/etc/group`.

use thiserror::Error;

use crate::{
    copy::Owner,
    rootfs::{Rootfs, RootfsError},
    unpack::Layers,
};

/// Why a text names nobody.
#[derive(Debug, Error)]
pub enum OwnerError {
    /// There is no such name in the image.
    #[error("there is no {what} `{name}` in the image's `{file}`")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// The file.
        file: &'static str,
    },
    /// It has an empty part, or more than two.
    #[error("`{0}` is not of the form `user[:group]`")]
    Form(String),
    /// The image could not be read.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
}

/// Reads `user[:group]`; a user without a group has its own one: the group of the user's entry,
/// or, for a number, the same number (Dockerfile reference, "COPY --chown").
pub(super) fn resolve(text: &str, rootfs: &Rootfs, from: Layers<'_>) -> Result<Owner, OwnerError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || group.is_some_and(|it| it.is_empty() || it.contains(':')) {
        return Err(OwnerError::Form(text.to_owned()));
    }
    let (uid, own) = match number(user) {
        Some(uid) => (uid, uid),
        None => find(rootfs, from, "user", "/etc/passwd", user)?,
    };
    let gid = match group {
        None => own,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => find(rootfs, from, "group", "/etc/group", group)?.0,
        },
    };
    Ok(Owner { uid, gid })
}

/// A user's or group's number; the highest means "none" to the system.
fn number(text: &str) -> Option<u64> {
    text.parse::<u32>().ok().filter(|it| *it != u32::MAX).map(u64::from)
}

/// The third and fourth fields of the line that begins with `name` (passwd(5), group(5)).
fn find(
    rootfs: &Rootfs,
    from: Layers<'_>,
    what: &'static str,
    file: &'static str,
    name: &str,
) -> Result<(u64, u64), OwnerError> {
    let text = rootfs.text(from, file)?.unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = |it: usize| number(fields.get(it)?.trim());
        (fields.first() == Some(&name))
            .then(|| Some((number(2)?, number(3).unwrap_or_default())))?
    });
    // Root is root, also where there is no file that says so.
    let found = found.or_else(|| (name == "root").then_some((0, 0)));
    found.ok_or_else(|| OwnerError::Unknown { what, name: name.to_owned(), file })
}
