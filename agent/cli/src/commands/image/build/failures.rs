//! What the failures of a build mean: whose fault they are, and what to do.

use std::io;

use rbuild_imagebuilder::{
    build::{self, BuildErrorKind, OwnerError, SourceError},
    context::ContextError,
    copy::CopyError,
    digest::VerifyError,
    registry::RegistryError,
    rootfs::RootfsError,
    transfer::FetchError,
};

use super::super::{
    catalog_failure, damaged_failure, io_hint, store_failure,
    transfer::{fetch_failure, registry_failure},
};
use crate::failure::{Failure, Kind, cause_of};

const NOT_YET: &str = "rbuild refuses what it cannot do yet, rather than leave it out";
const BUILD_AGAIN: &str = "build again when nothing writes to the context";

pub(super) fn build_failure(err: BuildErrorKind) -> Failure {
    match err {
        BuildErrorKind::Store(err) => store_failure(err),
        BuildErrorKind::Catalog(err) => catalog_failure(err),
        BuildErrorKind::Layer(err) => layer_failure(err),
        BuildErrorKind::Rootfs(err)
        | BuildErrorKind::Copy(CopyError::Rootfs(err))
        | BuildErrorKind::Owner(OwnerError::Rootfs(err)) => rootfs_failure(err),
        BuildErrorKind::Source(err) => source_failure(err),
        BuildErrorKind::Owner(err) => {
            Failure::of(Kind::Input, err).hint("numbers need no file: --chown=1000:1000")
        }
        BuildErrorKind::Trigger(_) | BuildErrorKind::Remote(_) | BuildErrorKind::Archive(_) => {
            Failure::of(Kind::Input, err).hint(NOT_YET)
        }
        err => Failure::of(Kind::Input, err),
    }
}

/// An image is what it is; the store in which it lies may fail.
fn rootfs_failure(err: RootfsError) -> Failure {
    match err {
        RootfsError::Store(err) => store_failure(err),
        RootfsError::Write { ref source, .. } => {
            let hint = io_hint(source);
            Failure::of(Kind::Outside, err).hint_if(hint)
        }
        // A layer of a base is read while it comes from its registry.
        RootfsError::Tar { source, .. } if cause_of::<RegistryError>(&source).is_some() => {
            registry_cause(source)
        }
        RootfsError::Remote { layer, source } => match source.downcast::<FetchError>() {
            Ok(err) => fetch_failure(*err),
            Err(err) => Failure::of(Kind::Outside, RootfsError::Remote { layer, source: err }),
        },
        RootfsError::Contents { .. } => Failure::of(Kind::Outside, err),
        RootfsError::Tar { ref source, .. } if cause_of::<VerifyError>(source).is_some() => {
            damaged_failure(err)
        }
        RootfsError::Tar { ref source, .. } if source.raw_os_error().is_some() => {
            Failure::of(Kind::Outside, err)
        }
        RootfsError::Unsupported { .. } => Failure::of(Kind::Input, err).hint(NOT_YET),
        err => Failure::of(Kind::Input, err),
    }
}

/// The registry's own words, if the error is one of it alone.
fn registry_cause(err: io::Error) -> Failure {
    match err.downcast::<RegistryError>() {
        Ok(err) => registry_failure(err),
        Err(err) => Failure::of(Kind::Outside, err),
    }
}

fn source_failure(err: SourceError) -> Failure {
    const CONTEXT: &str = "the build context";
    match err {
        SourceError::Rootfs(err) => rootfs_failure(err),
        SourceError::Context(err) => {
            let hint = match &err {
                ContextError::Read { source, .. } => unreadable_hint(source),
                ContextError::Outside { .. } => {
                    Some("only what is in the build context can be copied")
                }
                _ => None,
            };
            context_failure(err).hint_if(hint)
        }
        SourceError::NotFound { place: CONTEXT, .. } => Failure::of(Kind::Input, err)
            .hint("paths are relative to the build context, the last argument of `image build`"),
        err => Failure::of(Kind::Input, err),
    }
}

fn unreadable_hint(err: &io::Error) -> Option<&'static str> {
    (err.kind() == io::ErrorKind::PermissionDenied)
        .then_some("let it be read, or keep it out of the build context with `.dockerignore`")
}

