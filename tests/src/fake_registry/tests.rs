//! The registry as a client sees it that does exactly what a test says, right or wrong.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MIB: usize = 1024 * 1024;

/// An answer, read whole.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(it, _)| it == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One connection that stays open.
struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn to(host: &str) -> Self {
        let stream = TcpStream::connect(host).expect("a registry that listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let length = format!("Content-Length: {}", body.len());
        let headers = [headers, &[&length]].concat();
        self.send(method, path, &headers, body);
        self.answer(method)
    }

    fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) {
        let headers = headers.join("\r\n");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: fake.test\r\n{headers}\r\n\r\n");
        let stream = self.reader.get_mut();
        stream.write_all(&[head.as_bytes(), body].concat()).expect("a request that is sent");
    }

    fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).expect("an answer")
    }

    fn try_answer(&mut self, method: &str) -> io::Result<Answer> {
        let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let status = self.line()?.split(' ').nth(1).and_then(|it| it.parse().ok());
        let status = status.ok_or_else(broken)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = headers.iter().find(|(it, _)| it == "content-length");
        let length = length.map_or(0, |(_, it)| it.parse().expect("a number"));
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.reader.read_exact(&mut body)?;
        Ok(Answer { status, headers, body })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Uploads a blob in parts; the answers to all requests after the first.
    fn upload(&mut self, repository: &str, parts: &[&[u8]], digest: &str) -> Vec<Answer> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.ask("POST", &path, &[], b"");
        assert_eq!(begun.status, 202, "{begun:?}");
        let mut location = path_of(begun.header("location"));
        let mut answers = Vec::new();
        for part in parts {
            let answer = self.ask("PATCH", &location, &[], part);
            location = path_of(answer.header("location"));
            answers.push(answer);
        }
        answers.push(self.ask("PUT", &format!("{location}&digest={digest}"), &[], b""));
        answers
    }

    fn put_manifest(&mut self, path: &str, media_type: &str, manifest: &Value) -> Answer {
        let kind = format!("Content-Type: {media_type}");
        self.ask("PUT", path, &[&kind], manifest.to_string().as_bytes())
    }
}

fn path_of(location: &str) -> String {
    location.trim_start_matches("http://fake.test").to_owned()
}

fn connect(registry: &FakeRegistry) -> Connection {
    Connection::to(&registry.host())
}

/// A registry that is open and has these quirks, and a connection to it.
fn with(quirks: impl IntoIterator<Item = Quirk>) -> (FakeRegistry, Connection) {
    let registry = FakeRegistry::with(Settings::with(quirks));
    let connection = connect(&registry);
    (registry, connection)
}

/// A manifest whose only blob is its config.
fn manifest_of(registry: &FakeRegistry, repository: &str, config: &str) -> Value {
    let digest = registry.put_blob(repository, config.as_bytes());
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest,
        "size": config.len(),
    });
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []})
}

#[test]
fn a_blob_comes_in_every_way_that_the_specification_has() {
    let (registry, mut connection) = with([]);
    let digest = digest_of(b"abcdef");
    let answers = connection.upload("parts", &[b"abc", b"def"], &digest);
    let statuses: Vec<_> = answers.iter().map(|it| it.status).collect();
    assert_eq!(statuses, [202, 202, 201]);
    let ranges: Vec<_> = answers[..2].iter().map(|it| it.header("range")).collect();
    assert_eq!(ranges, ["0-2", "0-5"]);
    assert_eq!(answers[2].header("docker-content-digest"), digest);

    let path = format!("/v2/single/blobs/uploads/?digest={digest}");
    assert_eq!(connection.ask("POST", &path, &[], b"abcdef").status, 201);

    let begun = connection.ask("POST", "/v2/whole/blobs/uploads/", &[], b"");
    let location = format!("{}&digest={digest}", begun.header("location"));
    assert_eq!(connection.ask("PUT", &location, &[], b"abcdef").status, 201);

    let begun = connection.ask("POST", "/v2/stream/blobs/uploads/", &[], b"");
    let chunks = b"3\r\nabc\r\n3;x=y\r\ndef\r\n0\r\n\r\n";
    connection.send("PATCH", begun.header("location"), &["Transfer-Encoding: chunked"], chunks);
    let sent = connection.answer("PATCH");
    let location = format!("{}&digest={digest}", sent.header("location"));
    assert_eq!(connection.ask("PUT", &location, &[], b"").status, 201);

    let path = format!("/v2/mounted/blobs/uploads/?mount={digest}&from=parts");
    assert_eq!(connection.ask("POST", &path, &[], b"").status, 201);
    for repository in ["parts", "single", "whole", "stream", "mounted"] {
        let path = format!("/v2/{repository}/blobs/{digest}");
        assert_eq!(connection.ask("GET", &path, &[], b"").body, b"abcdef", "{repository}");
    }
    registry.assert_is_whole();
    registry.assert_was_asked_rightly();
    let first = registry.requests("parts").remove(0);
    assert_eq!(first, "POST /v2/parts/blobs/uploads/ 202");
}

