//! Lines `NAME=value`, as in `.env` files.
//!
//! Nothing in a value is expanded. In single quotes all is as it stands; in double quotes `\n`,
//! `\r`, `\t`, `\"`, `\\` and `\$` mean what they do elsewhere; both may go over many lines. Without
//! quotes a value ends with its line, or before ` #`. A name may be anything without spaces, so
//! that it can be that of a parameter.

use super::Problem;

/// The names and values, in the order of the text.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut reader = Reader { text, rest: text };
    let mut pairs = Vec::new();
    while let Some(pair) = reader.pair()? {
        pairs.push(pair);
    }
    Ok(pairs)
}

struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn pair(&mut self) -> Result<Option<(String, String)>, Problem> {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest {
                "" => return Ok(None),
                it if it.starts_with('#') => drop(self.line()),
                _ => return self.assignment().map(Some),
            }
        }
    }

    fn assignment(&mut self) -> Result<(String, String), Problem> {
        let line = self.rest.lines().next().unwrap_or_default();
        let (name, _) = line.split_once('=').ok_or_else(|| self.problem("a line has no `=`"))?;
        let after_export = name.strip_prefix("export").filter(|it| it.starts_with([' ', '\t']));
        let bare = after_export.unwrap_or(name).trim();
        if bare.is_empty() || bare.contains([' ', '\t', '"', '\'']) {
            return Err(self.problem("what stands before `=` is no name"));
        }
        self.rest = self.rest[name.len() + 1..].trim_start_matches([' ', '\t']);
        Ok((bare.to_owned(), self.value()?))
    }

    fn value(&mut self) -> Result<String, Problem> {
        let quoted = match self.rest.chars().next() {
            Some('\'') => self.single_quoted()?,
            Some('"') => self.double_quoted()?,
            _ => {
                let line = self.line();
                let end = line.find(" #").or(line.find("\t#")).unwrap_or(line.len());
                let value = if line.starts_with('#') { "" } else { &line[..end] };
                return Ok(value.trim_end().to_owned());
            }
        };
        let after = self.rest.lines().next().unwrap_or_default().trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(self.problem("more stands after the quotes of a value"));
        }
        self.line();
        Ok(quoted)
    }

    fn single_quoted(&mut self) -> Result<String, Problem> {
        let inside = &self.rest[1..];
        let end = inside.find('\'').ok_or_else(|| self.problem("a quote is not closed"))?;
        self.rest = &inside[end + 1..];
        Ok(inside[..end].to_owned())
    }

    fn double_quoted(&mut self) -> Result<String, Problem> {
        let mut value = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.rest = &self.rest[at + 2..];
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, escaped)) => unescape(escaped, &mut value),
                    None => break,
                },
                char => value.push(char),
            }
        }
        Err(self.problem("a quote is not closed"))
    }

    /// The rest of the line, which is passed over.
    fn line(&mut self) -> &'t str {
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn problem(&self, what: &'static str) -> Problem {
        let before = &self.text[..self.text.len() - self.rest.len()];
        Problem { line: Some(before.matches('\n').count() + 1), what }
    }
}

fn unescape(escaped: char, value: &mut String) {
    match escaped {
        'n' => value.push('\n'),
        'r' => value.push('\r'),
        't' => value.push('\t'),
        '"' | '\\' | '$' | '`' => value.push(escaped),
        other => value.extend(['\\', other]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_read() {
        for (text, name, value) in [
            ("A=b", "A", "b"),
            ("\n# c\n  export A = b c  # d\r\n", "A", "b c"),
            ("export=x", "export", "x"),
            ("A=b#c", "A", "b#c"),
            ("A=", "A", ""),
            ("A= # c", "A", ""),
            ("A==x==", "A", "=x=="),
            ("A=$B ${C}", "A", "$B ${C}"),
            ("A='$B \\n \"'  # c", "A", "$B \\n \""),
            ("A='b\nc'", "A", "b\nc"),
            (r#"A="b\n\"\\\t\$\x'""#, "A", "b\n\"\\\t$\\x'"),
            ("A=\"-----\nb\r\n-----\n\"", "A", "-----\nb\r\n-----\n"),
            ("/prod/db:3=x", "/prod/db:3", "x"),
            ("arn:aws:ssm:r:1:parameter/a=x", "arn:aws:ssm:r:1:parameter/a", "x"),
            ("ä=ö", "ä", "ö"),
        ] {
            assert_eq!(parse(text), Ok(vec![(name.to_owned(), value.to_owned())]), "for {text:?}");
        }
        let names: Vec<_> = parse("A=1\nB='2'\r\n\nC=\"3\"").unwrap().into_iter().collect();
        let want = [("A", "1"), ("B", "2"), ("C", "3")];
        assert_eq!(names, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(parse("\n# nothing\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, what) in [
            ("A=1\n\nB", 3, "a line has no `=`"),
            ("=x", 1, "what stands before `=` is no name"),
            ("A=1\nB C=x", 2, "what stands before `=` is no name"),
            ("A=1\nB='x\ny", 2, "a quote is not closed"),
            ("A=\"x\\", 1, "a quote is not closed"),
            ("A=\"x\" y", 1, "more stands after the quotes of a value"),
        ] {
            assert_eq!(parse(text), Err(Problem { line: Some(line), what }), "for {text:?}");
        }
    }
}
