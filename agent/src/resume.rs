//! What is kept of a build that did not succeed, so that another can go on where it ended.
//!
//! Kept is what commands changed: the differences between the variables that the build began with
//! and those before the first command that did not succeed. All else comes anew, secrets above all.
//!
//! **Architecture invariant:** pure. No value that nobody must see gets into a [`State`], and its
//! text may come from anywhere: parsing is strict, and needs no more memory than its input.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    environment::Environment,
    run::ResumePoint,
    secret::{self, Redactor},
};

/// What is kept of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The folder with the source.
    pub source: PathBuf,
    /// A SHA-256 digest, in hexadecimal, of the commands before `step`.
    pub commands: String,
    /// The number of the command to go on with, counted from 0.
    pub step: usize,
    /// Where that command starts.
    pub directory: PathBuf,
    /// The folder that came first on the PATH, which is another in each build.
    pub programs: PathBuf,
    /// The variables that commands set, sorted by name.
    pub set: Vec<(OsString, OsString)>,
    /// The variables that commands unset, sorted.
    pub unset: Vec<OsString>,
    /// The variables that commands set and that are not kept, since they hold a secret; sorted.
    /// Those that were lost to a build before, and that no command has set since, are among them.
    pub withheld: Vec<OsString>,
}

/// The build that a state is of.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The folder with the source.
    pub source: &'a Path,
    /// A SHA-256 digest of the commands before the one to go on with.
    pub commands: &'a str,
    /// The folder that comes first on the PATH.
    pub programs: &'a Path,
    /// The variables that it began with.
    pub environment: &'a Environment,
    /// What nobody must see.
    pub redactor: &'a Redactor,
    /// The variables that it lacked, since they were [withheld](State::withheld) from it.
    pub lacks: &'a [OsString],
}

/// Why bytes are no state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// Another version of rbuild wrote them.
    #[error("it has version {found}, and this program reads version {VERSION}")]
    Version {
        /// The version that they have.
        found: u64,
    },
    /// They are not what they should be.
    #[error("it is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
}

/// The version of the format.
const VERSION: u64 = 1;

impl State {
    /// What to keep of a build, so that it can go on at `point`; nothing if that cannot be told
    /// without a secret.
    pub fn new(point: &ResumePoint, origin: Origin<'_>) -> Option<Self> {
        let directory = point.snapshot.directory.clone();
        if is_secret(directory.as_os_str(), origin.redactor) {
            return None;
        }
        let environment = origin.environment;
        let began: BTreeMap<&OsStr, &OsStr> = environment.iter().collect();
        let fetched: BTreeSet<&str> =
            environment.wanted().iter().map(|it| it.variable.as_str()).collect();
        let is_kept = |name: &OsStr| {
            let bytes = name.as_bytes();
            let comes_anew = name.to_str().is_some_and(|it| fetched.contains(it));
            !comes_anew && bytes != b"_" && !bytes.starts_with(b"CODEBUILD_")
        };
        let changed = point.snapshot.variables.iter().filter(|(name, value)| {
            is_kept(name) && began.get(name.as_os_str()) != Some(&value.as_os_str())
        });
        let (withheld, set): (Vec<_>, Vec<_>) = changed.cloned().partition(|(name, value)| {
            secret::CREDENTIALS.iter().any(|it| name == it) || is_secret(value, origin.redactor)
        });
        let is_set = |name: &OsString| set.iter().any(|it| it.0 == *name);
        let still_lacks = origin.lacks.iter().filter(|it| !is_set(it)).cloned();
        let withheld: BTreeSet<OsString> =
            withheld.into_iter().map(|it| it.0).chain(still_lacks).collect();
        let left: BTreeSet<&OsStr> =
            point.snapshot.variables.iter().map(|it| it.0.as_os_str()).collect();
        let unset = began.keys().filter(|it| is_kept(it) && !left.contains(*it));
        Some(Self {
            source: origin.source.to_owned(),
            commands: origin.commands.to_owned(),
            step: point.step,
            directory,
            programs: origin.programs.to_owned(),
            unset: unset.map(|it| (*it).to_owned()).collect(),
            set,
            withheld: withheld.into_iter().collect(),
        })
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != VERSION {
            return Err(StateError::Version { found: version });
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(damaged)?;
        let is_hex = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        if wire.commands.len() != 64 || !wire.commands.bytes().all(is_hex) {
            return Err(damaged("`commands` is no digest"));
        }
        let set: Result<BTreeMap<_, _>, _> =
            wire.set.iter().map(|(name, value)| Ok((name_of(name)?, decode(value)?))).collect();
        Ok(Self {
            source: path_of(&wire.source)?,
            commands: wire.commands,
            step: wire.step,
            directory: path_of(&wire.directory)?,
            programs: path_of(&wire.programs)?,
            set: set?.into_iter().collect(),
            unset: names_of(&wire.unset)?,
            withheld: names_of(&wire.withheld)?,
        })
    }

    /// The state as bytes, for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            version: VERSION,
            source: encode(self.source.as_os_str()),
            commands: self.commands.clone(),
            step: self.step,
            directory: encode(self.directory.as_os_str()),
            programs: encode(self.programs.as_os_str()),
            set: self.set.iter().map(|(name, value)| (encode(name), encode(value))).collect(),
            unset: self.unset.iter().map(|it| encode(it)).collect(),
            withheld: self.withheld.iter().map(|it| encode(it)).collect(),
        };
        // Strings, numbers, and lists of them can always be written.
        serde_json::to_vec_pretty(&wire).unwrap_or_default()
    }

    /// The variables that are [`set`](Self::set), for a build in which `programs` comes first on
    /// the PATH.
    pub fn variables(&self, programs: &Path) -> Vec<(OsString, OsString)> {
        let moved = |value: &OsString| {
            let (old, new) = (self.programs.as_os_str(), programs.as_os_str());
            OsString::from_vec(replace(value.as_bytes(), old.as_bytes(), new.as_bytes()))
        };
        self.set.iter().map(|(name, value)| (name.clone(), moved(value))).collect()
    }
}

