//! Files with holes: only the data of some places is in the archive, and the rest is zeros.

use std::io::{self, Read};

use super::{LONGEST_HEADER, MembersError, extended::digits, header::invalid};

/// Where data belongs.
pub(super) struct Sparse {
    /// Offset and length of each place, in order.
    places: Vec<(u64, u64)>,
    /// The size of the content.
    pub(super) size: u64,
}

impl Sparse {
    /// `map` has an offset and a length for each place; `stored` bytes are in the archive.
    pub(super) fn new(map: Vec<u64>, size: u64, stored: u64) -> Result<Self, MembersError> {
        let (mut end, mut sum) = (0, 0);
        let places: Vec<(u64, u64)> = map.chunks_exact(2).map(|it| (it[0], it[1])).collect();
        for (offset, length) in &places {
            if *offset < end {
                return Err(broken());
            }
            end = offset.checked_add(*length).ok_or_else(broken)?;
            sum += length;
        }
        match map.len().is_multiple_of(2) && end <= size && sum == stored {
            true => Ok(Self { places, size }),
            false => Err(broken()),
        }
    }

    /// The content, of the data.
    pub(super) fn reader<R: Read>(self, data: R) -> Reader<R> {
        Reader { data, places: self.places.into_iter().peekable(), at: 0, size: self.size }
    }
}

pub(super) fn broken() -> MembersError {
    invalid("the map of a sparse file is wrong").into()
}

pub(super) fn too_many() -> MembersError {
    MembersError::Limit("a sparse file with more than 1 MiB of places")
}

/// The content of a file with holes.
pub(super) struct Reader<R> {
    data: R,
    places: std::iter::Peekable<std::vec::IntoIter<(u64, u64)>>,
    at: u64,
    size: u64,
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.places.next_if(|(offset, length)| offset + length <= self.at).is_some() {}
        let next = self.places.peek().copied();
        let (is_data, end) = match next {
            Some((offset, length)) if offset <= self.at => (true, offset + length),
            Some((offset, _)) => (false, offset),
            None => (false, self.size),
        };
        let most = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let count = match is_data {
            true => self.data.read(buffer)?,
            false => {
                buffer.fill(0);
                buffer.len()
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// A map that stands before the content: a line with the number of places, then two for each.
#[derive(Default)]
pub(super) struct Lines {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl Lines {
    /// Whether all numbers are there.
    pub(super) fn are_whole(&self) -> Result<bool, MembersError> {
        let Some(count) = self.numbers.first() else { return Ok(false) };
        if LONGEST_HEADER / 16 < *count {
            return Err(too_many());
        }
        Ok(2 * count < self.numbers.len() as u64)
    }

    /// Adds the lines of one block; one that begins in it may end in the next.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<(), MembersError> {
        for byte in block {
            match byte {
                b'\n' => {
                    self.numbers.push(digits(&self.line)?);
                    self.line.clear();
                    if self.are_whole()? {
                        break;
                    }
                }
                byte if self.line.len() < 20 => self.line.push(*byte),
                _ => return Err(broken()),
            }
        }
        Ok(())
    }

    pub(super) fn into_map(mut self) -> Vec<u64> {
        self.numbers.drain(1..).collect()
    }
}
