//! Projects of CodeBuild, as `aws codebuild batch-get-projects` prints them.
//!
//! Fields that are not known here are passed over: AWS adds fields. What a build on this machine
//! has no use for (roles, VPCs, logs, badges, webhooks) is passed over, too.
//!
//! **Architecture invariant:** [`parse`] takes bytes and does no I/O.

use std::{fmt, marker::PhantomData, path::Path, time::Duration};

use rbuild_agent::{
    artifacts::Packaging,
    buildspec::{Value, Variable},
    secret::{Reference, SecretsManagerReference},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    console::excerpt::excerpt,
    failure::{Failure, Kind},
    input,
};

/// A project, as far as it means something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Project {
    pub(super) name: String,
    pub(super) account: Option<String>,
    pub(super) region: Option<String>,
    pub(super) buildspec: ProjectBuildspec,
    /// Where the source is, if it is a repository.
    pub(super) repo_url: Option<String>,
    pub(super) source_version: Option<String>,
    pub(super) secondary_sources: Vec<ProjectSource>,
    pub(super) variables: Vec<Variable>,
    pub(super) image: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) encryption_key: Option<String>,
    pub(super) artifacts: ProjectArtifacts,
    /// Each with its identifier.
    pub(super) secondary_artifacts: Vec<(String, ProjectArtifacts)>,
    /// What the project asks for and rbuild does not do yet, in words.
    pub(super) not_done: Vec<&'static str>,
}

/// Where the buildspec of a project is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ProjectBuildspec {
    /// In the source, where buildspecs are.
    #[default]
    Default,
    /// In the source, at this path.
    Path(String),
    /// In the project: this is its text.
    Inline(String),
}

/// A source beside the one with the buildspec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProjectSource {
    pub(super) identifier: String,
    pub(super) repo_url: Option<String>,
    pub(super) version: Option<String>,
}

/// Where the artifacts of a project go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ProjectArtifacts {
    /// There are none, whatever the buildspec says.
    #[default]
    None,
    /// To the pipeline that starts the build.
    Pipeline,
    /// To S3.
    S3(Target),
}

/// A place in S3, as a project describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) bucket: String,
    pub(super) path: Option<String>,
    /// Whether the ID of the build is a part of the key.
    pub(super) namespace_build_id: bool,
    pub(super) name: String,
    pub(super) packaging: Packaging,
    /// Whether the name in the buildspec, if there is one, is the name.
    pub(super) override_name: bool,
    /// The KMS key that encrypts it; none if it is not to be encrypted.
    pub(super) encryption_key: Option<String>,
}

/// The most bytes of a file: `batch-get-projects` gives up to 100 projects, each with its own
/// buildspec.
const LARGEST: u64 = 16_000_000;

/// The key that AWS encrypts artifacts with if a project names none.
pub(super) const DEFAULT_KEY: &str = "alias/aws/s3";

/// Reads the project in `FILE` or `FILE#NAME`.
pub(super) fn read(argument: &Path) -> Result<Project, Failure> {
    let (path, name) = split(argument);
    let shown = path.display().to_string();
    let bytes = input::read(path, LARGEST).map_err(|err| {
        let message = format!("the project file `{shown}` could not be read");
        Failure::new(Kind::Input, message).because(err)
    })?;
    parse(&bytes, name).map_err(|problem| {
        let message = format!("the project file `{shown}` is wrong: {}", problem.message);
        let failure = Failure::new(Kind::Input, message).hint_if(problem.hint);
        match problem.place {
            Some((line, column)) => {
                let text = String::from_utf8_lossy(&bytes);
                failure.excerpt(excerpt(&shown, &text, line, column))
            }
            None => failure,
        }
    })
}

/// The path and the name of `FILE#NAME`. A file that has a `#` in its name may be meant.
fn split(argument: &Path) -> (&Path, Option<&str>) {
    let text = argument.to_str().filter(|_| !argument.exists());
    match text.and_then(|it| it.rsplit_once('#')) {
        Some((path, name)) if !path.is_empty() && !name.is_empty() => (Path::new(path), Some(name)),
        _ => (argument, None),
    }
}

