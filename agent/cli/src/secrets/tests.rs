//! Tests of what is said of secrets that cannot be had.

use expect_test::expect;
use rbuild_agent::source::Place;

use super::*;

fn refused(code: &str, message: &str) -> Arc<AwsError> {
    let (code, message) = (code.to_owned(), message.to_owned());
    Arc::new(AwsError::NotDone { call: "X", code, message })
}

fn wanted(variable: &str, reference: &str) -> Wanted {
    let place = Some(Place { line: 2, column: 3 });
    Wanted { variable: variable.into(), reference: Reference::Parameter(reference.into()), place }
}

const ARN: &str = "arn:aws:ssm:eu-north-1:1:parameter/b";

fn fetched() -> Fetched {
    let denied = "User: u is not authorized to perform: ssm:GetParameters on resource: r";
    let parameters = Parameters::from([
        ("/a".to_owned(), Ok(Some("value".to_owned()))),
        ("/missing".to_owned(), Ok(None)),
        (ARN.to_owned(), Err(refused("AccessDeniedException", denied))),
        ("/bad".to_owned(), Err(refused("ValidationException", "no"))),
    ]);
    Fetched { parameters, secrets: SecretValues::new() }
}

fn told(all: &[Wanted]) -> (Kind, String) {
    let fetched = fetched();
    let err = collect(all, |it| fetched.value(&it.reference)).unwrap_err();
    let failure = failure(&err, all, "b.yml", "env:\n  X: y\n");
    (failure.kind, failure.to_string())
}

#[test]
fn one_secret_that_is_missing_is_shown_where_it_is_wanted() {
    let (kind, told) = told(&[wanted("A", "/a"), wanted("X", "/missing")]);
    assert_eq!(kind, Kind::Input);
    expect![[r#"
        error: the parameter `/missing` for the variable `X` does not exist
         --> b.yml:2:3
          |
        2 |   X: y
          |   ^
        Decrypted Variables Error Message: parameter does not exist: /missing"#]]
    .assert_eq(&told);
}

#[test]
fn what_is_denied_is_told_with_the_permission_that_it_takes() {
    let (kind, told) = told(&[wanted("X", ARN)]);
    assert_eq!(kind, Kind::Outside);
    let told = told.split(", as profile").next().unwrap();
    for words in [
        "the parameter `arn:aws:ssm:eu-north-1:1:parameter/b` for the variable `X` could not be read",
        "Decrypted Variables Error Message: AccessDeniedException: User: u is not authorized",
        "hint: AWS was asked in `eu-north-1`",
    ] {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn all_that_cannot_be_had_is_told_at_once() {
    let (kind, told) = told(&[wanted("X", "/missing"), wanted("A", "/a"), wanted("Y", "/bad")]);
    assert_eq!(kind, Kind::Input);
    expect![[r#"
        error: 2 secrets could not be had
        - the parameter `/missing` for the variable `X` does not exist
          Decrypted Variables Error Message: parameter does not exist: /missing
        - the parameter `/bad` for the variable `Y` does not exist
          Decrypted Variables Error Message: ValidationException: no"#]]
    .assert_eq(&told);
}

#[test]
fn the_phase_context_is_that_of_codebuild() {
    let reference = |secret_id: &str| {
        Reference::SecretsManager(SecretsManagerReference {
            secret_id: secret_id.into(),
            json_key: None,
            version_stage: None,
            version_id: None,
        })
    };
    let of = |reference: Reference, reason: Reason| {
        phase_context(&reason.of(&Wanted { variable: "X".into(), reference, place: None }))
    };
    let denied = refused("AccessDeniedException", "no");
    let denied = NotFetched::new(Service::SecretsManager, "s", &denied).reason();
    let want = "Secrets Manager Error Message: AccessDeniedException: no";
    assert_eq!(of(reference("s"), denied), ("Secrets Manager Error", want.into()));
    let want = "Secrets Manager Error Message: `f` has none of `s`";
    let missing = Reason::Missing("`f` has none of `s`".into());
    assert_eq!(of(reference("s"), missing), ("Secrets Manager Error", want.into()));
    let missing = fetched().parameter("/missing").unwrap_err();
    let want = "Decrypted Variables Error Message: parameter does not exist: /missing";
    let found = of(Reference::Parameter("/missing".into()), missing);
    assert_eq!(found, ("Decrypted Variables Error", want.into()));
}

#[test]
fn only_what_is_not_there_is_an_error_of_the_input() {
    for (code, want) in [
        ("ResourceNotFoundException", true),
        ("InvalidRequestException", true),
        ("AccessDeniedException", false),
        ("ThrottlingException", false),
        ("DecryptionFailure", false),
        ("ExpiredTokenException", false),
    ] {
        let reason = NotFetched::new(Service::SecretsManager, "s", &refused(code, "no")).reason();
        assert_eq!(matches!(reason, Reason::Missing(_)), want, "for {code}");
    }
}

#[test]
fn a_pipe_can_be_the_file_of_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    let written = path.clone();
    let writer = std::thread::spawn(move || std::fs::write(written, "/a=value\n"));
    let mut secrets = FileSecrets::read(&path).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(secrets.fetch(&[wanted("X", "/a")]).unwrap(), [Secret::new("value".into())]);
}

#[test]
fn nothing_that_is_wanted_costs_nothing() {
    let aws = Aws::new();
    assert!(AwsSecrets::new(&aws).fetch(&[]).unwrap().is_empty());
}
