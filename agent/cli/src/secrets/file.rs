//! Secrets from a file of this machine, so that a build needs no AWS.
//!
//! The file is JSON, an object whose values are strings or anything else, or lines as in `.env`
//! files. Values are looked for by these keys, and the first one that the file has counts:
//!
//! 1. the reference as it is in the buildspec (`/prod/db:3`, `shop:password:AWSPREVIOUS`);
//! 2. the name or ARN of a secret of Secrets Manager, if its current version is meant; if the
//!    reference has a JSON key, the value has to be a JSON object, and that key of it is taken;
//! 3. the name of the variable.
//!
//! **Architecture invariant:** AWS is never asked instead. What the file does not have is missing.

mod dotenv;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
};

use rbuild_agent::secret::{Reference, Secret, Secrets, SecretsError, Wanted};
use serde_json::Value;

use super::{Reason, collect, json};
use crate::{
    console::{self, size},
    failure::{Failure, Kind},
    input,
};

/// The most bytes of a file of secrets.
const LARGEST: u64 = 4_000_000;

/// Secrets as a file has them.
pub(crate) struct FileSecrets {
    shown: String,
    values: HashMap<String, String>,
}

impl FileSecrets {
    /// Reads a file, or what a pipe has (`--secrets <(sops decrypt secrets.env)`).
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let bytes = bytes(path).map_err(|err| {
            let message = format!("the file of secrets, `{shown}`, could not be read");
            Failure::new(Kind::Input, message).because(err)
        })?;
        if may_be_read_by_others(path) {
            console::warn(&format!("others may read `{shown}`, which holds secrets: chmod 600"));
        }
        let values = parse(&bytes).map_err(|problem| {
            let place = problem.line.map_or_else(String::new, |it| format!(":{it}"));
            Failure::new(Kind::Input, format!("`{shown}` is no file of secrets: {}", problem.what))
                .excerpt(format!(" --> {shown}{place}"))
                .hint("write lines such as `NAME=value` or `/prod/db=\"value\"`, or a JSON object")
        })?;
        Ok(Self { shown, values })
    }

    fn value(&self, wanted: &Wanted) -> Result<String, Reason> {
        let (reference, by_id, json_key) = keys(&wanted.reference);
        if let Some(value) = self.values.get(&reference) {
            return Ok(value.clone());
        }
        match (by_id.and_then(|it| self.values.get(it)), json_key) {
            (Some(value), Some(key)) => return json::value(value, key),
            (Some(value), None) => return Ok(value.clone()),
            (None, _) => {}
        }
        self.values.get(&wanted.variable).cloned().ok_or_else(|| {
            let mut keys = vec![&*reference];
            keys.extend(by_id.filter(|it| *it != reference));
            keys.push(&wanted.variable);
            let keys: Vec<String> = keys.iter().map(|it| format!("`{it}`")).collect();
            Reason::Missing(format!("`{}` has none of {}", self.shown, keys.join(", ")))
        })
    }
}

impl Secrets for FileSecrets {
    fn fetch(&mut self, wanted: &[Wanted]) -> Result<Vec<Secret>, SecretsError> {
        collect(wanted, |it| self.value(it))
    }
}

