//! What the kernel says of a file, and when the same stamp proves the same content.
//!
//! **Architecture invariant:** a stamp proves something only where [`is_trusted`] says that the
//! filesystem changes the ctime with every change, and only if the file had been left alone for
//! long enough when it was read ([`Stamp::is_settled`]).

use rustix::{
    fs::{FileType, Stat},
    time::{ClockId, clock_gettime},
};

const SECOND: i64 = 1_000_000_000;

/// The filesystems whose ctime is set by the kernel at every change of a file's content, mode,
/// owner or attributes, and by nobody else (`linux/magic.h`): ext2 to ext4, XFS, btrfs, tmpfs,
/// overlayfs.
const TRUSTED: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630];

/// What the kernel says of a file. Times are in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) ctime: i64,
    pub(super) mtime: i64,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whether the ctime of such a filesystem (`f_type` of `statfs(2)`) says that a file was changed.
///
/// Those of a network or of a program are not trusted: their times are those of another clock, are
/// cached, or are made up.
pub(super) fn is_trusted(kind: u64) -> bool {
    TRUSTED.contains(&kind)
}

/// The clock that the kernel takes the times of files from, in nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    nanoseconds(time.tv_sec, time.tv_nsec)
}

/// Times that do not fit are those of a clock that is far off: all the same, and never settled.
fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(SECOND).saturating_add(rest)
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        let time = |seconds, rest| nanoseconds(seconds, i64::try_from(rest).unwrap_or_default());
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }

    /// What names the file while it is there: all its names have the same.
    pub(super) fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    pub(super) fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode).is_file()
    }

    /// Whether a change after the moment `clock` would give the file another ctime, so that what is
    /// read from then on is known by this stamp (the rule of git's "racy" entries).
    ///
    /// A change in the same tick of the clock as the last one leaves the ctime as it is. The tick of
    /// a filesystem is not known, and so is taken for as long as the ctime is round: a whole second
    /// (small inodes of ext4) is trusted a second later. A ctime of the future, as after the clock
    /// was set back, is not trusted.
    pub(super) fn is_settled(&self, clock: i64) -> bool {
        let mut tick = 1;
        while tick < SECOND && self.ctime % (tick * 10) == 0 {
            tick *= 10;
        }
        self.ctime.checked_add(tick).is_some_and(|it| it <= clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: i64 = 4_000_001;

    fn stamp(ctime: i64) -> Stamp {
        Stamp { dev: 1, ino: 2, ctime, mtime: 0, size: 3, mode: 0o100_644, uid: 0, gid: 0 }
    }

    #[test]
    fn a_stamp_is_trusted_once_the_clock_has_ticked_since() {
        let noon = 1_700_000_000 * SECOND;
        for (ctime, clock, want, why) in [
            (noon + TICK, noon + TICK - 1, false, "the file is younger than the clock's last tick"),
            (noon + TICK, noon + TICK, false, "it may change again in the same tick"),
            (noon + TICK, noon + TICK + 1, true, "the next change is in a later tick"),
            (
                noon + SECOND + 7,
                noon,
                false,
                "the clock was set back, or the time is of the future",
            ),
            (noon, noon + SECOND - 1, false, "a whole second may be that of a coarse filesystem"),
            (noon, noon + SECOND, true, "also that has ticked"),
            (noon + 20_000_000, noon + 25_000_000, false, "so may hundredths"),
            (noon + 20_000_000, noon + 30_000_000, true, "and these have ticked"),
            (0, noon, true, "a file as old as time"),
            (-5, noon, true, "or older"),
            (i64::MAX, i64::MAX, false, "a time that does not fit is never trusted"),
        ] {
            assert_eq!(stamp(ctime).is_settled(clock), want, "{why}: {ctime} at {clock}");
        }
    }

    #[test]
    fn only_filesystems_that_keep_a_ctime_of_their_own_are_trusted() {
        for (kind, want, name) in [
            (0xef53, true, "ext4"),
            (0x0102_1994, true, "tmpfs"),
            (0x6573_5546, false, "FUSE"),
            (0x9fa0, false, "proc"),
            (0x6969, false, "NFS"),
            (0x0102_1997, false, "9p"),
            (0xff53_4d42, false, "CIFS"),
            (0x4d44, false, "FAT"),
            (0, false, "nothing"),
        ] {
            assert_eq!(is_trusted(kind), want, "{name}");
        }
    }

    #[test]
    fn the_clock_is_the_one_that_files_get_their_times_from() {
        use std::{fs::File, io::Write, os::unix::fs::MetadataExt};
        let mut file: File = tempfile::tempfile().unwrap();
        let before = now();
        file.write_all(b"x").unwrap();
        let metadata = file.metadata().unwrap();
        let ctime = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
        assert!(before <= ctime, "{before} is later than {ctime}");
    }
}
