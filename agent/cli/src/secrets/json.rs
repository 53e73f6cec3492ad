//! The values in a secret that is a JSON object.

use serde_json::Value;

use super::Reason;

/// The most keys that an error names.
const MOST_KEYS: usize = 20;

/// The value of `key` in `text`, which has to be a JSON object.
pub(super) fn value(text: &str, key: &str) -> Result<String, Reason> {
    let unusable = |what: &str| Reason::Unusable(format!("{what}, and so it has no key `{key}`"));
    // The words of the parser could show what is in the text.
    let parsed: Value = serde_json::from_str(text).map_err(|_| unusable("it is not JSON"))?;
    let Value::Object(object) = parsed else { return Err(unusable("it is no JSON object")) };
    match object.get(key) {
        Some(value) => Ok(self::text(value)),
        None => {
            let names: Vec<String> =
                object.keys().take(MOST_KEYS).map(|it| format!("`{it}`")).collect();
            let names = match (names.is_empty(), MOST_KEYS < object.len()) {
                (true, _) => "none".to_owned(),
                (false, false) => names.join(", "),
                (false, true) => format!("{}, …", names.join(", ")),
            };
            Err(Reason::Missing(format!("it has no key `{key}`; its keys: {names}")))
        }
    }
}

/// A string as it is, and all else as compact JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_text_however_they_are_written() {
        let text = r#"{"s":"a\nb","n":1.50,"big":123456789012345678901234567890,"t":true,
                       "z":null,"o":{ "b": [1, "x"] , "a":{}},"":"empty"}"#;
        for (key, want) in [
            ("s", "a\nb"),
            ("n", "1.50"),
            ("big", "123456789012345678901234567890"),
            ("t", "true"),
            ("z", "null"),
            ("o", r#"{"b":[1,"x"],"a":{}}"#),
            ("", "empty"),
        ] {
            assert_eq!(value(text, key).ok().as_deref(), Some(want), "for `{key}`");
        }
    }

    #[test]
    fn what_is_not_there_is_told_without_values() {
        for (text, want) in [
            ("s3cr3t", "it is not JSON, and so it has no key `k`"),
            ("[\"s3cr3t\"]", "it is no JSON object, and so it has no key `k`"),
            ("{}", "it has no key `k`; its keys: none"),
            (r#"{"b":"s3cr3t","a":1}"#, "it has no key `k`; its keys: `b`, `a`"),
        ] {
            let found = match value(text, "k") {
                Err(Reason::Missing(message) | Reason::Unusable(message)) => message,
                _ => String::new(),
            };
            assert_eq!(found, want);
        }
    }
}
