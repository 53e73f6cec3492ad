//! HTTP/1.1 as a server speaks it: many requests on one connection, bodies that are streamed both
//! ways, and the faults that a connection can have.
//!
//! **Architecture invariant:** no body is held in memory: a request's is read as its handler wants
//! it, and an answer's is read from its file as it is sent.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::fault::Trouble;

/// How much of a body that nobody wanted is read, so that the connection can be used again.
const LEFTOVER: u64 = 256 * 1024;
const LONGEST_LINE: u64 = 16 * 1024;
/// The first byte of a TLS connection (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// The head of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// The path, as it was sent.
    pub(super) path: String,
    /// The query as it was sent, without its question mark.
    pub(super) query: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The values of a parameter of the query, decoded.
    pub(super) fn parameters(&self, name: &str) -> impl Iterator<Item = String> {
        let pairs = self.query.split('&').map(|it| it.split_once('=').unwrap_or((it, "")));
        pairs.filter(move |(it, _)| *it == name).map(|(_, value)| decode(value))
    }

    /// The value of a parameter of the query, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }
}

/// A percent-decoded value of a query.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        let code = rest.get(..2).and_then(|it| str::from_utf8(it).ok());
        match (first, code.and_then(|it| u8::from_str_radix(it, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &rest[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Content,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// So many bytes of a file, from where it stands.
    File(File, u64),
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Content::Bytes(Vec::new()) }
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn body(self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { body: Content::Bytes(bytes.into()), ..self }.with("Content-Type", media_type)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn len(&self) -> u64 {
        match &self.body {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(_, size) => *size,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    reader: BufReader<TcpStream>,
}

/// The body of a request, to be read.
#[derive(Debug)]
pub(super) struct Body<'a> {
    wire: &'a mut Wire,
    framing: Framing,
    /// The client waits to be told to go on before it sends it.
    awaits: bool,
    trouble: Option<Trouble>,
    /// How many of its bytes were read.
    read: u64,
    /// Whether it ended before its end, and the connection with it.
    pub(super) is_broken: bool,
    counter: Arc<AtomicU64>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes are left of this chunk, and others follow.
    Chunk(u64),
    /// The last chunk was read.
    Done,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    /// The next request's head; nothing if the client has hung up between requests, or tries TLS
    /// before it tries without.
    pub(super) fn head(&mut self) -> io::Result<Option<Head>> {
        if self.reader.fill_buf()?.first() == Some(&TLS_HANDSHAKE) {
            return Ok(None);
        }
        let mut line = self.line()?;
        // An empty line before a request is allowed (RFC 9112, section 2.2).
        if line.as_deref() == Some("") {
            line = self.line()?;
        }
        let Some(line) = line else { return Ok(None) };
        let mut words = line.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(bad("a request without a target"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?.ok_or_else(|| bad("a head without an end"))?;
            if line.is_empty() {
                return Ok(Some(Head { method, path, query, headers }));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("a header without `:`"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The body that follows a head. What is read is counted in `counter`, too.
    pub(super) fn body(
        &mut self,
        head: &Head,
        trouble: Option<Trouble>,
        counter: &Arc<AtomicU64>,
    ) -> io::Result<Body<'_>> {
        let framing = match (head.header("transfer-encoding"), head.header("content-length")) {
            (Some(_), Some(_)) => return Err(bad("a length and chunks in one request")),
            (Some("chunked"), None) => Framing::Chunk(0),
            (Some(_), None) => return Err(bad("an unknown transfer encoding")),
            (None, Some(length)) => {
                Framing::Length(length.parse().map_err(|_| bad("a length that is no number"))?)
            }
            (None, None) => Framing::Length(0),
        };
        let awaits =
            head.header("expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue"));
        let awaits = awaits && framing != Framing::Length(0);
        let counter = Arc::clone(counter);
        Ok(Body { wire: self, framing, awaits, trouble, read: 0, is_broken: false, counter })
    }

    /// Sends an answer. How much of its body was sent.
    pub(super) fn send(
        &mut self,
        head: &Head,
        reply: Reply,
        trouble: Option<Trouble>,
        counter: &AtomicU64,
    ) -> io::Result<()> {
        let length = match trouble {
            Some(Trouble::LyingLength(by)) => reply.len().saturating_add_signed(by),
            Some(Trouble::Truncate(after)) => reply.len().min(after),
            _ => reply.len(),
        };
        let mut text = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
        let has_length = reply.header("content-length").is_some();
        if !has_length && reply.status != 204 {
            text.extend(["Content-Length: ", &length.to_string(), "\r\n"]);
        }
        for (name, value) in &reply.headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text += "\r\n";
        let stream = self.reader.get_mut();
        if head.method == "HEAD" {
            return stream.write_all(text.as_bytes());
        }
        match reply.body {
            Content::Bytes(bytes) => {
                let mut whole = text.into_bytes();
                let start = whole.len();
                whole.extend(bytes);
                let mut source = io::Cursor::new(whole);
                copy(&mut source, stream, start as u64, trouble, counter)
            }
            Content::File(file, size) => {
                let mut source = io::Cursor::new(text.as_bytes()).chain(file.take(size));
                copy(&mut source, stream, text.len() as u64, trouble, counter)
            }
        }
    }

    /// Ends the connection in a way that what was sent still arrives: a connection that is closed
    /// while something is unread is reset, and the client may then never see the answer.
    pub(super) fn close(&mut self) {
        let stream = self.reader.get_ref();
        drop(stream.shutdown(Shutdown::Write));
        drop(stream.set_read_timeout(Some(Duration::from_secs(5))));
        drop(io::copy(&mut self.reader.by_ref().take(1 << 30), &mut io::sink()));
    }

    /// Ends the connection at once.
    pub(super) fn cut(&mut self) {
        drop(self.reader.get_ref().shutdown(Shutdown::Both));
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        match self.reader.by_ref().take(LONGEST_LINE).read_line(&mut line)? {
            0 => Ok(None),
            _ if !line.ends_with('\n') => Err(bad("a line without an end")),
            _ => Ok(Some(line.trim_end().to_owned())),
        }
    }
}

impl Body<'_> {
    /// How long it is, if its head says it.
    pub(super) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunk(_) | Framing::Done => None,
        }
    }

    /// Reads what nobody wanted. Whether the next request can follow on this connection.
    pub(super) fn finish(mut self) -> bool {
        if self.awaits {
            // The client may send the body or not: where the next request begins is unknown.
            return false;
        }
        let left = io::copy(&mut self.by_ref().take(LEFTOVER), &mut io::sink());
        left.is_ok() && matches!(self.framing, Framing::Done | Framing::Length(0))
    }

    fn read_plain(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.awaits {
            self.awaits = false;
            self.wire.reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if self.framing == Framing::Chunk(0) {
            let line = self.wire.line()?.unwrap_or_default();
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size, 16).map_err(|_| bad("a chunk without a size"))?;
            self.framing = Framing::Chunk(size);
            if size == 0 {
                self.wire.line()?;
                self.framing = Framing::Done;
            }
        }
        let (Framing::Length(left) | Framing::Chunk(left)) = self.framing else { return Ok(0) };
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            // Reading nothing would wait for something to be buffered.
            return Ok(0);
        }
        let read = self.wire.reader.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = left - read as u64;
        match self.framing {
            Framing::Length(_) => self.framing = Framing::Length(left),
            Framing::Chunk(_) => {
                self.framing = Framing::Chunk(left);
                if left == 0 {
                    self.wire.line()?;
                }
            }
            Framing::Done => {}
        }
        Ok(read)
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_with_trouble(buffer);
        self.is_broken |= read.is_err();
        read
    }
}

impl Body<'_> {
    fn read_with_trouble(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = match self.trouble {
            Some(Trouble::Cut(after) | Trouble::Stall(after) | Trouble::Truncate(after)) => {
                after.saturating_sub(self.read)
            }
            _ => u64::MAX,
        };
        if limit == 0 && matches!(self.trouble, Some(Trouble::Truncate(_))) {
            while self.read_plain(buffer)? != 0 {}
            return Ok(0);
        }
        if limit == 0 {
            if let Some(Trouble::Stall(_)) = self.trouble {
                self.wire.stall_unread();
            }
            self.wire.cut();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let want = usize::try_from(limit).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.read_plain(&mut buffer[..want])?;
        match self.trouble {
            Some(Trouble::Corrupt(at)) => corrupt(&mut buffer[..read], self.read, at),
            Some(Trouble::Slow(pause)) => wait(pause),
            _ => {}
        }
        self.read += read as u64;
        self.counter.store(self.read, Ordering::Relaxed);
        Ok(read)
    }
}

impl Wire {
    /// Reads nothing more and waits until the client gives up: it sees a full window.
    fn stall_unread(&mut self) {
        let stream = self.reader.get_ref();
        let Ok(mut peek) = stream.try_clone() else { return };
        let step = Duration::from_millis(50);
        drop(peek.set_nonblocking(true));
        // A reset shows when something is written; an orderly end only once all is read.
        loop {
            wait(step);
            if is_hung_up(&mut peek) {
                break;
            }
        }
        drop(peek.set_nonblocking(false));
    }
}

/// Whether the peer has closed its side of the connection, though much may be unread.
fn is_hung_up(stream: &mut TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&none)).is_err() || fds[0].revents().intersects(gone)
}

/// Copies a head of so many bytes and a body, with what goes wrong after so many bytes of the body.
fn copy(
    source: &mut impl Read,
    stream: &mut TcpStream,
    head: u64,
    trouble: Option<Trouble>,
    counter: &AtomicU64,
) -> io::Result<()> {
    let end = match trouble {
        Some(Trouble::Cut(after) | Trouble::Stall(after) | Trouble::Truncate(after)) => {
            head + after
        }
        _ => u64::MAX,
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut sent = 0;
    while sent < end {
        let want = usize::try_from(end - sent).unwrap_or(usize::MAX).min(buffer.len());
        let read = source.read(&mut buffer[..want])?;
        if read == 0 {
            break;
        }
        match trouble {
            Some(Trouble::Corrupt(at)) => corrupt(&mut buffer[..read], sent, head + at),
            Some(Trouble::Slow(pause)) => wait(pause),
            _ => {}
        }
        sent += read as u64;
        // Before it is sent: who has seen the last byte may look at the count at once.
        counter.store(sent.saturating_sub(head), Ordering::Relaxed);
        stream.write_all(&buffer[..read])?;
    }
    match trouble {
        Some(Trouble::Stall(_)) => {
            drop(io::copy(stream, &mut io::sink()));
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Trouble::Cut(_) | Trouble::LyingLength(_)) => {
            drop(stream.shutdown(Shutdown::Both));
            Err(io::ErrorKind::ConnectionReset.into())
        }
        _ => Ok(()),
    }
}

/// Changes the byte at `at` of a stream, if it is in these bytes, which begin at `start`.
fn corrupt(bytes: &mut [u8], start: u64, at: u64) {
    let at = at.checked_sub(start).and_then(|it| usize::try_from(it).ok());
    if let Some(byte) = at.and_then(|it| bytes.get_mut(it)) {
        *byte ^= 1;
    }
}

#[expect(clippy::disallowed_methods, reason = "to be slow is what the test asked for")]
fn wait(pause: Duration) {
    thread::sleep(pause);
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        307 => "Temporary Redirect",
        400..=499 => "Client Error",
        500..=599 => "Server Error",
        _ => "-",
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = "digest=sha256%3Aab&from=a+b&scope=x&scope=y%2Fz&odd=%zz".to_owned();
        let head = Head { query, ..Head::default() };
        let scopes: Vec<_> = head.parameters("scope").collect();
        assert_eq!(head.parameter("digest").as_deref(), Some("sha256:ab"));
        assert_eq!(head.parameter("from").as_deref(), Some("a b"));
        assert_eq!(head.parameter("odd").as_deref(), Some("%zz"));
        assert_eq!(head.parameter("none"), None);
        assert_eq!(scopes, ["x", "y/z"]);
    }

    #[test]
    fn a_byte_is_changed_where_it_was_asked_for() {
        let mut bytes = *b"abcd";
        corrupt(&mut bytes, 10, 12);
        assert_eq!(&bytes, b"abbd");
        corrupt(&mut bytes, 10, 14);
        corrupt(&mut bytes, 10, 9);
        assert_eq!(&bytes, b"abbd");
    }
}
