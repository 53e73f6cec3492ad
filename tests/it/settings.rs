//! Where the settings of a build come from: flags, env files, projects, and the build before.

use std::fs;

use expect_test::expect;
use rbuild_tests::{Finished, Sandbox};

use crate::sandbox;

/// A buildspec of one command.
fn of(command: &str) -> String {
    format!("version: 0.2\nphases:\n  build:\n    commands:\n      - {command}\n")
}

/// A project called `shop`, with these fields besides.
fn project(fields: &str) -> String {
    format!("{{\"projects\": [{{\"name\": \"shop\", {fields}}}], \"projectsNotFound\": []}}")
}

#[track_caller]
fn says(finished: &Finished, line: &str) {
    assert!(finished.stdout.contains(&format!("\n{line}\n")), "no line `{line}`\n{finished}");
}

#[test]
fn the_last_level_that_sets_a_variable_wins() {
    let spec = "version: 0.2\n\
                env: {variables: {A: spec, B: spec, C: spec, D: spec}}\n\
                phases: {build: {commands: ['echo $BASE $A $B $C $D $E $F']}}\n";
    let variables = ["BASE", "B", "C", "D"].map(|name| {
        format!("{{\"name\": \"{name}\", \"value\": \"project\", \"type\": \"PLAINTEXT\"}}")
    });
    let fields =
        format!("\"environment\": {{\"environmentVariables\": [{}]}}", variables.join(","));
    let sandbox = sandbox(&[
        ("buildspec.yml", spec),
        ("../shop.json", &project(&fields)),
        ("../one.env", "# note\nC=one\nD=one\nE=one\n"),
        ("../two.env", "E=two\nF"),
    ]);
    let words = "run --project ../shop.json --env-file ../one.env --env-file ../two.env -e D=flag";
    let run = sandbox.rbuild(words.split(' ')).env("F", "caller").ok();
    says(&run, "project spec project one flag two caller");
    // `-e` takes a file as the local agent does, and wins over `--env-file` then.
    let words = "run -e ../two.env --env-file ../one.env -e A=1 -e A=2";
    says(&sandbox.rbuild(words.split(' ')).ok(), "2 spec one one two");
}

