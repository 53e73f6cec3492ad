//! The config of an image as a value (OCI image spec, `config.md`).
//!
//! **Architecture invariant:** keys that we do not know, in the config of an image that others
//! made, pass through unharmed: the config stays JSON.

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::digest::Digest;

/// The `PATH` of docker's for Linux.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The config of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    root: Map<String, Value>,
}

/// The operating system and the processor that an image is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// In the words of Go: `linux`.
    pub os: String,
    /// In the words of Go: `amd64`, `arm64`.
    pub architecture: String,
}

/// One line of an image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The instruction.
    pub created_by: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// How an instruction gives a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// The program and its arguments.
    Exec(Vec<String>),
    /// A text for the stage's shell.
    Shell(String),
}

/// When and how it is tested whether a container is healthy. Times are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// Time between two tests.
    pub interval: Option<u64>,
    /// Time that one test may take.
    pub timeout: Option<u64>,
    /// Time in which failures do not count.
    pub start_period: Option<u64>,
    /// Time between two tests in the start period.
    pub start_interval: Option<u64>,
    /// Failures after which a container is unhealthy.
    pub retries: Option<u64>,
}

/// Why some bytes are no config.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// They are no JSON.
    #[error("the image's config is not JSON")]
    Json(#[source] serde_json::Error),
    /// They are JSON, and something else.
    #[error("the image's config has no valid `{0}`")]
    Field(&'static str),
}

impl Platform {
    /// A platform by the name of its processor in Rust's words (`std::env::consts::ARCH`).
    pub fn linux(arch: &str) -> Self {
        let architecture = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl Config {
    /// The config that a `FROM scratch` begins with.
    ///
    /// The `PATH` is docker's for Linux, so that programs find others.
    pub fn scratch(platform: &Platform) -> Self {
        let mut root = Map::new();
        root.insert("architecture".into(), platform.architecture.clone().into());
        root.insert("os".into(), platform.os.clone().into());
        root.insert("config".into(), json!({ "Env": [DEFAULT_PATH], "WorkingDir": "/" }));
        root.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": [] }));
        root.insert("history".into(), json!([]));
        Self { root }
    }

    /// Reads the config of an image.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let root: Map<String, Value> = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        let config = Self { root };
        config.try_diff_ids()?;
        match config.root.get("config") {
            None | Some(Value::Object(_) | Value::Null) => Ok(config),
            Some(_) => Err(ConfigError::Field("config")),
        }
    }

    /// The digests of the unpacked layers, the lowest first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.try_diff_ids().unwrap_or_default()
    }

    fn try_diff_ids(&self) -> Result<Vec<Digest>, ConfigError> {
        let ids = self.root.get("rootfs").and_then(|it| it.get("diff_ids"));
        let ids = ids.and_then(Value::as_array).ok_or(ConfigError::Field("rootfs.diff_ids"))?;
        ids.iter()
            .map(|it| it.as_str().and_then(|it| it.parse().ok()))
            .collect::<Option<_>>()
            .ok_or(ConfigError::Field("rootfs.diff_ids"))
    }

    /// What the image is for.
    pub fn platform(&self) -> Platform {
        let text =
            |key: &str| self.root.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Platform { os: text("os"), architecture: text("architecture") }
    }

    /// When it was made, as it is written.
    pub fn created(&self) -> Option<&str> {
        self.root.get("created").and_then(Value::as_str)
    }

    /// The environment, in order.
    pub fn env(&self) -> Vec<(String, String)> {
        self.list("Env")
            .into_iter()
            .map(|it| match it.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (it, String::new()),
            })
            .collect()
    }

    /// The folder that commands start in; `/` if none is set.
    pub fn working_folder(&self) -> String {
        match self.field("WorkingDir").and_then(Value::as_str) {
            Some(folder) if !folder.is_empty() => folder.to_owned(),
            _ => "/".to_owned(),
        }
    }

    /// What is to be done when another image is built on this one.
    pub fn on_build(&self) -> Vec<String> {
        self.list("OnBuild")
    }

    /// The shell that `CMD` and `ENTRYPOINT` in shell form use.
    pub fn shell(&self) -> Vec<String> {
        match self.list("Shell") {
            shell if shell.is_empty() => vec!["/bin/sh".into(), "-c".into()],
            shell => shell,
        }
    }

    /// The user that commands run as; empty if none is set.
    pub fn user(&self) -> String {
        self.field("User").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The same with a `PATH`, if it had none.
    #[must_use]
    pub fn with_default_path(mut self) -> Self {
        if !self.env().iter().any(|it| it.0 == "PATH") {
            let mut env = self.list("Env");
            env.push(DEFAULT_PATH.to_owned());
            self.set("Env", json!(env));
        }
        self
    }

    /// Sets variables, each in the place where it was.
    #[must_use]
    pub fn with_env(mut self, pairs: &[(String, String)]) -> Self {
        let mut env = self.env();
        for (name, value) in pairs {
            match env.iter_mut().find(|it| it.0 == *name) {
                Some(found) => value.clone_into(&mut found.1),
                None => env.push((name.clone(), value.clone())),
            }
        }
        let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.set("Env", json!(env));
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn with_label(mut self, name: &str, value: &str) -> Self {
        self.map("Labels").insert(name.into(), value.into());
        self
    }

    /// Adds a port, e.g., `8080/tcp`.
    #[must_use]
    pub fn with_port(mut self, port: &str) -> Self {
        self.map("ExposedPorts").insert(port.into(), json!({}));
        self
    }

    /// Adds a volume.
    #[must_use]
    pub fn with_volume(mut self, path: &str) -> Self {
        self.map("Volumes").insert(path.into(), json!({}));
        self
    }

    /// Sets the folder that commands start in.
    #[must_use]
    pub fn with_working_folder(mut self, folder: &str) -> Self {
        self.set("WorkingDir", folder.into());
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> Self {
        self.set("User", user.into());
        self
    }

    /// Sets who made it (`MAINTAINER`).
    #[must_use]
    pub fn with_author(mut self, author: &str) -> Self {
        self.root.insert("author".into(), author.into());
        self
    }

    /// Sets the signal that stops a container.
    #[must_use]
    pub fn with_stop_signal(mut self, signal: &str) -> Self {
        self.set("StopSignal", signal.into());
        self
    }

    /// Sets the shell.
    #[must_use]
    pub fn with_shell(mut self, shell: &[String]) -> Self {
        self.set("Shell", json!(shell));
        self
    }

    /// Sets the default arguments.
    #[must_use]
    pub fn with_command(mut self, command: &CommandLine) -> Self {
        let command = self.full(command);
        self.set("Cmd", json!(command));
        self
    }

    /// Sets the program; default arguments of a base image were for another one, and go.
    #[must_use]
    pub fn with_entrypoint(mut self, command: &CommandLine, keep_command: KeepCommand) -> Self {
        let command = self.full(command);
        self.set("Entrypoint", json!(command));
        if keep_command == KeepCommand::No {
            self.map_root("config").shift_remove("Cmd");
        }
        self
    }

    /// Sets how health is tested.
    #[must_use]
    pub fn with_healthcheck(mut self, check: &Healthcheck) -> Self {
        let mut value = Map::new();
        value.insert("Test".into(), json!(check.test));
        for (key, number) in [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
            ("Retries", check.retries),
        ] {
            if let Some(number) = number {
                value.insert(key.into(), json!(number));
            }
        }
        self.set("Healthcheck", Value::Object(value));
        self
    }

    /// The bytes of the config of an image with these layers that was made at `created` (RFC
    /// 3339); `history` is what was added to that of the base.
    pub fn finish(&self, created: &str, diff_ids: &[Digest], history: &[History]) -> Vec<u8> {
        let mut root = self.root.clone();
        root.insert("created".into(), created.into());
        // What docker writes of the container that a layer was made in says nothing of this one.
        root.shift_remove("container");
        root.shift_remove("container_config");
        let ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
        root.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": ids }));
        let mut lines = match root.shift_remove("history") {
            Some(Value::Array(lines)) => lines,
            _ => Vec::new(),
        };
        lines.extend(history.iter().map(|it| history_line(it, created)));
        root.insert("history".into(), Value::Array(lines));
        Value::Object(root).to_string().into_bytes()
    }

    fn full(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(text) => {
                let mut words = self.shell();
                words.push(text.clone());
                words
            }
        }
    }

    fn field(&self, key: &str) -> Option<&Value> {
        self.root.get("config")?.get(key)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let list = self.field(key).and_then(Value::as_array);
        let text = |it: &Value| it.as_str().map(str::to_owned);
        list.map(|it| it.iter().filter_map(text).collect()).unwrap_or_default()
    }

    fn set(&mut self, key: &str, value: Value) {
        self.map_root("config").insert(key.into(), value);
    }

    fn map(&mut self, key: &str) -> &mut Map<String, Value> {
        object(self.map_root("config").entry(key).or_insert_with(|| json!({})))
    }

    fn map_root(&mut self, key: &str) -> &mut Map<String, Value> {
        object(self.root.entry(key).or_insert_with(|| json!({})))
    }
}

/// Whether an `ENTRYPOINT` keeps the default arguments: only those of the same stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepCommand {
    /// They were set in the same stage.
    Yes,
    /// They came from the base.
    No,
}

fn history_line(line: &History, created: &str) -> Value {
    let mut value =
        json!({ "created": created, "created_by": line.created_by, "comment": "rbuild" });
    if line.empty_layer {
        value["empty_layer"] = true.into();
    }
    value
}

/// The object in `value`, which becomes an empty one if it is something else.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was just made an object"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn scratch() -> Config {
        Config::scratch(&Platform::linux("x86_64"))
    }

    fn text(config: &Config) -> String {
        String::from_utf8(config.finish("2024-01-01T00:00:00Z", &[], &[])).unwrap()
    }

    #[test]
    fn a_config_has_what_instructions_set() {
        let config = scratch()
            .with_env(&[("A".into(), "1".into()), ("PATH".into(), "/bin".into())])
            .with_label("l", "v")
            .with_port("80/tcp")
            .with_volume("/data")
            .with_user("1:1")
            .with_working_folder("/app")
            .with_command(&CommandLine::Shell("echo hi".into()))
            .with_entrypoint(&CommandLine::Exec(vec!["/app".into()]), KeepCommand::Yes)
            .with_healthcheck(&Healthcheck {
                test: vec!["NONE".into()],
                interval: Some(5),
                ..Healthcheck::default()
            });
        expect![[r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","A=1"],"WorkingDir":"/app","Labels":{"l":"v"},"ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"User":"1:1","Cmd":["/bin/sh","-c","echo hi"],"Entrypoint":["/app"],"Healthcheck":{"Test":["NONE"],"Interval":5}},"rootfs":{"type":"layers","diff_ids":[]},"created":"2024-01-01T00:00:00Z","history":[]}"#]]
        .assert_eq(&text(&config));
    }

    #[test]
    fn an_entrypoint_drops_the_arguments_of_the_base_alone() {
        let base = scratch().with_command(&CommandLine::Exec(vec!["x".into()]));
        let entrypoint = CommandLine::Exec(vec!["/app".into()]);
        let kept = base.clone().with_entrypoint(&entrypoint, KeepCommand::Yes);
        assert!(text(&kept).contains(r#""Cmd":["x"]"#));
        assert!(!text(&base.with_entrypoint(&entrypoint, KeepCommand::No)).contains("Cmd"));
    }

    #[test]
    fn keys_that_we_do_not_know_are_kept() {
        let text_in = r#"{"architecture":"amd64","os":"linux","moby.buildkit.x":1.50,"config":{"OnBuild":["RUN x"],"New":{"a":[1]}},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config =
            Config::parse(text_in.as_bytes()).unwrap().with_env(&[("A".into(), "1".into())]);
        assert_eq!(config.on_build(), ["RUN x"]);
        let out = text(&config);
        assert!(out.contains(r#""moby.buildkit.x":1.50"#) && out.contains(r#""New":{"a":[1]}"#));
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for text in ["", "[]", "{}", r#"{"rootfs":{"diff_ids":["x"]}}"#] {
            assert!(Config::parse(text.as_bytes()).is_err(), "for `{text}`");
        }
        let text = r#"{"rootfs":{"diff_ids":[]},"config":[]}"#;
        assert!(matches!(Config::parse(text.as_bytes()), Err(ConfigError::Field("config"))));
    }
}
