//! Tests of the whole way from a file's bytes to a [`Buildspec`] or its problems.

use std::fmt::Write;

use expect_test::{Expect, expect};

use super::*;

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

fn draw(spec: &Buildspec) -> String {
    let mut out = String::new();
    if let Some(shell) = spec.shell {
        writeln!(out, "shell {}", shell.name()).unwrap();
    }
    for Variable { name, value, place } in &spec.variables {
        let place = place.unwrap();
        writeln!(out, "{place} {name}={value:?}").unwrap();
    }
    for PhaseCommands { phase, commands, finally, .. } in &spec.phases {
        writeln!(out, "{phase}").unwrap();
        for (list, commands) in [("", commands), ("finally ", finally)] {
            for Command { text, place } in commands {
                writeln!(out, "  {list}{place} {text:?}").unwrap();
            }
        }
    }
    if let Some(artifacts) = &spec.artifacts {
        writeln!(out, "{artifacts:?}").unwrap();
    }
    for UnknownKey { section, key, place, suggestion } in &spec.unknown_keys {
        writeln!(out, "{place} unknown in {section}: {key}, not {suggestion:?}").unwrap();
    }
    out
}

fn draw_problem(problem: &Problem) -> String {
    let place = problem.place.map_or("-".to_owned(), |it| it.to_string());
    let mut out = format!("{place} {}\n", problem.message);
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
            6:9 command 1 of `build.commands` is a mapping, not text
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
              aws: Expected Commands[0] to be of string type: found subkeys instead at line 6, value of the key tag on line 5 might be empty
            8:9 command 3 of `build.commands` is a list, not text
            9:14 `build.finally` is a mapping, not a list
        "#]],
    );
    check(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b: c\n",
        expect![[r#"
        5:18 mapping values are not allowed in this context
          hint: a colon followed by a space makes a mapping: put quotes around the whole text
          aws: mapping values are not allowed in this context at line 5
    "#]],
    );
}

#[test]
fn keys_that_are_not_built_yet_are_refused_by_name() {
    check(
        "version: 0.2
run-as: me
env:
  parameter-store: {A: /a}
  secrets-manager: {B: b}
  exported-variables: [C]
  git-credential-helper: yes
proxy: {logs: yes}
batch: {fast-fail: true}
phases:
  install:
    run-as: me
    on-failure: ABORT
    runtime-versions: {python: 3.10}
    commands: [make]
  build:
    run-as: me
    on-failure: CONTINUE
    commands: [make]
reports: {r: {files: x}}
artifacts:
  files: [x]
  exclude-paths: [x]
  enable-symlinks: yes
  s3-prefix: x
  secondary-artifacts: {x: {files: x}}
cache: {paths: [x]}
",
        expect![[r#"
            2:1 `run-as` is not supported yet
            4:3 `env.parameter-store` is not supported yet
            5:3 `env.secrets-manager` is not supported yet
            6:3 `env.exported-variables` is not supported yet
            7:3 `env.git-credential-helper` is not supported yet
            8:1 `proxy` is not supported yet
            9:1 `batch` is not supported yet
            12:5 `install.run-as` is not supported yet
            13:5 `install.on-failure` is not supported yet
            14:5 `install.runtime-versions` is not supported yet
            17:5 `build.run-as` is not supported yet
            18:5 `build.on-failure` is not supported yet
            20:1 `reports` is not supported yet
            23:3 `artifacts.exclude-paths` is not supported yet
            24:3 `artifacts.enable-symlinks` is not supported yet
            25:3 `artifacts.s3-prefix` is not supported yet
            26:3 `artifacts.secondary-artifacts` is not supported yet
            27:1 `cache` is not supported yet
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
            3:3 the phase `postbuild` is unknown
              hint: did you mean `post_build`?
              aws: Invalid buildspec phase name: POSTBUILD. Expecting: BUILD,INSTALL,POST_BUILD,PRE_BUILD
            5:3 the phase `deploy` is unknown
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
        - `version` is missing
          hint: write `version: 0.2`
    "#]],
    );
    check(
        "version: 0.1\nphases: {}\n",
        expect![[r#"
        1:10 buildspec version `0.1` is not supported yet
          hint: write `version: 0.2`
    "#]],
    );
    check(
        "version: 0.9\nphases: {}\n",
        expect![[r#"
        1:10 buildspec version `0.9` is not supported
          hint: write `version: 0.2`
    "#]],
    );
    check(
        "version:\nphases: {}\n",
        expect![[r#"
        1:1 `version` is empty
          hint: write `version: 0.2`
    "#]],
    );
    check(
        "version: 0.2\n",
        expect![[r#"
        - `phases` is missing
          hint: a buildspec needs `phases`, with `commands` in them
    "#]],
    );
    check(
        "version: 0.2\nphases:\nbuild:\n  commands: [x]\n",
        expect![[r#"
        2:1 `phases` is empty
          hint: indent what belongs to it by two spaces
    "#]],
    );
}

#[test]
fn wrong_types_are_errors() {
    check(
        "just text\n",
        expect![[r#"
        1:1 the file holds text, not a mapping of keys
    "#]],
    );
    check(
        "- version: 0.2\n",
        expect![[r#"
        1:1 the file holds a list, not a mapping of keys
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
            1:10 `version` is a list, not text
            3:10 `env.shell` is a mapping, not text
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
            5:8 `env.variables.A` is a list, not text
            6:8 `env.variables.B` is a mapping, not text
              hint: a colon followed by a space makes a mapping: put quotes around the whole text
            7:5 the variable `CODEBUILD_X` begins with `CODEBUILD_`, which only the build may set
            8:5 `` cannot be the name of a variable
            9:5 `a=b` cannot be the name of a variable
            11:12 `install` is text, not a mapping
              hint: write `commands:` above the commands
            13:5 `build` is a list, not a mapping
              hint: write `commands:` above the commands
            15:10 `artifacts.files` is a mapping, not a list
            16:18 `artifacts.discard-paths` is `maybe`, not yes or no
            17:9 `artifacts.name` is a list, not text
        "#]],
    );
    check_rest(
        "env: {variables: [A]}\n",
        expect![[r#"
        3:18 `env.variables` is a list, not a mapping
    "#]],
    );
    check_rest(
        "env: []\n",
        expect![[r#"
        3:6 `env` is a list, not a mapping
    "#]],
    );
    check_rest(
        "env: {shell: zsh}\n",
        expect![[r#"
            3:14 the shell `zsh` is not supported
              hint: the shells are `sh`, `bash`, `/bin/sh`, `/bin/bash`, `powershell.exe`, `pwsh`
        "#]],
    );
    check_rest(
        "env: {variables: {A: \"x\\0y\"}}\n",
        expect![[r#"
        3:22 `env.variables.A` holds a NUL character, which no shell can take
    "#]],
    );
    check_rest(
        "artifacts: {name: x}\n",
        expect![[r#"
        3:1 `artifacts.files` is missing
    "#]],
    );
    check_rest(
        "artifacts: {files: []}\n",
        expect![[r#"
        3:1 `artifacts.files` is missing
    "#]],
    );
}

#[test]
fn what_is_no_yaml_is_explained() {
    check(
        "",
        expect![[r#"
        - the file is empty
          hint: write `version: 0.2`, and `phases` with `commands` in them
    "#]],
    );
    check(
        "version: 0.2\nphases:\n\tbuild: {}\n",
        expect![[r#"
        3:1 a tab stands where YAML allows only spaces
          hint: indent with spaces
          aws: found character that cannot start any token at line 3
    "#]],
    );
    check(
        "version: 0.2\nphases:\n  build: {}\n  build: {}\n",
        expect![[r#"
        4:3 the key `build` is there twice
    "#]],
    );
    check(
        "version: 0.2\n---\nphases: {}\n",
        expect![[r#"
        3:1 the file has 2 YAML documents, not one
          hint: a buildspec is one YAML document
    "#]],
    );
    check(
        "version: 0.2\nphases: [a, b\n",
        expect![[r#"
        3:1 while parsing a flow sequence, expected ',' or ']'
          aws: did not find expected ',' or ']' at line 3
    "#]],
    );
    check(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - make\n       - test\n     - x: y\n",
        expect![[r#"
            7:6 while parsing a block mapping, did not find expected key
              aws: did not find expected key at line 7
        "#]],
    );
    check(
        b"\x7fELF\x02\x01\x01\x00\x00",
        expect![[r#"
        1:8 the file is binary, not text
          hint: a buildspec is one YAML document
    "#]],
    );
    check(
        b"version: 0.2\nname: caf\xE9\n",
        expect![[r#"
        2:10 the file is not UTF-8
          hint: save the file as UTF-8
    "#]],
    );
}
