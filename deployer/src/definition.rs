//! A task definition, as JSON.
//!
//! **Architecture invariant:** what is not known here passes through as it came: unknown fields,
//! the order of fields, the digits of numbers, empty texts and lists. Only what ECS refuses in a
//! registration is taken out: the fields that a description adds, and nulls.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::placeholder::Place;

/// What `DescribeTaskDefinition` adds, and `RegisterTaskDefinition` refuses.
const READ_ONLY: [&str; 8] = [
    "compatibilities",
    "deregisteredAt",
    "registeredAt",
    "registeredBy",
    "requiresAttributes",
    "revision",
    "status",
    "taskDefinitionArn",
];

/// The field with the containers.
const CONTAINERS: &str = "containerDefinitions";

/// A task definition that can be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDefinition {
    fields: Map<String, Value>,
    family: String,
    containers: Vec<Container>,
}

/// A container of a task definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The reference of its image.
    pub image: String,
}

/// Why some text is not a task definition.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum DefinitionError {
    /// It is not JSON.
    #[error("this is not JSON: {reason}")]
    Json {
        /// Where it ceases to be JSON.
        place: Place,
        /// What is wrong there.
        reason: String,
    },
    /// It is JSON of another kind.
    #[error("a task definition is an object, and this is {found}")]
    Kind {
        /// What it is.
        found: &'static str,
    },
    /// A field is there twice, in two spellings.
    #[error("`{field}` is there in two spellings")]
    Twice {
        /// The field.
        field: String,
    },
    /// It has no name.
    #[error("the task definition has no `family`")]
    Family,
    /// It has no containers.
    #[error("the task definition has no `containerDefinitions`")]
    Containers,
    /// A container lacks what every container has.
    #[error("container {number} of the task definition has no `{field}`")]
    Container {
        /// The container's number, from 1.
        number: usize,
        /// What it lacks.
        field: &'static str,
    },
}

impl TaskDefinition {
    /// Parses what `RegisterTaskDefinition` takes, or what `DescribeTaskDefinition` says.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        let value = serde_json::from_str(text).map_err(|err| {
            let (place, reason) = syntax(text, &err);
            DefinitionError::Json { place, reason }
        })?;
        let mut fields = unwrap(camel_case(object(value)?)?)?;
        fields.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
        drop_nulls(&mut fields);
        let family = text_of(&fields, "family").ok_or(DefinitionError::Family)?.to_owned();
        let containers = containers(&fields)?;
        Ok(Self { fields, family, containers })
    }

    /// Its name, without a revision.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// Its containers, in order.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// The paths of the fields that say something: those at the top, and those of each container.
    pub fn field_paths(&self) -> Vec<String> {
        field_paths(&self.fields, says_something)
    }

    /// The JSON to register.
    pub fn to_json(&self) -> Vec<u8> {
        // JSON that was parsed always has a form in JSON.
        serde_json::to_vec(&self.fields).unwrap_or_default()
    }
}

/// The paths of those fields of a task definition whose values count, such as `cpu` and
/// `containerDefinitions[web].image`.
pub(crate) fn field_paths(
    fields: &Map<String, Value>,
    counts: impl Fn(&Value) -> bool,
) -> Vec<String> {
    let counting = |fields: &Map<String, Value>| -> Vec<String> {
        let counting = fields.iter().filter(|(_, value)| counts(value));
        counting.map(|(name, _)| name.clone()).collect()
    };
    let mut paths = counting(fields);
    let containers = fields.get(CONTAINERS).and_then(Value::as_array);
    for container in containers.into_iter().flatten().filter_map(Value::as_object) {
        let name = text_of(container, "name").unwrap_or_default();
        let path = |field| format!("{CONTAINERS}[{name}].{field}");
        paths.extend(counting(container).into_iter().map(path));
    }
    paths
}

