//! The credentials that this machine has: ECR's come from AWS and stay in memory; all others come
//! from docker's own file, or from the programs that it names.

use std::future;

use rbuild_imagebuilder::registry::{
    Action, Credential, CredentialFuture, Credentials, CredentialsError,
    docker_config::{DockerConfig, Kept},
    ecr::{self, EcrRegistry},
};

use super::helper;
use crate::aws::Aws;

/// All that are known.
pub(super) struct HostCredentials {
    docker: DockerConfig,
    aws: Aws,
}

impl HostCredentials {
    pub(super) fn new(docker: DockerConfig, aws: Aws) -> Self {
        Self { docker, aws }
    }

    async fn of_docker(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        match self.docker.find(registry)? {
            Some(Kept::Credential(credential)) => Ok(Some(credential)),
            Some(Kept::Helper(helper)) => {
                // The program may ask a person, or a network.
                let asked = tokio::task::spawn_blocking(move || helper::get(&helper)).await;
                let unavailable = |err| CredentialsError::Unavailable(Box::new(err));
                asked.map_err(|err| CredentialsError::Unavailable(err.into()))?.map_err(unavailable)
            }
            None => Ok(None),
        }
    }

    async fn find(
        &self,
        registry: &str,
        action: Action,
        refused: Option<&Credential>,
    ) -> Result<Option<Credential>, CredentialsError> {
        let password = refused.map(|it| it.password.as_str());
        let login = match EcrRegistry::parse(registry) {
            Some(ecr) => self.aws.ecr_login(&ecr, password).await,
            // Everyone may pull from there: AWS is not waited for.
            None if registry == ecr::PUBLIC && action == Action::Push => {
                self.aws.ecr_public_login(password).await
            }
            None => return Ok(self.of_docker(registry).await?.filter(|it| Some(it) != refused)),
        };
        let err = match login {
            Ok(login) => return Ok(Some(login)),
            Err(err) => err,
        };
        // Where AWS gives no password, someone may have logged in by hand.
        match self.of_docker(registry).await {
            Ok(Some(kept)) if Some(&kept) != refused => Ok(Some(kept)),
            _ => Err(CredentialsError::Unavailable(Box::new(err))),
        }
    }
}

impl Credentials for HostCredentials {
    fn credential<'a>(
        &'a self,
        registry: &'a str,
        action: Action,
        refused: Option<&'a Credential>,
    ) -> CredentialFuture<'a> {
        Box::pin(self.find(registry, action, refused))
    }
}

/// Knows one credential.
pub(crate) struct Only(pub(crate) Credential);

impl Credentials for Only {
    fn credential<'a>(
        &'a self,
        _: &'a str,
        _: Action,
        refused: Option<&'a Credential>,
    ) -> CredentialFuture<'a> {
        let own = Some(self.0.clone()).filter(|it| Some(it) != refused);
        Box::pin(future::ready(Ok(own)))
    }
}
