//! A part of a build, one that goes on, and one that people look at.

use super::*;

#[test]
fn only_what_was_asked_for_runs() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0}
  build: {commands: exit 1}
  post_build: {commands: exit 0}
artifacts: {files: x}
";
    for (start, want) in [
        (Start::All, "INSTALL PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS"),
        (Start::From(Phase::Build), "-INSTALL -PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS"),
        (Start::Only(Phase::Build), "-INSTALL -PRE_BUILD BUILD -POST_BUILD -UPLOAD_ARTIFACTS"),
        (Start::Only(Phase::Install), "INSTALL -PRE_BUILD -BUILD -POST_BUILD -UPLOAD_ARTIFACTS"),
    ] {
        let mut case = Case::new(text);
        case.inputs.start = start;
        let mut told = Vec::new();
        case.run(&mut |event| match event {
            Event::StageStarted(stage) if stage != Stage::FIRST => told.push(stage.to_string()),
            Event::StageSkipped(stage) => told.push(format!("-{stage}")),
            _ => {}
        })
        .unwrap();
        assert_eq!(told.join(" "), want, "{start:?}");
    }
}

#[test]
fn a_build_goes_on_where_another_ended() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0, finally: exit 0}
  build: {commands: [exit 0, fails once, exit 5], finally: exit 0}