pub(super) fn context_failure(err: ContextError) -> Failure {
    match err {
        ContextError::Read { ref source, .. } => {
            let kind = match source.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::InvalidFilename => Kind::Input,
                _ => Kind::Outside,
            };
            Failure::of(kind, err)
        }
        ContextError::Changing { .. } => Failure::of(Kind::Outside, err).hint(BUILD_AGAIN),
        err => Failure::of(Kind::Input, err),
    }
}

fn layer_failure(err: build::LayerError) -> Failure {
    match err {
        build::LayerError::Store(err) => store_failure(err),
        err => {
            let hint = matches!(err, build::LayerError::Changed { .. }).then_some(BUILD_AGAIN);
            Failure::of(Kind::Outside, err).hint_if(hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_imagebuilder::{digest::Digest, store::StoreError, tree::TreePath};

    use super::*;

    fn io_error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    fn store() -> StoreError {
        const ENOSPC: i32 = 28;
        StoreError::Io { action: "write", path: "blob".into(), source: io_error(ENOSPC) }
    }

    fn context(number: i32) -> BuildErrorKind {
        let (path, source) = ("ctx/a".into(), io_error(number));
        SourceError::from(ContextError::Read { path, source }).into()
    }

    fn outside_context() -> ContextError {
        let (path, link) = (TreePath::ROOT, TreePath::ROOT);
        ContextError::Outside { path, link, target: "/".into() }
    }

    fn tar(source: io::Error) -> BuildErrorKind {
        RootfsError::Tar { layer: Digest::of(b""), source }.into()
    }

    fn not_found(place: &'static str) -> BuildErrorKind {
        SourceError::NotFound { path: "a".into(), place }.into()
    }

    #[test]
    fn a_failure_means_the_same_on_every_way() {
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        let layer = Digest::of(b"");
        let unsupported = || RootfsError::Unsupported { layer, what: "a door".into() };
        let full = || RootfsError::Store(store());
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, VerifyError::TooLong(layer));
        let write = || RootfsError::Write { path: TreePath::ROOT, source: io_error(EIO) };
        let (input, outside) = (Kind::Input, Kind::Outside);
        let space = "free some space";
        for (err, kind, hint) in [
            (BuildErrorKind::Rootfs(unsupported()), input, "cannot do yet"),
            (SourceError::Rootfs(unsupported()).into(), input, "cannot do yet"),
            (CopyError::Rootfs(unsupported()).into(), input, "cannot do yet"),
            (OwnerError::Rootfs(unsupported()).into(), input, "cannot do yet"),
            (RootfsError::Limit { layer, what: "much" }.into(), input, ""),
            (RootfsError::Loop(TreePath::ROOT).into(), input, ""),
            (tar(io::Error::other("no tar")), input, ""),
            (tar(io_error(EIO)), outside, ""),
            (tar(io::Error::other(damaged())), outside, "build or pull the image again"),
            (BuildErrorKind::Rootfs(write()), outside, ""),
            (RootfsError::Remote { layer, source: "gone".into() }.into(), outside, ""),
            (tar(io::Error::other(RegistryError::NoUrl("x".into()))), input, ""),
            (BuildErrorKind::Rootfs(full()), outside, space),
            (SourceError::Rootfs(full()).into(), outside, space),
            (CopyError::Rootfs(full()).into(), outside, space),
            (OwnerError::Rootfs(full()).into(), outside, space),
            (BuildErrorKind::Store(store()), outside, space),
            (OwnerError::Form("::".into()).into(), input, "numbers need no file"),
            (context(EIO), outside, ""),
            (context(EACCES), input, "let it be read"),
            (SourceError::Context(outside_context()).into(), input, "can be copied"),
            (not_found("the build context"), input, "relative to the build context"),
            (not_found("the image or stage that is copied from"), input, ""),
        ] {
            let what = format!("{err:?}");
            let failure = build_failure(err);
            assert_eq!(failure.kind, kind, "for {what}");
            let text = failure.to_string();
            let (_, told) = text.split_once("\nhint: ").unwrap_or_default();
            let is_told = told.contains(hint) && told.is_empty() == hint.is_empty();
            assert!(is_told, "for {what}: {text}");
        }
    }
}
