//! Where to pull from instead: `registries.conf`, version 2, as skopeo, podman and buildah have it
//! (containers-registries.conf(5)).
//!
//! **Architecture invariant:** mirrors are for pulls alone; what they give is right by its digest,
//! or the next one is asked, and the origin last.

use thiserror::Error;
use toml::{Table, Value};

use super::RegistryError;
use crate::reference::{Reference, Repository};

/// Where repositories are pulled from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    rules: Vec<Rule>,
}

/// What holds for the repositories that a prefix names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    /// `example.com`, `example.com/team`, or `*.example.com`.
    prefix: String,
    /// What stands in place of the prefix.
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    pulls: Pulls,
}

/// Which pulls a mirror is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pulls {
    #[default]
    All,
    ByDigest,
    ByTag,
}

/// How something is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Digest,
    Tag,
}

/// Why some text is no configuration of registries.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum MirrorsError {
    /// It is no TOML.
    #[error("it is no TOML: {0}")]
    Toml(String),
    /// A key has a value that it cannot have.
    #[error("`{key}` must be {must}")]
    Value {
        /// The key.
        key: String,
        /// What it must be.
        must: &'static str,
    },
    /// An entry names no registry.
    #[error("a `[[registry]]` has neither `prefix` nor `location`")]
    Nothing,
    /// A location is no registry with a path.
    #[error("`{0}` is no registry with an optional path: `registry.example.com/team`")]
    Location(String),
}

impl By {
    pub(super) fn of(reference: &Reference) -> Self {
        if reference.digest().is_some() { Self::Digest } else { Self::Tag }
    }
}

impl Mirrors {
    /// Reads a `registries.conf`; what is in it and not known is told in words.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), MirrorsError> {
        let table: Table = text
            .parse()
            .map_err(|err: toml::de::Error| MirrorsError::Toml(err.message().to_owned()))?;
        let mut reader = Reader::default();
        let mut rules = Vec::new();
        for (key, value) in &table {
            match key.as_str() {
                "registry" => {
                    for entry in tables("registry", value)? {
                        rules.push(reader.rule(entry)?);
                    }
                }
                "unqualified-search-registries" => reader.search(value),
                "short-name-mode" | "aliases" => {}
                "registries" => reader.say("`[registries]` is of version 1 and ignored".into()),
                key => reader.unknown(key),
            }
        }
        Ok((Self { rules }, reader.warnings))
    }

    /// Adds a mirror, to be asked before all others for what `prefix` names.
    pub fn add(&mut self, prefix: &str, location: &str) -> Result<(), MirrorsError> {
        let (prefix, location) = (checked(prefix)?, checked(location)?);
        let mirror = Mirror { location, ..Mirror::default() };
        match self.rules.iter_mut().find(|it| it.prefix == prefix) {
            Some(rule) => rule.mirrors.insert(0, mirror),
            None => {
                // What holds for a longer or shorter prefix in the file holds here too.
                let like = self.rule_of_name(&prefix).cloned().unwrap_or_default();
                let location =
                    like.place(&like.location, &prefix).unwrap_or_else(|| prefix.clone());
                let mirrors = [mirror].into_iter().chain(like.rebased(&prefix)).collect();
                self.rules.push(Rule { prefix, location, mirrors, ..like });
            }
        }
        Ok(())
    }

    /// Whether a registry (`host`, or `host:port`) is marked to be spoken to without TLS.
    pub(super) fn is_insecure(&self, registry: &str) -> bool {
        let is = |location: &str| location.split('/').next() == Some(registry);
        self.rules.iter().any(|rule| {
            rule.insecure && is(&rule.location)
                || rule.mirrors.iter().any(|it| it.insecure && is(&it.location))
        })
    }

    /// Whether the user allows to speak of a repository at all.
    pub(super) fn allowed(&self, repository: &Repository) -> Result<(), RegistryError> {
        match self.rule(repository) {
            Some(rule) if rule.blocked => Err(RegistryError::Blocked(repository.canonical())),
            _ => Ok(()),
        }
    }

    /// The places to ask before the origin.
    pub(super) fn of(
        &self,
        repository: &Repository,
        by: By,
    ) -> Result<Vec<Repository>, RegistryError> {
        self.allowed(repository)?;
        let Some(rule) = self.rule(repository) else { return Ok(Vec::new()) };
        let mirrors = rule.mirrors.iter().filter(|it| match it.pulls {
            Pulls::All => true,
            Pulls::ByDigest => by == By::Digest,
            Pulls::ByTag => by == By::Tag,
        });
        mirrors.map(|it| rule.there(&it.location, repository)).collect()
    }

    /// Where a repository is pulled from if no mirror has it.
    pub(super) fn origin(&self, repository: &Repository) -> Result<Repository, RegistryError> {
        self.allowed(repository)?;
        match self.rule(repository) {
            Some(rule) => rule.there(&rule.location, repository),
            None => Ok(repository.clone()),
        }
    }

    /// The rule with the longest prefix.
    fn rule(&self, repository: &Repository) -> Option<&Rule> {
        self.rule_of_name(&repository.canonical())
    }

    fn rule_of_name(&self, name: &str) -> Option<&Rule> {
        let matching = self.rules.iter().filter(|it| it.length(name).is_some());
        matching.max_by_key(|it| it.prefix.len())
    }
}

