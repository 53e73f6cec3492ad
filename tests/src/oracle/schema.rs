//! OCI's JSON schemas, and as much of JSON Schema as they use.
//!
//! **Architecture invariant:** a keyword that is not understood is a panic: nothing in a schema is
//! left unchecked in silence.

use regex::Regex;
use serde_json::{Map, Value};

/// The schemas, in `tests/schemas`: what opencontainers/image-spec 1.1 publishes, put shorter.
const SCHEMAS: [(&str, &str); 6] = [
    ("config.json", include_str!("../../schemas/config.json")),
    ("definitions.json", include_str!("../../schemas/definitions.json")),
    ("descriptor.json", include_str!("../../schemas/descriptor.json")),
    ("index.json", include_str!("../../schemas/index.json")),
    ("layout.json", include_str!("../../schemas/layout.json")),
    ("manifest.json", include_str!("../../schemas/manifest.json")),
];

/// What is wrong with a value that this schema describes: nothing, if it holds.
pub(super) fn check(schema: &str, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    apply(&load(schema), value, "", &mut faults);
    faults
}

/// The schema that a reference means: `FILE`, or `FILE#/definitions/NAME`.
fn load(reference: &str) -> Value {
    let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
    let found = SCHEMAS.iter().find(|(name, _)| *name == file);
    let (_, text) = found.unwrap_or_else(|| panic!("no schema `{file}`"));
    let schema: Value = serde_json::from_str(text).expect("a schema that is JSON");
    let part = schema.pointer(pointer);
    part.unwrap_or_else(|| panic!("`{file}` has no `{pointer}`")).clone()
}

fn apply(schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let schema = schema.as_object().expect("a schema that is an object");
    for (keyword, rule) in schema {
        let is_met = match keyword.as_str() {
            "description" | "definitions" => true,
            "$ref" => {
                apply(&load(text(rule)), value, at, faults);
                true
            }
            "properties" => {
                for (key, value, schema) in pairs(value, rule) {
                    apply(schema, value, &format!("{at}/{key}"), faults);
                }
                true
            }
            "patternProperties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let schemas = rule.as_object().expect("patterns").iter();
                    for (_, schema) in schemas.filter(|(pattern, _)| matches(pattern, key)) {
                        apply(schema, value, &format!("{at}/{key}"), faults);
                    }
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    apply(rule, value, &format!("{at}/{index}"), faults);
                }
                true
            }
            _ => holds(keyword, rule, value),
        };
        if !is_met {
            faults.push(format!("`{at}` is {value}: `{keyword}` is {rule}"));
        }
    }
}

/// The values of an object for which there are schemas.
fn pairs<'a>(
    value: &'a Value,
    schemas: &'a Value,
) -> impl Iterator<Item = (&'a str, &'a Value, &'a Value)> {
    let schemas = schemas.as_object().expect("properties");
    let values = value.as_object().into_iter().flat_map(Map::iter);
    values.filter_map(|(key, value)| Some((key.as_str(), value, schemas.get(key)?)))
}

/// The keywords that say something of the value itself. Those for another type always hold.
fn holds(keyword: &str, rule: &Value, value: &Value) -> bool {
    match keyword {
        "type" => is_type(text(rule), value),
        "enum" => rule.as_array().expect("values").contains(value),
        "required" => {
            let has = |key: &Value| value.get(text(key)).is_some();
            !value.is_object() || rule.as_array().expect("names").iter().all(has)
        }
        "minimum" => value.as_f64().is_none_or(|it| number(rule) <= it),
        "maximum" => value.as_f64().is_none_or(|it| it <= number(rule)),
        "minItems" => value.as_array().is_none_or(|it| number(rule) <= count(it)),
        "pattern" => value.as_str().is_none_or(|it| matches(text(rule), it)),
        "format" => value.as_str().is_none_or(|it| has_format(text(rule), it)),
        "oneOf" => {
            let schemas = rule.as_array().expect("schemas").iter();
            let fits = |schema: &&Value| {
                let mut faults = Vec::new();
                apply(schema, value, "", &mut faults);
                faults.is_empty()
            };
            schemas.filter(fits).count() == 1
        }
        other => panic!("the keyword `{other}` of a schema is not known"),
    }
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the type `{other}` of a schema is not known"),
    }
}

fn has_format(name: &str, value: &str) -> bool {
    let pattern = match name {
        // RFC 3339, section 5.6.
        "date-time" => {
            r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$"
        }
        // RFC 3986: a scheme and something after it.
        "uri" => r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$",
        other => panic!("the format `{other}` of a schema is not known"),
    };
    matches(pattern, value)
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).expect("a pattern that compiles").is_match(text)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text in a schema")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number in a schema")
}

fn count(items: &[Value]) -> f64 {
    u32::try_from(items.len()).expect("not so many items").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({
            "architecture": "amd64", "os": "linux", "created": "2026-11-23T21:00:00.5Z",
            "config": { "Env": ["A=b"], "Cmd": null, "Volumes": { "/v": {} }, "Labels": { "a": "b" } },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:00"] },
            "history": [{ "created_by": "COPY", "empty_layer": false }],
        })
    }

    #[test]
    fn a_config_that_is_as_it_should_be_has_no_faults() {
        assert_eq!(check("config.json", &config()), [""; 0]);
    }

    #[test]
    fn each_fault_of_a_config_is_told() {
        for (pointer, value) in [
            ("/architecture", json!(1)),
            ("/created", json!("yesterday")),
            ("/created", json!("2026-13-01T00:00:00Z")),
            ("/config", json!([])),
            ("/config/Env", json!([1])),
            ("/config/Cmd", json!("sh")),
            ("/config/Volumes", json!({ "/v": 1 })),
            ("/config/Labels", json!({ "a": 1 })),
            ("/rootfs", json!({ "type": "layers" })),
            ("/rootfs/type", json!("other")),
            ("/rootfs/diff_ids", json!({})),
            ("/history/0/empty_layer", json!("no")),
        ] {
            let mut config = config();
            *config.pointer_mut(pointer).unwrap() = value.clone();
            assert_eq!(check("config.json", &config).len(), 1, "{pointer}: {value}");
        }
    }

    #[test]
    fn each_fault_of_a_manifest_is_told() {
        let descriptor =
            json!({ "mediaType": "a/b+c", "size": 1, "digest": "sha256:0", "urls": ["https://x"] });
        let manifest = json!({ "schemaVersion": 2, "config": descriptor, "layers": [descriptor] });
        assert_eq!(check("manifest.json", &manifest), [""; 0]);
        for (pointer, value) in [
            ("/schemaVersion", json!(1)),
            ("/schemaVersion", json!(3)),
            ("/schemaVersion", json!("2")),
            ("/layers", json!([])),
            ("/config/size", json!(-1)),
            ("/config/mediaType", json!("no slash")),
            ("/config/digest", json!("sha256")),
            ("/layers/0/urls/0", json!("nowhere")),
            ("/layers/0", json!({})),
        ] {
            let mut manifest = manifest.clone();
            *manifest.pointer_mut(pointer).unwrap() = value.clone();
            assert_eq!(check("manifest.json", &manifest).len(), 1, "{pointer}: {value}");
        }
    }
}