#[test]
fn a_client_that_waits_for_it_is_told_to_go_on() {
    let (_registry, mut connection) = with([]);
    let begun = connection.ask("POST", "/v2/x/blobs/uploads/", &[], b"");
    let headers = ["Expect: 100-continue", "Content-Length: 3"];
    connection.send("PATCH", begun.header("location"), &headers, b"");
    assert_eq!(connection.answer("PATCH").status, 100);
    connection.reader.get_mut().write_all(b"abc").unwrap();
    assert_eq!(connection.answer("PATCH").header("range"), "0-2");
}

#[test]
fn an_upload_can_be_asked_for_continued_and_given_up() {
    let (registry, mut connection) = with([]);
    let begun = connection.ask("POST", "/v2/x/blobs/uploads/", &[], b"");
    let part = connection.ask("PATCH", begun.header("location"), &["Content-Range: 0-2"], b"abc");
    let at = part.header("location");
    let wrong = connection.ask("PATCH", at, &["Content-Range: 5-7"], b"fgh");
    assert_eq!((wrong.status, wrong.header("range")), (416, "0-2"));
    assert_eq!(connection.ask("GET", at, &[], b"").status, 204);
    let part = connection.ask("PATCH", at, &["Content-Range: 3-5"], b"def");
    assert_eq!(part.header("range"), "0-5");
    registry.assert_was_asked_rightly();
    assert_eq!(connection.ask("DELETE", part.header("location"), &[], b"").status, 204);
    let gone = connection.ask("PATCH", part.header("location"), &[], b"x");
    assert_eq!((gone.status, &*gone.code()), (404, "BLOB_UPLOAD_UNKNOWN"));
}

#[test]
fn what_a_client_must_not_do_is_refused_and_remembered() {
    let digest = digest_of(b"abc");
    let check = |query: &str, headers: &[&str], method: &str, want: (u16, &str)| {
        let (registry, mut connection) = with([]);
        let begun = connection.ask("POST", "/v2/x/blobs/uploads/", &[], b"");
        let path = begun.header("location").split_once('?').unwrap().0.to_owned();
        let state = begun.header("location").split_once('=').unwrap().1.to_owned();
        let query = query.replace("STATE", &format!("_state={state}"));
        let answer = connection.ask(method, &format!("{path}?{query}"), headers, b"abc");
        assert_eq!((answer.status, &*answer.code()), want, "{method} {query} {headers:?}");
        assert_eq!(registry.shared.state().violations.len(), 1, "{method} {query} {headers:?}");
    };
    check("STATE", &[], "PUT", (400, "DIGEST_INVALID"));
    check(&format!("digest={digest}"), &[], "PUT", (400, "BLOB_UPLOAD_INVALID"));
    check("STATE", &["Content-Range: 0-7"], "PATCH", (400, "SIZE_INVALID"));
    check("STATE", &["Content-Range: bytes 0-2/3"], "PATCH", (400, "SIZE_INVALID"));
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let (registry, mut connection) = with([]);
    let answers = connection.upload("x", &[b"abc"], &digest_of(b"abd"));
    assert_eq!((answers[1].status, &*answers[1].code()), (400, "DIGEST_INVALID"));
    let answers = connection.upload("x", &[b"abc"], "sha256:abc");
    assert_eq!((answers[1].status, &*answers[1].code()), (400, "DIGEST_INVALID"));
    assert!(registry.blobs("x").is_empty());
}

