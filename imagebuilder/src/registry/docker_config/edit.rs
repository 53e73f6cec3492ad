//! Changes a `config.json`: what is not about the one registry stays as it is, in its order.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json, ser::PrettyFormatter};
use thiserror::Error;

use super::{super::auth::Credential, host, server};

/// Why a `config.json` cannot be changed.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// The text is no JSON object.
    #[error("it is no JSON object")]
    NoObject,
    /// `auths` is something else than an object.
    #[error("its `auths` is no object")]
    NoAuths,
}

/// Where a credential is kept.
#[derive(Clone, Copy, Debug)]
pub enum Keep<'a> {
    /// In the file.
    Here(&'a Credential),
    /// By a program; docker marks that with an empty entry.
    Elsewhere,
}

/// The text with a credential for `registry` in place of those that it had.
pub fn log_in(text: &str, registry: &str, keep: Keep<'_>) -> Result<String, EditError> {
    let mut file = parse(text)?;
    let auths = auths(&mut file)?;
    let own = server(registry);
    // In place, so that the order stays.
    auths.retain(|key, _| key == own || host(key) != host(registry));
    auths.insert(own.to_owned(), entry(keep));
    print(&file)
}

/// The text without the credentials for `registry`; nothing if it had none.
pub fn log_out(text: &str, registry: &str) -> Result<Option<String>, EditError> {
    let mut file = parse(text)?;
    let auths = auths(&mut file)?;
    let before = auths.len();
    auths.retain(|key, _| host(key) != host(registry));
    if auths.len() == before {
        return Ok(None);
    }
    print(&file).map(Some)
}

fn entry(keep: Keep<'_>) -> Value {
    match keep {
        Keep::Elsewhere => json!({}),
        Keep::Here(Credential { username, password }) if username == Credential::IDENTITY_TOKEN => {
            json!({ "identitytoken": password })
        }
        Keep::Here(Credential { username, password }) => {
            json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
        }
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, EditError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|_| EditError::NoObject)
}

fn auths(file: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, EditError> {
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().ok_or(EditError::NoAuths)
}

/// With tabs, as docker writes it.
fn print(file: &Map<String, Value>) -> Result<String, EditError> {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(file, &mut serializer).map_err(|_| EditError::NoObject)?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|_| EditError::NoObject)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn credential() -> Credential {
        Credential { username: "u".into(), password: "p".into() }
    }

    #[test]
    fn a_login_changes_its_own_entry_and_nothing_else() {
        let text = r#"{ "zeta": 1.50, "auths": { "b.com": { "auth": "x", "more": 1 }, "https://a.com/v2/": {} }, "alpha": [1, 2] }"#;
        let text = log_in(text, "a.com", Keep::Here(&credential())).unwrap();
        let text = log_in(&text, "docker.io", Keep::Elsewhere).unwrap();
        expect![[r#"
            {
            	"zeta": 1.50,
            	"auths": {
            		"b.com": {
            			"auth": "x",
            			"more": 1
            		},
            		"a.com": {
            			"auth": "dTpw"
            		},
            		"https://index.docker.io/v1/": {}
            	},
            	"alpha": [
            		1,
            		2
            	]
            }
        "#]]
        .assert_eq(&text);
        let text = log_out(&text, "docker.io").unwrap().unwrap();
        assert_eq!(log_out(&text, "docker.io").unwrap(), None);
        assert!(text.contains("dTpw") && text.contains("1.50"));
    }

    #[test]
    fn a_file_is_made_of_nothing_and_what_is_no_object_is_refused() {
        let made = log_in("", "a.com", Keep::Here(&credential())).unwrap();
        assert_eq!(
            made,
            "{\n\t\"auths\": {\n\t\t\"a.com\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t}\n}\n"
        );
        assert_eq!(log_out("", "a.com"), Ok(None));
        assert_eq!(log_out("[]", "a.com"), Err(EditError::NoObject));
        assert_eq!(log_out(r#"{"auths":3}"#, "a.com"), Err(EditError::NoAuths));
    }
}
