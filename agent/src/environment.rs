//! Which variables the commands of a build start with, and with which values.
//!
//! **Architecture invariant:** pure. How a process gets its variables is for
//! [`shell`](crate::shell), and what is true of this machine comes in as [`Facts`].
//!
//! Values are literal: nothing here expands `$X`, as nothing does in CodeBuild.
//!
//! Inside of a build of CodeBuild, which is where the caller has a `CODEBUILD_BUILD_ARN` and no
//! `CODEBUILD_LOCAL_BUILD`, the caller's `CODEBUILD_*` variables stay as they are: the identity of
//! that build is what its commands ask for. Only `CODEBUILD_SRC_DIR` and
//! `CODEBUILD_BUILD_SUCCEEDING` are those of the build that runs here.

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
        for Variable { name, value, .. } in layers.iter().copied().flatten() {
            match value {
                Value::Plain(value) => {
                    check(name, value)?;
                    wanted.remove(name);
                    variables.insert(name.into(), value.into());
                }
                Value::Secret(reference) => {
                    check(name, "")?;
                    variables.remove(OsStr::new(name));
                    wanted.insert(name.clone(), reference.clone());
                }
            }
        }
        if is_in_codebuild(base) {
            let is_of_codebuild = |name: &OsStr| name.as_encoded_bytes().starts_with(PREFIX);
            variables.retain(|name, _| !is_of_codebuild(name));
            variables.extend(base.iter().filter(|it| is_of_codebuild(&it.0)).cloned());
            variables.remove(OsStr::new("CODEBUILD_LAST_EXIT"));
        } else {
            variables.extend(identity(facts));
        }
        variables.insert("CODEBUILD_BUILD_SUCCEEDING".into(), "1".into());
        variables.insert("CODEBUILD_SRC_DIR".into(), facts.source.clone().into());
        let path = variables.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        *path = join_path(programs, path);
        let wanted = wanted.into_iter().map(|(variable, reference)| Wanted { variable, reference });
        Ok(Self { variables, wanted: wanted.collect(), secrets: Vec::new() })
    }

    /// The variables whose values are still to be fetched, sorted by name.
    pub fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    /// The same with the values of all variables that are [`wanted`](Self::wanted), in their
    /// order.
    #[must_use]
    pub fn with_secrets(mut self, values: Vec<Secret>) -> Self {
        for (wanted, value) in self.wanted.drain(..).zip(values) {
            self.variables.insert(wanted.variable.into(), value.expose().into());
            self.secrets.push(value);
        }
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

/// Whether these are the variables of a build that CodeBuild itself runs.
fn is_in_codebuild(base: &[(OsString, OsString)]) -> bool {
    let is_set = |name: &str| base.iter().any(|it| it.0 == name);
    is_set("CODEBUILD_BUILD_ARN") && !is_set("CODEBUILD_LOCAL_BUILD")
}

/// What CodeBuild tells about a build, as far as it means something here (CodeBuild user guide,
/// "Environment variables in build environments").
fn identity(facts: &Facts) -> Vec<(OsString, OsString)> {
    let region = facts.region.as_deref().unwrap_or(NO_REGION);
    let project = facts.project.as_ref();
    let id = format!("{}:{}", project.map_or("local", |it| &it.name), facts.build_uuid);
    let account = project.and_then(|it| it.account.as_deref()).unwrap_or(NO_ACCOUNT);
    let arn = format!("arn:aws:codebuild:{region}:{account}:build/{id}");
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("CODEBUILD_BUILD_ARN".into(), arn.into()),
        ("CODEBUILD_BUILD_ID".into(), id.into()),
        ("CODEBUILD_BUILD_NUMBER".into(), facts.build_number.to_string().into()),
        ("CODEBUILD_CI".into(), "true".into()),
        ("CODEBUILD_INITIATOR".into(), facts.initiator.clone().into()),
        ("CODEBUILD_LOCAL_BUILD".into(), "true".into()),
        ("CODEBUILD_START_TIME".into(), facts.start_time.to_string().into()),
    ];
    for (name, value) in [
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", &facts.resolved_source_version),
        ("CODEBUILD_SOURCE_REPO_URL", &facts.source_repo_url),
        ("CODEBUILD_SOURCE_VERSION", &facts.source_version),
    ] {
        variables.extend(value.as_ref().map(|value| (name.into(), value.into())));
    }
    for (name, value) in [
        ("CODEBUILD_BUILD_IMAGE", project.and_then(|it| it.image.as_ref())),
        ("CODEBUILD_KMS_KEY_ID", project.and_then(|it| it.encryption_key.as_ref())),
    ] {
        variables.extend(value.map(|value| (name.into(), value.into())));
    }
    variables.extend(facts.secondary_sources.iter().flat_map(secondary));
    variables
}

/// What is told about a secondary source.
fn secondary(source: &SecondarySource) -> Vec<(OsString, OsString)> {
    let directory = Some(source.directory.as_os_str());
    let texts = [
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", &source.resolved_version),
        ("CODEBUILD_SOURCE_REPO_URL", &source.repo_url),
        ("CODEBUILD_SOURCE_VERSION", &source.version),
    ];
    let texts = texts.map(|(name, value)| (name, value.as_ref().map(OsStr::new)));
    [("CODEBUILD_SRC_DIR", directory)]
        .into_iter()
        .chain(texts)
        .filter_map(|(name, value)| {
            Some((format!("{name}_{}", source.identifier).into(), value?.to_owned()))
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
    use crate::source::Place;

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
}