/// What is wrong with a project.
#[derive(Debug, Default, PartialEq, Eq)]
struct Problem {
    message: String,
    /// The line and the column, counted from 1.
    place: Option<(usize, usize)>,
    hint: Option<String>,
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What serde says of `bytes`, with the path to where it is.
    fn json(bytes: &[u8], err: &serde_json::Error) -> Self {
        let text = err.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |it| it.0);
        let mut path = String::new();
        if err.is_data() {
            let mut steps = steps_to(bytes, (err.line(), err.column()));
            if what.starts_with("missing field") {
                // It is missing in the object, and not in the last of what that has.
                steps.pop();
            }
            path = path_of(&steps);
        }
        let message = match path.as_str() {
            "" => what.to_owned(),
            path => format!("`{path}`: {what}"),
        };
        let place = value_at(bytes, (err.line().max(1), err.column().max(1)));
        Self { message, place: Some(place), hint: None }
    }
}

/// The place of a value of which serde gives the place, or that of what comes before it.
fn value_at(text: &[u8], (line, column): (usize, usize)) -> (usize, usize) {
    let line_text = text.split(|it| *it == b'\n').nth(line - 1).unwrap_or_default();
    let rest = line_text.get(column - 1..).unwrap_or_default();
    let is_before = |it: &&u8| it.is_ascii_whitespace() || matches!(it, b':' | b',');
    let skipped = rest.iter().take_while(is_before).count();
    if skipped == rest.len() { (line, column) } else { (line, column + skipped) }
}

fn parse(bytes: &[u8], name: Option<&str>) -> Result<Project, Problem> {
    let json = |err: serde_json::Error| Problem::json(bytes, &err);
    let Object(Probe { projects }) = serde_json::from_slice(bytes).map_err(json)?;
    let all = match projects {
        Some(_) => serde_json::from_slice::<Object<Answer>>(bytes).map_err(json)?.0.projects,
        None => vec![serde_json::from_slice(bytes).map_err(json)?],
    };
    let names: Vec<&str> = all.iter().map(|it| it.0.name.as_str()).collect();
    let listed = names.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
    let is_meant =
        |it: &Wire| name.is_none_or(|name| it.name == name || it.arn.as_deref() == Some(name));
    let mut meant = all.iter().filter(|it| is_meant(&it.0));
    match (meant.next(), meant.next()) {
        (Some(one), None) => convert(one.0.clone()),
        (None, _) if all.is_empty() => Err(Problem::new("there is no project in it")
            .hint("aws prints those that were not found under `projectsNotFound`")),
        (None, _) => {
            Err(Problem::new(format!("there is no project `{}` in it", name.unwrap_or_default()))
                .hint(format!("it has {listed}")))
        }
        (Some(first), Some(_)) => {
            Err(Problem::new(format!("there are several projects in it: {listed}"))
                .hint(format!("name one: --project FILE#{}", first.0.name)))
        }
    }
}

