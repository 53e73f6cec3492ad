//! Blobs that go: whole, in part, or from a storage on another host.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
};

use super::{
    Shared,
    problem::Problem,
    quirk::Quirk,
    state::is_digest,
    wire::{Content, Head, Reply},
};

type Outcome = Result<Reply, Problem>;

/// GET and HEAD.
pub(super) fn give(shared: &Shared, name: &str, digest: &str, head: &Head) -> Outcome {
    let state = shared.state();
    if !is_digest(digest) {
        return Err(Problem::bad_digest(format!("`{digest}` is no digest")));
    }
    if !state.repository(name)?.blobs.contains(digest) {
        return Err(Problem::no_blob(digest));
    }
    if head.method == "GET" && state.has(Quirk::RedirectsBlobs) {
        let storage = shared.storage_host();
        let url = format!("http://{storage}/storage/{digest}?X-Amz-Signature=made-up");
        return Ok(Reply::new(307).with("Location", url));
    }
    drop(state);
    content(shared, digest, head)
}

/// GET at the storage, where a signature in the query says who may.
pub(super) fn stored(shared: &Shared, digest: &str, head: &Head) -> Outcome {
    if head.header("authorization").is_some() {
        shared.state().accuse("credentials were sent on to the storage");
        let message = "Only one auth mechanism allowed";
        return Err(Problem::new(400, "InvalidArgument", message));
    }
    if head.parameter("X-Amz-Signature").as_deref() != Some("made-up") {
        return Err(Problem::new(403, "AccessDenied", "Access Denied"));
    }
    content(shared, digest, head)
}

fn content(shared: &Shared, digest: &str, head: &Head) -> Outcome {
    let mut file = File::open(shared.blob(digest)).map_err(|_| Problem::no_blob(digest))?;
    let size = file.metadata().map_err(|err| Problem::cut(&err))?.len();
    let reply = |status| {
        Reply::new(status)
            .with("Docker-Content-Digest", digest)
            .with("ETag", format!("\"{digest}\""))
            .with("Accept-Ranges", "bytes")
            .with("Content-Type", "application/octet-stream")
    };
    let is_same = head.header("if-range").is_none_or(|it| it.trim_matches('"') == digest);
    let wanted = head.header("range").filter(|_| is_same && head.method == "GET");
    match wanted.map(|it| range(it, size)) {
        None | Some(Range::All) => Ok(Reply { body: Content::File(file, size), ..reply(200) }),
        Some(Range::Nothing) => {
            let problem = Problem::new(416, "BLOB_UNKNOWN", "there are no such bytes");
            Err(problem.with("Content-Range", format!("bytes */{size}")))
        }
        Some(Range::Part(start, end)) => {
            file.seek(SeekFrom::Start(start)).map_err(|err| Problem::cut(&err))?;
            let body = Content::File(file, end - start + 1);
            let reply = reply(206).with("Content-Range", format!("bytes {start}-{end}/{size}"));
            Ok(Reply { body, ..reply })
        }
    }
}

/// DELETE.
pub(super) fn remove(shared: &Shared, name: &str, digest: &str) -> Outcome {
    let mut state = shared.state();
    state.repository(name)?;
    let is_gone = state.writable(name)?.blobs.remove(digest);
    if is_gone { Ok(Reply::new(202)) } else { Err(Problem::no_blob(digest)) }
}

/// What of a file is wanted: the first and the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    All,
    Part(u64, u64),
    Nothing,
}

/// Reads a `Range` (RFC 9110, section 14.2). What cannot be read counts as not there.
fn range(text: &str, size: u64) -> Range {
    let Some((start, end)) = text.strip_prefix("bytes=").and_then(|it| it.split_once('-')) else {
        return Range::All;
    };
    let number = |it: &str| it.trim().parse::<u64>().ok();
    let (start, end) = match (number(start), number(end)) {
        (Some(start), Some(end)) if start <= end => (start, end),
        (Some(start), None) if end.is_empty() => (start, u64::MAX),
        (None, Some(0)) if start.is_empty() => return Range::Nothing,
        (None, Some(last)) if start.is_empty() => (size.saturating_sub(last), u64::MAX),
        _ => return Range::All,
    };
    if size <= start {
        return Range::Nothing;
    }
    Range::Part(start, end.min(size - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, want) in [
            ("bytes=0-0", Range::Part(0, 0)),
            ("bytes=2-", Range::Part(2, 9)),
            ("bytes=2-99", Range::Part(2, 9)),
            ("bytes=-3", Range::Part(7, 9)),
            ("bytes=-99", Range::Part(0, 9)),
            ("bytes=-0", Range::Nothing),
            ("bytes=10-", Range::Nothing),
            ("bytes=5-2", Range::All),
            ("bytes=0-1,3-4", Range::All),
            ("lines=1-2", Range::All),
        ] {
            assert_eq!(range(text, 10), want, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Range::Nothing);
    }
}
