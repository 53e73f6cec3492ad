//! Tests of what comes out for whole files, and what those of the rules share.

use std::{fmt::Write as _, time::Instant};

use expect_test::{Expect, expect};

use super::*;

/// All that breaks `rule`, also if nobody asked for it.
pub(super) fn found(rule: &str, text: &str) -> Vec<Finding> {
    let mut findings = super::check(text.as_bytes()).findings;
    findings.retain(|it| it.rule == rule);
    findings.sort();
    findings
}

/// Compares what the parser refuses.
#[track_caller]
pub(super) fn check_refused(text: &str, want: Expect) {
    let mut findings: Vec<Finding> =
        rule::of_parser().flat_map(|it| found(it.name, text)).collect();
    findings.sort();
    want.assert_eq(&draw(&findings));
}

/// Compares what breaks `rule`.
#[track_caller]
pub(super) fn check(rule: &str, text: &str, want: Expect) {
    want.assert_eq(&draw(&found(rule, text)));
}

fn draw(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { place, end, level, message, hint, aws, .. } in findings {
        let place = place.map_or("-".to_owned(), |it| it.to_string());
        let end = end.map_or(String::new(), |it| format!("-{}", it.column));
        let level = level.map_or("off", Level::name);
        write!(out, "{place}{end} {level} {message}").unwrap();
        if let Some(hint) = hint {
            write!(out, " ({hint})").unwrap();
        }
        if let Some(aws) = aws {
            write!(out, " AWS: {aws}").unwrap();
        }
        out.push('\n');
    }
    out
}

#[test]
fn findings_are_in_the_order_of_the_file_and_comments_take_them_away() {
    let text = "version: 0.2
phases:
  build:
    commands:
      - source x
      - source x # rbuild: allow bash-in-sh
      # rbuild: allow bash-in-sh
      # rbuild: allow yaml-accident
      - source x |
      - |
        # rbuild: allow bash-in-sh
        source x
      -
artifact: {}
";
    let checked = super::check(text.as_bytes());
    expect![[r"
        5:9-15 warning `source` is of bash, and this command runs in `sh` (write `shell: bash` below `env:`; without it, this fails where `sh` is dash, as on Ubuntu)
        13:8 warning this item is empty: it runs as an empty command (write the command behind its `-`, or remove the line)
        14:1 warning `artifact` means nothing here (did you mean `artifacts`?)
    "]]
    .assert_eq(&draw(&checked.settle(&Switches::default())));
}

#[test]
fn a_file_that_is_no_yaml_has_one_problem() {
    for text in ["", "a: [", "\t", "\u{0}", "a: b: c"] {
        let findings = super::check(text.as_bytes()).settle(&Switches::default());
        assert_eq!(findings.len(), 1, "for {text:?}: {findings:?}");
        assert_eq!(findings[0].level, Some(Level::Error));
    }
    super::check(&[0xFF, 0xFE, 0x00]);
}

#[test]
fn what_is_anchored_is_told_once() {
    let text = "version: 0.2\nphases:\n  pre_build: &a\n    commands: [source x]\n  build: *a\n";
    let checked = super::check(text.as_bytes());
    assert_eq!(checked.settle(&Switches::default()).len(), 1);
    assert_eq!(checked.scripts.len(), 1);
}

#[test]
fn places_in_commands_are_those_of_the_file() {
    let text = "version: 0.2\nphases:\n  build:\n    commands:\n      - |\n        a\n          b c\n      - x: &y |\n";
    let text = text.replace("      - x: &y |\n", "      - &y make\n      - *y\n");
    let checked = super::check(text.as_bytes());
    let place = |script: usize, line, column| {
        let place = checked.scripts[script].place(line, column);
        (place.line, place.column)
    };
    assert_eq!(place(0, 1, 1), (6, 9));
    assert_eq!(place(0, 2, 5), (7, 13));
    assert_eq!(place(0, 99, 99), (7, 14));
    assert_eq!(place(1, 1, 1), (8, 12));
    // An alias: where it stands is all that is known.
    assert_eq!(place(2, 1, 3), (9, 9));
}

#[test]
fn large_files_are_checked_quickly() {
    let started = Instant::now();
    for item in [
        "      - source x; [[ a ]]\n",
        "      -\n",
        "      - - a\n",
        "      - *a\n",
        "      - 'false'\n",
    ] {
        let items = item.repeat(10_000);
        let text = format!("version: 0.2\nx: &a 'b'\nphases:\n  build:\n    commands:\n{items}");
        let _ = super::check(text.as_bytes()).settle(&Switches::default());
    }
    let block = "        [[ a ]] && source x\n".repeat(20_000);
    let text = format!("version: 0.2\nphases:\n  build:\n    commands:\n      - |\n{block}");
    let _ = super::check(text.as_bytes()).settle(&Switches::default());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
