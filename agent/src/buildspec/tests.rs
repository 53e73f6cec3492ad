//! Tests of the whole way from a file's bytes to a [`Buildspec`] or its problems.

use std::{fmt::Write, ops::Range};

use expect_test::{Expect, expect};

use super::{
    keys::{Kind, Section, TOP},
    *,
};

#[track_caller]
fn check(text: impl AsRef<[u8]>, want: Expect) {
    let drawn = match Buildspec::parse(text.as_ref()) {
        Ok(spec) => draw(&spec),
        Err(problems) => problems.iter().map(draw_problem).collect(),
    };
    want.assert_eq(&drawn);
}

/// Checks what `body` is behind the parts that every file has.
#[track_caller]
fn check_rest(rest: &str, want: Expect) {
    check(format!("version: 0.2\nphases: {{build: {{commands: make}}}}\n{rest}"), want);
}

fn repeat(numbers: Range<usize>, line: impl Fn(usize) -> String) -> String {
    numbers.map(line).collect::<Vec<_>>().concat()
}

fn draw(spec: &Buildspec) -> String {
    let mut out = String::new();
    if spec.version != Version::V0_2 {
        writeln!(out, "{:?}", spec.version).unwrap();
    }
    draw_settings(spec, &mut out);
    for PhaseCommands { phase, run_as, on_failure, commands, finally } in &spec.phases {
        write!(out, "{phase}").unwrap();
        if let Some(User { name, place }) = run_as {
            write!(out, ", as {place} {name}").unwrap();
        }
        if let Some(on_failure) = on_failure {
            write!(out, ", else {on_failure:?}").unwrap();
        }
        writeln!(out).unwrap();
        for (list, commands) in [("", commands), ("finally ", finally)] {
            for Command { text, place } in commands {
                writeln!(out, "  {list}{place} {text:?}").unwrap();
            }
        }
    }
    if let Some(artifacts) = &spec.artifacts {
        writeln!(out, "{artifacts:?}").unwrap();
    }
    for SecondaryArtifacts { identifier, place, artifacts } in &spec.secondary_artifacts {
        writeln!(out, "{place} {identifier} {artifacts:?}").unwrap();
    }
    for IgnoredKey { key, place, reason } in &spec.ignored_keys {
        writeln!(out, "{place} ignored: {key}, {reason}").unwrap();
    }
    for problem in &spec.tolerated {
        write!(out, "tolerated {}", draw_problem(problem)).unwrap();
    }
    for UnknownKey { section, key, place, suggestion } in &spec.unknown_keys {
        writeln!(out, "{place} unknown in {section}: {key}, not {suggestion:?}").unwrap();
    }
    out
}

fn draw_settings(spec: &Buildspec, out: &mut String) {
    if let Some(User { name, place }) = &spec.run_as {
        writeln!(out, "as {place} {name}").unwrap();
    }
    if let Some(shell) = spec.shell {
        writeln!(out, "shell {}", shell.name()).unwrap();
    }
    for Variable { name, value, place } in &spec.variables {
        let place = place.unwrap();
        writeln!(out, "{place} {name}={value:?}").unwrap();
    }
    for ExportedName { name, place } in &spec.exported {
        writeln!(out, "exported {place} {name}").unwrap();
    }
    if spec.git_credentials {
        writeln!(out, "git credentials").unwrap();
    }
    if spec.proxy != Proxy::default() {
        writeln!(out, "{:?}", spec.proxy).unwrap();
    }
    for RuntimeVersion { name, version, place } in &spec.runtimes {
        writeln!(out, "runtime {place} {name} {version:?}").unwrap();
    }
}

fn draw_problem(problem: &Problem) -> String {
    let place = problem.place.map_or("-".to_owned(), |it| it.to_string());
    let mut out = format!("{place} {}: {}\n", problem.rule, problem.message);
    for (name, text) in [("hint", &problem.hint), ("aws", &problem.aws)] {
        if let Some(text) = text {
            writeln!(out, "  {name}: {text}").unwrap();
        }
    }
    out
}

