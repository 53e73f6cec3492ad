//! What the environment says where the arguments say nothing.
//!
//! clap's own way takes a variable that is empty for a value, tells of a bad one under the name of
//! the flag, and shows the flag in each usage line as if it had to be given.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use super::{Global, cache, registry::IDLE_SECONDS};
use crate::{
    failure::{Failure, Kind},
    host,
};

impl Global {
    /// With what variables say of what was not given.
    pub(crate) fn or_environment(mut self) -> Result<Self, Failure> {
        let registries = &mut self.registries;
        self.store = self.store.or_else(|| host::variable_os("RBUILD_STORE").map(PathBuf::from));
        if self.max_store_size.is_none() {
            self.max_store_size = parsed("RBUILD_STORE_LIMIT", cache::size)?;
        }
        if self.insecure_registry.is_empty() {
            self.insecure_registry = list("RBUILD_INSECURE_REGISTRIES", String::from_str)?;
        }
        if registries.registry_mirror.is_empty() {
            registries.registry_mirror = list("RBUILD_REGISTRY_MIRRORS", FromStr::from_str)?;
        }
        if registries.registry_ca.is_empty() {
            registries.registry_ca = list("RBUILD_REGISTRY_CA", PathBuf::from_str)?;
        }
        if registries.idle_timeout.is_none() {
            registries.idle_timeout = parsed("RBUILD_REGISTRY_TIMEOUT", |text| {
                let seconds = text.parse().ok().filter(|it| IDLE_SECONDS.contains(it));
                seconds.ok_or("write seconds, from 1 to 3600")
            })?;
        }
        Ok(self)
    }
}

/// The value of a variable, if it is set and not empty.
fn parsed<T, E: ToString>(
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, Failure> {
    let Some(text) = text(name)? else { return Ok(None) };
    parse(&text).map(Some).map_err(|err| invalid(name, &text, &err))
}

/// The values of a variable, between commas.
fn list<T, E: ToString>(
    name: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Failure> {
    let text = text(name)?.unwrap_or_default();
    let items = text.split(',').filter(|it| !it.is_empty());
    items.map(|it| parse(it).map_err(|err| invalid(name, it, &err))).collect()
}

fn text(name: &str) -> Result<Option<String>, Failure> {
    let into_text = |it: OsString| {
        it.into_string().map_err(|_| Failure::new(Kind::Input, format!("{name} is not UTF-8")))
    };
    host::variable_os(name).map(into_text).transpose()
}

fn invalid(name: &str, text: &str, err: &impl ToString) -> Failure {
    Failure::new(Kind::Input, format!("`{text}` in the variable {name} is not valid"))
        .hint(err.to_string())
}
