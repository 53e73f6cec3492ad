//! Which settings follow from which arguments and projects.

use clap::Parser as _;
use expect_test::{Expect, expect};
use rbuild_agent::{
    buildspec::{Artifacts, SecondaryArtifacts},
    source::Place,
};

use super::*;
use crate::args::{Args, Command};

fn args(line: &str) -> Run {
    let words = ["rbuild", "run"].into_iter().chain(line.split_whitespace());
    match Args::try_parse_from(words).map(|it| it.command) {
        Ok(Command::Run(args)) => *args,
        other => panic!("`{line}`: {other:?}"),
    }
}

fn target() -> Target {
    Target {
        bucket: "releases".into(),
        path: Some("shop".into()),
        namespace_build_id: true,
        name: "shop.zip".into(),
        packaging: Packaging::Zip,
        override_name: false,
        encryption_key: None,
    }
}

fn project(artifacts: ProjectArtifacts) -> Project {
    let timeout = Some(Duration::from_mins(30));
    Project { name: "shop".into(), artifacts, timeout, ..Project::default() }
}

fn settings(line: &str, project: impl Into<Option<Project>>) -> Result<Settings, String> {
    let files = Files { project: project.into(), ..Files::default() };
    Settings::new(&args(line), files).map_err(|it| it.to_string() + "\n")
}

#[track_caller]
fn refused(line: &str, project: impl Into<Option<Project>>, want: Expect) {
    want.assert_eq(&settings(line, project).expect_err("nothing was refused"));
}

#[test]
fn the_flag_wins_over_the_project() {
    let with = |text: &str| {
        let it = project(ProjectArtifacts::None);
        Some(Project { buildspec: ProjectBuildspec::Path(text.into()), ..it })
    };
    for (line, project, want) in [
        ("", None, "buildspec.yml"),
        ("", Some(project(ProjectArtifacts::None)), "buildspec.yml"),
        ("", with("ci/p.yml"), "ci/p.yml"),
        ("own.yml", with("ci/p.yml"), "own.yml"),
        ("own.yml -b own.yml", None, "own.yml"),
    ] {
        let settings = settings(line, project).unwrap();
        assert_eq!(settings.buildspec, BuildspecAt::Path(want.into()), "for `{line}`");
    }
    let timeout = |line, project: Option<Project>| {
        settings(line, project).unwrap().timeout.map(|it| it.as_secs())
    };
    assert_eq!(timeout("", None), None);
    assert_eq!(timeout("", Some(project(ProjectArtifacts::None))), Some(1800));
    assert_eq!(timeout("--timeout 90s", Some(project(ProjectArtifacts::None))), Some(90));
}

#[test]
fn what_env_means_depends_on_the_files_that_are_there() {
    let exists = |it: &Path| it == Path::new("a=b");
    for (text, want) in [
        ("A=1", Env::Variable("A", "1")),
        ("A=", Env::Variable("A", "")),
        ("A=b=c", Env::Variable("A", "b=c")),
        ("a=b", Env::File(Path::new("a=b"))),
        ("A", Env::File(Path::new("A"))),
        ("=1", Env::File(Path::new("=1"))),
    ] {
        assert_eq!(env(text, &exists), want);
    }
}

#[test]
fn artifacts_go_to_a_folder_unless_another_place_is_asked_for() {
    let folder = |asked: Option<&str>, packaging| Destination::Folder {
        asked: asked.map(Into::into),
        packaging,
    };
    let s3 = || Some(project(ProjectArtifacts::S3(target())));
    let none = || Some(project(ProjectArtifacts::None));
    for (line, project, want) in [
        ("", None, folder(None, Packaging::Folder)),
        ("-a out", None, folder(Some("out"), Packaging::Folder)),
        ("-a out --artifacts-packaging zip", None, folder(Some("out"), Packaging::Zip)),
        ("", s3(), folder(None, Packaging::Zip)),
        ("-a out", s3(), folder(Some("out"), Packaging::Zip)),
        ("--artifacts-packaging none", s3(), folder(None, Packaging::Folder)),
        ("", Some(project(ProjectArtifacts::Pipeline)), folder(None, Packaging::Zip)),
        ("", none(), Destination::Nowhere),
        ("-a out", none(), folder(Some("out"), Packaging::Folder)),
        (
            "--project x --upload",
            s3(),
            Destination::Project { primary: Some(target()), secondary: Vec::new() },
        ),
    ] {
        assert_eq!(settings(line, project).unwrap().destination, want, "for `{line}`");
    }
    let uri = |packaging| Destination::Uri { uri: "s3://b/p".into(), packaging, encryption: None };
    let to = |line, project: Option<Project>| settings(line, project).unwrap().destination;
    assert_eq!(to("-a s3://b/p", None), uri(Packaging::Folder));
    assert_eq!(to("-a s3://b/p", s3()), uri(Packaging::Zip));
}