impl Rule {
    /// The length of what the prefix stands for in `name`, if it does.
    fn length(&self, name: &str) -> Option<usize> {
        let length = match self.prefix.strip_prefix('*') {
            Some(suffix) => {
                let host = name.split('/').next().unwrap_or_default();
                host.split(':').next().filter(|it| it.ends_with(suffix))?.len()
            }
            None => name.strip_prefix(self.prefix.as_str()).map(|_| self.prefix.len())?,
        };
        let ends = matches!(name.as_bytes().get(length), None | Some(b'/'));
        ends.then_some(length)
    }

    /// The name at a location.
    fn place(&self, location: &str, name: &str) -> Option<String> {
        let rest = &name[self.length(name)?..];
        Some(if location.is_empty() { name.to_owned() } else { format!("{location}{rest}") })
    }

    fn there(&self, location: &str, repository: &Repository) -> Result<Repository, RegistryError> {
        let from = repository.canonical();
        let to = self.place(location, &from).unwrap_or_else(|| from.clone());
        match to.parse::<Reference>() {
            Ok(there) if there.tag().is_none() && there.digest().is_none() => {
                Ok(there.repository().clone())
            }
            _ => Err(RegistryError::Misled { from, to }),
        }
    }

    /// The mirrors for a longer prefix.
    fn rebased(&self, prefix: &str) -> Vec<Mirror> {
        let rebased = |it: &Mirror| {
            Some(Mirror { location: self.place(&it.location, prefix)?, ..it.clone() })
        };
        self.mirrors.iter().filter_map(rebased).collect()
    }
}

/// Reads values, and collects what there is to be said of them.
#[derive(Default)]
struct Reader {
    warnings: Vec<String>,
}

impl Reader {
    fn say(&mut self, text: String) {
        self.warnings.push(text);
    }

    fn unknown(&mut self, key: &str) {
        self.say(format!("`{key}` is not known and ignored"));
    }

    fn search(&mut self, value: &Value) {
        let hub = Value::from(vec!["docker.io"]);
        let empty = value.as_array().is_some_and(Vec::is_empty);
        if *value != hub && !empty {
            self.say(
                "`unqualified-search-registries` is ignored: names without a registry are of \
                 docker.io"
                    .into(),
            );
        }
    }

