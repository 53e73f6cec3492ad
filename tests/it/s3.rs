//! Artifacts in zip files as others read them, and in S3: moto's, and one that fails.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rbuild_agent::artifacts::{Artifacts as _, LocalArtifacts, Packaging, Selection};
use rbuild_tests::{
    Finished, Sandbox,
    http::{Answer, Request},
    peers,
    sandbox::Run,
    servers::{Moto, Scripted, moto},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{is_soak, sandbox};

/// A buildspec whose commands and artifacts these are.
fn spec(commands: &str, artifacts: &str) -> String {
    format!(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - |\n        {}\nartifacts:\n  {}\n",
        commands.replace('\n', "\n        "),
        artifacts.replace('\n', "\n  "),
    )
}

/// A sandbox with a build that makes some files.
fn project() -> Sandbox {
    let commands = "mkdir -p out/css; echo hello > out/index.html; echo > out/css/a.css; \
                    printf x > 'out/a b+é%20~.txt'; touch out/empty";
    sandbox(&[("buildspec.yml", &spec(commands, "files: ['**/*']\nbase-directory: out"))])
}

fn build(sandbox: &Sandbox, target: &str, packaging: &str) -> Run {
    sandbox.rbuild(["run", "-a", target, "--artifacts-packaging", packaging])
}

/// Makes a bucket in moto.
fn bucket(sandbox: &Sandbox, name: &str) {
    let script = "client('s3').create_bucket(Bucket=sys.argv[1], \
                  CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'})";
    Moto::shared().python(sandbox, script, &[name]).ok();
}

/// What is in a bucket: the content of each object, or its size if that is large.
fn objects(sandbox: &Sandbox, bucket: &str) -> Value {
    let script = "
s3 = client('s3')
found = {}
for it in s3.list_objects_v2(Bucket=sys.argv[1]).get('Contents', []):
    body = s3.get_object(Bucket=sys.argv[1], Key=it['Key'])['Body'].read()
    found[it['Key']] = body.decode() if len(body) < 100 else len(body)
print(json.dumps(found))";
    let printed = Moto::shared().python(sandbox, script, &[bucket]).ok();
    serde_json::from_str(printed.line()).expect("JSON")
}

fn unfinished_uploads(sandbox: &Sandbox, bucket: &str) -> String {
    let script = "print(len(client('s3').list_multipart_uploads(Bucket=sys.argv[1])\
                  .get('Uploads', [])))";
    Moto::shared().python(sandbox, script, &[bucket]).ok().line().to_owned()
}

/// Packs all of `out` in the source folder, and returns the path of the zip file.
fn zip(sandbox: &Sandbox, selection: Selection) -> String {
    let (source, kept) = (sandbox.src(), sandbox.src().join("kept"));
    let mut artifacts = LocalArtifacts::new(source, kept.clone(), Packaging::Zip);
    let (files, base_directory) = (vec!["**/*".to_owned()], Some("out".to_owned()));
    let selection = Selection { files, base_directory, ..selection };
    artifacts.package(&selection, &mut || None, &mut |_| {}).expect("a zip file");
    kept.join("artifacts.zip").display().to_string()
}

#[test]
fn zip_files_are_what_others_expect() {
    let sandbox = sandbox(&[("out/bin/run", "#!/bin/sh\n"), ("out/é", "é\n")]);
    let out = |name: &str| sandbox.src().join("out").join(name);
    fs::set_permissions(out("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    for (target, link) in [
        ("bin/run", "start"),
        ("bin", "tools"),
        ("/etc/passwd", "absolute"),
        ("nowhere", "dangling"),
    ] {
        symlink(target, out(link)).unwrap();
    }
    let exclude_paths = vec!["abs*".to_owned()];
    let zip =
        zip(&sandbox, Selection { exclude_paths, enable_symlinks: true, ..Selection::default() });
    peers::run("unzip", "unzip", &["-tq", &zip]);
    let unpacked = sandbox.path().join("unpacked");
    peers::run("unzip", "unzip", &["-q", &zip, "-d", &unpacked.display().to_string()]);
    let mode = |name: &str| fs::metadata(unpacked.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("bin/run"), 0o755);
    assert_eq!(fs::read_to_string(unpacked.join("é")).unwrap(), "é\n");
    assert_eq!(fs::read_link(unpacked.join("start")).unwrap().to_str(), Some("bin/run"));
    assert_eq!(fs::read_link(unpacked.join("tools")).unwrap().to_str(), Some("bin"));
    let script = "import sys, zipfile, json\nz = zipfile.ZipFile(sys.argv[1])\n\
                  assert z.testzip() is None\n\
                  print(json.dumps([[i.filename, oct(i.external_attr >> 16)] for i in z.infolist()], \
                  ensure_ascii=False))";
    let read = sandbox.run("python3", ["-c", script, &zip]).env("PYTHONUTF8", "1").ok();
    let want = r#"[["bin/run", "0o100755"], ["start", "0o120777"], ["tools", "0o120777"], ["é", "0o100644"]]"#;
    assert_eq!(read.line(), want);
}

#[test]
fn more_entries_than_zip_could_once_hold_are_read_by_others() {
    let sandbox = sandbox(&[("out/0", "")]);
    let count = 65_600;
    for name in 1..count {
        File::create(sandbox.src().join(format!("out/{name}"))).unwrap();
    }
    let zip = zip(&sandbox, Selection::default());
    let script = "import sys, zipfile\nprint(len(zipfile.ZipFile(sys.argv[1]).namelist()))";
    assert_eq!(sandbox.run("python3", ["-c", script, &zip]).ok().line(), count.to_string());
    peers::run("unzip", "unzip", &["-tqq", &zip]);
}

/// Takes long without optimization, and so belongs to the soak.
#[test]
fn a_file_that_zip_could_once_not_hold_is_read_by_others() {
    if !is_soak() {
        return;
    }
    let sandbox = sandbox(&[("out/z", "last")]);
    let size = (4 << 30) + 5;
    File::create(sandbox.src().join("out/large")).unwrap().set_len(size).unwrap();
    let zip = zip(&sandbox, Selection::default());
    let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\n\
                  print(z.testzip(), *[i.file_size for i in z.infolist()], z.read('z').decode())";
    let read = sandbox.run("python3", ["-c", script, &zip]).within(Duration::from_mins(3)).ok();
    assert_eq!(read.line(), format!("None {size} 4 last"));
    peers::run("unzip", "unzip", &["-tqq", &zip]);
}

#[test]
fn files_become_objects() {
    let sandbox = project();
    bucket(&sandbox, "files");
    let ended = Moto::shared().known_to(build(&sandbox, "s3://files/site/7", "none")).ok();
    assert!(ended.stderr.contains("artifacts: s3://files/site/7 (4 files,"), "{}", ended.stderr);
    let want = json!({
        "site/7/a b+é%20~.txt": "x",
        "site/7/css/a.css": "\n",
        "site/7/empty": "",
        "site/7/index.html": "hello\n",
    });
    assert_eq!(objects(&sandbox, "files"), want);
}

#[test]
fn a_zip_file_becomes_an_object() {
    let sandbox = project();
    bucket(&sandbox, "zips");
    Moto::shared().known_to(build(&sandbox, "s3://zips", "zip")).ok();
    let script = "
import io, zipfile
body = client('s3').get_object(Bucket='zips', Key='artifacts.zip')['Body'].read()
zip = zipfile.ZipFile(io.BytesIO(body))
print(zip.testzip(), *zip.namelist())";
    let read = Moto::shared().python(&sandbox, script, &[]).env("PYTHONUTF8", "1").ok();
    assert_eq!(read.line(), "None a b+é%20~.txt css/a.css empty index.html");
    assert_eq!(fs::read_dir(sandbox.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_large_file_goes_in_parts_and_arrives_whole() {
    let commands = "mkdir out; head -c 45000000 /dev/urandom > out/large; head -c 8388608 /dev/zero \
                    > out/limit; sha256sum < out/large | cut -d' ' -f1 > out/digest";
    let artifacts = "files: ['*']\nbase-directory: out";
    let sandbox = sandbox(&[("buildspec.yml", &spec(commands, artifacts))]);
    bucket(&sandbox, "large");
    Moto::shared().known_to(build(&sandbox, "s3://large/p", "none")).ok();
    let script = "
import hashlib
s3 = client('s3')
body = s3.get_object(Bucket='large', Key='p/large')
digest = s3.get_object(Bucket='large', Key='p/digest')['Body'].read().decode().strip()
print(hashlib.sha256(body['Body'].read()).hexdigest() == digest, body['ETag'])";
    let read = Moto::shared().python(&sandbox, script, &[]).ok();
    let etag = read.line().strip_prefix("True ").expect("the digest");
    assert!(etag.ends_with("-6\""), "it went in six parts: {etag}");
    assert_eq!(objects(&sandbox, "large")["p/limit"], 8_388_608);
    assert_eq!(unfinished_uploads(&sandbox, "large"), "0");
}

#[test]
fn a_bucket_that_is_not_there_is_an_error_of_the_input() {
    let sandbox = project();
    for packaging in ["none", "zip"] {
        let run = Moto::shared().known_to(build(&sandbox, "s3://missing/p", packaging));
        let src = sandbox.src().display().to_string();
        run.go().fails(2, &["there is no bucket `missing`", "aws s3 mb s3://missing", &src]);
    }
    assert_eq!(fs::read_dir(sandbox.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_a_target_is_refused_before_the_build() {
    let sandbox = sandbox(&[("buildspec.yml", &spec("touch ran", "files: ran"))]);
    build(&sandbox, "s3://", "none").go().fails(2, &["names no bucket"]);
    assert!(!sandbox.src().join("ran").exists());
}

#[test]
fn who_has_no_credentials_or_no_region_is_told() {
    let sandbox = project();
    let run = build(&sandbox, "s3://b", "none").env("AWS_EC2_METADATA_DISABLED", "true");
    run.go().fails(2, &["no AWS region is set", "AWS_REGION"]);
    let run = build(&sandbox, "s3://b", "none").env("AWS_EC2_METADATA_DISABLED", "true");
    run.env("AWS_REGION", "eu-west-1").go().fails(3, &["there are no AWS credentials"]);
    let run = build(&sandbox, "s3://b", "none").env("AWS_ENDPOINT_URL", "http://s3.example:9000");
    known(run).go().fails(2, &["`http://s3.example:9000` is neither encrypted nor"]);
}

/// `run` with credentials and a region.
fn known(run: Run) -> Run {
    moto::VARIABLES.into_iter().fold(run, |run, (name, value)| run.env(name, value))
}

/// A build whose S3 answers as `answer` says to the nth request, counted from 0.
fn against(
    sandbox: &Sandbox,
    packaging: &str,
    answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
) -> (Finished, Scripted) {
    let count = AtomicUsize::new(0);
    let s3 = Scripted::start(move |request| answer(count.fetch_add(1, Ordering::SeqCst), request));
    let run = known(build(sandbox, "s3://shop/p", packaging));
    let run = run.env("AWS_ENDPOINT_URL", format!("http://{}", s3.host()));
    (run.go(), s3)
}

fn error(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>because</Message></Error>");
    Answer::of(status, body).with("Content-Type", "application/xml")
}

fn stored() -> Answer {
    Answer::of(200, "").with("ETag", "\"e\"")
}

#[test]
fn an_s3_that_fails_for_a_moment_is_asked_again() {
    let sandbox = project();
    let (ended, s3) = against(&sandbox, "zip", |count, _| match count {
        0 => error(503, "SlowDown"),
        1 => Answer::Raw(Vec::new()),
        2 => error(500, "InternalError"),
        _ => stored(),
    });
    ended.has_status(0);
    let asked = s3.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|it| it.body == asked[0].body && it.path == "/shop/p/artifacts.zip"));
    assert!(asked[0].header("x-amz-checksum-sha256").is_some());
}

#[test]
fn an_s3_that_keeps_failing_is_told_and_the_files_are_kept() {
    let sandbox = project();
    let src = sandbox.src().display().to_string();
    let (ended, s3) = against(&sandbox, "zip", |_, _| error(503, "SlowDown"));
    let status = "with status 503: SlowDown: because (tried 5 times)";
    ended.fails(3, &["s3://shop/p/artifacts.zip", status, &src, "try again later"]);
    assert_eq!(s3.asked().len(), 5);
    assert!(sandbox.src().join("out/index.html").exists());
    assert_eq!(fs::read_dir(sandbox.path().join("tmp")).unwrap().count(), 0);
    let (ended, s3) = against(&sandbox, "zip", |_, _| error(403, "AccessDenied"));
    ended.fails(3, &["status 403: AccessDenied: because", "s3:PutObject", &src]);
    assert_eq!(s3.asked().len(), 1, "there is no use in trying again");
}

#[test]
fn a_bucket_elsewhere_is_named_with_its_region() {
    let sandbox = project();
    let moved =
        |_, _: &Request| error(301, "PermanentRedirect").with("x-amz-bucket-region", "us-west-2");
    let (ended, _) = against(&sandbox, "none", moved);
    let want = "the bucket `shop` is in region `us-west-2`, and not in `eu-west-1`";
    ended.fails(2, &[want, "AWS_REGION=us-west-2"]);
    let malformed = |_, _: &Request| {
        let body =
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-west-2</Region></Error>";
        Answer::of(400, body)
    };
    against(&sandbox, "none", malformed).0.fails(2, &[want]);
}

/// A sandbox with a build that leaves a file of 30 MB.
fn large() -> Sandbox {
    let commands = "mkdir out; head -c 30000000 /dev/zero > out/large";
    let artifacts = "files: ['*']\nbase-directory: out";
    sandbox(&[("buildspec.yml", &spec(commands, artifacts))])
}

#[test]
fn an_upload_that_fails_half_way_is_taken_back() {
    let sandbox = large();
    let part = |request: &Request, number: &str| request.query.contains(number);
    let (ended, s3) = against(&sandbox, "none", move |_, request| match &*request.method {
        "POST" => Answer::of(200, "<R><UploadId>7</UploadId></R>"),
        "PUT" if part(request, "partNumber=2&") => error(403, "AccessDenied"),
        "DELETE" => Answer::of(204, ""),
        _ => stored(),
    });
    ended.fails(3, &["`p/large` with status 403"]);
    assert!(!ended.stderr.contains("left in the bucket"), "{}", ended.stderr);
    let aborted = s3.asked().into_iter().filter(|it| it.method == "DELETE");
    let aborted: Vec<String> = aborted.map(|it| it.query).collect();
    assert_eq!(aborted, ["uploadId=7"]);
    let (ended, _) = against(&sandbox, "none", |_, request| match &*request.method {
        "POST" => Answer::of(200, "<R><UploadId>7</UploadId></R>"),
        _ => error(403, "AccessDenied"),
    });
    ended.fails(3, &["parts of an upload that was not finished are left in the bucket"]);
}

#[test]
fn whoever_stops_an_upload_does_not_wait() {
    let sandbox = large();
    let s3 = Scripted::start(|request| match &*request.method {
        "POST" => Answer::of(200, "<R><UploadId>7</UploadId></R>"),
        "DELETE" => Answer::of(204, ""),
        _ => Answer::Silence,
    });
    let run = known(build(&sandbox, "s3://shop/p", "none"));
    let mut run = run.env("AWS_ENDPOINT_URL", format!("http://{}", s3.host())).start();
    run.until("a part is sent", |_| s3.asked().iter().find(|it| it.method == "PUT").map(drop));
    let begun = Instant::now();
    run.signal(Signal::TERM);
    run.finish().fails(143, &["stopped by SIGTERM"]);
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(s3.asked().iter().any(|it| it.method == "DELETE"), "the upload is taken back");
}

#[test]
fn a_link_that_leads_out_is_sent_as_the_file_that_it_means() {
    let sandbox = sandbox(&[("buildspec.yml", &spec("true", "files: ['link', 'dangling']"))]);
    sandbox.write("../outside", "outside");
    symlink("../outside", sandbox.src().join("link")).unwrap();
    symlink("nowhere", sandbox.src().join("dangling")).unwrap();
    let (ended, s3) = against(&sandbox, "none", |_, _| stored());
    ended.has_status(0);
    assert_eq!(s3.asked().iter().map(|it| &*it.body).collect::<Vec<_>>(), [b"outside"]);
}

#[test]
fn a_full_disk_is_told_once_by_the_name_of_the_artifact_and_the_others_are_kept() {
    let artifacts = "files: [large]\nsecondary-artifacts:\n  small:\n    files: [buildspec.yml]";
    let sandbox = sandbox(&[("buildspec.yml", &spec("true", artifacts))]);
    // Nothing in it can be compressed.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    sandbox.write("large", (0..3 << 20).map(|_| next()).collect::<Vec<u8>>());
    // Writing fails at one MiB, as it does on a disk that is full.
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    for (packaging, name, small) in
        [("none", "large", "small/buildspec.yml"), ("zip", "artifacts.zip", "small.zip")]
    {
        let out = sandbox.src().join(format!("out-{packaging}"));
        let shown = out.display().to_string();
        let run = build(&sandbox, &shown, packaging).under(["sh", "-c", script, "sh"]).go();
        run.fails(3, &[&format!("error: the artifacts could not be collected: `{shown}/{name}`")]);
        assert!(!run.stderr.contains("ZipWriter"), "{run}");
        let left: Vec<_> = rbuild_tests::store::files(&out);
        assert_eq!(left, [out.join(small)], "{run}");
    }
}
