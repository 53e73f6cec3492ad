//! Where the secrets of a build come from: AWS ([`AwsSecrets`]), or a file of this machine
//! ([`FileSecrets`]).
//!
//! **Architecture invariant:** all that is wanted is asked for before anything is said of what
//! cannot be had; and what is said never has a value in it.

mod file;
mod json;

use std::{collections::BTreeSet, error::Error, fmt, iter::successors, sync::Arc};

use rbuild_agent::secret::{
    Reference, Secret, Secrets, SecretsError, SecretsManagerReference, Wanted,
};

use crate::{
    aws::{Aws, AwsError, Parameters, SecretValue, SecretValues, SecretVersion, region_of},
    console::excerpt::excerpt,
    failure::{Failure, Kind},
    host,
};

pub(crate) use file::FileSecrets;

/// Secrets as AWS has them.
pub(crate) struct AwsSecrets<'a> {
    aws: &'a Aws,
}

impl<'a> AwsSecrets<'a> {
    pub(crate) fn new(aws: &'a Aws) -> Self {
        Self { aws }
    }
}

impl Secrets for AwsSecrets<'_> {
    fn fetch(&mut self, wanted: &[Wanted]) -> Result<Vec<Secret>, SecretsError> {
        let Some(first) = wanted.first() else { return Ok(Vec::new()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|err| Reason::NotRead(err.into()).of(first))?;
        let fetched = runtime.block_on(Fetched::fetch(self.aws, wanted));
        collect(wanted, |it| fetched.value(&it.reference))
    }
}

/// Why there is no value.
enum Reason {
    Missing(String),
    Unusable(String),
    NotRead(Box<dyn Error + Send + Sync>),
}

impl Reason {
    fn of(self, wanted: &Wanted) -> SecretsError {
        let (what, variable) = (wanted.reference.to_string(), wanted.variable.clone());
        match self {
            Self::Missing(message) => SecretsError::Missing { what, variable, message },
            Self::Unusable(message) => SecretsError::Unusable { what, variable, message },
            Self::NotRead(source) => SecretsError::NotRead { what, variable, source },
        }
    }
}

/// All values, or all that is wrong.
fn collect(
    wanted: &[Wanted],
    value: impl Fn(&Wanted) -> Result<String, Reason>,
) -> Result<Vec<Secret>, SecretsError> {
    let mut errors = Vec::new();
    let mut secrets = Vec::new();
    for it in wanted {
        match value(it) {
            Ok(text) if text.contains('\0') => {
                let reason = Reason::Unusable("it holds a NUL character".to_owned());
                errors.push(reason.of(it));
            }
            Ok(text) => secrets.push(Secret::new(text)),
            Err(reason) => errors.push(reason.of(it)),
        }
    }
    match SecretsError::of_all(errors) {
        None => Ok(secrets),
        Some(err) => Err(err),
    }
}

/// What AWS answered.
struct Fetched {
    parameters: Parameters,
    secrets: SecretValues,
}

impl Fetched {
    /// Asks for each parameter and each version of a secret once, however many variables want it.
    async fn fetch(aws: &Aws, wanted: &[Wanted]) -> Self {
        let mut names = BTreeSet::new();
        let mut versions = BTreeSet::new();
        for it in wanted {
            match &it.reference {
                Reference::Parameter(name) => drop(names.insert(name.clone())),
                Reference::SecretsManager(reference) => drop(versions.insert(version(reference))),
            }
        }
        let (parameters, secrets) =
            tokio::join!(aws.parameters(names.into_iter().collect()), aws.secrets(versions));
        Self { parameters, secrets }
    }

    fn value(&self, reference: &Reference) -> Result<String, Reason> {
        match reference {
            Reference::Parameter(name) => self.parameter(name),
            Reference::SecretsManager(reference) => self.secret(reference),
        }
    }