/// What every version begins with.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// The file. Texts that may be no UTF-8 are `=` and the text, or `#` and its bytes in hexadecimal.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u64,
    source: String,
    commands: String,
    step: usize,
    directory: String,
    programs: String,
    set: Vec<(String, String)>,
    unset: Vec<String>,
    withheld: Vec<String>,
}

/// Whether nobody must see a text: as it is, or as commands encode it for headers and URLs.
fn is_secret(text: &OsStr, redactor: &Redactor) -> bool {
    let hides = |bytes: &[u8]| redactor.mask_bytes(bytes) != bytes;
    hides(text.as_bytes()) || decoded(text.as_bytes()).any(|it| hides(&it))
}

/// Base64 as most write it, and as URLs have it; with padding or without, and cut anywhere.
const BASE64: [GeneralPurpose; 2] = {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [
        GeneralPurpose::new(&alphabet::STANDARD, config),
        GeneralPurpose::new(&alphabet::URL_SAFE, config),
    ]
};

/// What the words in a text stand for that may be base64 or hexadecimal.
fn decoded(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let is_of_word = |it: &u8| it.is_ascii_alphanumeric() || b"+/-_".contains(it);
    text.split(move |it| !is_of_word(it)).filter(|it| 4 < it.len()).flat_map(|word| {
        let base64 = BASE64.iter().filter_map(|it| {
            // One character more than whole groups is none of it.
            let whole = if word.len() % 4 == 1 { word.len() - 1 } else { word.len() };
            it.decode(&word[..whole]).ok()
        });
        base64.chain(hexadecimal(word)).collect::<Vec<_>>()
    })
}

