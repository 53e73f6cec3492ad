//! Trying again.

use super::*;

#[test]
fn a_build_is_tried_again_from_its_beginning() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0}
  pre_build: {commands: exit 3}
  build: {commands: fails twice}
";
    let mut case = Case::new(text);
    case.phase(Phase::PreBuild).on_failure = Some(OnFailure::Continue);
    case.phase(Phase::Build).on_failure = Some(retry(2, None));
    case.inputs.choices.after_continue = AfterContinue::Pass;
    case.check(expect![[r#"
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          exit 3: succeeding 1, Exited(3)
          FAILED
        BUILD
          fails twice: succeeding 0, Exited(1)
          FAILED
          Retrying { scope: Build, phase: Build, attempt: 1, of: 2 }
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          exit 3: succeeding 1, Exited(3)
          FAILED
        BUILD
          fails twice: succeeding 0, Exited(1)
          FAILED
          Retrying { scope: Build, phase: Build, attempt: 2, of: 2 }
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          exit 3: succeeding 1, Exited(3)
          FAILED
        BUILD
          fails twice: succeeding 0, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    let begun = case.shell.asked.iter().filter(|it| it.starts_with("begin")).count();
    assert_eq!(begun, 3);
}

#[test]
fn a_phase_is_tried_again_with_what_it_left_behind() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0}
  build: {commands: [exit 0, fails twice], finally: exit 0}
";
    let mut case = Case::new(text);
    case.phase(Phase::Build).on_failure = Some(retry(3, None));
    case.inputs.choices.retry = RetryScope::Phase;
    case.check(expect![[r#"
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          exit 0: succeeding 1, Exited(0)
          fails twice: succeeding 1, Exited(1)
          exit 0: succeeding 0, Exited(0)
          FAILED
          Retrying { scope: Phase, phase: Build, attempt: 1, of: 3 }
        BUILD
          exit 0: succeeding 1, Exited(0)
          fails twice: succeeding 1, Exited(1)
          exit 0: succeeding 0, Exited(0)
          FAILED
          Retrying { scope: Phase, phase: Build, attempt: 2, of: 3 }
        BUILD
          exit 0: succeeding 1, Exited(0)
          fails twice: succeeding 1, Exited(0)
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    let begun = case.shell.asked.iter().filter(|it| it.starts_with("begin")).count();
    assert_eq!(begun, 1);
}

#[test]
fn each_phase_has_tries_of_its_own_and_they_end() {
    let text = "version: 0.2\nphases: {install: {commands: install -> fails once}, \
                build: {commands: exit 1}}\n";
    let mut case = Case::new(text);
    case.phase(Phase::Install).on_failure = Some(retry(1, None));
    case.phase(Phase::Build).on_failure = Some(retry(2, None));
    let mut tries = Vec::new();
    let report = case.run(&mut |event| {
        if let Event::Retrying { phase, attempt, of, .. } = event {
            tries.push(format!("{phase} {attempt}/{of}"));
        }
    });
    assert_eq!(tries, ["INSTALL 1/1", "BUILD 1/2", "BUILD 2/2"]);
    assert!(matches!(report.unwrap().outcome, Outcome::Failed(_)));
}

#[test]
fn the_output_of_the_first_command_that_failed_decides_about_another_try() {
    for (commands, finally, want) in [
        ("timed out -> fails once", "exit 0", 1),
        ("timed out -> exit 0", "exit 1", 0),
        ("exit 0", "timed out -> fails once", 1),
        ("exit 1", "timed out -> exit 1", 0),
        ("timed out -> fails once", "refused -> fails once", 1),
        ("[timed out -> fails once, refused -> exit 1]", "exit 0", 1),
    ] {
        let text = format!(
            "version: 0.2\nphases: {{build: {{commands: {commands}, finally: {finally}}}}}\n"
        );
        let mut case = Case::new(&text);
        case.phase(Phase::Build).on_failure = Some(retry(3, Some(".*timed out.*")));
        let mut tries = 0;
        let count =
            &mut |event: Event<'_>| tries += i32::from(matches!(event, Event::Retrying { .. }));
        case.run(count).unwrap();
        assert_eq!(tries, want, "{commands}, {finally}");
    }
}
