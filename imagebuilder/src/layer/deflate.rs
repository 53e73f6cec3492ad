//! Makes a complete deflate stream (RFC 1951) one that another can follow.
//!
//! The fastest compressors end each stream with a block that is marked as the last one, and only
//! who decodes the stream knows where that block begins. So it is decoded here, without writing
//! what it decodes to.
//!
//! **Architecture invariant:** a stream that is not what it should be is refused, never repaired:
//! it must decode to as many bytes as went in, and end where its bytes end.

/// Zero bytes behind the stream that reading ahead may touch, and room for the block that is added.
pub(super) const MARGIN: usize = 16;

/// The most bits of a code (RFC 1951, 3.2.7).
const LONGEST_CODE: usize = 15;
/// An entry for literal bytes: as many as its base says.
const LITERAL: u32 = 1 << 31;
/// An entry that is no literal and no length: the end of the block, a further table, or nothing.
const OTHER: u32 = 1 << 30;
/// With [`OTHER`]: the end of the block.
const END: u32 = 1 << 29;
/// Bits of the code, in an entry.
const BITS: u32 = 0x1f;
/// Where the number of extra bits (4 bits) is in an entry.
const EXTRA: u32 = 5;
/// Where the base value, or the place of a further table, is in an entry.
const BASE: u32 = 9;
/// The bits of that.
const BASE_MASK: u32 = 0xf_ffff;

