//! What is read from the files of projects, and what is told of those that are wrong.

use expect_test::{Expect, expect};
use rbuild_agent::buildspec::Value;

use super::*;

/// As `aws codebuild batch-get-projects` prints it, with more than rbuild knows.
const SHOP: &str = r#"{
  "projects": [{
    "name": "shop",
    "arn": "arn:aws:codebuild:eu-west-1:123456789012:project/shop",
    "source": {
      "type": "GITHUB", "location": "https://token@github.com/acme/shop.git",
      "gitCloneDepth": 1, "buildspec": "ci/buildspec.yml", "insecureSsl": false
    },
    "sourceVersion": "refs/heads/main",
    "secondarySources": [
      {"type": "S3", "location": "bucket/lib.zip", "sourceIdentifier": "lib"},
      {"type": "GITHUB", "location": "https://github.com/acme/docs", "sourceIdentifier": "docs"}
    ],
    "secondarySourceVersions": [{"sourceIdentifier": "docs", "sourceVersion": "v1"}],
    "artifacts": {
      "type": "S3", "location": "arn:aws:s3:::releases", "path": "shop", "namespaceType": "BUILD_ID",
      "name": "shop.zip", "packaging": "ZIP", "overrideArtifactName": true, "encryptionDisabled": false
    },
    "secondaryArtifacts": [
      {"type": "S3", "location": "logs", "artifactIdentifier": "logs", "encryptionDisabled": true}
    ],
    "cache": {"type": "LOCAL", "modes": ["LOCAL_SOURCE_CACHE"]},
    "environment": {
      "type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0",
      "computeType": "BUILD_GENERAL1_SMALL", "privilegedMode": true,
      "environmentVariables": [
        {"name": "STAGE", "value": "prod", "type": "PLAINTEXT"},
        {"name": "OLD", "value": "no type"},
        {"name": "DB", "value": "/shop/db", "type": "PARAMETER_STORE"},
        {"name": "KEY", "value": "shop:key::", "type": "SECRETS_MANAGER"}
      ]
    },
    "serviceRole": "arn:aws:iam::123456789012:role/x",
    "timeoutInMinutes": 30, "queuedTimeoutInMinutes": 480,
    "encryptionKey": "arn:aws:kms:eu-west-1:123456789012:alias/aws/s3",
    "created": 1700000000.123, "badge": {"badgeEnabled": false}, "somethingNew": [{"a": null}]
  }],
  "projectsNotFound": []
}"#;

