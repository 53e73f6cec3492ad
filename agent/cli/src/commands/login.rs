//! `rbuild login`

use std::io::{self, Read as _};

use rbuild_imagebuilder::{
    reference::{self, Reference},
    registry::{
        Credential,
        docker_config::{
            Helper,
            edit::{self, Keep},
        },
        ecr::EcrRegistry,
    },
};

use super::image::registry_failure;
use crate::{
    args::{Global, registry::Login},
    console::{
        self,
        prompt::{self, Echo},
    },
    failure::{Failure, Kind},
    registries::{self, DockerFile, helper},
};

/// The longest password that is read: tokens of ECR have about 2,000 bytes.
const LONGEST: u64 = 64 * 1024;

pub(crate) fn login(args: &Login, global: &Global) -> Result<(), Failure> {
    let registry = registry(&args.registry)?;
    check_scheme(&args.registry, &registry, global)?;
    let runtime = registries::runtime()?;
    if EcrRegistry::parse(&registry).is_some() && args.username.is_none() {
        let client = registries::client(global)?;
        runtime.block_on(client.log_in(&registry)).map_err(registry_failure)?;
        console::say(&format!(
            "no login is needed for {registry}: AWS gives a password when it is needed, and just \
             did"
        ));
        return Ok(());
    }
    let file = DockerFile::of_user().ok_or_else(nowhere)?;
    // What is wrong with the file is told before a person types a password.
    let helper = file.read()?.helper_for(&registry);
    let credential = credential(args)?;
    let client = registries::client_as(global, credential.clone())?;
    let is_asked = runtime.block_on(client.log_in(&registry)).map_err(registry_failure)?;
    if !is_asked {
        console::warn(&format!("{registry} lets in everyone: the password was not looked at"));
    }
    keep(&file, &registry, helper.as_ref(), &credential)?;
    let place = match &helper {
        Some(helper) => format!("by docker-credential-{}", helper.name),
        None => format!("in {}, as it is", file.path().display()),
    };
    console::say(&format!("logged in to {registry}; the password is kept {place}"));
    Ok(())
}

fn keep(
    file: &DockerFile,
    registry: &str,
    helper: Option<&Helper>,
    credential: &Credential,
) -> Result<(), Failure> {
    let keep = match helper {
        Some(helper) => {
            helper::store(helper, credential).map_err(|err| Failure::of(Kind::Outside, err))?;
            Keep::Elsewhere
        }
        None => Keep::Here(credential),
    };
    file.change(|text| edit::log_in(text, registry, keep).map(Some))
}

/// A registry as people write it, URLs too, as it is in names of images.
pub(super) fn registry(text: &str) -> Result<String, Failure> {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let (host, path) = bare.unwrap_or(text).split_once('/').unwrap_or((bare.unwrap_or(text), ""));
    let wrong = || {
        Failure::new(Kind::Input, format!("`{text}` is no registry's host"))
            .hint("write it as in the names of its images: registry.example.com, localhost:5000")
    };
    let parsed: Reference = format!("{host}/x").parse().map_err(|_| wrong())?;
    let is_hub = matches!(host, "docker.io" | "index.docker.io");
    if !is_hub && parsed.registry() == "docker.io" {
        return Err(wrong());
    }
    // Docker Hub's own URL has a path.
    let is_of_hub = is_hub && matches!(path, "v1" | "v1/");
    if !(path.is_empty() || is_of_hub) {
        return Err(Failure::new(Kind::Input, format!("`{text}` has a path"))
            .hint(format!("a credential is for all of a registry: write `{host}`")));
    }
    Ok(parsed.registry().to_owned())
}

/// Tells who writes `http://` when it is not that which is spoken.
fn check_scheme(text: &str, registry: &str, global: &Global) -> Result<(), Failure> {
    let is_plain = reference::is_loopback(registry)
        || global.insecure_registry.iter().any(|it| it.eq_ignore_ascii_case(registry));
    if is_plain || !text.starts_with("http://") {
        return Ok(());
    }
    Err(Failure::new(Kind::Input, format!("`{text}`: no password is sent over plain HTTP"))
        .hint(format!("write `{registry}`; --insecure-registry {registry} allows plain HTTP")))
}

pub(super) fn nowhere() -> Failure {
    Failure::new(Kind::Input, "there is no place for credentials: HOME is not set")
        .hint("set HOME, or DOCKER_CONFIG to a folder")
}

fn credential(args: &Login) -> Result<Credential, Failure> {
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ", Echo::On)?,
    };
    let password = match args.password_stdin {
        true => piped_password()?,
        false => ask("Password: ", Echo::Off)?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::new(Kind::Input, "the user or the password is empty"));
    }
    if username.contains(':') {
        return Err(Failure::new(Kind::Input, "a user has no colon in its name"));
    }
    Ok(Credential { username, password })
}

fn piped_password() -> Result<String, Failure> {
    let mut password = String::new();
    let read = io::stdin().lock().take(LONGEST).read_to_string(&mut password);
    read.map_err(|err| {
        Failure::new(Kind::Input, "the password could not be read from standard input").because(err)
    })?;
    // One line end is what `echo` adds.
    let plain = password.strip_suffix('\n').unwrap_or(&password);
    Ok(plain.strip_suffix('\r').unwrap_or(plain).to_owned())
}

fn ask(question: &str, echo: Echo) -> Result<String, Failure> {
    prompt::ask(question, echo).map_err(|err| {
        Failure::new(Kind::Input, "there is no terminal to ask for user and password on")
            .because(err)
            .hint("give them with -u USER --password-stdin")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_be_written_as_a_url() {
        for (text, want) in [
            ("docker.io", Some("docker.io")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("GHCR.io", Some("ghcr.io")),
            ("http://localhost:5000/", Some("localhost:5000")),
            ("ghcr.io/v2/", None),
            ("localhost:5000/team", None),
            ("registry", None),
            ("", None),
            ("a b.com", None),
        ] {
            assert_eq!(registry(text).ok().as_deref(), want, "for `{text}`");
        }
    }
}
