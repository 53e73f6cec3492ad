//! A small HTTP/1.1 server for what a test makes up, and a client for one GET.
//!
//! **Architecture invariant:** it listens on the loopback interface only, on a port that the kernel
//! chose, and answers one request a connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

/// A request, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The query, without its question mark.
    pub query: String,
    /// The headers: names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, if it was sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A whole answer: status, headers, body.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes as they are, and then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, ever.
    Silence,
}

impl Answer {
    /// An answer of this status with a body and no headers of its own.
    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Whole(status, Vec::new(), body.into())
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Whole(_, headers, _) = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// Answers requests on threads of its own until the test process ends; returns the port.
pub fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
    let port = listener.local_addr().expect("the port").port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let answer = Arc::clone(&answer);
            // A client that goes away in the middle is its own affair, and often the test's point.
            thread::spawn(move || drop(converse(stream, &*answer)));
        }
    });
    port
}

/// What a server answered, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers: names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header, if it was sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// The status and body that a server on this machine answers to a GET of `path`.
pub fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let answer = fetch(port, path, &[])?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

/// What a server on this machine answers to a GET of `path` with these headers.
pub fn fetch(port: u16, path: &str, sent: &[(&str, &str)]) -> io::Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n")?;
    for (name, value) in sent {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    let mut reader = BufReader::new(stream);
    let line = line(&mut reader)?;
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or_else(bad)?;
    let headers = headers(&mut reader)?;
    let body = body(&mut reader, &headers, End::Connection)?;
    Ok(Response { status, headers, body })
}

fn converse(stream: TcpStream, answer: &impl Fn(&Request) -> Answer) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = request(&mut reader)?;
    match answer(&request) {
        Answer::Whole(status, headers, body) => {
            send(&stream, status, &headers, &body, &request.method)?;
        }
        Answer::Raw(bytes) => (&stream).write_all(&bytes)?,
        Answer::Silence => drop(reader.read_to_end(&mut Vec::new())),
    }
    stream.shutdown(Shutdown::Both)
}

fn send(
    mut stream: &TcpStream,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
    method: &str,
) -> io::Result<()> {
    let mut head = Vec::new();
    write!(head, "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())?;
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    head.extend(b"\r\n");
    stream.write_all(&head)?;
    stream.write_all(if method == "HEAD" { &[] } else { body })
}

fn request(reader: &mut impl BufRead) -> io::Result<Request> {
    let line = line(reader)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(bad()) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = headers(reader)?;
    let body = body(reader, &headers, End::Now)?;
    let (method, path, query) = (method.into(), path.into(), query.into());
    Ok(Request { method, path, query, headers, body })
}

fn headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Where a body ends that says nothing of its length.
enum End {
    Now,
    Connection,
}

fn body(reader: &mut impl BufRead, headers: &[(String, String)], end: End) -> io::Result<Vec<u8>> {
    let header = |name| headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
    if header("transfer-encoding") == Some("chunked") {
        return chunks(reader);
    }
    let mut body = Vec::new();
    match (header("content-length"), end) {
        (Some(length), _) => {
            body.resize(length.parse().map_err(|_| bad())?, 0);
            reader.read_exact(&mut body)?;
        }
        (None, End::Connection) => drop(reader.read_to_end(&mut body)?),
        (None, End::Now) => {}
    }
    Ok(body)
}

fn chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(&line(reader)?, 16).map_err(|_| bad())?;
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..])?;
        line(reader)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

fn bad() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered() {
        let port = serve(|request| Answer::of(200, format!("{}?{}", request.path, request.query)));
        assert_eq!(get(port, "/a/b?c=d").unwrap(), (200, "/a/b?c=d".into()));
    }

    #[test]
    fn a_body_in_chunks_is_read() {
        let text = b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(request(&mut &text[..]).unwrap().body, b"abcde");
    }
}
