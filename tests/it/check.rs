//! `rbuild check`: what people and programs are told of buildspecs, and how it exits.

use std::{fs, fs::File, os::unix::fs::PermissionsExt as _, time::Duration};

use expect_test::{Expect, expect};
use rbuild_tests::{Finished, Sandbox, peers};
use serde_json::Value;

use crate::sandbox;

const GOOD: &str = "version: 0.2\nphases:\n  build:\n    commands:\n      - make\n";
const WARNING: &str = "version: 0.2\nphases:\n  build:\n    comands: [ls]\n";
const WRONG: &str = "version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b\n";

/// A sandbox with a file of each kind.
fn files() -> Sandbox {
    sandbox(&[
        ("buildspec.yml", GOOD),
        ("ci/warning.yml", WARNING),
        ("ci/wrong.yml", WRONG),
        ("block.yml", BLOCK),
    ])
}

/// Commands in which shellcheck finds something, in every way of YAML.
const BLOCK: &str = "version: 0.2
phases:
  build:
    commands:
      - |
        set -e

        if true; then
          ls $DIR
        fi
      - >
        echo a
        $B
      - 'echo $C'
      - \"\\techo $D\"
      - echo $A
          $E
";

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|err| panic!("{err}: {finished}"))
}

#[track_caller]
fn check(sandbox: &Sandbox, args: &[&str], want: Expect) {
    let args = ["check"].iter().chain(args);
    want.assert_eq(&sandbox.rbuild(args).go().to_string());
}

