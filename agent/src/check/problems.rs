//! What the parser finds, with remedies that show the line as it should be.

use crate::{
    buildspec::{Buildspec, IgnoredKey, Problem, UnknownKey, keys::TOP},
    check::{
        File, Finding, deprecated,
        lines::Lines,
        outline::{self, Outline},
    },
    phase::Phase,
    source::Place,
    yaml::{Node, Value},
};

pub(super) fn findings(spec: &Buildspec, problems: Vec<Problem>, file: &File<'_>) -> Vec<Finding> {
    // For a build it may not matter; whoever checks a file wants all of it to be right.
    let problems = problems.into_iter().chain(spec.tolerated.iter().cloned());
    let problems = problems.map(|it| of_problem(it, file));
    let is_new = |it: &&UnknownKey| !deprecated::is_key(&it.section, &it.key);
    let unknown = spec.unknown_keys.iter().filter(is_new).map(unknown);
    let ignored = spec.ignored_keys.iter().map(ignored);
    problems.chain(unknown).chain(ignored).collect()
}

/// The name of the rule that a problem breaks.
fn rule_of(problem: &Problem) -> &'static str {
    problem.rule
}

fn of_problem(problem: Problem, file: &File<'_>) -> Finding {
    let rule = rule_of(&problem);
    let remedy = problem.place.and_then(|place| remedy(&problem, place, file));
    let Problem { place, message, hint, aws, .. } = problem;
    let finding = Finding::new(rule, place, message);
    Finding { hint: remedy.or(hint), aws, ..finding }
}

/// What to write in place of what is at `place`.
fn remedy(problem: &Problem, place: Place, file: &File<'_>) -> Option<String> {
    let wrong = wrong_commands(file.outline).find(|it| it.place == place);
    if let Some(node) = wrong {
        return command_remedy(node, file.lines);
    }
    if problem.message.starts_with("mapping values are not allowed") {
        let item = quoted_item(file.lines.line(place.line).trim_start());
        return item.or_else(|| colon_missing(file.lines, place));
    }
    if problem.rule == "yaml" {
        let item = special_item(file.lines.line(place.line).trim_start(), &problem.message);
        return item.or_else(|| colon_missing(file.lines, place));
    }
    let variables = file.outline.root.and_then(|it| outline::value(it, "env"));
    let variables = variables.and_then(|it| outline::value(it, "variables"))?;
    let text = outline::text(variables).filter(|it| it.place == place)?.text;
    let (name, value) = text.split_once([':', '=']).filter(|_| is_short(text))?;
    Some(format!("a colon and a space stand between name and value: `{name}: {}`", value.trim()))
}

/// A key without its colon, in the line above the one in which the parser notices.
fn colon_missing(lines: &Lines<'_>, place: Place) -> Option<String> {
    let mut above = (1..place.line).rev();
    let number = above.find(|it| !lines.line(*it).trim().is_empty())?;
    let key = lines.line(number).trim();
    if let Some((name, value)) = key.split_once(' ')
        && TOP.position(name).is_some()
    {
        return is_short(key)
            .then(|| format!("a colon is missing in line {number}: `{name}: {}`", value.trim()));
    }
    let is_key = key.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '-'));
    is_key.then(|| format!("a colon is missing in line {number}: `{key}:`"))
}

/// The commands that are none.
fn wrong_commands<'t>(outline: &Outline<'t>) -> impl Iterator<Item = &'t Node> {
    let phases = outline.root.and_then(|it| outline::value(it, "phases"));
    let phases = phases.map(outline::entries).unwrap_or_default().iter();
    let lists = phases.flat_map(|it| {
        ["commands", "finally"].into_iter().filter_map(|key| outline::value(&it.node, key))
    });
    lists.flat_map(outline::items).filter(|it| matches!(it.value, Value::Map(_) | Value::List(_)))
}

/// Keys of other systems whose value is the command.
const STEPS: &[&str] = &["run", "command", "cmd", "script", "name"];

