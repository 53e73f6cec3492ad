//! Why artifacts did not get to S3, and what to do about it.

use std::{error::Error, fmt, path::PathBuf};

use rbuild_agent::artifacts::ArtifactsError;

use crate::{
    aws::AwsError,
    failure::{Failure, Kind},
};

/// Why artifacts did not get to S3.
#[derive(Debug)]
pub(super) struct S3Error {
    pub(super) why: Why,
    /// The folder in which they still are.
    pub(super) kept: PathBuf,
    /// Whether parts of an upload are left in the bucket.
    pub(super) is_left_over: bool,
}

/// What went wrong.
#[derive(Debug)]
pub(super) enum Why {
    /// AWS is not set up.
    Aws(AwsError),
    /// The project has no artifacts of that identifier, or no primary ones.
    NotInProject(Option<String>),
    /// The endpoint would show credentials and artifacts to everyone on the way.
    Insecure { endpoint: String },
    /// A name that no object can have here.
    NoKey { text: String },
    /// The client cannot be made.
    Client(String),
    /// The bucket is in another region than the one that was asked.
    OtherRegion { bucket: String, region: String, asked: String },
    /// S3 did not do what it was asked to.
    Refused { bucket: String, key: String, answer: Answer },
    /// No answer came.
    NoAnswer { bucket: String, key: String, cause: String },
}

/// What S3 said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// S3's own name for what is wrong, such as `NoSuchBucket`.
    pub(super) code: String,
    pub(super) message: String,
    /// The region that should have been asked, if S3 names it.
    pub(super) region: Option<String>,
}

impl Answer {
    /// Reads what S3 said out of the text of the client's error, which has all of the answer.
    pub(super) fn find(text: &str) -> Option<Self> {
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            let (value, _) = rest.split_once(&format!("</{name}>"))?;
            Some(value.to_owned())
        };
        let digits = text.split_once("status code: ").map(|(_, rest)| rest.chars().take(3));
        let status = digits.and_then(|it| it.collect::<String>().parse().ok());
        let code = element("Code");
        // An error may come with status 200.
        let status = status.or(code.as_ref().map(|_| 200))?;
        Some(Self {
            status,
            code: code.unwrap_or_default(),
            message: element("Message").unwrap_or_default(),
            region: element("Region"),
        })
    }

    fn is_missing_bucket(&self) -> bool {
        self.code == "NoSuchBucket" || (self.status == 404 && self.code.is_empty())
    }

    /// Whether the client tried again and again.
    fn was_tried_again(&self) -> bool {
        self.status >= 500 || matches!(self.status, 200 | 408 | 429)
    }
}

impl S3Error {
    /// The error of the artifacts.
    pub(super) fn sending(self, destination: &str) -> ArtifactsError {
        let destination = destination.to_owned();
        ArtifactsError::Sending { destination, source: Box::new(self) }
    }

    fn kind(&self) -> Kind {
        match &self.why {
            Why::Aws(err) => err.kind(),
            Why::Refused { answer, .. } if answer.is_missing_bucket() => Kind::Input,
            Why::NotInProject(_) | Why::Insecure { .. } | Why::OtherRegion { .. } => Kind::Input,
            Why::NoKey { .. } => Kind::Build,
            Why::Client(_) | Why::Refused { .. } | Why::NoAnswer { .. } => Kind::Outside,
        }
    }

    fn hint(&self) -> Option<String> {
        match &self.why {
            Why::Aws(err) => err.hint().map(str::to_owned),
            Why::NotInProject(_) => Some("name it in the project, too".to_owned()),
            Why::Insecure { .. } => Some("use https, or a server on this machine".to_owned()),
            Why::NoKey { .. } => Some("give the file another name, or pack a zip file".to_owned()),
            Why::Client(_) => None,
            Why::OtherRegion { region, .. } => Some(format!("set AWS_REGION={region}")),
            Why::Refused { bucket, answer, .. } => refusal_hint(bucket, answer),
            Why::NoAnswer { .. } => Some("check the network, and run the build again".to_owned()),
        }
    }
}

fn refusal_hint(bucket: &str, answer: &Answer) -> Option<String> {
    let hint = match &*answer.code {
        _ if answer.is_missing_bucket() => format!("make it with `aws s3 mb s3://{bucket}`"),
        "ExpiredToken" | "TokenRefreshRequired" => "get new credentials, and try again".to_owned(),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => {
            "the credentials are not those of this S3".to_owned()
        }
        "RequestTimeTooSkewed" => "set the clock of this machine".to_owned(),
        code if code.starts_with("KMS") => {
            "the key must be enabled, in the bucket's region, and allow kms:GenerateDataKey".into()
        }
        _ if answer.status == 403 => format!(
            "the credentials need s3:PutObject and s3:AbortMultipartUpload for \
             arn:aws:s3:::{bucket}/*, and kms:GenerateDataKey if a key of KMS encrypts it"
        ),
        _ if answer.was_tried_again() => "S3 has trouble: try again later".to_owned(),
        _ => return None,
    };
    Some(hint)
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Aws(err) => match err.source() {
                Some(source) => write!(f, "{err}: {}", innermost(source)),
                None => err.fmt(f),
            },
            Why::NotInProject(None) => f.write_str("the project has no artifacts"),
            Why::NotInProject(Some(identifier)) => {
                write!(f, "the project has no secondary artifacts `{identifier}`")
            }
            Why::Insecure { endpoint } => {
                write!(f, "the endpoint `{endpoint}` is neither encrypted nor on this machine")
            }
            Why::NoKey { text } => {
                write!(f, "`{}` has a control character, and cannot be a key", text.escape_debug())
            }
            Why::Client(message) => write!(f, "the client of S3 cannot be set up: {message}"),
            Why::OtherRegion { bucket, region, asked } => {
                write!(f, "the bucket `{bucket}` is in region `{region}`, and not in `{asked}`")
            }
            Why::Refused { bucket, answer, .. } if answer.is_missing_bucket() => {
                write!(f, "there is no bucket `{bucket}`")
            }
            Why::Refused { key, answer, .. } => {
                let Answer { status, code, message, .. } = answer;
                write!(f, "S3 refused `{key}` with status {status}")?;
                let mut words = [code, message].into_iter().filter(|it| !it.is_empty());
                words.try_for_each(|it| write!(f, ": {it}"))?;
                match answer.was_tried_again() {
                    true => write!(f, " (tried {} times)", super::store::TRIES),
                    false => Ok(()),
                }
            }
            Why::NoAnswer { bucket, key, cause } => {
                write!(f, "no answer came for `{key}` in bucket `{bucket}`: {cause}")
            }
        }
    }
}

impl Error for S3Error {}

/// The first cause: what comes before it says less.
pub(super) fn innermost<'e>(err: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut innermost = err;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// What a person is told of artifacts that did not get to S3; none of other errors.
pub(crate) fn failure(err: &ArtifactsError) -> Option<Failure> {
    let ArtifactsError::Sending { source, .. } = err else { return None };
    let cause = source.downcast_ref::<S3Error>()?;
    let mut note = format!("the artifacts are still in `{}`", cause.kept.display());
    if cause.is_left_over {
        note.push_str("; parts of an upload that was not finished are left in the bucket");
    }
    let failure = Failure::new(cause.kind(), format!("{err}: {cause}"));
    Some(failure.note(note).hint_if(cause.hint()))
}
