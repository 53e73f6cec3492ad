//! Gives a repository a blob that another of the same registry has, without carrying it (OCI
//! distribution spec, "Mounting a blob from another repository").

use reqwest::Method;

use super::{Client, RegistryError, Request, auth::Action, retry::Tries, scope, success};
use crate::{digest::Digest, reference::Repository};

impl Client {
    /// Asks for a blob of another repository of the same registry. Whether it was given: if not,
    /// it has to be uploaded.
    pub async fn mount_blob(
        &self,
        to: &Repository,
        from: &Repository,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let scope = scope(to, Action::Push);
        let mut url = self.url(to, "blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.path());
        let request = Request::new(Method::POST, url);
        let what = || format!("repository `{}`", scope.repository);
        let mut tries = Tries::new(self.0.http.options());
        loop {
            let sent = async {
                let mut entry = self.0.auth.enter(&self.0.http, &scope).await?;
                let response = self.send(&mut entry, &request).await?;
                success(response, &entry, &scope, what).await
            };
            match sent.await {
                // Any other success has begun an upload, which the registry forgets in time.
                Ok(response) => return Ok(response.status().as_u16() == 201),
                Err(error) if tries.again(&error).await => {}
                // Who may not mount may still upload, and is told so then.
                Err(error) if error.retryable() => return Err(error),
                Err(_) => return Ok(false),
            }
        }
    }
}