    fn rule(&mut self, table: &Table) -> Result<Rule, MirrorsError> {
        let mut rule = Rule::default();
        let mut by_digest_only = false;
        for (key, value) in table {
            match key.as_str() {
                "prefix" => rule.prefix = checked(text("prefix", value)?)?,
                "location" => rule.location = checked(text("location", value)?)?,
                "insecure" => rule.insecure = flag("insecure", value)?,
                "blocked" => rule.blocked = flag("blocked", value)?,
                "mirror-by-digest-only" => by_digest_only = flag("mirror-by-digest-only", value)?,
                "mirror" => {
                    for entry in tables("registry.mirror", value)? {
                        rule.mirrors.push(self.mirror(entry)?);
                    }
                }
                key => self.unknown(&format!("registry.{key}")),
            }
        }
        if rule.prefix.is_empty() {
            rule.prefix.clone_from(&rule.location);
        }
        if rule.prefix.is_empty() {
            return Err(MirrorsError::Nothing);
        }
        if rule.location.is_empty() && !rule.prefix.starts_with('*') {
            rule.location.clone_from(&rule.prefix);
        }
        if by_digest_only {
            rule.mirrors.iter_mut().for_each(|it| it.pulls = Pulls::ByDigest);
        }
        Ok(rule)
    }

    fn mirror(&mut self, table: &Table) -> Result<Mirror, MirrorsError> {
        let mut mirror = Mirror::default();
        for (key, value) in table {
            match key.as_str() {
                "location" => mirror.location = checked(text("location", value)?)?,
                "insecure" => mirror.insecure = flag("insecure", value)?,
                "pull-from-mirror" => {
                    mirror.pulls = match text("pull-from-mirror", value)? {
                        "all" => Pulls::All,
                        "digest-only" => Pulls::ByDigest,
                        "tag-only" => Pulls::ByTag,
                        _ => {
                            return Err(MirrorsError::Value {
                                key: "pull-from-mirror".into(),
                                must: "`all`, `digest-only` or `tag-only`",
                            });
                        }
                    }
                }
                key => self.unknown(&format!("registry.mirror.{key}")),
            }
        }
        if mirror.location.is_empty() {
            return Err(MirrorsError::Value { key: "location".into(), must: "in each mirror" });
        }
        Ok(mirror)
    }
}

fn tables<'a>(key: &str, value: &'a Value) -> Result<Vec<&'a Table>, MirrorsError> {
    let wrong = || MirrorsError::Value { key: key.into(), must: "a list of tables" };
    value.as_array().ok_or_else(wrong)?.iter().map(|it| it.as_table().ok_or_else(wrong)).collect()
}

fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str, MirrorsError> {
    value.as_str().ok_or_else(|| MirrorsError::Value { key: key.into(), must: "a text" })
}

fn flag(key: &str, value: &Value) -> Result<bool, MirrorsError> {
    value.as_bool().ok_or_else(|| MirrorsError::Value { key: key.into(), must: "true or false" })
}