    fn parameter(&self, name: &str) -> Result<String, Reason> {
        let service = Service::ParameterStore;
        let missing = || format!("{}parameter does not exist: {name}", service.says());
        match self.parameters.get(name) {
            Some(Ok(Some(value))) => Ok(value.clone()),
            Some(Ok(None)) | None => Err(Reason::Missing(missing())),
            Some(Err(err)) => Err(NotFetched::new(service, name, err).reason()),
        }
    }

    fn secret(&self, reference: &SecretsManagerReference) -> Result<String, Reason> {
        let service = Service::SecretsManager;
        let value = match self.secrets.get(&version(reference)) {
            Some(Ok(SecretValue::Text(text))) => text,
            Some(Ok(SecretValue::Binary)) => {
                let message = "it is binary (`SecretBinary`), and variables are text";
                return Err(Reason::Unusable(message.to_owned()));
            }
            Some(Err(err)) => {
                return Err(NotFetched::new(service, &reference.secret_id, err).reason());
            }
            None => return Err(Reason::Missing(service.says().to_owned())),
        };
        match &reference.json_key {
            None => Ok(value.clone()),
            Some(key) => json::value(value, key),
        }
    }
}

fn version(reference: &SecretsManagerReference) -> SecretVersion {
    SecretVersion {
        secret: reference.secret_id.clone(),
        stage: reference.version_stage.clone(),
        version: reference.version_id.clone(),
    }
}

/// A service that keeps secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    ParameterStore,
    SecretsManager,
}

impl Service {
    /// The status code of a phase of CodeBuild that could not have a secret.
    fn code(self) -> &'static str {
        match self {
            Self::ParameterStore => "Decrypted Variables Error",
            Self::SecretsManager => "Secrets Manager Error",
        }
    }

    /// What CodeBuild puts before the words of the service.
    fn says(self) -> &'static str {
        match self {
            Self::ParameterStore => "Decrypted Variables Error Message: ",
            Self::SecretsManager => "Secrets Manager Error Message: ",
        }
    }

    /// What one must be allowed to do.
    fn action(self) -> &'static str {
        match self {
            Self::ParameterStore => "ssm:GetParameters",
            Self::SecretsManager => "secretsmanager:GetSecretValue",
        }
    }
}

/// The errors by which the services say that what was asked for is not there.
const MISSING: [&str; 7] = [
    "InvalidParameterException",
    "InvalidRequestException",
    "ParameterNotFound",
    "ParameterVersionLabelLimitExceeded",
    "ParameterVersionNotFound",
    "ResourceNotFoundException",
    "ValidationException",
];

/// Why AWS did not give a secret, in the words that CodeBuild has for it.
#[derive(Clone, Debug)]
struct NotFetched {
    service: Service,
    /// The region in the name of what was asked for.
    region: Option<String>,
    error: Arc<AwsError>,
}

impl NotFetched {
    fn new(service: Service, name: &str, error: &Arc<AwsError>) -> Self {
        Self { service, region: region_of(name).map(str::to_owned), error: Arc::clone(error) }
    }

    fn reason(self) -> Reason {
        match &*self.error {
            AwsError::NotDone { code, .. } if MISSING.contains(&code.as_str()) => {
                Reason::Missing(self.to_string())
            }
            _ => Reason::NotRead(Box::new(self)),
        }
    }

    /// What to do about it.
    fn hint(&self) -> String {
        if let Some(hint) = self.error.hint() {
            return hint.to_owned();
        }
        let asked = self.asked();
        match &*self.error {
            AwsError::NotDone { code, message, .. } if code.starts_with("AccessDenied") => {
                // The words are `… is not authorized to perform: ssm:GetParameters on resource …`.
                let named = message.split_once("perform: ");
                let named = named.and_then(|it| it.1.split_whitespace().next());
                let action = named.unwrap_or(self.service.action());
                format!("{asked}; what it is asked with must be allowed to do `{action}`")
            }
            AwsError::NotDone { code, .. } if code.contains("Token") || code.contains("Client") => {
                format!("{asked}; its credentials are not valid there, or not any more")
            }
            _ => asked,
        }
    }

