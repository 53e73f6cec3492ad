//! What shells save of their variables, read back without starting one.
//!
//! **Architecture invariant:** pure, and never wrong by half: what is not understood is left out,
//! whatever a command wrote there. Takes time and memory in proportion to the text.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// The variables in what `export -p` prints (POSIX, and as dash, bash, `BusyBox`, mksh, and ksh93
/// do it), sorted by name. A name that stands there twice has the last value. Names without a value
/// and arrays are no variables of a process, and are left out.
///
/// Any text will do, so that it can be fuzzed.
pub fn parse_variables(text: &[u8]) -> Vec<(OsString, OsString)> {
    let mut parser = Parser { text, at: 0 };
    let mut variables = BTreeMap::new();
    while parser.at < text.len() {
        parser.statement(&mut variables);
    }
    variables.into_iter().collect()
}

/// The variables in a file that `PowerShell` saved: `name=value` and a NUL, again and again.
pub(super) fn parse_terminated(text: &[u8]) -> Vec<(OsString, OsString)> {
    let variables: BTreeMap<OsString, OsString> = text
        .split(|byte| *byte == 0)
        .filter_map(|it| {
            let equals = it.iter().position(|byte| *byte == b'=').filter(|it| 0 < *it)?;
            Some((os(&it[..equals]), os(&it[equals + 1..])))
        })
        .collect();
    variables.into_iter().collect()
}

/// A statement of what `export -p` prints.
pub(super) struct Statement<'t> {
    /// As it was printed.
    pub(super) text: &'t [u8],
    /// The variable that it sets, if it sets one to a text.
    pub(super) sets: Option<(OsString, OsString)>,
}

/// All statements of what `export -p` prints.
pub(super) fn statements(text: &[u8]) -> impl Iterator<Item = Statement<'_>> {
    let mut parser = Parser { text, at: 0 };
    std::iter::from_fn(move || {
        parser.take_while(|it| it.is_ascii_whitespace() || it == b';');
        let start = parser.at;
        if start == text.len() {
            return None;
        }
        let mut variables = BTreeMap::new();
        parser.statement(&mut variables);
        let sets = if variables.len() == 1 { variables.pop_first() } else { None };
        Some(Statement { text: &text[start..parser.at], sets })
    })
}

fn os(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

struct Parser<'t> {
    text: &'t [u8],
    at: usize,
}

