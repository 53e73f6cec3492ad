//! What a build and its supervisor say to each other: requests and reports over a pair of sockets,
//! and what commands are started with over a pipe.
//!
//! A request is one byte, a report is five: a kind and a number. An order is one byte, and what
//! that byte says there is.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::AsFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
};

use rustix::io::Errno;

use crate::shell::user::Identity;

/// What a build asks of its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// End everything, say so, and go on.
    Reset,
    /// End everything that someone asked to stop, and say so.
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

/// How the script is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// By whom, if not by who runs rbuild.
    pub(super) identity: Option<Identity>,
    /// The terminal that it gets, if it gets one.
    pub(super) terminal: Option<PathBuf>,
    /// Its variables, `NAME=value` and a NUL each; none if they are those of the order before.
    pub(super) variables: Option<Vec<u8>>,
}

const REQUESTS: [(u8, Request); 4] =
    [(b'r', Request::Reset), (b's', Request::Stop), (b'k', Request::Kill), (b'q', Request::Quit)];

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

const WITH_IDENTITY: u8 = 1;
const WITH_TERMINAL: u8 = 2;
const WITH_VARIABLES: u8 = 4;

/// Gives an order.
pub(super) fn order(pipe: impl AsFd, order: &Order) -> io::Result<()> {
    let mut message = vec![0];
    if let Some(Identity { uid, gid, groups }) = &order.identity {
        message[0] |= WITH_IDENTITY;
        for number in [*uid, *gid, length(groups)?].iter().chain(groups) {
            message.extend(number.to_le_bytes());
        }
    }
    if let Some(terminal) = &order.terminal {
        message[0] |= WITH_TERMINAL;
        let terminal = terminal.as_os_str().as_bytes();
        message.extend(length(terminal)?.to_le_bytes());
        message.extend(terminal);
    }
    if let Some(variables) = &order.variables {
        message[0] |= WITH_VARIABLES;
        message.extend(length(variables)?.to_le_bytes());
        message.extend(variables);
    }
    write(pipe, &message)
}

fn length<T>(items: &[T]) -> io::Result<u32> {
    u32::try_from(items.len()).map_err(io::Error::other)
}

/// Waits for an order; none if nobody can give one any more.
pub(super) fn take_order(pipe: impl AsFd) -> Option<Order> {
    let mut kind = [0];
    read(&pipe, &mut kind).ok()?;
    let number = || {
        let mut bytes = [0; 4];
        read(&pipe, &mut bytes).ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let bytes = || {
        let mut bytes = vec![0; usize::try_from(number()?).ok()?];
        read(&pipe, &mut bytes).ok()?;
        Some(bytes)
    };
    let mut order = Order::default();
    if kind[0] & WITH_IDENTITY != 0 {
        let (uid, gid, count) = (number()?, number()?, number()?);
        let groups = (0..count).map(|_| number()).collect::<Option<Vec<u32>>>()?;
        order.identity = Some(Identity { uid, gid, groups });
    }
    if kind[0] & WITH_TERMINAL != 0 {
        order.terminal = Some(OsString::from_vec(bytes()?).into());
    }
    if kind[0] & WITH_VARIABLES != 0 {
        order.variables = Some(bytes()?);
    }
    Some(order)
}

/// Writes all of `bytes`.
pub(super) fn write(channel: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
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
        for request in [Request::Reset, Request::Stop, Request::Kill, Request::Quit] {
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

    #[test]
    fn orders_arrive_as_they_were_given() {
        let (there, here) = io::pipe().unwrap();
        let identity = Some(Identity { uid: 1000, gid: u32::MAX, groups: vec![1, 70_000] });
        let terminal = Some(PathBuf::from("/dev/pts/3"));
        for it in [
            Order::default(),
            Order { identity: identity.clone(), ..Order::default() },
            Order { terminal: terminal.clone(), ..Order::default() },
            Order { variables: Some(Vec::new()), ..Order::default() },
            Order { identity, terminal, variables: Some(b"A=1\0B=\0".into()) },
        ] {
            order(&here, &it).unwrap();
            assert_eq!(take_order(&there), Some(it));
        }
        drop(here);
        assert_eq!(take_order(&there), None);
    }
}