#[test]
fn the_command_line_of_the_local_agent_is_taken_as_it_is() {
    let command = "echo $AWS_PROFILE $FROM_FILE $QUOTED key=$AWS_ACCESS_KEY_ID; \
                   cat $CODEBUILD_SRC_DIR_lib/note; pwd; echo x >made";
    let spec = format!("{}artifacts: {{files: [made]}}\n", of(command));
    let sandbox = sandbox(&[
        ("../app/ci/b.yml", &spec),
        ("../lib/note", "of the library\n"),
        ("../build.env", "FROM_FILE=yes\nQUOTED=\"a\"\n"),
    ]);
    let words = "run -i aws/codebuild/standard:7.0 -a ../out-dir -l agent:latest -r ../reports \
                 -s ../app -s lib:../lib -e ../build.env -b ci/b.yml -c -p team -m -d";
    let run = sandbox.rbuild(words.split_whitespace()).env("AWS_ACCESS_KEY_ID", "caller's").ok();
    says(&run, "team yes \"a\" key=");
    says(&run, "of the library");
    says(&run, &sandbox.path().join("app").display().to_string());
    assert_eq!(fs::read_to_string(sandbox.path().join("out-dir/made")).unwrap(), "x\n");
    let warnings: Vec<&str> = run.stderr.lines().filter(|it| it.starts_with("warning")).collect();
    expect![[r#"
        warning: commands run on this machine, and not in the image `aws/codebuild/standard:7.0`
        warning: rbuild does not process reports yet: -r is left out
        warning: there is no container that could be privileged: -d is left out
        warning: rbuild needs no image of an agent: `agent:latest` is left out
    "#]]
    .assert_eq(&(warnings.join("\n") + "\n"));
}

#[test]
fn an_env_file_that_is_wrong_is_named_with_its_line() {
    let sandbox = sandbox(&[
        ("buildspec.yml", &of("true")),
        ("a.env", "A=1\nexport B=2\n"),
        ("ci.env", "CODEBUILD_CI=1\n"),
    ]);
    sandbox.write("binary.env", b"A=\xff\n");
    sandbox.write("big.env", vec![b'a'; 3_000_000]);
    for (args, phrases) in [
        (["--env-file", "a.env"], &["a.env:2:1", "`export B`", "hint: "][..]),
        (["-e", "a.env"], &["a.env:2:1"]),
        (["--env-file", "ci.env"], &["ci.env:1:1", "CODEBUILD_"]),
        (["--env-file", "binary.env"], &["binary.env:1:1", "not UTF-8"]),
        (["--env-file", "big.env"], &["big.env", "more than"]),
        (["--env-file", "none.env"], &["none.env"]),
        (["--env-file", "."], &["directory"]),
        (["-e", "none.env"], &["`none.env` is neither NAME=VALUE nor an env file"]),
        (["-e", "CODEBUILD_CI=1"], &["CODEBUILD_CI"]),
    ] {
        sandbox.rbuild(["run"].into_iter().chain(args)).go().fails(2, phrases);
    }
}

#[test]
fn a_project_says_who_and_where_a_build_is() {
    let spec = of("echo $CODEBUILD_BUILD_ID $CODEBUILD_BUILD_ARN $CODEBUILD_BUILD_IMAGE \
                   $CODEBUILD_SOURCE_VERSION $CODEBUILD_SOURCE_REPO_URL $AWS_REGION; \
                   echo $CODEBUILD_SRC_DIR_lib $CODEBUILD_SOURCE_VERSION_lib \
                   $CODEBUILD_SOURCE_REPO_URL_lib");
    let fields = "\"arn\": \"arn:aws:codebuild:eu-west-1:123456789012:project/shop\",
        \"source\": {\"type\": \"GITHUB\", \"location\": \"https://h.example/shop.git\",
                     \"buildspec\": \"ci/b.yml\"},
        \"sourceVersion\": \"main\",
        \"secondarySources\": [{\"type\": \"S3\", \"location\": \"b/lib.zip\",
                                \"sourceIdentifier\": \"lib\"}],
        \"secondarySourceVersions\": [{\"sourceIdentifier\": \"lib\", \"sourceVersion\": \"v1\"}],
        \"environment\": {\"image\": \"aws/codebuild/standard:7.0\"}, \"new\": {\"a\": [1]}";
    let sandbox =
        sandbox(&[("ci/b.yml", &spec), ("../shop.json", &project(fields)), ("../lib/x", "")]);
    let run = sandbox.rbuild(["run", "--project", "../shop.json", "-s", "lib:../lib"]);
    let run = run.env("AWS_REGION", "us-west-2").ok();
    // Each build of a project has an ID of its own, which names its artifacts in S3.
    let id = run.stdout.lines().find_map(|it| it.strip_prefix("shop:")?.split(' ').next());
    let id = id.unwrap_or_else(|| panic!("no ID\n{run}")).to_owned();
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert!(lengths == [8, 4, 4, 4, 12] && !id.starts_with("00000000-0000"), "{id}");
    says(
        &run,
        &format!(
            "shop:{id} arn:aws:codebuild:eu-west-1:123456789012:build/shop:{id} \
             aws/codebuild/standard:7.0 main https://h.example/shop.git eu-west-1"
        ),
    );
    let lib = sandbox.path().join("lib");
    says(&run, &format!("{} v1 s3://b/lib.zip", lib.display()));
    let unmapped = sandbox.rbuild(["run", "--project", "../shop.json"]).go();
    unmapped.fails(2, &["`lib`", "hint: add -s lib:DIR"]);
}

#[test]
fn a_buildspec_in_the_project_is_shown_as_such() {
    let inline = |command: &str| {
        let text = of(command).replace('\n', "\\n");
        project(&format!("\"source\": {{\"type\": \"NO_SOURCE\", \"buildspec\": \"{text}\"}}"))
    };
    let sandbox =
        sandbox(&[("../a.json", &inline("echo hello")), ("../b.json", &inline("exit 3"))]);
    says(&sandbox.rbuild(["run", "--project", "../a.json"]).ok(), "hello");
    let failed = sandbox.rbuild(["run", "--project", "../b.json"]).go();
    failed.fails(1, &["--> ../b.json (source.buildspec):5:9", "5 |       - exit 3"]);
    // The flag wins.
    sandbox.write("own.yml", of("echo own"));
    says(&sandbox.rbuild(["run", "own.yml", "--project", "../b.json"]).ok(), "own");
}

#[test]
fn a_project_that_is_wrong_is_named_with_path_and_place() {
    let sandbox = sandbox(&[("buildspec.yml", &of("true"))]);
    let two = "{\"projects\": [{\"name\": \"a\"}, {\"name\": \"b\"}]}";
    let typed = "{\"projects\": [\n{\"name\": \"a\", \"environment\": {\"image\": 7}}]}";
    for (text, phrases) in [
        ("", &["p.json:1:1"][..]),
        ("[1]", &["expected an object"]),
        ("{\"name\": \"a\",}", &["p.json:1:14"]),
        (typed, &["p.json:2:", "`projects[0].environment.image`", "expected a string"]),
        (two, &["several", "`a`, `b`", "hint: name one: --project FILE#a"]),
        ("{\"projects\": []}", &["no project"]),
        (
            "{\"name\": \"a\", \"source\": {\"buildspec\": \"arn:aws:s3:::b/k.yml\"}}",
            &["in S3", "hint: ", "aws s3 cp s3://b/k.yml"],
        ),
    ] {
        sandbox.write("p.json", text);
        sandbox.rbuild(["run", "--project", "p.json"]).go().fails(2, phrases);
    }
    sandbox.write("p.json", two);
    sandbox.rbuild(["run", "--project", "p.json#b"]).ok();
    sandbox.rbuild(["run", "--project", "p.json#c"]).go().fails(2, &["`c`", "`a`, `b`"]);
    sandbox.write("p.json", b"\x7fELF\0\xff\xfe");
    sandbox.rbuild(["run", "--project", "p.json"]).go().fails(2, &["p.json"]);
    let file = fs::File::create(sandbox.src().join("p.json")).unwrap();
    file.set_len(100 << 20).unwrap();
    sandbox.rbuild(["run", "--project", "p.json"]).go().fails(2, &["p.json", "more than"]);
    sandbox.rbuild(["run", "--project", "none.json"]).go().fails(2, &["none.json"]);
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let sandbox = sandbox(&[("buildspec.yml", &of("true"))]);
    for (args, phrases) in [
        ("--compat retry=never", &["retry=build", "retry=phase", "mask=lines"][..]),
        ("--compat mask=lines --compat mask=whole", &["mask", "twice"]),
        ("--timeout soon", &["30m"]),
        ("--from nowhere", &["post_build"]),
        ("--from build --only build", &["--only"]),
        ("--upload", &["--project"]),
        ("a.yml -b b.yml", &["a.yml", "b.yml"]),
        ("-C . -s ..", &["-s ID:.."]),
        ("--break-before 2 --dry-run", &["command 2", "has 1"]),
        ("--only install", &["no phase `install`"]),
        ("--resume", &["no build of this source"]),
    ] {
        let words = ["run"].into_iter().chain(args.split(' '));
        sandbox.rbuild(words).go().fails(2, phrases);
    }
}

#[test]
fn a_dry_run_prints_the_plan_and_runs_nothing() {
    let spec = "version: 0.2\n\
                env:\n  shell: bash\n  variables: {A: spec, B: spec}\n\
                phases:\n  \
                  install:\n    commands: [touch ran]\n  \
                  build:\n    commands:\n      - |\n        if true; then\n          echo\n        fi\n      - make\n\
                artifacts: {files: ['**/*'], base-directory: out, name: own}\n";
    let fields = "\"environment\": {\"environmentVariables\": [
        {\"name\": \"DB\", \"value\": \"/shop/db\", \"type\": \"PARAMETER_STORE\"},
        {\"name\": \"KEY\", \"value\": \"shop:key::\", \"type\": \"SECRETS_MANAGER\"}]},
        \"timeoutInMinutes\": 45,
        \"artifacts\": {\"type\": \"S3\", \"location\": \"bucket\", \"packaging\": \"ZIP\"}";
    let sandbox = sandbox(&[("buildspec.yml", spec), ("shop.json", &project(fields))]);
    let words = "run --dry-run --project shop.json -e B=flag -e AWS_SECRET_ACCESS_KEY=mine";
    let run = sandbox.rbuild(words.split(' ')).ok();
    expect![[r#"
        --- stdout
        source     <SRC>
        buildspec  buildspec.yml
        shell      bash
        timeout    45m00s

        INSTALL
          1  touch ran  (buildspec.yml:7)

        BUILD
          2  if true; then  (buildspec.yml:11)
               echo
             fi
          3  make  (buildspec.yml:14)

        variables
          A=spec  (buildspec)
          AWS_SECRET_ACCESS_KEY=***  (--env)
          B=flag  (--env)
          DB from parameter-store /shop/db  (project)
          KEY from secrets-manager shop:key  (project)

        artifacts
          **/* in out to rbuild's own folder (zip)
        --- exit 0
    "#]]
    .assert_eq(&run.to_string());
    let json = sandbox.rbuild(words.split(' ').chain(["--json", "--from", "build"])).ok();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["commands"][0]["runs"], false);
    assert_eq!(json["commands"][2]["command"], "make");
    assert_eq!(json["variables"][1]["value"], "***");
    assert_eq!(json["variables"][3]["reference"], "/shop/db");
    assert_eq!(json["timeoutSeconds"], 2700);
    assert!(!sandbox.src().join("ran").exists(), "a command ran");
    let upload = sandbox.rbuild(words.split(' ').chain(["--upload"])).ok();
    assert!(upload.stdout.contains("**/* in out to s3://bucket (zip)"), "{upload}");
}

#[test]
fn builds_are_counted() {
    let sandbox = sandbox(&[("buildspec.yml", &of("echo number $CODEBUILD_BUILD_NUMBER"))]);
    for number in ["number 1", "number 2", "number 3"] {
        says(&sandbox.rbuild(["run"]).ok(), number);
        sandbox.rbuild(["run", "--dry-run"]).ok();
    }
    let homeless = |sandbox: &Sandbox| sandbox.rbuild(["run"]).without_env("HOME").ok();
    says(&homeless(&sandbox), "number 1");
}

#[test]
fn a_state_that_is_no_good_is_refused() {
    let sandbox = sandbox(&[("buildspec.yml", &of("true"))]);
    // Where builds of this source are counted, their states are, too.
    sandbox.rbuild(["run"]).ok();
    let state = sandbox.home().join(".local/state/rbuild");
    let name = fs::read_dir(state.join("builds")).unwrap().next().unwrap().unwrap().file_name();
    let path = state.join("resume").join(format!("{}.json", name.display()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let src = sandbox.src().display().to_string();
    let written = |source: &str| {
        format!(
            "{{\"version\": 1, \"source\": \"={source}\", \"commands\": \"{}\", \"step\": 0, \
             \"directory\": \"=/\", \"programs\": \"=/p\", \"set\": [], \"unset\": [], \
             \"withheld\": []}}",
            "ab".repeat(32)
        )
    };
    for (text, phrases) in [
        (String::new(), &["damaged", "hint: run the build without --resume"][..]),
        ("{\"version\": 7}".to_owned(), &["version 7"]),
        (written("/other"), &["another source", "/other"]),
        (written(&src), &["changed since the last build"]),
    ] {
        fs::write(&path, text).unwrap();
        sandbox.rbuild(["run", "--resume"]).go().fails(2, phrases);
    }
    // What begins afresh forgets it.
    sandbox.rbuild(["run"]).ok();
    assert!(!path.exists());
}

#[test]
fn commands_that_call_rbuild_reach_the_same_registries() {
    let command = "'cd /; echo $RBUILD_REGISTRY_CA $RBUILD_INSECURE_REGISTRIES'";
    let sandbox = sandbox(&[("buildspec.yml", &of(command))]);
    let src = sandbox.src();
    let words = "run --registry-ca a.pem --registry-ca /b.pem --insecure-registry c:5000";
    let run = sandbox.rbuild(words.split(' ')).ok();
    says(&run, &format!("{}/a.pem,/b.pem c:5000", src.display()));
    let (none, some) = (sandbox.rbuild(["run"]), sandbox.rbuild(["run"]));
    says(&none.ok(), "");
    says(&some.env("RBUILD_REGISTRY_CA", "a.pem").ok(), &format!("{}/a.pem", src.display()));
}
