//! Blobs that come: in one request, in parts, or from another repository.
//!
//! See the OCI distribution specification, section "Push". Where it leaves a choice, this registry
//! takes the stricter one.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
};

use sha2::{Digest as _, Sha256};

use super::{
    Shared,
    problem::Problem,
    quirk::Quirk,
    state::{Incoming, Upload, is_digest},
    wire::{Body, Head, Reply},
};

/// What ECR wants of all parts but the last.
const SMALLEST_PART: u64 = 5 * 1024 * 1024;

type Outcome = Result<Reply, Problem>;

/// POST: begins an upload, unless all is done at once.
pub(super) fn begin(shared: &Shared, name: &str, head: &Head, body: &mut Body<'_>) -> Outcome {
    shared.state().writable(name)?;
    if let Some(digest) = head.parameter("mount") {
        let from = head.parameter("from");
        if !is_digest(&digest) {
            return Err(Problem::bad_digest(format!("`{digest}` is no digest")));
        }
        if mount(shared, name, &digest, from.as_deref()) {
            return Ok(created(shared, head, name, &digest));
        }
    }
    let id = new_upload(shared, name).map_err(|err| Problem::cut(&err))?;
    let digest = head.parameter("digest");
    let single = digest.filter(|_| !shared.state().has(Quirk::NoSinglePost));
    if let Some(digest) = single {
        return finish(shared, head, name, &id, &digest, body);
    }
    Ok(shared.accepted(head, name, &id, 202))
}

/// Whether a blob of another repository now is one of this, too.
fn mount(shared: &Shared, name: &str, digest: &str, from: Option<&str>) -> bool {
    let mut state = shared.state();
    let Some(source) = from.and_then(|it| state.repositories.get(it)) else { return false };
    let is_allowed = !state.has(Quirk::NoMount)
        && (source.references(digest) || !state.has(Quirk::MountsReferenced));
    if !is_allowed || !source.blobs.contains(digest) {
        return false;
    }
    let Ok(target) = state.writable(name) else { return false };
    target.blobs.insert(digest.to_owned());
    true
}

fn new_upload(shared: &Shared, name: &str) -> io::Result<String> {
    let mut state = shared.state();
    let number = state.next();
    let id = format!("{number:08x}-0000-4000-8000-000000000000");
    let path = shared.folder("uploads").join(&id);
    let file = File::create_new(&path)?;
    let content = Some(Incoming { file, hash: Sha256::new(), size: 0 });
    let repository = name.to_owned();
    let upload = Upload { repository, path, state: number, parts: Vec::new(), content };
    state.uploads.insert(id.clone(), upload);
    Ok(id)
}

/// GET: how far an upload is.
pub(super) fn status(shared: &Shared, name: &str, id: &str, head: &Head) -> Outcome {
    enter(shared, name, id, None)?;
    Ok(shared.accepted(head, name, id, 204))
}

/// DELETE: an upload that is not wanted any more.
pub(super) fn cancel(shared: &Shared, name: &str, id: &str) -> Outcome {
    enter(shared, name, id, None)?;
    let mut state = shared.state();
    let upload = state.uploads.remove(id).ok_or_else(Problem::no_upload)?;
    drop(fs::remove_file(upload.path));
    Ok(Reply::new(204))
}

/// PATCH: some bytes of an upload.
pub(super) fn part(
    shared: &Shared,
    name: &str,
    id: &str,
    head: &Head,
    body: &mut Body<'_>,
) -> Outcome {
    enter(shared, name, id, Some(head))?;
    let mut content = take(shared, id)?;
    let before = content.size;
    let is_lost = {
        let state = shared.state();
        let has_parts = state.uploads.get(id).is_some_and(|it| !it.parts.is_empty());
        state.has(Quirk::LosesLaterParts) && has_parts
    };
    let received = match check_range(shared, head, body, before) {
        Ok(()) if is_lost => io::copy(body, &mut io::sink()).map(|_| ()),
        Ok(()) => receive(&mut content, body),
        Err(problem) => {
            give_back(shared, id, content);
            let accepted = shared.accepted(head, name, id, 416);
            let keep = |reply: Problem, header: &'static str| match accepted.header(header) {
                Some(value) => reply.with(header, value),
                None => reply,
            };
            return Err(["Location", "Range"].into_iter().fold(problem, keep));
        }
    };
    let size = content.size - before;
    give_back(shared, id, content);
    received.map_err(|err| Problem::cut(&err))?;
    let mut state = shared.state();
    let status = if state.has(Quirk::PatchCreated) { 201 } else { 202 };
    let number = state.next();
    if let Some(upload) = state.uploads.get_mut(id) {
        upload.parts.push(size);
        upload.state = number;
    }
    drop(state);
    Ok(shared.accepted(head, name, id, status))
}

/// A part that says where it belongs has to belong there, and to be as long as it says.
fn check_range(shared: &Shared, head: &Head, body: &Body<'_>, size: u64) -> Result<(), Problem> {
    let Some(text) = head.header("content-range") else { return Ok(()) };
    let invalid = |what: String| {
        shared.state().accuse(format!("PATCH with Content-Range `{text}`: {what}"));
        Problem::new(400, "SIZE_INVALID", what)
    };
    let numbers = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let Some((start, end)) = numbers else { return Err(invalid("no range".into())) };
    let (start, end): (u64, u64) = (start, end);
    match body.length() {
        None => return Err(invalid("a range needs a Content-Length".into())),
        Some(length) if end.checked_sub(start).map(|it| it + 1) != Some(length) => {
            return Err(invalid(format!("the length is {length}")));
        }
        Some(_) => {}
    }
    if start == size {
        return Ok(());
    }
    Err(Problem::new(416, "BLOB_UPLOAD_INVALID", format!("{size} bytes are there, not {start}")))
}