fn command_remedy(node: &Node, lines: &Lines<'_>) -> Option<String> {
    let rest = lines.rest(node.place).trim_end();
    match &node.value {
        Value::List(_) => {
            let command = rest.trim_start_matches("- ");
            let is_item = is_short(command) && command.len() < rest.len();
            is_item.then(|| format!("one `-` is enough: `- {command}`"))
        }
        Value::Map(entries) => {
            let first = entries.first()?;
            let own = outline::text(&first.node).filter(|it| is_short(it.text));
            if let Some(own) = own.filter(|_| STEPS.contains(&first.key.as_str())) {
                return Some(format!("an item is the command itself: `- {}`", own.text));
            }
            match entries.len() {
                1 if first.node.place.line == node.place.line => quoted_item(&format!("- {rest}")),
                _ => Some("put `|` behind the `-`, and the command below it, indented".to_owned()),
            }
        }
        Value::Null | Value::Text(_) => None,
    }
}

/// An item in quotes, so that a colon in it is one of the text.
fn quoted_item(line: &str) -> Option<String> {
    let quoted = in_quotes(line)?;
    Some(format!("a colon followed by a space makes a mapping; in quotes it does not: {quoted}"))
}

/// An item in quotes that begins with a character which means something else without them.
fn special_item(line: &str, message: &str) -> Option<String> {
    let item = line.strip_prefix("- ")?.trim();
    let first = item.chars().next()?;
    let is_whole = match first {
        '[' => item.contains(']') && !item.ends_with(']'),
        '{' => item.contains('}') && !item.ends_with('}'),
        '"' | '\'' => message.starts_with("something follows"),
        '*' => message.starts_with('`'),
        it => "%@`".contains(it),
    };
    let first = if first == '`' { "a backtick".to_owned() } else { format!("`{first}`") };
    let quoted = in_quotes(line).filter(|_| is_whole)?;
    Some(format!("what begins with {first} needs quotes around all of it: {quoted}"))
}

/// The item as it is in single quotes.
fn in_quotes(line: &str) -> Option<String> {
    let item = line.strip_prefix("- ").filter(|it| is_short(it))?.trim();
    Some(format!("`- '{}'`", item.replace('\'', "''")))
}

/// Whether a text may be repeated in a line.
fn is_short(text: &str) -> bool {
    text.len() <= 200 && !text.contains('\n')
}

fn unknown(key: &UnknownKey) -> Finding {
    let UnknownKey { section, key, place, suggestion } = key;
    let finding = Finding::new("unknown-key", *place, format!("`{key}` means nothing here"));
    match (elsewhere(section, key), suggestion) {
        (_, Some(name)) => finding.hint(format!("did you mean `{name}`?")),
        (Some(above), None) => finding.hint(format!("it belongs below `{above}`")),
        (None, None) => finding,
    }
}

/// Where a key means something that means nothing in `section`.
fn elsewhere(section: &str, key: &str) -> Option<&'static str> {
    let above = match key {
        "variables"
        | "parameter-store"
        | "secrets-manager"
        | "exported-variables"
        | "shell"
        | "git-credential-helper" => "env",
        "runtime-versions" => "phases.install",
        "commands" | "finally" => "a phase",
        "files" | "base-directory" | "discard-paths" | "exclude-paths" | "secondary-artifacts" => {
            "artifacts"
        }
        "paths" => "cache",
        _ if section == "env" && is_variable(key) => "env.variables",
        _ if Phase::named(key).is_some() => "phases",
        _ => return None,
    };
    (above != section).then_some(above)
}

/// Whether a key is written as people write variables.
fn is_variable(key: &str) -> bool {
    let is_of_name = |it: u8| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_';
    !key.is_empty() && key.bytes().all(is_of_name)
}