fn hexadecimal(word: &[u8]) -> Option<Vec<u8>> {
    let digit = |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let pairs = word.chunks_exact(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn damaged(what: impl ToString) -> StateError {
    StateError::Damaged { what: what.to_string() }
}

fn encode(text: &OsStr) -> String {
    match text.to_str() {
        Some(text) => format!("={text}"),
        None => {
            let hex = text.as_bytes().iter().map(|it| format!("{it:02x}"));
            format!("#{}", hex.collect::<String>())
        }
    }
}

fn decode(text: &str) -> Result<OsString, StateError> {
    let bytes = match text.split_at_checked(1) {
        Some(("=", text)) => text.as_bytes().to_vec(),
        Some(("#", hex)) => from_hex(hex).ok_or_else(|| damaged("a text is no hexadecimal"))?,
        _ => return Err(damaged("a text begins with neither `=` nor `#`")),
    };
    match bytes.contains(&0) {
        true => Err(damaged("a text holds a NUL character")),
        false => Ok(OsString::from_vec(bytes)),
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|it| Some(digit(*it.first()?)? << 4 | digit(*it.get(1)?)?)).collect()
}

fn name_of(text: &str) -> Result<OsString, StateError> {
    let name = decode(text)?;
    match name.is_empty() || name.as_bytes().contains(&b'=') {
        true => Err(damaged("a name cannot be that of a variable")),
        false => Ok(name),
    }
}

fn names_of(texts: &[String]) -> Result<Vec<OsString>, StateError> {
    let names: Result<BTreeSet<_>, _> = texts.iter().map(|it| name_of(it)).collect();
    Ok(names?.into_iter().collect())
}

fn path_of(text: &str) -> Result<PathBuf, StateError> {
    let path = PathBuf::from(decode(text)?);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(damaged("a path is not absolute")),
    }
}

fn replace(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(old).filter(|_| !old.is_empty()) {
            Some(after) => {
                replaced.extend_from_slice(new);
                rest = after;
            }
            None => {
                replaced.push(*first);
                rest = others;
            }
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        buildspec::{Value, Variable},
        choice::Masking,
        environment::Facts,
        secret::{Reference, Secret},
        shell::Snapshot,
    };

    fn os(text: &[u8]) -> OsString {
        OsString::from_vec(text.to_vec())
    }

    /// The state of a build that began with `HOME`, `GONE`, a PATH, and the secret `TOKEN`, and in
    /// which commands left these variables.
    fn state(left: &[(&str, &[u8])]) -> Option<State> {
        let base = [("HOME", "/h"), ("GONE", "1"), ("PATH", "/bin")];
        let base: Vec<_> = base.map(|(name, value)| (name.into(), value.into())).into();
        let value = Value::Secret(Reference::Parameter("/t".into()));
        let layer = [Variable { name: "TOKEN".into(), value, place: None }];
        let facts = Facts { source: "/src".into(), ..Facts::default() };
        let environment = Environment::new(&base, &[&layer], &facts, Path::new("/p1")).unwrap();
        let left = left.iter().map(|(name, value)| (os(name.as_bytes()), os(value)));
        let snapshot = Snapshot { variables: left.collect(), directory: "/src/sub".into() };
        let point = ResumePoint { step: 2, snapshot };
        let redactor = Redactor::new(vec![Secret::new("hunter22".into())], Masking::Lines);
        let origin = Origin {
            source: Path::new("/src"),
            commands: &"ab".repeat(32),
            programs: Path::new("/p1"),
            environment: &environment,
            redactor: &redactor,
            lacks: &[OsString::from("A"), OsString::from("LOST")],
        };
        State::new(&point, origin)
    }

    #[test]
    fn what_commands_changed_is_kept_and_secrets_are_not() {
        let made = state(&[
            ("A", b"new"),
            ("AWS_SECRET_ACCESS_KEY", b"key"),
            ("CODEBUILD_LAST_EXIT", b"0"),
            ("HOME", b"/h"),
            ("PATH", b"/p1:/bin:/more"),
            ("RAW", b"\xff\n"),
            ("TOKEN", b"hunter22"),
            ("URL", b"https://u:hunter22@h"),
            ("_", b"x"),
        ]);
        let made = made.unwrap();
        expect![[r##"
            {
              "version": 1,
              "source": "=/src",
              "commands": "abababababababababababababababababababababababababababababababab",
              "step": 2,
              "directory": "=/src/sub",
              "programs": "=/p1",
              "set": [
                [
                  "=A",
                  "=new"
                ],
                [
                  "=PATH",
                  "=/p1:/bin:/more"
                ],
                [
                  "=RAW",
                  "#ff0a"
                ]
              ],
              "unset": [
                "=GONE"
              ],
              "withheld": [
                "=AWS_SECRET_ACCESS_KEY",
                "=LOST",
                "=URL"
              ]
            }"##]]
        .assert_eq(&String::from_utf8(made.to_bytes()).unwrap());
        assert_eq!(State::parse(&made.to_bytes()), Ok(made.clone()));
        let variables = made.variables(Path::new("/p2"));
        let path = variables.iter().find(|it| it.0 == "PATH").unwrap();
        assert_eq!(path.1, "/p2:/bin:/more");
    }

    #[track_caller]
    fn check(text: &str, want: Expect) {
        want.assert_eq(&State::parse(text.as_bytes()).unwrap_err().to_string());
    }

    #[test]
    fn what_cannot_be_a_state_is_refused() {
        let good = String::from_utf8(state(&[]).unwrap().to_bytes()).unwrap();
        check("", expect!["it is damaged: EOF while parsing a value at line 1 column 0"]);
        check(
            "{\"version\": 2, \"other\": 1}",
            expect!["it has version 2, and this program reads version 1"],
        );
        check(
            &good.replace("\"step\": 2", "\"step\": -2"),
            expect![
                "it is damaged: invalid value: integer `-2`, expected usize at line 5 column 12"
            ],
        );
        for (from, to, want) in [
            ("abab", "ABAB", "`commands` is no digest"),
            ("=/src\"", "src\"", "a text begins with neither `=` nor `#`"),
            ("=/src\"", "é\"", "a text begins with neither `=` nor `#`"),
            ("=/src\"", "=src\"", "a path is not absolute"),
            ("=/src\"", "#2f7\"", "a text is no hexadecimal"),
            ("=/src\"", "#2f00\"", "a text holds a NUL character"),
            ("=GONE", "=A=B", "a name cannot be that of a variable"),
            ("=GONE", "=", "a name cannot be that of a variable"),
        ] {
            let want = damaged(want);
            assert_eq!(State::parse(good.replacen(from, to, 1).as_bytes()), Err(want), "{to}");
        }
        let deep = "[".repeat(100_000);
        assert!(State::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn secrets_are_known_when_they_are_encoded() {
        let redactor = Redactor::new(vec![Secret::new("s3cret-token".into())], Masking::Lines);
        for (text, want) in [
            ("s3cret-token", true),
            ("x s3cret-token y", true),
            // base64 of `me:s3cret-token` and of `user:s3cret-token\n`
            ("Basic bWU6czNjcmV0LXRva2Vu", true),
            ("dXNlcjpzM2NyZXQtdG9rZW4K", true),
            ("{\"auth\":\"dXNlcjpzM2NyZXQtdG9rZW4K\"}", true),
            ("7333637265742d746f6b656e", true),
            ("7333637265742D746F6B656E", true),
            ("czNjcmV0LXRva2V", false),
            ("bWU6b3RoZXI=", false),
            ("", false),
        ] {
            assert_eq!(is_secret(OsStr::new(text), &redactor), want, "for {text:?}");
        }
    }
}
