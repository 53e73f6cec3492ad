//! Writes artifacts: into a folder, or into a zip file.
//!
//! Everything is written to a hidden neighbour first and renamed when it is whole, so that nobody
//! sees half of it. Names are sorted and times are given, so that the same files give the same zip.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::{self, File, FileTimes, Permissions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, UNIX_EPOCH},
};

use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::FullFileOptions};

use crate::{
    artifacts::{Artifact, ArtifactsError, Content},
    temporary,
};

/// What to write.
pub(super) struct Job<'a> {
    pub(super) artifacts: &'a [Artifact],
    /// The folder for all artifacts.
    pub(super) destination: &'a Path,
    /// The folder or the zip file for these.
    pub(super) target: &'a Path,
    /// The time that every file gets, instead of its own.
    pub(super) modified: Option<u64>,
    pub(super) stopped: &'a mut dyn FnMut() -> Option<i32>,
}

/// How much is copied between two looks at `stopped`.
const CHUNK: usize = 128 * 1024;

/// From this size on, a file gets the 64-bit fields of zip; a little less than those of 32 bits
/// could hold, since compression may add some bytes.
const LARGE: u64 = 0xFFF0_0000;

impl Job<'_> {
    /// Writes a folder. Files that are there already are replaced, others stay; and so do files
    /// that would replace themselves, as those of a build in its own source folder do.
    pub(super) fn write_folder(&mut self) -> Result<u64, ArtifactsError> {
        self.check_targets()?;
        let staged = Staged::new(self.destination)?;
        create_folder(&staged.path)?;
        let mut bytes = 0;
        let mut copied = Vec::new();
        for Artifact { name, path, .. } in self.artifacts {
            if is_same_file(path, &self.target.join(name)) {
                bytes += Content::open(path)?.size();
                continue;
            }
            let copy = staged.path.join(name);
            let target = self.target.join(name);
            create_parent(&copy).map_err(|it| it.about(&target))?;
            bytes += self.copy_file(path, &copy).map_err(|it| it.about(&target))?;
            copied.push(name);
        }
        if self.target != self.destination && !self.target.exists() {
            create_parent(self.target)?;
            rename(&staged.path, self.target)?;
            return Ok(bytes);
        }
        for name in copied {
            let target = self.target.join(name);
            create_parent(&target)?;
            rename(&staged.path.join(name), &target)?;
        }
        Ok(bytes)
    }

    /// Checks that every file can be put where it is to go, before the first one is.
    fn check_targets(&self) -> Result<(), ArtifactsError> {
        let mut good = BTreeSet::new();
        for Artifact { name, .. } in self.artifacts {
            let path = self.target.join(name);
            if is_folder(&path) {
                return Err(ArtifactsError::InTheWay { path, what: "a folder" });
            }
            let inside = |it: &&Path| it.starts_with(self.destination) && *it != self.destination;
            for folder in path.ancestors().skip(1).take_while(inside) {
                if good.contains(folder) {
                    break;
                }
                if fs::symlink_metadata(folder).is_ok() && !folder.is_dir() {
                    let path = folder.to_owned();
                    return Err(ArtifactsError::InTheWay { path, what: "no folder" });
                }
                good.insert(folder.to_owned());
            }
        }
        Ok(())
    }

    /// Writes a zip file; replaces one that is there.
    pub(super) fn write_zip(&mut self) -> Result<u64, ArtifactsError> {
        if is_folder(self.target) {
            let path = self.target.to_owned();
            return Err(ArtifactsError::InTheWay { path, what: "a folder" });
        }
        let staged = Staged::new(self.destination)?;
        let file = File::create(&staged.path).map_err(|it| write_error(self.target, it))?;
        let bytes = write_zip(self.artifacts, self.modified, &file, self.target, self.stopped)?;
        create_parent(self.target)?;
        rename(&staged.path, self.target)?;
        Ok(bytes)
    }

    fn copy_file(&mut self, from: &Path, to: &Path) -> Result<u64, ArtifactsError> {
        let mut content = Content::open(from)?;
        let failed = |source| write_error(to, source);
        let mut output = File::create(to).map_err(failed)?;
        let count = copy(&mut content, &mut output, to, self.stopped)?;
        let modified = self.modified.unwrap_or_else(|| content.modified());
        let modified = UNIX_EPOCH + Duration::from_secs(modified);
        output.set_times(FileTimes::new().set_modified(modified)).map_err(failed)?;
        output.set_permissions(Permissions::from_mode(content.mode())).map_err(failed)?;
        Ok(count)
    }
}

