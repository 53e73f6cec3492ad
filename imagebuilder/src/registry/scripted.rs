//! A registry for tests that says what it is told to say, on loopback, and remembers what it was
//! asked. A request that is not in its script is answered with 599, which nothing expects.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// What was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// `GET /v2/`, with the query.
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The length that is announced, if it is not the body's; none closes the connection in place
    /// of an announcement.
    announced: Option<usize>,
    /// Answers before the body of the request is read: first the head, and then the rest.
    hasty: bool,
}

#[derive(Default)]
struct Script {
    said: HashMap<String, VecDeque<Said>>,
    asked: Vec<Asked>,
}

/// A server that lives as long as the test.
pub(crate) struct Scripted {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

pub(crate) fn say(status: u16, body: impl AsRef<[u8]>) -> Said {
    let body = body.as_ref().to_vec();
    Said { status, headers: Vec::new(), announced: Some(body.len()), body, hasty: false }
}

impl Said {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn announced(mut self, length: usize) -> Self {
        self.announced = Some(length);
        self
    }

    pub(crate) fn unannounced(mut self) -> Self {
        self.announced = None;
        self
    }

    pub(crate) fn hasty(mut self) -> Self {
        self.hasty = true;
        self
    }
}

impl Scripted {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = script.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(connection.unwrap(), &shared));
            }
        });
        Self { address, script }
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Adds answers to one request (`GET /v2/x?y`, or `GET /v2/x?y [Basic …]`), given one after
    /// the other.
    pub(crate) fn on(&self, line: &str, said: impl IntoIterator<Item = Said>) -> &Self {
        let mut script = self.script.lock().unwrap();
        script.said.entry(line.into()).or_default().extend(said);
        self
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// What was asked, a line each, with the authorization that was sent.
    pub(crate) fn log(&self) -> String {
        self.asked().iter().map(|it| it.shown() + "\n").collect()
    }
}

impl Asked {
    /// The line, with the authorization that was sent.
    fn shown(&self) -> String {
        match self.headers.get("authorization") {
            Some(authorization) => format!("{} [{authorization}]", self.line),
            None => self.line.clone(),
        }
    }
}

impl Script {
    /// An answer to just this authorization goes before one to any.
    fn next(&mut self, asked: &Asked) -> Said {
        let mut take = |key: &str| self.said.get_mut(key).and_then(VecDeque::pop_front);
        let said = take(&asked.shown()).or_else(|| take(&asked.line));
        said.unwrap_or_else(|| say(599, "not in the script"))
    }
}

fn serve(connection: TcpStream, script: &Mutex<Script>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    // A client that goes away is its own business.
    let _ = exchange(&mut reader, connection, script);
}

fn exchange(
    reader: &mut BufReader<TcpStream>,
    mut connection: TcpStream,
    script: &Mutex<Script>,
) -> io::Result<()> {
    let mut asked = read_head(reader)?;
    let said = script.lock().unwrap().next(&asked);
    if !said.hasty {
        read_body(reader, &mut asked)?;
    }
    let is_head = asked.line.starts_with("HEAD ");
    script.lock().unwrap().asked.push(asked);
    write!(connection, "HTTP/1.1 {} Said\r\nconnection: close\r\n", said.status)?;
    for (name, value) in said
        .announced
        .map(|it| ("content-length".into(), it.to_string()))
        .iter()
        .chain(&said.headers)
    {
        write!(connection, "{name}: {value}\r\n")?;
    }
    connection.write_all(b"\r\n")?;
    if said.hasty {
        // Until the client sends no more, whether it waits for the rest or has gone away.
        connection.set_read_timeout(Some(Duration::from_millis(20)))?;
        let _ = io::copy(reader, &mut io::sink());
        connection.set_read_timeout(None)?;
    }
    if !is_head {
        connection.write_all(&said.body)?;
    }
    connection.shutdown(Shutdown::Write)?;
    // Closed with unread bytes, the connection would be reset, and the answer lost.
    io::copy(reader, &mut io::sink())?;
    Ok(())
}

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut asked = Asked { line: line.replace(" HTTP/1.1\r\n", ""), ..Asked::default() };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            return Ok(asked);
        };
        asked.headers.insert(name.to_lowercase(), value.into());
    }
}

/// A body that ends before it says so is no request: the connection is closed.
fn read_body(reader: &mut BufReader<TcpStream>, asked: &mut Asked) -> io::Result<()> {
    if !asked.headers.contains_key("transfer-encoding") {
        let length = asked.headers.get("content-length").map_or(0, |it| it.parse().unwrap());
        reader.take(length).read_to_end(&mut asked.body)?;
        return Ok(());
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        reader.take(size).read_to_end(&mut asked.body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(());
        }
    }
}