#[test]
fn what_contradicts_is_refused() {
    refused(
        "a.yml -b b.yml",
        None,
        expect![[r#"
        error: `a.yml` and `b.yml` cannot both be the buildspec
    "#]],
    );
    refused(
        "-C a -s b",
        None,
        expect![[r#"
        error: `a` and `b` cannot both be the source folder
        hint: a secondary source has an ID: -s ID:b
    "#]],
    );
    refused(
        "--break-before 0",
        None,
        expect![[r#"
        error: commands are counted from 1
        hint: --dry-run shows their numbers
    "#]],
    );
    refused(
        "--compat retry=build --compat retry=phase",
        None,
        expect![[r#"
        error: --compat retry is there twice, with different values
    "#]],
    );
    refused(
        "--project x --upload",
        project(ProjectArtifacts::None),
        expect![[r#"
        error: the project `shop` has no artifacts to upload
        hint: leave out --upload
    "#]],
    );
    refused(
        "--project x --upload",
        project(ProjectArtifacts::Pipeline),
        expect![[r#"
        error: the artifacts of the project `shop` go to a pipeline
        hint: name a place for them: -a DIR or -a s3://BUCKET/PREFIX
    "#]],
    );
    for line in [
        "--from build --only build",
        "--resume --from build",
        "--upload",
        "--upload --project x -a y",
        "--json --log progress",
        "--compat retry=never",
        "--timeout never",
        "--from BUILD",
    ] {
        let words = ["rbuild", "run"].into_iter().chain(line.split_whitespace());
        assert!(Args::try_parse_from(words).is_err(), "`{line}` was accepted");
    }
}

#[test]
fn secondary_sources_of_a_project_need_a_folder() {
    let source = |id: &str| project::ProjectSource { identifier: id.into(), ..Default::default() };
    let project = || {
        let it = project(ProjectArtifacts::None);
        Some(Project { secondary_sources: vec![source("lib"), source("docs")], ..it })
    };
    refused(
        "",
        project(),
        expect![[r#"
        error: no folder is known for the secondary source `lib` of the project
        hint: add -s lib:DIR -s docs:DIR
    "#]],
    );
    refused(
        "-s lib:a",
        project(),
        expect![[r#"
        error: no folder is known for the secondary source `docs` of the project
        hint: add -s docs:DIR
    "#]],
    );
    refused(
        "-s lib:a -s docs:b -s more:c",
        project(),
        expect![[r#"
        error: the project `shop` has no secondary source `more`
    "#]],
    );
    assert!(settings("-s lib:a -s docs:b", project()).is_ok());
    // Without a project, any will do.
    assert!(settings("-s more:c", None).is_ok());
}

#[test]
fn choices_are_made_by_name() {
    let line = "--compat on-failure-continue=pass --compat on-failure-abort=upload \
                --compat retry=phase --compat collisions=error --compat unset=restore \
                --compat mask=whole --compat powershell-variables=forget";
    let choices = settings(line, None).unwrap().choices;
    assert_eq!(
        choices,
        Choices {
            after_continue: AfterContinue::Pass,
            after_abort: AfterAbort::Upload,
            retry: RetryScope::Phase,
            collision: Collision::Error,
            unset: Unset::Restore,
            masking: Masking::Whole,
            powershell: PowerShell::Forget,
        }
    );
    let defaults = "--compat on-failure-continue=fail --compat on-failure-abort=stop \
                    --compat retry=build --compat collisions=last --compat unset=keep \
                    --compat mask=lines --compat powershell-variables=carry --compat retry=build";
    assert_eq!(settings(defaults, None).unwrap().choices, Choices::default());
}

const ARTIFACTS: &str = "version: 0.2\nphases: {build: {commands: [a, b], finally: c}}\n\
    artifacts: {files: x, name: own}\n";

/// A buildspec with artifacts, and others called `logs`.
fn with_artifacts() -> Buildspec {
    let buildspec = Buildspec::parse(ARTIFACTS.as_bytes()).unwrap();
    let name = Some("other".to_owned());
    let logs = SecondaryArtifacts {
        identifier: "logs".into(),
        place: Place { line: 1, column: 1 },
        artifacts: Artifacts { files: vec!["y".into()], name, ..Artifacts::default() },
    };
    Buildspec { secondary_artifacts: vec![logs], ..buildspec }
}

#[test]
fn the_project_says_which_names_of_artifacts_count() {
    let fitted = |project: Option<Project>| {
        settings("", project).unwrap().fit(with_artifacts()).map_err(|it| it.to_string() + "\n")
    };
    let names = |project: Option<Project>| {
        let it = fitted(project).unwrap();
        let second = it.secondary_artifacts.first().and_then(|it| it.artifacts.name.clone());
        (it.artifacts.and_then(|it| it.name), second)
    };
    let own = || Some("own".to_owned());
    let other = || Some("other".to_owned());
    let with = |name, secondary: &[(&str, bool)]| {
        let s3 = |it| ProjectArtifacts::S3(Target { override_name: it, ..target() });
        let secondary = secondary.iter().map(|(id, it)| ((*id).to_owned(), s3(*it))).collect();
        let it = project(s3(name));
        Some(Project { secondary_artifacts: secondary, ..it })
    };
    assert_eq!(names(None), (own(), other()));
    assert_eq!(names(with(true, &[("logs", false)])), (own(), None));
    assert_eq!(names(with(false, &[("logs", true)])), (None, other()));
    assert_eq!(names(Some(project(ProjectArtifacts::None))), (None, None));
    expect![[r#"
        error: the project `shop` has no secondary artifacts `logs`
        hint: it has `more`
    "#]]
    .assert_eq(&fitted(with(true, &[("more", true)])).unwrap_err());
    expect![[r#"
        error: the project `shop` has no secondary artifacts `logs`
        hint: it has none at all
    "#]]
    .assert_eq(&fitted(with(true, &[])).unwrap_err());
}
