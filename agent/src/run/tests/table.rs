//! Phase × outcome × `on-failure`: what runs, what is uploaded, how the build ends, and where it
//! could go on.
//!
//! Every phase has one command and one in `finally`; one command is odd. `i` is the command of
//! INSTALL, `i'` that of its `finally`; `p`, `b`, and `o` are of the phases that follow; `!` did not
//! succeed, `|` is another try, and `U` are the artifacts.

use super::*;

/// The letters of the phases.
const LETTERS: [(Phase, char); 4] =
    [(Phase::Install, 'i'), (Phase::PreBuild, 'p'), (Phase::Build, 'b'), (Phase::PostBuild, 'o')];

/// All that `on-failure` may say. Commands write `timed out`.
fn on_failures() -> [(&'static str, Option<OnFailure>); 6] {
    [
        ("-", None),
        ("ABORT", Some(OnFailure::Abort)),
        ("CONTINUE", Some(OnFailure::Continue)),
        ("RETRY-1", Some(retry(1, None))),
        ("RETRY-1-timed out", Some(retry(1, Some("timed out")))),
        ("RETRY-1-refused", Some(retry(1, Some("refused")))),
    ]
}

/// What ran, and what came of it.
struct Played {
    ran: String,
    ended: String,
}

/// Runs a build in which the command of `odd` ends like `end`.
fn play(odd: Phase, end: &str, on_failure: Option<OnFailure>, choices: Choices) -> Played {
    let phase = |(phase, letter): (Phase, char)| {
        let end = if phase == odd { end } else { "exit 0" };
        let name = phase.name();
        format!(
            "  {name}: {{commands: {letter} timed out -> {end}, finally: \"{letter}' -> exit 0\"}}\n"
        )
    };
    let phases = LETTERS.map(phase).concat();
    let mut case = Case::new(&format!("version: 0.2\nphases:\n{phases}artifacts: {{files: x}}\n"));
    case.phase(odd).on_failure = on_failure;
    case.inputs.choices = choices;
    let mut ran = Vec::new();
    let report = case.run(&mut |event| match event {
        Event::CommandStarted(command) => {
            ran.push(command.text.split(' ').next().unwrap().to_owned());
        }
        Event::CommandFinished { end, .. } if end != End::Exited(0) => {
            ran.last_mut().unwrap().push('!');
        }
        Event::Retrying { .. } => ran.push("|".into()),
        Event::BaseDirectoryWanted(_) => ran.push("U".into()),
        _ => {}
    });
    let Report { outcome, artifacts, resume, .. } = report.unwrap();
    assert_eq!(artifacts.is_empty(), !ran.iter().any(|it| it == "U"));
    let ended = match outcome {
        Outcome::Succeeded => "SUCCEEDED".to_owned(),
        Outcome::Failed(Failure { stage, .. }) => format!("FAILED in {stage}"),
        Outcome::Stopped { stage, .. } => format!("STOPPED in {stage}"),
        Outcome::TimedOut { stage } => format!("TIMED_OUT in {stage}"),
    };
    let ended = resume.map_or(ended.clone(), |it| format!("{ended}, go on with {}", it.step));
    Played { ran: ran.join(" "), ended }
}

/// The rows for all phases, if the odd command ends like `end`; one row stands for all values of
/// `on-failure` if they do not matter.
fn rows(table: &mut String, end: &str, wanted: &[&str], choices: Choices) {
    for phase in Phase::ALL {
        let mut rows: Vec<(&str, String)> = on_failures()
            .into_iter()
            .filter(|(name, _)| wanted.is_empty() || wanted.contains(name))
            .map(|(name, on_failure)| {
                let Played { ran, ended } = play(phase, end, on_failure, choices);
                (name, format!("{ran:<46} {ended}"))
            })
            .collect();
        if wanted.is_empty() && rows.iter().all(|it| it.1 == rows[0].1) {
            rows.truncate(1);
            rows[0].0 = "any";
        }
        for (name, row) in rows {
            writeln!(table, "{:<10} {end:<10} {name:<18} {row}", phase.name()).unwrap();
        }
    }
}

#[test]
fn every_outcome_of_every_phase_has_its_consequences() {
    let mut table = String::new();
    let choices = Choices::default();
    rows(&mut table, "exit 0", &[], choices);
    rows(&mut table, "exit 1", &[], choices);
    rows(&mut table, "fails once", &["RETRY-1", "RETRY-1-timed out", "RETRY-1-refused"], choices);
    rows(&mut table, "stop 2", &[], choices);
    rows(&mut table, "timeout", &[], choices);
    expect![[r#"
        install    exit 0     any                i i' p p' b b' o o' U                          SUCCEEDED
        pre_build  exit 0     any                i i' p p' b b' o o' U                          SUCCEEDED
        build      exit 0     any                i i' p p' b b' o o' U                          SUCCEEDED
        post_build exit 0     any                i i' p p' b b' o o' U                          SUCCEEDED
        install    exit 1     -                  i! i'                                          FAILED in INSTALL, go on with 0
        install    exit 1     ABORT              i! i'                                          FAILED in INSTALL, go on with 0
        install    exit 1     CONTINUE           i! i' p p' b b' o o' U                         FAILED in INSTALL, go on with 0
        install    exit 1     RETRY-1            i! i' | i! i'                                  FAILED in INSTALL, go on with 0
        install    exit 1     RETRY-1-timed out  i! i' | i! i'                                  FAILED in INSTALL, go on with 0
        install    exit 1     RETRY-1-refused    i! i'                                          FAILED in INSTALL, go on with 0
        pre_build  exit 1     -                  i i' p! p'                                     FAILED in PRE_BUILD, go on with 2
        pre_build  exit 1     ABORT              i i' p! p'                                     FAILED in PRE_BUILD, go on with 2
        pre_build  exit 1     CONTINUE           i i' p! p' b b' o o' U                         FAILED in PRE_BUILD, go on with 2
        pre_build  exit 1     RETRY-1            i i' p! p' | i i' p! p'                        FAILED in PRE_BUILD, go on with 2
        pre_build  exit 1     RETRY-1-timed out  i i' p! p' | i i' p! p'                        FAILED in PRE_BUILD, go on with 2
        pre_build  exit 1     RETRY-1-refused    i i' p! p'                                     FAILED in PRE_BUILD, go on with 2
        build      exit 1     -                  i i' p p' b! b' o o' U                         FAILED in BUILD, go on with 4
        build      exit 1     ABORT              i i' p p' b! b'                                FAILED in BUILD, go on with 4
        build      exit 1     CONTINUE           i i' p p' b! b' o o' U                         FAILED in BUILD, go on with 4
        build      exit 1     RETRY-1            i i' p p' b! b' | i i' p p' b! b' o o' U       FAILED in BUILD, go on with 4
        build      exit 1     RETRY-1-timed out  i i' p p' b! b' | i i' p p' b! b' o o' U       FAILED in BUILD, go on with 4
        build      exit 1     RETRY-1-refused    i i' p p' b! b' o o' U                         FAILED in BUILD, go on with 4
        post_build exit 1     -                  i i' p p' b b' o! o' U                         FAILED in POST_BUILD, go on with 6
        post_build exit 1     ABORT              i i' p p' b b' o! o'                           FAILED in POST_BUILD, go on with 6
        post_build exit 1     CONTINUE           i i' p p' b b' o! o' U                         FAILED in POST_BUILD, go on with 6
        post_build exit 1     RETRY-1            i i' p p' b b' o! o' | i i' p p' b b' o! o' U  FAILED in POST_BUILD, go on with 6
        post_build exit 1     RETRY-1-timed out  i i' p p' b b' o! o' | i i' p p' b b' o! o' U  FAILED in POST_BUILD, go on with 6
        post_build exit 1     RETRY-1-refused    i i' p p' b b' o! o' U                         FAILED in POST_BUILD, go on with 6
        install    fails once RETRY-1            i! i' | i i' p p' b b' o o' U                  SUCCEEDED
        install    fails once RETRY-1-timed out  i! i' | i i' p p' b b' o o' U                  SUCCEEDED
        install    fails once RETRY-1-refused    i! i'                                          FAILED in INSTALL, go on with 0
        pre_build  fails once RETRY-1            i i' p! p' | i i' p p' b b' o o' U             SUCCEEDED
        pre_build  fails once RETRY-1-timed out  i i' p! p' | i i' p p' b b' o o' U             SUCCEEDED
        pre_build  fails once RETRY-1-refused    i i' p! p'                                     FAILED in PRE_BUILD, go on with 2
        build      fails once RETRY-1            i i' p p' b! b' | i i' p p' b b' o o' U        SUCCEEDED
        build      fails once RETRY-1-timed out  i i' p p' b! b' | i i' p p' b b' o o' U        SUCCEEDED
        build      fails once RETRY-1-refused    i i' p p' b! b' o o' U                         FAILED in BUILD, go on with 4
        post_build fails once RETRY-1            i i' p p' b b' o! o' | i i' p p' b b' o o' U   SUCCEEDED
        post_build fails once RETRY-1-timed out  i i' p p' b b' o! o' | i i' p p' b b' o o' U   SUCCEEDED
        post_build fails once RETRY-1-refused    i i' p p' b b' o! o' U                         FAILED in POST_BUILD, go on with 6
        install    stop 2     any                i!                                             STOPPED in INSTALL, go on with 0
        pre_build  stop 2     any                i i' p!                                        STOPPED in PRE_BUILD, go on with 2
        build      stop 2     any                i i' p p' b!                                   STOPPED in BUILD, go on with 4
        post_build stop 2     any                i i' p p' b b' o!                              STOPPED in POST_BUILD, go on with 6
        install    timeout    any                i!                                             TIMED_OUT in INSTALL, go on with 0
        pre_build  timeout    any                i i' p!                                        TIMED_OUT in PRE_BUILD, go on with 2
        build      timeout    any                i i' p p' b!                                   TIMED_OUT in BUILD, go on with 4
        post_build timeout    any                i i' p p' b b' o!                              TIMED_OUT in POST_BUILD, go on with 6
    "#]].assert_eq(&table);
    // How a command fails does not matter.
    let (mut exited, mut killed) = (String::new(), String::new());
    rows(&mut exited, "exit 1", &[], choices);
    rows(&mut killed, "killed 9", &[], choices);
    assert_eq!(killed.replace("killed 9", "exit 1  "), exited);
}

#[test]
fn what_was_chosen_has_its_consequences() {
    let mut table = String::new();
    let choices = Choices { after_continue: AfterContinue::Pass, ..Choices::default() };
    rows(&mut table, "exit 1", &["CONTINUE"], choices);
    let choices = Choices { after_abort: AfterAbort::Upload, ..Choices::default() };
    rows(&mut table, "exit 1", &["ABORT"], choices);
    let choices = Choices { retry: RetryScope::Phase, ..Choices::default() };
    rows(&mut table, "exit 1", &["RETRY-1"], choices);
    rows(&mut table, "fails once", &["RETRY-1"], choices);
    expect![[r#"
        install    exit 1     CONTINUE           i! i' p p' b b' o o' U                         SUCCEEDED
        pre_build  exit 1     CONTINUE           i i' p! p' b b' o o' U                         SUCCEEDED
        build      exit 1     CONTINUE           i i' p p' b! b' o o' U                         SUCCEEDED
        post_build exit 1     CONTINUE           i i' p p' b b' o! o' U                         SUCCEEDED
        install    exit 1     ABORT              i! i' U                                        FAILED in INSTALL, go on with 0
        pre_build  exit 1     ABORT              i i' p! p' U                                   FAILED in PRE_BUILD, go on with 2
        build      exit 1     ABORT              i i' p p' b! b' U                              FAILED in BUILD, go on with 4
        post_build exit 1     ABORT              i i' p p' b b' o! o' U                         FAILED in POST_BUILD, go on with 6
        install    exit 1     RETRY-1            i! i' | i! i'                                  FAILED in INSTALL, go on with 0
        pre_build  exit 1     RETRY-1            i i' p! p' | p! p'                             FAILED in PRE_BUILD, go on with 2
        build      exit 1     RETRY-1            i i' p p' b! b' | b! b' o o' U                 FAILED in BUILD, go on with 4
        post_build exit 1     RETRY-1            i i' p p' b b' o! o' | o! o' U                 FAILED in POST_BUILD, go on with 6
        install    fails once RETRY-1            i! i' | i i' p p' b b' o o' U                  SUCCEEDED
        pre_build  fails once RETRY-1            i i' p! p' | p p' b b' o o' U                  SUCCEEDED
        build      fails once RETRY-1            i i' p p' b! b' | b b' o o' U                  SUCCEEDED
        post_build fails once RETRY-1            i i' p p' b b' o! o' | o o' U                  SUCCEEDED
    "#]].assert_eq(&table);
}

#[test]
fn finally_comes_after_every_failure_and_nothing_after_an_end() {
    let all_choices = [AfterContinue::Fail, AfterContinue::Pass].into_iter().flat_map(|it| {
        let abort = [AfterAbort::Stop, AfterAbort::Upload];
        let retry = [RetryScope::Build, RetryScope::Phase];
        abort.into_iter().flat_map(move |after_abort| {
            retry.map(|retry| Choices {
                after_continue: it,
                after_abort,
                retry,
                ..Choices::default()
            })
        })
    });
    let ends = ["exit 1", "killed 9", "fails once", "stop 2", "timeout"];
    for choices in all_choices {
        for (end, (name, on_failure)) in
            ends.into_iter().flat_map(|end| on_failures().map(|it| (end, it)))
        {
            for (phase, letter) in LETTERS {
                let Played { ran, .. } = play(phase, end, on_failure.clone(), choices);
                let failed = format!("{letter}!");
                let (_, after) = ran.split_once(&failed).unwrap();
                let want = match end {
                    "stop 2" | "timeout" => after.is_empty(),
                    _ => {
                        ran.split(' ')
                            .zip(ran.split(' ').skip(1))
                            .all(|(it, next)| it != failed || next == format!("{letter}'"))
                            && !ran.ends_with(&failed)
                    }
                };
                assert!(want, "{phase} {end} {name} {choices:?}: {ran}");
            }
        }
    }
}
