//! What builds of CodeBuild are known to do, item by item: state that is carried and state that is
//! not, transitions, forms of the language that are tolerated, artifacts, masking.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use rbuild_tests::{Finished, Sandbox, process, store};

use crate::sandbox;

/// A build: its buildspec, and what the whole log must and must not have.
struct Case<'a> {
    what: &'a str,
    spec: &'a str,
    status: i32,
    /// In this order.
    has: &'a [&'a str],
    lacks: &'a [&'a str],
}

/// Runs each case in a sandbox of its own; all that is wrong is told at once.
#[track_caller]
fn check(cases: &[Case<'_>]) {
    let wrong: Vec<String> = cases.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn wrong(case: &Case<'_>) -> Option<String> {
    let sandbox = sandbox(&[("buildspec.yml", case.spec), ("sub/note", "a note\n")]);
    let artifacts = sandbox.path().join("artifacts");
    let words = ["run", "--log", "codebuild", "-a"].map(OsString::from);
    let finished = sandbox.rbuild(words.iter().chain([&artifacts.into_os_string()])).go();
    let mut rest = finished.stdout.as_str();
    let mut missing = None;
    for text in case.has {
        match rest.split_once(text) {
            Some((_, after)) => rest = after,
            None => missing = missing.or(Some(*text)),
        }
    }
    let present = case.lacks.iter().find(|it| finished.stdout.contains(**it));
    let status = finished.status.code();
    let is_fine = missing.is_none() && present.is_none() && status == Some(case.status);
    (!is_fine).then(|| {
        let (what, wanted) = (case.what, case.status);
        format!("{what}: wants {wanted}; missing {missing:?}, present {present:?}\n{finished}")
    })
}

/// A build whose phase `build` runs these commands, each of which is a quoted scalar of YAML.
fn commands(env: &str, commands: &[&str]) -> String {
    let lines = commands.iter().map(|it| format!("      - {it:?}\n"));
    let lines = lines.collect::<Vec<_>>().concat();
    format!("version: 0.2\n{env}phases:\n  build:\n    commands:\n{lines}")
}

#[track_caller]
fn run(spec: &str, args: &[&str]) -> (Sandbox, Finished) {
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let finished = sandbox.rbuild([&["run"], args].concat()).go();
    (sandbox, finished)
}

/// Items 1, 2, 3 and 5.
#[test]
fn variables_and_the_folder_are_carried_and_nothing_else_is() {
    let spec = "version: 0.2
phases:
  install:
    commands:
      - FOO=bar
      - cd sub
  build:
    commands:
      - echo \"in this shell $FOO, in a child $(sh -c 'echo $FOO')\"
      - basename \"$(pwd)\"; cat note
      - 'f() { echo called; }; alias g=f; set -e; f'
      - f || echo no function; false; echo no option
      - LOST=1; exit 0
      - echo \"lost=$LOST end\"
";
    let has = [
        "in this shell bar, in a child bar\n",
        "\nsub\na note\n",
        "\ncalled\n",
        "no function\nno option\n",
        "lost= end\n",
        "Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED",
    ];
    check(&[
        Case { what: "sh", spec, status: 0, has: &has, lacks: &[] },
        Case {
            what: "bash",
            spec: &spec.replace("phases:", "env: {shell: bash}\nphases:"),
            status: 0,
            has: &has,
            lacks: &[],
        },
        Case {
            what: "version 0.1",
            spec: "version: 0.1
environment_variables:
  plaintext:
    GIVEN: 080
phases:
  build:
    commands:
      - FOO=bar; cd sub
      - echo \"foo=$FOO given=$GIVEN\"
      - cat note || cat sub/note
",
            status: 0,
            has: &["foo= given=080\n", "a note\n"],
            lacks: &[],
        },
    ]);
}

/// Items 4 and 6.
#[test]
fn only_the_last_status_of_a_command_counts() {
    let block = |text: &str, shell: &str| {
        format!(
            "version: 0.2\nenv: {{shell: {shell}}}\nphases:\n  build:\n    commands:\n      - |\n        {}\n",
            text.replace('\n', "\n        ")
        )
    };
    check(&[
        Case {
            what: "false, true",
            spec: &block("false\ntrue", "sh"),
            status: 0,
            has: &["Phase complete: BUILD State: SUCCEEDED"],
            lacks: &[],
        },
        Case {
            what: "set -e",
            spec: &block("set -e\nfalse\ntrue", "sh"),
            status: 1,
            has: &["Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while \
                 executing command: set -e\nfalse\ntrue\n. Reason: exit status 1"],
            lacks: &[],
        },
        Case {
            what: "a command that is not there",
            spec: &block("nofn", "bash"),
            status: 1,
            has: &["script.sh: line 4: nofn: command not found\n", "Reason: exit status 127"],
            lacks: &[],
        },
    ]);
}

/// Items 7 to 11.
#[test]
fn phases_follow_each_other_as_they_do_on_aws() {
    let spec = |phase: &str, more: &str| {
        let phases = ["install", "pre_build", "build", "post_build"].map(|it| {
            let fails = if it == phase { format!("exit 3]{more}") } else { "'true']".to_owned() };
            let say = format!("'echo \"ran {it} $CODEBUILD_BUILD_SUCCEEDING\"'");
            format!("  {it}: {{commands: [{say}, {fails}}}\n")
        });
        let phases = phases.concat();
        format!("version: 0.2\nphases:\n{phases}artifacts: {{files: buildspec.yml}}\n")
    };
    let uploads = "Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED";
    check(&[
        Case {
            what: "build fails",
            spec: &spec("build", ""),
            status: 1,
            has: &["ran build 1\n", "State: FAILED", "ran post_build 0\n", uploads],
            lacks: &[],
        },
        Case {
            what: "pre_build fails",
            spec: &spec("pre_build", ""),
            status: 1,
            has: &["Phase complete: PRE_BUILD State: FAILED", "Reason: exit status 3\n"],
            lacks: &["\nran build", "UPLOAD", "Entering phase BUILD"],
        },
        Case {
            what: "install fails with finally",
            spec: &spec("install", ", finally: ['echo \"at last $CODEBUILD_BUILD_SUCCEEDING\"']"),
            status: 1,
            has: &["ran install 1\n", "at last 0\n", "Phase complete: INSTALL State: FAILED"],
            lacks: &["\nran pre_build", "UPLOAD"],
        },
        Case {
            what: "ABORT in build",
            spec: &spec("build", ", on-failure: ABORT"),
            status: 1,
            has: &["Phase complete: BUILD State: FAILED", "Reason: exit status 3\n"],
            lacks: &["Entering phase POST_BUILD", "UPLOAD"],
        },
        Case {
            what: "CONTINUE in pre_build",
            spec: &spec("pre_build", ", on-failure: CONTINUE"),
            status: 1,
            has: &["Phase complete: PRE_BUILD State: FAILED", "ran build 0\n", uploads],
            lacks: &[],
        },
        Case {
            what: "RETRY, lower case",
            spec: "version: 0.2
phases:
  build:
    on-failure: retry-2-.*no such moon.*
    commands:
      - 'echo x >>tries; echo \"no such moon\"; test $(wc -l <tries) = 3'
",
            status: 0,
            has: &["no such moon\n", "no such moon\n", "no such moon\n", "State: SUCCEEDED"],
            lacks: &[],
        },
        Case {
            what: "RETRY with output that does not match",
            spec: "version: 0.2
phases: {build: {on-failure: RETRY-2-moon, commands: ['echo one; exit 1']}}
",
            status: 1,
            has: &["\none\n", "Entering phase POST_BUILD"],
            lacks: &["\none\n\none"],
        },
    ]);
}

/// Items 13, 14 and 15.
#[test]
fn tolerated_forms_mean_what_they_do_on_aws() {
    let long = (1..=1000)
        .map(|it| format!("        n=$((n + {it} - {it} + 1))\n"))
        .collect::<Vec<_>>()
        .concat();
    let long = format!(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - |\n{long}        echo n=$n\n"
    );
    check(&[
        Case {
            what: "empty things, scalars for lists",
            spec: "version: 0.2
phases:
  install:
  pre_build: {commands: }
  build:
    commands:
      -
      - echo after
  post_build: {commands: echo scalar}
artifacts: {files: buildspec.yml}
",
            status: 0,
            has: &["Running command \n", "\nafter\n", "\nscalar\n", "Found 1 file(s)"],
            lacks: &[],
        },
        Case {
            what: "scalars are text",
            spec: "\u{FEFF}version: 0.2\r
x: &common {PORT: 080, DEBUG: yes}\r
env:\r
  variables:\r
    <<: *common\r
    VERSION: 3.10\r
phases:\r
  install: {runtime-versions: {python: 3.10, docker: 18}}\r
  build:\r
    commands:\r
      - >\r
        echo $PORT $DEBUG\r
        $VERSION\r
      - |-\r
        echo one\r
        echo two\r
artifacts: {files: ['**/note'], discard-paths: yes}\r
",
            status: 0,
            has: &["\n080 yes 3.10\n", "\none\ntwo\n", "Found 1 file(s)"],
            lacks: &[],
        },
        Case { what: "1,000 lines", spec: &long, status: 0, has: &["n=1000\n"], lacks: &[] },
        Case {
            what: "unknown keys",
            spec: "version: 0.2\nphases: {build: {commands: [ls]}}\nartifacts: {files: '*', type: zip}\n",
            status: 0,
            has: &["Found possible syntax errors in buildspec: \nIn the section artifacts\n    \
                 The following keys cannot be identified:\n        type\n"],
            lacks: &[],
        },
    ]);
}

/// Items 16 and 27.
#[test]
fn what_aws_refuses_is_refused_in_its_words_with_a_place() {
    for (spec, phrases) in [
        (
            "version: 0.2\nphases:\n  postbuild:\n    commands: [ls]\n",
            &[
                "YAML_FILE_ERROR: Invalid buildspec phase name: POSTBUILD. Expecting: \
                 BUILD,INSTALL,POST_BUILD,PRE_BUILD",
                "buildspec.yml:3:3",
                "post_build",
            ][..],
        ),
        (
            "version: 0.2\nphases:\n\tbuild:\n",
            &["found character that cannot start any token at line ", "buildspec.yml:3:1"],
        ),
        (
            "version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b\n",
            &["Expected Commands[0] to be of string type: found subkeys", "buildspec.yml:5:"],
        ),
        // Two shapes of files that teams have committed.
        (
            "version: 0.2\nphases:\n  build:\n    commands:\n      - docker build .\n        - docker push x: y\n     - echo done\n",
            &["YAML_FILE_ERROR: ", "buildspec.yml:"],
        ),
        (
            "version: 0.2\nphases:\n  build:\n    commands:\n      - echo one\n     - echo two\n",
            &["YAML_FILE_ERROR: did not find expected", "buildspec.yml:6:"],
        ),
    ] {
        let (_, finished) = run(spec, &[]);
        finished.fails(2, phrases);
    }
}

/// Items 18 and 19.
#[test]
fn artifacts_are_those_that_aws_takes() {
    let cases: &[(&str, &[&str])] = &[
        ("files: ['**/*']", &[".env", "a.txt", "lib/b.js", "lib/deep/c.js", "my-1/d", "my-2/e"]),
        ("files: ['lib/*']", &["lib/b.js"]),
        ("files: ['**/*'], base-directory: 'my-*'", &["d", "e"]),
        ("files: ['**/*'], exclude-paths: ['lib/**/*', '.*']", &["a.txt", "my-1/d", "my-2/e"]),
        ("files: ['${DIR}/b.js', missing.txt]", &["lib/b.js"]),
        ("files: ['lib/**/*'], discard-paths: yes", &["b.js", "c.js"]),
        ("files: ['{a,z}.txt', 'my-[12]/?']", &["a.txt", "my-1/d", "my-2/e"]),
    ];
    for (artifacts, want) in cases {
        let spec = format!(
            "version: 0.2\nenv: {{variables: {{DIR: lib}}}}\nphases: {{}}\nartifacts: {{{artifacts}}}\n"
        );
        let files = ["a.txt", ".env", "lib/b.js", "lib/deep/c.js", "my-1/d", "my-2/e"];
        let sandbox = sandbox(&files.map(|it| (it, it)));
        let spec = sandbox.write("../spec.yml", spec);
        let out = sandbox.path().join("artifacts");
        let words = ["run", "-a"].map(OsString::from);
        sandbox.rbuild(words.iter().chain([&out.clone().into(), &spec.into()])).ok();
        assert_eq!(names(&out), *want, "for {artifacts}");
    }
    let (_, none) = run("version: 0.2\nphases: {}\nartifacts: {files: ['*.none', 'no']}\n", &[]);
    none.has_status(1);
    let context =
        "Phase context status code: CLIENT_ERROR Message: no matching artifact paths found";
    assert!(none.stdout.contains(context), "{none}");

    let spec = "version: 0.2\nenv: {variables: {APP: shop}}\nphases: {}\n\
                artifacts: {files: buildspec.yml, name: '$APP-$(echo 2026)-x'}\n";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let out = sandbox.path().join("artifacts");
    let args = ["run", "--artifacts-packaging", "zip", "-a"].map(OsString::from);
    sandbox.rbuild(args.iter().chain([&out.clone().into_os_string()])).ok();
    assert_eq!(names(&out), ["shop-2026-x.zip"]);
}

/// The files below a folder, by their paths in it.
fn names(folder: &Path) -> Vec<String> {
    let relative = |it: &std::path::PathBuf| {
        it.strip_prefix(folder).expect("a file in it").display().to_string()
    };
    let mut names: Vec<String> = store::files(folder).iter().map(relative).collect();
    names.sort();
    names
}

/// Item 20.
#[test]
fn secrets_are_masked_wherever_they_are_shown() {
    let spec = commands(
        "env:\n  secrets-manager: {TOKEN: 'shop:token'}\n  parameter-store: {KEY: /shop/key}\n",
        &[
            "echo \"the token is $TOKEN.\"",
            "printf 'to'; sleep 0.05; printf 'ken-12'; sleep 0.05; printf '345\\n'",
            "echo token-12345 written out",
            "printf '%s\\n' \"$KEY\"",
            "printf %s \"$TOKEN\" | od -An -c | tr -d ' \\n'; echo",
            "env | grep -c token-12345",
            "sh -c 'exit 9' token-12345",
        ],
    );
    let sandbox = sandbox(&[("buildspec.yml", &spec)]);
    let json = r#"{"shop": {"token": "token-12345"}, "/shop/key": "first line\nsecond line"}"#;
    sandbox.write("../secrets.json", json);
    for log in [&["--log", "codebuild"][..], &["--log", "plain"], &["--log", "github"], &["--json"]]
    {
        let args = [&["run", "--secrets", "../secrets.json"], log].concat();
        let finished = sandbox.rbuild(args).go();
        finished.has_status(1);
        let all = format!("{}{}", finished.stdout, finished.stderr);
        // GitHub has to be told what to mask.
        let shown: Vec<&str> =
            all.lines().filter(|line| !line.starts_with("::add-mask::")).collect();
        for secret in ["token-12345", "first line", "second line"] {
            let leak = shown.iter().find(|line| line.contains(secret));
            assert!(leak.is_none(), "{log:?} shows {leak:?}\n{finished}");
        }
        assert!(all.contains("the token is ***."), "{log:?}: {finished}");
        assert!(all.contains("echo *** written out"), "{log:?}: {finished}");
    }
}

/// Item 21.
#[test]
fn background_processes_do_not_hold_up_a_build() {
    let sandbox = sandbox(&[(
        "buildspec.yml",
        &commands("", &["nohup sleep 1005 &", "nohup sleep 1006 >/dev/null 2>&1 & echo later"]),
    )]);
    let finished = sandbox.rbuild(["run"]).within(Duration::from_secs(30)).ok();
    assert!(finished.stdout.contains("\nlater\n"), "{finished}");
    assert_eq!(process::processes_that_know(sandbox.path()), [] as [&str; 0]);
}

/// Item 24, and what may not be exported.
#[test]
fn variables_are_exported_with_their_values_at_the_end() {
    let spec = "version: 0.2
env:
  variables: {A: first, AWS_REGION: eu-west-1}
  exported-variables: [A, B, NEVER, AWS_REGION]
phases:
  build: {commands: [A=second, 'B=\"two  words\"']}
  post_build: {commands: [A=third]}
";
    let (sandbox, finished) = run(spec, &["--json"]);
    finished.has_status(0);
    let line = finished.stdout.lines().find(|it| it.contains(r#""type":"exported""#));
    let line = line.unwrap_or_else(|| panic!("no such event\n{finished}"));
    assert!(line.contains("third") && line.contains("two  words"), "{line}");
    assert!(!line.contains("eu-west-1"), "{line}");
    assert_eq!(fs::read_to_string(sandbox.src().join("buildspec.yml")).unwrap(), spec);
}
