//! What of rbuild's own environment the commands of a build get.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use rbuild_agent::secret::{CREDENTIALS, Secret};

use super::Variables;
use crate::{
    args::{Global, Run},
    failure::Failure,
    host,
};

/// Variables that make the host usable, and say nothing of who called: where programs and home
/// are, locale, proxies, AWS and toolchains, and what rbuild itself reads.
const NAMES: [&str; 19] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "RUSTUP_HOME",
    "CARGO_HOME",
    "DOCKER_CONFIG",
    "SOURCE_DATE_EPOCH",
];
const PREFIXES: [&str; 3] = ["LC_", "AWS_", "RBUILD_"];

/// The environment that the variables of the build are added to.
pub(super) fn base(args: &Run, global: &Global) -> Result<Variables, Failure> {
    // In an image of CodeBuild everything was put there for the build.
    let all = args.inherit_env || host::variable("CODEBUILD_BUILD_ARN").is_some();
    let mut variables: Variables =
        host::variables().into_iter().filter(|(name, _)| all || passes(name)).collect();
    if let Some(profile) = &args.profile {
        // As with the AWS CLI, a profile that was asked for wins over credentials that are there.
        variables.retain(|it| !CREDENTIALS.iter().any(|name| it.0 == *name));
        set(&mut variables, "AWS_PROFILE", profile.into());
    }
    // Commands that call rbuild use the same store and the same registries.
    let asked = global.store.is_some() || host::variable("XDG_CACHE_HOME").is_some();
    if asked {
        let folder = host::store_folder(global.store.as_deref())?;
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        set(&mut variables, "RBUILD_STORE", folder.into_os_string());
    }
    if !global.insecure_registry.is_empty() {
        let hosts = global.insecure_registry.join(",");
        set(&mut variables, "RBUILD_INSECURE_REGISTRIES", hosts.into());
    }
    if !global.registries.registry_mirror.is_empty() {
        let mirrors: Vec<String> =
            global.registries.registry_mirror.iter().map(ToString::to_string).collect();
        set(&mut variables, "RBUILD_REGISTRY_MIRRORS", mirrors.join(",").into());
    }
    if !global.registries.registry_ca.is_empty() {
        // Commands may run in another folder.
        let whole = |it: &PathBuf| std::path::absolute(it).unwrap_or_else(|_| it.clone());
        let files: Vec<OsString> =
            global.registries.registry_ca.iter().map(|it| whole(it).into_os_string()).collect();
        set(&mut variables, "RBUILD_REGISTRY_CA", files.join(OsStr::new(",")));
    }
    Ok(variables)
}

/// AWS's own keys have 20 characters at least. Those of emulators may be words such as `test`, and
/// without them a log could not be read.
const SHORTEST_CREDENTIAL: usize = 16;

/// The values of AWS credentials among variables: output must not show them.
pub(super) fn credentials(variables: &Variables) -> Vec<Secret> {
    let is_credential = |name: &OsStr| CREDENTIALS.iter().any(|it| name == *it);
    let found = variables.iter().filter(|it| is_credential(&it.0));
    let found = found.filter(|it| SHORTEST_CREDENTIAL <= it.1.len());
    found.map(|it| Secret::new(it.1.to_string_lossy().into_owned())).collect()
}

fn passes(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    NAMES.contains(&name.as_ref()) || PREFIXES.iter().any(|it| name.starts_with(it))
}

fn set(variables: &mut Variables, name: &str, value: OsString) {
    variables.retain(|it| it.0 != name);
    variables.push((name.into(), value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_who_called_does_not_pass() {
        for (name, want) in [
            ("PATH", true),
            ("LC_ALL", true),
            ("AWS_PROFILE", true),
            ("CARGO_HOME", true),
            ("SSH_AUTH_SOCK", false),
            ("GITHUB_TOKEN", false),
            ("SECRET", false),
            ("XPATH", false),
        ] {
            assert_eq!(passes(OsStr::new(name)), want, "for `{name}`");
        }
    }
}
