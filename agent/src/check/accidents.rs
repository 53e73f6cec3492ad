//! Commands that YAML reads otherwise than their writer meant.
//!
//! What is no command at all then is a problem of the parser; this is about what is one still.

use crate::{
    check::{
        File, Finding, Script,
        lines::Lines,
        outline::{Item, Text},
        script,
    },
    source::Place,
};

const RULE: &str = "yaml-accident";

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    let items = file.outline.phases.iter().flat_map(|it| it.commands.iter().chain(&it.finally));
    let mut findings: Vec<Finding> = items.filter_map(|it| nothing(it, file.lines)).collect();
    for script in file.scripts {
        let lines = file.lines;
        let shapes =
            [property(script, lines), dash(script, lines), cut(script, lines), middle(script)];
        findings.extend(shapes.into_iter().flatten().next());
    }
    findings
}

/// An item without a command.
fn nothing(item: &Item<'_>, lines: &Lines<'_>) -> Option<Finding> {
    match item {
        Item::Null(place) => Some(
            Finding::new(
                RULE,
                *place,
                "this item is empty: it runs as an empty command".to_owned(),
            )
            .hint("write the command behind its `-`, or remove the line"),
        ),
        Item::Command(Text { text: "", place }) => {
            let head = head(lines, *place)?;
            let message = "nothing belongs to this block: it is empty".to_owned();
            Some(Finding::new(RULE, head, message).hint("indent its lines deeper than the `-`"))
        }
        Item::Command(_) => None,
    }
}

/// Where the `|` or `>` of an empty block is: such a block seems to be where the next item is.
fn head(lines: &Lines<'_>, place: Place) -> Option<Place> {
    let number = match lines.is_block(place) {
        true => (1..place.line).rev().find(|it| !lines.line(*it).trim().is_empty())?,
        false => place.line,
    };
    let line = lines.line(number).split(" #").next()?.trim_end().trim_end_matches(['-', '+']);
    line.ends_with(['|', '>']).then(|| Place { line: number, column: line.chars().count() })
}

/// A `!` or `&` at the beginning, which YAML keeps for itself.
fn property(script: &Script, lines: &Lines<'_>) -> Option<Finding> {
    let rest = lines.rest(script.start);
    let word = rest.split_whitespace().next()?;
    let (what, is_accident) = match word.chars().next()? {
        '!' => ("a tag", !word.starts_with("!!")),
        '&' => {
            let alias = word.replacen('&', "*", 1);
            ("an anchor", !lines.all().iter().any(|it| it.contains(&alias)))
        }
        _ => return None,
    };
    let is_in_line = !lines.is_block(script.start) && !rest.trim_end().ends_with(['|', '>']);
    (is_accident && is_in_line && rest.chars().count() <= 200).then(|| {
        let message = format!("`{word}` is {what} of YAML here, and no part of the command");
        let quoted = rest.trim_end().replace('\'', "''");
        let hint = format!("put quotes around all of it: `- '{quoted}'`");
        Finding::new(RULE, script.start, message).hint(hint)
    })
}

/// A `- ` that begins no item: it has become a part of the command.
fn dash(script: &Script, lines: &Lines<'_>) -> Option<Finding> {
    if script.text.starts_with("- ") {
        let message = "the command begins with `- `, which the shell takes for its name".to_owned();
        return Some(Finding::new(RULE, script.start, message).hint("write the `-` once"));
    }
    if !lines.is_plain(script.start) {
        return None;
    }
    let places = script.places.as_ref()?;
    let mut line = script.start.line;
    let lost = places.iter().find(|place| {
        let is_first = place.line > line && lines.rest(**place).starts_with("- ");
        line = line.max(place.line);
        is_first
    })?;
    let message = format!("this line goes on with the command of line {}", script.start.line);
    Some(
        Finding::new(RULE, *lost, message)
            .hint("indent it as that command is, so that it is one of its own"),
    )
}