#[test]
fn people_are_told_what_is_wrong_where_and_what_to_do() {
    let sandbox = files();
    check(
        &sandbox,
        &[],
        expect![[r"
            --- stdout
            no findings in 1 file
            --- exit 0
        "]],
    );
    check(
        &sandbox,
        &["ci/wrong.yml", "missing.yml", "ci", "ci/warning.yml", "buildspec.yml"],
        expect![[r"
            --- stdout
            error: command 1 of `build.commands` is a mapping, not text [command-not-text]
             --> ci/wrong.yml:5:9
              |
            5 |       - echo a: b
              |         ^
            CodeBuild says: YAML_FILE_ERROR: Expected Commands[0] to be of string type: found subkeys instead at line 5, value of the key tag on line 4 might be empty
            hint: a colon followed by a space makes a mapping; in quotes it does not: `- 'echo a: b'`

            error: `missing.yml` could not be read: No such file or directory (os error 2) [unreadable-file]
             --> missing.yml

            error: `ci` could not be read: is a directory [unreadable-file]
             --> ci
            hint: name the file in it

            warning: `comands` means nothing here [unknown-key]
             --> ci/warning.yml:4:5
              |
            4 |     comands: [ls]
              |     ^
            hint: did you mean `commands`?

            3 errors, 1 warning in 5 files
            --- exit 2
        "]],
    );
}

#[test]
fn standard_input_is_a_file_like_others() {
    let run = files().rbuild(["check", "-", "buildspec.yml"]).input(WRONG).go();
    run.has_status(2);
    assert!(run.stdout.contains("\n --> <stdin>:5:9\n"), "{run}");
    assert!(run.stdout.ends_with("\n1 error in 2 files\n"), "{run}");
}

#[test]
fn switches_and_comments_say_what_counts() {
    let sandbox = files();
    sandbox.write("allowed.yml", WARNING.replace("[ls]", "[ls] # rbuild: allow unknown-key"));
    for (args, status, last) in [
        (&["ci/warning.yml"][..], 0, "1 warning in 1 file\n"),
        (&["ci/warning.yml", "--deny", "warnings"], 2, "1 error in 1 file\n"),
        (&["ci/warning.yml", "--deny", "unknown-key"], 2, "1 error in 1 file\n"),
        (
            &["ci/warning.yml", "--deny=unknown-key", "--warn=unknown-key"],
            0,
            "1 warning in 1 file\n",
        ),
        (&["ci/warning.yml", "--warn=unknown-key", "--deny=unknown-key"], 2, "1 error in 1 file\n"),
        (
            &["ci/warning.yml", "--deny=unknown-key", "--allow=unknown-key"],
            0,
            "no findings in 1 file\n",
        ),
        (&["allowed.yml", "--deny", "warnings"], 0, "no findings in 1 file\n"),
        (&["missing.yml", "--allow", "unreadable-file"], 0, "no findings in 1 file\n"),
        (&["block.yml", "--allow", "SC2086"], 0, "no findings in 1 file\n"),
        (&["block.yml", "--allow", "shellcheck"], 0, "no findings in 1 file\n"),
        (&["block.yml", "--no-shellcheck"], 0, "no findings in 1 file\n"),
    ] {
        let run = sandbox.rbuild(["check"].iter().chain(args)).go();
        run.has_status(status);
        assert!(run.stdout.ends_with(last), "{args:?}: {run}");
    }
    sandbox
        .rbuild(["check", "--allow", "unknown-kez"])
        .go()
        .fails(2, &["did you mean `unknown-key`?"]);
}

#[test]
fn rules_are_listed() {
    let sandbox = sandbox(&[]);
    let table = sandbox.rbuild(["check", "--list-rules"]).ok().stdout;
    assert!(table.contains("\nmulti-line-status            off      A command"), "{table}");
    let list = json(&sandbox.rbuild(["check", "--list-rules", "--format", "json"]).ok());
    let rules = list["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), table.lines().count());
    assert!(rules.iter().all(|it| it["about"].is_string() && it["level"].is_string()), "{list}");
}

#[test]
fn programs_get_json() {
    let run = files().rbuild(["check", "--format=json", "ci/wrong.yml", "ci/warning.yml"]).go();
    let report = json(run.has_status(2));
    assert_eq!(report["version"], 1);
    let summary = r#"{"files":2,"errors":1,"warnings":1,"notes":0,"omitted":0}"#;
    assert_eq!(report["summary"].to_string(), summary);
    expect![[r#"{"file":"ci/warning.yml","line":4,"column":5,"rule":"unknown-key","level":"warning","message":"`comands` means nothing here","hint":"did you mean `commands`?"}"#]]
        .assert_eq(&report["findings"][1].to_string());
}

#[test]
fn code_scanning_gets_sarif() {
    let args = ["check", "--format=sarif", "ci/wrong.yml", "block.yml", "missing.yml"];
    let run = files().rbuild(args).go();
    let log = json(run.has_status(2));
    assert_eq!((&log["version"], &log["runs"][1]), (&Value::from("2.1.0"), &Value::Null));
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = log["runs"][0]["results"].as_array().expect("results");
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("index")).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let level = result["level"].as_str().expect("level");
        assert!(["error", "warning", "note"].contains(&level), "{result}");
        let uri = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        assert!(uri.is_string() && result["message"]["text"].is_string(), "{result}");
    }
    let ids: Vec<&str> = results.iter().filter_map(|it| it["ruleId"].as_str()).collect();
    assert_eq!(ids[0], "command-not-text");
    assert_eq!(ids.last(), Some(&"unreadable-file"));
    assert!(ids.contains(&"SC2086"), "{ids:?}");
}

#[test]
fn workflows_get_annotations() {
    let sandbox = files();
    sandbox.write("a,b.yml", WARNING);
    let args = ["check", "ci/wrong.yml", "a,b.yml"];
    let run = sandbox.rbuild(args).env("GITHUB_ACTIONS", "true").go();
    expect![[r"
        --- stdout
        ::error file=ci/wrong.yml,line=5,col=9,title=command-not-text::command 1 of `build.commands` is a mapping, not text%0ACodeBuild says: YAML_FILE_ERROR: Expected Commands[0] to be of string type: found subkeys instead at line 5, value of the key tag on line 4 might be empty%0Ahint: a colon followed by a space makes a mapping; in quotes it does not: `- 'echo a: b'`
        ::warning file=a%2Cb.yml,line=4,col=5,title=unknown-key::`comands` means nothing here%0Ahint: did you mean `commands`?
        --- exit 2
    "]]
    .assert_eq(&run.to_string());
    let explicit = sandbox.rbuild(args.iter().chain(&["--format=github"])).go();
    assert_eq!(explicit.stdout, run.stdout);
    let asked = sandbox.rbuild(args.iter().chain(&["--format=text"])).env("GITHUB_ACTIONS", "true");
    assert!(asked.go().stdout.ends_with("1 error, 1 warning in 2 files\n"));
}

#[test]
fn what_shellcheck_finds_has_its_place_in_the_file() {
    // It must be there: otherwise this would test nothing.
    peers::run("shellcheck", "shellcheck", &["--version"]);
    let report = json(&files().rbuild(["check", "--format=json", "block.yml"]).ok());
    let findings = report["findings"].as_array().expect("findings").iter();
    let places: Vec<String> = findings
        .map(|it| format!("{}:{}-{} {}", it["line"], it["column"], it["endColumn"], it["rule"]))
        .collect();
    let quote = |place: &str| format!("{place} \"SC2086\"");
    let want = ["9:14-18", "13:9-11", "14:15-17", "15:17-19", "16:14-16", "17:11-13"].map(quote);
    assert_eq!(places, want);
}

/// What teams write whose image goes to ECR: all is well, and there may be things worth knowing.
#[test]
fn a_usual_buildspec_has_neither_errors_nor_warnings() {
    let report = json(&sandbox(&[("buildspec.yml", ECR)]).rbuild(["check", "--format=json"]).ok());
    let summary = &report["summary"];
    assert_eq!((&summary["errors"], &summary["warnings"]), (&0.into(), &0.into()), "{report}");
}

const ECR: &str = "version: 0.2

phases:
  pre_build:
    commands:
      - echo Logging in to Amazon ECR...
      - aws ecr get-login-password --region $AWS_DEFAULT_REGION | docker login --username AWS --password-stdin $AWS_ACCOUNT_ID.dkr.ecr.$AWS_DEFAULT_REGION.amazonaws.com
      - REPOSITORY_URI=$AWS_ACCOUNT_ID.dkr.ecr.$AWS_DEFAULT_REGION.amazonaws.com/web
      - COMMIT_HASH=$(echo $CODEBUILD_RESOLVED_SOURCE_VERSION | cut -c 1-7)
      - IMAGE_TAG=${COMMIT_HASH:=latest}
  build:
    commands:
      - echo Build started on `date`
      - echo Building the Docker image...
      - docker build -t $REPOSITORY_URI:latest .
      - docker tag $REPOSITORY_URI:latest $REPOSITORY_URI:$IMAGE_TAG
  post_build:
    commands:
      - echo Build completed on `date`
      - docker push $REPOSITORY_URI:latest
      - docker push $REPOSITORY_URI:$IMAGE_TAG
      - printf '[{\"name\":\"web\",\"imageUri\":\"%s\"}]' $REPOSITORY_URI:$IMAGE_TAG > imagedefinitions.json
artifacts:
  files: imagedefinitions.json
";

#[test]
fn shellcheck_may_be_absent_or_broken() {
    let sandbox = files();
    let path = sandbox.path().join("bin");
    let run = |args: &[&str]| {
        let args = ["check", "block.yml"].iter().chain(args);
        sandbox.rbuild(args).env("PATH", &path).ok()
    };
    assert_eq!(run(&[]).stderr, "");
    let note = "note: block.yml: shellcheck is not installed: it could say more of commands\n";
    assert_eq!(run(&["-v"]).stderr, note);
    fs::create_dir(&path).expect("folder");
    let program = path.join("shellcheck");
    fs::write(&program, "#!/bin/sh\necho '{\"comments\": 1}'\n").expect("program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let broken = run(&[]);
    assert!(
        broken.stderr.starts_with("note: block.yml: shellcheck could not be asked"),
        "{broken}"
    );
    assert_eq!(broken.stdout, "no findings in 1 file\n");
    let left = fs::read_dir(sandbox.path().join("tmp")).expect("folder").count();
    assert_eq!(left, 0, "its folder is left behind");
}

#[test]
fn secrets_are_not_repeated() {
    let secret = ["hunter2", "hunter3"].concat();
    let text =
        format!("version: 0.2\nenv:\n  variables:\n    DB_PASSWORD: {secret}\nphases: {{}}\n");
    let sandbox = sandbox(&[("buildspec.yml", &text)]);
    for format in ["text", "json", "sarif", "github"] {
        let run = sandbox.rbuild(["check", "--format", format]).ok();
        assert!(run.stdout.contains("secret-in-variables"), "{run}");
        assert!(!run.stdout.contains(&secret), "{run}");
    }
}

#[test]
fn hostile_files_are_looked_at_quickly_and_change_nothing() {
    let sandbox = sandbox(&[]);
    File::create(sandbox.src().join("large")).and_then(|it| it.set_len(100_000_000)).expect("file");
    let deep = "- ".repeat(100_000);
    let colours = "version: 0.2\nphases:\n  build:\n    \u{1b}[31mx: [\"\u{1b}[2J\"]\n";
    let many = (0..10_000).map(|it| format!("      - source x{it} $A\n")).collect::<Vec<_>>();
    let many = format!("version: 0.2\nphases:\n  build:\n    commands:\n{}", many.concat());
    let empty =
        format!("version: 0.2\nphases: {{build: {{commands: [{}]}}}}\n", "~,".repeat(100_000));
    for (file, bytes, status, phrase) in [
        ("binary", &(0..=255).collect::<Vec<u8>>()[..], 2, "binary"),
        ("deep", deep.as_bytes(), 2, "nested"),
        ("colours", colours.as_bytes(), 0, "warning: "),
        ("many", many.as_bytes(), 0, "more of many are not shown)"),
        ("empty", empty.as_bytes(), 0, "more of empty are not shown)"),
    ] {
        sandbox.write(file, bytes);
        let run = sandbox.rbuild(["check", file]).within(Duration::from_mins(1)).go();
        run.has_status(status);
        assert!(run.stdout.contains(phrase), "{file}: {}", run.stdout.len());
        assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains("panicked"), "{file}");
    }
    let large = sandbox.rbuild(["check", "large"]).under(["prlimit", "--as=1000000000"]).go();
    assert!(large.has_status(2).stdout.contains("more than 2.00 MB"), "{large}");
    sandbox.run("mkfifo", ["fifo"]).ok();
    let fifo = sandbox.rbuild(["check", "fifo"]).within(Duration::from_secs(20)).go();
    assert!(fifo.has_status(2).stdout.contains("FIFO"), "{fifo}");
}
