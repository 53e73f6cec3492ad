//! In what a registry differs from the specification, or from others.

use std::collections::BTreeSet;

/// One way in which a registry differs. See "ECR facts" for who does so and where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quirk {
    /// PATCH is answered by 201 in place of 202 (ECR).
    PatchCreated,
    /// `Range` says after every PATCH what it said after the first (ECR).
    StuckRange,
    /// What every PATCH but the first brings is lost (ECR, as some saw it).
    LosesLaterParts,
    /// All parts but the last must have 5 MiB (ECR).
    LargeParts,
    /// POST with a digest begins an upload, as if it had none (docker-registry, ECR).
    NoSinglePost,
    /// Nothing is mounted (ECR, unless the account has `BLOB_MOUNTING`).
    NoMount,
    /// Only what a manifest of the source repository names is mounted (ECR).
    MountsReferenced,
    /// A tag stays where it is (ECR, if the repository says so).
    ImmutableTags,
    /// A repository has to be made before anything is pushed to it (ECR).
    NoCreateOnPush,
    /// The children of an index have to be there before it (ECR, docker-registry).
    ChildrenFirst,
    /// Blobs lie in a storage on another host, whose requests must not carry our credentials (ECR).
    RedirectsBlobs,
    /// The referrers API answers 405 (ECR, at times).
    NoReferrers,
    /// A page of tags has 1000 at most, and more are refused (ECR).
    ShortPages,
    /// Locations are URLs with a host (ECR, docker-registry).
    AbsoluteLocations,
    /// `Content-Type` is all that tells a manifest's kind: nobody converts or refuses (ECR).
    IgnoresAccept,
}

impl Quirk {
    /// All that Amazon ECR does, with mounting enabled.
    pub const ECR: [Self; 12] = [
        Self::PatchCreated,
        Self::StuckRange,
        Self::LargeParts,
        Self::NoSinglePost,
        Self::MountsReferenced,
        Self::ImmutableTags,
        Self::NoCreateOnPush,
        Self::ChildrenFirst,
        Self::RedirectsBlobs,
        Self::NoReferrers,
        Self::ShortPages,
        Self::AbsoluteLocations,
    ];
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// Everyone may do everything.
    #[default]
    Open,
    /// One user with a password.
    Basic(&'static str, &'static str),
    /// Whoever has a password that AWS's API (which the registry answers too) gave, each good for
    /// so many requests; then it is 403 and plain text.
    Aws(Lifetime),
    /// Whoever has a token of the token service (which the registry answers too) for the
    /// repository and the action.
    Bearer(Bearer),
}

/// How long a token is good. No clock: a token ends in the middle of what a test wants it to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// Until [`super::FakeRegistry::end_tokens`].
    #[default]
    Unlimited,
    /// For so many requests.
    Requests(u32),
}

/// A token service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    /// Who may push, and with what password.
    pub user: Option<(&'static str, &'static str)>,
    /// What whoever has no password gets.
    pub anonymous: Anonymous,
    /// How long tokens are good.
    pub lifetime: Lifetime,
}

/// What a token service gives to those it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Nothing.
    #[default]
    Nothing,
    /// Tokens to pull (ECR Public, Docker Hub).
    Pull,
    /// Tokens for everything.
    Everything,
}

/// What kind of registry it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// In what it differs.
    pub quirks: BTreeSet<Quirk>,
    /// Who may do what.
    pub door: Door,
}

impl Settings {
    /// A registry that is open and differs in these ways.
    pub fn with(quirks: impl IntoIterator<Item = Quirk>) -> Self {
        Self { quirks: quirks.into_iter().collect(), door: Door::Open }
    }

    /// Amazon ECR, with tokens that are good for so long.
    pub fn ecr(lifetime: Lifetime) -> Self {
        Self { door: Door::Aws(lifetime), ..Self::with(Quirk::ECR) }
    }

    /// Amazon ECR Public: everyone may pull, and who has a password may push.
    pub fn ecr_public(user: &'static str, password: &'static str) -> Self {
        let anonymous = Anonymous::Pull;
        let bearer = Bearer { user: Some((user, password)), anonymous, ..Bearer::default() };
        Self { door: Door::Bearer(bearer), ..Self::with(Quirk::ECR) }
    }

    /// The same, but for these quirks.
    #[must_use]
    pub fn without(mut self, quirks: impl IntoIterator<Item = Quirk>) -> Self {
        for quirk in quirks {
            self.quirks.remove(&quirk);
        }
        self
    }

    /// The same with another door.
    #[must_use]
    pub fn behind(self, door: Door) -> Self {
        Self { door, ..self }
    }

    pub(super) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }
}
