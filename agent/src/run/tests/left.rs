//! What a build leaves behind.

use super::*;

#[test]
fn a_build_that_is_over_time_packs_nothing() {
    let mut case = Case::new("version: 0.2\nphases: {}\nartifacts: {files: x}\n");
    case.shell.out_of_time = true;
    let report = case.run(&mut |_| {}).unwrap();
    let want = Outcome::TimedOut { stage: Stage::UploadArtifacts };
    assert_eq!(format!("{:?}", report.outcome), format!("{want:?}"));
}

#[test]
fn variables_are_told_at_the_end_of_the_build() {
    let text = "version: 0.2\nphases: {post_build: {commands: exit 1}}\n";
    let mut case = Case::new(text);
    let names = ["A", "EMPTY", "UNSET", "AWS_REGION", "A", "a-b", "SECRET", "TOKEN"];
    case.buildspec.exported =
        names.map(|it| ExportedName { name: it.into(), place: PLACE }).to_vec();
    case.buildspec.variables = vec![secret("SECRET", "/secret"), secret("TOKEN", "/token")];
    case.inputs.project_variables = vec![secret("TOKEN", "/project")];
    case.shell.variables =
        [("A", "1"), ("EMPTY", ""), ("SECRET", "/secret"), ("TOKEN", "/project")].into();
    case.check(expect![[r#"
          SecretsWanted { parameters: 2, secrets: 0 }
          SecretsKnown(Redactor(2 texts))
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          SUCCEEDED
        POST_BUILD
          exit 1: succeeding 1, Exited(1)
          ExportRefused { name: "AWS_REGION" }
          ExportRefused { name: "a-b" }
          ExportRefused { name: "TOKEN" }
          ExportUnset { name: "UNSET" }
          VariablesExported([("A", "1"), ("EMPTY", ""), ("SECRET", "/secret")])
          FAILED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        failed in POST_BUILD: 2:33 exit 1 Exited(1), [], [("A", "1"), ("EMPTY", ""), ("SECRET", "/secret")], Some((0, "/after 0"))
    "#]]);
}

#[test]
fn nothing_is_told_of_variables_if_the_end_is_not_reached() {
    for (commands, want) in [
        ("build: {commands: exit 0}", "Exported UPLOAD_ARTIFACTS"),
        ("build: {commands: exit 1}", "Exported UPLOAD_ARTIFACTS"),
        ("pre_build: {commands: exit 1}", ""),
        ("post_build: {commands: stop 2}", ""),
        ("post_build: {commands: timeout}", ""),
    ] {
        let mut case = Case::new(&format!("version: 0.2\nphases: {{{commands}}}\n"));
        case.buildspec.exported = vec![ExportedName { name: "A".into(), place: PLACE }];
        case.shell.variables = [("A", "1")].into();
        let mut told = Vec::new();
        let report = case.run(&mut |event| match event {
            Event::VariablesExported(_) => told.push("Exported"),
            Event::StageStarted(Stage::UploadArtifacts) => told.push("UPLOAD_ARTIFACTS"),
            _ => {}
        });
        assert_eq!(told.join(" "), want, "{commands}");
        assert_eq!(report.unwrap().exported.len(), usize::from(!want.is_empty()), "{commands}");
    }
}

#[test]
fn artifacts_that_fail_do_not_keep_others_from_being_packed() {
    let mut case = Case::new("version: 0.2\nphases: {}\nartifacts: {files: none}\n");
    let secondary = |identifier: &str, files: &str| {
        let artifacts =
            crate::buildspec::Artifacts { files: vec![files.into()], ..Default::default() };
        SecondaryArtifacts { identifier: identifier.into(), place: PLACE, artifacts }
    };
    case.buildspec.secondary_artifacts =
        vec![secondary("one", "x"), secondary("two", "full"), secondary("three", "$A")];
    case.inputs.choices.collision = Collision::First;
    case.check(expect![[r#"
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          Selection { identifier: None, files: ["none"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          SecondaryArtifacts { identifier: Some("one") }
          Selection { identifier: Some("one"), files: ["x"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          SecondaryArtifacts { identifier: Some("two") }
          Selection { identifier: Some("two"), files: ["full"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          SecondaryArtifacts { identifier: Some("three") }
          Selection { identifier: Some("three"), files: ["<${A}>"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          FAILED
        failed in UPLOAD_ARTIFACTS: no file matches the patterns of the artifacts, [Packed { identifier: Some("one"), location: Local("/a"), files: 2, bytes: 3 }, Packed { identifier: Some("three"), location: Local("/a"), files: 2, bytes: 3 }], [], None
    "#]]);
    case.buildspec.artifacts = None;
    let report = case.run(&mut |_| {}).unwrap();
    let Outcome::Failed(Failure { reason: Reason::SecondaryArtifacts { identifier, .. }, .. }) =
        report.outcome
    else {
        panic!("{report:?}");
    };
    assert_eq!(identifier, "two");
}

#[test]
fn variables_are_told_once_after_the_last_try() {
    let mut case = Case::new("version: 0.2\nphases: {post_build: {commands: fails twice}}\n");
    case.phase(Phase::PostBuild).on_failure = Some(retry(2, None));
    case.buildspec.exported = vec![ExportedName { name: "A".into(), place: PLACE }];
    case.shell.variables = [("A", "1")].into();
    let mut told = 0;
    case.run(&mut |event| told += i32::from(matches!(event, Event::VariablesExported(_)))).unwrap();
    assert_eq!(told, 1);
}