/// The text ended within quotes.
struct Incomplete;

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take_while(&mut self, is_wanted: impl Fn(u8) -> bool) -> &[u8] {
        let start = self.at;
        while self.peek().is_some_and(&is_wanted) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Reads up to the end of a statement, and what it sets; up to the end of all if that is not
    /// complete.
    fn statement(&mut self, variables: &mut BTreeMap<OsString, OsString>) {
        self.take_while(|it| it.is_ascii_whitespace() || it == b';');
        let keyword = self.take_while(|it| it.is_ascii_alphabetic());
        let sets = matches!(keyword, b"export" | b"declare" | b"typeset");
        while self.peek().is_some_and(|it| it != b'\n' && it != b';') {
            match self.assignment() {
                Ok(Some((name, Some(value)))) if sets => {
                    variables.insert(name, value);
                }
                Ok(Some((name, None))) if sets => {
                    variables.remove(&name);
                }
                Ok(_) => {}
                Err(Incomplete) => self.at = self.text.len(),
            }
        }
    }

    /// Reads a word, or the blanks before one; the name and the value if it sets a variable, no
    /// value if that is not a text.
    fn assignment(&mut self) -> Result<Option<(OsString, Option<OsString>)>, Incomplete> {
        if !self.take_while(is_blank).is_empty() {
            return Ok(None);
        }
        let is_of_name = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
        let name = os(self.take_while(is_of_name));
        let is_name = name.as_bytes().first().is_some_and(|it| !it.is_ascii_digit());
        if !is_name || self.peek() != Some(b'=') {
            self.word()?;
            return Ok(None);
        }
        self.at += 1;
        if self.peek() == Some(b'(') {
            self.compound()?;
            return Ok(Some((name, None)));
        }
        let value = self.word()?;
        // No process can have such a value.
        let value = Some(value).filter(|it| !it.contains(&0));
        Ok(Some((name, value.map(OsString::from_vec))))
    }

    /// Reads up to the end of a word, and takes the quotes off it.
    fn word(&mut self) -> Result<Vec<u8>, Incomplete> {
        let mut word = Vec::new();
        while let Some(byte) = self.peek() {
            if is_blank(byte) || byte == b'\n' || byte == b';' {
                break;
            }
            self.at += 1;
            match byte {
                b'$' if self.peek() == Some(b'\'') => {
                    self.at += 1;
                    self.ansi_quoted(&mut word)?;
                }
                byte => self.part(byte, &mut word)?,
            }
        }
        Ok(word)
    }

    /// Reads a byte outside of quotes, or all that is between quotes.
    fn part(&mut self, byte: u8, word: &mut Vec<u8>) -> Result<(), Incomplete> {
        match byte {
            b'\'' => loop {
                match self.next().ok_or(Incomplete)? {
                    b'\'' => return Ok(()),
                    byte => word.push(byte),
                }
            },
            b'"' => self.quoted(word)?,
            b'\\' => match self.next().ok_or(Incomplete)? {
                b'\n' => {}
                byte => word.push(byte),
            },
            byte => word.push(byte),
        }
        Ok(())
    }

    /// Reads what is between double quotes.
    fn quoted(&mut self, word: &mut Vec<u8>) -> Result<(), Incomplete> {
        loop {
            match self.next().ok_or(Incomplete)? {
                b'"' => return Ok(()),
                b'\\' => match self.next().ok_or(Incomplete)? {
                    b'\n' => {}
                    byte @ (b'$' | b'`' | b'"' | b'\\') => word.push(byte),
                    byte => word.extend([b'\\', byte]),
                },
                byte => word.push(byte),
            }
        }
    }

    /// Reads what is between `$'` and `'`.
    fn ansi_quoted(&mut self, word: &mut Vec<u8>) -> Result<(), Incomplete> {
        loop {
            match self.next().ok_or(Incomplete)? {
                b'\'' => return Ok(()),
                b'\\' => {
                    let byte = self.next().ok_or(Incomplete)?;
                    self.escape(byte, word);
                }
                byte => word.push(byte),
            }
        }
    }

    /// Reads the rest of what a backslash and `byte` begin.
    fn escape(&mut self, byte: u8, word: &mut Vec<u8>) {
        match byte {
            b'a' => word.push(7),
            b'b' => word.push(8),
            b'e' | b'E' => word.push(27),
            b'f' => word.push(12),
            b'n' => word.push(b'\n'),
            b'r' => word.push(b'\r'),
            b't' => word.push(b'\t'),
            b'v' => word.push(11),
            b'0'..=b'7' => {
                self.at -= 1;
                self.number(8, 3).into_iter().for_each(|it| word.push(low_byte(it)));
            }
            b'x' => match self.number(16, 2) {
                Some(number) => word.push(low_byte(number)),
                None => word.extend(b"\\x"),
            },
            b'u' | b'U' => {
                let digits = if byte == b'u' { 4 } else { 8 };
                match self.number(16, digits).and_then(char::from_u32) {
                    Some(it) => word.extend(it.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => word.extend([b'\\', byte]),
                }
            }
            b'c' => word.extend(self.next().map(|it| it & 0x1f)),
            b'\\' | b'\'' | b'"' | b'?' => word.push(byte),
            byte => word.extend([b'\\', byte]),
        }
    }

    /// Reads up to `most` digits; none if there is none.
    fn number(&mut self, radix: u32, most: usize) -> Option<u32> {
        let mut number = None;
        for _ in 0..most {
            let digit = self.peek().and_then(|it| char::from(it).to_digit(radix));
            let Some(digit) = digit else { break };
            self.at += 1;
            number = Some(number.unwrap_or(0_u32).wrapping_mul(radix).wrapping_add(digit));
        }
        number
    }

    /// Reads up to the end of an array.
    fn compound(&mut self) -> Result<(), Incomplete> {
        let mut open = 0_usize;
        let mut nothing = Vec::new();
        loop {
            match self.next().ok_or(Incomplete)? {
                b'(' => open += 1,
                b')' if open <= 1 => return Ok(()),
                b')' => open -= 1,
                b'$' if self.peek() == Some(b'\'') => {
                    self.at += 1;
                    self.ansi_quoted(&mut nothing)?;
                }
                byte => self.part(byte, &mut nothing)?,
            }
            nothing.clear();
        }
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn low_byte(number: u32) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[track_caller]
    fn check(text: &[u8], want: &[(&str, &[u8])]) {
        let want: Vec<_> =
            want.iter().map(|(name, value)| (OsString::from(name), os(value))).collect();
        assert_eq!(parse_variables(text), want, "{}", text.escape_ascii());
    }

    #[test]
    fn what_each_shell_prints_is_read() {
        // dash and BusyBox
        check(
            b"export E=''\nexport N\nexport V='a\nb'\"'\"'c\"d\\e`$x'\n",
            &[("E", b""), ("V", b"a\nb'c\"d\\e`$x")],
        );
        // bash, and bash as sh
        check(
            b"declare -x A=\"a\\$b\\\"c\\`d\\\\e!f\\g\"\ndeclare -x OLDPWD\n",
            &[("A", b"a$b\"c`d\\e!f\\g")],
        );
        check(
            br#"declare -x V=$'a\nb\'c"d\\e`$x\t\001\377\303\251'"#,
            &[("V", b"a\nb'c\"d\\e`$x\t\x01\xff\xc3\xa9")],
        );
        check(
            b"declare -ix N=\"3\"\ndeclare -ax L=([0]=\"a)\" [1]=$'b\\'(')\ndeclare -rx R=\"1\"\n",
            &[("N", b"3"), ("R", b"1")],
        );
        check(b"export A=\"x\ny\"\n", &[("A", b"x\ny")]);
        // mksh and ksh93
        check(
            b"export HOME\nexport PATH=/bin:/x\nexport T='~a'\nexport V=$'\\047\\x01\\xff'\n",
            &[("PATH", b"/bin:/x"), ("T", b"~a"), ("V", b"'\x01\xff")],
        );
        check(
            b"typeset -x -i N=3\nexport f=([0]=1.5)\nexport Q=a\\ b\\'\n",
            &[("N", b"3"), ("Q", b"a b'")],
        );
    }

    #[test]
    fn odd_texts_do_no_harm() {
        for text in [
            "",
            "\n;\n",
            "export",
            "export =x",
            "export 1=x",
            "export A=(",
            "export A=$'",
            "export A=$'\\",
            "export A='x",
            "export A=\"x\\",
            "export A=\\",
            "A=1",
            "set A=1",
            "export A=$'\\0'",
            "\0",
            "exportA=1",
            "export A=()",
            "export A=(()",
            "-x",
            "export -x",
            "export\nA=1",
            "export A=1 A=(2)",
        ] {
            check(text.as_bytes(), &[]);
        }
        check(
            b"export A=1; export B=2 C=3\texport=4\nset D=5\nexport A=6",
            &[("A", b"6"), ("B", b"2"), ("C", b"3"), ("export", b"4")],
        );
        check(b"export A=1\nexport B='2", &[("A", b"1")]);
        check(
            br"export A=$'\e\cA\u00e9\U0001f600\q\x\ud800\a\?'",
            &[("A", "\x1b\x01\u{e9}\u{1f600}\\q\\x\\u\x07?".as_bytes())],
        );
        check(b"export A=a\\\nb \"B\"=2", &[("A", b"ab")]);
    }

    #[test]
    fn what_shells_of_this_machine_print_comes_back() {
        let values: [&[u8]; 14] = [
            b"",
            b"plain",
            b" a  b ",
            b"it's",
            b"''",
            b"a\nb\n",
            b"$X `id` \\ \" ! \\n",
            b"*~#",
            b"\xc3\xa9",
            b"\xff\xfe",
            b"\x01\x1b[0m\t\r",
            b"\\",
            b"(a b)",
            b"A=1; export B='2'\nexport C=3",
        ];
        for shell in [
            &["dash"][..],
            &["bash"],
            &["bash", "--posix"],
            &["busybox", "sh"],
            &["mksh"],
            &["ksh93"],
        ] {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", "export -p"]);
            for (index, value) in values.iter().enumerate() {
                command.env(format!("V{index}"), OsStr::from_bytes(value));
            }
            // Not every machine has all of them; what the others print is in the table above.
            let Ok(output) = command.output() else { continue };
            let seen: BTreeMap<_, _> = parse_variables(&output.stdout).into_iter().collect();
            for (index, value) in values.iter().enumerate() {
                let name = OsString::from(format!("V{index}"));
                assert_eq!(seen.get(&name).map(|it| it.as_bytes()), Some(*value), "in {shell:?}");
            }
            assert!(!seen.contains_key(OsStr::new("B")), "in {shell:?}");
        }
    }

    #[test]
    fn no_text_made_of_what_matters_to_shells_is_too_much() {
        let alphabet = b"export declare -x A='\"$'\\x0un()\n; \t\xff\0";
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = b"export A=".to_vec();
            for _ in 0..24 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let index = usize::try_from(state >> 33).unwrap() % alphabet.len();
                text.push(alphabet[index]);
            }
            for (name, value) in parse_variables(&text) {
                assert!(!name.is_empty() && !value.as_bytes().contains(&0));
            }
        }
    }

    #[test]
    fn terminated_variables_are_read() {
        let seen = parse_terminated(b"A=1\0B=x=\ny\0=odd\0none\0a.b=\0A=2");
        let want = [("A", "2"), ("B", "x=\ny"), ("a.b", "")];
        assert_eq!(seen, want.map(|(name, value)| (name.into(), value.into())));
    }
}
