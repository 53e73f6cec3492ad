//! The directives at the top of a Dockerfile: `# syntax=`, `# escape=` and `# check=`.

use super::{
    Place, Word,
    error::{DockerfileError, ErrorKind},
    lines::{Lines, Physical},
};

/// What the directives say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// The frontend that the file is written for; always one whose language this is.
    pub syntax: Option<Word>,
    /// The character that escapes and continues lines.
    pub escape: char,
    /// How `BuildKit`'s linter is configured; nothing here depends on it.
    pub check: Option<Word>,
}

/// Reads the lines at the top, up to the first that is no directive.
pub(super) fn parse(text: &str) -> Result<Directives, DockerfileError> {
    let (mut syntax, mut escape, mut check) = (None, None, None);
    let mut lines = Lines::new(text, '\\');
    while let Some((key, value)) = lines.physical().and_then(directive) {
        let (name, slot) = match key.text.to_ascii_lowercase().as_str() {
            "syntax" => ("syntax", &mut syntax),
            "escape" => ("escape", &mut escape),
            "check" => ("check", &mut check),
            _ => break,
        };
        if slot.is_some() {
            return Err(ErrorKind::DirectiveTwice { name }.at(key.place));
        }
        *slot = Some(value);
    }
    check_syntax(syntax.as_ref())?;
    Ok(Directives { syntax, escape: escape_char(escape)?, check })
}

/// The key and the value of a line like `# key = value`.
fn directive(line: Physical<'_>) -> Option<(Word, Word)> {
    let (key, value) = line.text.trim_start().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_key = key.starts_with(|it: char| it.is_ascii_alphabetic())
        && key.chars().all(|it| it.is_ascii_alphanumeric());
    if !is_key || value.is_empty() {
        return None;
    }
    // Both are parts of the line.
    let word = |part: &str| {
        let at = part.as_ptr().addr() - line.text.as_ptr().addr();
        let column = line.text[..at].chars().count() + 1;
        Word { text: part.to_owned(), place: Place { line: line.number, column } }
    };
    Some((word(key), word(value)))
}

fn escape_char(value: Option<Word>) -> Result<char, DockerfileError> {
    let Some(value) = value else { return Ok('\\') };
    match value.text.as_str() {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(ErrorKind::Escape { value: value.text }.at(value.place)),
    }
}

/// Any version of `docker/dockerfile`, from whatever registry it is mirrored to, is this parser.
fn check_syntax(value: Option<&Word>) -> Result<(), DockerfileError> {
    let Some(value) = value else { return Ok(()) };
    let image = value.text.split_whitespace().next().unwrap_or_default();
    let name = image.split('@').next().unwrap_or_default();
    let slash = name.rfind('/').unwrap_or(0);
    let name = name[slash..].find(':').map_or(name, |it| &name[..slash + it]);
    let is_known = ["docker/dockerfile", "docker/dockerfile-upstream"]
        .into_iter()
        .any(|known| name.strip_suffix(known).is_some_and(|it| it.is_empty() || it.ends_with('/')));
    if is_known {
        return Ok(());
    }
    Err(ErrorKind::Syntax { value: image.to_owned() }.at(value.place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(Directives { syntax, escape, check }) => {
                let [syntax, check] =
                    [syntax, check].map(|it| it.map_or("-".to_owned(), |it| it.text));
                format!("{syntax} {escape} {check}")
            }
            Err(err) => format!("{}:{} {err}", err.place.line, err.place.column),
        }
    }

    #[test]
    fn directives_stand_at_the_top() {
        for (text, want) in [
            ("", "- \\ -"),
            ("# escape=`\nFROM x", "- ` -"),
            ("#escape=`", "- ` -"),
            ("#  EsCaPe  =  `  ", "- ` -"),
            ("  # escape=`", "- ` -"),
            ("# escape=\\", "- \\ -"),
            ("# escape=`\r\n# check=skip=all\r\n", "- ` skip=all"),
            (
                "# syntax=docker/dockerfile:1\n# escape=`\n# check=error=true",
                "docker/dockerfile:1 ` error=true",
            ),
            ("\n# escape=`", "- \\ -"),
            ("# a comment\n# escape=`", "- \\ -"),
            ("# unknown=x\n# escape=`", "- \\ -"),
            ("FROM x\n# escape=`", "- \\ -"),
            ("# a b=c\n# escape=`", "- \\ -"),
            ("# escape=\n", "- \\ -"),
            ("# escape=x", "1:10 `x` cannot be the escape character"),
            ("# escape=`\n# Escape=`", "2:3 the directive `escape` is given twice"),
            ("#!/usr/bin/env docker build\n# escape=`", "- \\ -"),
        ] {
            assert_eq!(read(text), want, "for {text:?}");
        }
    }

    #[test]
    fn only_one_syntax_is_built_in() {
        for value in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker/dockerfile:1.4.0@sha256:42399d4635eddd7a9b8a24be879d2f9a930d0ed040a61324cfdf59ef1357b3b2",
            "docker/dockerfile:experimental",
            "docker/dockerfile-upstream:master",
            "docker.io/docker/dockerfile:1",
            "localhost:5000/docker/dockerfile:1",
            "1.dkr.ecr.eu-west-1.amazonaws.com/hub/docker/dockerfile:1",
        ] {
            assert_eq!(read(&format!("# syntax={value}")), format!("{value} \\ -"));
        }
        for value in ["tonistiigi/dockerfile:x", "docker/dockerfiles", "xdocker/dockerfile:1", "x"]
        {
            let want = format!("1:10 the syntax `{value}` is not supported");
            assert_eq!(read(&format!("# syntax={value}")), want);
        }
    }
}
