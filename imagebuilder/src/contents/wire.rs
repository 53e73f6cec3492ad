//! The numbers, paths and bytes of a table.

use std::io::{self, Read, Write};

use crate::{
    digest::Digest,
    tree::{Meta, TreePath, Xattrs},
};

/// The longest bytes of one value: a header of a member is not longer.
const LONGEST: usize = 1 << 20;

/// Where a table goes.
pub(super) struct Sink<W>(pub(super) W);

impl<W: Write> Sink<W> {
    pub(super) fn byte(&mut self, byte: u8) -> io::Result<()> {
        self.0.write_all(&[byte])
    }

    /// Seven bits a byte, the lowest first.
    pub(super) fn number(&mut self, mut number: u64) -> io::Result<()> {
        let mut bytes = [0; 10];
        let mut length = 0;
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or_default();
            number >>= 7;
            bytes[length] = if number == 0 { low } else { low | 0x80 };
            length += 1;
            if number == 0 {
                return self.0.write_all(&bytes[..length]);
            }
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.number(bytes.len() as u64)?;
        self.0.write_all(bytes)
    }

    pub(super) fn digest(&mut self, digest: Digest) -> io::Result<()> {
        self.0.write_all(digest.as_bytes())
    }

    pub(super) fn path(&mut self, last: &TreePath, path: &TreePath) -> io::Result<()> {
        let (last, path) = (last.as_bytes(), path.as_bytes());
        let common = last.iter().zip(path).take_while(|(a, b)| a == b).count();
        self.number(common as u64)?;
        self.bytes(&path[common..])
    }

    pub(super) fn meta(&mut self, meta: &Meta) -> io::Result<()> {
        self.number(u64::from(meta.mode))?;
        self.number(meta.uid)?;
        self.number(meta.gid)?;
        // The sign comes last, so that times before 1970 are short, too.
        self.number(((meta.mtime << 1) ^ (meta.mtime >> 63)).cast_unsigned())?;
        self.number(meta.xattrs.len() as u64)?;
        for (name, value) in &meta.xattrs {
            self.bytes(name)?;
            self.bytes(value)?;
        }
        Ok(())
    }
}

/// Where a table is read; none is damage, or its end.
pub(super) struct Source<R>(pub(super) R);

impl<R: Read> Source<R> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        let size = usize::try_from(self.number()?).ok().filter(|it| *it <= LONGEST)?;
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    pub(super) fn digest(&mut self) -> Option<Digest> {
        let mut bytes = [0; 32];
        self.0.read_exact(&mut bytes).ok()?;
        Some(Digest::from_bytes(bytes))
    }

    pub(super) fn path(&mut self, last: &TreePath) -> Option<TreePath> {
        let common = usize::try_from(self.number()?).ok()?;
        let mut path = last.as_bytes().get(..common)?.to_vec();
        path.extend(self.bytes()?);
        TreePath::parse(&path).ok()
    }

    pub(super) fn meta(&mut self) -> Option<Meta> {
        let mode = u32::try_from(self.number()?).ok()?;
        let (uid, gid, mtime) = (self.number()?, self.number()?, self.number()?);
        let mtime = (mtime >> 1).cast_signed() ^ -(mtime & 1).cast_signed();
        let count = self.number()?;
        let mut xattrs = Xattrs::default();
        for _ in 0..count {
            let name = self.bytes()?;
            xattrs.insert(name, self.bytes()?);
        }
        Some(Meta { mode, uid, gid, mtime, xattrs })
    }
}
