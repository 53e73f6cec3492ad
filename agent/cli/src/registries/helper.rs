//! The programs that keep credentials, `docker-credential-NAME`: one word as argument, one value
//! on standard input, JSON on standard output (docker-credential-helpers, README).

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

use rbuild_imagebuilder::registry::{Credential, docker_config::Helper};
use serde::{Deserialize, Serialize};

/// Why a program did not do what it should.
#[derive(Debug)]
pub(crate) enum HelperError {
    /// Its name would lead elsewhere.
    Name(String),
    /// It could not be run.
    NotRun { program: String, source: io::Error },
    /// It said no.
    Failed { program: String, said: String },
    /// It said something that is no credential.
    Garbage { program: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// The credential that a program has for its server, if it has one.
pub(crate) fn get(helper: &Helper) -> Result<Option<Credential>, HelperError> {
    let output = match run(helper, "get", helper.server.as_bytes()) {
        Ok(output) => output,
        // A file that was copied from another machine may name what is not here.
        Err(HelperError::NotRun { source, .. })
            if source.kind() == io::ErrorKind::NotFound && !helper.is_certain =>
        {
            return Ok(None);
        }
        Err(err) => return Err(err),
    };
    if !output.status.success() {
        let said = said(&output);
        let is_unknown = said.to_lowercase().contains("not found") || !helper.is_certain;
        if is_unknown {
            return Ok(None);
        }
        return Err(HelperError::Failed { program: program(helper), said });
    }
    let garbage = |_| HelperError::Garbage { program: program(helper) };
    let Wire { username, secret, .. } = serde_json::from_slice(&output.stdout).map_err(garbage)?;
    if username.is_empty() && secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential { username, password: secret }))
}

/// Gives a credential to a program to keep.
pub(crate) fn store(helper: &Helper, credential: &Credential) -> Result<(), HelperError> {
    let wire = Wire {
        server_url: helper.server.clone(),
        username: credential.username.clone(),
        secret: credential.password.clone(),
    };
    let input =
        serde_json::to_vec(&wire).map_err(|_| HelperError::Garbage { program: program(helper) })?;
    finish(helper, &run(helper, "store", &input)?)
}

/// Tells a program to forget a credential; that it has none is as good.
pub(crate) fn erase(helper: &Helper) -> Result<(), HelperError> {
    let output = run(helper, "erase", helper.server.as_bytes())?;
    if said(&output).to_lowercase().contains("not found") {
        return Ok(());
    }
    finish(helper, &output)
}

fn finish(helper: &Helper, output: &Output) -> Result<(), HelperError> {
    if output.status.success() {
        return Ok(());
    }
    Err(HelperError::Failed { program: program(helper), said: said(output) })
}

fn program(helper: &Helper) -> String {
    format!("docker-credential-{}", helper.name)
}

fn run(helper: &Helper, word: &str, input: &[u8]) -> Result<Output, HelperError> {
    if helper.name.contains(['/', '\0']) {
        return Err(HelperError::Name(helper.name.clone()));
    }
    let program = program(helper);
    let run = || {
        let mut child = Command::new(&program)
            .arg(word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that needs no input may be gone already; its status says how it went.
            let _ = stdin.write_all(input);
        }
        child.wait_with_output()
    };
    run().map_err(|source| HelperError::NotRun { program: program.clone(), source })
}

/// Programs say what is wrong on either stream; secrets are on neither then.
fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    let lines = texts.iter().flat_map(|it| it.lines().map(str::trim));
    let line = lines.filter(|it| !it.is_empty()).take(1).collect::<String>();
    line.chars().filter(|it| !it.is_control()).take(200).collect()
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}` is no name of a credential helper"),
            Self::NotRun { program, .. } => write!(f, "`{program}` could not be run"),
            Self::Failed { program, said } if said.is_empty() => {
                write!(f, "`{program}` failed and said nothing")
            }
            Self::Failed { program, said } => write!(f, "`{program}` failed: {said}"),
            Self::Garbage { program } => write!(f, "`{program}` gave no credential"),
        }
    }
}

impl Error for HelperError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotRun { source, .. } => Some(source),
            Self::Name(_) | Self::Failed { .. } | Self::Garbage { .. } => None,
        }
    }
}