#[test]
fn a_blob_goes_whole_or_in_part() {
    let (registry, mut connection) = with([]);
    let digest = registry.put_blob("x", b"abcdef");
    let path = format!("/v2/x/blobs/{digest}");
    let head = connection.ask("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, "6"));
    let part = connection.ask("GET", &path, &["Range: bytes=2-"], b"");
    assert_eq!((part.status, &*part.body), (206, &b"cdef"[..]));
    assert_eq!(part.header("content-range"), "bytes 2-5/6");
    let none = connection.ask("GET", &path, &["Range: bytes=6-"], b"");
    assert_eq!((none.status, none.header("content-range")), (416, "bytes */6"));
    let changed = connection.ask("GET", &path, &["Range: bytes=2-", "If-Range: \"x\""], b"");
    assert_eq!((changed.status, &*changed.body), (200, &b"abcdef"[..]));
    assert_eq!(connection.ask("DELETE", &path, &[], b"").status, 202);
    let gone = connection.ask("GET", &path, &[], b"");
    assert_eq!((gone.status, &*gone.code()), (404, "BLOB_UNKNOWN"));
}

#[test]
fn a_manifest_comes_and_goes_by_tag_and_digest() {
    let (registry, mut connection) = with([]);
    let manifest = manifest_of(&registry, "x", "{}");
    let digest = digest_of(manifest.to_string().as_bytes());
    let put = connection.put_manifest("/v2/x/manifests/1", MANIFEST, &manifest);
    assert_eq!((put.status, put.header("docker-content-digest")), (201, &*digest));
    for name in ["1", &digest] {
        let path = format!("/v2/x/manifests/{name}");
        let got = connection.ask("GET", &path, &[&format!("Accept: {MANIFEST}")], b"");
        assert_eq!((got.status, got.header("content-type")), (200, MANIFEST));
        assert_eq!(got.body, manifest.to_string().as_bytes());
        let head = connection.ask("HEAD", &path, &[], b"");
        assert_eq!(head.header("content-length"), manifest.to_string().len().to_string());
        let other = connection.ask("GET", &path, &[&format!("Accept: {INDEX}")], b"");
        assert_eq!((other.status, &*other.code()), (404, "MANIFEST_UNKNOWN"));
    }
    assert_eq!(connection.ask("DELETE", "/v2/x/manifests/1", &[], b"").status, 202);
    let path = format!("/v2/x/manifests/{digest}");
    assert_eq!(connection.ask("GET", "/v2/x/manifests/1", &[], b"").status, 404);
    assert_eq!(connection.ask("GET", &path, &[], b"").status, 200);
    assert_eq!(connection.ask("DELETE", &path, &[], b"").status, 202);
    assert_eq!(connection.ask("GET", &path, &[], b"").status, 404);
}

#[test]
fn a_manifest_that_is_not_right_is_refused() {
    let (registry, mut connection) = with([]);
    let right = manifest_of(&registry, "x", "{}");
    let mut check = |change: &[(&str, Value)], name: &str, want: (u16, &str)| {
        let mut manifest = right.clone();
        for (pointer, value) in change {
            *manifest.pointer_mut(pointer).unwrap() = value.clone();
        }
        let path = format!("/v2/x/manifests/{name}");
        let put = connection.put_manifest(&path, MANIFEST, &manifest);
        assert_eq!((put.status, &*put.code()), want, "{manifest}");
    };
    let digest = digest_of(b"x");
    check(&[("/schemaVersion", json!(1))], "1", (400, "MANIFEST_INVALID"));
    check(&[("/mediaType", json!(INDEX))], "1", (400, "MANIFEST_INVALID"));
    check(&[("/layers", json!(7))], "1", (400, "MANIFEST_INVALID"));
    check(&[("/config/size", json!(7))], "1", (400, "MANIFEST_INVALID"));
    check(&[("/config/digest", json!(digest))], "1", (400, "MANIFEST_BLOB_UNKNOWN"));
    check(&[], &digest, (400, "DIGEST_INVALID"));
    check(&[], "-1", (400, "TAG_INVALID"));
    let large = vec![b' '; manifests::LARGEST + 1];
    let kind = format!("Content-Type: {MANIFEST}");
    let put = connection.ask("PUT", "/v2/x/manifests/1", &[&kind], &large);
    assert_eq!((put.status, &*put.code()), (413, "SIZE_INVALID"));
    assert!(registry.tags("x").is_empty());
}

#[test]
fn tags_are_listed_page_by_page() {
    let (registry, mut connection) = with([Quirk::ShortPages]);
    for tag in ["b", "a", "c"] {
        registry.put_manifest("x", tag, MANIFEST, b"{}");
    }
    let first = connection.ask("GET", "/v2/x/tags/list?n=2", &[], b"");
    assert_eq!(first.json(), json!({"name": "x", "tags": ["a", "b"]}));
    assert_eq!(first.header("link"), "</v2/x/tags/list?n=2&last=b>; rel=\"next\"");
    let second = connection.ask("GET", "/v2/x/tags/list?n=2&last=b", &[], b"");
    assert_eq!(second.json()["tags"], json!(["c"]));
    assert!(second.headers.iter().all(|(name, _)| name != "link"));
    assert_eq!(connection.ask("GET", "/v2/x/tags/list?n=1001", &[], b"").status, 400);
    assert_eq!(connection.ask("GET", "/v2/y/tags/list", &[], b"").code(), "NAME_UNKNOWN");
}

#[test]
fn what_refers_to_a_manifest_is_listed_by_kind() {
    let (registry, mut connection) = with([]);
    let subject = digest_of(b"subject");
    for (tag, kind) in [("1", "application/a"), ("2", "application/b")] {
        let mut manifest = manifest_of(&registry, "x", "{}");
        manifest["artifactType"] = json!(kind);
        manifest["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 7});
        let put = connection.put_manifest(&format!("/v2/x/manifests/{tag}"), MANIFEST, &manifest);
        assert_eq!(put.header("oci-subject"), subject);
    }
    let path = format!("/v2/x/referrers/{subject}");
    let all = connection.ask("GET", &path, &[], b"");
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let some = connection.ask("GET", &format!("{path}?artifactType=application/a"), &[], b"");
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
    assert_eq!(some.json()["manifests"][0]["artifactType"], "application/a");
    assert_eq!(some.json()["manifests"].as_array().unwrap().len(), 1);
    registry.becomes(Quirk::NoReferrers);
    assert_eq!(connection.ask("GET", &path, &[], b"").status, 405);
}

#[test]
fn ecr_is_said_to_take_parts_so() {
    let (registry, mut connection) = with(Quirk::ECR);
    registry.create_repository("x");
    let (large, small) = (vec![7; 5 * MIB], vec![7; 5 * MIB - 1]);
    let digest = digest_of(&[&*large, b"abc"].concat());
    let answers = connection.upload("x", &[&large, b"abc"], &digest);
    let statuses: Vec<_> = answers.iter().map(|it| it.status).collect();
    assert_eq!(statuses, [201, 201, 201]);
    let ranges: Vec<_> = answers[..2].iter().map(|it| it.header("range")).collect();
    assert_eq!(ranges, ["0-5242879"; 2], "it is stuck");
    let digest_of_small = digest_of(&[&*small, b"abc"].concat());
    let answers = connection.upload("x", &[&small, b"abc"], &digest_of_small);
    let text = String::from_utf8_lossy(&answers[2].body).into_owned();
    assert!(answers[2].status == 400 && text.contains("LayerPartTooSmall"), "{text}");
    registry.becomes(Quirk::LosesLaterParts);
    let answers = connection.upload("x", &[&large, b"abc"], &digest);
    assert_eq!(answers[2].code(), "DIGEST_INVALID");
}

#[test]
fn ecr_mounts_what_a_manifest_of_the_source_names() {
    let (registry, mut connection) = with([Quirk::MountsReferenced]);
    let loose = registry.put_blob("source", b"loose");
    let named = digest_of(b"{}");
    let manifest = manifest_of(&registry, "source", "{}");
    connection.put_manifest("/v2/source/manifests/1", MANIFEST, &manifest);
    let mut mount = |digest: &str| {
        let path = format!("/v2/target/blobs/uploads/?mount={digest}&from=source");
        connection.ask("POST", &path, &[], b"").status
    };
    assert_eq!([mount(&loose), mount(&named), mount(&digest_of(b"x"))], [202, 201, 202]);
    registry.becomes(Quirk::NoMount);
    assert_eq!(mount(&named), 202);
}

#[test]
fn ecr_keeps_tags_where_they_are_and_wants_children_first() {
    let (registry, mut connection) = with([Quirk::ImmutableTags, Quirk::ChildrenFirst]);
    let (one, two) = (manifest_of(&registry, "x", "{}"), manifest_of(&registry, "x", "{ }"));
    let index = |of: &Value| {
        let digest = digest_of(of.to_string().as_bytes());
        let child = json!({"mediaType": MANIFEST, "digest": digest, "size": of.to_string().len()});
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]})
    };
    let mut put = |tag: &str, kind: &str, manifest: &Value| {
        let answer = connection.put_manifest(&format!("/v2/x/manifests/{tag}"), kind, manifest);
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    };
    assert_eq!(put("1", MANIFEST, &one).0, 201);
    assert_eq!(put("1", MANIFEST, &one).0, 201);
    let (status, text) = put("1", MANIFEST, &two);
    assert!(status == 400 && text.contains("cannot be overwritten because the tag is immutable"));
    assert_eq!(put("i", INDEX, &index(&one)).0, 201);
    assert_eq!(put("j", INDEX, &index(&two)).0, 400);
}

