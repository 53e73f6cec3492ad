//! `rbuild image build --push`: layers go to the registry while they are made, and the image when
//! it is whole.

use std::collections::BTreeSet;

use rbuild_imagebuilder::{
    digest::Digest, layer::Uploads, reference::Reference, store::Store, transfer::LayerUploads,
};
use serde_json::Value;

use super::{
    super::transfer::{Pusher, Report},
    Registries,
};
use crate::{
    args::{ImageBuild, registry::Pushing},
    console::{self, images::Images},
    failure::{Failure, Kind},
};

/// A push that began with the build.
pub(super) struct Push<'a> {
    registries: &'a Registries,
    args: &'a Pushing,
    uploads: LayerUploads,
}

/// A name under which the image was pushed.
pub(super) struct Pushed {
    /// With its digest: `NAME@sha256:…`.
    pub(super) name: String,
    /// What `image push --json` says of it.
    pub(super) report: Value,
}

impl<'a> Push<'a> {
    /// Makes sure that all that will be pushed can be, before anything is built. None if there is
    /// nothing to push.
    pub(super) fn begin(
        args: &'a ImageBuild,
        registries: Option<&'a Registries>,
        names: &[Reference],
    ) -> Result<Option<Self>, Failure> {
        let Some(registries) = registries.filter(|_| args.push) else { return Ok(None) };
        let first = names.first().ok_or_else(|| {
            Failure::new(Kind::Input, "there is nowhere to push to").hint("name the image with -t")
        })?;
        let Registries { client, runtime } = registries;
        let pusher = Pusher { client, runtime, args: &args.pushing };
        for repository in names.iter().map(Reference::repository).collect::<BTreeSet<_>>() {
            pusher.check(repository)?;
        }
        let uploads = LayerUploads::new(client, first.repository(), runtime.handle());
        Ok(Some(Self { registries, args: &args.pushing, uploads }))
    }

    /// Takes layers while they are made.
    pub(super) fn uploads(&self) -> &dyn Uploads {
        &self.uploads
    }

    /// Pushes the image under all its names.
    pub(super) fn finish(
        &self,
        store: &Store,
        digest: Digest,
        names: &[Reference],
        view: &Images,
    ) -> Result<Vec<Pushed>, Failure> {
        let settled = self.uploads.settle();
        for failure in &settled.failures {
            console::say(&format!("        a layer is uploaded again: {failure}"));
        }
        let Registries { client, runtime } = self.registries;
        let pusher = Pusher { client, runtime, args: self.args };
        let mut done = Vec::new();
        for name in names {
            let report = Report::default();
            pusher.push(store, digest, name, &|event| report.follow(view, &event))?;
            let first = done.is_empty();
            let early = settled.uploaded.iter().filter(|_| first);
            early.for_each(|it| report.carried_before(*it));
            let report = report.json(name, digest);
            done.push(Pushed { name: name.pinned(digest).to_string(), report });
        }
        Ok(done)
    }
}
