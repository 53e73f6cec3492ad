//! The runtimes of an image, and how a build chooses among them.
//!
//! AWS's images have a file `runtimes.yml`: for each runtime its versions, and for each version
//! the commands that choose it, and what other runtimes it needs (the files are in
//! `aws/aws-codebuild-docker-images`; the forms of versions are in the `CodeBuild` user guide,
//! "Runtime versions").
//!
//! **Architecture invariant:** this decides, and runs nothing. What variables have for values is
//! asked of the caller.

use thiserror::Error;

use crate::{
    buildspec::RuntimeVersion,
    source::Place,
    yaml::{self, Entry, Node, Value},
};

/// The runtimes of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtimes {
    /// In the order of the file.
    runtimes: Vec<Runtime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Runtime {
    name: String,
    /// In the order of the file.
    versions: Vec<Release>,
    /// What chooses a version that is not in the image yet.
    default: Option<Release>,
}

/// A version of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Release {
    version: String,
    commands: Vec<String>,
    /// Other runtimes, each with the versions of it that will do.
    requires: Vec<(String, Vec<String>)>,
}

/// A version of a runtime that a build gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The name of the runtime.
    pub name: String,
    /// The version.
    pub version: String,
    /// How the buildspec names the version, if in another way: `latest`, `18.x`, or the value of
    /// a variable that is one of these.
    pub alias: Option<String>,
    /// The runtime that needs this one, if it is not the buildspec that asks for it.
    pub required_by: Option<String>,
    /// The commands that choose it.
    pub commands: Vec<String>,
    /// Variables that these commands need.
    pub variables: Vec<(String, String)>,
}

/// Why runtimes cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuntimesError {
    /// The file of the image is not what it should be.
    #[error("the runtimes of the image cannot be read: {message}")]
    File {
        /// What is wrong.
        message: String,
        /// Where in that file, if it is in one place.
        place: Option<Place>,
    },
    /// The image has no such runtime.
    #[error("the image has no runtime `{name}`")]
    Runtime {
        /// Its name.
        name: String,
        /// Those that it has.
        known: Vec<String>,
        /// Where the buildspec names it.
        place: Place,
    },
    /// The image has no such version.
    #[error("the image has no version `{version}` of the runtime `{name}`")]
    Version {
        /// The runtime.
        name: String,
        /// The version.
        version: String,
        /// Those that it has.
        known: Vec<String>,
        /// Where the buildspec names it.
        place: Place,
    },
    /// The variable that has the version is not set.
    #[error("the variable `{variable}`, which has the version of the runtime `{name}`, is not set")]
    Variable {
        /// The runtime.
        name: String,
        /// The variable.
        variable: String,
        /// Where the buildspec names it.
        place: Place,
    },
    /// A runtime needs another version of a runtime than the one that was chosen.
    #[error(
        "the runtime `{name}` in version `{version}` needs `{required}` in version {}, not `{found}`",
        quoted(wanted)
    )]
    Conflict {
        /// The runtime that needs another one.
        name: String,
        /// Its version.
        version: String,
        /// The other one.
        required: String,
        /// The versions of it that would do.
        wanted: Vec<String>,
        /// The version of it that was chosen.
        found: String,
        /// Where the buildspec names the first one.
        place: Place,
    },
}

fn quoted(versions: &[String]) -> String {
    let versions: Vec<String> = versions.iter().map(|it| format!("`{it}`")).collect();
    versions.join(" or ")
}

impl RuntimesError {
    /// What CodeBuild says of it, if that is known: the message of its `YAML_FILE_ERROR`.
    pub fn aws(&self) -> Option<String> {
        match self {
            Self::Runtime { name, known, .. } => Some(format!(
                "Unknown runtime named '{name}'. This build image has the following runtimes: {}",
                known.join(", ")
            )),
            Self::Version { name, version, known, .. } => Some(format!(
                "Unknown runtime version named '{version}' of {name}. This build image has the \
                 following versions: {}",
                known.join(", ")
            )),
            Self::File { .. } | Self::Variable { .. } | Self::Conflict { .. } => None,
        }
    }

    /// Where in the buildspec it is, if it is there.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::File { .. } => None,
            Self::Runtime { place, .. }
            | Self::Version { place, .. }
            | Self::Variable { place, .. }
            | Self::Conflict { place, .. } => Some(*place),
        }
    }
}

