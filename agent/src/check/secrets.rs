//! Values of variables that look like secrets, and values that refer to what they cannot know.
//!
//! **Architecture invariant:** no message has a value in it.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use crate::{
    check::{
        File, Finding,
        outline::{Outline, Variable},
    },
    secret::Secret,
};

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    let outline = file.outline;
    let secrets = outline.variables.iter().filter_map(|it| {
        let why = why_secret(it)?;
        let message = format!("the value of `{}` {why}", it.name);
        Some(Finding::new("secret-in-variables", it.value.place, message).hint(
            "keep it in SSM Parameter Store or Secrets Manager, and name it in \
             `env.parameter-store` or `env.secrets-manager`",
        ))
    });
    let references = outline.variables.iter().filter_map(|it| reference(it, outline));
    secrets.chain(references).collect()
}

/// The values that must not be shown, line by line.
pub(super) fn values(outline: &Outline<'_>) -> Vec<Secret> {
    let secrets = outline.variables.iter().filter(|it| why_secret(it).is_some());
    let lines = secrets.flat_map(|it| it.value.text.lines()).map(str::trim);
    // What is shorter hides nothing, and much else.
    lines.filter(|it| it.len() >= 4).map(|it| Secret::new(it.to_owned())).collect()
}

/// What values of well-known kinds look like.
const KINDS: &[(&str, &str)] = &[
    (r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b", "is an AWS access key"),
    (r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{22,}", "is a GitHub token"),
    (r"\bglpat-[A-Za-z0-9_-]{20,}", "is a GitLab token"),
    (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", "is a Slack token"),
    (r"\b[rs]k_live_[A-Za-z0-9]{16,}", "is a Stripe key"),
    (r"\bnpm_[A-Za-z0-9]{36}\b", "is an npm token"),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY", "is a private key"),
    (r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*", "is a JSON web token"),
    (r"^[a-z][a-z0-9+.-]*://[^\s/:@$]*:[^\s/@${}<]+@", "is a URL with a password in it"),
];

static KNOWN: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(KINDS.iter().map(|(pattern, _)| pattern)).expect("patterns that compile")
});
/// The names of variables whose values are secret, in small letters.
static SECRET_NAME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?:^|_)(?:password|passwd|passphrase|secret|token|api_?key|private_key|access_key|auth_key)$",
    )
});
static AWS_SECRET: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[A-Za-z0-9/+]{40}$"));
/// What stands for a value, or says where it is (a path, an ARN, a URL, or a reference), in small
/// letters.
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x) ^\s*$ | ^(?:/|\./|~/|arn:|[a-z0-9]+://) | \$ | \{\{ | ^<.*>$ | ^\*+$ | ^x+$ | ^\.+$
        | ^(?:true|false|yes|no|on|off|none|null|nil|empty|unset|undefined|test|dummy|fake|example
           |sample|placeholder|secret|password|token|todo|tbd|local|n/a|\d{1,3})$
        | change[-_]?me | replace[-_]?me | your[-_\ ] | ^(?:my|dummy|fake|example|test)[-_]
        | (?:^|[-_])(?:placeholder|here)$",
    )
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that compiles")
}

/// Why a value seems to be secret.
fn why_secret(variable: &Variable<'_>) -> Option<&'static str> {
    let value = variable.value.text;
    if let Some(index) = KNOWN.matches(value).iter().next() {
        return Some(KINDS[index].1);
    }
    let name = variable.name.to_ascii_lowercase();
    if name.contains("aws") && name.contains("secret") && AWS_SECRET.is_match(value) {
        return Some("is an AWS secret access key");
    }
    let is_literal = !PLACEHOLDER.is_match(&value.to_ascii_lowercase()) && !names_a_secret(value);
    (SECRET_NAME.is_match(&name) && is_literal).then_some("looks like a secret, as its name says")
}

/// Whether a value is the path of a secret, such as `prod/db/password`, and not one.
fn names_a_secret(value: &str) -> bool {
    let is_word = |it: &str| {
        !it.is_empty() && it.chars().all(|it| it.is_ascii_lowercase() || matches!(it, '-' | '_'))
    };
    value.contains('/') && value.split('/').all(is_word)
}

/// `$NAME`, `${NAME}`, and `$(command)`.
static REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)|([A-Za-z_][A-Za-z0-9_]*)|(\())"));

