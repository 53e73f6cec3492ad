//! Content digests, the only names by which blobs are known.
//!
//! **Architecture invariant:** a [`Digest`] that exists is valid: parsing and hashing are the
//! only ways to make one, so nobody checks it again.

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The SHA-256 of some content (OCI image spec, `descriptor.md`, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// What is known of a blob, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why some text is not a digest.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum DigestError {
    /// The text names no algorithm, or one other than sha256.
    #[error("digest `{0}` does not start with `sha256:`")]
    Algorithm(String),
    /// The text after the colon is not a SHA-256 in lower-case hex.
    #[error("digest `{0}` does not end in 64 lower-case hex digits")]
    Hex(String),
}

/// Passes bytes on to another writer and remembers their digest and number.
#[derive(Debug)]
pub struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

/// Passes bytes on from another reader; content that is not what it should be is an error at its
/// end (or as soon as it is too long), so that nobody can forget to check.
#[derive(Debug)]
pub struct Verifying<R> {
    inner: R,
    hasher: Sha256,
    left: u64,
    expected: Digest,
    verified: bool,
}

/// What [`Verifying`] found; the source of the [`io::Error`] that it gives.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// There is more content than there should be.
    #[error("content of {0} is longer than it should be")]
    TooLong(Digest),
    /// The content ended early.
    #[error("content of {expected} ends {missing} bytes early")]
    TooShort {
        /// The digest that was asked for.
        expected: Digest,
        /// Bytes that are missing.
        missing: u64,
    },
    /// It is other content.
    #[error("content has digest {found} in place of {expected}")]
    Other {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what was read.
        found: Digest,
    },
}

/// Makes a digest of several values, each framed by its length, so that no two lists of values
/// are taken for each other.
#[derive(Clone, Debug)]
pub struct Framed(Sha256);

impl Digest {
    /// Hashes bytes that are already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digits, without the algorithm.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
        text
    }

    /// Parses 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The digest with these bytes, which someone made of a digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(DigestError::Algorithm(text.to_owned()));
        };
        Self::from_hex(hex).ok_or_else(|| DigestError::Hex(text.to_owned()))
    }
}

impl<W> Hashing<W> {
    /// Starts with nothing hashed.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    /// Gives back the inner writer, with the digest and the number of bytes that went to it.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hasher.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R> Verifying<R> {
    /// Expects `size` bytes of the content `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        Self { inner, hasher: Sha256::new(), left: size, expected, verified: false }
    }

    fn verify(&mut self) -> Result<(), VerifyError> {
        let expected = self.expected;
        if self.left != 0 {
            return Err(VerifyError::TooShort { expected, missing: self.left });
        }
        let found = Digest(self.hasher.clone().finalize().into());
        if found != expected {
            return Err(VerifyError::Other { expected, found });
        }
        self.verified = true;
        Ok(())
    }
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if self.left < count as u64 {
            let error = VerifyError::TooLong(self.expected);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        self.left -= count as u64;
        self.hasher.update(&buffer[..count]);
        // The last bytes are not handed over before they are known to be right, so that a reader
        // that stops at the size it expects is protected too.
        if (count == 0 || self.left == 0) && !self.verified {
            self.verify().map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
        }
        Ok(count)
    }
}

impl Framed {
    /// Starts a digest for one `purpose`, which is part of it.
    pub fn new(purpose: &str) -> Self {
        Self(Sha256::new()).with(purpose)
    }

    /// Adds one value.
    #[must_use]
    pub fn with(mut self, value: impl AsRef<[u8]>) -> Self {
        self.add(value);
        self
    }

    /// Adds one value.
    pub fn add(&mut self, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.0.update((value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    /// The digest of all values.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn only_a_digest_is_a_digest() {
        for (text, want) in [
            (HELLO, Ok(HELLO.to_owned())),
            ("abc", Err(DigestError::Algorithm("abc".into()))),
            ("md5:abc", Err(DigestError::Algorithm("md5:abc".into()))),
            ("sha256:AB", Err(DigestError::Hex("sha256:AB".into()))),
        ] {
            assert_eq!(text.parse().map(|it: Digest| it.to_string()), want, "for `{text}`");
        }
        let upper = HELLO.to_uppercase().replace("SHA256", "sha256");
        assert_eq!(upper.parse::<Digest>(), Err(DigestError::Hex(upper)));
    }

    #[test]
    fn hashing_bytes_and_hashing_a_stream_agree() {
        let mut writer = Hashing::new(Vec::new());
        writer.write_all(b"he").unwrap();
        writer.write_all(b"llo").unwrap();
        let (bytes, digest, size) = writer.finish();
        assert_eq!(
            (bytes.as_slice(), digest, size),
            (b"hello".as_slice(), Digest::of(b"hello"), 5)
        );
    }

    #[test]
    fn only_the_right_content_is_read_to_its_end() {
        let hello = Digest::of(b"hello");
        for (content, size, want) in [
            ("hello", 5, Ok(5)),
            ("hello!", 5, Err(VerifyError::TooLong(hello))),
            ("hell", 5, Err(VerifyError::TooShort { expected: hello, missing: 1 })),
            ("hallo", 5, Err(VerifyError::Other { expected: hello, found: Digest::of(b"hallo") })),
        ] {
            let mut reader = Verifying::new(content.as_bytes(), hello, size);
            let got = io::copy(&mut reader, &mut io::sink())
                .map_err(|err| *err.into_inner().unwrap().downcast::<VerifyError>().unwrap());
            assert_eq!(got, want, "for `{content}`");
        }
    }

    #[test]
    fn empty_content_is_verified() {
        let mut reader = Verifying::new(io::empty(), Digest::of(b""), 0);
        assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), 0);
        let mut reader = Verifying::new(io::empty(), Digest::of(b"a"), 0);
        assert!(io::copy(&mut reader, &mut io::sink()).is_err());
    }

    #[test]
    fn framed_values_do_not_run_together() {
        let one = Framed::new("k").with("ab").with("c").finish();
        let other = Framed::new("k").with("a").with("bc").finish();
        assert_ne!(one, other);
    }
}
