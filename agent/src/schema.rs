//! The language of buildspec files as a JSON Schema, for editors.
//!
//! **Architecture invariant:** the schema is made of the tables of keys that files are read by. It
//! is stricter than these in one thing: a key that means nothing is an error, since editors know
//! no warnings. It is draft 7, which editors know best.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::buildspec::keys::{ANY, Key, Kind, Section, TOP};

/// The JSON Schema of buildspec files.
pub fn buildspec_schema() -> &'static str {
    static SCHEMA: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", schema()));
    &SCHEMA
}

fn schema() -> Value {
    let mut schema = section(&TOP);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("AWS CodeBuild buildspec");
    schema["anyOf"] = json!([{ "required": ["phases"] }, { "required": ["batch"] }]);
    schema
}

fn section(section: &Section) -> Value {
    let properties: Map<String, Value> =
        section.keys.iter().map(|it| (it.name.to_owned(), property(it))).collect();
    let may_be_nothing = section.required.is_empty();
    let mut schema = json!({
        "type": if may_be_nothing { json!(["object", "null"]) } else { json!("object") },
        "properties": properties,
        "additionalProperties": false,
    });
    if !may_be_nothing {
        schema["required"] = json!(section.required);
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = value(key.kind);
    schema["description"] = json!(key.about);
    schema
}

fn value(kind: Kind) -> Value {
    match kind {
        Kind::Text => text(),
        Kind::OneOf(values) => json!({ "enum": with_numbers(values) }),
        Kind::AnyCase(values) => {
            let pattern: Vec<String> = values.iter().map(|it| any_case(it)).collect();
            let pattern = format!("^({})$", pattern.join("|"));
            json!({ "anyOf": [{ "enum": values }, { "type": "string", "pattern": pattern }] })
        }
        Kind::Form(pattern) => json!({ "type": ["string", "null"], "pattern": pattern }),
        Kind::Bool => boolean(),
        Kind::Count => {
            json!({ "type": ["integer", "string"], "minimum": 1, "pattern": "^0*[1-9][0-9]*$" })
        }
        Kind::Texts(most) => texts(most),
        Kind::Values => named(text()),
        Kind::ValueLists => named(texts(ANY)),
        Kind::Mapping(keys) => section(keys),
        Kind::Named(keys, most) => json!({
            "type": ["object", "null"],
            "additionalProperties": section(keys),
            "maxProperties": most,
        }),
        Kind::List(keys) => json!({ "type": ["array", "null"], "items": section(keys) }),
    }
}

fn text() -> Value {
    json!({ "type": ["string", "number", "boolean", "null"] })
}

fn texts(most: usize) -> Value {
    let mut schema =
        json!({ "type": ["array", "string", "number", "boolean", "null"], "items": text() });
    if most != ANY {
        schema["maxItems"] = json!(most);
    }
    schema
}

/// A mapping of names of variables, or of anything else, to `values`.
fn named(values: Value) -> Value {
    json!({
        "type": ["object", "null"],
        "propertyNames": { "pattern": "^(?!CODEBUILD_)[^=]+$" },
        "additionalProperties": values,
    })
}

fn boolean() -> Value {
    let words = ["yes", "y", "true", "on", "no", "n", "false", "off"].map(any_case);
    json!({
        "type": ["boolean", "string", "null"],
        "pattern": format!("^({})?$", words.join("|")),
        "default": false,
    })
}

/// The values, and the numbers that some of them are if nobody puts quotes around them.
fn with_numbers(values: &[&str]) -> Vec<Value> {
    let number = |it: &&str| it.parse::<f64>().ok().map(|it| json!(it));
    values.iter().filter_map(number).chain(values.iter().map(|it| json!(it))).collect()
}

/// A regular expression for `word` in any case. (That of `ECMAScript` knows no flags inside.)
fn any_case(word: &str) -> String {
    word.chars()
        .map(|it| match it.is_ascii_alphabetic() {
            true => format!("[{}{}]", it.to_ascii_uppercase(), it.to_ascii_lowercase()),
            false => it.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All keys of a section and what is in it, with the keys above.
    fn keys_of(section: &Section, above: &str) -> Vec<String> {
        let mut found = Vec::new();
        for key in section.keys {
            let path = format!("{above}/{}", key.name);
            match key.kind {
                Kind::Mapping(inner) | Kind::Named(inner, _) | Kind::List(inner) => {
                    found.extend(keys_of(inner, &path));
                }
                _ => {}
            }
            found.push(path);
        }
        found
    }

    /// All properties of a schema and what is in it, with those above.
    fn properties_of(schema: &Value, above: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{above}/{name}");
            found.extend(properties_of(inner, &path));
            found.push(path);
        }
        for key in ["additionalProperties", "items"] {
            if schema[key].is_object() {
                found.extend(properties_of(&schema[key], above));
            }
        }
        found
    }

    #[test]
    fn the_schema_is_json_and_knows_all_keys_and_no_others() {
        let schema: Value = serde_json::from_str(buildspec_schema()).unwrap();
        let properties = properties_of(&schema, "");
        assert_eq!(properties, keys_of(&TOP, ""));
        assert!(properties.contains(&"/artifacts/secondary-artifacts/s3-prefix".to_owned()));
    }

    #[test]
    fn every_key_is_described_in_a_sentence() {
        fn visit(schema: &Value) {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                let about = inner["description"].as_str().unwrap();
                assert!(about.ends_with('.'), "{name}: {about}");
                visit(inner);
            }
        }
        visit(&schema());
    }
}
