//! Files that come with what is built, and so may be anything: read only if they are files, only
//! so much of them, and, if nobody named them, only if they lie in the folder that was named.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use rbuild_imagebuilder::{context::Context, patterns::Ignore, tree::TreePath};
use rustix::fs::{Mode, OFlags};

use crate::console::size;

/// Reads a file that the user named, wherever a link leads; of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // The opening of a FIFO waits for someone who writes, and a terminal may become ours.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    read_open(File::from(rustix::fs::open(path, flags, Mode::empty())?), limit)
}

/// Reads standard input to its end; of at most `limit` bytes.
pub(crate) fn read_standard_input(limit: u64) -> io::Result<Vec<u8>> {
    read_bounded(io::stdin().lock(), limit)
}

/// Reads a file that is looked for by its name: if it lies in the build context `folder`, no link
/// leads out of it.
pub(crate) fn read_found(folder: &Path, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let Some(inside) = place_in(folder, path)? else { return read(path, limit) };
    let inside = TreePath::parse(inside.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let context = Context::open_folder(folder, Ignore::default()).map_err(io::Error::other)?;
    let resolved = context.resolve(&inside).map_err(io::Error::other)?;
    read_open(context.open(&resolved)?, limit)
}

/// The path below `folder`, if the folder in which the file lies is in it.
fn place_in(folder: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent)?;
    let inside = parent.strip_prefix(fs::canonicalize(folder)?);
    Ok(inside.ok().map(|it| it.join(path.file_name().unwrap_or_default())))
}

fn read_open(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        let what = if kind.is_fifo() { "a FIFO" } else { "a device" };
        return Err(io::Error::other(format!("it is {what}, and not a regular file")));
    }
    // Some files have more than they say, such as those of /proc.
    read_bounded(file, limit)
}

fn read_bounded(file: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if limit < bytes.len() as u64 {
        let message = format!("it has more than {}", size::bytes(limit));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    fn text(read: io::Result<Vec<u8>>) -> String {
        read.map_or_else(|err| err.to_string(), |it| String::from_utf8(it).unwrap())
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "12345").unwrap();
        symlink("file", path("link")).unwrap();
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for (path, limit, want) in [
            (path("file"), 5, "12345"),
            (path("link"), 5, "12345"),
            (path("file"), 4, "it has more than 4 B"),
            (path("fifo"), 5, "it is a FIFO, and not a regular file"),
            ("/dev/zero".into(), 5, "it is a device, and not a regular file"),
            (folder.path().into(), 5, "is a directory"),
        ] {
            assert_eq!(text(read(&path, limit)), want, "for `{}`", path.display());
        }
    }

    #[test]
    fn what_is_found_in_a_folder_lies_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("ctx/sub")).unwrap();
        fs::write(path("secret"), "secret").unwrap();
        fs::write(path("ctx/file"), "file").unwrap();
        for (target, link) in [
            ("../file", "ctx/sub/inside"),
            ("../../secret", "ctx/sub/outside"),
            ("../secret", "ctx/outside"),
            ("ctx/outside", "named"),
        ] {
            symlink(target, path(link)).unwrap();
        }
        let read = |name: &str| text(read_found(&path("ctx"), &path(name), 10));
        assert_eq!(read("ctx/file"), "file");
        assert_eq!(read("ctx/sub/inside"), "file");
        for name in ["ctx/outside", "ctx/sub/outside"] {
            assert!(read(name).contains("leads outside of the build context"), "{}", read(name));
        }
        // It does not lie in the context, and so is the user's own.
        assert_eq!(read("named"), "secret");
    }
}