/// The place and the reason of a mistake in JSON.
pub(crate) fn syntax(text: &str, err: &serde_json::Error) -> (Place, String) {
    let message = err.to_string();
    let suffix = format!(" at line {} column {}", err.line(), err.column());
    let reason = message.strip_suffix(&suffix).unwrap_or(&message).to_owned();
    // serde_json counts bytes; people count characters.
    let line = text.split('\n').nth(err.line().saturating_sub(1)).unwrap_or_default();
    let bytes = err.column().min(line.len());
    let column = String::from_utf8_lossy(&line.as_bytes()[..bytes]).chars().count().max(1);
    (Place { line: err.line().max(1), column }, reason)
}

fn object(value: Value) -> Result<Map<String, Value>, DefinitionError> {
    let found = match value {
        Value::Object(fields) => return Ok(fields),
        Value::Array(_) => "a list",
        Value::String(_) => "a text",
        Value::Number(_) => "a number",
        Value::Bool(_) => "a boolean",
        Value::Null => "null",
    };
    Err(DefinitionError::Kind { found })
}

/// Takes the definition out of `{"taskDefinition": …}`, as `DescribeTaskDefinition` says it. The
/// tags stand beside it there, and in it where it is registered.
fn unwrap(mut outer: Map<String, Value>) -> Result<Map<String, Value>, DefinitionError> {
    let Some(inner) = outer.shift_remove("taskDefinition") else {
        return Ok(outer);
    };
    let mut fields = camel_case(object(inner)?)?;
    match outer.shift_remove("tags") {
        Some(Value::Array(tags)) if !tags.is_empty() && !fields.contains_key("tags") => {
            fields.insert("tags".to_owned(), Value::Array(tags));
        }
        _ => {}
    }
    Ok(fields)
}

/// Some tools write `Family` where ECS reads `family`.
fn camel_case(fields: Map<String, Value>) -> Result<Map<String, Value>, DefinitionError> {
    let mut renamed = Map::new();
    for (name, value) in fields {
        let field = match name.chars().next() {
            Some(first) if first.is_ascii_uppercase() => {
                format!("{}{}", first.to_ascii_lowercase(), &name[1..])
            }
            _ => name,
        };
        if renamed.contains_key(&field) {
            return Err(DefinitionError::Twice { field });
        }
        renamed.insert(field, value);
    }
    Ok(renamed)
}

fn drop_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    fields.values_mut().for_each(drop_nulls_within);
}