/// A registry, and perhaps the beginning of a path in it.
fn checked(location: &str) -> Result<String, MirrorsError> {
    let wrong = || MirrorsError::Location(location.to_owned());
    let plain = location.trim_end_matches('/');
    let bare = plain.strip_prefix("*.").map_or_else(|| plain.to_owned(), |it| format!("x.{it}"));
    // Any repository below it will do to see whether it is one.
    let parsed: Reference = format!("{bare}/x").parse().map_err(|_| wrong())?;
    let host = bare.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let is_hub = matches!(host.as_str(), "index.docker.io" | "docker.io");
    if parsed.registry() != host && !is_hub {
        return Err(wrong());
    }
    Ok(plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
unqualified-search-registries = ["quay.io"]
short-name-mode = "enforcing"
later = 1

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.lan:5000/hub"
insecure = true
[[registry.mirror]]
location = "digests.lan"
pull-from-mirror = "digest-only"
speed = 3

[[registry]]
prefix = "docker.io/library/secret"
blocked = true

[[registry]]
prefix = "example.com/team"
location = "inner.example.com/other"

[[registry]]
prefix = "*.wild.com"
[[registry.mirror]]
location = "wild.lan/all"

[[registry]]
location = "old.lan:80"
insecure = true
"#;

    fn repository(name: &str) -> Repository {
        name.parse::<Reference>().unwrap().repository().clone()
    }

    fn places(mirrors: &Mirrors, name: &str, by: By) -> String {
        let repository = repository(name);
        let asked = || {
            let mut places = mirrors.of(&repository, by)?;
            places.push(mirrors.origin(&repository)?);
            Ok::<_, RegistryError>(places)
        };
        match asked() {
            Ok(places) => places.iter().map(Repository::canonical).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn mirrors_are_asked_in_order_and_the_origin_last() {
        let (mirrors, warnings) = Mirrors::parse(CONFIG).unwrap();
        for (name, by, want) in [
            (
                "busybox",
                By::Digest,
                "mirror.lan:5000/hub/library/busybox digests.lan/library/busybox \
                 docker.io/library/busybox",
            ),
            ("a/b", By::Tag, "mirror.lan:5000/hub/a/b docker.io/a/b"),
            (
                "secret",
                By::Tag,
                "`docker.io/library/secret` is blocked by the configuration of registries",
            ),
            ("example.com/team/x", By::Tag, "inner.example.com/other/x"),
            ("example.com/teams/x", By::Tag, "example.com/teams/x"),
            ("a.b.wild.com/x", By::Tag, "wild.lan/all/x a.b.wild.com/x"),
            ("wild.com/x", By::Tag, "wild.com/x"),
            ("quay.io/x", By::Digest, "quay.io/x"),
        ] {
            assert_eq!(places(&mirrors, name, by), want, "for `{name}`");
        }
        for (registry, want) in [
            ("mirror.lan:5000", true),
            ("old.lan:80", true),
            ("mirror.lan", false),
            ("digests.lan", false),
            ("docker.io", false),
        ] {
            assert_eq!(mirrors.is_insecure(registry), want, "for `{registry}`");
        }
        assert_eq!(
            warnings,
            [
                "`later` is not known and ignored",
                "`registry.mirror.speed` is not known and ignored",
                "`unqualified-search-registries` is ignored: names without a registry are of \
                 docker.io",
            ]
        );
    }

    #[test]
    fn a_mirror_that_is_added_goes_first() {
        let (mut mirrors, _) = Mirrors::parse(CONFIG).unwrap();
        mirrors.add("docker.io", "flag.lan").unwrap();
        mirrors.add("docker.io/library", "library.lan/l").unwrap();
        mirrors.add("new.com", "localhost:5000/new").unwrap();
        for (name, want) in [
            ("a/b", "flag.lan/a/b mirror.lan:5000/hub/a/b docker.io/a/b"),
            (
                "busybox",
                "library.lan/l/busybox flag.lan/library/busybox \
                 mirror.lan:5000/hub/library/busybox docker.io/library/busybox",
            ),
            ("new.com/x", "localhost:5000/new/x new.com/x"),
        ] {
            assert_eq!(places(&mirrors, name, By::Tag), want, "for `{name}`");
        }
        for wrong in ["", "lan", "https://a.com", "a.com/A", "a.com:x"] {
            assert!(mirrors.add("docker.io", wrong).is_err(), "for `{wrong}`");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for (text, want) in [
            (
                "[[registry]]\ninsecure = 1\nlocation = \"a.com\"",
                "`insecure` must be true or false",
            ),
            ("[[registry]]", "a `[[registry]]` has neither `prefix` nor `location`"),
            ("registry = 3", "`registry` must be a list of tables"),
            (
                "[[registry]]\nlocation = \"a\"",
                "`a` is no registry with an optional path: `registry.example.com/team`",
            ),
            (
                "[[registry]]\nlocation = \"a.com\"\n[[registry.mirror]]\nlocation = \"b.com\"\n\
                 pull-from-mirror = \"never\"",
                "`pull-from-mirror` must be `all`, `digest-only` or `tag-only`",
            ),
        ] {
            assert_eq!(Mirrors::parse(text).unwrap_err().to_string(), want, "for `{text}`");
        }
        assert!(matches!(Mirrors::parse("[["), Err(MirrorsError::Toml(_))));
        assert_eq!(Mirrors::parse("").unwrap(), (Mirrors::default(), Vec::new()));
    }
}
