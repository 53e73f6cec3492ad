//! What a registry answers in place of what was asked for.
//!
//! See the OCI distribution specification, section "Error Codes", and Amazon ECR's API reference
//! for the names of exceptions.

use serde_json::json;

use super::wire::Reply;

/// An error of a registry: a status, one of the specification's codes, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    status: u16,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(super) fn no_repository(name: &str) -> Self {
        let message = format!(
            "The repository with name '{name}' does not exist in the registry with id '{}' \
             (RepositoryNotFoundException)",
            super::ACCOUNT
        );
        Self::new(404, "NAME_UNKNOWN", message)
    }

    pub(super) fn no_upload() -> Self {
        Self::new(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    }

    pub(super) fn no_blob(digest: &str) -> Self {
        Self::new(404, "BLOB_UNKNOWN", format!("blob {digest} is unknown to this repository"))
    }

    pub(super) fn no_manifest(name: &str) -> Self {
        Self::new(404, "MANIFEST_UNKNOWN", format!("manifest {name} is unknown"))
    }

    pub(super) fn bad_digest(message: impl Into<String>) -> Self {
        Self::new(400, "DIGEST_INVALID", message)
    }

    pub(super) fn bad_manifest(message: impl Into<String>) -> Self {
        Self::new(400, "MANIFEST_INVALID", message)
    }

    pub(super) fn unsupported() -> Self {
        Self::new(405, "UNSUPPORTED", "The operation is unsupported.")
    }

    /// What went wrong with the body of a request, which is the connection's end too.
    pub(super) fn cut(err: &std::io::Error) -> Self {
        Self::new(400, "SIZE_INVALID", format!("the body ended early: {err}"))
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let Problem { status, code, message, headers } = problem;
        let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
        let reply = Self::new(status).body("application/json; charset=utf-8", body);
        headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value))
    }
}
