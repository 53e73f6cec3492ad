//! What comes before the first phase, and who runs its commands.

use super::*;

#[test]
fn secrets_are_fetched_and_known_before_anything_runs() {
    let mut case = Case::new("version: 0.2\nphases: {build: {commands: exit 0}}\n");
    case.buildspec.variables = vec![secret("TOKEN", "/token"), secret("OTHER", "/other")];
    case.inputs.hidden = vec![Secret::new("git-password".into())];
    case.check(expect![[r#"
          SecretsKnown(Redactor(1 texts))
          SecretsWanted { parameters: 2, secrets: 0 }
          SecretsKnown(Redactor(3 texts))
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    expect![[r#"
        begin in /src of /src, A=None TOKEN=Some("/token")
        CommandLine { text: "exit 0", succeeding: true, user: None, carries: true }
    "#]]
    .assert_eq(&case.asked());
}

#[test]
fn secrets_that_cannot_be_had_end_the_build_before_anything_runs() {
    for (variable, parameter, want) in [
        ("A", "/missing", "Secrets"),
        ("A", "/denied", "Secrets"),
        ("A", "a\0b", "Environment"),
        ("LEFT_OUT", "/p", "Environment"),
    ] {
        let mut case = Case::new("version: 0.2\nphases: {build: {commands: exit 0}}\n");
        case.buildspec.variables = vec![secret(variable, parameter)];
        let mut told = String::new();
        let result = case.run(&mut |event| {
            if let Event::StageFinished { stage, state, reason } = event {
                let reason = format!("{reason:?}");
                write!(told, "{stage} {state} {}", reason.contains(want)).unwrap();
                assert!(!reason.contains("a\\0b"), "{reason}");
            }
        });
        let err = result.unwrap_err();
        assert_eq!(told, "DOWNLOAD_SOURCE FAILED true", "{err:?}");
        assert!(format!("{err:?}").starts_with(want), "{err:?}");
        assert!(case.shell.asked.is_empty());
    }
}

#[test]
fn commands_are_run_by_the_user_that_the_buildspec_names() {
    let text = "version: 0.2\nphases: {install: {commands: exit 0, finally: exit 0}, \
                build: {commands: exit 0}}\n";
    let mut case = Case::new(text);
    let user = |name: &str| Some(User { name: name.into(), place: PLACE });
    case.buildspec.run_as = user("ann");
    case.phase(Phase::Install).run_as = user("root");
    case.buildspec.version = Version::V0_1;
    case.run(&mut |_| {}).unwrap();
    expect![[r#"
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "exit 0", succeeding: true, user: Some("root"), carries: false }
        CommandLine { text: "exit 0", succeeding: true, user: Some("root"), carries: false }
        CommandLine { text: "exit 0", succeeding: true, user: Some("ann"), carries: false }
    "#]]
    .assert_eq(&case.asked());
}

fn runtime(name: &str, command: &str) -> RuntimeSelected {
    RuntimeSelected {
        name: name.into(),
        version: "1".into(),
        variables: vec![("VERSION".into(), "it's 1".into()), ("no name".into(), "x".into())],
        commands: vec![command.into()],
    }
}

#[test]
fn runtimes_are_selected_before_the_first_phase_and_again_with_each_try() {
    let mut case = Case::new("version: 0.2\nphases: {build: {commands: fails once}}\n");
    case.phase(Phase::Build).on_failure = Some(retry(1, None));
    case.inputs.runtime_commands =
        vec![runtime("python", "p -> exit 0"), runtime("java", "j -> exit 0")];
    case.check(expect![[r#"
          RuntimeSelected { name: "python", version: "1" }
          p -> exit 0: [VERSION='it'\''s 1'
        p] succeeding 1, Exited(0)
          RuntimeSelected { name: "java", version: "1" }
          j -> exit 0: [VERSION='it'\''s 1'
        j] succeeding 1, Exited(0)
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          fails once: succeeding 1, Exited(1)
          FAILED
          Retrying { scope: Build, phase: Build, attempt: 1, of: 1 }
        INSTALL
          RuntimeSelected { name: "python", version: "1" }
          p -> exit 0: [VERSION='it'\''s 1'
        p] succeeding 1, Exited(0)
          RuntimeSelected { name: "java", version: "1" }
          j -> exit 0: [VERSION='it'\''s 1'
        j] succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          fails once: succeeding 1, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    expect![[r#"
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "VERSION='it'\\''s 1'\np -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "VERSION='it'\\''s 1'\nj -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "fails once", succeeding: true, user: None, carries: true }
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "VERSION='it'\\''s 1'\np -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "VERSION='it'\\''s 1'\nj -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "fails once", succeeding: true, user: None, carries: true }
    "#]].assert_eq(&case.asked());
}

#[test]
fn a_runtime_that_cannot_be_selected_fails_the_build() {
    let mut case = Case::new("version: 0.2\nphases: {build: {commands: exit 0}}\n");
    case.inputs.runtime_commands = vec![runtime("python", "p -> exit 4")];
    case.check(expect![[r#"
          RuntimeSelected { name: "python", version: "1" }
          p -> exit 4: [VERSION='it'\''s 1'
        p] succeeding 1, Exited(4)
          FAILED
        failed in DOWNLOAD_SOURCE: 1:1 p -> exit 4 Exited(4), [], [], None
    "#]]);
}

#[test]
fn runtimes_that_this_machine_does_not_have_are_passed_over() {
    for (names, want) in
        [(vec![], false), (vec!["docker"], false), (vec!["docker", "python"], true)]
    {
        let mut case = Case::new("version: 0.2\nphases: {}\n");
        let version = |name: &&str| RuntimeVersion {
            name: (*name).into(),
            version: "1".into(),
            place: PLACE,
        };
        case.buildspec.runtimes = names.iter().map(version).collect();
        let mut told = false;
        case.run(&mut |event| told |= matches!(event, Event::RuntimesSkipped(_))).unwrap();
        assert_eq!(told, want, "{names:?}");
    }
}