/// PUT: the rest of an upload, and its digest.
pub(super) fn complete(
    shared: &Shared,
    name: &str,
    id: &str,
    head: &Head,
    body: &mut Body<'_>,
) -> Outcome {
    enter(shared, name, id, Some(head))?;
    let Some(digest) = head.parameter("digest") else {
        shared.state().accuse("PUT of an upload without a digest");
        return Err(Problem::bad_digest("the digest is missing"));
    };
    finish(shared, head, name, id, &digest, body)
}

fn finish(
    shared: &Shared,
    head: &Head,
    name: &str,
    id: &str,
    digest: &str,
    body: &mut Body<'_>,
) -> Outcome {
    if !is_digest(digest) {
        return Err(Problem::bad_digest(format!("`{digest}` is no digest")));
    }
    let mut content = take(shared, id)?;
    let before = content.size;
    let received = receive(&mut content, body);
    let (found, last) = (content.digest(), content.size - before);
    give_back(shared, id, content);
    received.map_err(|err| Problem::cut(&err))?;
    let mut state = shared.state();
    let upload = state.uploads.remove(id).ok_or_else(Problem::no_upload)?;
    let result = check_parts(&upload.parts, last)
        .filter(|_| state.has(Quirk::LargeParts))
        .map_or(Ok(()), Err)
        .and_then(|()| check_digest(digest, &found));
    if let Err(problem) = result {
        drop(fs::remove_file(upload.path));
        return Err(problem);
    }
    fs::rename(&upload.path, shared.blob(digest)).map_err(|err| Problem::cut(&err))?;
    state.writable(name)?.blobs.insert(digest.to_owned());
    drop(state);
    Ok(created(shared, head, name, digest))
}

fn check_digest(digest: &str, found: &str) -> Result<(), Problem> {
    if digest == found {
        return Ok(());
    }
    Err(Problem::bad_digest(format!("provided digest {digest} did not match content {found}")))
}

/// What ECR says of parts that are too small, if they are.
fn check_parts(parts: &[u64], last: u64) -> Option<Problem> {
    let but_last = if last == 0 { parts.split_last()?.1 } else { parts };
    let is_small = but_last.iter().any(|it| *it < SMALLEST_PART);
    let message = "All layer parts except the last part should be at least 5MB \
                   (LayerPartTooSmallException)";
    is_small.then(|| Problem::new(400, "BLOB_UPLOAD_INVALID", message))
}

/// Checks that there is such an upload, and (of a request that changes it) that the client uses
/// the location that it was given last.
fn enter(shared: &Shared, name: &str, id: &str, head: Option<&Head>) -> Result<(), Problem> {
    let mut state = shared.state();
    let known = state.uploads.get(id).filter(|it| it.repository == name).map(|it| it.state);
    let Some(expected) = known else { return Err(Problem::no_upload()) };
    let Some(head) = head else { return Ok(()) };
    if head.parameter("_state").as_deref() != Some(&*expected.to_string()) {
        state.accuse(format!(
            "{} to a location that was not given last: {}",
            head.method, head.path
        ));
        return Err(Problem::new(400, "BLOB_UPLOAD_INVALID", "this is not where the upload is"));
    }
    Ok(())
}

/// The content of an upload, which nobody else has until it is given back.
fn take(shared: &Shared, id: &str) -> Result<Incoming, Problem> {
    let mut state = shared.state();
    let upload = state.uploads.get_mut(id).ok_or_else(Problem::no_upload)?;
    let content = upload.content.take();
    if content.is_none() {
        state.accuse(format!("two requests to upload {id} at once"));
    }
    content.ok_or_else(|| Problem::new(400, "BLOB_UPLOAD_INVALID", "the upload is in use"))
}

fn give_back(shared: &Shared, id: &str, content: Incoming) {
    if let Some(upload) = shared.state().uploads.get_mut(id) {
        upload.content = Some(content);
    }
}

fn receive(content: &mut Incoming, body: &mut Body<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        content.file.write_all(&buffer[..read])?;
        content.hash.update(&buffer[..read]);
        content.size += read as u64;
    }
}

/// A blob is there now.
fn created(shared: &Shared, head: &Head, name: &str, digest: &str) -> Reply {
    let location = shared.location(head, &format!("/v2/{name}/blobs/{digest}"));
    Reply::new(201).with("Location", location).with("Docker-Content-Digest", digest)
}

impl Shared {
    /// Where an upload goes on, and how far it is.
    fn accepted(&self, head: &Head, name: &str, id: &str, status: u16) -> Reply {
        let state = self.state();
        let upload = state.uploads.get(id);
        let number = upload.map_or(0, |it| it.state);
        let size = upload.map_or(0, |it| match (state.has(Quirk::StuckRange), it.parts.first()) {
            (true, Some(first)) => *first,
            _ => it.content.as_ref().map_or(0, |it| it.size),
        });
        drop(state);
        let path = format!("/v2/{name}/blobs/uploads/{id}?_state={number}");
        Reply::new(status)
            .with("Location", self.location(head, &path))
            .with("Docker-Upload-UUID", id)
            .with("Range", format!("0-{}", size.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_but_the_last_have_to_be_large() {
        let (small, large) = (SMALLEST_PART - 1, SMALLEST_PART);
        for (parts, last, want) in [
            (&[][..], 1, true),
            (&[small], 0, true),
            (&[small], 1, false),
            (&[large, small], 0, true),
            (&[large, large], 1, true),
            (&[small, large], 0, false),
            (&[large, small, large], 0, false),
        ] {
            assert_eq!(check_parts(parts, last).is_none(), want, "{parts:?} and {last}");
        }
    }
}