#[test]
fn a_usual_file_is_read() {
    check(
        "version: 0.2
env:
  shell: bash
  variables:
    REPO: shop
phases:
  build:
    commands:
      - make
      - |
        if true; then
          make test
        fi
    finally: [echo done]
  pre_build:
    commands:
      - docker login
artifacts:
  files: ['**/*']
  base-directory: out
  discard-paths: yes
  name: shop-$(date +%F)
",
        expect![[r#"
            shell bash
            5:5 REPO=Plain("shop")
            PRE_BUILD
              17:9 "docker login"
            BUILD
              9:9 "make"
              11:9 "if true; then\n  make test\nfi\n"
              finally 14:15 "echo done"
            Artifacts { files: ["**/*"], base_directory: Some("out"), discard_paths: true, exclude_paths: [], enable_symlinks: false, name: Some("shop-$(date +%F)"), s3_prefix: None }
        "#]],
    );
}

#[test]
fn scalars_stay_as_they_are_written() {
    check_rest(
        "env: {variables: {A: 3.10, B: 080, C: yes, D: 0x1F, E: , F: ~, G: 'x', H: 1_000}}\n",
        expect![[r#"
            3:19 A=Plain("3.10")
            3:28 B=Plain("080")
            3:36 C=Plain("yes")
            3:44 D=Plain("0x1F")
            3:53 E=Plain("")
            3:58 F=Plain("")
            3:64 G=Plain("x")
            3:72 H=Plain("1_000")
            BUILD
              2:28 "make"
        "#]],
    );
}

#[test]
fn what_may_be_missing_may_be_missing() {
    check(
        "version: '0.2'
env:
phases:
  install:
  pre_build:
    commands:
  build:
    commands:
      - make
      -
      - ~
  post_build:
    commands: one
    finally:
artifacts:
",
        expect![[r#"
            INSTALL
            PRE_BUILD
            BUILD
              9:9 "make"
              10:8 ""
              11:9 ""
            POST_BUILD
              13:15 "one"
        "#]],
    );
    check("version: 0.2\nphases: {}\n", expect![[r#""#]]);
    check_rest(
        "artifacts: {files: imagedefinitions.json}\n",
        expect![[r#"
            BUILD
              2:28 "make"
            Artifacts { files: ["imagedefinitions.json"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None }
        "#]],
    );
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    check(
        "version: 0.2
env:
  variables: &common
    A: 1.0
phases:
  pre_build: &phase
    commands: &commands
      - &make make 080
      - *make
  build:
    <<: *phase
    finally: *commands
",
        expect![[r#"
            4:5 A=Plain("1.0")
            PRE_BUILD
              8:9 "make 080"
              9:9 "make 080"
            BUILD
              8:9 "make 080"
              9:9 "make 080"
              finally 8:9 "make 080"
              finally 9:9 "make 080"
        "#]],
    );
}

#[test]
fn files_of_windows_are_read() {
    check(
        "\u{FEFF}version: 0.2\r\nphases:\r\n  build:\r\n    commands:\r\n      - make # x\r\n      - |\r\n        a\r\n        b\r\n",
        expect![[r#"
            BUILD
              5:9 "make"
              7:9 "a\nb\n"
        "#]],
    );
}

#[test]
fn commands_are_written_in_many_ways() {
    check(
        "# a comment\nversion: 0.2\nphases:\n  build:\n    commands:\n    - same indent   # comment\n    - |\n      if x; then\n      \techo tab\n      fi\n    - >\n      folded\n      text\n    - plain text\n      goes on \\\n      here\n    - 'it''s: quoted'\n    - \"a: b\\tc\"\n    - cat <<-EOF > x\n    - \"two\n      lines\"\n    - |+\n      keep\n\n    - |2\n        indented\n    - a#b:c http://x:80\n    - -x\n    - '*'\n    - yes\n",
        expect![[r#"
            BUILD
              6:7 "same indent"
              8:7 "if x; then\n\techo tab\nfi\n"
              12:7 "folded text\n"
              14:7 "plain text goes on \\ here"
              17:7 "it's: quoted"
              18:7 "a: b\tc"
              19:7 "cat <<-EOF > x"
              20:7 "two lines"
              23:7 "keep\n\n"
              26:7 "  indented\n"
              27:7 "a#b:c http://x:80"
              28:7 "-x"
              29:7 "*"
              30:7 "yes"
        "#]],
    );
}

#[test]
fn a_colon_in_a_command_is_explained() {
    check(
        "version: 0.2

phases:
  build:
    commands:
      - echo a: b
      - echo fine
      - [nested]
    finally: {a: b}
",
        expect![[r#"
            6:9 command-not-text: command 1 of `build.commands` is a mapping, not text
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
              aws: Expected Commands[0] to be of string type: found subkeys instead at line 6, value of the key tag on line 5 might be empty
            8:9 command-not-text: command 3 of `build.commands` is a list, not text
            9:14 wrong-type: `build.finally` is a mapping, not a list
        "#]],
    );
    check(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b: c\n",
        expect![[r#"
            5:18 yaml: mapping values are not allowed in this context
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
              aws: mapping values are not allowed in this context at line 4
        "#]],
    );
}

#[test]
fn the_whole_language_is_read() {
    check(
        "version: 0.2
run-as: me
env:
  secrets-manager: {B: 'prod/db:password::', B2: 'arn:aws:secretsmanager:eu-west-1:1:secret:x-Ab:user'}
  parameter-store: {A: /a}
  exported-variables: [C, CODEBUILD_BUILD_ID]
  git-credential-helper: yes
  variables: {D: $A}
  shell: powershell.exe
proxy: {logs: yes, upload-artifacts: no}
phases:
  install:
    run-as: root
    on-failure: ABORT
    runtime-versions: {python: 3.10, golang: \"1.20\", java: $JAVA, nodejs: 18.x}
    commands: [make]
  pre_build:
    on-failure: retry-10
  build:
    run-as: builder
    on-failure: CONTINUE
    commands: [make]
  post_build:
    on-failure: RETRY-3-.*timed out.*
    commands: [make]
artifacts:
  files: [x]
  exclude-paths: ['**/.*', y]
  enable-symlinks: yes
  s3-prefix: pre
  secondary-artifacts:
    docs: {files: 'docs/**/*', base-directory: out, discard-paths: on, name: d, exclude-paths: z}
    two_2: {files: [a], enable-symlinks: y, s3-prefix: p}
",
        expect![[r#"
            as 2:9 me
            shell pwsh
            8:15 D=Plain("$A")
            5:21 A=Secret(Parameter("/a"))
            4:21 B=Secret(SecretsManager(SecretsManagerReference { secret_id: "prod/db", json_key: Some("password"), version_stage: None, version_id: None }))
            4:46 B2=Secret(SecretsManager(SecretsManagerReference { secret_id: "arn:aws:secretsmanager:eu-west-1:1:secret:x-Ab", json_key: Some("user"), version_stage: None, version_id: None }))
            exported 6:24 C
            exported 6:27 CODEBUILD_BUILD_ID
            git credentials
            Proxy { upload_artifacts: false, logs: true }
            runtime 15:24 python "3.10"
            runtime 15:38 golang "1.20"
            runtime 15:54 java "$JAVA"
            runtime 15:67 nodejs "18.x"
            INSTALL, as 13:13 root, else Abort
              16:16 "make"
            PRE_BUILD, else Retry(Retry { count: 10, pattern: None })
            BUILD, as 20:13 builder, else Continue
              22:16 "make"
            POST_BUILD, else Retry(Retry { count: 3, pattern: Some(".*timed out.*") })
              25:16 "make"
            Artifacts { files: ["x"], base_directory: None, discard_paths: false, exclude_paths: ["**/.*", "y"], enable_symlinks: true, name: None, s3_prefix: Some("pre") }
            32:5 docs Artifacts { files: ["docs/**/*"], base_directory: Some("out"), discard_paths: true, exclude_paths: ["z"], enable_symlinks: false, name: Some("d"), s3_prefix: None }
            33:5 two_2 Artifacts { files: ["a"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: true, name: None, s3_prefix: Some("p") }
        "#]],
    );
}

#[test]
fn version_0_1_calls_some_things_by_other_names() {
    check(
        "version: 0.1
environment_variables:
  plaintext:
    A: 080
    CODEBUILD_A: x
phases:
  build:
    commands:
      - make
artifacts:
  type: zip
  files: x
",
        expect![[r#"
            5:5 reserved-variable: the variable `CODEBUILD_A` begins with `CODEBUILD_`, which only the build may set
        "#]],
    );
    check(
        "version: 0.1
environment_variables:
  plaintext:
    A: 080
  secret: {B: c}
env: {variables: {C: d}}
phases:
  build:
    commands:
      - make
artifacts:
  type: zip
  files: x
",
        expect![[r#"
            V0_1
            6:19 C=Plain("d")
            4:5 A=Plain("080")
            BUILD
              10:9 "make"
            Artifacts { files: ["x"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None }
            5:3 unknown in environment_variables: secret, not None
            12:3 unknown in artifacts: type, not None
        "#]],
    );
    check_rest(
        "environment_variables: {plaintext: {A: b}}\n",
        expect![[r#"
        BUILD
          2:28 "make"
        3:1 unknown in buildspec: environment_variables, not Some("env")
    "#]],
    );
}

#[test]
fn scalars_stand_for_lists_of_one_and_nothing_for_none() {
    check(
        "version: 0.2
run-as:
env:
  exported-variables: A
  variables:
  parameter-store:
  secrets-manager:
  git-credential-helper:
proxy:
phases:
  install:
    run-as: ''
    on-failure:
    runtime-versions:
    commands: make
artifacts:
  files: x
  exclude-paths: y
  base-directory:
  secondary-artifacts:
reports:
batch:
cache:
",
        expect![[r#"
            exported 4:23 A
            INSTALL
              15:15 "make"
            Artifacts { files: ["x"], base_directory: None, discard_paths: false, exclude_paths: ["y"], enable_symlinks: false, name: None, s3_prefix: None }
        "#]],
    );
    check_rest(
        "env: {exported-variables: [A, ~, B]}\n",
        expect![[r#"
        exported 3:28 A
        exported 3:34 B
        BUILD
          2:28 "make"
    "#]],
    );
}

#[test]
fn runtime_versions_are_text_and_belong_to_the_installation() {
    check(
        "version: 0.2
phases:
  install:
    runtime-versions:
      - python: 3.10
      - nodejs: latest
        docker:
  build:
    runtime-versions: {java: corretto21}
",
        expect![[r#"
            runtime 5:9 python "3.10"
            runtime 6:9 nodejs "latest"
            runtime 7:9 docker ""
            INSTALL
            BUILD
            9:5 unknown in BUILD: runtime-versions, not None
        "#]],
    );
    check(
        "version: 0.2
phases:
  install:
    runtime-versions: [python, {java: [x]}]
",
        expect![[r#"
            4:24 wrong-type: `install.runtime-versions` is text, not a mapping
            4:39 wrong-type: `install.runtime-versions.java` is a list, not text
        "#]],
    );
}

#[test]
fn what_is_left_out_is_told_and_what_it_lacks_too() {
    check_rest(
        "reports:
  unit: {files: '**/*.xml', base-directory: out, discard-paths: no, file-format: junitxml}
  $GROUP: {files: [x], file-format: SIMPLECOV}
  'arn:aws:codebuild:eu-west-1:1:report-group/x': {files: x, format: y}
cache:
  key: npm-$(codebuild-hash-files package-lock.json)
  fallback-keys: npm-
  action: restore
  paths: ['/root/.cache/**/*']
  path: x
batch:
  fast-fail: false
  build-list:
    - identifier: linux_small
      env: {compute-type: BUILD_GENERAL1_SMALL, variables: {A: 1}, git-credential-helper: yes}
      ignore-failure: true
  build-graph:
    - identifier: a
      buildspec: a.yml
      depend-on: cypress-e2e-tests
    - {identifier: cypress-e2e-tests, debug-session: no, env: {privileged-mode: yes, fleet: f}}
  build-matrix:
    static: {ignore-failure: false, env: {type: LINUX_CONTAINER}}
    dynamic:
      buildspec: [a.yml, b.yml]
      env: {image: [x, y], compute-type: z, variables: {V: [v1, v2]}, memory: 1}
  build-fanout: {parallelism: 4, ignore-failure: no}
",
        expect![[r#"
            BUILD
              2:28 "make"
            3:1 ignored: reports, rbuild does not process reports yet
            7:1 ignored: cache, rbuild keeps no cache yet
            13:1 ignored: batch, rbuild runs the `phases` alone, as a build outside of a batch does
            6:62 unknown in reports: format, not None
            12:3 unknown in cache: path, not Some("paths")
            28:71 unknown in batch: memory, not None
        "#]],
    );
    check_rest(
        "reports:
  a: {files: x, file-format: JUNIT}
  b: {base-directory: x}
  c: [x]
  d:
  e: {files: {x: y}, discard-paths: maybe}
  f: {files: x}
cache:
  key: [x]
  fallback-keys: [a, b, c, d, e, f]
  action: both
  paths: {a: b}
",
        expect![[r#"
            6:6 wrong-type: `reports.c` is a list, not a mapping
              hint: write its keys without `-`
            8:14 wrong-type: `reports.e.files` is a mapping, not a list
            11:8 wrong-type: `cache.key` is a list, not text
            14:10 wrong-type: `cache.paths` is a mapping, not a list
        "#]],
    );
    // What is wrong where no type is stops no build.
    check_rest(
        "reports: {a: {file-format: JUNIT}, d: }\ncache: {action: both}\n",
        expect![[r#"
            BUILD
              2:28 "make"
            3:1 ignored: reports, rbuild does not process reports yet
            4:1 ignored: cache, rbuild keeps no cache yet
            tolerated 3:11 missing-key: `reports.a.files` is missing
            tolerated 3:28 bad-value: `reports.a.file-format` cannot be `JUNIT`
              hint: write one of `CUCUMBERJSON`, `JUNITXML`, `NUNITXML`, `NUNIT3XML`, `TESTNGXML`, `VISUALSTUDIOTRX`, `CLOVERXML`, `COBERTURAXML`, `JACOCOXML`, `SIMPLECOV`
            tolerated 3:36 missing-key: `reports.d.files` is missing
            tolerated 4:17 bad-value: `cache.action` cannot be `both`
              hint: write one of `restore`, `save`
        "#]],
    );
    check_rest(
        "reports: [x]\ncache: x\nbatch: y\n",
        expect![[r#"
            3:10 wrong-type: `reports` is a list, not a mapping
              hint: write its keys without `-`
            4:8 wrong-type: `cache` is text, not a mapping
        "#]],
    );
}

#[test]
fn builds_of_a_batch_have_names_and_an_order() {
    check_rest(
        "batch:
  fast-fail: perhaps
  build-list:
    - identifier: a
    - identifier: a
    - identifier: 'a b'
    - env: x
    - text
  build-matrix: {dynamic: {env: {variables: {CODEBUILD_X: y}}}}
  build-fanout: {parallelism: many}
",
        expect![[r#"
            BUILD
              2:28 "make"
            3:1 ignored: batch, rbuild runs the `phases` alone, as a build outside of a batch does
            tolerated 4:14 bad-boolean: `batch.fast-fail` is `perhaps`, not yes or no
            tolerated 7:19 duplicate-identifier: the identifier `a` is there twice
            tolerated 8:19 bad-identifier: `a b` cannot be an identifier
              hint: write letters, digits, and `_`
            tolerated 9:7 missing-key: `batch.build-list.identifier` is missing
            tolerated 9:12 wrong-type: `batch.build-list.env` is text, not a mapping
            tolerated 10:7 wrong-type: `batch.build-list` is text, not a mapping
            tolerated 11:46 reserved-variable: the variable `CODEBUILD_X` begins with `CODEBUILD_`, which only the build may set
            tolerated 12:31 bad-value: `batch.build-fanout.parallelism` cannot be `many`
              hint: write a whole number from 1 on
        "#]],
    );
    check_rest(
        "batch:
  build-graph:
    - identifier: start
    - {identifier: a, depend-on: [start, c]}
    - {identifier: b, depend-on: a}
    - {identifier: c, depend-on: [b, nobody]}
    - {identifier: after, depend-on: [c]}
  build-fanout: {ignore-failure: yes}
",
        expect![[r#"
            BUILD
              2:28 "make"
            3:1 ignored: batch, rbuild runs the `phases` alone, as a build outside of a batch does
            tolerated 6:20 dependency-cycle: the builds `a`, `c`, `b` wait for one another
            tolerated 8:38 unknown-dependency: `c` waits for `nobody`, which does not exist
            tolerated 10:17 missing-key: `batch.build-fanout.parallelism` is missing
        "#]],
    );
    check_rest(
        "batch: {build-graph: [{identifier: me, depend-on: me}]}\n",
        expect![[r#"
            BUILD
              2:28 "make"
            3:1 ignored: batch, rbuild runs the `phases` alone, as a build outside of a batch does
            tolerated 3:36 dependency-cycle: the build `me` waits for itself
        "#]],
    );
    check(
        "version: 0.2\nbatch: {build-list: [{identifier: a}]}\n",
        expect![[r#"
        2:1 batch-only: the file has `batch`, and no `phases` that could be run here
          hint: add `phases`, or run the buildspec of one of its builds
    "#]],
    );
}

#[test]
fn references_are_checked() {
    check_rest(
        "env:
  parameter-store: {A: , B: [x], CODEBUILD_C: /c}
  secrets-manager:
    D:
    E: 'arn:aws:secretsmanager'
    F: 'a:b:AWSCURRENT:1'
    CODEBUILD_G: x
  exported-variables: ['', a=b, [c]]
",
        expect![[r#"
            4:22 bad-reference: `env.parameter-store.A` names no parameter
            4:29 wrong-type: `env.parameter-store.B` is a list, not text
            4:34 reserved-variable: the variable `CODEBUILD_C` begins with `CODEBUILD_`, which only the build may set
            6:6 bad-reference: `env.secrets-manager.D` is no reference to a secret: the name of the secret is missing
              hint: write `secret-id:json-key:version-stage:version-id`
            7:8 bad-reference: `env.secrets-manager.E` is no reference to a secret: the ARN of the secret has 3 fields, not 7
              hint: write `secret-id:json-key:version-stage:version-id`
            8:8 bad-reference: `env.secrets-manager.F` is no reference to a secret: there is both a version stage and a version ID
              hint: write `secret-id:json-key:version-stage:version-id`
            9:5 reserved-variable: the variable `CODEBUILD_G` begins with `CODEBUILD_`, which only the build may set
            10:24 bad-variable-name: `` cannot be the name of a variable
            10:28 bad-variable-name: `a=b` cannot be the name of a variable
            10:33 wrong-type: `env.exported-variables` is a list, not text
        "#]],
    );
}

#[test]
fn later_sections_win() {
    check_rest(
        "env:
  secrets-manager: {A: s}
  variables: {A: v}
",
        expect![[r#"
            5:15 A=Plain("v")
            4:21 A=Secret(SecretsManager(SecretsManagerReference { secret_id: "s", json_key: None, version_stage: None, version_id: None }))
            BUILD
              2:28 "make"
        "#]],
    );
}

#[test]
fn what_to_do_on_failure_is_checked() {
    check(
        "version: 0.2
phases:
  install: {on-failure: IGNORE}
  pre_build: {on-failure: RETRY-101}
  build: {on-failure: 'RETRY-2-(x'}
  post_build: {on-failure: [ABORT]}
",
        expect![[r#"
            3:25 bad-on-failure: `install.on-failure` is `IGNORE`: it is not ABORT, CONTINUE, or RETRY
              hint: write ABORT, CONTINUE, RETRY, RETRY-count, RETRY-regex, or RETRY-count-regex
            4:27 bad-on-failure: `pre_build.on-failure` is `RETRY-101`: the count is not from 0 to 100
              hint: write ABORT, CONTINUE, RETRY, RETRY-count, RETRY-regex, or RETRY-count-regex
            5:23 bad-on-failure: `build.on-failure` is `RETRY-2-(x`: the pattern is no regular expression
              hint: unclosed group
            6:28 wrong-type: `post_build.on-failure` is a list, not text
        "#]],
    );
}

#[test]
fn secondary_artifacts_are_checked() {
    check_rest(
        "artifacts:
  secondary-artifacts:
    a-b: {files: x}
    c: {name: x}
    d:
    e: [x]
    f: {files: x, secondary-artifacts: {g: {files: x}}, discard-path: yes}
",
        expect![[r#"
            3:1 missing-key: `artifacts.files` is missing
            5:5 bad-identifier: `a-b` cannot be an identifier
              hint: write letters, digits, and `_`
            6:5 missing-key: `artifacts.secondary-artifacts.c.files` is missing
            7:5 missing-key: `artifacts.secondary-artifacts.d.files` is missing
            8:8 wrong-type: `artifacts.secondary-artifacts.e` is a list, not a mapping
              hint: write its keys without `-`
        "#]],
    );
    let many = repeat(0..13, |it| format!("    id{it}: {{files: x}}\n"));
    check_rest(
        &format!("artifacts:\n  files: x\n  secondary-artifacts:\n{many}"),
        expect![[r#"
        18:5 too-many: `artifacts.secondary-artifacts` has more than 12 entries
    "#]],
    );
}

#[test]
fn cmd_is_refused_with_advice() {
    check_rest(
        "env: {shell: cmd.exe}\n",
        expect![[r#"
        3:14 unknown-shell: the shell `cmd.exe` is not supported
          hint: there is no such shell on Linux: write the commands for `bash`, or for `pwsh`
    "#]],
    );
}

#[test]
fn keys_that_are_not_of_the_language_warn() {
    check(
        "version: 0.2
description: a build
env:
  compute-type: BUILD_GENERAL1_SMALL
  variable: {A: b}
phases:
  build:
    comands: [make]
    runtime-versions: {python: 3.10}
artifacts:
  file: x
  files: y
  type: zip
",
        expect![[r#"
            BUILD
            Artifacts { files: ["y"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None }
            2:1 unknown in buildspec: description, not None
            4:3 unknown in env: compute-type, not None
            5:3 unknown in env: variable, not Some("variables")
            8:5 unknown in BUILD: comands, not Some("commands")
            9:5 unknown in BUILD: runtime-versions, not None
            11:3 unknown in artifacts: file, not Some("files")
            13:3 unknown in artifacts: type, not None
        "#]],
    );
}

#[test]
fn unknown_phases_are_errors() {
    check(
        "version: 0.2\nphases:\n  postbuild:\n    commands: [x]\n  deploy: {}\n",
        expect![[r#"
            3:3 unknown-phase: the phase `postbuild` is unknown
              hint: did you mean `post_build`?
              aws: Invalid buildspec phase name: POSTBUILD. Expecting: BUILD,INSTALL,POST_BUILD,PRE_BUILD
            5:3 unknown-phase: the phase `deploy` is unknown
              hint: the phases are `install`, `pre_build`, `build`, `post_build`
              aws: Invalid buildspec phase name: DEPLOY. Expecting: BUILD,INSTALL,POST_BUILD,PRE_BUILD
        "#]],
    );
}

#[test]
fn versions_are_checked() {
    check(
        "phases: {}\n",
        expect![[r#"
            - missing-key: `version` is missing
              hint: write `version: 0.2`
        "#]],
    );
    check(
        "version: 0.1\nphases: {}\n",
        expect![[r#"
            V0_1
        "#]],
    );
    check(
        "version: 0.9\nphases: {}\n",
        expect![[r#"
            1:10 unknown-version: buildspec version `0.9` is not supported
              hint: write `version: 0.2`
        "#]],
    );
    check(
        "version:\nphases: {}\n",
        expect![[r#"
            1:1 empty-key: `version` is empty
              hint: write `version: 0.2`
        "#]],
    );
    check(
        "version: 0.2\n",
        expect![[r#"
            - missing-key: `phases` is missing
              hint: a buildspec needs `phases`, with `commands` in them
        "#]],
    );
    check(
        "version: 0.2\nphases:\nbuild:\n  commands: [x]\n",
        expect![[r#"
            2:1 empty-key: `phases` is empty
              hint: indent what belongs to it by two spaces
        "#]],
    );
}

#[test]
fn wrong_types_are_errors() {
    check(
        "just text\n",
        expect![[r#"
            1:1 wrong-type: the file holds text, not a mapping of keys
        "#]],
    );
    check(
        "- version: 0.2\n",
        expect![[r#"
            1:1 wrong-type: the file holds a list, not a mapping of keys
        "#]],
    );
    check(
        "version: [0.2]
env:
  shell: {a: b}
  variables:
    A: [x]
    B: {c: d}
    CODEBUILD_X: y
    '': z
    'a=b': z
phases:
  install: make
  build:
    - make
artifacts:
  files: {a: b}
  discard-paths: maybe
  name: [x]
",
        expect![[r#"
            1:10 wrong-type: `version` is a list, not text
            3:10 wrong-type: `env.shell` is a mapping, not text
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
            5:8 wrong-type: `env.variables.A` is a list, not text
            6:8 wrong-type: `env.variables.B` is a mapping, not text
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
            7:5 reserved-variable: the variable `CODEBUILD_X` begins with `CODEBUILD_`, which only the build may set
            8:5 bad-variable-name: `` cannot be the name of a variable
            9:5 bad-variable-name: `a=b` cannot be the name of a variable
            11:12 wrong-type: `install` is text, not a mapping
              hint: write `commands:` above the commands
            13:5 wrong-type: `build` is a list, not a mapping
              hint: write `commands:` above the commands
            15:10 wrong-type: `artifacts.files` is a mapping, not a list
            16:18 bad-boolean: `artifacts.discard-paths` is `maybe`, not yes or no
            17:9 wrong-type: `artifacts.name` is a list, not text
        "#]],
    );
    check_rest(
        "env: {variables: [A]}\n",
        expect![[r#"
            3:18 wrong-type: `env.variables` is a list, not a mapping
              hint: write its keys without `-`
        "#]],
    );
    check_rest(
        "env: []\n",
        expect![[r#"
            3:6 wrong-type: `env` is a list, not a mapping
              hint: write its keys without `-`
        "#]],
    );
    check_rest(
        "env: {shell: zsh}\n",
        expect![[r#"
            3:14 unknown-shell: the shell `zsh` is not supported
              hint: the shells are `sh`, `bash`, `/bin/sh`, `/bin/bash`, `powershell.exe`, `pwsh`
        "#]],
    );
    check_rest(
        "env: {variables: {A: \"x\\0y\"}}\n",
        expect![[r#"
            3:22 nul-character: `env.variables.A` holds a NUL character, which no shell can take
        "#]],
    );
    check_rest(
        "artifacts: {name: x}\n",
        expect![[r#"
            3:1 missing-key: `artifacts.files` is missing
        "#]],
    );
    check_rest(
        "artifacts: {files: []}\n",
        expect![[r#"
            3:1 missing-key: `artifacts.files` is missing
        "#]],
    );
}

#[test]
fn what_is_no_yaml_is_explained() {
    check(
        "",
        expect![[r#"
            - empty-file: the file is empty
              hint: write `version: 0.2`, and `phases` with `commands` in them
              aws: wrong number of container tags, expected 1
        "#]],
    );
    check(
        "version: 0.2\nphases:\n\tbuild: {}\n",
        expect![[r#"
            3:1 tab: a tab stands where YAML allows only spaces
              hint: indent with spaces
              aws: found character that cannot start any token at line 2
        "#]],
    );
    check(
        "version: 0.2\nphases:\n  build: {}\n  build: {}\n",
        expect![[r#"
            4:3 duplicate-key: the key `build` is there twice
        "#]],
    );
    check(
        "version: 0.2\n---\nphases: {}\n",
        expect![[r#"
            3:1 yaml: the file has 2 YAML documents, not one
              hint: a buildspec is one YAML document
        "#]],
    );
    check(
        "version: 0.2\nphases: [a, b\n",
        expect![[r#"
            3:1 yaml: while parsing a flow sequence, expected ',' or ']'
              aws: did not find expected ',' or ']' at line 2
        "#]],
    );
    check(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - make\n       - test\n     - x: y\n",
        expect![[r#"
            7:6 yaml: while parsing a block mapping, did not find expected key
              hint: indent what belongs together by the same number of spaces
              aws: did not find expected key at line 6
        "#]],
    );
    check(
        b"\x7fELF\x02\x01\x01\x00\x00",
        expect![[r#"
            1:8 encoding: the file is binary, not text
              hint: a buildspec is one YAML document
        "#]],
    );
    check(
        b"version: 0.2\nname: caf\xE9\n",
        expect![[r#"
            2:10 encoding: the file is not UTF-8
              hint: save the file as UTF-8
        "#]],
    );
}

/// Files as people commit them: a key that slipped under the list above it, and an item that did.
#[test]
fn broken_files_have_a_place_and_the_words_of_codebuild() {
    check(
        "version: 0.2

phases:
  pre_build:
    commands:
      - echo Logging in
      - aws ecr get-login-password | docker login -u AWS --password-stdin $REGISTRY
  build:
    commands:
      - docker build -t $IMAGE .
        - docker tag $IMAGE $REGISTRY/$IMAGE
       post_build:
    commands:
      - docker push $REGISTRY/$IMAGE
",
        expect![[r#"
            12:18 yaml: mapping values are not allowed in this context
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
              aws: mapping values are not allowed in this context at line 11
        "#]],
    );
    check(
        "version: 0.2

phases:
  build:
    commands:
      - docker build -t $IMAGE .
     - docker push $IMAGE
artifacts:
  files: imagedefinitions.json
",
        expect![[r#"
            7:6 yaml: while parsing a block mapping, did not find expected key
              hint: indent what belongs together by the same number of spaces
              aws: did not find expected key at line 6
        "#]],
    );
    check(
        "version: 0.2
phases:
  build:
    commands:
    - make
   finally:
    - make clean
",
        expect![[r#"
            6:4 yaml: while parsing a block mapping, did not find expected key
              hint: indent what belongs together by the same number of spaces
              aws: did not find expected key at line 5
        "#]],
    );
    check(
        "phases: build: x\n",
        expect![[r#"
        1:14 yaml: mapping values are not allowed in this context
          hint: a colon followed by a space makes a mapping: put quotes around the whole text
          aws: mapping values are not allowed in this context at line 0
    "#]],
    );
    check(
        "version: 0.2\nphases:\n  build:\n  commands\n  x: y\n",
        expect![[r#"
            5:3 yaml: a line is neither `key: value` nor text
              hint: indent it deeper, if it belongs to what is above it
              aws: could not find expected ':' at line 4
        "#]],
    );
    check(
        "version: 0.2\nphases:\n  build:\n    commands: [`date`]\n",
        expect![[r#"
            4:16 yaml: no text can begin with a backtick
              hint: put quotes around the whole text
              aws: found character that cannot start any token at line 3
        "#]],
    );
}

#[test]
fn a_command_may_be_of_a_thousand_lines() {
    let lines = repeat(0..1000, |it| format!("        echo {it}\n"));
    let text = format!("version: 0.2\nphases:\n  build:\n    commands:\n      - |\n{lines}");
    let spec = Buildspec::parse(text.as_bytes()).unwrap();
    let command = &spec.phases[0].commands[0].text;
    assert_eq!(command.lines().count(), 1000);
    assert!(command.ends_with("echo 998\necho 999\n"));
}

#[test]
fn there_may_be_ten_thousand_commands() {
    let commands = repeat(0..10_000, |it| format!("      - echo {it}\n"));
    let text = format!("version: 0.2\nphases:\n  build:\n    commands:\n{commands}");
    let spec = Buildspec::parse(text.as_bytes()).unwrap();
    assert_eq!(spec.phases[0].commands.len(), 10_000);
}

/// A file with all keys of `section`, of which number `wrong` has a value of the wrong kind. What
/// is left of `wrong` is counted down on the way.
fn document(section: &Section, wrong: &mut Option<usize>) -> String {
    let mut entries = Vec::new();
    for key in section.keys {
        let is_wrong = *wrong == Some(0);
        *wrong = wrong.and_then(|it| it.checked_sub(1));
        let value = match (is_wrong, key.kind) {
            (true, kind) => wrong_value(kind).to_owned(),
            (false, Kind::Mapping(inner)) => document(inner, wrong),
            (false, Kind::Named(inner, _)) => format!("{{id: {}}}", document(inner, wrong)),
            (false, Kind::List(inner)) => format!("[{}]", document(inner, wrong)),
            (false, kind) => right_value(kind),
        };
        // Nobody waits for himself.
        let value = if key.name == "depend-on" && !is_wrong { "[]".to_owned() } else { value };
        entries.push(format!("{}: {value}", key.name));
    }
    format!("{{{}}}", entries.join(", "))
}

fn right_value(kind: Kind) -> String {
    match kind {
        Kind::OneOf(values) => values[0].to_owned(),
        Kind::AnyCase(values) => values[0].to_lowercase(),
        Kind::Form(_) => "ABORT".to_owned(),
        Kind::Bool => "yes".to_owned(),
        Kind::Count => "2".to_owned(),
        Kind::Values => "{A: x}".to_owned(),
        Kind::ValueLists => "{A: [x]}".to_owned(),
        _ => "x".to_owned(),
    }
}

fn wrong_value(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Texts(_) | Kind::List(_) => "{a: b}",
        Kind::Values | Kind::ValueLists | Kind::Mapping(_) | Kind::Named(..) => "[x]",
        Kind::OneOf(_) | Kind::AnyCase(_) | Kind::Form(_) | Kind::Bool | Kind::Count => "nonsense",
    }
}

#[test]
fn every_key_takes_what_its_table_says_and_nothing_else() {
    let right = document(&TOP, &mut None);
    let spec = Buildspec::parse(right.as_bytes()).unwrap();
    assert_eq!(spec.unknown_keys, [], "in {right}");
    let mut count = 0;
    loop {
        let mut wrong = Some(count);
        let text = document(&TOP, &mut wrong);
        if wrong.is_some() {
            break;
        }
        let (spec, problems) = Buildspec::inspect(text.as_bytes());
        assert!(problems.len() + spec.tolerated.len() > 0, "{text}");
        count += 1;
    }
    assert!(count > 100, "{count} keys");
}

#[test]
fn every_rule_has_a_file_that_breaks_it() {
    let mut broken: Vec<&str> = Vec::new();
    for (text, rule) in [
        ("a: [", "yaml"),
        ("a:\n\tb: c", "tab"),
        ("a: b\na: c", "duplicate-key"),
        ("\0", "encoding"),
        ("", "empty-file"),
        ("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "yaml"),
        (&"- ".repeat(200), "yaml-limit"),
        ("text", "wrong-type"),
        ("phases: {}", "missing-key"),
        ("version:\nphases: {}", "empty-key"),
        ("version: 3\nphases: {}", "unknown-version"),
        ("version: 0.2\nbatch: {}", "batch-only"),
        ("version: 0.2\nphases: {deploy: {}}", "unknown-phase"),
        ("version: 0.2\nphases: {build: {commands: [[x]]}}", "command-not-text"),
        ("version: 0.2\nphases: {}\nproxy: {logs: maybe}", "bad-boolean"),
        ("version: 0.2\nphases: {}\ncache: {action: both}", "bad-value"),
        ("version: 0.2\nphases: {}\nenv: {shell: zsh}", "unknown-shell"),
        ("version: 0.2\nphases: {}\nenv: {variables: {CODEBUILD_A: x}}", "reserved-variable"),
        ("version: 0.2\nphases: {}\nenv: {variables: {a=b: x}}", "bad-variable-name"),
        ("version: 0.2\nphases: {}\nrun-as: \"\\0\"", "nul-character"),
        ("version: 0.2\nphases: {}\nenv: {secrets-manager: {A: ''}}", "bad-reference"),
        ("version: 0.2\nphases: {build: {on-failure: no}}", "bad-on-failure"),
        ("version: 0.2\nphases: {}\ncache: {fallback-keys: [a, b, c, d, e, f]}", "too-many"),
        ("version: 0.2\nphases: {}\nbatch: {build-list: [{identifier: a/b}]}", "bad-identifier"),
        (
            "version: 0.2\nphases: {}\nbatch: {build-list: [{identifier: a}, {identifier: a}]}",
            "duplicate-identifier",
        ),
        (
            "version: 0.2\nphases: {}\nbatch: {build-graph: [{identifier: a, depend-on: b}]}",
            "unknown-dependency",
        ),
        (
            "version: 0.2\nphases: {}\nbatch: {build-graph: [{identifier: a, depend-on: a}]}",
            "dependency-cycle",
        ),
    ] {
        let (spec, mut problems) = Buildspec::inspect(text.as_bytes());
        problems.extend(spec.tolerated);
        assert!(problems.iter().any(|it| it.rule == rule), "{rule}: {problems:?}");
        broken.push(rule);
    }
    for Rule { name, .. } in RULES {
        assert!(broken.contains(&name), "nothing breaks {name}");
    }
}

#[test]
fn long_texts_of_a_file_are_not_repeated_in_full() {
    let long = "x".repeat(100_000);
    let text = format!("version: {long}\nphases: {{{long}: {{on-failure: {long}}}}}\n");
    for Problem { message, aws, .. } in Buildspec::parse(text.as_bytes()).unwrap_err() {
        assert!(message.len() + aws.unwrap_or_default().len() < 1000, "{message}");
    }
}
