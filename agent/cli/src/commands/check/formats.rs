//! Findings, for people and for programs.
//!
//! **Architecture invariant:** what a file says cannot change the terminal, nor be a command of a
//! workflow, nor end a string of JSON; and no value that looks like a secret is shown.

use std::{collections::HashMap, fmt::Write as _};

use rbuild_agent::{
    check::{
        Finding,
        rule::{self, Level},
    },
    secret::Redactor,
    source::Place,
};
use serde_json::{Map, Value, json};

use crate::console::{self, excerpt::underlined};

/// The version of the JSON that is printed. Keys may be added to a version, and none changes.
pub(super) const VERSION: u32 = 1;

/// The most findings of one file that are printed.
const MOST: usize = 1000;
/// The most lines in which there is the same that are listed.
const MOST_LINES: usize = 12;

/// What was found in one file.
#[derive(Debug)]
pub(super) struct Report {
    /// The file, as the user calls it.
    pub(super) file: String,
    /// What is in it.
    pub(super) text: String,
    pub(super) findings: Vec<Finding>,
    /// Knows the values in it that must not be shown.
    pub(super) redactor: Redactor,
    /// Whether it could not be looked at, and that is not the file's fault.
    pub(super) is_machine_problem: bool,
}

impl Report {
    pub(super) fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|it| it.level == Some(level)).count()
    }

    fn shown(&self) -> &[Finding] {
        &self.findings[..self.findings.len().min(MOST)]
    }

    fn omitted(&self) -> usize {
        self.findings.len() - self.shown().len()
    }
}

fn count(reports: &[Report], level: Level) -> usize {
    reports.iter().map(|it| it.count(level)).sum()
}

fn all(reports: &[Report]) -> impl Iterator<Item = (&Report, &Finding)> {
    reports.iter().flat_map(|report| report.shown().iter().map(move |it| (report, it)))
}

fn level(finding: &Finding) -> Level {
    finding.level.unwrap_or(Level::Note)
}

/// For people.
pub(super) fn text(reports: &[Report]) -> String {
    let mut out = String::new();
    for report in reports {
        let lines: Vec<&str> = report.text.lines().collect();
        for (finding, others) in grouped(report.shown()) {
            out += &diagnostic(report, &lines, finding);
            out += &also_in(finding, others);
            out.push('\n');
        }
        if report.omitted() > 0 {
            _ = writeln!(out, "({} more of {} are not shown)\n", report.omitted(), report.file);
        }
    }
    out += &summary(reports);
    console::visible(&out).into_owned()
}

/// Each finding, and the lines of those that are told with it: what shellcheck notes everywhere is
/// told once.
fn grouped(findings: &[Finding]) -> Vec<(&Finding, Vec<usize>)> {
    let mut groups: Vec<(&Finding, Vec<usize>)> = Vec::new();
    let mut first_of = HashMap::new();
    for finding in findings {
        let is_note = level(finding) == Level::Note && rule::is_of_shellcheck(&finding.rule);
        match first_of.get(&finding.rule) {
            Some(index) if is_note => {
                let (_, others): &mut (_, Vec<usize>) = &mut groups[*index];
                others.extend(finding.place.map(|it| it.line));
            }
            _ => {
                if is_note {
                    first_of.insert(&finding.rule, groups.len());
                }
                groups.push((finding, Vec::new()));
            }
        }
    }
    groups
}

/// Where the same was found.
fn also_in(finding: &Finding, mut others: Vec<usize>) -> String {
    others.dedup();
    others.retain(|it| finding.place.is_none_or(|place| place.line != *it));
    let noun = match others.len() {
        0 => return String::new(),
        1 => "line",
        _ => "lines",
    };
    let listed: Vec<String> = others.iter().take(MOST_LINES).map(usize::to_string).collect();
    let more = if MOST_LINES < others.len() { ", …" } else { "" };
    format!("also in {noun} {}{more}\n", listed.join(", "))
}

fn diagnostic(report: &Report, lines: &[&str], finding: &Finding) -> String {
    let Finding { place, end, rule, message, hint, aws, .. } = finding;
    let mut out = format!("{}: {message} [{rule}]\n", level(finding));
    if let Some(place) = place {
        let line = lines.get(place.line - 1).copied().unwrap_or_default();
        let width = width(*place, *end);
        let line = report.redactor.mask(line);
        out += &underlined(&report.file, &line, (place.line, place.column), width);
    } else {
        _ = write!(out, " --> {}", report.file);
    }
    out.push('\n');
    if let Some(aws) = aws {
        _ = writeln!(out, "CodeBuild says: YAML_FILE_ERROR: {aws}");
    }
    if let Some(hint) = hint {
        _ = writeln!(out, "hint: {hint}");
    }
    out
}