/// Chooses `wanted`, and what that needs, which comes before it. `lookup` has the values of
/// variables.
///
/// `docker` is left out: images had it once, and buildspecs still ask for it.
pub fn select(
    wanted: &[RuntimeVersion],
    runtimes: &Runtimes,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Selected>, RuntimesError> {
    let mut chosen: Vec<Choice<'_>> = Vec::new();
    for wanted in wanted.iter().filter(|it| it.name != "docker") {
        let choice = runtimes.choose(wanted, &lookup)?;
        chosen.retain(|it| it.name != choice.name);
        chosen.push(choice);
    }
    let mut next = 0;
    while next < chosen.len() {
        match runtimes.requirement(&chosen[next], &chosen)? {
            // It may need something, too, and comes next.
            Some(required) => chosen.insert(next, required),
            None => next += 1,
        }
    }
    Ok(chosen.into_iter().map(Choice::selected).collect())
}

/// A version that was chosen, and why.
struct Choice<'r> {
    name: &'r str,
    release: &'r Release,
    version: String,
    alias: Option<String>,
    required_by: Option<&'r str>,
    place: Place,
}

impl Choice<'_> {
    fn selected(self) -> Selected {
        let is_custom = self.release.version == DEFAULT;
        // `corretto15` is version 15 for the commands.
        let number = self.version.trim_start_matches(|it: char| it.is_ascii_alphabetic());
        let variables = is_custom.then(|| ("VERSION".to_owned(), number.to_owned()));
        Selected {
            name: self.name.to_owned(),
            alias: self.alias,
            required_by: self.required_by.map(str::to_owned),
            commands: self.release.commands.clone(),
            variables: variables.into_iter().collect(),
            version: self.version,
        }
    }
}

/// The version that stands for all that the image does not have.
const DEFAULT: &str = "default";

impl Runtimes {
    /// Reads the content of a `runtimes.yml`.
    pub fn parse(bytes: &[u8]) -> Result<Self, RuntimesError> {
        let root = yaml::parse(bytes).map_err(|err| {
            let place = err.place();
            RuntimesError::File { message: err.to_string(), place }
        })?;
        let Some(runtimes) = take(mapping(root)?, "runtimes") else {
            let message = "`runtimes` is missing".to_owned();
            return Err(RuntimesError::File { message, place: None });
        };
        let runtimes = mapping(runtimes)?.into_iter().map(runtime).collect::<Result<_, _>>()?;
        Ok(Self { runtimes })
    }

    fn choose(
        &self,
        wanted: &RuntimeVersion,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Choice<'_>, RuntimesError> {
        let RuntimeVersion { name, version, place } = wanted;
        let runtime = self.runtime(name, *place)?;
        let asked = match variable(version) {
            Some(variable) => lookup(variable).ok_or_else(|| RuntimesError::Variable {
                name: name.clone(),
                variable: variable.to_owned(),
                place: *place,
            })?,
            None => version.clone(),
        };
        let release = runtime.release(&asked).ok_or_else(|| RuntimesError::Version {
            name: name.clone(),
            version: asked.clone(),
            known: runtime.known(),
            place: *place,
        })?;
        let (version, alias) = match release.version.as_str() {
            DEFAULT => (asked, None),
            version if version == asked => (asked, None),
            version => (version.to_owned(), Some(asked)),
        };
        let (name, place) = (runtime.name.as_str(), *place);
        Ok(Choice { name, release, version, alias, required_by: None, place })
    }

