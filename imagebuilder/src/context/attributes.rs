//! Extended attributes of files and folders of the host, as far as they mean something in an image.

use std::{ffi::OsStr, io, os::fd::AsFd, os::unix::ffi::OsStrExt};

use rustix::{fs as sys, io::Errno};

use crate::tree::Xattrs;

/// The kernel's own limit for the names, and for one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LARGEST: usize = 1 << 16;

/// Capabilities and what users set themselves. Attributes of the host's security modules, e.g.,
/// `SELinux` labels, are left out.
pub(super) fn read(file: impl AsFd) -> io::Result<Xattrs> {
    // Most files have none, and are asked once.
    let mut names = [0; 1024];
    match sys::flistxattr(&file, &mut names[..]) {
        Ok(length) => values(&file, &names[..length]),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Xattrs::default()),
        Err(Errno::RANGE) => {
            let mut names = vec![0; LARGEST];
            let length = sys::flistxattr(&file, &mut names[..])?;
            values(&file, &names[..length])
        }
        Err(err) => Err(err.into()),
    }
}

fn values(file: impl AsFd, names: &[u8]) -> io::Result<Xattrs> {
    let mut found = Vec::new();
    for name in names.split(|it| *it == 0) {
        if name == b"security.capability" || name.starts_with(b"user.") {
            refuse_equals(name)?;
            let mut value = vec![0; LARGEST];
            match sys::fgetxattr(&file, OsStr::from_bytes(name), &mut value[..]) {
                Ok(length) => found.push((name.to_vec(), value[..length].to_vec())),
                // It was removed meanwhile.
                Err(Errno::NODATA) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// In a layer the first `=` ends the name (POSIX.1-2001, `pax` Extended Header): it would be another
/// attribute there.
fn refuse_equals(name: &[u8]) -> io::Result<()> {
    if !name.contains(&b'=') {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(name).escape_debug().to_string();
    let what = format!("its attribute `{shown}` has a `=` in its name, which no layer can hold");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}
