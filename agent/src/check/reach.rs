//! Commands and phases that can never run.
//!
//! Only what fails beyond doubt counts: a command that is `false` or `exit 1`, and nothing else.

use crate::{
    check::{
        File, Finding,
        outline::{Item, Outline, PhaseOutline},
        script,
    },
    choice::Choices,
    phase::{Stage, State},
    source::Place,
};

const RULE: &str = "unreachable";

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    let lists = file.outline.phases.iter().flat_map(|it| [&it.commands, &it.finally]);
    let mut findings: Vec<Finding> = lists.filter_map(|it| behind(it)).collect();
    findings.extend(phases(file.outline));
    findings
}

/// What is behind a command that always fails.
fn behind(items: &[Item<'_>]) -> Option<Finding> {
    let index = items.iter().position(always_fails)?;
    let next = items.get(index + 1)?;
    let what = match items.len() - index - 1 {
        1 => "this command never runs".to_owned(),
        count => format!("{count} commands never run"),
    };
    let line = items[index].place().line;
    let message = format!("{what}: the one in line {line} always fails");
    Some(Finding::new(RULE, next.place(), message).hint("what always fails belongs at the end"))
}

/// The phases that no build comes to.
fn phases(outline: &Outline<'_>) -> Vec<Finding> {
    let failing = outline.phases.iter().find_map(|it| Some((it, failure(it)?)));
    let Some((failing, place)) = failing else { return Vec::new() };
    let (choices, mut reached) = (Choices::default(), Vec::new());
    let mut next =
        Stage::Commands(failing.phase).after(State::Failed, failing.on_failure.as_ref(), &choices);
    while let Some(stage) = next {
        reached.push(stage);
        next = stage.after(State::Succeeded, None, &choices);
    }
    let later = outline.phases.iter().filter(|it| it.phase > failing.phase);
    let lost = later.filter(|it| !reached.contains(&Stage::Commands(it.phase)));
    lost.filter(|it| it.texts().next().is_some())
        .map(|it| {
            let (name, failing, line) = (it.phase.name(), failing.phase.name(), place.line);
            let message =
                format!("the phase `{name}` never runs: `{failing}` always fails in line {line}");
            Finding::new(RULE, it.place, message)
                .hint(format!("`on-failure: CONTINUE` in `{failing}` would let the build go on"))
        })
        .collect()
}

/// Where a phase always fails.
fn failure(phase: &PhaseOutline<'_>) -> Option<Place> {
    let mut all = phase.commands.iter().chain(&phase.finally);
    all.find(|it| always_fails(it)).map(Item::place)
}

fn always_fails(item: &Item<'_>) -> bool {
    let Item::Command(text) = item else { return false };
    let split = script::split(text.text);
    let [simple] = split.simple.as_slice() else { return false };
    let words: Vec<&str> = simple.words.iter().map(|it| it.raw).collect();
    match words.as_slice() {
        _ if !matches!(simple.ends_with, "" | ";" | "\n") => false,
        ["false"] => true,
        ["exit", status] => status.parse::<u32>().is_ok_and(|it| it % 256 != 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::check::tests::check;

    #[test]
    fn what_is_behind_a_certain_failure_is_found() {
        check(
            "unreachable",
            "version: 0.2
phases:
  install:
    commands: [make, exit 1, ls, ls]
    finally: ['false', ls]
  pre_build:
    commands: []
  build:
    commands: ['exit 3 # why']
",
            expect![[r"
                4:30 warning 2 commands never run: the one in line 4 always fails (what always fails belongs at the end)
                5:24 warning this command never runs: the one in line 5 always fails (what always fails belongs at the end)
                8:3 warning the phase `build` never runs: `install` always fails in line 4 (`on-failure: CONTINUE` in `install` would let the build go on)
            "]],
        );
    }

    #[test]
    fn what_may_run_is_not() {
        for commands in [
            "[exit 0, ls]",
            "[exit 256, ls]",
            "['false || true', ls]",
            "['false &', ls]",
            "['true && exit 1', ls]",
            "['[ -e x ] || exit 1', ls]",
            "[exit $STATUS, ls]",
            "[ls, exit 1]",
            "[\"if x; then\\n exit 1\\nfi\", ls]",
        ] {
            let text = format!("version: 0.2\nphases: {{build: {{commands: {commands}}}}}\n");
            check("unreachable", &text, expect![[""]]);
        }
    }

    #[test]
    fn what_comes_after_a_failure_depends_on_the_phase_and_its_wish() {
        for (phase, wish, lost) in [
            ("install", "", "pre_build build post_build"),
            ("install", "on-failure: continue", ""),
            ("install", "on-failure: RETRY-2", "pre_build build post_build"),
            ("pre_build", "", "build post_build"),
            ("build", "", ""),
            ("build", "on-failure: ABORT", "post_build"),
            ("post_build", "", ""),
        ] {
            let phases = ["install", "pre_build", "build", "post_build"].map(|it| match it {
                it if it == phase => format!("  {it}:\n    commands: exit 1\n    {wish}\n"),
                it => format!("  {it}:\n    commands: ls\n"),
            });
            let text = format!("version: 0.2\nphases:\n{}", phases.concat());
            let found = crate::check::tests::found("unreachable", &text);
            let names = found.iter().filter_map(|it| it.message.split('`').nth(1));
            assert_eq!(names.collect::<Vec<_>>().join(" "), lost, "for {phase} {wish}");
        }
    }
}
