//! Which variables the commands of a build start with, and with which values.
//!
//! **Architecture invariant:** pure. How a process gets its variables is for
//! [`shell`](crate::shell), and what is true of this machine comes in as [`Facts`].
//!
//! Values are literal: nothing here expands `$X`, as nothing does in CodeBuild.
//!
//! Inside of a build of CodeBuild, which is where the caller has a `CODEBUILD_BUILD_ARN` and no
//! `CODEBUILD_LOCAL_BUILD`, the caller's `CODEBUILD_*` variables stay as they are: the identity of
//! that build is what its commands ask for. Only `CODEBUILD_SRC_DIR`, what is told of secondary
//! sources, and `CODEBUILD_BUILD_SUCCEEDING` are those of the build that runs here.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    buildspec::{Value, Variable},
    secret::{Secret, Wanted},
};

/// The variables that the first command gets, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// The variables whose values are still to be fetched, sorted by name.
    wanted: Vec<Wanted>,
    /// The values that were fetched.
    secrets: Vec<Secret>,
}

/// What the `CODEBUILD_*` variables of a build on this machine say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The folder with the source.
    pub source: PathBuf,
    /// The number of the build among those of this project.
    pub build_number: u64,
    /// A name that no other build has, in the form of a UUID.
    pub build_uuid: String,
    /// When the build starts, in milliseconds since 1970.
    pub start_time: u64,
    /// Who starts it.
    pub initiator: String,
    /// The commit that is built, if the source is a checkout.
    pub resolved_source_version: Option<String>,
    /// The branch, tag, or commit that was asked for, if the source is a checkout.
    pub source_version: Option<String>,
    /// Where the source comes from, if that is known.
    pub source_repo_url: Option<String>,
    /// The AWS region, if one is set.
    pub region: Option<String>,
    /// The name of the build's log, if it has one: its stream, with what the project has before it.
    pub log_path: Option<String>,
    /// The project that the build is of, if it is of one.
    pub project: Option<ProjectFacts>,
    /// The sources beside the one with the buildspec.
    pub secondary_sources: Vec<SecondarySource>,
}

/// What a project of CodeBuild says of its builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectFacts {
    /// Its name.
    pub name: String,
    /// The number of the AWS account that it is in.
    pub account: Option<String>,
    /// The image that its builds run in on AWS.
    pub image: Option<String>,
    /// The key that its artifacts are encrypted with.
    pub encryption_key: Option<String>,
}

/// A source beside the one with the buildspec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecondarySource {
    /// What it is called: a part of the names of its variables.
    pub identifier: String,
    /// The folder with it.
    pub directory: PathBuf,
    /// The branch, tag, or commit that was asked for, if that is known.
    pub version: Option<String>,
    /// The commit that it is at, if it is a checkout.
    pub resolved_version: Option<String>,
    /// Where it comes from, if that is known.
    pub repo_url: Option<String>,
}

/// Why variables cannot be given to a build.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvironmentError {
    /// Only the build itself may set it.
    #[error("the variable `{name}` begins with `CODEBUILD_`, which only the build may set")]
    Reserved {
        /// The name of the variable.
        name: String,
    },
    /// No process can have a variable of that name.
    #[error("`{name}` cannot be the name of a variable")]
    Name {
        /// The name.
        name: String,
    },
    /// No process can have a variable of that value.
    #[error("the value of the variable `{name}` holds a NUL character")]
    Value {
        /// The name of the variable.
        name: String,
    },
    /// Those who fetch secrets left it out.
    #[error("the variable `{name}` got no value")]
    NoValue {
        /// The name of the variable.
        name: String,
    },
}

/// What the names of variables begin with that only a build may set.
const PREFIX: &[u8] = b"CODEBUILD_";

/// The PATH of a build whose caller has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The account and region of builds that have none.
const NO_ACCOUNT: &str = "000000000000";
const NO_REGION: &str = "us-east-1";

