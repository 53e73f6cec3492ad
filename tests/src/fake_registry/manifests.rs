//! Manifests, tags, and what refers to a manifest.
//!
//! See the OCI distribution specification, sections "Pulling manifests", "Pushing Manifests",
//! "Listing Tags" and "Listing Referrers".

use std::io::Read;

use serde_json::{Value, json};

use super::{
    Shared,
    problem::Problem,
    quirk::Quirk,
    state::{Manifest, Repository, blobs_of, is_digest},
    wire::{Body, Head, Reply},
};

/// What registries allow at most (ECR: 4,194,304 bytes).
pub(super) const LARGEST: usize = 4 * 1024 * 1024;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TAGS_AT_ONCE: usize = 1000;

type Outcome = Result<Reply, Problem>;

/// GET and HEAD: by tag or digest.
pub(super) fn give(shared: &Shared, repository: &str, name: &str, head: &Head) -> Outcome {
    let state = shared.state();
    let found = state.repository(repository)?;
    let digest = found.resolve(name).ok_or_else(|| Problem::no_manifest(name))?;
    let Manifest { media_type, bytes, .. } = found.manifests[digest].clone();
    if !state.has(Quirk::IgnoresAccept) && !accepts(head, &media_type) {
        let message = format!("the manifest is {media_type}, which the client does not accept");
        return Err(Problem::new(404, "MANIFEST_UNKNOWN", message));
    }
    let reply = Reply::new(200).with("Docker-Content-Digest", digest);
    Ok(reply.with("ETag", format!("\"{digest}\"")).body(&media_type, bytes))
}

/// Whether the client takes this kind of manifest. One that says nothing takes everything.
fn accepts(head: &Head, media_type: &str) -> bool {
    let mut accepts = head.headers.iter().filter(|(name, _)| name == "accept").peekable();
    if accepts.peek().is_none() {
        return true;
    }
    let kinds = accepts.flat_map(|(_, value)| value.split(','));
    let mut kinds = kinds.map(|it| it.split(';').next().unwrap_or_default().trim());
    kinds.any(|it| it == media_type || it == "*/*" || it == "application/*")
}

/// PUT: under a tag or its digest.
pub(super) fn put(
    shared: &Shared,
    repository: &str,
    name: &str,
    head: &Head,
    body: &mut Body<'_>,
) -> Outcome {
    let mut bytes = Vec::new();
    let limited = body.take(LARGEST as u64 + 1).read_to_end(&mut bytes);
    limited.map_err(|err| Problem::cut(&err))?;
    if LARGEST < bytes.len() {
        let message = format!("a manifest has {LARGEST} bytes at most");
        return Err(Problem::new(413, "SIZE_INVALID", message));
    }
    let digest = super::digest_of(&bytes);
    if name.contains(':') && name != digest {
        return Err(Problem::bad_digest(format!("the manifest is {digest}")));
    }
    let manifest = parse(shared, bytes, head)?;
    let mut state = shared.state();
    let children_first = state.has(Quirk::ChildrenFirst);
    let is_immutable = state.has(Quirk::ImmutableTags);
    let has_referrers = !state.has(Quirk::NoReferrers);
    let target = state.writable(repository)?;
    check_blobs(shared, target, &manifest.value)?;
    if children_first {
        check_children(target, &manifest.value)?;
    }
    let subject = manifest.value["subject"]["digest"].as_str().map(str::to_owned);
    if !is_digest(name) {
        if !is_tag(name) {
            return Err(Problem::new(400, "TAG_INVALID", format!("`{name}` is no tag")));
        }
        let stays = target.tags.get(name).is_some_and(|it| *it != digest);
        if is_immutable && stays {
            return Err(immutable(repository, name));
        }
        target.tags.insert(name.to_owned(), digest.clone());
    }
    target.manifests.insert(digest.clone(), manifest);
    drop(state);
    let location = shared.location(head, &format!("/v2/{repository}/manifests/{digest}"));
    let reply = Reply::new(201).with("Location", location).with("Docker-Content-Digest", &digest);
    Ok(match subject.filter(|_| has_referrers) {
        Some(subject) => reply.with("OCI-Subject", subject),
        None => reply,
    })
}

/// ECR's words (`ImageTagAlreadyExistsException`), which clients look for.
fn immutable(repository: &str, tag: &str) -> Problem {
    let message = format!(
        "The image tag '{tag}' already exists in the '{repository}' repository and cannot be \
         overwritten because the tag is immutable."
    );
    Problem::new(400, "TAG_INVALID", message)
}

fn parse(shared: &Shared, bytes: Vec<u8>, head: &Head) -> Result<Manifest, Problem> {
    let media_type = head.header("content-type").unwrap_or_default().to_owned();
    if media_type.is_empty() {
        shared.state().accuse("PUT of a manifest without a Content-Type");
        return Err(Problem::bad_manifest("the Content-Type is missing"));
    }
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|err| Problem::bad_manifest(format!("the manifest is no JSON: {err}")))?;
    if value["schemaVersion"] != 2 {
        return Err(Problem::bad_manifest("the schemaVersion is not 2"));
    }
    if value.get("mediaType").is_some_and(|it| *it != media_type) {
        return Err(Problem::bad_manifest("mediaType and Content-Type differ"));
    }
    let parts = ["layers", "manifests"].map(|it| value[it].is_array());
    if parts == [false, false] || (parts[0] && !value["config"].is_object()) {
        return Err(Problem::bad_manifest("this is neither an image nor an index"));
    }
    Ok(Manifest { media_type, bytes, value })
}

