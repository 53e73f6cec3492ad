//! Failures that go unnoticed: in the phase before, and in the middle of a command.

use crate::{
    check::{
        File, Finding, Script,
        outline::Outline,
        script::{self, Simple, Split},
    },
    phase::{OnFailure, Phase},
};

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    if !file.outline.is_posix() {
        return Vec::new();
    }
    let lost = file.scripts.iter().filter_map(lost_status);
    lost.chain(after_failure(file)).collect()
}

/// What makes something public, or changes what users are served.
const PUBLISHING: &[&[&str]] = &[
    &["docker", "push"],
    &["docker", "image", "push"],
    &["docker", "manifest", "push"],
    &["docker-compose", "push"],
    &["docker", "compose", "push"],
    &["rbuild", "image", "push"],
    &["rbuild", "deploy", "ecs"],
    &["rbuild", "deploy", "codedeploy"],
    &["aws", "ecs", "update-service"],
    &["aws", "ecs", "create-service"],
    &["aws", "deploy", "create-deployment"],
    &["aws", "lambda", "update-function-code"],
    &["aws", "lambda", "publish-version"],
    &["aws", "s3", "cp"],
    &["aws", "s3", "sync"],
    &["aws", "cloudformation", "deploy"],
    &["aws", "cloudformation", "create-stack"],
    &["aws", "cloudformation", "update-stack"],
    &["aws", "elasticbeanstalk", "update-environment"],
    &["kubectl", "apply"],
    &["kubectl", "set"],
    &["kubectl", "rollout"],
    &["helm", "upgrade"],
    &["helm", "install"],
    &["terraform", "apply"],
    &["cdk", "deploy"],
    &["sam", "deploy"],
    &["serverless", "deploy"],
    &["eb", "deploy"],
    &["npm", "publish"],
    &["yarn", "publish"],
    &["twine", "upload"],
];

/// The first command of `post_build` that publishes what a failed build left behind.
fn after_failure(file: &File<'_>) -> Option<Finding> {
    let outline = file.outline;
    let build = outline.phase(Phase::Build)?;
    let aborts = build.on_failure == Some(OnFailure::Abort);
    if aborts || build.texts().next().is_none() || looks(outline) {
        return None;
    }
    let texts: Vec<_> = outline.phase(Phase::PostBuild)?.texts().map(|it| it.place).collect();
    let mut scripts = file.scripts.iter().filter(|it| texts.contains(&it.start));
    let (script, start, end) = scripts.find_map(publishing)?;
    let message = "this runs after a failed build, too".to_owned();
    let hint = "write `on-failure: ABORT` in `build`, or begin `post_build` with: \
                test \"$CODEBUILD_BUILD_SUCCEEDING\" = 1";
    let finding = Finding::new("post-build-after-failure", script.start, message).hint(hint);
    Some(finding.within(script, start, end))
}

/// Whether `post_build` asks how the build went.
fn looks(outline: &Outline<'_>) -> bool {
    let post_build = outline.phase(Phase::PostBuild);
    post_build.is_some_and(|it| it.texts().any(|it| it.text.contains("CODEBUILD_BUILD_SUCCEEDING")))
}

/// Where a command publishes something.
fn publishing(script: &Script) -> Option<(&Script, usize, usize)> {
    let split = script::split(&script.text);
    let publishes = |it: &&Simple<'_>| PUBLISHING.iter().any(|words| it.is(words));
    let program = split.simple.iter().find(publishes)?.program();
    Some((script, program.first()?.start, program.last()?.end()))
}

/// A command whose lines may fail without anyone noticing.
fn lost_status(script: &Script) -> Option<Finding> {
    let split = script::split(&script.text);
    let sequence = split.simple.iter().filter(|it| matches!(it.ends_with, "\n" | ";")).count();
    let last = split.simple.last()?;
    let has_more = !matches!(last.ends_with, "\n" | ";") || sequence > 1;
    if sequence == 0 || !has_more || minds(&split) {
        return None;
    }
    let message = "if a line of this fails, the next one runs all the same".to_owned();
    let hint = "begin with `set -e`, or put `&&` between the lines";
    Some(Finding::new("multi-line-status", script.start, message).hint(hint))
}

/// Whether a command takes care of failures, or is more than a sequence.
fn minds(split: &Split<'_>) -> bool {
    split.simple.iter().any(|it| {
        let first = it.words.first().map_or("", |it| it.raw);
        let sets = first == "set" && it.words.iter().skip(1).any(|it| sets_e(it.raw));
        sets || matches!(it.ends_with, "&&" | "||")
            || matches!(first, "if" | "while" | "until" | "for" | "case" | "{")
    })
}

fn sets_e(word: &str) -> bool {
    word == "errexit" || word.starts_with('-') && word.contains('e')
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::check::tests::{check, found};

    #[test]
    fn what_is_published_after_a_failed_build_is_found() {
        check(
            "post-build-after-failure",
            "version: 0.2
phases:
  build: {commands: make}
  post_build:
    commands:
      - echo pushing
      - |
        echo now
        docker push x
      - docker push y
",
            expect![[r#"
                9:9-22 note this runs after a failed build, too (write `on-failure: ABORT` in `build`, or begin `post_build` with: test "$CODEBUILD_BUILD_SUCCEEDING" = 1)
            "#]],
        );
        for command in [
            "aws --region x ecs update-service --cluster a",
            "rbuild image push x",
            "kubectl apply -f x",
            "if [ -e x ]; then terraform apply; fi",
            "cd x && npm publish",
        ] {
            let text = file("", command);
            assert_eq!(found("post-build-after-failure", &text).len(), 1, "for {command}");
        }
    }

    fn file(wish: &str, command: &str) -> String {
        format!(
            "version: 0.2\nphases:\n  build:\n    {wish}\n    commands: make\n  \
             post_build:\n    commands:\n      - {command}\n"
        )
    }

    #[test]
    fn what_looks_at_the_build_or_publishes_nothing_is_not() {
        for (wish, command) in [
            ("on-failure: ABORT", "docker push x"),
            ("", "test $CODEBUILD_BUILD_SUCCEEDING = 1 && docker push x"),
            ("", "docker images"),
            ("", "echo docker push x"),
            ("", "aws s3 ls"),
        ] {
            let text = file(wish, command);
            assert_eq!(found("post-build-after-failure", &text), [], "for {wish} {command}");
        }
        let text = "version: 0.2\nphases: {post_build: {commands: docker push x}}\n";
        assert_eq!(found("post-build-after-failure", text), []);
    }

    #[test]
    fn lines_whose_failure_is_lost_are_found() {
        for (command, want) in [
            ("a\\nb", 1),
            ("a; b", 1),
            ("a\\nb\\n", 1),
            ("a", 0),
            ("a;", 0),
            ("a\\n", 0),
            ("set -e\\na\\nb", 0),
            ("set -eu; a; b", 0),
            ("set -o errexit\\na\\nb", 0),
            ("a && b\\nc", 0),
            ("a || exit 1\\nb", 0),
            ("if a; then\\n  b\\nfi", 0),
            ("cat <<E\\na\\nb\\nE", 0),
            ("a | b", 0),
        ] {
            let text = file("", &format!("\"{command}\""));
            assert_eq!(found("multi-line-status", &text).len(), want, "for {command}");
        }
    }

    #[test]
    fn lost_failures_are_not_told_of_unless_asked_for() {
        let text = file("", "a; b");
        let checked = crate::check::check(text.as_bytes());
        assert_eq!(checked.settle(&crate::check::switches::Switches::default()), []);
    }
}
