//! What the words of EXPOSE mean once their variables are replaced.

use std::fmt;

use thiserror::Error;

/// The ports that one word of EXPOSE names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, which may be the same.
    pub last: u16,
    /// How they are spoken to.
    pub protocol: Protocol,
    /// The address or port of the host before `:`, which means nothing in an image.
    pub host: Option<String>,
}

/// How a port is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

/// Why a word is no port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// It is no number, or too large a one.
    #[error("`{text}` is not a port: ports are numbers from 0 to 65535")]
    Number {
        /// What is none.
        text: String,
    },
    /// The range ends before it begins.
    #[error("the ports `{first}-{last}` end before they begin")]
    Range {
        /// The first port.
        first: u16,
        /// The last.
        last: u16,
    },
    /// The protocol is unknown.
    #[error("`{text}` is not a protocol: it is `tcp`, `udp` or `sctp`")]
    Protocol {
        /// What was given.
        text: String,
    },
}

/// Reads `80`, `80/udp`, `8000-8010/tcp`.
pub fn parse(text: &str) -> Result<Ports, PortError> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(PortError::Protocol { text: protocol.to_owned() }),
    };
    let (host, ports) = match ports.rsplit_once(':') {
        Some((host, ports)) => (Some(host.to_owned()), ports),
        None => (None, ports),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(PortError::Range { first, last });
    }
    Ok(Ports { first, last, protocol, host })
}

fn number(text: &str) -> Result<u16, PortError> {
    let wrong = || PortError::Number { text: text.to_owned() };
    if !text.bytes().all(|it| it.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

impl Ports {
    /// Each port as an image's configuration has it: `80/tcp`.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        (self.first..=self.last).map(|it| format!("{it}/{}", self.protocol))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        for (text, want) in [
            ("80", "80/tcp"),
            ("080", "80/tcp"),
            ("80/", "80/tcp"),
            ("53/udp", "53/udp"),
            ("53/UDP", "53/udp"),
            ("9/sctp", "9/sctp"),
            ("0", "0/tcp"),
            ("65535", "65535/tcp"),
            ("80-82/udp", "80/udp 81/udp 82/udp"),
            ("80-80", "80/tcp"),
            ("8080:80", "80/tcp"),
            ("127.0.0.1:8080:80/udp", "80/udp"),
            ("65536", "`65536` is not a port: ports are numbers from 0 to 65535"),
            ("", "`` is not a port: ports are numbers from 0 to 65535"),
            ("+80", "`+80` is not a port: ports are numbers from 0 to 65535"),
            ("80-", "`` is not a port: ports are numbers from 0 to 65535"),
            ("80,81", "`80,81` is not a port: ports are numbers from 0 to 65535"),
            ("82-80", "the ports `82-80` end before they begin"),
            ("80/http", "`http` is not a protocol: it is `tcp`, `udp` or `sctp`"),
        ] {
            let got = match parse(text) {
                Ok(ports) => ports.names().collect::<Vec<_>>().join(" "),
                Err(err) => err.to_string(),
            };
            assert_eq!(got, want, "for `{text}`");
        }
        assert_eq!(parse("8080:80").unwrap().host.as_deref(), Some("8080"));
    }
}
