//! `rbuild logout`

use rbuild_imagebuilder::registry::docker_config::edit;

use super::login::{nowhere, registry};
use crate::{
    args::registry::Logout,
    console,
    failure::{Failure, Kind},
    registries::{DockerFile, helper},
};

pub(crate) fn logout(args: &Logout) -> Result<(), Failure> {
    let registry = registry(&args.registry)?;
    let file = DockerFile::of_user().ok_or_else(nowhere)?;
    let helper = file.read()?.helper_for(&registry);
    if let Some(helper) = helper.as_ref().filter(|it| it.is_certain) {
        helper::erase(helper).map_err(|err| Failure::of(Kind::Outside, err))?;
    }
    let mut was_known = false;
    file.change(|text| {
        let changed = edit::log_out(text, &registry)?;
        was_known = changed.is_some();
        Ok(changed)
    })?;
    if was_known || helper.is_some_and(|it| it.is_certain) {
        console::say(&format!("logged out of {registry}"));
    } else {
        console::say(&format!("no credential was kept for {registry}"));
    }
    Ok(())
}