/// The order in which the lengths of the code lengths' code are written (RFC 1951, 3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Base and extra bits of the codes 257 to 285.
const LENGTHS: [(u32, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// Decodes streams; its tables are used again.
#[derive(Debug)]
pub(super) struct Walker {
    literals: Table<2048>,
    distances: Table<256>,
    lengths: Table<128>,
}

/// Takes the mark of the end off the stream of `length` bytes at the start of `buffer`, and adds an
/// empty stored block, so that it ends at a byte. Gives the new length, or none if it is not a
/// stream of `size` bytes. At least [`MARGIN`] bytes must follow the stream.
pub(super) fn open_end(
    walker: &mut Walker,
    buffer: &mut [u8],
    length: usize,
    size: usize,
) -> Option<usize> {
    buffer.get_mut(length..length + MARGIN)?.fill(0);
    let Ends { last_block, end } = walker.walk(&buffer[..length + MARGIN], size as u64)?;
    if end.div_ceil(8) != length {
        return None;
    }
    buffer[last_block / 8] &= !(1 << (last_block % 8));
    // The three bits of the new block's header are zeros, as are those after the end.
    if !end.is_multiple_of(8) {
        buffer[end / 8] &= (1 << (end % 8)) - 1;
    }
    let header_end = (end + 3).div_ceil(8);
    buffer[header_end..header_end + 4].copy_from_slice(&[0, 0, 0xff, 0xff]);
    Some(header_end + 4)
}

/// Where things are in a stream, in bits.
struct Ends {
    last_block: usize,
    end: usize,
}

impl Walker {
    pub(super) fn new() -> Self {
        Self { literals: Table::new(), distances: Table::new(), lengths: Table::new() }
    }

    fn walk(&mut self, bytes: &[u8], size: u64) -> Option<Ends> {
        let mut bits = Bits { bytes, next: 0, buffer: 0, count: 0 };
        let mut total = 0;
        loop {
            let last_block = bits.position();
            bits.refill()?;
            let (is_last, kind) = (bits.take(1) == 1, bits.take(2));
            match kind {
                0 => total += bits.skip_stored()?,
                1 => {
                    self.fix()?;
                    self.skip_codes(&mut bits, &mut total, size)?;
                }
                2 => {
                    self.read_codes(&mut bits)?;
                    self.skip_codes(&mut bits, &mut total, size)?;
                }
                _ => return None,
            }
            if size < total {
                return None;
            }
            if is_last {
                return (total == size).then(|| Ends { last_block, end: bits.position() });
            }
        }
    }

    /// The codes of RFC 1951, 3.2.6.
    fn fix(&mut self) -> Option<()> {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        self.literals.build(&lengths, literal)?;
        self.literals.join_literals();
        self.distances.build(&[5; 30], distance)
    }

    /// The codes of a dynamic block (RFC 1951, 3.2.7).
    fn read_codes(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let literals = bits.take(5) as usize + 257;
        let distances = bits.take(5) as usize + 1;
        let count = bits.take(4) as usize + 4;
        let mut lengths = [0; 19];
        for place in &ORDER[..count] {
            bits.refill()?;
            lengths[*place] = u8::try_from(bits.take(3)).ok()?;
        }
        self.lengths.build(&lengths, |symbol| u32::try_from(symbol).unwrap_or_default() << BASE)?;
        // The longest lists that the header can announce.
        let mut all = [0; 288 + 32];
        let mut done = 0;
        while done < literals + distances {
            let symbol = self.take_length(bits)?;
            let (value, times) = match symbol {
                0..=15 => (symbol, 1),
                16 => (*all.get(done.checked_sub(1)?)?, 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                _ => (0, 11 + bits.take(7)),
            };
            let end = done + times as usize;
            if literals + distances < end {
                return None;
            }
            all.get_mut(done..end)?.fill(value);
            done = end;
        }
        self.literals.build(&all[..literals], literal)?;
        self.literals.join_literals();
        self.distances.build(&all[literals..literals + distances], distance)
    }

    fn take_length(&self, bits: &mut Bits<'_>) -> Option<u8> {
        bits.refill()?;
        let entry = self.lengths.main[bits.peek::<128>()];
        if entry & OTHER != 0 {
            return None;
        }
        bits.consume(entry);
        u8::try_from((entry >> BASE) & BASE_MASK).ok()
    }

    /// Goes through short codes of literals, and gives the first entry that is none of them.
    #[inline]
    #[expect(clippy::option_option, reason = "the end of the stream, and nothing else yet")]
    fn skip_literals(&self, bits: &mut Bits<'_>, total: &mut u64) -> Option<Option<u32>> {
        bits.refill()?;
        for _ in 0..4 {
            let entry = self.literals.main[bits.peek::<2048>()];
            if entry & LITERAL == 0 {
                return Some(Some(entry));
            }
            bits.consume(entry);
            *total += u64::from((entry >> BASE) & BASE_MASK);
        }
        Some(None)
    }

    /// Goes through the codes of a block to its end.
    fn skip_codes(&self, bits: &mut Bits<'_>, total: &mut u64, most: u64) -> Option<()> {
        while *total <= most {
            let Some(mut entry) = self.skip_literals(bits, total)? else { continue };
            // 56 bits or more: a length with its distance has 48 at most.
            bits.refill()?;
            if entry & OTHER != 0 {
                entry = self.literals.further(entry, bits)?;
                if entry & LITERAL != 0 {
                    bits.consume(entry);
                    *total += u64::from((entry >> BASE) & BASE_MASK);
                    continue;
                }
                if entry & OTHER != 0 {
                    bits.consume(entry);
                    return (entry & END != 0).then_some(());
                }
            }
            let length = bits.value(entry);
            let mut entry = self.distances.main[bits.peek::<256>()];
            if entry & OTHER != 0 {
                entry = self.distances.further(entry, bits)?;
                if entry & OTHER != 0 {
                    return None;
                }
            }
            if *total < bits.value(entry) {
                return None;
            }
            *total += length;
        }
        None
    }
}

fn literal(symbol: usize) -> u32 {
    match symbol {
        0..256 => LITERAL | (1 << BASE),
        256 => OTHER | END,
        _ => match LENGTHS.get(symbol - 257) {
            Some((base, extra)) => (base << BASE) | (extra << EXTRA),
            None => OTHER,
        },
    }
}

fn distance(symbol: usize) -> u32 {
    let symbol = u32::try_from(symbol).unwrap_or_default();
    match symbol {
        0..4 => (symbol + 1) << BASE,
        4..30 => {
            let extra = symbol / 2 - 1;
            ((((2 + symbol % 2) << extra) + 1) << BASE) | (extra << EXTRA)
        }
        _ => OTHER,
    }
}

/// What codes mean, by their first bits; longer ones have further tables.
#[derive(Debug)]
struct Table<const N: usize> {
    main: Box<[u32; N]>,
    further: Vec<u32>,
}

impl<const N: usize> Table<N> {
    const MAIN: usize = N.trailing_zeros() as usize;

    fn new() -> Self {
        Self { main: Box::new([OTHER; N]), further: Vec::new() }
    }

    /// Makes the table of the code with these lengths (RFC 1951, 3.2.2); none if no code has them.
    fn build(&mut self, lengths: &[u8], meaning: impl Fn(usize) -> u32) -> Option<()> {
        let mut next = first_codes(lengths)?;
        self.main.fill(OTHER);
        self.further.clear();
        let mut long = Vec::new();
        for (symbol, length) in lengths.iter().enumerate() {
            let length = usize::from(*length);
            if length == 0 {
                continue;
            }
            let code = next[length].reverse_bits() >> (32 - length);
            let code = usize::try_from(code).ok()?;
            next[length] += 1;
            if Self::MAIN < length {
                long.push((code, length, meaning(symbol)));
                continue;
            }
            let entry = meaning(symbol) | u32::try_from(length).ok()?;
            self.main[code..].iter_mut().step_by(1 << length).for_each(|it| *it = entry);
        }
        self.build_further(&long)
    }

    /// Lets entries stand for several literals where all their bits are in the index: few symbols
    /// are looked up one by one then.
    fn join_literals(&mut self) {
        // Backwards: what is looked at lies before, and stands for one literal yet.
        for place in (0..N).rev() {
            let mut entry = self.main[place];
            while entry & LITERAL != 0 {
                let next = self.main[place >> (entry & BITS)];
                let bits = (entry & BITS) + (next & BITS);
                if next & LITERAL == 0 || Self::MAIN < bits as usize {
                    break;
                }
                entry = (entry & !BITS) + (1 << BASE) + bits;
            }
            self.main[place] = entry;
        }
    }

    fn build_further(&mut self, long: &[(usize, usize, u32)]) -> Option<()> {
        let mut bits = [0; N];
        for (code, length, _) in long {
            let first = code % N;
            bits[first] = bits[first].max(length - Self::MAIN);
        }
        for (code, length, meaning) in long {
            let (first, rest) = (code % N, length - Self::MAIN);
            if self.main[first] == OTHER {
                let place = u32::try_from(self.further.len()).ok()?;
                self.further.resize(self.further.len() + (1 << bits[first]), OTHER);
                let (here, more) =
                    (u32::try_from(Self::MAIN).ok()?, u32::try_from(bits[first]).ok()?);
                self.main[first] = OTHER | (place << BASE) | (more << EXTRA) | here;
            }
            let place = ((self.main[first] >> BASE) & BASE_MASK) as usize;
            let table = &mut self.further[place..place + (1 << bits[first])];
            let entry = meaning | u32::try_from(rest).ok()?;
            table[code / N..].iter_mut().step_by(1 << rest).for_each(|it| *it = entry);
        }
        Some(())
    }

    /// Follows an entry to the further table that it names; the end of a block stays what it is.
    fn further(&self, entry: u32, bits: &mut Bits<'_>) -> Option<u32> {
        if entry & END != 0 {
            return Some(entry);
        }
        let more = (entry >> EXTRA) & 0xf;
        if more == 0 {
            return None;
        }
        bits.consume(entry);
        let place = ((entry >> BASE) & BASE_MASK) as usize;
        let offset = bits.low(more);
        self.further.get(place + offset).copied()
    }
}

/// The first code of each length; none if there are more codes than fit.
fn first_codes(lengths: &[u8]) -> Option<[u32; LONGEST_CODE + 1]> {
    let mut counts = [0; LONGEST_CODE + 1];
    for length in lengths.iter().filter(|it| **it != 0) {
        *counts.get_mut(usize::from(*length))? += 1_u32;
    }
    let used: u32 = (1..=LONGEST_CODE).map(|it| counts[it] << (LONGEST_CODE - it)).sum();
    if 1 << LONGEST_CODE < used {
        return None;
    }
    let mut codes = [0; LONGEST_CODE + 1];
    for length in 2..=LONGEST_CODE {
        codes[length] = (codes[length - 1] + counts[length - 1]) << 1;
    }
    Some(codes)
}

/// The bits of a stream, the low ones of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    next: usize,
    buffer: u64,
    /// How many bits of `buffer` are not taken yet; what is above them is read again.
    count: u32,
}

impl Bits<'_> {
    /// Fills the buffer to at least 56 bits; none at the end of the margin.
    #[inline]
    fn refill(&mut self) -> Option<()> {
        let word = self.bytes.get(self.next..)?.first_chunk()?;
        self.buffer |= u64::from_le_bytes(*word) << self.count;
        self.next += ((63 - self.count) >> 3) as usize;
        self.count |= 0x38;
        Some(())
    }

    #[inline]
    fn peek<const N: usize>(&self) -> usize {
        self.low(N.trailing_zeros())
    }

    /// The next bits, which are few.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "13 bits at most")]
    fn low(&self, count: u32) -> usize {
        (self.buffer & ((1 << count) - 1)) as usize
    }

    /// Takes the code of an entry.
    #[inline]
    fn consume(&mut self, entry: u32) {
        self.buffer >>= entry & BITS;
        self.count -= entry & BITS;
    }

    /// Takes the code of an entry and its extra bits: the base with these added.
    #[inline]
    fn value(&mut self, entry: u32) -> u64 {
        self.consume(entry);
        u64::from((entry >> BASE) & BASE_MASK) + u64::from(self.take((entry >> EXTRA) & 0xf))
    }

    /// Takes up to 13 bits, which must be in the buffer.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "13 bits at most")]
    fn take(&mut self, count: u32) -> u32 {
        let value = self.low(count);
        self.buffer >>= count;
        self.count -= count;
        value as u32
    }

    /// How many bits were taken so far.
    fn position(&self) -> usize {
        self.next * 8 - self.count as usize
    }

    /// Goes over a stored block: the number of its bytes.
    fn skip_stored(&mut self) -> Option<u64> {
        let start = self.position().div_ceil(8);
        let [a, b, c, d] = *self.bytes.get(start..)?.first_chunk()?;
        let (length, check) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        if length != !check {
            return None;
        }
        *self = Self { next: start + 4 + usize::from(length), buffer: 0, count: 0, ..*self };
        Some(length.into())
    }
}