/// Writes a zip file with these artifacts to `out`, which errors call `path`, and counts their
/// bytes. `modified` is the time that every file gets instead of its own, in seconds since 1970;
/// `stopped` tells the signal with which someone asked to stop.
pub fn write_zip(
    artifacts: &[Artifact],
    modified: Option<u64>,
    out: impl Write + Seek,
    path: &Path,
    stopped: &mut dyn FnMut() -> Option<i32>,
) -> Result<u64, ArtifactsError> {
    let is_over = Rc::new(Cell::new(false));
    let latched = Latched { out, is_over: Rc::clone(&is_over), position: 0, end: 0 };
    let mut zip = ZipWriter::new(BufWriter::new(latched));
    let mut add = |artifact: &Artifact| {
        let Some(name) = artifact.name.to_str() else {
            return Err(ArtifactsError::NotUtf8 { path: artifact.path.clone() });
        };
        match &artifact.link {
            Some(target) => add_link(artifact, name, target, modified, &mut zip, path),
            None => add_file(artifact, name, modified, &mut zip, path, stopped),
        }
    };
    let bytes: Result<u64, _> = artifacts.iter().map(&mut add).sum();
    is_over.set(bytes.is_err());
    let bytes = bytes?;
    let failed = |source| write_error(path, source);
    let out = zip.finish().map_err(|err| failed(err.into()))?;
    out.into_inner().map_err(|err| failed(err.into_error()))?;
    Ok(bytes)
}

/// Takes everything and keeps nothing once something failed: a writer of zip files that is given up
/// writes what is left, and would print that it cannot.
struct Latched<W> {
    out: W,
    is_over: Rc<Cell<bool>>,
    /// Where the next byte goes, or would go.
    position: u64,
    /// Where the last byte went, or would have gone.
    end: u64,
}

impl<W> Latched<W> {
    fn unless_over<T>(
        &mut self,
        over: T,
        act: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_over.get() {
            return Ok(over);
        }
        let result = act(&mut self.out);
        let is_bad = |err: &io::Error| err.kind() != io::ErrorKind::Interrupted;
        self.is_over.set(result.as_ref().is_err_and(is_bad));
        result
    }
}

impl<W: Write> Write for Latched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.unless_over(bytes.len(), |out| out.write(bytes))?;
        self.position += count as u64;
        self.end = self.end.max(self.position);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_over((), Write::flush)
    }
}

impl<W: Seek> Seek for Latched<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let over = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(by) => self.end.saturating_add_signed(by),
        };
        self.position = self.unless_over(over, |out| out.seek(to))?;
        Ok(self.position)
    }
}

fn add_file(
    artifact: &Artifact,
    name: &str,
    modified: Option<u64>,
    zip: &mut ZipWriter<impl Write + Seek>,
    out: &Path,
    stopped: &mut dyn FnMut() -> Option<i32>,
) -> Result<u64, ArtifactsError> {
    let failed = |err: ZipError| write_error(out, err.into());
    let mut content = Content::open(&artifact.path)?;
    let options = options(modified.unwrap_or_else(|| content.modified()))
        .map_err(failed)?
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(content.mode())
        .large_file(content.size() >= LARGE);
    zip.start_file(name, options).map_err(failed)?;
    copy(&mut content, zip, out, stopped)
}

fn add_link(
    artifact: &Artifact,
    name: &str,
    target: &Path,
    modified: Option<u64>,
    zip: &mut ZipWriter<impl Write + Seek>,
    out: &Path,
) -> Result<u64, ArtifactsError> {
    let failed = |err: ZipError| write_error(out, err.into());
    let Some(target) = target.to_str() else {
        return Err(ArtifactsError::NotUtf8 { path: artifact.path.clone() });
    };
    let own = || fs::symlink_metadata(&artifact.path).map_or(0, |it| it.mtime());
    let modified = modified.unwrap_or_else(|| u64::try_from(own()).unwrap_or(0));
    let options = options(modified).map_err(failed)?;
    zip.add_symlink(name, target, options).map_err(failed)?;
    Ok(target.len() as u64)
}