fn ignored(key: &IgnoredKey) -> Finding {
    Finding::new("ignored-key", key.place, format!("`{}` is left out: {}", key.key, key.reason))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::check::tests::{check, check_refused};

    #[test]
    fn remedies_show_the_line_as_it_should_be() {
        check_refused(
            "version: 0.2
phases:
  build:
    commands:
      - echo a: b
      - echo 'it': b
      - run: make
      - - make
      - a: b
        c: d
  post_build:
    - make
",
            expect![[r"
                5:9 error command 1 of `build.commands` is a mapping, not text (a colon followed by a space makes a mapping; in quotes it does not: `- 'echo a: b'`) AWS: Expected Commands[0] to be of string type: found subkeys instead at line 5, value of the key tag on line 4 might be empty
                6:9 error command 2 of `build.commands` is a mapping, not text (a colon followed by a space makes a mapping; in quotes it does not: `- 'echo ''it'': b'`) AWS: Expected Commands[1] to be of string type: found subkeys instead at line 6, value of the key tag on line 5 might be empty
                7:9 error command 3 of `build.commands` is a mapping, not text (an item is the command itself: `- make`) AWS: Expected Commands[2] to be of string type: found subkeys instead at line 7, value of the key tag on line 6 might be empty
                8:9 error command 4 of `build.commands` is a list, not text (one `-` is enough: `- make`)
                9:9 error command 5 of `build.commands` is a mapping, not text (put `|` behind the `-`, and the command below it, indented) AWS: Expected Commands[4] to be of string type: found subkeys instead at line 9, value of the key tag on line 8 might be empty
                12:5 error `post_build` is a list, not a mapping (write `commands:` above the commands)
            "]],
        );
        check_refused(
            "version: 0.2\nenv:\n  variables:\n    A:1\nphases: {}\n",
            expect![[r"
                4:5 error `env.variables` is text, not a mapping (a colon and a space stand between name and value: `A: 1`)
            "]],
        );
        for (item, want) in [
            (
                "[ -f x ] && y",
                Some("what begins with `[` needs quotes around all of it: `- '[ -f x ] && y'`"),
            ),
            (
                "\"a\" && b",
                Some("what begins with `\"` needs quotes around all of it: `- '\"a\" && b'`"),
            ),
            ("**/*", Some("what begins with `*` needs quotes around all of it: `- '**/*'`")),
            (
                "`date`",
                Some("what begins with a backtick needs quotes around all of it: `- '`date`'`"),
            ),
            (
                "[a, b]\n       - c",
                Some("indent what belongs together by the same number of spaces"),
            ),
        ] {
            let text = format!("version: 0.2\nphases:\n  build:\n    commands:\n      - {item}\n");
            let findings = crate::check::check(text.as_bytes()).findings;
            assert_eq!(findings[0].hint.as_deref(), want, "for {item}");
        }
        check_refused(
            "version: 0.2\nphases:\n  build:\n    commands:\n      - \"a\": b: c\n",
            expect![[r#"
                5:15 error mapping values are not allowed in this context (a colon followed by a space makes a mapping; in quotes it does not: `- '"a": b: c'`) AWS: mapping values are not allowed in this context at line 4
            "#]],
        );
    }

    #[test]
    fn a_colon_that_is_missing_is_found_where_it_is() {
        for before in ["", "  install:\n    commands: ls\n"] {
            let text =
                format!("version: 0.2\nphases:\n{before}  build\n    commands:\n      - make\n");
            let findings = crate::check::check(text.as_bytes()).findings;
            let hints: Vec<_> = findings.iter().filter_map(|it| it.hint.as_deref()).collect();
            let line = 3 + before.lines().count();
            assert_eq!(hints, [format!("a colon is missing in line {line}: `build:`")]);
        }
        let findings = crate::check::check(b"version 0.2\nphases: {}\n").findings;
        let want = "a colon is missing in line 1: `version: 0.2`";
        assert_eq!(findings[0].hint.as_deref(), Some(want));
    }

    #[test]
    fn a_file_that_can_be_run_breaks_no_such_rule() {
        let text = "version: 0.2\nphases: {build: {commands: ['echo a: b']}}\n";
        check_refused(text, expect![[""]]);
        check("unknown-key", text, expect![[""]]);
    }

    #[test]
    fn unknown_keys_are_told_of_in_wrong_files_too() {
        check(
            "unknown-key",
            "version: 0.9\nbuild: {}\nfiles: a\nphases: {build: {comands: a}}\nartifact: {}\nx: y\n",
            expect![[r"
                2:1 warning `build` means nothing here (it belongs below `phases`)
                3:1 warning `files` means nothing here (it belongs below `artifacts`)
                4:18 warning `comands` means nothing here (did you mean `commands`?)
                5:1 warning `artifact` means nothing here (did you mean `artifacts`?)
                6:1 warning `x` means nothing here
            "]],
        );
    }
}
