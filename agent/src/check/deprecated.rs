//! Ways to write something that were given up.

use crate::{
    check::{
        File, Finding, Script,
        outline::{self, Outline},
        script::{self, Simple},
    },
    source::Place,
};

const RULE: &str = "deprecated";

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    let mut findings = keys(file.outline);
    findings.extend(runtimes(file.outline));
    findings.extend(file.scripts.iter().flat_map(commands));
    findings
}

/// Whether an unknown key is one that was given up: it is told of here.
pub(super) fn is_key(section: &str, key: &str) -> bool {
    matches!((section, key), ("artifacts", "type") | ("buildspec", "environment_variables"))
}

fn finding(place: Place, message: &str, hint: &str) -> Finding {
    Finding::new(RULE, place, message.to_owned()).hint(hint)
}

fn keys(outline: &Outline<'_>) -> Vec<Finding> {
    let Some(root) = outline.root else { return Vec::new() };
    let mut findings = Vec::new();
    let version = outline::value(root, "version").and_then(outline::text);
    let is_old = version.is_some_and(|it| it.text == "0.1");
    if let Some(version) = version.filter(|_| is_old) {
        findings.push(finding(
            version.place,
            "version 0.1 is old: each command starts anew, without what others set",
            "write `version: 0.2`, and `env.variables` for `environment_variables.plaintext`",
        ));
    }
    if let Some(entry) = outline::entry(root, "environment_variables").filter(|_| !is_old) {
        findings.push(finding(
            entry.place,
            "`environment_variables` is of version 0.1, and means nothing in 0.2",
            "write `env:`, and `variables:` below it",
        ));
    }
    let artifacts = outline::value(root, "artifacts");
    if let Some(entry) = artifacts.and_then(|it| outline::entry(it, "type")) {
        findings.push(finding(
            entry.place,
            "`artifacts.type` means nothing any more",
            "remove it: the project says how artifacts are packed",
        ));
    }
    findings
}

fn runtimes(outline: &Outline<'_>) -> Vec<Finding> {
    let runtimes = outline.phases.iter().flat_map(|it| &it.runtimes);
    runtimes
        .filter(|it| it.text == "docker")
        .map(|it| {
            finding(
                it.place,
                "the runtime `docker` is gone: images have one docker, and newer ones refuse this",
                "remove the line",
            )
        })
        .collect()
}

fn commands(script: &Script) -> Vec<Finding> {
    let split = script::split(&script.text);
    let old = split.simple.iter().filter_map(|it| Some((it, old(it)?)));
    old.map(|(simple, (message, hint))| {
        let program = simple.program();
        let start = program.first().map_or(0, |it| it.start);
        let end = program.last().map_or(start, script::Word::end);
        finding(script.start, message, hint).within(script, start, end)
    })
    .collect()
}

fn old(simple: &Simple<'_>) -> Option<(&'static str, &'static str)> {
    if simple.is(&["aws", "ecr", "get-login"]) {
        return Some((
            "`aws ecr get-login` is gone since version 2 of the AWS CLI",
            "aws ecr get-login-password | docker login --username AWS --password-stdin REGISTRY",
        ));
    }
    let is_password = |it: &str| it == "-p" || it == "--password" || it.starts_with("--password=");
    let shows = simple.program().iter().any(|it| is_password(it.raw));
    (simple.is(&["docker", "login"]) && shows).then_some((
        "a password among the arguments is seen by every process of the machine",
        "pass it on standard input, with `--password-stdin`",
    ))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::check::tests::check;

    #[test]
    fn what_was_given_up_is_found() {
        check(
            "deprecated",
            "version: 0.2
environment_variables: {plaintext: {A: b}}
phases:
  install:
    runtime-versions: {docker: 18, python: 3.12}
  build:
    commands:
      - $(aws ecr get-login --no-include-email --region x)
      - docker login -u AWS -p $PASSWORD host
      - docker login --password=x
artifacts: {files: a, type: zip}
",
            expect![[r"
                2:1 warning `environment_variables` is of version 0.1, and means nothing in 0.2 (write `env:`, and `variables:` below it)
                5:24 warning the runtime `docker` is gone: images have one docker, and newer ones refuse this (remove the line)
                8:11-58 warning `aws ecr get-login` is gone since version 2 of the AWS CLI (aws ecr get-login-password | docker login --username AWS --password-stdin REGISTRY)
                9:9-46 warning a password among the arguments is seen by every process of the machine (pass it on standard input, with `--password-stdin`)
                10:9-34 warning a password among the arguments is seen by every process of the machine (pass it on standard input, with `--password-stdin`)
                11:23 warning `artifacts.type` means nothing any more (remove it: the project says how artifacts are packed)
            "]],
        );
        check(
            "deprecated",
            "version: 0.1\nenvironment_variables: {plaintext: {A: b}}\nphases: {}\n",
            expect![[r"
                1:10 warning version 0.1 is old: each command starts anew, without what others set (write `version: 0.2`, and `env.variables` for `environment_variables.plaintext`)
            "]],
        );
    }

    #[test]
    fn what_is_used_today_is_not() {
        check(
            "deprecated",
            "version: 0.2
phases:
  install:
    runtime-versions: {python: 3.12}
  build:
    commands:
      - aws ecr get-login-password | docker login --username AWS --password-stdin host
      - docker run -p 80:80 x login
      - echo docker login -p x
artifacts: {files: type}
",
            expect![[""]],
        );
    }
}