/// What all entries of a zip file have.
fn options(modified: u64) -> Result<FullFileOptions<'static, 'static>, ZipError> {
    FullFileOptions::default().last_modified_time(dos_time(modified)).with_extended_timestamp(
        u32::try_from(modified).ok(),
        None,
        None,
    )
}

/// Copies a file, and counts its bytes.
fn copy(
    content: &mut Content,
    output: &mut impl Write,
    to: &Path,
    stopped: &mut dyn FnMut() -> Option<i32>,
) -> Result<u64, ArtifactsError> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        if let Some(signal) = stopped() {
            return Err(ArtifactsError::Stopped { signal });
        }
        let count = content.read(&mut buffer)?;
        bytes += count as u64;
        if count == 0 || bytes > content.size() {
            // One that grows may have no end, and must not outgrow the fields of its entry.
            content.check_unchanged()?;
        }
        if count == 0 {
            return Ok(bytes);
        }
        output.write_all(&buffer[..count]).map_err(|source| write_error(to, source))?;
    }
}

/// A file or folder that nobody sees yet; it goes when this value goes, unless it was renamed.
struct Staged {
    path: PathBuf,
}

impl Staged {
    fn new(folder: &Path) -> Result<Self, ArtifactsError> {
        create_folder(folder)?;
        remove_left_over(folder);
        Ok(Self { path: folder.join(temporary::hidden_name()) })
    }
}

/// Removes what an rbuild left in `folder` that was killed: it is in nobody's way, so it does not
/// matter if that fails.
fn remove_left_over(folder: &Path) {
    let processes = Path::new("/proc");
    if !processes.join("self").exists() {
        // Then nobody can tell which processes there are.
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let owner = temporary::hidden_owner(&entry.file_name());
        if owner.is_some_and(|it| !processes.join(it.to_string()).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a file or a folder with all that is in it, if that is possible.
fn remove(path: &Path) {
    // Only one of these applies.
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

/// Whether there is a folder of that name; not a link to one, which can be replaced.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_dir())
}

/// Whether both paths are the same entry of a folder, or of the same file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let identity = |path| fs::symlink_metadata(path).map(|it| (it.dev(), it.ino()));
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

impl Drop for Staged {
    fn drop(&mut self) {
        // If all went well, there is nothing any more.
        remove(&self.path);
    }
}

fn create_folder(path: &Path) -> Result<(), ArtifactsError> {
    fs::create_dir_all(path).map_err(|source| write_error(path, source))
}

fn create_parent(path: &Path) -> Result<(), ArtifactsError> {
    path.parent().map_or(Ok(()), create_folder)
}

fn rename(from: &Path, to: &Path) -> Result<(), ArtifactsError> {
    fs::rename(from, to).map_err(|source| write_error(to, source))
}

fn write_error(path: &Path, source: io::Error) -> ArtifactsError {
    ArtifactsError::Write { path: path.to_owned(), source }
}

/// A time as zip has it: in UTC, every other second of the years from 1980 to 2107.
fn dos_time(seconds: u64) -> DateTime {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let part = |it: u64| u8::try_from(it).unwrap_or(0);
    let year = u16::try_from(year).unwrap_or(u16::MAX);
    let (hour, minute, second) = (part(rest / 3600), part(rest / 60 % 60), part(rest % 60));
    DateTime::from_date_and_time(year, part(month), part(day), hour, minute, second)
        .unwrap_or(DateTime::DEFAULT)
}

/// The year, month, and day that is `days` after 1970-01-01.
///
/// Counts in eras of 400 years, each of which starts with a March, so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (days, want) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (19_737, (2024, 1, 15)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), want, "for {days}");
        }
    }

    #[test]
    fn times_that_zip_cannot_hold_become_its_first() {
        assert_eq!(dos_time(0), DateTime::DEFAULT);
        assert_eq!(dos_time(u64::MAX / 2), DateTime::DEFAULT);
        let time = dos_time(1_705_313_472);
        let date = (time.year(), time.month(), time.day());
        assert_eq!((date, time.hour(), time.minute()), ((2024, 1, 15), 10, 11));
        assert_eq!(time.second(), 12);
    }
}
