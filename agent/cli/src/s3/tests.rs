//! Tests of where what goes, and of what is told if it does not get there.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    thread,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecr::config::{Credentials, SharedCredentialsProvider};
use expect_test::{Expect, expect};
use rbuild_agent::choice::Collision;

use super::{error::Answer, *};

fn selection(name: Option<&str>, identifier: Option<&str>, prefix: Option<&str>) -> Selection {
    Selection {
        name: name.map(str::to_owned),
        identifier: identifier.map(str::to_owned),
        s3_prefix: prefix.map(str::to_owned),
        collision: Collision::default(),
        ..Selection::default()
    }
}

#[test]
fn uris_name_buckets_and_prefixes() {
    let check = |text: &str| match S3Target::parse(text, Packaging::Zip) {
        None => "no URI of S3".to_owned(),
        Some(Err(err)) => err.to_string(),
        Some(Ok(target)) => target.uri(&target.key(&Selection::default()).unwrap()),
    };
    for (text, want) in [
        ("out", "no URI of S3"),
        ("S3://x", "no URI of S3"),
        ("s3://shop", "s3://shop/artifacts.zip"),
        ("s3://shop/", "s3://shop/artifacts.zip"),
        ("s3://shop//a//b/", "s3://shop/a/b/artifacts.zip"),
    ] {
        assert_eq!(check(text), want);
    }
    for text in ["s3://", "s3:///x", "s3://a b/x", "s3://a?x", "s3://é/x"] {
        assert!(check(text).contains("names no bucket"), "{text}");
    }
}

#[test]
fn without_a_project_keys_are_named_as_files_are() {
    let key = |packaging, name, identifier| {
        let target = S3Target::parse("s3://shop/p", packaging).unwrap().unwrap();
        let prefix = Some("of-the-buildspec");
        target.key(&selection(name, identifier, prefix)).unwrap_or_else(|err| err.to_string())
    };
    for (packaging, name, identifier, want) in [
        (Packaging::Zip, None, None, "p/artifacts.zip"),
        (Packaging::Zip, Some("web"), None, "p/web.zip"),
        (Packaging::Zip, Some("web.zip"), None, "p/web.zip"),
        (Packaging::Zip, Some(" "), Some("site"), "p/site.zip"),
        (Packaging::Zip, Some("v1.2"), Some("site"), "p/v1.2.zip"),
        (Packaging::Folder, None, None, "p"),
        (Packaging::Folder, Some("web"), None, "p/web"),
        (Packaging::Folder, None, Some("site"), "p/site"),
        (Packaging::Folder, Some("/a//b/"), None, "p/a/b"),
    ] {
        assert_eq!(key(packaging, name, identifier), want);
    }
    for name in ["../x", "a/./b", "a\nb"] {
        let refused = key(Packaging::Folder, Some(name), None);
        assert!(refused.contains("cannot be the name of artifacts"), "{refused}");
    }
}

#[test]
fn a_project_names_keys() {
    let build = Some("b-1");
    for (path, namespace, name, overridden, selection, want) in [
        ("p", None, "shop", false, selection(None, None, None), "p/shop"),
        ("/p/", build, "shop.zip", false, selection(None, None, None), "p/b-1/shop.zip"),
        ("", build, "shop", false, selection(None, None, None), "b-1/shop"),
        ("", build, "/", false, selection(None, None, None), "b-1"),
        ("p", build, "shop", false, selection(Some("x"), Some("id"), None), "p/b-1/shop"),
        ("p", build, "shop", true, selection(Some("x/y"), Some("id"), None), "p/b-1/x/y"),
        ("p", build, "shop", true, selection(Some(" "), Some("id"), None), "p/b-1/shop"),
        ("p", build, "shop", false, selection(None, None, Some("q/r")), "q/r/b-1/shop"),
        ("p", None, "shop", false, selection(None, None, Some("q/r")), "p/shop"),
    ] {
        let naming = Naming::Project {
            path: path.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            is_name_overridden: overridden,
        };
        let (bucket, encryption) = ("b".to_owned(), Encryption::OfBucket);
        let target = S3Target { bucket, naming, packaging: Packaging::Zip, encryption };
        assert_eq!(target.key(&selection).unwrap(), want, "{target:?}");
    }
}

