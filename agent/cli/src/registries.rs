//! The client of registries, with what this machine knows of them: credentials, mirrors, and
//! certificates.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use rbuild_imagebuilder::{
    reference::Repository,
    registry::{Client, Credential, Options, RegistryError, mirrors::Mirrors},
};
use tokio::runtime::Runtime;

use self::credentials::HostCredentials;
pub(crate) use self::{credentials::Only, docker_file::DockerFile};
use crate::{
    args::Global,
    aws::Aws,
    console,
    failure::{Failure, Kind},
    host,
};

mod credentials;
mod docker_file;
pub(crate) mod helper;

/// A client for all registries; connects to nothing yet.
pub(crate) fn client(global: &Global) -> Result<Client, Failure> {
    let docker = DockerFile::of_user().map(|it| it.read()).transpose()?.unwrap_or_default();
    let credentials = HostCredentials::new(docker, Aws::new());
    Ok(Client::new(options(global)?, Arc::new(credentials)))
}

/// A client that has one credential for everything.
pub(crate) fn client_as(global: &Global, credential: Credential) -> Result<Client, Failure> {
    Ok(Client::new(options(global)?, Arc::new(Only(credential))))
}

/// What waits for networks.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|err| Failure::new(Kind::Outside, "threads could not be started").because(err))
}

fn options(global: &Global) -> Result<Options, Failure> {
    Ok(Options {
        insecure: global.insecure_registry.clone(),
        mirrors: mirrors(global)?,
        mirror_failed: tell_of_mirror,
        certificates: certificates(),
        authorities: global.registries.registry_ca.clone(),
        // About two seconds in all: someone may be waiting for the error.
        tries: 4,
        first_pause: Duration::from_millis(300),
        idle_timeout: Duration::from_secs(global.registries.idle_timeout.unwrap_or(60)),
        ..Options::default()
    })
}

fn tell_of_mirror(mirror: &Repository, error: &RegistryError) {
    console::warn(&format!("mirror `{}` is passed over: {error}", mirror.registry()));
}

/// The folders in which docker, and podman with its kin, keep certificates of registries.
fn certificates() -> Vec<PathBuf> {
    let own = host::home().map(|it| it.join(".config/containers/certs.d"));
    let all = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    own.into_iter().chain(all).collect()
}

/// The mirrors of `registries.conf`, and before them those of the command line.
fn mirrors(global: &Global) -> Result<Mirrors, Failure> {
    let mut mirrors = registries_conf()?;
    // The last one that is added goes first.
    for mirror in global.registries.registry_mirror.iter().rev() {
        mirrors.add(&mirror.prefix, &mirror.location).map_err(|err| {
            Failure::new(Kind::Input, format!("mirror `{mirror}` is none")).because(err)
        })?;
    }
    Ok(mirrors)
}

/// The first `registries.conf` that there is; one that a variable names must be there.
fn registries_conf() -> Result<Mirrors, Failure> {
    let named = host::variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
    let own = host::home().map(|it| it.join(".config/containers/registries.conf"));
    let usual = own.into_iter().chain([PathBuf::from("/etc/containers/registries.conf")]);
    let is_named = named.is_some();
    let paths: Vec<PathBuf> = named.map_or_else(|| usual.collect(), |it| vec![it]);
    for path in paths {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound && !is_named => continue,
            Err(err) => {
                let message = format!("`{}` could not be read", path.display());
                return Err(Failure::new(Kind::Input, message).because(err));
            }
        };
        let (mirrors, warnings) = Mirrors::parse(&text).map_err(|err| {
            Failure::new(Kind::Input, format!("`{}` is not valid", path.display())).because(err)
        })?;
        for warning in warnings {
            console::warn(&format!("{}: {warning}", path.display()));
        }
        return Ok(mirrors);
    }
    Ok(Mirrors::default())
}