";
    let mut case = Case::new(text);
    case.buildspec.variables = vec![secret("TOKEN", "/token")];
    let report = case.run(&mut |_| {}).unwrap();
    let point = report.resume.unwrap();
    assert_eq!((point.step, point.snapshot.directory.to_str()), (3, Some("/after 3")));
    case.inputs.resume = Some(Resume {
        step: point.step,
        directory: point.snapshot.directory,
        set: vec![("A".into(), "1".into())],
        unset: vec!["CODEBUILD_CI".into()],
    });
    case.inputs.runtime_commands =
        vec![RuntimeSelected { commands: vec!["exit 9".into()], ..RuntimeSelected::default() }];
    case.shell.asked.clear();
    case.check(expect![[r#"
          SecretsWanted { parameters: 1, secrets: 0 }
          SecretsKnown(Redactor(1 texts))
          StageSkipped(Commands(Install))
          StageSkipped(Commands(PreBuild))
        BUILD
          fails once: succeeding 1, Exited(0)
          exit 5: succeeding 1, Exited(5)
          exit 0: succeeding 0, Exited(0)
          FAILED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        failed in BUILD: 4:42 exit 5 Exited(5), [], [], Some((4, "/after 1"))
    "#]]);
    expect![[r#"
        begin in /after 3 of /src, A=Some("1") TOKEN=Some("/token")
        CommandLine { text: "fails once", succeeding: true, user: None, carries: true }
        CommandLine { text: "exit 5", succeeding: true, user: None, carries: true }
        CommandLine { text: "exit 0", succeeding: false, user: None, carries: true }
    "#]]
    .assert_eq(&case.asked());
}

#[test]
fn there_is_no_place_to_go_on_with_if_that_would_be_wrong() {
    for (phases, want) in [
        ("build: {commands: exit 0}", None),
        ("build: {commands: [exit 0, exit 1], finally: exit 2}", Some(1)),
        ("build: {commands: [exit 0, stop 2]}", Some(1)),
        ("build: {commands: [exit 0, timeout]}", Some(1)),
        ("build: {commands: exit 0, finally: exit 1}, post_build: {commands: exit 1}", None),
        ("build: {commands: [exit 0, exit 1]}, post_build: {commands: exit 1}", Some(1)),
    ] {
        let mut case = Case::new(&format!("version: 0.2\nphases: {{{phases}}}\n"));
        let step = |case: &mut Case| case.run(&mut |_| {}).unwrap().resume.map(|it| it.step);
        assert_eq!(step(&mut case), want, "{phases}");
        case.shell.snapshots_fail = true;
        assert_eq!(step(&mut case), None, "{phases}");
    }
    let mut case = Case::new("version: 0.2\nphases: {}\nartifacts: {files: none}\n");
    assert_eq!(case.run(&mut |_| {}).unwrap().resume, None);
}

#[test]
fn a_failure_that_counts_for_nothing_is_no_place_to_go_on_with() {
    let text = "version: 0.2\nphases: {install: {commands: exit 1}, build: {commands: exit 1}}\n";
    for (after_continue, want) in [(AfterContinue::Fail, 0), (AfterContinue::Pass, 1)] {
        let mut case = Case::new(text);
        case.phase(Phase::Install).on_failure = Some(OnFailure::Continue);
        case.inputs.choices.after_continue = after_continue;
        let report = case.run(&mut |_| {}).unwrap();
        assert_eq!(report.resume.map(|it| it.step), Some(want));
    }
}

/// A build with breakpoints before its second command and after each that fails.
fn with_breakpoints(left: &[End]) -> Case {
    let text = "version: 0.2
phases:
  build: {commands: [exit 0, exit 3], finally: exit 0}
  post_build: {commands: exit 0}
";
    let mut case = Case::new(text);
    case.inputs.breaks = Breaks { before: vec![1], on_failure: true };
    case.shell.left = left.to_vec().into();
    case
}

#[test]
fn people_look_at_a_build_and_it_goes_on() {
    let mut case = with_breakpoints(&[End::Exited(0), End::Exited(7)]);
    case.check(expect![[r#"
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          exit 0: succeeding 1, Exited(0)
          BreakpointReached { command: Command { text: "exit 3", place: Place { line: 3, column: 30 } }, failed: false }
          BreakpointLeft { end: Exited(0) }
          exit 3: succeeding 1, Exited(3)
          BreakpointReached { command: Command { text: "exit 3", place: Place { line: 3, column: 30 } }, failed: true }
          BreakpointLeft { end: Exited(7) }
          exit 0: succeeding 0, Exited(0)
          FAILED
        POST_BUILD
          exit 0: succeeding 0, Exited(0)
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        failed in BUILD: 3:30 exit 3 Exited(3), [], [], Some((1, "/after 1"))
    "#]]);
    expect![[r#"
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "exit 0", succeeding: true, user: None, carries: true }
        Interaction { succeeding: true, user: None, before_last: false }
        CommandLine { text: "exit 3", succeeding: true, user: None, carries: true }
        Interaction { succeeding: false, user: None, before_last: true }
        CommandLine { text: "exit 0", succeeding: false, user: None, carries: true }
        CommandLine { text: "exit 0", succeeding: false, user: None, carries: true }
    "#]]
    .assert_eq(&case.asked());
}

#[test]
fn people_end_a_build_that_they_look_at() {
    for end in [End::Exited(1), End::Killed(9)] {
        let mut case = with_breakpoints(&[end]);
        let mut states = Vec::new();
        let report = case.run(&mut |event| {
            if let Event::StageFinished { stage, state, .. } = event {
                states.push(format!("{stage} {state}"));
            }
        });
        let Report { outcome, resume, .. } = report.unwrap();
        let resume = resume.map(|it| (it.step, it.snapshot.directory));
        assert_eq!(resume, Some((1, "/after 1".into())), "it goes on where people looked");
        let Outcome::Failed(Failure { stage, reason: Reason::Breakpoint { .. } }) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(stage, Stage::Commands(Phase::Build));
        assert_eq!(states.last().unwrap(), "BUILD STOPPED");
    }
    for (left, want) in [
        (vec![End::Stopped(2)], "Stopped { stage: Commands(Build), signal: 2 }"),
        (vec![End::TimedOut], "TimedOut { stage: Commands(Build) }"),
        (vec![End::Exited(0), End::Stopped(2)], "Stopped { stage: Commands(Build), signal: 2 }"),
    ] {
        let outcome = with_breakpoints(&left).run(&mut |_| {}).unwrap().outcome;
        assert_eq!(format!("{outcome:?}"), want);
    }
}