fn drop_nulls_within(value: &mut Value) {
    match value {
        Value::Object(fields) => drop_nulls(fields),
        Value::Array(items) => items.iter_mut().for_each(drop_nulls_within),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn containers(fields: &Map<String, Value>) -> Result<Vec<Container>, DefinitionError> {
    let items = match fields.get(CONTAINERS) {
        Some(Value::Array(items)) if !items.is_empty() => items,
        _ => return Err(DefinitionError::Containers),
    };
    items.iter().enumerate().map(|(index, item)| container(index + 1, item)).collect()
}

fn container(number: usize, item: &Value) -> Result<Container, DefinitionError> {
    let field = |field| {
        let text = item.as_object().and_then(|fields| text_of(fields, field));
        text.map(str::to_owned).ok_or(DefinitionError::Container { number, field })
    };
    Ok(Container { name: field("name")?, image: field("image")? })
}

fn text_of<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINERS: &str = r#""containerDefinitions":[{"name":"web","image":"shop:v1"}]"#;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let definition = TaskDefinition::parse(&text.replace("CONTAINERS", CONTAINERS)).unwrap();
        let json = String::from_utf8(definition.to_json()).unwrap();
        assert_eq!(json, want.replace("CONTAINERS", CONTAINERS));
    }

    #[test]
    fn what_is_unknown_passes_through() {
        check(
            r#"{"zeta": 1, "family": "shop", CONTAINERS, "cpu": 2.50, "big": 12345678901234567890123, "neg": -0.0, "é": "\u00e9", "e": "", "l": [], "o": {}}"#,
            r#"{"zeta":1,"family":"shop",CONTAINERS,"cpu":2.50,"big":12345678901234567890123,"neg":-0.0,"é":"é","e":"","l":[],"o":{}}"#,
        );
    }

    #[test]
    fn what_a_description_adds_is_taken_out() {
        check(
            r#"{"taskDefinitionArn": "a", "family": "f", "revision": 3, CONTAINERS, "status": "ACTIVE",
                "requiresAttributes": [], "compatibilities": [], "registeredAt": 1.5,
                "registeredBy": "x", "deregisteredAt": 1, "last": {"status": "kept"}}"#,
            r#"{"family":"f",CONTAINERS,"last":{"status":"kept"}}"#,
        );
    }

    #[test]
    fn nulls_are_taken_out_and_nothing_else() {
        check(
            r#"{"family": "f", "a": null, CONTAINERS, "b": {"c": null, "d": [{"e": null, "f": 0}, ""]}}"#,
            r#"{"family":"f",CONTAINERS,"b":{"d":[{"f":0},""]}}"#,
        );
    }

    #[test]
    fn a_description_is_taken_out_of_its_wrapper() {
        check(
            r#"{"taskDefinition": {"family": "f", "revision": 1, CONTAINERS}, "tags": []}"#,
            r#"{"family":"f",CONTAINERS}"#,
        );
        check(
            r#"{"TaskDefinition": {"Family": "f", CONTAINERS}, "Tags": [{"key": "k"}]}"#,
            r#"{"family":"f",CONTAINERS,"tags":[{"key":"k"}]}"#,
        );
    }

    #[test]
    fn fields_at_the_top_may_begin_with_a_capital() {
        check(
            r#"{"Family": "f", CONTAINERS, "RuntimePlatform": {"CpuArchitecture": "ARM64"}}"#,
            r#"{"family":"f",CONTAINERS,"runtimePlatform":{"CpuArchitecture":"ARM64"}}"#,
        );
    }

    #[test]
    fn what_is_not_a_task_definition_says_why() {
        for (text, want) in [
            ("", "1:1 this is not JSON: EOF while parsing a value"),
            ("{\n\"é\": x}", "2:6 this is not JSON: expected value"),
            ("{}\n}", "2:1 this is not JSON: trailing characters"),
            ("[]", "a task definition is an object, and this is a list"),
            (
                r#"{"taskDefinition": "shop:1"}"#,
                "a task definition is an object, and this is a text",
            ),
            (r#"{"family": "f", "Family": "g"}"#, "`family` is there in two spellings"),
            ("{}", "the task definition has no `family`"),
            (r#"{"family": ""}"#, "the task definition has no `family`"),
            (r#"{"family": "f"}"#, "the task definition has no `containerDefinitions`"),
            (
                r#"{"family": "f", "containerDefinitions": []}"#,
                "the task definition has no `containerDefinitions`",
            ),
            (
                r#"{"family": "f", "containerDefinitions": [{"name": "a", "image": "b"}, {"Name": "c"}]}"#,
                "container 2 of the task definition has no `name`",
            ),
            (
                r#"{"family": "f", "containerDefinitions": [{"name": "a"}]}"#,
                "container 1 of the task definition has no `image`",
            ),
        ] {
            let err = TaskDefinition::parse(text).unwrap_err();
            let found = match &err {
                DefinitionError::Json { place, .. } => format!("{place} {err}"),
                _ => err.to_string(),
            };
            assert_eq!(found, want, "for `{text}`");
        }
    }

    #[test]
    fn fields_that_say_nothing_are_not_named() {
        let text = r#"{"family": "f", CONTAINERS, "a": "", "b": [], "c": {}, "d": 0, "e": false}"#;
        let definition = TaskDefinition::parse(&text.replace("CONTAINERS", CONTAINERS)).unwrap();
        let [name, image] = ["name", "image"].map(|it| format!("containerDefinitions[web].{it}"));
        let want = ["family", "containerDefinitions", "d", "e", &name, &image];
        assert_eq!(definition.field_paths(), want);
        assert_eq!(definition.family(), "f");
        let web = Container { name: "web".into(), image: "shop:v1".into() };
        assert_eq!(definition.containers(), [web]);
    }
}