#[test]
fn ecr_has_no_repository_that_nobody_made_and_aws_makes_one() {
    let (registry, mut connection) = with([Quirk::NoCreateOnPush]);
    let begun = connection.ask("POST", "/v2/x/blobs/uploads/", &[], b"");
    assert_eq!((begun.status, &*begun.code()), (404, "NAME_UNKNOWN"));
    let target = "X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.CreateRepository";
    let mut create = || connection.ask("POST", "/", &[target], br#"{"repositoryName":"x"}"#);
    assert_eq!(create().json()["repository"]["repositoryName"], "x");
    assert_eq!(create().json()["__type"], "RepositoryAlreadyExistsException");
    assert_eq!(connection.ask("POST", "/v2/x/blobs/uploads/", &[], b"").status, 202);
    assert_eq!(registry.calls().len(), 2);
}

#[test]
fn ecr_says_in_plain_text_that_a_token_is_over() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let registry = FakeRegistry::with(Settings::ecr(Lifetime::Requests(2)));
    let mut connection = connect(&registry);
    let missing = connection.ask("GET", "/v2/", &[], b"");
    assert!(missing.status == 401 && missing.header("www-authenticate").starts_with("Basic "));
    let target = "X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    let given = connection.ask("POST", "/", &[target], b"{}").json();
    let token = given["authorizationData"][0]["authorizationToken"].as_str().unwrap().to_owned();
    let token = format!("Authorization: Basic {token}");
    assert_eq!([0; 2].map(|_| connection.ask("GET", "/v2/", &[&token], b"").status), [200; 2]);
    let over = connection.ask("GET", "/v2/", &[&token], b"");
    assert_eq!((over.status, over.header("content-type")), (403, "text/plain; charset=utf-8"));
    assert!(over.body.starts_with(b"Your Authorization Token has expired"));
    let wrong = format!("Authorization: Basic {}", BASE64_STANDARD.encode("AWS:wrong"));
    assert_eq!(connection.ask("GET", "/v2/", &[&wrong], b"").status, 400);
}