/// A value that refers to a variable or a command: it will be taken as it is written.
fn reference(variable: &Variable<'_>, outline: &Outline<'_>) -> Option<Finding> {
    const SHELLS: &[&str] =
        &["PATH", "HOME", "PWD", "USER", "HOSTNAME", "GOPATH", "LD_LIBRARY_PATH"];
    let is_known = |name: &str| {
        SHELLS.contains(&name)
            || ["CODEBUILD_", "AWS_"].iter().any(|it| name.starts_with(it))
            || outline.variables.iter().any(|it| it.name == name)
            || outline.fetched.contains(&name)
    };
    let found = REFERENCE.captures_iter(variable.value.text).find_map(|it| {
        let name = it.get(1).or_else(|| it.get(2)).map(|it| it.as_str());
        match name {
            Some(name) => is_known(name).then(|| format!("${name}")),
            None => Some("$(…)".to_owned()),
        }
    })?;
    let name = variable.name;
    let message = match name {
        "PATH" => format!("`{found}` is not expanded here: no program would be found any more"),
        _ => format!("`{found}` is not expanded here: `{name}` gets it as it is written"),
    };
    Some(
        Finding::new("path-expansion", variable.value.place, message)
            .hint(format!("set it in a command: `- export {name}=…`")),
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::check::tests::{check, found};

    fn file(name: &str, value: &str) -> String {
        format!("version: 0.2\nenv: {{variables: {{A: a, {name}: \"{value}\"}}}}\nphases: {{}}\n")
    }

    /// A value that is not written here as it is, since scanners of other people look for it.
    fn made(start: &str, length: usize) -> String {
        let rest = "A2bC4dE6fG".chars().cycle().take(length).collect::<String>();
        format!("{start}{rest}")
    }

    #[test]
    fn values_that_look_like_secrets_are_found_and_not_repeated() {
        check(
            "secret-in-variables",
            &file("DB_PASSWORD", "hunter2!"),
            expect![[r"
                2:38 warning the value of `DB_PASSWORD` looks like a secret, as its name says (keep it in SSM Parameter Store or Secrets Manager, and name it in `env.parameter-store` or `env.secrets-manager`)
            "]],
        );
        let jwt = format!("{}.{}.x", made("eyJ", 20), made("eyJ", 20));
        for (name, value) in [
            ("X", made("AKIA", 16).to_uppercase()),
            ("X", format!("key {} here", made("ASIA", 16).to_uppercase())),
            ("X", made("ghp_", 36)),
            ("X", made("github_pat_", 30)),
            ("X", made("glpat-", 20)),
            ("X", made("xoxb-", 20)),
            ("X", made("sk_live_", 24)),
            ("X", made("npm_", 36)),
            ("X", "-----BEGIN RSA PRIVATE KEY-----".to_owned()),
            ("X", jwt),
            ("X", "postgres://user:pass@host/db".to_owned()),
            ("AWS_SECRET", made("", 40)),
            ("apiKey", "abcd1234".to_owned()),
            ("API_KEY", "abcd1234".to_owned()),
            ("NPM_TOKEN", "abcd1234".to_owned()),
            ("SECRET", "abcd1234".to_owned()),
        ] {
            let findings = found("secret-in-variables", &file(name, &value));
            assert_eq!(findings.len(), 1, "for {name}={value}");
            assert!(findings.iter().all(|it| !it.message.contains(&value)), "{findings:?}");
        }
    }

    #[test]
    fn names_paths_references_and_placeholders_are_not() {
        for (name, value) in [
            ("DB_PASSWORD", ""),
            ("DB_PASSWORD", "/prod/db/password"),
            ("DB_PASSWORD", "prod/db/password"),
            ("DB_PASSWORD", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x"),
            ("DB_PASSWORD", "$OTHER"),
            ("DB_PASSWORD", "{{resolve:ssm:x}}"),
            ("DB_PASSWORD", "changeme"),
            ("DB_PASSWORD", "<password>"),
            ("API_KEY", "your-api-key"),
            ("API_TOKEN", "***"),
            ("USE_TOKEN", "true"),
            ("SECRET_NAME", "shop-db"),
            ("TOKEN_URL", "https://host/token"),
            ("TOKENIZERS_PARALLELISM", "false"),
            ("MONKEY", "abcd1234"),
            ("COMMIT", "0123456789abcdef0123456789abcdef01234567"),
            ("URL", "https://host/path:80@x"),
            ("URL", "https://$USER:$PASSWORD@host"),
        ] {
            assert_eq!(found("secret-in-variables", &file(name, value)), [], "for {name}={value}");
        }
    }

    #[test]
    fn references_in_values_are_found() {
        check(
            "path-expansion",
            &file("PATH", "$PATH:/opt/bin"),
            expect![[r"
                2:31 warning `$PATH` is not expanded here: no program would be found any more (set it in a command: `- export PATH=…`)
            "]],
        );
        check(
            "path-expansion",
            &file("URI", "${AWS_ACCOUNT_ID}.dkr.ecr"),
            expect![[r"
                2:30 warning `$AWS_ACCOUNT_ID` is not expanded here: `URI` gets it as it is written (set it in a command: `- export URI=…`)
            "]],
        );
        for value in ["$A/x", "x-$(date)", "$CODEBUILD_SRC_DIR/x"] {
            assert_eq!(found("path-expansion", &file("X", value)).len(), 1, "for {value}");
        }
        for value in ["^a$", "$LATEST", "${other}", "5$", "$$", "a"] {
            assert_eq!(found("path-expansion", &file("X", value)), [], "for {value}");
        }
    }
}