#[test]
fn answers_are_found_in_errors() {
    let answer = |status, code: &str, message: &str, region: Option<&str>| Answer {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
        region: region.map(str::to_owned),
    };
    for (text, want) in [
        ("connection refused", None),
        (
            "Server returned non-2xx status code: 503 Service Unavailable: ",
            Some(answer(503, "", "", None)),
        ),
        (
            "status code: 400 Bad Request: <Error><Code>AuthorizationHeaderMalformed</Code>\
             <Message>m</Message><Region>eu-west-1</Region></Error>",
            Some(answer(400, "AuthorizationHeaderMalformed", "m", Some("eu-west-1"))),
        ),
        (
            "error response: <Code>InternalError</Code>",
            Some(answer(200, "InternalError", "", None)),
        ),
    ] {
        assert_eq!(Answer::find(text), want);
    }
}

#[track_caller]
fn check(why: Why, want: Expect) {
    let kept = PathBuf::from("/src");
    let err = S3Error { why, kept, is_left_over: false }.sending("s3://shop/p");
    let failure = failure(&err).unwrap();
    want.assert_eq(&format!("{}\n{failure}\n", failure.kind.status()));
}

#[test]
fn failures_say_what_to_do() {
    let refused = |status, code: &str, message: &str| Why::Refused {
        bucket: "shop".to_owned(),
        key: "p/a".to_owned(),
        answer: Answer { status, code: code.to_owned(), message: message.to_owned(), region: None },
    };
    check(
        refused(404, "NoSuchBucket", "m"),
        expect![[r#"
        2
        error: the artifacts could not be sent to `s3://shop/p`: there is no bucket `shop`
        the artifacts are still in `/src`
        hint: make it with `aws s3 mb s3://shop`
    "#]],
    );
    check(
        refused(403, "AccessDenied", "Access Denied"),
        expect![[r#"
        3
        error: the artifacts could not be sent to `s3://shop/p`: S3 refused `p/a` with status 403: AccessDenied: Access Denied
        the artifacts are still in `/src`
        hint: the credentials need s3:PutObject and s3:AbortMultipartUpload for arn:aws:s3:::shop/*, and kms:GenerateDataKey if a key of KMS encrypts it
    "#]],
    );
    check(
        refused(503, "SlowDown", "Reduce your request rate."),
        expect![[r#"
        3
        error: the artifacts could not be sent to `s3://shop/p`: S3 refused `p/a` with status 503: SlowDown: Reduce your request rate. (tried 5 times)
        the artifacts are still in `/src`
        hint: S3 has trouble: try again later
    "#]],
    );
    let (bucket, region, asked) = ("shop".into(), "eu-west-1".into(), "us-east-1".into());
    check(
        Why::OtherRegion { bucket, region, asked },
        expect![[r#"
        2
        error: the artifacts could not be sent to `s3://shop/p`: the bucket `shop` is in region `eu-west-1`, and not in `us-east-1`
        the artifacts are still in `/src`
        hint: set AWS_REGION=eu-west-1
    "#]],
    );
    check(
        Why::NotInProject(Some("site".into())),
        expect![[r#"
        2
        error: the artifacts could not be sent to `s3://shop/p`: the project has no secondary artifacts `site`
        the artifacts are still in `/src`
        hint: name it in the project, too
    "#]],
    );
    check(
        Why::Insecure { endpoint: "http://x".into() },
        expect![[r#"
        2
        error: the artifacts could not be sent to `s3://shop/p`: the endpoint `http://x` is neither encrypted nor on this machine
        the artifacts are still in `/src`
        hint: use https, or a server on this machine
    "#]],
    );
}

/// What a made-up S3 was asked, each with the headers that matter here.
type Asked = Arc<Mutex<Vec<String>>>;

/// A made-up S3 that takes everything.
fn serve() -> (Aws, Asked) {
    let (url, asked) = listen();
    (aws(&url), asked)
}

fn listen() -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let memory = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, memory) = (stream.unwrap(), Arc::clone(&memory));
            thread::spawn(move || answer(stream, &memory));
        }
    });
    (url, asked)
}

/// AWS whose S3 is at `url`.
fn aws(url: &str) -> Aws {
    let credentials = Credentials::new("id", "secret", Some("token".into()), None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(url)
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    Aws::of(config)
}

fn answer(stream: TcpStream, memory: &Asked) {
    let mut reader = BufReader::new(&stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let field = |name: &str| {
        head.iter().find_map(|it| it.strip_prefix(name)).map(|it| it.trim_start_matches(": "))
    };
    let length = field("content-length").map_or(0, |it| it.parse().unwrap());
    reader.read_exact(&mut vec![0; length]).unwrap();
    let matters = ["x-amz-server-side", "x-amz-meta", "x-amz-checksum", "x-amz-security"];
    let mut fields: Vec<&String> =
        head[1..].iter().filter(|it| matters.iter().any(|name| it.starts_with(name))).collect();
    fields.sort();
    let request = head[0].trim_end_matches(" HTTP/1.1");
    memory.lock().unwrap().push(format!("{request} {length} {fields:?}"));
    let body = match request {
        it if it.ends_with("?uploads=") => "<R><UploadId>7</UploadId></R>",
        it if it.starts_with("POST") => "<R><ETag>e</ETag></R>",
        _ => "",
    };
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\netag: e";
    write!(&stream, "{head}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
}

fn project(name: &str, packaging: Packaging, encryption: Encryption) -> S3Target {
    let (path, namespace) = ("p".to_owned(), Some("b-1".to_owned()));
    let naming =
        Naming::Project { path, namespace, name: name.to_owned(), is_name_overridden: false };
    S3Target { bucket: "shop".to_owned(), naming, packaging, encryption }
}

#[test]
fn objects_are_encrypted_and_marked_as_the_project_says() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("small"), "x").unwrap();
    File::create(source.path().join("large")).unwrap().set_len((8 << 20) + 1).unwrap();
    let source_file = |name: &str| source.path().join(name);
    let mut seen = String::new();
    for (encryption, file) in [
        (Encryption::OfBucket, "small"),
        (Encryption::S3, "small"),
        (Encryption::Kms(None), "small"),
        (Encryption::Kms(Some("arn:aws:kms:eu-west-1:1:key/2".to_owned())), "small"),
        (Encryption::Kms(Some("alias/k".to_owned())), "large"),
    ] {
        let (aws, asked) = serve();
        let primary = Some(project("n", Packaging::Folder, encryption));
        let targets = Targets::Project { primary, secondary: Vec::new() };
        let build_arn = Some("arn:aws:codebuild:eu-west-1:1:build/shop:b-1".to_owned());
        let options = S3Options { build_arn, ..S3Options::default() };
        let source = source.path().to_owned();
        let mut artifacts = S3Artifacts::new(&aws, targets, source, options).unwrap();
        let selection = Selection { files: vec![file.to_owned()], ..Selection::default() };
        let (mut told, size) = (None, fs::metadata(source_file(file)).unwrap().len());
        let packed = artifacts.package(&selection, &mut || None, &mut |event| {
            if let Event::ArtifactsSent { sent, total } = event {
                told = Some((sent, total));
            }
        });
        assert_eq!(told, Some((size, size)));
        let packed = packed.unwrap();
        assert_eq!((packed.files, packed.bytes), (1, size));
        assert_eq!(packed.location, Location::Remote("s3://shop/p/b-1/n".to_owned()));
        let mut asked = asked.lock().unwrap().clone();
        asked.sort();
        seen.push_str(&asked.join("\n"));
        seen.push_str("\n\n");
    }
    expect![[r#"
        PUT /shop/p/b-1/n/small 1 ["x-amz-checksum-sha256: LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=", "x-amz-meta-codebuild-buildarn: arn:aws:codebuild:eu-west-1:1:build/shop:b-1", "x-amz-security-token: token"]

        PUT /shop/p/b-1/n/small 1 ["x-amz-checksum-sha256: LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=", "x-amz-meta-codebuild-buildarn: arn:aws:codebuild:eu-west-1:1:build/shop:b-1", "x-amz-security-token: token", "x-amz-server-side-encryption: AES256"]

        PUT /shop/p/b-1/n/small 1 ["x-amz-checksum-sha256: LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=", "x-amz-meta-codebuild-buildarn: arn:aws:codebuild:eu-west-1:1:build/shop:b-1", "x-amz-security-token: token", "x-amz-server-side-encryption: aws:kms"]

        PUT /shop/p/b-1/n/small 1 ["x-amz-checksum-sha256: LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=", "x-amz-meta-codebuild-buildarn: arn:aws:codebuild:eu-west-1:1:build/shop:b-1", "x-amz-security-token: token", "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-west-1:1:key/2", "x-amz-server-side-encryption: aws:kms"]

        POST /shop/p/b-1/n/large?uploadId=7 157 ["x-amz-security-token: token"]
        POST /shop/p/b-1/n/large?uploads= 0 ["x-amz-checksum-algorithm: SHA256", "x-amz-meta-codebuild-buildarn: arn:aws:codebuild:eu-west-1:1:build/shop:b-1", "x-amz-security-token: token", "x-amz-server-side-encryption-aws-kms-key-id: alias/k", "x-amz-server-side-encryption: aws:kms"]
        PUT /shop/p/b-1/n/large?partNumber=1&uploadId=7 8388608 ["x-amz-checksum-sha256: La6x82CVtEsxhBCz9Oi12Yncx7sCPRQmxJLasKMFPnQ=", "x-amz-security-token: token"]
        PUT /shop/p/b-1/n/large?partNumber=2&uploadId=7 1 ["x-amz-checksum-sha256: bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=", "x-amz-security-token: token"]

    "#]].assert_eq(&seen);
}

#[test]
fn a_project_has_a_place_for_each_of_its_artifacts() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), "x").unwrap();
    let (aws, asked) = serve();
    let target = |name: &str| project(name, Packaging::Zip, Encryption::OfBucket);
    let secondary =
        vec![("site".to_owned(), target("site.zip")), ("twice".to_owned(), target("n"))];
    let targets = Targets::Project { primary: Some(target("n")), secondary };
    let source = source.path().to_owned();
    let mut artifacts = S3Artifacts::new(&aws, targets, source, S3Options::default()).unwrap();
    let mut send = |identifier: Option<&str>| {
        let identifier = identifier.map(str::to_owned);
        let files = vec!["a".to_owned()];
        let selection = Selection { identifier, files, ..Selection::default() };
        artifacts.package(&selection, &mut || None, &mut |_| {}).map(|it| it.location)
    };
    let remote = |uri: &str| Location::Remote(uri.to_owned());
    assert_eq!(send(None).unwrap(), remote("s3://shop/p/b-1/n"));
    assert_eq!(send(Some("site")).unwrap(), remote("s3://shop/p/b-1/site.zip"));
    let twice = send(Some("twice")).unwrap_err().to_string();
    assert!(twice.contains("`s3://shop/p/b-1/n` is part of two artifacts"), "{twice}");
    let unknown = failure(&send(Some("other")).unwrap_err()).unwrap();
    assert_eq!(unknown.kind, Kind::Input);
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[test]
fn a_proxy_is_used_for_artifacts_alone() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), "x").unwrap();
    let (proxy, asked) = listen();
    let target = S3Target::parse("s3://shop", Packaging::Folder).unwrap().unwrap();
    let options = S3Options { proxy: Some(proxy), ..S3Options::default() };
    let (aws, source) = (aws("http://127.0.0.1:1"), source.path().to_owned());
    let mut artifacts = S3Artifacts::new(&aws, Targets::One(target), source, options).unwrap();
    let selection = Selection { files: vec!["a".to_owned()], ..Selection::default() };
    artifacts.package(&selection, &mut || None, &mut |_| {}).unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("PUT http://127.0.0.1:1/shop/a 1 "), "{asked:?}");
}

#[test]
fn a_file_whose_name_cannot_be_a_key_is_told_before_anything_is_sent() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), "").unwrap();
    fs::write(source.path().join("b\u{1b}[2J"), "").unwrap();
    let (aws, asked) = serve();
    let target = S3Target::parse("s3://shop/p", Packaging::Folder).unwrap().unwrap();
    let (targets, folder) = (Targets::One(target), source.path().to_owned());
    let mut artifacts = S3Artifacts::new(&aws, targets, folder, S3Options::default()).unwrap();
    let selection = Selection { files: vec!["*".to_owned()], ..Selection::default() };
    let err = artifacts.package(&selection, &mut || None, &mut |_| {}).unwrap_err();
    let failure = failure(&err).unwrap();
    assert_eq!(failure.kind, Kind::Build);
    assert!(failure.to_string().contains("`p/b\\u{1b}[2J` has a control character"), "{failure}");
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[test]
fn a_file_that_goes_is_the_fault_of_the_build() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("a");
    for packaging in [Packaging::Folder, Packaging::Zip] {
        fs::write(&path, "x").unwrap();
        let (aws, asked) = serve();
        let target = S3Target::parse("s3://shop", packaging).unwrap().unwrap();
        let (targets, folder) = (Targets::One(target), source.path().to_owned());
        let mut artifacts = S3Artifacts::new(&aws, targets, folder, S3Options::default()).unwrap();
        let selection = Selection { files: vec!["a".to_owned()], ..Selection::default() };
        let result = artifacts.package(&selection, &mut || None, &mut |event| {
            if matches!(event, Event::FilesFound(_)) {
                fs::remove_file(&path).unwrap();
            }
        });
        let err = result.unwrap_err();
        assert!(!err.is_of_the_machine() && err.to_string().contains("/a`"), "{err}");
        assert_eq!(*asked.lock().unwrap(), Vec::<String>::new());
    }
}
