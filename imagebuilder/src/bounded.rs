//! Reads what is compressed, and stops where it gives more than what was read of it may hold.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// Counts what is read.
pub(crate) struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

/// Asks `check` after every piece, with the bytes that are packed and unpacked so far.
pub(crate) struct Bounded<R, C> {
    inner: R,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
    check: C,
}

impl<R> Counted<R> {
    /// Counts into `count`, from what it has on.
    pub(crate) fn new(inner: R, count: &Rc<Cell<u64>>) -> Self {
        Self { inner, count: Rc::clone(count) }
    }
}

impl<R, C: Fn(u64, u64) -> io::Result<()>> Bounded<R, C> {
    /// Bounds what comes out of `inner`, which reads `packed` bytes for it.
    pub(crate) fn new(inner: R, packed: Rc<Cell<u64>>, check: C) -> Self {
        Self { inner, packed, unpacked: 0, check }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

impl<R: Read, C: Fn(u64, u64) -> io::Result<()>> Read for Bounded<R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.unpacked += count as u64;
        (self.check)(self.packed.get(), self.unpacked)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_bounded_by_what_went_in() {
        let packed = Rc::new(Cell::new(0));
        let inner = Counted::new(io::repeat(0), &packed);
        let check = |packed: u64, unpacked: u64| match unpacked <= packed.min(10) {
            true => Ok(()),
            false => Err(io::Error::other(format!("{unpacked} of {packed}"))),
        };
        let mut bounded = Bounded::new(inner, packed, check);
        bounded.read_exact(&mut [0; 10]).unwrap();
        assert_eq!(bounded.read_exact(&mut [0; 2]).unwrap_err().to_string(), "12 of 12");
    }
}