#[test]
fn what_means_something_is_read_and_the_rest_is_passed_over() {
    let it = parse(SHOP.as_bytes(), None).unwrap();
    let mut lines = vec![
        format!("{} {:?} {:?} {:?}", it.name, it.account, it.region, it.image),
        format!("{:?} {:?} {:?}", it.buildspec, it.repo_url, it.source_version),
        format!("{:?} {:?} {:?}", it.timeout, it.encryption_key, it.not_done),
    ];
    lines.extend(it.secondary_sources.iter().map(|it| format!("{it:?}")));
    lines.extend(it.variables.iter().map(|it| format!("{} {:?}", it.name, it.value)));
    lines.push(format!("{:?}", it.artifacts));
    lines.push(format!("{:?}\n", it.secondary_artifacts));
    expect![[r#"
        shop Some("123456789012") Some("eu-west-1") Some("aws/codebuild/standard:7.0")
        Path("ci/buildspec.yml") Some("https://github.com/acme/shop.git") Some("refs/heads/main")
        Some(1800s) Some("arn:aws:kms:eu-west-1:123456789012:alias/aws/s3") ["keeps no cache yet"]
        ProjectSource { identifier: "lib", repo_url: Some("s3://bucket/lib.zip"), version: None }
        ProjectSource { identifier: "docs", repo_url: Some("https://github.com/acme/docs"), version: Some("v1") }
        STAGE Plain("prod")
        OLD Plain("no type")
        DB Secret(Parameter("/shop/db"))
        KEY Secret(SecretsManager(SecretsManagerReference { secret_id: "shop", json_key: Some("key"), version_stage: None, version_id: None }))
        S3(Target { bucket: "releases", path: Some("shop"), namespace_build_id: true, name: "shop.zip", packaging: Zip, override_name: true, encryption_key: Some("arn:aws:kms:eu-west-1:123456789012:alias/aws/s3") })
        [("logs", S3(Target { bucket: "logs", path: None, namespace_build_id: false, name: "shop", packaging: Folder, override_name: false, encryption_key: None }))]
    "#]].assert_eq(&lines.join("\n"));
}

#[test]
fn a_project_may_stand_alone_and_need_little() {
    let project = parse(br#"{"name": "p"}"#, None).unwrap();
    assert_eq!(project, Project { name: "p".into(), ..Project::default() });
    let several = br#"{"projects": [{"name": "a"}, {"name": "b", "arn": "arn:b"}]}"#;
    assert_eq!(parse(several, Some("b")).unwrap().name, "b");
    assert_eq!(parse(several, Some("arn:b")).unwrap().name, "b");
}

#[track_caller]
fn refused(text: &str, want: Expect) {
    let problem = parse(text.as_bytes(), None).unwrap_err();
    let place =
        problem.place.map(|(line, column)| format!("{line}:{column}: ")).unwrap_or_default();
    let hint = problem.hint.map(|it| format!("hint: {it}\n")).unwrap_or_default();
    want.assert_eq(&format!("{place}{}\n{hint}", problem.message));
}

#[test]
fn which_project_is_meant_must_be_clear() {
    refused(
        r#"{"projects": [{"name": "a"}, {"name": "b"}]}"#,
        expect![[r#"
        there are several projects in it: `a`, `b`
        hint: name one: --project FILE#a
    "#]],
    );
    refused(
        r#"{"projects": [], "projectsNotFound": ["a"]}"#,
        expect![[r#"
        there is no project in it
        hint: aws prints those that were not found under `projectsNotFound`
    "#]],
    );
    let problem = parse(br#"{"name": "a"}"#, Some("b")).unwrap_err();
    assert_eq!(problem, Problem::new("there is no project `b` in it").hint("it has `a`"));
}

#[test]
fn wrong_types_are_told_with_their_path_and_place() {
    for (text, want) in [
        (
            "",
            expect![[r#"
            1:1: EOF while parsing a value
        "#]],
        ),
        (
            "[]",
            expect![[r#"
            1:1: invalid type: sequence, expected an object
        "#]],
        ),
        (
            "{\"name\": \"p\",\n \"name\": }",
            expect![[r#"
            2:10: expected value
        "#]],
        ),
        (
            r#"{"source": {}}"#,
            expect![[r#"
                1:14: missing field `name`
            "#]],
        ),
        (
            r#"{"name": 5}"#,
            expect![[r#"
            1:10: `name`: invalid type: integer `5`, expected a string
        "#]],
        ),
        (
            r#"{"projects": {"name": "p"}}"#,
            expect![[r#"
                1:14: `projects`: invalid type: map, expected a sequence
            "#]],
        ),
        (
            r#"{"projects": [{"name": "a"}, []]}"#,
            expect![[r#"
                1:30: `projects[1]`: invalid type: sequence, expected an object
            "#]],
        ),
        (
            "{\"projects\": [{\"name\": \"p\", \"environment\": {\"environmentVariables\": [\n\
             {\"name\": \"A\", \"value\": \"1\"},\n{\"name\": \"B\", \"value\": 2}]}}]}",
            expect![[r#"
                3:24: `projects[0].environment.environmentVariables[1].value`: invalid type: integer `2`, expected a string
            "#]],
        ),
        (
            r#"{"name": "p", "environment": {"environmentVariables": [{"name": "A", "value": "x", "type": "PLAIN"}]}}"#,
            expect![[r#"
                1:98: `environment.environmentVariables[0].type`: unknown variant `PLAIN`, expected one of `PLAINTEXT`, `PARAMETER_STORE`, `SECRETS_MANAGER`
            "#]],
        ),
        (
            r#"{"name": "p", "environment": {"environmentVariables": [{"name": "A"}], "x": 1}}"#,
            expect![[r#"
                1:68: `environment.environmentVariables[0]`: missing field `value`
            "#]],
        ),
        (
            r#"{"name": "p", "source": ["GITHUB"]}"#,
            expect![[r#"
                1:25: `source`: invalid type: sequence, expected an object
            "#]],
        ),
        (
            r#"{"name": "p", "timeoutInMinutes": -5}"#,
            expect![[r#"
            1:36: `timeoutInMinutes`: invalid value: integer `-5`, expected u32
        "#]],
        ),
        (
            r#"{"name": "p", "timeoutInMinutes": 99999999999}"#,
            expect![[r#"
            1:45: `timeoutInMinutes`: invalid value: integer `99999999999`, expected u32
        "#]],
        ),
        (
            r#"{"name": "p", "artifacts": {"type": "DISK"}}"#,
            expect![[r#"
            1:42: `artifacts.type`: unknown variant `DISK`, expected one of `CODEPIPELINE`, `NO_ARTIFACTS`, `S3`
        "#]],
        ),
    ] {
        refused(text, want);
    }
    assert!(parse(b"\xff\xfe\0\x01", None).is_err());
    assert!(parse("[".repeat(200_000).as_bytes(), None).is_err());
    let deep = format!("{{\"name\": \"p\", \"x\": {}", "[".repeat(1_000_000));
    assert!(parse(deep.as_bytes(), None).is_err());
}

#[test]
fn what_cannot_be_done_is_told() {
    for (text, want) in [
        (
            r#"{"name": "p", "artifacts": {"type": "S3"}}"#,
            expect![[r#"
            its artifacts go to S3, and have no `location`
        "#]],
        ),
        (
            r#"{"name": "p", "source": {"buildspec": "arn:aws:s3:::bucket/ci/spec.yml"}}"#,
            expect![[r#"
                its buildspec is in S3, at `arn:aws:s3:::bucket/ci/spec.yml`
                hint: fetch it, and name the file: aws s3 cp s3://bucket/ci/spec.yml buildspec.yml
            "#]],
        ),
        (
            r#"{"name": "p", "environment": {"environmentVariables": [{"name": "CODEBUILD_X", "value": ""}]}}"#,
            expect![[r#"
                its variable `CODEBUILD_X` begins with `CODEBUILD_`, which only the build may set
            "#]],
        ),
        (
            r#"{"name": "p", "environment": {"environmentVariables": [{"name": "A", "value": "a:b:c:d", "type": "SECRETS_MANAGER"}]}}"#,
            expect![[r#"
                its variable `A`: there is both a version stage and a version ID
            "#]],
        ),
    ] {
        refused(text, want);
    }
}

#[test]
fn a_buildspec_is_a_path_or_the_text_itself() {
    for (text, want) in [
        ("", ProjectBuildspec::Default),
        (" \n", ProjectBuildspec::Default),
        ("ci/b.yml", ProjectBuildspec::Path("ci/b.yml".into())),
        ("arn:is/a/folder.yml", ProjectBuildspec::Path("arn:is/a/folder.yml".into())),
        ("version: 0.2", ProjectBuildspec::Inline("version: 0.2".into())),
        ("# x\nversion: 0.2\n", ProjectBuildspec::Inline("# x\nversion: 0.2\n".into())),
        ("{\"version\": 0.2}", ProjectBuildspec::Inline("{\"version\": 0.2}".into())),
    ] {
        assert_eq!(buildspec(Some(text)), Ok(want), "for `{text}`");
    }
}

#[test]
fn secrets_are_references() {
    let project = parse(SHOP.as_bytes(), None).unwrap();
    let kinds: Vec<_> =
        project.variables.iter().map(|it| matches!(it.value, Value::Plain(_))).collect();
    assert_eq!(kinds, [true, true, false, false]);
}