#[test]
fn ecr_sends_to_a_storage_that_wants_no_credentials() {
    let (registry, mut connection) = with([Quirk::RedirectsBlobs]);
    let digest = registry.put_blob("x", b"abcdef");
    let path = format!("/v2/x/blobs/{digest}");
    let led = connection.ask("GET", &path, &[], b"");
    assert_eq!(led.status, 307);
    let url = led.header("location").trim_start_matches("http://").to_owned();
    let (host, path) = url.split_once('/').unwrap();
    assert_ne!(host, registry.host());
    let mut storage = Connection::to(host);
    let part = storage.ask("GET", &format!("/{path}"), &["Range: bytes=4-"], b"");
    assert_eq!((part.status, &*part.body), (206, &b"ef"[..]));
    let unsigned = path.split('?').next().unwrap();
    assert_eq!(storage.ask("GET", &format!("/{unsigned}"), &[], b"").status, 403);
    registry.assert_was_asked_rightly();
    let sent = storage.ask("GET", &format!("/{path}"), &["Authorization: Basic eDp5"], b"");
    assert_eq!(sent.status, 400);
    assert_eq!(registry.shared.state().violations.len(), 1);
}

#[test]
fn tokens_are_for_what_they_were_asked_for() {
    let registry = FakeRegistry::with(Settings::ecr_public("me", "secret"));
    registry.create_repository("x");
    let mut connection = connect(&registry);
    let challenge = connection.ask("GET", "/v2/x/tags/list", &[], b"");
    let want = format!(
        "Bearer realm=\"http://{}/token\",service=\"fake.test\",scope=\"repository:x:pull\"",
        registry.host()
    );
    assert_eq!((challenge.status, challenge.header("www-authenticate")), (401, &*want));
    let ask = "/token?service=fake.test&scope=repository:x:pull,push";
    let mut token = |headers: &[&str]| {
        let answer = connection.ask("GET", ask, headers, b"");
        answer.json()["token"].as_str().map(|it| format!("Authorization: Bearer {it}"))
    };
    let anonymous = token(&[]).unwrap();
    let known = token(&["Authorization: Basic bWU6c2VjcmV0"]).unwrap();
    assert_eq!(token(&["Authorization: Basic bWU6d3Jvbmc="]), None);
    let mut status =
        |method: &str, path: &str, token: &str| connection.ask(method, path, &[token], b"").status;
    assert_eq!(status("GET", "/v2/x/tags/list", &anonymous), 200);
    assert_eq!(status("POST", "/v2/x/blobs/uploads/", &anonymous), 401);
    assert_eq!(status("POST", "/v2/x/blobs/uploads/", &known), 202);
    assert_eq!(status("GET", "/v2/y/tags/list", &known), 401);
    registry.end_tokens();
    assert_eq!(status("GET", "/v2/x/tags/list", &known), 401);
}

