//! Reads the contents of files, and checks that they are what the tree says.
//!
//! **Architecture invariant:** no byte of a file gets into a segment unless its filesystem says that
//! it is unchanged, or its digest was computed again and is the same.

use std::{io, io::Read};

use super::{LayerError, chunks::Chunk};
use crate::{
    digest::Digest,
    tree::{Content, Opened, Still, TreePath},
};

/// Adds the content of a file that is not large to `out`.
pub(super) fn append_file(
    out: &mut Vec<u8>,
    path: &TreePath,
    content: &Content,
) -> Result<(), LayerError> {
    if content.size == 0 && content.digest == Digest::of(b"") {
        // There is no byte of it to be wrong.
        return Ok(());
    }
    let mut file = open(path, content)?;
    let start = out.len();
    let size = usize::try_from(content.size).map_err(|_| changed(path))?;
    out.resize(start + size, 0);
    file.read_exact(&mut out[start..]).map_err(|err| failed(path, err))?;
    if !is_at_end(path, &mut file)? {
        return Err(changed(path));
    }
    check(path, content, &file, content.digest, &out[start..])
}

/// Adds a chunk of a large file to `out`.
pub(super) fn append_chunk(
    out: &mut Vec<u8>,
    path: &TreePath,
    content: &Content,
    chunk: &Chunk,
) -> Result<(), LayerError> {
    if let Some(bytes) = &chunk.bytes {
        // Their digest was just computed; that of the whole file is checked by who cuts it.
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let file = open(path, content)?;
    let start = out.len();
    out.resize(start + chunk.length as usize, 0);
    file.read_exact_at(&mut out[start..], chunk.offset).map_err(|err| failed(path, err))?;
    let end = chunk.offset + u64::from(chunk.length);
    if end == content.size {
        let more = file.read_at(&mut [0], end).map_err(|err| failed(path, err))?;
        if more != 0 {
            return Err(changed(path));
        }
    }
    check(path, content, &file, chunk.digest, &out[start..])
}

pub(super) fn open(path: &TreePath, content: &Content) -> Result<Opened, LayerError> {
    content.open(path).map_err(|source| LayerError::Read { path: path.clone(), source })
}

/// Whether nothing is left to read.
pub(super) fn is_at_end(path: &TreePath, file: &mut Opened) -> Result<bool, LayerError> {
    let count = file.read(&mut [0]).map_err(|err| failed(path, err))?;
    Ok(count == 0)
}

pub(super) fn changed(path: &TreePath) -> LayerError {
    LayerError::Changed { path: path.clone() }
}

fn check(
    path: &TreePath,
    content: &Content,
    file: &Opened,
    digest: Digest,
    bytes: &[u8],
) -> Result<(), LayerError> {
    match content.still(file).map_err(|err| failed(path, err))? {
        Still::Same => Ok(()),
        Still::Unknown if Digest::of(bytes) == digest => Ok(()),
        Still::Unknown | Still::Changed => Err(changed(path)),
    }
}

fn failed(path: &TreePath, source: io::Error) -> LayerError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => changed(path),
        _ => LayerError::Read { path: path.clone(), source },
    }
}