/// A comment that was meant as a part of the command: a quotation is open before it.
fn cut(script: &Script, lines: &Lines<'_>) -> Option<Finding> {
    let last = *script.places.as_ref()?.last()?;
    let rest: String = lines.rest(last).chars().skip(1).collect();
    let is_comment = rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#');
    if !is_comment || !lines.is_plain(script.start) {
        return None;
    }
    script::split(&script.text).unclosed?;
    let blanks = rest.chars().take_while(|it| *it != '#').count();
    let place = Place { line: last.line, column: last.column + 1 + blanks };
    let message = "the command ends here: ` #` begins a comment of YAML".to_owned();
    let hint = "put the command below a `|`, or quotes around all of it";
    Some(Finding::new(RULE, place, message).hint(hint))
}

/// A command that ends where another one must follow.
fn middle(script: &Script) -> Option<Finding> {
    let text = script.text.trim_end();
    let end = ["&&", "||", "|", "\\"].into_iter().find(|it| text.ends_with(it))?;
    let is_comment = text.rsplit('\n').next().is_some_and(|it| it.contains('#'));
    if is_comment || text.ends_with("\\\\") {
        return None;
    }
    let message = format!("the command ends with `{end}`, and nothing follows");
    let hint = match end {
        "|" => "a block needs its `|` right behind the `-`",
        _ => "each item is a command of its own: put the rest into the same item",
    };
    let start = text.len() - end.len();
    Some(Finding::new(RULE, script.start, message).hint(hint).within(script, start, text.len()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use crate::check::tests::check;

    #[track_caller]
    fn commands(commands: &str, want: Expect) {
        let text = format!("version: 0.2\nphases:\n  build:\n    commands:\n{commands}");
        check("yaml-accident", &text, want);
    }

    #[test]
    fn items_without_a_command_are_found() {
        commands(
            "      - ls\n      -\n      - |\n      - >-\n      - ls\n",
            expect![[r"
                6:8 warning this item is empty: it runs as an empty command (write the command behind its `-`, or remove the line)
                7:9 warning nothing belongs to this block: it is empty (indent its lines deeper than the `-`)
                8:9 warning nothing belongs to this block: it is empty (indent its lines deeper than the `-`)
            "]],
        );
    }

    #[test]
    fn lines_that_become_part_of_another_command_are_found() {
        commands(
            "      - ls\n        - make\n      - '- ls'\n",
            expect![[r"
                6:9 warning this line goes on with the command of line 5 (indent it as that command is, so that it is one of its own)
                7:9 warning the command begins with `- `, which the shell takes for its name (write the `-` once)
            "]],
        );
    }

    #[test]
    fn commands_that_a_comment_cuts_are_found() {
        commands(
            "      - echo \"a #1\"\n      - grep 'x # y' z\n",
            expect![[r##"
                5:17 warning the command ends here: ` #` begins a comment of YAML (put the command below a `|`, or quotes around all of it)
                6:17 warning the command ends here: ` #` begins a comment of YAML (put the command below a `|`, or quotes around all of it)
            "##]],
        );
    }

    #[test]
    fn commands_whose_beginning_is_of_yaml_are_found() {
        commands(
            "      - ! grep -q 'x' y\n      - &x echo\n      - !!str ls\n      - &y ls\n      - *y\n",
            expect![[r#"
                5:9 warning `!` is a tag of YAML here, and no part of the command (put quotes around all of it: `- '! grep -q ''x'' y'`)
                6:9 warning `&x` is an anchor of YAML here, and no part of the command (put quotes around all of it: `- '&x echo'`)
            "#]],
        );
    }

    #[test]
    fn commands_that_end_in_the_middle_are_found() {
        commands(
            "      - make |\n      - a &&\n      - b\n      - docker run \\\n",
            expect![[r"
                5:14-15 warning the command ends with `|`, and nothing follows (a block needs its `|` right behind the `-`)
                6:11-13 warning the command ends with `&&`, and nothing follows (each item is a command of its own: put the rest into the same item)
                8:20-21 warning the command ends with `\`, and nothing follows (each item is a command of its own: put the rest into the same item)
            "]],
        );
    }

    #[test]
    fn commands_that_are_meant_are_not() {
        commands(
            "      - ls # it's a comment\n      - |\n        cat <<E\n        - a\n        E\n      - >
        docker run\n        - x\n      - tar -c . -\n        -z\n      - ''\n      - \"a\n        - b\"
      - 'echo a # b'\n      - echo \"a#b\" 'c'\n      - a || b\n",
            expect![[""]],
        );
    }
}