/// What a manifest names has to be here, and as large as it says.
fn check_blobs(shared: &Shared, target: &Repository, manifest: &Value) -> Result<(), Problem> {
    for blob in blobs_of(manifest) {
        let digest = blob["digest"].as_str().unwrap_or_default();
        if !target.blobs.contains(digest) {
            let message = format!("blob {digest} is not there (LayersNotFoundException)");
            return Err(Problem::new(400, "MANIFEST_BLOB_UNKNOWN", message));
        }
        let size = shared.blob(digest).metadata().map(|it| it.len()).ok();
        if size != blob["size"].as_u64() {
            let message = format!("blob {digest} has another size");
            return Err(Problem::bad_manifest(message));
        }
    }
    Ok(())
}

fn check_children(target: &Repository, index: &Value) -> Result<(), Problem> {
    for child in index["manifests"].as_array().into_iter().flatten() {
        let digest = child["digest"].as_str().unwrap_or_default();
        if !target.manifests.contains_key(digest) {
            let message =
                format!("image {digest} is not there (ReferencedImagesNotFoundException)");
            return Err(Problem::new(400, "MANIFEST_BLOB_UNKNOWN", message));
        }
    }
    Ok(())
}

/// Letters, digits, and (not at the start) dots and dashes; 128 at most.
fn is_tag(text: &str) -> bool {
    let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let is_part = |it: char| is_word(it) || it == '.' || it == '-';
    (1..=128).contains(&text.len()) && text.starts_with(is_word) && text.chars().all(is_part)
}

/// DELETE: a tag, or a manifest with all its tags.
pub(super) fn remove(shared: &Shared, repository: &str, name: &str) -> Outcome {
    let mut state = shared.state();
    let digest = state.repository(repository)?.resolve(name).map(str::to_owned);
    let digest = digest.ok_or_else(|| Problem::no_manifest(name))?;
    let target = state.writable(repository)?;
    if is_digest(name) {
        target.manifests.remove(&digest);
        target.tags.retain(|_, it| *it != digest);
    } else {
        target.tags.remove(name);
    }
    Ok(Reply::new(202))
}

/// GET of `tags/list`, page by page.
pub(super) fn tags(shared: &Shared, repository: &str, head: &Head) -> Outcome {
    let state = shared.state();
    let names = &state.repository(repository)?.tags;
    let number = head.parameter("n").map(|it| it.parse::<usize>());
    let invalid = || Problem::new(400, "PAGINATION_NUMBER_INVALID", "`n` is no such number");
    let number = number.transpose().map_err(|_| invalid())?;
    let short = state.has(Quirk::ShortPages);
    if short && number.is_some_and(|it| TAGS_AT_ONCE < it) {
        return Err(invalid());
    }
    let limit = number.unwrap_or(if short { TAGS_AT_ONCE } else { usize::MAX });
    let last = head.parameter("last").unwrap_or_default();
    let mut rest = names.keys().filter(|it| **it > last);
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let body = json!({"name": repository, "tags": page}).to_string();
    let reply = Reply::new(200).body("application/json", body);
    Ok(match (rest.next(), page.last()) {
        (Some(_), Some(last)) => {
            let next = format!("</v2/{repository}/tags/list?n={limit}&last={last}>; rel=\"next\"");
            reply.with("Link", next)
        }
        _ => reply,
    })
}

/// GET of `referrers/DIGEST`: the manifests whose subject it is.
pub(super) fn referrers(shared: &Shared, repository: &str, digest: &str, head: &Head) -> Outcome {
    let state = shared.state();
    if state.has(Quirk::NoReferrers) {
        return Err(Problem::unsupported());
    }
    if !is_digest(digest) {
        return Err(Problem::bad_digest(format!("`{digest}` is no digest")));
    }
    let wanted = head.parameter("artifactType");
    let all = state.repository(repository)?.manifests.iter();
    let referring = all.filter(|(_, it)| it.value["subject"]["digest"] == digest);
    let described = referring.map(|(digest, it)| descriptor(digest, it));
    let is_wanted = |it: &Value| wanted.as_deref().is_none_or(|kind| it["artifactType"] == kind);
    let manifests: Vec<_> = described.filter(is_wanted).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let reply = Reply::new(200).body(INDEX, index.to_string());
    Ok(match wanted {
        Some(_) => reply.with("OCI-Filters-Applied", "artifactType"),
        None => reply,
    })
}

fn descriptor(digest: &str, manifest: &Manifest) -> Value {
    let Manifest { media_type, bytes, value } = manifest;
    let own = value.get("artifactType").cloned();
    let kind = own.unwrap_or_else(|| value["config"]["mediaType"].clone());
    let size = bytes.len();
    let mut found =
        json!({"mediaType": media_type, "digest": digest, "size": size, "artifactType": kind});
    if let Some(annotations) = value.get("annotations") {
        found["annotations"] = annotations.clone();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_only_what_they_accept() {
        let check = |accept: &[&str], want: bool| {
            let header = |it: &&str| ("accept".to_owned(), (*it).to_owned());
            let headers = accept.iter().map(header).collect();
            let head = Head { headers, ..Head::default() };
            assert_eq!(accepts(&head, INDEX), want, "{accept:?}");
        };
        check(&[], true);
        check(&["*/*"], true);
        check(&["application/json"], false);
        check(&["application/json, application/vnd.oci.image.index.v1+json;q=0.5"], true);
        check(&["application/json", INDEX], true);
    }

    #[test]
    fn tags_are_words() {
        for (tag, want) in [("1", true), ("v1.0-rc_2", true), ("", false), (".a", false)] {
            assert_eq!(is_tag(tag), want, "{tag}");
        }
        assert!(is_tag(&"a".repeat(128)) && !is_tag(&"a".repeat(129)));
    }
}