#[test]
fn answers_go_wrong_as_they_are_told_to() {
    let content = [b"abcdef".repeat(50_000)].concat();
    let check = |trouble: Trouble| {
        let (registry, mut connection) = with([]);
        let digest = registry.put_blob("x", &content);
        let path = format!("/v2/x/blobs/{digest}");
        registry.inject(Fault::new("GET", "/blobs/", trouble));
        connection.send("GET", &path, &[], b"");
        let answer = connection.try_answer("GET");
        let again = connect(&registry).ask("GET", &path, &[], b"");
        assert!(again.body == content, "a fault is over when it is over");
        answer
    };
    assert!(check(Trouble::Cut(1000)).is_err());
    assert!(check(Trouble::Mute).is_err());
    assert!(check(Trouble::LyingLength(1)).is_err());
    assert_eq!(check(Trouble::Truncate(1000)).unwrap().body, content[..1000]);
    let corrupted = check(Trouble::Corrupt(200_000)).unwrap().body;
    let differing = corrupted.iter().zip(&content).filter(|(one, other)| one != other).count();
    assert_eq!((corrupted.len(), differing), (content.len(), 1));
    let slowed = check(Trouble::Slow(Duration::from_millis(1))).unwrap();
    assert!(slowed.body == content);
    let other = check(Trouble::WrongDigest).unwrap();
    assert_ne!(other.header("docker-content-digest"), digest_of(&content));
    let later = check(Trouble::retry_after("7")).unwrap();
    assert_eq!((later.status, later.header("retry-after")), (429, "7"));
    assert_eq!(check(Trouble::status(503)).unwrap().status, 503);
}

#[test]
fn uploads_go_wrong_as_they_are_told_to() {
    let content = vec![7; MIB];
    let check = |trouble: Trouble, want: u64| {
        let (registry, mut connection) = with([]);
        let begun = connection.ask("POST", "/v2/x/blobs/uploads/", &[], b"");
        registry.inject(Fault::new("PATCH", "/uploads/", trouble));
        let length = format!("Content-Length: {}", content.len());
        let head = format!(
            "PATCH {} HTTP/1.1\r\nHost: fake.test\r\n{length}\r\n\r\n",
            begun.header("location")
        );
        let stream = connection.reader.get_mut();
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        let answer = sent.and_then(|()| connection.try_answer("PATCH"));
        let asked = registry.asked().pop().unwrap();
        assert_eq!(asked.received, want);
        answer.map(|it| it.header("range").to_owned())
    };
    assert!(check(Trouble::Cut(1000), 1000).is_err());
    assert!(check(Trouble::Mute, MIB as u64).is_err());
    assert_eq!(check(Trouble::Truncate(1000), 1000).unwrap(), "0-999");
    assert_eq!(check(Trouble::Corrupt(5), MIB as u64).unwrap(), "0-1048575");
}

#[test]
fn a_registry_that_is_gone_has_no_files() {
    let (registry, connection) = with([]);
    registry.put_blob("x", b"abc");
    let folder = registry.shared.folder("blobs");
    drop(registry);
    // The connection's thread has its own hold on the folder until it sees that it is over.
    drop(connection);
    let mut tries = 0;
    while folder.exists() {
        tries += 1;
        assert!(tries < 10_000, "{} is left behind", folder.display());
        thread::yield_now();
    }
}
