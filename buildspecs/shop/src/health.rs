//! The self-check: a container without a shell has no `curl` to ask with.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the server on this machine for `/health`.
pub(crate) fn check(port: u16) -> Result<(), String> {
    let answer = ask(port).map_err(|error| format!("port {port}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.0 200 ") {
        return Ok(());
    }
    Err(format!("port {port}: {}", answer.lines().next().unwrap_or("no answer")))
}

fn ask(port: u16) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request with a text.
    fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn only_a_200_is_healthy() {
        assert_eq!(check(server("HTTP/1.1 200 OK\r\n\r\n{}")), Ok(()));
        let port = server("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert_eq!(check(port), Err(format!("port {port}: HTTP/1.1 503 Service Unavailable")));
        let port = server("");
        assert_eq!(check(port), Err(format!("port {port}: no answer")));
    }
}