/// The reference as it is written, the ID of the secret whose current version is meant, and the
/// JSON key in it.
fn keys(reference: &Reference) -> (String, Option<&str>, Option<&str>) {
    match reference {
        Reference::Parameter(name) => (name.clone(), None, None),
        Reference::SecretsManager(it) => {
            let is_current = it.version_id.is_none()
                && it.version_stage.as_deref().is_none_or(|it| it == "AWSCURRENT");
            let id = is_current.then_some(it.secret_id.as_str());
            (it.to_string(), id, it.json_key.as_deref())
        }
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.file_type().is_fifo() {
        return input::read(path, LARGEST);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if LARGEST < bytes.len() as u64 {
        let message = format!("it has more than {}", size::bytes(LARGEST));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn may_be_read_by_others(path: &Path) -> bool {
    let metadata = fs::metadata(path);
    metadata.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o077 != 0)
}

/// What is wrong with a file, without a word of what is in it.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    line: Option<usize>,
    what: &'static str,
}

fn parse(bytes: &[u8]) -> Result<HashMap<String, String>, Problem> {
    let problem = |what| Problem { line: None, what };
    let text = std::str::from_utf8(bytes).map_err(|_| problem("it is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with(['{', '[']) {
        return Ok(dotenv::parse(text)?.into_iter().collect());
    }
    let parsed: Value = serde_json::from_str(text)
        .map_err(|err| Problem { line: Some(err.line()), what: "it is not valid JSON" })?;
    match parsed {
        Value::Object(object) => {
            Ok(object.iter().map(|(key, value)| (key.clone(), json::text(value))).collect())
        }
        _ => Err(problem("it is no JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use rbuild_agent::secret::SecretsManagerReference;

    use super::*;

    fn file(text: &str) -> FileSecrets {
        FileSecrets { shown: "s.env".into(), values: parse(text.as_bytes()).unwrap() }
    }

    fn secret(key: Option<&str>, stage: Option<&str>) -> Reference {
        Reference::SecretsManager(SecretsManagerReference {
            secret_id: "shop".into(),
            json_key: key.map(str::to_owned),
            version_stage: stage.map(str::to_owned),
            version_id: None,
        })
    }

    fn fetch(file: &str, reference: Reference) -> String {
        let wanted = Wanted { variable: "DB".into(), reference, place: None };
        match self::file(file).fetch(&[wanted]) {
            Ok(secrets) => secrets[0].expose().to_owned(),
            Err(SecretsError::Missing { message, .. } | SecretsError::Unusable { message, .. }) => {
                message
            }
            Err(err) => panic!("{err}"),
        }
    }

    #[test]
    fn the_reference_counts_then_the_secret_then_the_variable() {
        let parameter = || Reference::Parameter("/prod/db".into());
        for (file, reference, want) in [
            ("/prod/db=a\nDB=b", parameter(), "a"),
            ("DB=b", parameter(), "b"),
            ("OTHER=b", parameter(), "`s.env` has none of `/prod/db`, `DB`"),
            (r#"{"/prod/db": "a", "DB": 1}"#, parameter(), "a"),
            (r#"{"DB": 1}"#, parameter(), "1"),
            ("shop:user=a\nshop={\"user\": \"b\"}\nDB=c", secret(Some("user"), None), "a"),
            ("shop={\"user\": \"b\"}\nDB=c", secret(Some("user"), None), "b"),
            (r#"{"shop": {"user": "b"}, "DB": "c"}"#, secret(Some("user"), None), "b"),
            (r#"{"shop": {"user": "b"}}"#, secret(None, None), r#"{"user":"b"}"#),
            ("shop=x\nDB=c", secret(None, Some("AWSCURRENT")), "x"),
            ("shop=x\nDB=c", secret(None, Some("AWSPREVIOUS")), "c"),
            (
                "shop={\"a\":1}\nDB=c",
                secret(Some("user"), None),
                "it has no key `user`; its keys: `a`",
            ),
            ("A=x", secret(Some("user"), None), "`s.env` has none of `shop:user`, `shop`, `DB`"),
            (r#"{"DB": "a\u0000b"}"#, parameter(), "it holds a NUL character"),
        ] {
            assert_eq!(fetch(file, reference), want, "in {file:?}");
        }
    }

    #[test]
    fn a_file_that_is_wrong_is_told_of_without_its_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.env");
        let told = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let err = FileSecrets::read(&path).err().unwrap();
            assert_eq!(err.kind, Kind::Input);
            err.to_string().replace(&folder.path().display().to_string(), "DIR")
        };
        expect![[r#"
            error: `DIR/s.env` is no file of secrets: a line has no `=`
             --> DIR/s.env:2
            hint: write lines such as `NAME=value` or `/prod/db="value"`, or a JSON object"#]]
        .assert_eq(&told(b"A=1\ns3cr3t\n"));
        for text in [&b"{\"a\": \n s3cr3t}"[..], b"[\"s3cr3t\"]", b"A=\xffs3cr3t", b"A='s3cr3t"] {
            assert!(!told(text).contains("s3cr3t"));
        }
        fs::write(&path, vec![b'#'; usize::try_from(LARGEST).unwrap() + 1]).unwrap();
        let err = FileSecrets::read(&path).err().unwrap().to_string();
        assert!(err.contains("it has more than "), "{err}");
    }

    #[test]
    fn files_that_others_may_read_are_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, want) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(may_be_read_by_others(file.path()), want, "{mode:o}");
        }
    }
}