impl Environment {
    /// Decides every variable. Later wins: the caller's `base`, the region of `facts`, the
    /// `layers` (the buildspec, the project, what was asked for with this build), and what only
    /// the build may set. `programs` comes first on the PATH.
    pub fn new(
        base: &[(OsString, OsString)],
        layers: &[&[Variable]],
        facts: &Facts,
        programs: &Path,
    ) -> Result<Self, EnvironmentError> {
        let mut wanted = BTreeMap::new();
        let mut variables: BTreeMap<OsString, OsString> = base.iter().cloned().collect();
        variables.remove(OsStr::new("CODEBUILD_LAST_EXIT"));
        for name in ["AWS_DEFAULT_REGION", "AWS_REGION"] {
            variables.extend(facts.region.as_ref().map(|region| (name.into(), region.into())));
        }
        for Variable { name, value, place } in layers.iter().copied().flatten() {
            match value {
                Value::Plain(value) => {
                    check(name, value)?;
                    wanted.remove(name);
                    variables.insert(name.into(), value.into());
                }
                Value::Secret(reference) => {
                    check(name, "")?;
                    variables.remove(OsStr::new(name));
                    wanted.insert(name.clone(), (reference.clone(), *place));
                }
            }
        }
        if is_in_codebuild(base) {
            let is_of_codebuild = |name: &OsStr| name.as_encoded_bytes().starts_with(PREFIX);
            variables.retain(|name, _| !is_of_codebuild(name));
            variables.extend(base.iter().filter(|it| is_of_codebuild(&it.0)).cloned());
            variables.remove(OsStr::new("CODEBUILD_LAST_EXIT"));
        } else {
            variables.extend(identity(facts)?);
        }
        for source in &facts.secondary_sources {
            variables.extend(secondary(source)?);
        }
        variables.insert("CODEBUILD_BUILD_SUCCEEDING".into(), "1".into());
        variables.insert("CODEBUILD_SRC_DIR".into(), facts.source.clone().into());
        let path = variables.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        *path = join_path(programs, path);
        let wanted = wanted.into_iter();
        let wanted =
            wanted.map(|(variable, (reference, place))| Wanted { variable, reference, place });
        Ok(Self { variables, wanted: wanted.collect(), secrets: Vec::new() })
    }

    /// The variables whose values are still to be fetched, sorted by name.
    pub fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    /// The same with the values of all variables that are [`wanted`](Self::wanted), in their
    /// order.
    pub fn with_secrets(mut self, values: Vec<Secret>) -> Result<Self, EnvironmentError> {
        let mut values = values.into_iter();
        for Wanted { variable: name, .. } in std::mem::take(&mut self.wanted) {
            let Some(value) = values.next() else { return Err(EnvironmentError::NoValue { name }) };
            if value.expose().contains('\0') {
                return Err(EnvironmentError::Value { name });
            }
            self.variables.insert(name.into(), value.expose().into());
            self.secrets.push(value);
        }
        Ok(self)
    }

    /// The same after earlier commands, which set the variables of `set` and unset those of
    /// `unset`; all others, secrets above all, are as they are for a build that begins.
    #[must_use]
    pub fn after(mut self, set: &[(OsString, OsString)], unset: &[OsString]) -> Self {
        self.variables.retain(|name, _| !unset.contains(name));
        self.variables.extend(set.iter().cloned());
        self.variables.insert("CODEBUILD_BUILD_SUCCEEDING".into(), "1".into());
        self
    }

    /// The values that were fetched.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

fn check(name: &str, value: &str) -> Result<(), EnvironmentError> {
    let name_of = |name: &str| name.to_owned();
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(EnvironmentError::Name { name: name_of(name) });
    }
    if name.starts_with("CODEBUILD_") {
        return Err(EnvironmentError::Reserved { name: name_of(name) });
    }
    if value.contains('\0') {
        return Err(EnvironmentError::Value { name: name_of(name) });
    }
    Ok(())
}

/// Whether shells can have a variable of that name.
pub(crate) fn is_identifier(name: &str) -> bool {
    let is_letter = |it: char| it.is_ascii_alphabetic() || it == '_';
    name.starts_with(is_letter) && name.chars().all(|it| is_letter(it) || it.is_ascii_digit())
}

/// Whether these are the variables of a build that CodeBuild itself runs.
fn is_in_codebuild(base: &[(OsString, OsString)]) -> bool {
    let is_set = |name: &str| base.iter().any(|it| it.0 == name);
    is_set("CODEBUILD_BUILD_ARN") && !is_set("CODEBUILD_LOCAL_BUILD")
}

