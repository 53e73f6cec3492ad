//! The client of registries, with the credentials that this machine has for them.
//!
//! ECR's come from AWS and stay in memory; all others come from docker's own file.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use rbuild_imagebuilder::registry::{
    Client, Credential, CredentialFuture, Credentials, CredentialsError, Options,
    docker_config::DockerConfig, ecr::EcrRegistry,
};
use tokio::runtime::Runtime;

use crate::{
    args::Global,
    aws::Aws,
    failure::{Failure, Kind},
    host,
};

/// A client for all registries; connects to nothing yet.
pub(crate) fn client(global: &Global) -> Result<Client, Failure> {
    let credentials = HostCredentials { docker: docker_config()?, aws: Aws::new() };
    let options = Options {
        insecure: global.insecure_registry.clone(),
        // About two seconds in all: someone may be waiting for the error.
        tries: 4,
        first_pause: Duration::from_millis(300),
        ..Options::default()
    };
    Ok(Client::new(options, Arc::new(credentials)))
}

/// What waits for networks.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|err| Failure::new(Kind::Outside, "threads could not be started").because(err))
}

struct HostCredentials {
    docker: DockerConfig,
    aws: Aws,
}

impl Credentials for HostCredentials {
    fn credential<'a>(
        &'a self,
        registry: &'a str,
        refused: Option<&'a Credential>,
    ) -> CredentialFuture<'a> {
        let Some(ecr) = EcrRegistry::parse(registry) else {
            return self.docker.credential(registry, refused);
        };
        Box::pin(async move {
            let refused = refused.map(|it| it.password.as_str());
            match self.aws.ecr_login(&ecr, refused).await {
                Ok(login) => Ok(Some(login)),
                Err(err) => Err(CredentialsError::Unavailable(Box::new(err))),
            }
        })
    }
}

fn docker_config() -> Result<DockerConfig, Failure> {
    let folder = host::variable("DOCKER_CONFIG").map(PathBuf::from);
    let Some(folder) = folder.or_else(|| host::home().map(|it| it.join(".docker"))) else {
        return Ok(DockerConfig::default());
    };
    let path = folder.join("config.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(DockerConfig::default()),
        Err(err) => {
            let message = format!("`{}` could not be read", path.display());
            return Err(Failure::new(Kind::Input, message).because(err));
        }
    };
    text.parse::<DockerConfig>().map_err(|err| {
        Failure::new(Kind::Input, format!("`{}` is not valid", path.display())).because(err)
    })
}
