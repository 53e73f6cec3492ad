//! What goes wrong with a registry when a test says so.

use std::time::Duration;

use super::wire::{Head, Reply};

/// Something that goes wrong with some requests. It is used up by them.
#[derive(Clone, Debug)]
pub struct Fault {
    method: String,
    path: String,
    skip: usize,
    times: usize,
    trouble: Trouble,
}

/// What goes wrong. Numbers of bytes are counted in the request's body where it has one, else in
/// the answer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The answer has this status, headers and text, and nothing is done.
    Status(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// The connection ends after so many bytes.
    Cut(u64),
    /// Nothing more happens after so many bytes, until the client hangs up.
    Stall(u64),
    /// An answer's body is so short, and its head says so; a request's is kept so short.
    Truncate(u64),
    /// The byte at this place is changed.
    Corrupt(u64),
    /// This pause is made for every 64 KiB or less.
    Slow(Duration),
    /// The answer names another digest.
    WrongDigest,
    /// The answer's `Content-Length` is wrong by so much, and the connection ends after it.
    LyingLength(i64),
    /// Everything is done, but the connection ends before the answer.
    Mute,
}

impl Fault {
    /// Goes wrong once: the next request with this method whose path and query contain `part`.
    pub fn new(method: &str, part: &str, trouble: Trouble) -> Self {
        Self { method: method.to_owned(), path: part.to_owned(), skip: 0, times: 1, trouble }
    }

    /// Goes wrong with so many requests in place of one.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Goes wrong only after so many such requests went well.
    #[must_use]
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// Whether it is for this method alone.
    pub fn is_for_method(&self, method: &str) -> bool {
        self.method == method
    }

    pub(super) fn left(&self) -> usize {
        self.times
    }

    fn is_for(&self, head: &Head) -> bool {
        let target = format!("{}?{}", head.path, head.query);
        (self.method == "*" || self.method == head.method) && target.contains(&self.path)
    }
}

impl Trouble {
    /// A status that passes, with a text as ECR would give it.
    pub fn status(status: u16) -> Self {
        match status {
            429 => Self::Status(429, Vec::new(), TOO_MANY),
            503 => Self::Status(503, Vec::new(), "<html>Service Unavailable</html>"),
            status => Self::Status(status, Vec::new(), "something went wrong"),
        }
    }

    /// Too many requests, and how many seconds to wait.
    pub fn retry_after(seconds: &'static str) -> Self {
        Self::Status(429, vec![("Retry-After", seconds)], TOO_MANY)
    }
}

const TOO_MANY: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;

/// What goes wrong with this request, if something does.
pub(super) fn strike(faults: &mut [Fault], head: &Head) -> Option<Trouble> {
    for fault in faults.iter_mut().filter(|it| 0 < it.times && it.is_for(head)) {
        if 0 < fault.skip {
            fault.skip -= 1;
        } else {
            fault.times -= 1;
            return Some(fault.trouble.clone());
        }
    }
    None
}

/// The answer that takes the place of all others.
pub(super) fn refusal(trouble: Option<&Trouble>) -> Option<Reply> {
    let Some(Trouble::Status(status, headers, text)) = trouble else { return None };
    let kind = if text.starts_with('{') { "application/json" } else { "text/plain" };
    let reply = Reply::new(*status).body(kind, *text);
    Some(headers.iter().fold(reply, |reply, (name, value)| reply.with(name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up_by_the_requests_that_it_is_for() {
        let head = |method: &str, path: &str| Head {
            method: method.into(),
            path: path.into(),
            ..Head::default()
        };
        let mut faults = [Fault::new("GET", "/blobs/", Trouble::Mute).after(1).times(2)];
        let mut strike = |method, path| strike(&mut faults, &head(method, path)).is_some();
        let asked = [("GET", "/x/blobs/1"), ("HEAD", "/x/blobs/1"), ("GET", "/x/manifests/1")];
        assert_eq!(asked.map(|(method, path)| strike(method, path)), [false; 3]);
        assert_eq!([0; 3].map(|_| strike("GET", "/x/blobs/2")), [true, true, false]);
    }
}