    /// What `choice` needs and is not chosen yet, if there is such a thing.
    fn requirement<'r>(
        &'r self,
        choice: &Choice<'r>,
        chosen: &[Choice<'r>],
    ) -> Result<Option<Choice<'r>>, RuntimesError> {
        for (required, wanted) in &choice.release.requires {
            let Some(found) = chosen.iter().find(|it| it.name == required) else {
                return self.required(choice, required, wanted).map(Some);
            };
            if !wanted.is_empty() && !wanted.contains(&found.version) {
                return Err(RuntimesError::Conflict {
                    name: choice.name.to_owned(),
                    version: choice.version.clone(),
                    required: required.clone(),
                    wanted: wanted.clone(),
                    found: found.version.clone(),
                    place: choice.place,
                });
            }
        }
        Ok(None)
    }

    /// The first of the versions that `choice` needs and the image has, or the latest, if any will
    /// do.
    fn required<'r>(
        &'r self,
        choice: &Choice<'r>,
        name: &str,
        versions: &[String],
    ) -> Result<Choice<'r>, RuntimesError> {
        let runtime = self.runtime(name, choice.place)?;
        let is_there = |it: &&String| runtime.versions.iter().any(|of| of.version == **it);
        let version = versions.iter().find(is_there).or(versions.first());
        let version = version.map_or("latest", String::as_str).to_owned();
        let wanted = RuntimeVersion { name: name.to_owned(), version, place: choice.place };
        let required = self.choose(&wanted, |_| None)?;
        Ok(Choice { required_by: Some(choice.name), alias: None, ..required })
    }

    fn runtime(&self, name: &str, place: Place) -> Result<&Runtime, RuntimesError> {
        self.runtimes.iter().find(|it| it.name == name).ok_or_else(|| {
            let mut known: Vec<String> = self.runtimes.iter().map(|it| it.name.clone()).collect();
            known.sort();
            RuntimesError::Runtime { name: name.to_owned(), known, place }
        })
    }
}

impl Runtime {
    /// The release that a buildspec means by `version`.
    fn release(&self, version: &str) -> Option<&Release> {
        let newest = |is_meant: &dyn Fn(&str) -> bool| {
            let meant = self.versions.iter().filter(|it| is_meant(&it.version));
            meant.max_by_key(|it| age(&it.version))
        };
        if version == "latest" {
            return newest(&|_| true);
        }
        if let Some(exact) = self.versions.iter().find(|it| it.version == version) {
            return Some(exact);
        }
        match version.strip_suffix(".x") {
            Some(major) => newest(&|it| {
                it.strip_prefix(major).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }),
            None if version.is_empty() => None,
            None => self.default.as_ref(),
        }
    }

    /// All versions, the oldest first.
    fn known(&self) -> Vec<String> {
        let mut known: Vec<String> = self.versions.iter().map(|it| it.version.clone()).collect();
        known.sort_by(|a, b| age(a).cmp(&age(b)));
        known
    }
}

/// Sorts versions by their numbers; of Java's, `corretto11` is later than `openjdk11`.
fn age(version: &str) -> (Vec<u64>, std::cmp::Reverse<&str>) {
    let numbers = version.split(|it: char| !it.is_ascii_digit()).filter(|it| !it.is_empty());
    let numbers = numbers.map(|it| it.parse().unwrap_or(u64::MAX)).collect();
    (numbers, std::cmp::Reverse(version))
}

/// The variable that a version is written as: `$NAME` or `${NAME}`.
fn variable(version: &str) -> Option<&str> {
    let name = version.strip_prefix('$')?;
    Some(name.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(name))
}

fn runtime(entry: Entry) -> Result<Runtime, RuntimesError> {
    let versions = take(mapping(entry.node)?, "versions").map(mapping).transpose()?;
    let versions = versions.unwrap_or_default().into_iter().map(release);
    let mut versions = versions.collect::<Result<Vec<_>, _>>()?;
    let default = versions.iter().position(|it| it.version == DEFAULT);
    let default = default.map(|it| versions.remove(it));
    Ok(Runtime { name: entry.key, versions, default })
}

fn release(entry: Entry) -> Result<Release, RuntimesError> {
    let mut release = Release { version: entry.key, commands: Vec::new(), requires: Vec::new() };
    for Entry { key, node, .. } in mapping(entry.node)? {
        match key.as_str() {
            "commands" => release.commands = texts(node)?,
            "requires" => {
                let requires = mapping(node)?.into_iter();
                let requires = requires.map(|it| Ok((it.key, texts(it.node)?)));
                release.requires = requires.collect::<Result<_, _>>()?;
            }
            _ => {}
        }
    }
    Ok(release)
}

fn take(entries: Vec<Entry>, key: &str) -> Option<Node> {
    entries.into_iter().find(|it| it.key == key).map(|it| it.node)
}

fn mapping(node: Node) -> Result<Vec<Entry>, RuntimesError> {
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(Vec::new()),
        Value::Text(_) | Value::List(_) => Err(unexpected("a mapping", node.place)),
    }
}

