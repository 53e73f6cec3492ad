//! Large files are cut where their content says so (`FastCDC`, the 2020 flavour), so that a
//! change in one place leaves the other chunks what they are.
//!
//! Where a file is cut is remembered by its digest: it is read for that once.
//!
//! **Architecture invariant:** what is remembered was found in content whose digest was checked.

use std::{io::Read, vec};

use fastcdc::v2020::FastCDC;
use sha2::{Digest as _, Sha256};

use super::{LayerError, content};
use crate::{
    digest::{Digest, Framed},
    store::Store,
    tree::{Content, Opened, Still, TreePath},
};

/// The least and the most bytes of a chunk, and what most are near.
const LEAST: usize = 512 << 10;
const NEAR: usize = 1 << 20;
pub(super) const MOST: usize = 2 << 20;

/// The version of where content is cut: raised when the same content is cut elsewhere than before,
/// as a new version of the algorithm's crate may do. What was remembered is found again then.
const CUTS: u64 = 1;

/// A chunk of a file.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) digest: Digest,
    /// The bytes, if they were just read.
    pub(super) bytes: Option<Vec<u8>>,
}

/// Gives the chunks of one file.
pub(super) enum Cutter<'a> {
    /// They were found before.
    Known(u64, vec::IntoIter<(u32, Digest)>),
    /// They are found now.
    Reading(Box<Reading<'a>>),
}

pub(super) struct Reading<'a> {
    store: &'a Store,
    path: &'a TreePath,
    content: &'a Content,
    file: Opened,
    /// What was read so far, if the filesystem does not say that the file is as it was.
    whole: Option<Sha256>,
    /// What was read and not given yet.
    buffer: Vec<u8>,
    offset: u64,
    found: Vec<(u32, Digest)>,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(
        store: &'a Store,
        path: &'a TreePath,
        content: &'a Content,
    ) -> Result<Self, LayerError> {
        if let Some(chunks) = recall(store, content)? {
            return Ok(Self::Known(0, chunks.into_iter()));
        }
        let file = content::open(path, content)?;
        let is_same = content.still(&file).is_ok_and(|it| it == Still::Same);
        Ok(Self::Reading(Box::new(Reading {
            store,
            path,
            content,
            file,
            whole: (!is_same).then(Sha256::new),
            buffer: Vec::new(),
            offset: 0,
            found: Vec::new(),
        })))
    }

    pub(super) fn next(&mut self) -> Result<Option<Chunk>, LayerError> {
        match self {
            Self::Known(offset, chunks) => Ok(chunks.next().map(|(length, digest)| {
                let chunk = Chunk { offset: *offset, length, digest, bytes: None };
                *offset += u64::from(length);
                chunk
            })),
            Self::Reading(reading) => reading.next(),
        }
    }
}

impl Reading<'_> {
    fn next(&mut self) -> Result<Option<Chunk>, LayerError> {
        let had = self.buffer.len();
        self.buffer.reserve_exact(MOST - had);
        let room = (MOST - had) as u64;
        let read = Read::by_ref(&mut self.file).take(room).read_to_end(&mut self.buffer);
        read.map_err(|source| LayerError::Read { path: self.path.clone(), source })?;
        if let Some(whole) = &mut self.whole {
            whole.update(&self.buffer[had..]);
        }
        if self.content.size < self.offset + self.buffer.len() as u64 {
            return Err(content::changed(self.path));
        }
        if self.buffer.is_empty() {
            return self.end().map(|()| None);
        }
        let cut = cut(&self.buffer);
        let bytes = self.buffer[..cut].to_vec();
        self.buffer.drain(..cut);
        let length = u32::try_from(cut).unwrap_or(u32::MAX);
        let digest = Digest::of(&bytes);
        let chunk = Chunk { offset: self.offset, length, digest, bytes: Some(bytes) };
        self.found.push((length, digest));
        self.offset += u64::from(length);
        if self.offset == self.content.size {
            self.end()?;
        }
        Ok(Some(chunk))
    }

    /// Whether what was read is the content that it should be.
    fn is_right(&mut self) -> bool {
        match self.whole.take() {
            Some(whole) => Digest::from_bytes(whole.finalize().into()) == self.content.digest,
            // As it was before it was read, and after.
            None => self.content.still(&self.file).is_ok_and(|it| it == Still::Same),
        }
    }

    /// Checks that it is the content that it should be, and remembers its chunks.
    fn end(&mut self) -> Result<(), LayerError> {
        if self.offset != self.content.size
            || !content::is_at_end(self.path, &mut self.file)?
            || !self.is_right()
        {
            return Err(content::changed(self.path));
        }
        let texts: Vec<(u32, String)> =
            self.found.iter().map(|(length, digest)| (*length, digest.hex())).collect();
        Ok(self.store.remember(key(self.content), &texts)?)
    }
}

/// Where the first chunk of some bytes ends, which are all that there are, or [`MOST`].
fn cut(bytes: &[u8]) -> usize {
    FastCDC::new(bytes, LEAST, NEAR, MOST).cut(0, bytes.len()).1
}

fn key(content: &Content) -> Digest {
    let [least, near, most] = [LEAST, NEAR, MOST].map(|it| it as u64);
    let cutting = [CUTS, least, near, most].map(u64::to_le_bytes).concat();
    Framed::new("rbuild chunks 1").with(cutting).with(content.digest.as_bytes()).finish()
}

/// What was remembered, if it can be true.
fn recall(store: &Store, content: &Content) -> Result<Option<Vec<(u32, Digest)>>, LayerError> {
    let Some(texts) = store.recall::<Vec<(u32, String)>>(key(content))? else { return Ok(None) };
    let total: u64 = texts.iter().map(|(length, _)| u64::from(*length)).sum();
    let fits = |length: u32| 0 < length && length as usize <= MOST;
    if total != content.size || !texts.iter().all(|(length, _)| fits(*length)) {
        return Ok(None);
    }
    let digest = |(length, hex): (u32, String)| Some((length, Digest::from_hex(&hex)?));
    Ok(texts.into_iter().map(digest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where this fails after an update of the crate that cuts: [`CUTS`] is to be raised, and the
    /// lengths here are to be those that come now.
    #[test]
    fn content_is_cut_where_it_always_was() {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        let bytes: Vec<u8> = (0..16 << 20).map(|_| noise()).collect();
        let mut rest = bytes.as_slice();
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            let length = cut(&rest[..rest.len().min(MOST)]);
            lengths.push(length);
            rest = &rest[length..];
        }
        let want = [
            1_134_874, 1_104_917, 1_355_578, 599_068, 791_993, 1_154_885, 2_097_152, 1_528_436,
            1_812_541, 1_349_482, 1_269_546, 658_456, 1_280_271, 640_017,
        ];
        assert_eq!((CUTS, lengths.as_slice()), (1, &want[..]));
        let zeros = vec![0; MOST];
        assert_eq!((cut(&zeros), cut(&zeros[..LEAST])), (MOST, LEAST));
    }
}
