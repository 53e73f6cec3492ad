//! What a build and its supervisor say to each other, over a pair of sockets.
//!
//! A request is one byte, a report is five: a kind and a number.

use std::{io, os::fd::AsFd};

use rustix::io::Errno;

/// What a build asks of its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Run the script.
    Run,
    /// End everything, and say so.
    Stop,
    /// Wait no longer for what does not end by itself.
    Kill,
    /// End everything, and exit. The end of the channel says the same.
    Quit,
}

/// What a supervisor tells its build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The shell of the command exited with this status.
    Exited(i32),
    /// The shell of the command was killed by this signal.
    Killed(i32),
    /// The shell cannot be started, for the reason that has this number.
    NotStarted(i32),
    /// Nothing of the build runs any more.
    Quiet,
}

const REQUESTS: [(u8, Request); 4] =
    [(b'r', Request::Run), (b's', Request::Stop), (b'k', Request::Kill), (b'q', Request::Quit)];

/// Says `request`.
pub(super) fn send(channel: impl AsFd, request: Request) -> io::Result<()> {
    let byte = REQUESTS.iter().find(|(_, it)| *it == request).map_or(b'q', |(byte, _)| *byte);
    write(channel, &[byte])
}

/// Waits for the next request; the end of the channel is [`Request::Quit`].
pub(super) fn receive(channel: impl AsFd) -> Request {
    let mut byte = [0];
    let request =
        read(channel, &mut byte).ok().and_then(|()| REQUESTS.iter().find(|(it, _)| *it == byte[0]));
    request.map_or(Request::Quit, |(_, request)| *request)
}

/// Says `report`.
pub(super) fn tell(channel: impl AsFd, report: Report) -> io::Result<()> {
    let (kind, number) = match report {
        Report::Exited(status) => (b'x', status),
        Report::Killed(signal) => (b'g', signal),
        Report::NotStarted(errno) => (b'n', errno),
        Report::Quiet => (b'q', 0),
    };
    let mut message = [kind, 0, 0, 0, 0];
    message[1..].copy_from_slice(&number.to_le_bytes());
    write(channel, &message)
}

/// Waits for the next report; none if the supervisor is gone.
pub(super) fn report(channel: impl AsFd) -> Option<Report> {
    let mut message = [0; 5];
    read(channel, &mut message).ok()?;
    let [kind, number @ ..] = message;
    let number = i32::from_le_bytes(number);
    match kind {
        b'x' => Some(Report::Exited(number)),
        b'g' => Some(Report::Killed(number)),
        b'n' => Some(Report::NotStarted(number)),
        b'q' => Some(Report::Quiet),
        _ => None,
    }
}

fn write(channel: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&channel, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn read(channel: impl AsFd, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::read(&channel, &mut *bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_said_is_heard_and_the_end_is_an_end() {
        let (here, there) = UnixStream::pair().unwrap();
        for request in [Request::Run, Request::Stop, Request::Kill, Request::Quit] {
            send(&here, request).unwrap();
            assert_eq!(receive(&there), request);
        }
        let reports =
            [Report::Exited(255), Report::Killed(9), Report::NotStarted(2), Report::Quiet];
        for it in reports {
            tell(&there, it).unwrap();
            assert_eq!(report(&here), Some(it));
        }
        drop(here);
        assert_eq!(receive(&there), Request::Quit);
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        assert_eq!(report(&here), None);
    }
}