fn texts(node: Node) -> Result<Vec<String>, RuntimesError> {
    let items = match node.value {
        Value::List(items) => items,
        Value::Null => return Ok(Vec::new()),
        Value::Text(text) => return Ok(vec![text]),
        Value::Map(_) => return Err(unexpected("a list", node.place)),
    };
    let text = |Node { place, value }: Node| match value {
        Value::Text(text) => Ok(text),
        Value::Null => Ok(String::new()),
        Value::List(_) | Value::Map(_) => Err(unexpected("text", place)),
    };
    items.into_iter().map(text).collect()
}

fn unexpected(wanted: &str, place: Place) -> RuntimesError {
    let message = format!("{wanted} is missing at {place}");
    RuntimesError::File { message, place: Some(place) }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Of the form of AWS's files, with a bit of an old and of a new one.
    const FILE: &str = "version: 0.1

runtimes:
  android:
    versions:
      28:
        requires:
          java: [\"openjdk8\"]
        commands:
          - echo android 28
      29:
        requires:
          java: [\"corretto8\", \"openjdk8\"]
        commands:
          - echo android 29

  java:
    versions:
      openjdk11:
        commands: [echo openjdk11]
      corretto11:
        commands: [echo corretto11]
      openjdk8:
        commands:
          - echo 8
          - |-
            for tool in x;
             do echo $tool
            done
      default:
        commands:
          - echo custom $VERSION
  golang:
    versions:
      1.20:
        commands: [goenv 1.20]
      1.9:
        commands: [goenv 1.9]
  nodejs:
    versions:
      8: {commands: [n 8]}
      10: {commands: [n 10]}
  docker:
    versions:
      18: {commands: [echo docker]}
";

    #[track_caller]
    fn check(wanted: &[(&str, &str)], want: Expect) {
        let runtimes = Runtimes::parse(FILE.as_bytes()).unwrap();
        let wanted: Vec<RuntimeVersion> = (1..)
            .zip(wanted)
            .map(|(line, (name, version))| RuntimeVersion {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                place: Place { line, column: 1 },
            })
            .collect();
        let lookup = |name: &str| (name == "GO").then(|| "1.x".to_owned());
        let drawn = match select(&wanted, &runtimes, lookup) {
            Ok(selected) => selected.iter().map(draw).collect(),
            Err(err) => {
                let aws = err.aws().map(|it| format!("  aws: {it}\n")).unwrap_or_default();
                format!("{} {err}\n{aws}", err.place().unwrap())
            }
        };
        want.assert_eq(&drawn);
    }

    fn draw(selected: &Selected) -> String {
        let Selected { name, version, alias, required_by, commands, variables } = selected;
        let reasons = alias.iter().chain(required_by).map(|it| format!(" for {it}"));
        let reasons = reasons.collect::<Vec<_>>().concat();
        format!("{name} {version}{reasons} {variables:?} {commands:?}\n")
    }

    #[test]
    fn versions_are_exact_or_the_newest_of_many() {
        check(
            &[("golang", "1.20"), ("nodejs", "10.x"), ("java", "openjdk8")],
            expect![[r#"
            golang 1.20 [] ["goenv 1.20"]
            nodejs 10 for 10.x [] ["n 10"]
            java openjdk8 [] ["echo 8", "for tool in x;\n do echo $tool\ndone"]
        "#]],
        );
        check(
            &[("golang", "latest"), ("java", "latest"), ("nodejs", "latest")],
            expect![[r#"
            golang 1.20 for latest [] ["goenv 1.20"]
            java corretto11 for latest [] ["echo corretto11"]
            nodejs 10 for latest [] ["n 10"]
        "#]],
        );
        check(
            &[("golang", "$GO"), ("nodejs", "8.x")],
            expect![[r#"
            golang 1.20 for 1.x [] ["goenv 1.20"]
            nodejs 8 for 8.x [] ["n 8"]
        "#]],
        );
        check(
            &[("golang", "${GO}"), ("nodejs", "10"), ("nodejs", "8")],
            expect![[r#"
            golang 1.20 for 1.x [] ["goenv 1.20"]
            nodejs 8 [] ["n 8"]
        "#]],
        );
    }

    #[test]
    fn what_the_image_lacks_may_be_installed() {
        check(
            &[("java", "corretto15")],
            expect![[r#"
            java corretto15 [("VERSION", "15")] ["echo custom $VERSION"]
        "#]],
        );
        check(
            &[("java", "15.0.2")],
            expect![[r#"
            java 15.0.2 [("VERSION", "15.0.2")] ["echo custom $VERSION"]
        "#]],
        );
        check(
            &[("java", "corretto9.x")],
            expect![[r#"
            1:1 the image has no version `corretto9.x` of the runtime `java`
              aws: Unknown runtime version named 'corretto9.x' of java. This build image has the following versions: openjdk8, openjdk11, corretto11
        "#]],
        );
    }

    #[test]
    fn what_a_runtime_needs_comes_first_and_must_fit() {
        check(
            &[("android", "latest")],
            expect![[r#"
            java openjdk8 for android [] ["echo 8", "for tool in x;\n do echo $tool\ndone"]
            android 29 for latest [] ["echo android 29"]
        "#]],
        );
        check(
            &[("android", "28"), ("java", "openjdk8")],
            expect![[r#"
            android 28 [] ["echo android 28"]
            java openjdk8 [] ["echo 8", "for tool in x;\n do echo $tool\ndone"]
        "#]],
        );
        check(
            &[("java", "corretto11"), ("android", "29")],
            expect![[r#"
            2:1 the runtime `android` in version `29` needs `java` in version `corretto8` or `openjdk8`, not `corretto11`
        "#]],
        );
    }

    #[test]
    fn unknown_runtimes_and_versions_are_errors_in_the_words_of_codebuild() {
        check(
            &[("golang", "1.20"), ("rust", "1.90")],
            expect![[r#"
            2:1 the image has no runtime `rust`
              aws: Unknown runtime named 'rust'. This build image has the following runtimes: android, docker, golang, java, nodejs
        "#]],
        );
        check(
            &[("nodejs", "15")],
            expect![[r#"
            1:1 the image has no version `15` of the runtime `nodejs`
              aws: Unknown runtime version named '15' of nodejs. This build image has the following versions: 8, 10
        "#]],
        );
        check(
            &[("nodejs", "")],
            expect![[r#"
            1:1 the image has no version `` of the runtime `nodejs`
              aws: Unknown runtime version named '' of nodejs. This build image has the following versions: 8, 10
        "#]],
        );
        check(
            &[("nodejs", "1.x")],
            expect![[r#"
            1:1 the image has no version `1.x` of the runtime `nodejs`
              aws: Unknown runtime version named '1.x' of nodejs. This build image has the following versions: 8, 10
        "#]],
        );
        check(
            &[("nodejs", "$NODE")],
            expect![[r#"
            1:1 the variable `NODE`, which has the version of the runtime `nodejs`, is not set
        "#]],
        );
    }

    #[test]
    fn docker_is_no_runtime_any_more() {
        check(
            &[("docker", "20"), ("nodejs", "10")],
            expect![[r#"
            nodejs 10 [] ["n 10"]
        "#]],
        );
        check(&[("docker", "18")], expect![[""]]);
    }

    #[test]
    fn runtimes_that_need_each_other_come_to_an_end() {
        let text = "runtimes: {a: {versions: {1: {requires: {b: ~}}}}, \
                    b: {versions: {2: {requires: {a: [1]}}}}}";
        let runtimes = Runtimes::parse(text.as_bytes()).unwrap();
        let (name, version) = ("a".to_owned(), "1".to_owned());
        let wanted = RuntimeVersion { name, version, place: Place { line: 1, column: 1 } };
        let selected = select(&[wanted], &runtimes, |_| None).unwrap();
        assert_eq!(selected.iter().map(draw).collect::<String>(), "b 2 for a [] []\na 1 [] []\n");
    }

    #[test]
    fn files_that_are_none_are_errors() {
        for (text, want) in [
            ("", "the file is empty"),
            ("a: [", "while parsing a node, did not find expected node content"),
            ("version: 0.1", "`runtimes` is missing"),
            ("runtimes: [x]", "a mapping is missing at 1:11"),
            ("runtimes: {a: {versions: {1: {commands: [[x]]}}}}", "text is missing at 1:42"),
            ("runtimes: {a: {versions: {1: {requires: x}}}}", "a mapping is missing at 1:41"),
            ("runtimes: {a: {versions: {1: {commands: {x: y}}}}}", "a list is missing at 1:41"),
        ] {
            let err = Runtimes::parse(text.as_bytes()).unwrap_err();
            let want = format!("the runtimes of the image cannot be read: {want}");
            assert_eq!(err.to_string(), want, "for {text}");
        }
        assert_eq!(Runtimes::parse(b"runtimes:").unwrap(), Runtimes::default());
    }
}
