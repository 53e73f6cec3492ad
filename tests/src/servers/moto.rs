//! AWS's JSON APIs, as `moto` answers them.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{
    namespace::Namespace,
    process::mortal,
    sandbox::{Run, Sandbox},
    scratch::Scratch,
    servers::Server,
};

/// The variables that lead a client of AWS to moto, besides the endpoint.
pub const VARIABLES: [(&str, &str); 6] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", "eu-west-1"),
    ("AWS_DEFAULT_REGION", "eu-west-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    // What moto does not know it answers with status 500, which clients would try again.
    ("AWS_MAX_ATTEMPTS", "1"),
];

/// A moto server that runs.
#[derive(Debug)]
pub struct Moto {
    server: Server,
}

impl Moto {
    /// One for all tests of this process: a test uses names of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// Starts one inside.
    pub fn start_in(namespace: &Namespace) -> Self {
        Self::start(&namespace.enter("/"))
    }

    fn start(enter: &[String]) -> Self {
        let mut command = mortal("env");
        // Without this, services never get the tasks that they want.
        command.arg("MOTO_ECS_SERVICE_RUNNING=1").args(enter).arg(tool("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        Self { server: Server::start(command, Scratch::new()) }
    }

    /// Where the APIs are.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    /// `run` with the environment of someone who uses AWS.
    pub fn known_to(&self, run: Run) -> Run {
        let run = run.env("AWS_ENDPOINT_URL", self.endpoint());
        VARIABLES.into_iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    /// Runs a Python script in which `client(service)` is boto3's; the arguments are `argv[1:]`.
    pub fn python(&self, sandbox: &Sandbox, script: &str, args: &[&str]) -> Run {
        let script = format!("import json, sys, boto3\nclient = boto3.client\n{script}");
        let args = ["-c", &script].into_iter().chain(args.iter().copied());
        self.known_to(sandbox.run(tool("python"), args))
    }
}

/// A program of the Python environment that `tests/run` makes.
fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/venv/bin");
    let path = path.join(name);
    assert!(path.exists(), "PyPI's `moto` and `boto3` are missing: `bash tests/run` installs them");
    path
}
