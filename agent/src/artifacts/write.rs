//! Writes artifacts: into a folder, or into a zip file.
//!
//! Everything is written to a hidden neighbour first and renamed when it is whole, so that nobody
//! sees half of it. Names are sorted and times are given, so that the same files give the same zip.

use std::{
    fs::{self, File, FileTimes, Permissions},
    io::{self, BufWriter, Read, Seek, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use zip::{CompressionMethod, DateTime, ZipWriter, write::FullFileOptions};

use crate::{
    artifacts::{ArtifactsError, Source},
    temporary,
};

/// What to write.
pub(super) struct Job<'a> {
    pub(super) files: &'a [Source],
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

/// Above this size, a file needs the 64-bit fields of zip; a little less than they do, since
/// compression may add some bytes.
const LARGE: u64 = 0xFFF0_0000;

impl Job<'_> {
    /// Writes a folder. Files that are there already are replaced, others stay; and so do files
    /// that would replace themselves, as those of a build in its own source folder do.
    pub(super) fn write_folder(&mut self) -> Result<u64, ArtifactsError> {
        let staged = Staged::new(self.destination)?;
        create_folder(&staged.path)?;
        let mut bytes = 0;
        let mut copied = Vec::new();
        for Source { name, path } in self.files {
            if is_same_file(path, &self.target.join(name)) {
                bytes += self.open(path)?.1.size;
                continue;
            }
            let copy = staged.path.join(name);
            create_parent(&copy)?;
            bytes += self.copy_file(path, &copy)?;
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

    /// Writes a zip file; replaces one that is there.
    pub(super) fn write_zip(&mut self) -> Result<u64, ArtifactsError> {
        let staged = Staged::new(self.destination)?;
        let failed = |source| write_error(&staged.path, source);
        let file = File::create(&staged.path).map_err(failed)?;
        let mut zip = ZipWriter::new(BufWriter::new(file));
        let mut bytes = 0;
        for source in self.files {
            bytes += self.add_to_zip(source, &mut zip, &staged.path)?;
        }
        let file = zip.finish().map_err(|err| failed(err.into()))?;
        file.into_inner().map_err(|err| failed(err.into_error()))?;
        create_parent(self.target)?;
        rename(&staged.path, self.target)?;
        Ok(bytes)
    }

    fn copy_file(&mut self, from: &Path, to: &Path) -> Result<u64, ArtifactsError> {
        let (mut input, properties) = self.open(from)?;
        let failed = |source| write_error(to, source);
        let mut output = File::create(to).map_err(failed)?;
        let count = self.copy(&mut input, from, &mut output, to)?;
        let modified = UNIX_EPOCH + Duration::from_secs(properties.modified);
        output.set_times(FileTimes::new().set_modified(modified)).map_err(failed)?;
        output.set_permissions(Permissions::from_mode(properties.mode)).map_err(failed)?;
        Ok(count)
    }

    fn add_to_zip(
        &mut self,
        Source { name, path }: &Source,
        zip: &mut ZipWriter<impl Write + Seek>,
        target: &Path,
    ) -> Result<u64, ArtifactsError> {
        let Some(name) = name.to_str() else {
            return Err(ArtifactsError::NotUtf8 { path: path.clone() });
        };
        let (mut input, properties) = self.open(path)?;
        let failed = |err: zip::result::ZipError| write_error(target, err.into());
        let options = FullFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(properties.mode)
            .large_file(properties.size >= LARGE)
            .last_modified_time(dos_time(properties.modified))
            .with_extended_timestamp(u32::try_from(properties.modified).ok(), None, None)
            .map_err(failed)?;
        zip.start_file(name, options).map_err(failed)?;
        self.copy(&mut input, path, zip, target)
    }

    fn open(&self, path: &Path) -> Result<(File, Properties), ArtifactsError> {
        let failed = |source| ArtifactsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let own = metadata.modified().map_err(failed)?;
        let properties = Properties {
            mode: metadata.permissions().mode() & 0o777,
            size: metadata.len(),
            modified: self.modified.unwrap_or_else(|| seconds(own)),
        };
        Ok((file, properties))
    }

    /// Copies what is in `input`, and counts it.
    fn copy(
        &mut self,
        input: &mut impl Read,
        from: &Path,
        output: &mut impl Write,
        to: &Path,
    ) -> Result<u64, ArtifactsError> {
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        loop {
            if let Some(signal) = (self.stopped)() {
                return Err(ArtifactsError::Stopped { signal });
            }
            let count = match input.read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                count => count
                    .map_err(|source| ArtifactsError::Read { path: from.to_owned(), source })?,
            };
            output.write_all(&buffer[..count]).map_err(|source| write_error(to, source))?;
            bytes += count as u64;
        }
    }
}

/// What an artifact keeps of a file, besides its content.
struct Properties {
    mode: u32,
    size: u64,
    /// In seconds since 1970.
    modified: u64,
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

/// Whole seconds since 1970; what is earlier is then.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
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