    fn asked(&self) -> String {
        let variables = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        let set = || variables.into_iter().find_map(host::variable);
        let region = self.region.clone().or_else(set);
        let region =
            region.map_or_else(|| "the profile's region".to_owned(), |it| format!("`{it}`"));
        match host::variable("AWS_PROFILE") {
            Some(profile) => format!("AWS was asked in {region}, as profile `{profile}`"),
            None => format!("AWS was asked in {region}"),
        }
    }
}

impl fmt::Display for NotFetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service.says())?;
        match &*self.error {
            AwsError::NotDone { code, message, .. } => write!(f, "{code}: {message}"),
            err => err.fmt(f),
        }
    }
}

impl Error for NotFetched {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// What CodeBuild has for a phase that could not have a secret: the status code, and the message.
pub(crate) fn phase_context(err: &SecretsError) -> (&'static str, String) {
    let services = [Service::ParameterStore, Service::SecretsManager];
    let message = words(err);
    let said = services.into_iter().find(|it| message.starts_with(it.says()));
    let service = said.unwrap_or(match what(err).starts_with("parameter ") {
        true => Service::ParameterStore,
        false => Service::SecretsManager,
    });
    let message = match said {
        Some(_) => message,
        None => format!("{}{message}", service.says()),
    };
    (service.code(), message)
}

/// What a person is told, with the line of `text`, the buildspec that is known as `shown`, that
/// wants the secret.
pub(crate) fn failure(err: &SecretsError, wanted: &[Wanted], shown: &str, text: &str) -> Failure {
    let kind = if err.is_of_the_machine() { Kind::Outside } else { Kind::Input };
    let one = first(err);
    let mut failure = Failure::new(kind, err.to_string());
    let place = wanted.iter().find(|it| it.variable == variable(one)).and_then(|it| it.place);
    match (err, place) {
        (SecretsError::Several(_), _) | (_, None) => {}
        (_, Some(place)) => {
            failure = failure.excerpt(excerpt(shown, text, place.line, place.column));
        }
    }
    failure.note(note(err)).hint_if(hint(one))
}

/// The most secrets that are told one by one.
const MOST_TOLD: usize = 20;

fn note(err: &SecretsError) -> String {
    let SecretsError::Several(errors) = err else { return words(err) };
    let told = errors.iter().take(MOST_TOLD).map(|it| format!("- {it}\n  {}", words(it)));
    let mut lines: Vec<String> = told.collect();
    if MOST_TOLD < errors.len() {
        lines.push(format!("- and {} more", errors.len() - MOST_TOLD));
    }
    lines.join("\n")
}

/// Why there is no value, and what caused that.
fn words(err: &SecretsError) -> String {
    match err {
        SecretsError::Missing { message, .. } | SecretsError::Unusable { message, .. } => {
            message.clone()
        }
        SecretsError::NotRead { source, .. } => {
            let causes = successors(source.source(), |&it| it.source());
            let words = [source.to_string()].into_iter().chain(causes.map(ToString::to_string));
            words.collect::<Vec<_>>().join(": ")
        }
        SecretsError::Several(_) => words(first(err)),
    }
}

fn hint(err: &SecretsError) -> Option<String> {
    match err {
        SecretsError::NotRead { source, .. } => {
            source.downcast_ref::<NotFetched>().map(NotFetched::hint)
        }
        _ => None,
    }
}

fn first(err: &SecretsError) -> &SecretsError {
    match err {
        SecretsError::Several(errors) => errors.first().unwrap_or(err),
        one => one,
    }
}

fn what(err: &SecretsError) -> &str {
    match first(err) {
        SecretsError::Missing { what, .. }
        | SecretsError::Unusable { what, .. }
        | SecretsError::NotRead { what, .. } => what,
        SecretsError::Several(_) => "",
    }
}

fn variable(err: &SecretsError) -> &str {
    match err {
        SecretsError::Missing { variable, .. }
        | SecretsError::Unusable { variable, .. }
        | SecretsError::NotRead { variable, .. } => variable,
        SecretsError::Several(_) => "",
    }
}

#[cfg(test)]
mod tests;
