//! Mounts, resumed downloads, streamed uploads, mirrors, and logins, against a registry that says
//! what it is told.

use tokio::runtime::Handle;

use super::*;

const DATA: &[u8] = b"hello, world";

fn get(content: &[u8]) -> String {
    format!("GET /v2/x/blobs/{}", Digest::of(content))
}

fn range(said: Said, range: &str) -> Said {
    said.with("content-range", range)
}

/// Pulls 12 bytes, and compares what came of it with the ranges that were asked for.
async fn check_pull(said: &[Said], want: Expect) {
    let server = Scripted::start();
    server.on(&get(DATA), said.iter().cloned());
    let got = pull(&client(&[]), &server, DATA).await;
    let mut text = match got {
        Ok(content) => format!("{}\n", String::from_utf8_lossy(&content)),
        Err(error) => format!("{}\n", words(&error, &[&server])),
    };
    for asked in server.asked() {
        let range = asked.headers.get("range").map_or("all", String::as_str);
        writeln!(text, "{range}").unwrap();
    }
    let text = text.replace(&Digest::of(DATA).to_string(), "DIGEST");
    want.assert_eq(&text);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_ended() {
    let cut = say(200, "hello").announced(12);
    let rest = |bytes: &str, from: usize| {
        range(say(206, bytes), &format!("bytes {from}-11/12")).announced(12 - from)
    };
    check_pull(
        &[cut.clone(), rest(", w", 5), rest("orld", 8)],
        expect![[r#"
            hello, world
            all
            bytes=5-
            bytes=8-
        "#]],
    )
    .await;
    // Without a `Content-Range`, and after a failure that passes.
    check_pull(
        &[cut.clone(), say(503, ""), say(206, ", world")],
        expect![[r#"
            hello, world
            all
            bytes=5-
            bytes=5-
        "#]],
    )
    .await;
    // All in place of the rest.
    check_pull(
        &[cut.clone(), say(200, DATA)],
        expect![[r#"
            hello, world
            all
            bytes=5-
        "#]],
    )
    .await;
    // No ranges, another range, and a rest that does not fit: once more from the start.
    for odd in [
        say(416, ""),
        range(say(206, DATA), "bytes 0-11/12"),
        range(say(206, ", world"), "bytes 5-11/13"),
        say(206, ", w"),
        say(206, ", world").announced(usize::MAX - 2),
        say(206, ", wurld"),
    ] {
        check_pull(
            &[cut.clone(), odd, say(200, DATA)],
            expect![[r#"
                hello, world
                all
                bytes=5-
                all
            "#]],
        )
        .await;
    }
    // Wrong as often as it is asked for is wrong.
    let wrong = say(200, "hello, wurld");
    check_pull(
        &[cut, say(206, ", wurld"), wrong.clone(), wrong],
        expect![[r#"
            content has digest sha256:61f8e9bda89f00951fd271f37966b2ae7a07b4b06135cc4a2c74b86ddaa43358 in place of DIGEST (GET http://REGISTRY/v2/x/blobs/DIGEST)
            all
            bytes=5-
            all
            all
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_download_that_goes_on_keeps_its_writer() {
    let server = Scripted::start();
    let cut = say(200, "hello").announced(12);
    server.on(&get(DATA), [cut, say(206, ", world")]);
    let opened = AtomicUsize::new(0);
    let open = || {
        opened.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    };
    let repository = reference(&server, "x").repository().clone();
    let pulled = client(&[]).pull_blob(&repository, blob(DATA), open, &quiet).await;
    assert_eq!(pulled.unwrap(), DATA);
    assert_eq!(opened.into_inner(), 1);
}

#[tokio::test]
async fn a_download_that_gets_no_further_ends() {
    let server = Scripted::start();
    let data: &[u8] = vec![7; 4 << 20].leak();
    let first = || say(200, &data[..1 << 20]).announced(data.len());
    let more = || say(206, &data[1 << 20..3 << 20]).announced(3 << 20);
    server.on(&get(data), (0..4).flat_map(|_| [first(), more()]));
    let repository = reference(&server, "x").repository().clone();
    let pulled = client(&[]).pull_blob(&repository, blob(data), || Ok(Vec::new()), &quiet).await;
    assert!(matches!(pulled, Err(RegistryError::Cut { .. })), "{pulled:?}");
    assert_eq!(server.asked().len(), 4, "the last two were tries without progress");
}

/// Reads a blob from repositories of these names, in order.
async fn read(server: &Scripted, names: &[&str], content: &'static [u8]) -> io::Result<Vec<u8>> {
    let repositories: Vec<Repository> =
        names.iter().map(|it| reference(server, it).repository().clone()).collect();
    let client = client(&[]);
    let mut reading = client.read_blob(&repositories, blob(content), &Handle::current());
    let all = move || {
        let mut all = Vec::new();
        reading.read_to_end(&mut all).map(|_| all)
    };
    tokio::task::spawn_blocking(all).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_while_it_comes_is_right_or_an_error() {
    let cut = || say(200, "hello").announced(12);
    let wrong = || say(200, "hello, wurld");
    for (x, y, want) in [
        (vec![say(200, DATA)], vec![], Ok(DATA)),
        (vec![cut(), say(206, ", world")], vec![], Ok(DATA)),
        (vec![cut(), say(200, DATA)], vec![], Ok(DATA)),
        (vec![wrong(), say(200, DATA)], vec![], Ok(DATA)),
        // The next repository goes on where the first has ended.
        (vec![say(404, "")], vec![say(200, DATA)], Ok(DATA)),
        (vec![cut(), say(404, ""), say(404, "")], vec![say(200, DATA)], Ok(DATA)),
        (vec![wrong(); 3], vec![say(200, DATA)], Ok(DATA)),
        (vec![say(404, "")], vec![say(404, "")], Err("NotFound")),
        // The graver error is told.
        (vec![say(403, "")], vec![say(404, "")], Err("Denied")),
        (vec![wrong(); 3], vec![wrong(); 3], Err("DigestMismatch")),
    ] {
        let server = Scripted::start();
        server.on(&get(DATA), x.clone());
        server.on(&get(DATA).replace("/x/", "/y/"), y.clone());
        let read = read(&server, &["x", "y"], DATA).await;
        match want {
            Ok(content) => assert_eq!(read.unwrap(), content, "{x:?} {y:?}"),
            Err(want) => {
                let error = read.unwrap_err().downcast::<RegistryError>().unwrap();
                assert!(format!("{error:?}").starts_with(want), "{error:?}");
            }
        }
    }
    let nowhere = read(&Scripted::start(), &[], DATA).await.unwrap_err();
    assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
}

/// What was given cannot be taken back: that it was wrong is told when the rest is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_and_was_wrong_is_an_error_at_the_end() {
    static LARGE: [u8; 8 << 20] = [7; 8 << 20];
    let mut wrong = LARGE.to_vec();
    wrong[5] ^= 1;
    let server = Scripted::start();
    server.on(&get(&LARGE), [say(200, wrong), say(200, LARGE.as_slice())]);
    let error = read(&server, &["x"], &LARGE).await.unwrap_err();
    let error = error.downcast::<RegistryError>().unwrap();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_the_download() {
    static LARGE: [u8; 16 << 20] = [7; 16 << 20];
    // One that is not read, and one of which nothing comes.
    for said in [say(200, LARGE.as_slice()), say(200, "").announced(12)] {
        let server = Scripted::start();
        server.on(&get(&LARGE), [said]);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let repository = [reference(&server, "x").repository().clone()];
        let reading = client(&[]).read_blob(&repository, blob(&LARGE), runtime.handle());
        drop(reading);
        // It waits for the thread on which the blob comes.
        let ended = tokio::task::spawn_blocking(move || drop(runtime));
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
    }
}

async fn mount(server: &Scripted, from: &[&str], passwords: &[&'static str]) -> String {
    let target = reference(server, "x");
    let from: Vec<Repository> =
        from.iter().map(|it| reference(server, it).repository().clone()).collect();
    let (hello, open) = (blob(b"hello"), opener(b"hello"));
    let placed = client(passwords)
        .mount_or_push_blob(target.repository(), hello, &from, &open, &quiet)
        .await;
    let log = server.log().replace(&Digest::of(b"hello").to_string().replace(':', "%3A"), "DIGEST");
    match placed {
        Ok(placed) => format!("{placed:?}\n{log}"),
        Err(error) => format!("{}\n{log}", words(&error, &[server])),
    }
}

fn mounting(from: &str) -> String {
    let digest = Digest::of(b"hello").to_string().replace(':', "%3A");
    format!("POST /v2/x/blobs/uploads/?mount={digest}&from={from}")
}

#[tokio::test]
async fn a_blob_is_mounted_where_the_registry_does_it() {
    let server = Scripted::start();
    server.on(&mounting("a%2Fb"), [say(201, "")]);
    let done = mount(&server, &["a/b", "c"], &[]).await;
    assert_eq!(done, "Mounted\nPOST /v2/x/blobs/uploads/?mount=DIGEST&from=a%2Fb\n");
}

#[tokio::test]
async fn a_mount_that_is_declined_with_an_upload_is_one_request() {
    let server = Scripted::start();
    server.on(&mounting("a"), [begun("/u")]).on(&hello_put(), [say(201, "")]);
    let done = mount(&server, &["a", "b"], &[]).await;
    let want = "Uploaded\nPOST /v2/x/blobs/uploads/?mount=DIGEST&from=a\nPUT /u?digest=DIGEST\n";
    assert_eq!(done, want);
}

#[tokio::test]
async fn a_mount_that_is_refused_is_an_upload() {
    for status in [400, 401, 403, 404, 405, 500] {
        let server = Scripted::start();
        server.on(&mounting("a"), [say(status, "no")]);
        server.on(BEGIN, [begun("/u")]).on(&hello_put(), [say(201, "")]);
        let done = mount(&server, &["a"], &[]).await;
        assert!(done.starts_with("Uploaded\n"), "{done}");
        assert_eq!(done.lines().count(), 4, "{done}");
    }
    // An upload that fails after a declined mount is begun again.
    let server = Scripted::start();
    server.on(&mounting("a"), [begun("/lost")]).on(BEGIN, [begun("/u")]);
    let lost = hello_put().replace("/u?", "/lost?");
    server.on(&lost, [say(404, "")]).on(&hello_put(), [say(201, "")]);
    assert!(mount(&server, &["a"], &[]).await.starts_with("Uploaded\n"));
}

#[tokio::test]
async fn a_token_for_a_mount_is_for_both_repositories() {
    let server = Scripted::start();
    server.on(&mounting("a"), [bearer(&server), say(201, "")]);
    let token =
        "GET /token?service=s&scope=repository%3Ax%3Apull%2Cpush&scope=repository%3Aa%3Apull";
    server.on(token, [say(200, r#"{"token":"t"}"#)]);
    let done = mount(&server, &["a"], &["p"]).await;
    assert!(done.starts_with("Mounted\n"), "{done}");
    assert!(done.contains(&format!("{token} [Basic dTpw]\n")), "{done}");
}

/// Streams `hello` in two chunks; what became of it, and what was asked.
async fn stream(server: &Scripted, whole: bool) -> String {
    let (stream, coming) = Stream::new(4);
    let (target, client) = (reference(server, "x"), client(&["p"]));
    let pushing = client.push_stream(target.repository(), coming);
    let feeding = async {
        for chunk in [&b"hel"[..], b"lo"] {
            // A registry that has refused takes no more.
            let _ = stream.chunks().send(chunk.to_vec()).await;
        }
        if whole {
            stream.finish(blob(b"hello"));
        } else {
            drop(stream);
        }
    };
    let (pushed, ()) = tokio::join!(pushing, feeding);
    let log = server.log().replace(&Digest::of(b"hello").to_string().replace(':', "%3A"), "DIGEST");
    match pushed {
        Ok(Some(found)) => {
            assert_eq!(found, blob(b"hello"));
            format!("uploaded\n{log}")
        }
        Ok(None) => format!("given up\n{log}"),
        Err(error) => format!("{}\n{log}", words(&error, &[server])),
    }
}

#[tokio::test]
async fn a_blob_of_unknown_digest_goes_by_one_patch_and_an_empty_put() {
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    for status in [201, 202, 204] {
        let server = Scripted::start();
        server.on(BEGIN, [basic.clone(), begun("/u?s=1")]);
        // A range that is stuck, as ECR's is, is not looked at.
        let patched = say(status, "").with("location", "/u?s=2").with("range", "0-0");
        server.on("PATCH /u?s=1", [patched]);
        server.on(&hello_put().replace("/u?", "/u?s=2&"), [say(201, "")]);
        let auth = "[Basic dTpw]";
        assert_eq!(
            stream(&server, true).await,
            format!(
                "uploaded\n{BEGIN}\n{BEGIN} {auth}\nPATCH /u?s=1 {auth}\n\
                 PUT /u?s=2&digest=DIGEST {auth}\n"
            )
        );
        let asked = server.asked();
        assert_eq!((asked[2].body.as_slice(), asked[3].body.as_slice()), (&b"hello"[..], &b""[..]));
    }
}

#[tokio::test]
async fn a_streamed_upload_that_goes_wrong_is_cancelled() {
    for (patched, put, want) in [
        (say(416, "odd"), None, "the registry refused it (PATCH http://REGISTRY/u: 416 odd)"),
        (say(500, ""), None, "the registry failed (PATCH http://REGISTRY/u: 500)"),
        (
            say(202, ""),
            Some(say(400, "DIGEST_INVALID")),
            "content arrived as something else (PUT http://REGISTRY/u: 400 DIGEST_INVALID)",
        ),
    ] {
        let server = Scripted::start();
        server.on(BEGIN, [begun("/u")]).on("PATCH /u", [patched]).on("DELETE /u", [say(204, "")]);
        server.on(&hello_put(), put);
        let done = stream(&server, true).await;
        assert!(done.starts_with(want), "{done}");
        assert!(done.ends_with("DELETE /u\n"), "{done}");
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_no_blob() {
    let server = Scripted::start();
    server.on(BEGIN, [begun("/u")]).on("PATCH /u", [say(202, "")]);
    server.on("DELETE /u", [say(204, "")]);
    let done = stream(&server, false).await;
    assert!(done.starts_with("given up\n"), "{done}");
    assert!(done.ends_with("DELETE /u\n") && !done.contains("PUT"), "{done}");
}

#[tokio::test]
async fn whether_a_push_may_begin_is_known_before() {
    let server = Scripted::start();
    server.on(BEGIN, [begun("/u")]).on("DELETE /u", [say(405, "")]);
    let target = reference(&server, "x");
    client(&[]).check_push(target.repository()).await.unwrap();
    assert_eq!(server.log(), format!("{BEGIN}\nDELETE /u\n"));
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#;
    server.on(BEGIN, [say(404, unknown)]);
    let error = client(&[]).check_push(target.repository()).await.unwrap_err();
    assert!(error.is_unknown_repository(), "{error}");
}

/// A client that pulls from `mirror` what is of `docker.io`, or of `origin`.
fn mirrored(origin: &Scripted, mirror: &str) -> Client {
    let mut options = options();
    options.mirrors.add(&origin.host(), mirror).unwrap();
    Client::new(options, Arc::new(Anonymous))
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_origin_where_it_fails() {
    for (said, at_mirror) in [
        (vec![manifest()], true),
        (vec![say(404, "")], false),
        (vec![say(500, ""), say(500, "")], false),
        (vec![say(200, "<html>")], false),
    ] {
        let (origin, mirror) = (Scripted::start(), Scripted::start());
        origin.on(GET, [manifest()]);
        mirror.on("GET /v2/m/x/manifests/1", said.clone());
        let client = mirrored(&origin, &format!("{}/m", mirror.host()));
        client.manifest(&reference(&origin, "x:1")).await.unwrap();
        assert_eq!(origin.asked().is_empty(), at_mirror, "for {said:?}");
    }
}

#[tokio::test]
async fn what_a_mirror_gives_is_verified_and_one_that_fails_is_left_alone() {
    let (origin, mirror) = (Scripted::start(), Scripted::start());
    origin.on(&get(b"hello"), [say(200, "hello"), say(200, "hello")]);
    mirror.on(&get(b"hello"), [say(200, "hallo")]);
    let client = mirrored(&origin, &mirror.host());
    for _ in 0..2 {
        assert_eq!(pull(&client, &origin, b"hello").await.unwrap(), b"hello");
    }
    assert_eq!((mirror.asked().len(), origin.asked().len()), (1, 2));
}

#[tokio::test]
async fn nothing_is_pushed_to_a_mirror() {
    let (origin, mirror) = (Scripted::start(), Scripted::start());
    let digest = Digest::of(b"hello");
    origin.on(BEGIN, [begun("/u")]).on(&hello_put(), [say(201, "")]);
    origin.on(&format!("HEAD /v2/x/blobs/{digest}"), [say(404, "")]);
    origin.on("HEAD /v2/x/manifests/1", [say(404, "")]);
    let client = mirrored(&origin, &mirror.host());
    let x = reference(&origin, "x:1");
    assert_eq!(client.pushed_digest(&x).await.unwrap(), None);
    assert!(!client.blob_exists(x.repository(), digest).await.unwrap());
    push(&client, &origin, b"hello").await.unwrap();
    assert_eq!(mirror.log(), "");
}

#[tokio::test]
async fn a_login_is_tried_before_it_is_believed() {
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    for (said, want) in [
        (vec![say(200, "{}")], "Ok(false)"),
        (vec![basic.clone(), say(200, "{}")], "Ok(true)"),
        (vec![basic.clone(), basic], "Err"),
    ] {
        let server = Scripted::start();
        server.on("GET /v2/", said);
        let done = format!("{:?}", client(&["p"]).log_in(&server.host()).await);
        assert!(done.starts_with(want), "{done}");
    }
    let server = Scripted::start();
    server.on("GET /v2/", [bearer(&server), say(200, "{}")]);
    server.on("GET /token?service=s", [say(200, r#"{"token":"t"}"#)]);
    assert!(client(&["p"]).log_in(&server.host()).await.unwrap());
}

/// Knows an identity token.
struct Identified;

impl Credentials for Identified {
    fn credential<'a>(
        &'a self,
        _: &'a str,
        _: Action,
        _: Option<&'a Credential>,
    ) -> CredentialFuture<'a> {
        let (username, password) = (Credential::IDENTITY_TOKEN.into(), "id&1".into());
        Box::pin(std::future::ready(Ok(Some(Credential { username, password }))))
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let server = Scripted::start();
    server.on(GET, [bearer(&server), manifest()]);
    server.on("POST /token", [say(200, r#"{"access_token":"t"}"#)]);
    let client = Client::new(options(), Arc::new(Identified));
    client.manifest(&reference(&server, "x:1")).await.unwrap();
    assert_eq!(server.log(), format!("{GET}\nPOST /token\n{GET} [Bearer t]\n"));
    assert_eq!(
        String::from_utf8_lossy(&server.asked()[1].body),
        "grant_type=refresh_token&client_id=rbuild&service=s&scope=repository%3Ax%3Apull&\
         refresh_token=id%261"
    );
}

#[test]
fn limits_are_told_as_docker_hub_has_them() {
    let hub = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let hub = say(429, hub)
        .with("retry-after", "0")
        .with("ratelimit-limit", "100;w=21600")
        .with("ratelimit-remaining", "0;w=21600");
    check(
        &[],
        &[(GET, &[hub.clone(), hub.clone(), hub])],
        expect![[r#"
            the registry gets too many requests (GET http://REGISTRY/v2/x/manifests/1: 429 TOOMANYREQUESTS: You have reached your pull rate limit. (the limit is 100 in 360 minutes, 0 are left))
            ---
            GET /v2/x/manifests/1
            GET /v2/x/manifests/1
            GET /v2/x/manifests/1
        "#]],
    );
    let aws = say(400, r#"{"errors":[{"code":"DENIED","message":"ThrottlingException: slow"}]}"#);
    check(
        &[],
        &[(GET, &[aws, manifest()])],
        expect![[r#"
            application/vnd.oci.image.manifest.v1+json
            ---
            GET /v2/x/manifests/1
            GET /v2/x/manifests/1
        "#]],
    );
}
