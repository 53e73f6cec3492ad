//! The registry that others wrote: docker-registry, in three ways to say who may.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    namespace::Namespace,
    peers,
    process::mortal,
    scratch::Scratch,
    servers::{Server, Tokens},
};

/// How a registry learns who asks.
#[derive(Clone, Copy, Debug)]
pub enum Auth<'a> {
    /// Everyone may do everything.
    None,
    /// One user with a password.
    Basic(&'a str, &'a str),
    /// Whoever has a token of this server.
    Bearer(&'a Tokens),
}

/// A docker-registry that runs.
#[derive(Debug)]
pub struct Registry {
    server: Server,
    data: PathBuf,
}

impl Registry {
    /// Starts one.
    pub fn start(auth: Auth<'_>) -> Self {
        Self::start_as(mortal("docker-registry"), 0, auth)
    }

    /// Starts one inside, on a port that has a meaning.
    pub fn start_in(namespace: &Namespace, port: u16, auth: Auth<'_>) -> Self {
        let mut command = mortal("env");
        command.args(namespace.enter("/")).arg("docker-registry");
        Self::start_as(command, port, auth)
    }

    /// One for all tests of this process, without credentials: a test uses names of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Registry> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Auth::None))
    }

    /// Starts one that keeps everything in a folder of its own there.
    pub fn start_below(folder: &Path) -> Self {
        let dir = Scratch::below(folder);
        Self::start_with(mortal("docker-registry"), 0, Auth::None, "", dir)
    }

    /// One that speaks TLS with this certificate and key, in PEM.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.display(), key.display());
        let tls = format!(", tls: {{certificate: \"{certificate}\", key: \"{key}\"}}");
        Self::start_with(mortal("docker-registry"), 0, Auth::None, &tls, Scratch::new())
    }

    /// The same, for who has a certificate that this CA signed.
    pub fn start_with_mutual_tls(certificate: &Path, key: &Path, ca: &Path) -> Self {
        let (certificate, key, ca) = (certificate.display(), key.display(), ca.display());
        let tls = format!(
            ", tls: {{certificate: \"{certificate}\", key: \"{key}\", clientcas: [\"{ca}\"]}}"
        );
        Self::start_with(mortal("docker-registry"), 0, Auth::None, &tls, Scratch::new())
    }

    fn start_as(command: Command, port: u16, auth: Auth<'_>) -> Self {
        Self::start_with(command, port, auth, "", Scratch::new())
    }

    fn start_with(
        mut command: Command,
        port: u16,
        auth: Auth<'_>,
        tls: &str,
        dir: Scratch,
    ) -> Self {
        peers::need("docker-registry", "docker-registry");
        let data = dir.join("data");
        let config = format!(
            "version: 0.1\n\
             log: {{level: error, accesslog: {{disabled: false}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"127.0.0.1:{port}\"{tls}}}\n{}",
            data.display(),
            auth_section(auth, &dir),
        );
        let config = dir.write("config.yml", config);
        command.arg("serve").arg(config);
        Self { server: Server::start(command, dir), data }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.server.process.id()
    }

    /// The blob of more than `size` bytes that it got last: the hex digits of its digest, and the
    /// file that it is in (docker-registry's own layout of folders).
    pub fn newest_blob(&self, size: u64) -> io::Result<(String, PathBuf)> {
        let mut newest = None;
        for folder in fs::read_dir(self.data.join("docker/registry/v2/blobs/sha256"))? {
            for blob in fs::read_dir(folder?.path())? {
                let blob = blob?;
                let file = blob.path().join("data");
                let Ok(metadata) = fs::metadata(&file) else { continue };
                let found = (metadata.modified()?, blob.file_name(), file);
                if size < metadata.len() && newest.as_ref().is_none_or(|it| *it < found) {
                    newest = Some(found);
                }
            }
        }
        let (_, hex, file) = newest.ok_or_else(|| io::Error::other("no blob of that size yet"))?;
        Ok((hex.to_string_lossy().into_owned(), file))
    }

    /// The name of an image in it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// How many requests it has answered so far.
    pub fn request_count(&self) -> usize {
        self.server.log().lines().filter_map(request).count()
    }

    /// What it was asked about a repository so far: `METHOD PATH STATUS`, in order. The access log
    /// is written before the client gets the answer.
    pub fn requests(&self, repository: &str) -> Vec<String> {
        let log = self.server.log();
        let wanted = format!("/v2/{repository}/");
        log.lines().filter_map(request).filter(|it| it.contains(&wanted)).collect()
    }
}

/// The request in a line of an access log in the combined format.
fn request(line: &str) -> Option<String> {
    let mut parts = line.split('"').skip(1);
    let (request, after) = (parts.next()?, parts.next()?);
    let (request, _) = request.split_once(" HTTP/")?;
    Some(format!("{request} {}", after.split_whitespace().next()?))
}

fn auth_section(auth: Auth<'_>, dir: &Scratch) -> String {
    match auth {
        Auth::None => String::new(),
        Auth::Basic(user, password) => {
            let args = ["-nbB", "-C", "4", user, password];
            let line = peers::run("htpasswd", "apache2-utils", &args);
            let path = dir.write("htpasswd", line);
            format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", path.display())
        }
        Auth::Bearer(tokens) => format!(
            "auth:\n  token: {{realm: \"{}\", service: {}, issuer: {}, rootcertbundle: {}}}\n",
            tokens.realm(),
            Tokens::SERVICE,
            Tokens::ISSUER,
            tokens.certificate().display(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_found_in_a_line_of_the_log() {
        let line = r#"127.0.0.1 - - [23/Nov/2026:14:55:59 +0000] "GET /v2/x/tags/list HTTP/1.1" 404 109 "" "curl/7""#;
        assert_eq!(request(line).as_deref(), Some("GET /v2/x/tags/list 404"));
        assert_eq!(request(r#"time="2026" level=error msg="x""#), None);
    }
}