/// What CodeBuild tells about a build, as far as it means something here (CodeBuild user guide,
/// "Environment variables in build environments").
fn identity(facts: &Facts) -> Result<Vec<(OsString, OsString)>, EnvironmentError> {
    let region = facts.region.as_deref().unwrap_or(NO_REGION);
    let project = facts.project.as_ref();
    let id = format!("{}:{}", project.map_or("local", |it| &it.name), facts.build_uuid);
    let account = project.and_then(|it| it.account.as_deref()).unwrap_or(NO_ACCOUNT);
    let arn = format!("arn:aws:codebuild:{region}:{account}:build/{id}");
    let text = |it: &str| Some(it.to_owned());
    texts([
        ("CODEBUILD_BUILD_ARN", text(&arn)),
        ("CODEBUILD_BUILD_ID", text(&id)),
        ("CODEBUILD_BUILD_IMAGE", project.and_then(|it| it.image.clone())),
        ("CODEBUILD_BUILD_NUMBER", text(&facts.build_number.to_string())),
        ("CODEBUILD_CI", text("true")),
        ("CODEBUILD_INITIATOR", text(&facts.initiator)),
        ("CODEBUILD_KMS_KEY_ID", project.and_then(|it| it.encryption_key.clone())),
        ("CODEBUILD_LOCAL_BUILD", text("true")),
        ("CODEBUILD_LOG_PATH", facts.log_path.clone()),
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", facts.resolved_source_version.clone()),
        ("CODEBUILD_SOURCE_REPO_URL", facts.source_repo_url.clone()),
        ("CODEBUILD_SOURCE_VERSION", facts.source_version.clone()),
        ("CODEBUILD_START_TIME", text(&facts.start_time.to_string())),
    ])
}

/// What is told about a secondary source.
fn secondary(source: &SecondarySource) -> Result<Vec<(OsString, OsString)>, EnvironmentError> {
    let name_of = |name: &str| format!("{name}_{}", source.identifier);
    let directory = name_of("CODEBUILD_SRC_DIR");
    if directory.contains(['=', '\0']) {
        return Err(EnvironmentError::Name { name: directory });
    }
    let [resolved, url, version] = [
        name_of("CODEBUILD_RESOLVED_SOURCE_VERSION"),
        name_of("CODEBUILD_SOURCE_REPO_URL"),
        name_of("CODEBUILD_SOURCE_VERSION"),
    ];
    let mut variables = texts([
        (resolved.as_str(), source.resolved_version.clone()),
        (url.as_str(), source.repo_url.clone()),
        (version.as_str(), source.version.clone()),
    ])?;
    variables.push((directory.into(), source.directory.clone().into()));
    Ok(variables)
}

/// Those variables that have a value, which must be one that a process can have.
fn texts<const N: usize>(
    variables: [(&str, Option<String>); N],
) -> Result<Vec<(OsString, OsString)>, EnvironmentError> {
    let pairs = variables.into_iter().filter_map(|(name, value)| Some((name, value?)));
    pairs
        .map(|(name, value)| match value.contains('\0') {
            true => Err(EnvironmentError::Value { name: name.to_owned() }),
            false => Ok((name.into(), value.into())),
        })
        .collect()
}