/// A JSON object and nothing else: serde takes a list for one, too.
#[derive(Clone, Debug, Default)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[derive(Deserialize)]
struct Probe {
    projects: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Answer {
    projects: Vec<Object<Wire>>,
}

/// A project as AWS has it (CodeBuild API reference, "Project").
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    name: String,
    arn: Option<String>,
    source: Option<Object<WireSource>>,
    source_version: Option<String>,
    secondary_sources: Option<Vec<Object<WireSource>>>,
    secondary_source_versions: Option<Vec<Object<WireVersion>>>,
    artifacts: Option<Object<WireArtifacts>>,
    secondary_artifacts: Option<Vec<Object<WireArtifacts>>>,
    environment: Option<Object<WireEnvironment>>,
    timeout_in_minutes: Option<u32>,
    encryption_key: Option<String>,
    cache: Option<Object<WireType>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSource {
    #[serde(rename = "type")]
    kind: Option<String>,
    location: Option<String>,
    buildspec: Option<String>,
    source_identifier: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireVersion {
    source_identifier: String,
    source_version: String,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireArtifacts {
    #[serde(rename = "type")]
    kind: WireArtifactsType,
    location: Option<String>,
    path: Option<String>,
    namespace_type: Option<WireNamespace>,
    name: Option<String>,
    packaging: Option<WirePackaging>,
    override_artifact_name: Option<bool>,
    encryption_disabled: Option<bool>,
    artifact_identifier: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WireArtifactsType {
    Codepipeline,
    NoArtifacts,
    S3,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WireNamespace {
    None,
    BuildId,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WirePackaging {
    None,
    Zip,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEnvironment {
    image: Option<String>,
    environment_variables: Option<Vec<Object<WireVariable>>>,
}

#[derive(Clone, Deserialize)]
struct WireVariable {
    name: String,
    value: String,
    #[serde(rename = "type")]
    kind: Option<WireVariableType>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WireVariableType {
    Plaintext,
    ParameterStore,
    SecretsManager,
}

#[derive(Clone, Deserialize)]
struct WireType {
    #[serde(rename = "type")]
    kind: Option<String>,
}

fn convert(wire: Wire) -> Result<Project, Problem> {
    // arn:PARTITION:codebuild:REGION:ACCOUNT:project/NAME
    let arn = wire.arn.clone().unwrap_or_default();
    let part = |index| arn.split(':').nth(index).filter(|it| !it.is_empty()).map(str::to_owned);
    let source = wire.source.map(|it| it.0);
    let environment = wire.environment.map(|it| it.0);
    let image = environment.as_ref().and_then(|it| it.image.clone());
    let variables = environment.and_then(|it| it.environment_variables).unwrap_or_default();
    let key = wire.encryption_key.filter(|it| !it.is_empty());
    let has_cache = wire.cache.and_then(|it| it.0.kind).is_some_and(|it| it != "NO_CACHE");
    let versions = wire.secondary_source_versions.unwrap_or_default();
    let secondary_sources = wire.secondary_sources.unwrap_or_default().into_iter();
    let artifacts = |it: WireArtifacts| target(it, &wire.name, key.as_deref());
    Ok(Project {
        account: part(4),
        region: part(3),
        buildspec: buildspec(source.as_ref().and_then(|it| it.buildspec.as_deref()))?,
        repo_url: source.and_then(repo_url),
        source_version: wire.source_version.filter(|it| !it.is_empty()),
        secondary_sources: secondary_sources
            .map(|it| secondary_source(it.0, &versions))
            .collect::<Result<_, _>>()?,
        variables: variables.into_iter().map(|it| variable(it.0)).collect::<Result<_, _>>()?,
        image,
        timeout: wire.timeout_in_minutes.map(|it| Duration::from_secs(u64::from(it) * 60)),
        artifacts: wire.artifacts.map_or(Ok(ProjectArtifacts::None), |it| artifacts(it.0))?,
        secondary_artifacts: wire
            .secondary_artifacts
            .unwrap_or_default()
            .into_iter()
            .map(|it| {
                let identifier = it.0.artifact_identifier.clone();
                let identifier = identifier.ok_or_else(|| {
                    Problem::new("an entry of `secondaryArtifacts` has no `artifactIdentifier`")
                })?;
                Ok((identifier, artifacts(it.0)?))
            })
            .collect::<Result<_, _>>()?,
        encryption_key: key.clone(),
        not_done: has_cache.then_some("keeps no cache yet").into_iter().collect(),
        name: wire.name.clone(),
    })
}

/// AWS takes a path, an ARN of S3, or the text of a buildspec, and tells them by what they look
/// like.
fn buildspec(text: Option<&str>) -> Result<ProjectBuildspec, Problem> {
    let Some(text) = text.filter(|it| !it.trim().is_empty()) else {
        return Ok(ProjectBuildspec::Default);
    };
    let is_arn = text.starts_with("arn:");
    if is_arn && text.split(':').nth(2) == Some("s3") {
        let path = text.splitn(6, ':').nth(5).unwrap_or_default();
        return Err(Problem::new(format!("its buildspec is in S3, at `{text}`"))
            .hint(format!("fetch it, and name the file: aws s3 cp s3://{path} buildspec.yml")));
    }
    let is_inline =
        text.contains('\n') || text.trim_start().starts_with("version:") || text.starts_with('{');
    Ok(match is_inline {
        true => ProjectBuildspec::Inline(text.to_owned()),
        false => ProjectBuildspec::Path(text.to_owned()),
    })
}

fn repo_url(source: WireSource) -> Option<String> {
    let location = source.location.filter(|it| !it.is_empty())?;
    match source.kind.as_deref() {
        Some("CODEPIPELINE" | "NO_SOURCE") => None,
        Some("S3") => Some(format!("s3://{location}")),
        _ => Some(super::git::without_password(&location)),
    }
}

fn secondary_source(
    source: WireSource,
    versions: &[Object<WireVersion>],
) -> Result<ProjectSource, Problem> {
    let identifier = source.source_identifier.clone().filter(|it| !it.is_empty());
    let identifier = identifier
        .ok_or_else(|| Problem::new("an entry of `secondarySources` has no `sourceIdentifier`"))?;
    let version = versions.iter().find(|it| it.0.source_identifier == identifier);
    let version = version.map(|it| it.0.source_version.clone());
    Ok(ProjectSource { identifier, repo_url: repo_url(source), version })
}

fn variable(wire: WireVariable) -> Result<Variable, Problem> {
    let WireVariable { name, value, kind } = wire;
    if name.starts_with("CODEBUILD_") {
        return Err(Problem::new(format!(
            "its variable `{name}` begins with `CODEBUILD_`, which only the build may set"
        )));
    }
    let value = match kind.unwrap_or(WireVariableType::Plaintext) {
        WireVariableType::Plaintext => Value::Plain(value),
        WireVariableType::ParameterStore => Value::Secret(Reference::Parameter(value)),
        WireVariableType::SecretsManager => {
            let reference = SecretsManagerReference::parse(&value)
                .map_err(|what| Problem::new(format!("its variable `{name}`: {what}")))?;
            Value::Secret(Reference::SecretsManager(reference))
        }
    };
    Ok(Variable { name, value, place: None })
}

fn target(
    wire: WireArtifacts,
    project: &str,
    key: Option<&str>,
) -> Result<ProjectArtifacts, Problem> {
    match wire.kind {
        WireArtifactsType::NoArtifacts => return Ok(ProjectArtifacts::None),
        WireArtifactsType::Codepipeline => return Ok(ProjectArtifacts::Pipeline),
        WireArtifactsType::S3 => {}
    }
    let location = wire.location.unwrap_or_default();
    // The name of a bucket, or its ARN.
    let bucket = location.rsplit(':').next().unwrap_or_default().to_owned();
    if bucket.is_empty() {
        return Err(Problem::new("its artifacts go to S3, and have no `location`"));
    }
    let is_encrypted = wire.encryption_disabled != Some(true);
    Ok(ProjectArtifacts::S3(Target {
        bucket,
        path: wire.path.filter(|it| !it.is_empty()),
        namespace_build_id: wire.namespace_type == Some(WireNamespace::BuildId),
        name: wire.name.filter(|it| !it.is_empty()).unwrap_or_else(|| project.to_owned()),
        packaging: match wire.packaging {
            Some(WirePackaging::Zip) => Packaging::Zip,
            Some(WirePackaging::None) | None => Packaging::Folder,
        },
        override_name: wire.override_artifact_name == Some(true),
        encryption_key: is_encrypted.then(|| key.unwrap_or(DEFAULT_KEY).to_owned()),
    }))
}

/// The steps to the value at a place. Until there the text is JSON.
fn steps_to(text: &[u8], (line, column): (usize, usize)) -> Vec<Step> {
    let before = text.split_inclusive(|it| *it == b'\n').take(line.saturating_sub(1));
    let start: usize = before.map(<[u8]>::len).sum();
    let mut scan = text.iter().copied().take(start + column.saturating_sub(1));
    let mut stack: Vec<Step> = Vec::new();
    let mut string = Vec::new();
    while let Some(byte) = scan.next() {
        match byte {
            b'"' => string = string_in(&mut scan),
            b'{' => stack.push(Step::Key(Vec::new())),
            b'[' => stack.push(Step::Index(0)),
            b'}' | b']' => drop(stack.pop()),
            b':' => {
                if let Some(Step::Key(key)) = stack.last_mut() {
                    *key = std::mem::take(&mut string);
                }
            }
            b',' => {
                if let Some(Step::Index(index)) = stack.last_mut() {
                    *index += 1;
                }
            }
            _ => {}
        }
    }
    stack
}

/// The steps as people write them, such as `projects[0].environment.image`.
fn path_of(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Index(index) => path.extend(["[", &index.to_string(), "]"]),
            Step::Key(key) => {
                let dot = if path.is_empty() || key.is_empty() { "" } else { "." };
                path.extend([dot, &String::from_utf8_lossy(key)]);
            }
        }
    }
    path
}

enum Step {
    Key(Vec<u8>),
    Index(usize),
}

/// The rest of a string, up to its end.
fn string_in(scan: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let mut string = Vec::new();
    while let Some(byte) = scan.next() {
        match byte {
            b'"' => break,
            b'\\' => string.extend(scan.next()),
            byte => string.push(byte),
        }
    }
    string
}

#[cfg(test)]
mod tests;