/// How many characters are meant: one, unless more is known.
fn width(place: Place, end: Option<Place>) -> usize {
    let end = end.filter(|it| it.line == place.line);
    end.map_or(1, |it| it.column.saturating_sub(place.column).max(1))
}

/// How much was found, in one line.
fn summary(reports: &[Report]) -> String {
    let counts = [Level::Error, Level::Warning, Level::Note].map(|it| (it, count(reports, it)));
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts.map(|(level, it)| plural(*it, level.name())).collect();
    let found = if counts.is_empty() { "no findings".to_owned() } else { counts.join(", ") };
    format!("{found} in {}\n", plural(reports.len(), "file"))
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// One JSON object; its keys are documented in the help of the command.
pub(super) fn json(reports: &[Report]) -> String {
    let findings: Vec<Value> = all(reports).map(|(report, it)| json_finding(report, it)).collect();
    let omitted: usize = reports.iter().map(Report::omitted).sum();
    let summary = json!({
        "files": reports.len(),
        "errors": count(reports, Level::Error),
        "warnings": count(reports, Level::Warning),
        "notes": count(reports, Level::Note),
        "omitted": omitted,
    });
    format!("{:#}\n", json!({ "version": VERSION, "findings": findings, "summary": summary }))
}

fn json_finding(report: &Report, finding: &Finding) -> Value {
    let mut object = Map::new();
    object.insert("file".to_owned(), json!(report.file));
    for (key, value) in [
        ("line", finding.place.map(|it| it.line)),
        ("column", finding.place.map(|it| it.column)),
        ("endLine", finding.end.map(|it| it.line)),
        ("endColumn", finding.end.map(|it| it.column)),
    ] {
        object.extend(value.map(|it| (key.to_owned(), json!(it))));
    }
    object.insert("rule".to_owned(), json!(finding.rule));
    object.insert("level".to_owned(), json!(level(finding).name()));
    object.insert("message".to_owned(), json!(finding.message));
    for (key, value) in [("hint", &finding.hint), ("aws", &finding.aws)] {
        object.extend(value.as_ref().map(|it| (key.to_owned(), json!(it))));
    }
    Value::Object(object)
}

/// SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format").
pub(super) fn sarif(reports: &[Report]) -> String {
    let mut names: Vec<&str> = rule::all().iter().map(|it| it.name).collect();
    let mut others: Vec<&str> = all(reports).map(|(_, it)| &*it.rule).collect();
    others.retain(|it| rule::named(it).is_none());
    others.sort_unstable();
    others.dedup();
    names.extend(others);
    let results: Vec<Value> = all(reports).map(|(file, it)| result(file, it, &names)).collect();
    let rules: Vec<Value> = names.iter().map(|it| sarif_rule(it)).collect();
    let driver = json!({ "name": "rbuild", "version": env!("CARGO_PKG_VERSION"), "rules": rules });
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log:#}\n")
}

fn sarif_rule(name: &str) -> Value {
    match rule::named(name) {
        Some(rule) => {
            let level = rule.level.unwrap_or(Level::Note).name();
            json!({
                "id": name,
                "shortDescription": { "text": rule.about },
                "defaultConfiguration": { "enabled": rule.level.is_some(), "level": level },
            })
        }
        None => json!({
            "id": name,
            "shortDescription": { "text": format!("A rule of shellcheck: {name}.") },
            "helpUri": format!("https://www.shellcheck.net/wiki/{name}"),
        }),
    }
}

fn result(report: &Report, finding: &Finding, names: &[&str]) -> Value {
    let mut location = json!({ "artifactLocation": { "uri": uri(&report.file) } });
    if let Some(place) = finding.place {
        let mut region = json!({ "startLine": place.line, "startColumn": place.column });
        if let Some(end) = finding.end {
            region["endLine"] = json!(end.line);
            region["endColumn"] = json!(end.column);
        }
        location["region"] = region;
    }
    json!({
        "ruleId": finding.rule,
        "ruleIndex": names.iter().position(|it| *it == finding.rule),
        "level": level(finding).name(),
        "message": { "text": message(finding) },
        "locations": [{ "physicalLocation": location }],
    })
}

/// Message, hint, and what `CodeBuild` says, each in a line.
fn message(finding: &Finding) -> String {
    let hint = finding.hint.as_ref().map(|it| format!("hint: {it}"));
    let aws = finding.aws.as_ref().map(|it| format!("CodeBuild says: YAML_FILE_ERROR: {it}"));
    let lines = [Some(finding.message.clone()), aws, hint];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// A path as a reference to a URI (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri
}

/// Annotations, as the log of a step of GitHub Actions makes them ("Workflow commands").
pub(super) fn github(reports: &[Report]) -> String {
    let mut out = String::new();
    for (report, finding) in all(reports) {
        let command = match level(finding) {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "notice",
        };
        let mut properties = format!("file={}", property(&report.file));
        for (key, value) in [
            ("line", finding.place.map(|it| it.line)),
            ("endLine", finding.end.map(|it| it.line)),
            ("col", finding.place.map(|it| it.column)),
            ("endColumn", finding.end.map(|it| it.column)),
        ] {
            _ = value.map(|it| write!(properties, ",{key}={it}"));
        }
        _ = write!(properties, ",title={}", property(&finding.rule));
        let message = escaped(&console::visible(&message(finding)));
        _ = writeln!(out, "::{command} {properties}::{message}");
    }
    out
}

/// The data of a workflow command, which is one line.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a workflow command, which ends at a comma or a colon.
fn property(text: &str) -> String {
    escaped(&console::visible(text)).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use rbuild_agent::{choice::Masking, secret::Secret};

    use super::*;

    fn reports() -> Vec<Report> {
        let place = |line, column| Some(Place { line, column });
        let finding = |place, end, rule: &'static str, level, message: &str| Finding {
            place,
            end,
            rule: rule.into(),
            level: Some(level),
            message: message.to_owned(),
            hint: None,
            aws: None,
        };
        let wrong =
            finding(place(1, 3), place(1, 5), "wrong-type", Level::Error, "a: b, 100%\n::x");
        let wrong = Finding { hint: Some("do".to_owned()), aws: Some("no".to_owned()), ..wrong };
        vec![
            Report {
                file: "a b,c.yml".to_owned(),
                text: "- \u{1b}[31m hunter22\n".to_owned(),
                findings: vec![wrong, finding(None, None, "SC2086", Level::Note, "quote")],
                redactor: Redactor::new(vec![Secret::new("hunter22".to_owned())], Masking::Lines),
                is_machine_problem: false,
            },
            Report {
                file: "/x/é.yml".to_owned(),
                text: String::new(),
                findings: Vec::new(),
                redactor: Redactor::default(),
                is_machine_problem: false,
            },
        ]
    }

    #[test]
    fn people_see_the_line_that_is_meant_and_no_secret() {
        expect![[r#"
            error: a: b, 100%
            ::x [wrong-type]
             --> a b,c.yml:1:3
              |
            1 | -  [31m ***
              |   ^^
            CodeBuild says: YAML_FILE_ERROR: no
            hint: do

            note: quote [SC2086]
             --> a b,c.yml

            1 error, 1 note in 2 files
        "#]]
        .assert_eq(&text(&reports()));
        assert_eq!(text(&[]), "no findings in 0 files\n");
    }

    #[test]
    fn programs_get_one_object() {
        expect![[r#"
            {
              "version": 1,
              "findings": [
                {
                  "file": "a b,c.yml",
                  "line": 1,
                  "column": 3,
                  "endLine": 1,
                  "endColumn": 5,
                  "rule": "wrong-type",
                  "level": "error",
                  "message": "a: b, 100%\n::x",
                  "hint": "do",
                  "aws": "no"
                },
                {
                  "file": "a b,c.yml",
                  "rule": "SC2086",
                  "level": "note",
                  "message": "quote"
                }
              ],
              "summary": {
                "files": 2,
                "errors": 1,
                "warnings": 0,
                "notes": 1,
                "omitted": 0
              }
            }
        "#]]
        .assert_eq(&json(&reports()));
    }

    #[test]
    fn workflow_commands_cannot_be_broken_out_of() {
        expect![[r#"
            ::error file=a b%2Cc.yml,line=1,endLine=1,col=3,endColumn=5,title=wrong-type::a: b, 100%25%0A::x%0ACodeBuild says: YAML_FILE_ERROR: no%0Ahint: do
            ::notice file=a b%2Cc.yml,title=SC2086::quote
        "#]]
        .assert_eq(&github(&reports()));
    }

    #[test]
    fn sarif_refers_to_rules_and_files() {
        let log: Value = serde_json::from_str(&sarif(&reports())).unwrap();
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        for result in run["results"].as_array().unwrap() {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
        }
        assert_eq!(rules.len(), rule::all().len() + 1);
        expect![[r#"{"artifactLocation":{"uri":"a%20b%2Cc.yml"},"region":{"startLine":1,"startColumn":3,"endLine":1,"endColumn":5}}"#]]
            .assert_eq(&run["results"][0]["locations"][0]["physicalLocation"].to_string());
    }

    #[test]
    fn paths_become_references() {
        for (path, want) in [
            ("./a/b.yml", "a/b.yml"),
            ("../a:b", "../a%3Ab"),
            ("/x/é%.yml", "file:///x/%C3%A9%25.yml"),
            ("<stdin>", "%3Cstdin%3E"),
        ] {
            assert_eq!(uri(path), want);
        }
    }
}