fn join_path(first: &Path, rest: &OsStr) -> OsString {
    let mut path = first.as_os_str().to_owned();
    if !rest.is_empty() {
        path.push(":");
        path.push(rest);
    }
    path
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::{secret::Reference, source::Place};

    #[track_caller]
    fn check(base: &[(&str, &str)], file: &[(&str, &str)], flags: &[(&str, &str)], want: Expect) {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let base: Vec<_> = base.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let place = Place { line: 1, column: 1 };
        let place = Some(place);
        let plain = |pairs: &[(&str, &str)]| -> Vec<Variable> {
            let plain = |(name, value)| Variable { name, value: Value::Plain(value), place };
            owned(pairs).into_iter().map(plain).collect()
        };
        let facts = Facts {
            source: "/src".into(),
            build_number: 7,
            build_uuid: "00000000-0000-0000-0000-000000000000".into(),
            start_time: 1_700_000_000_123,
            initiator: "ann".into(),
            source_version: Some("main".into()),
            ..Facts::default()
        };
        let layers: [&[Variable]; 2] = [&plain(file), &plain(flags)];
        let made = Environment::new(&base, &layers, &facts, Path::new("/p"));
        let drawn = match made {
            Ok(environment) => environment.iter().fold(String::new(), |mut out, (name, value)| {
                writeln!(out, "{}={}", name.display(), value.display()).unwrap();
                out
            }),
            Err(err) => format!("{err}\n"),
        };
        want.assert_eq(&drawn);
    }

    #[test]
    fn later_wins_and_nothing_is_expanded() {
        check(
            &[("HOME", "/root"), ("A", "base"), ("B", "base"), ("C", "base"), ("PATH", "/bin")],
            &[("A", "file"), ("B", "$A:file")],
            &[("A", "flag")],
            expect![[r#"
                A=flag
                B=$A:file
                C=base
                CODEBUILD_BUILD_ARN=arn:aws:codebuild:us-east-1:000000000000:build/local:00000000-0000-0000-0000-000000000000
                CODEBUILD_BUILD_ID=local:00000000-0000-0000-0000-000000000000
                CODEBUILD_BUILD_NUMBER=7
                CODEBUILD_BUILD_SUCCEEDING=1
                CODEBUILD_CI=true
                CODEBUILD_INITIATOR=ann
                CODEBUILD_LOCAL_BUILD=true
                CODEBUILD_SOURCE_VERSION=main
                CODEBUILD_SRC_DIR=/src
                CODEBUILD_START_TIME=1700000000123
                HOME=/root
                PATH=/p:/bin
            "#]],
        );
    }

    #[test]
    fn what_the_build_sets_wins_and_a_path_is_always_there() {
        check(
            &[("CODEBUILD_BUILD_ID", "outer"), ("CODEBUILD_LAST_EXIT", "3")],
            &[],
            &[],
            expect![[r#"
                CODEBUILD_BUILD_ARN=arn:aws:codebuild:us-east-1:000000000000:build/local:00000000-0000-0000-0000-000000000000
                CODEBUILD_BUILD_ID=local:00000000-0000-0000-0000-000000000000
                CODEBUILD_BUILD_NUMBER=7
                CODEBUILD_BUILD_SUCCEEDING=1
                CODEBUILD_CI=true
                CODEBUILD_INITIATOR=ann
                CODEBUILD_LOCAL_BUILD=true
                CODEBUILD_SOURCE_VERSION=main
                CODEBUILD_SRC_DIR=/src
                CODEBUILD_START_TIME=1700000000123
                PATH=/p:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
            "#]],
        );
    }

    #[test]
    fn inside_of_codebuild_its_variables_stay() {
        let base = [
            ("CODEBUILD_BUILD_ARN", "arn:aws:codebuild:eu-west-1:1:build/p:1"),
            ("CODEBUILD_BUILD_NUMBER", "42"),
            ("CODEBUILD_BUILD_SUCCEEDING", "0"),
            ("CODEBUILD_LAST_EXIT", "3"),
            ("CODEBUILD_SRC_DIR", "/outer"),
            ("CODEBUILD_SRC_DIR_more", "/more"),
            ("CODEBUILD_START_TIME", "1"),
        ];
        check(
            &base,
            &[("A", "file")],
            &[],
            expect![[r#"
                A=file
                CODEBUILD_BUILD_ARN=arn:aws:codebuild:eu-west-1:1:build/p:1
                CODEBUILD_BUILD_NUMBER=42
                CODEBUILD_BUILD_SUCCEEDING=1
                CODEBUILD_SRC_DIR=/src
                CODEBUILD_SRC_DIR_more=/more
                CODEBUILD_START_TIME=1
                PATH=/p:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
            "#]],
        );
        // What an rbuild has started is no build of CodeBuild.
        check(
            &[("CODEBUILD_BUILD_ARN", "outer"), ("CODEBUILD_LOCAL_BUILD", "true")],
            &[],
            &[],
            expect![[r#"
                CODEBUILD_BUILD_ARN=arn:aws:codebuild:us-east-1:000000000000:build/local:00000000-0000-0000-0000-000000000000
                CODEBUILD_BUILD_ID=local:00000000-0000-0000-0000-000000000000
                CODEBUILD_BUILD_NUMBER=7
                CODEBUILD_BUILD_SUCCEEDING=1
                CODEBUILD_CI=true
                CODEBUILD_INITIATOR=ann
                CODEBUILD_LOCAL_BUILD=true
                CODEBUILD_SOURCE_VERSION=main
                CODEBUILD_SRC_DIR=/src
                CODEBUILD_START_TIME=1700000000123
                PATH=/p:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
            "#]],
        );
    }

    #[test]
    fn a_region_that_the_build_asks_for_wins_over_that_of_the_caller() {
        let base = [("AWS_REGION".into(), "eu-west-1".into())];
        let facts = Facts { region: Some("eu-west-1".into()), ..Facts::default() };
        let place = Place { line: 1, column: 1 };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (file, flag, want, default) in [
            (None, None, "eu-west-1", "eu-west-1"),
            (Some("us-west-2"), None, "us-west-2", "eu-west-1"),
            (None, Some("ap-south-1"), "ap-south-1", "eu-west-1"),
            (Some("us-west-2"), Some("ap-south-1"), "ap-south-1", "eu-west-1"),
        ] {
            let variable =
                |(name, value)| Variable { name, value: Value::Plain(value), place: Some(place) };
            let file: Vec<_> =
                file.map(|it| variable(pair("AWS_REGION", it))).into_iter().collect();
            let flags: Vec<_> =
                flag.map(|it| variable(pair("AWS_REGION", it))).into_iter().collect();
            let layers: [&[Variable]; 2] = [&file, &flags];
            let made = Environment::new(&base, &layers, &facts, Path::new("/p")).unwrap();
            assert_eq!(made.value("AWS_REGION"), Some(OsStr::new(want)), "{file:?} {flags:?}");
            assert_eq!(made.value("AWS_DEFAULT_REGION"), Some(OsStr::new(default)));
        }
    }

    #[test]
    fn names_and_values_that_cannot_be_are_refused() {
        check(
            &[],
            &[],
            &[("CODEBUILD_X", "1")],
            expect![[r#"
            the variable `CODEBUILD_X` begins with `CODEBUILD_`, which only the build may set
        "#]],
        );
        check(
            &[],
            &[],
            &[("", "1")],
            expect![[r#"
            `` cannot be the name of a variable
        "#]],
        );
        check(
            &[],
            &[],
            &[("X", "1\0")],
            expect![[r#"
            the value of the variable `X` holds a NUL character
        "#]],
        );
    }

    fn drawn(environment: &Environment) -> String {
        environment.iter().fold(String::new(), |mut out, (name, value)| {
            writeln!(out, "{}={}", name.display(), value.display()).unwrap();
            out
        })
    }

    fn facts_of_a_project() -> Facts {
        Facts {
            source: "/src".into(),
            build_number: 7,
            build_uuid: "00000000-0000-0000-0000-000000000000".into(),
            region: Some("eu-west-1".into()),
            log_path: Some("builds/00000000".into()),
            project: Some(ProjectFacts {
                name: "shop".into(),
                account: Some("123456789012".into()),
                image: Some("aws/codebuild/standard:7.0".into()),
                encryption_key: Some("arn:aws:kms:eu-west-1:123456789012:alias/aws/s3".into()),
            }),
            secondary_sources: vec![SecondarySource {
                identifier: "tools".into(),
                directory: "/tools".into(),
                version: Some("main".into()),
                resolved_version: None,
                repo_url: Some("https://example.com/tools".into()),
            }],
            ..Facts::default()
        }
    }

    #[test]
    fn a_build_of_a_project_knows_it_and_its_sources() {
        let made = Environment::new(&[], &[], &facts_of_a_project(), Path::new("/p")).unwrap();
        expect![[r#"
            AWS_DEFAULT_REGION=eu-west-1
            AWS_REGION=eu-west-1
            CODEBUILD_BUILD_ARN=arn:aws:codebuild:eu-west-1:123456789012:build/shop:00000000-0000-0000-0000-000000000000
            CODEBUILD_BUILD_ID=shop:00000000-0000-0000-0000-000000000000
            CODEBUILD_BUILD_IMAGE=aws/codebuild/standard:7.0
            CODEBUILD_BUILD_NUMBER=7
            CODEBUILD_BUILD_SUCCEEDING=1
            CODEBUILD_CI=true
            CODEBUILD_INITIATOR=
            CODEBUILD_KMS_KEY_ID=arn:aws:kms:eu-west-1:123456789012:alias/aws/s3
            CODEBUILD_LOCAL_BUILD=true
            CODEBUILD_LOG_PATH=builds/00000000
            CODEBUILD_SOURCE_REPO_URL_tools=https://example.com/tools
            CODEBUILD_SOURCE_VERSION_tools=main
            CODEBUILD_SRC_DIR=/src
            CODEBUILD_SRC_DIR_tools=/tools
            CODEBUILD_START_TIME=0
            PATH=/p:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        "#]]
        .assert_eq(&drawn(&made));
    }

    #[test]
    fn facts_that_no_process_can_have_are_refused_by_name() {
        let refused = |change: fn(&mut Facts)| {
            let mut facts = facts_of_a_project();
            change(&mut facts);
            Environment::new(&[], &[], &facts, Path::new("/p")).unwrap_err().to_string()
        };
        let value = "the value of the variable `CODEBUILD_SOURCE_VERSION` holds a NUL character";
        assert_eq!(refused(|it| it.source_version = Some("a\0".into())), value);
        let value =
            "the value of the variable `CODEBUILD_SOURCE_VERSION_tools` holds a NUL character";
        assert_eq!(refused(|it| it.secondary_sources[0].version = Some("\0".into())), value);
        let name = "`CODEBUILD_SRC_DIR_a=b` cannot be the name of a variable";
        assert_eq!(refused(|it| it.secondary_sources[0].identifier = "a=b".into()), name);
    }

    fn with_secrets(values: &[&str]) -> Result<Environment, EnvironmentError> {
        let variable = |name: &str, value| Variable { name: name.into(), value, place: None };
        let secret = |it: &str| Value::Secret(Reference::Parameter(it.into()));
        let layer = [
            variable("B", secret("/b")),
            variable("A", secret("/a")),
            variable("C", secret("/c")),
            variable("C", Value::Plain("plain".into())),
        ];
        let base = [("A".into(), "base".into()), ("HOME".into(), "/h".into())];
        let facts = Facts::default();
        let made = Environment::new(&base, &[&layer], &facts, Path::new("/p")).unwrap();
        assert_eq!(made.value("A"), None);
        let values = values.iter().map(|it| Secret::new((*it).to_owned())).collect();
        made.with_secrets(values)
    }

    #[test]
    fn secrets_become_values_in_the_order_in_which_they_were_wanted() {
        let made = with_secrets(&["one", "two"]).unwrap();
        for (name, want) in [("A", "one"), ("B", "two"), ("C", "plain")] {
            assert_eq!(made.value(name), Some(OsStr::new(want)));
        }
        assert_eq!(made.wanted(), []);
        assert_eq!(made.secrets().len(), 2);
        assert_eq!(with_secrets(&["one"]), Err(EnvironmentError::NoValue { name: "B".into() }));
        let refused = with_secrets(&["one", "tw\0o"]).unwrap_err();
        assert_eq!(refused, EnvironmentError::Value { name: "B".into() });
    }

    #[test]
    fn what_earlier_commands_changed_wins_and_all_else_comes_anew() {
        let made = with_secrets(&["one", "two"]).unwrap();
        let pair = |(name, value): (&str, &str)| (name.into(), value.into());
        let set = [("A", "1"), ("NEW", "2"), ("CODEBUILD_BUILD_SUCCEEDING", "0")].map(pair);
        let after = made.after(&set, &["HOME".into(), "NONE".into()]);
        for (name, want) in [
            ("A", Some("1")),
            ("B", Some("two")),
            ("C", Some("plain")),
            ("NEW", Some("2")),
            ("HOME", None),
            ("CODEBUILD_BUILD_SUCCEEDING", Some("1")),
        ] {
            assert_eq!(after.value(name), want.map(OsStr::new), "{name}");
        }
        assert_eq!(after.secrets().len(), 2);
    }
}
