//! A line of a file that a person wrote, with an arrow at what is meant.

/// The line at `line` and `column` (both counted from 1) of `text`, with an arrow.
///
/// A tab is shown as one space, so that the arrow stands under its column.
pub(crate) fn excerpt(file: &str, text: &str, line: usize, column: usize) -> String {
    let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    underlined(file, source.trim_end_matches('\r'), (line, column), 1)
}

/// The line `source`, with `width` arrows from `column` on.
pub(crate) fn underlined(
    file: &str,
    source: &str,
    (line, column): (usize, usize),
    width: usize,
) -> String {
    // Before anything is cut, of which then only a part would be known as secret.
    let source = shown(&super::mask(source));
    let margin = " ".repeat(line.to_string().len());
    let length = source.chars().count();
    let start = column.saturating_sub(1).min(length);
    let arrow = " ".repeat(start) + &"^".repeat(width.min(length - start).max(1));
    format!("{margin}--> {file}:{line}:{column}\n{margin} |\n{line} | {source}\n{margin} | {arrow}")
}

/// Without what would change the terminal, and not longer than a screen or two.
fn shown(line: &str) -> String {
    const LONGEST: usize = 400;
    let clean = |it: char| if it.is_control() { ' ' } else { it };
    line.chars().take(LONGEST).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_arrow_is_under_the_column() {
        expect![[r"
             --> a.yml:2:3
              |
            2 | - b
              |   ^"]]
        .assert_eq(&excerpt("a.yml", "a:\n- b\n", 2, 3));
    }

    #[test]
    fn a_file_cannot_change_the_terminal() {
        expect![[r"
             --> a.yml:1:5
              |
            1 | a [31mb
              |     ^"]]
        .assert_eq(&excerpt("a.yml", "a\u{1b}[31mb", 1, 5));
    }
}
