//! References to Secrets Manager, as `env.secrets-manager` has them.
//!
//! **Architecture invariant:** text in, a reference or what is wrong with it out. Nothing is asked
//! for.

use thiserror::Error;

use crate::secret::SecretsManagerReference;

/// Why some text is no reference to Secrets Manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// It names no secret.
    #[error("the name of the secret is missing")]
    NoSecret,
    /// An ARN has seven fields, and this one has fewer.
    #[error("the ARN of the secret has {fields} fields, not 7")]
    ShortArn {
        /// How many it has.
        fields: usize,
    },
    /// There are more parts than four.
    #[error("there are {parts} parts, not up to 4")]
    Parts {
        /// How many there are.
        parts: usize,
    },
    /// There is both a stage and an ID of a version.
    #[error("there is both a version stage and a version ID")]
    StageAndId,
}

impl SecretsManagerReference {
    /// Reads `secret-id:json-key:version-stage:version-id`. All parts but the first may be empty
    /// or left out; the first may be an ARN, which is seven parts by itself.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fields: Vec<&str> = text.split(':').collect();
        let of_id = if text.starts_with("arn:") { 7 } else { 1 };
        if fields.len() < of_id {
            return Err(ReferenceError::ShortArn { fields: fields.len() });
        }
        let (id, rest) = fields.split_at(of_id);
        if rest.len() > 3 {
            return Err(ReferenceError::Parts { parts: rest.len() + 1 });
        }
        if id.last().is_none_or(|it| it.is_empty()) {
            return Err(ReferenceError::NoSecret);
        }
        let part =
            |index: usize| rest.get(index).filter(|it| !it.is_empty()).map(|it| (*it).to_owned());
        let (json_key, version_stage, version_id) = (part(0), part(1), part(2));
        if version_stage.is_some() && version_id.is_some() {
            return Err(ReferenceError::StageAndId);
        }
        Ok(Self { secret_id: id.join(":"), json_key, version_stage, version_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:us-east-1:111122223333:secret:foo-AbCdEf";

    #[test]
    fn references_have_up_to_four_parts_of_which_all_but_the_first_may_be_empty() {
        for (text, want) in [
            ("my-secret", ["my-secret", "-", "-", "-"]),
            ("my-secret:::", ["my-secret", "-", "-", "-"]),
            ("prod/db:password", ["prod/db", "password", "-", "-"]),
            ("my-secret:password::", ["my-secret", "password", "-", "-"]),
            ("my-secret:password:AWSPREVIOUS", ["my-secret", "password", "AWSPREVIOUS", "-"]),
            ("my-secret::AWSPREVIOUS:", ["my-secret", "-", "AWSPREVIOUS", "-"]),
            ("my-secret:password::1-2-3", ["my-secret", "password", "-", "1-2-3"]),
            ("my-secret:::1-2-3", ["my-secret", "-", "-", "1-2-3"]),
            (ARN, [ARN, "-", "-", "-"]),
            (&format!("{ARN}:user::"), [ARN, "user", "-", "-"]),
            (&format!("{ARN}:::1-2-3"), [ARN, "-", "-", "1-2-3"]),
            (&format!("{ARN}::AWSPENDING"), [ARN, "-", "AWSPENDING", "-"]),
        ] {
            let found = SecretsManagerReference::parse(text).unwrap();
            let or_none = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".to_owned());
            let parts = [
                found.secret_id.clone(),
                or_none(&found.json_key),
                or_none(&found.version_stage),
                or_none(&found.version_id),
            ];
            assert_eq!(parts, want, "for {text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_an_error() {
        for (text, want) in [
            ("", ReferenceError::NoSecret),
            (":key", ReferenceError::NoSecret),
            ("arn:aws:secretsmanager:us-east-1:111122223333:secret:", ReferenceError::NoSecret),
            ("arn:aws:secretsmanager", ReferenceError::ShortArn { fields: 3 }),
            ("a:b:c:d:e", ReferenceError::Parts { parts: 5 }),
            (&format!("{ARN}:a:b:c:d"), ReferenceError::Parts { parts: 5 }),
            ("a:b:AWSCURRENT:1", ReferenceError::StageAndId),
        ] {
            assert_eq!(SecretsManagerReference::parse(text), Err(want), "for {text}");
        }
    }
}
