//! SSM Parameter Store: values by their names.

use std::{collections::BTreeMap, sync::Arc};

use aws_sdk_ecr::error::SdkError;
use aws_sdk_ssm::{
    Client,
    error::ProvideErrorMetadata,
    operation::get_parameters::{GetParametersError, GetParametersOutput},
    types::Parameter,
};
use futures_util::{StreamExt as _, stream};

use super::{Aws, AwsError, region_of};

/// The most names in one call (AWS Systems Manager API reference, `GetParameters`).
const MOST_NAMES: usize = 10;
/// How many calls are made at once.
const AT_ONCE: usize = 8;

/// The value of each parameter that was asked for; none of one that does not exist.
pub(crate) type Parameters = BTreeMap<String, Result<Option<String>, Arc<AwsError>>>;

type Answer = Result<GetParametersOutput, SdkError<GetParametersError>>;

impl Aws {
    /// The values of parameters, decrypted. A name may be a full ARN, and may end in `:VERSION` or
    /// `:LABEL`; no two of `names` are equal.
    pub(crate) async fn parameters(&self, names: Vec<String>) -> Parameters {
        let mut by_region: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
        for name in names {
            by_region.entry(region_of(&name).map(str::to_owned)).or_default().push(name);
        }
        let mut found = Parameters::new();
        let mut calls = Vec::new();
        for (region, names) in by_region {
            match self.ssm(region.as_deref()).await {
                Ok(client) => calls.extend(names.chunks(MOST_NAMES).map(|it| {
                    let (client, names) = (client.clone(), it.to_vec());
                    async move { ask(&client, names).await }
                })),
                Err(err) => found.extend(spread(&Arc::new(err), &names)),
            }
        }
        let mut answers = stream::iter(calls).buffer_unordered(AT_ONCE);
        while let Some(answers) = answers.next().await {
            for (names, answer) in answers {
                match answer {
                    Ok(answer) => found.extend(values(names, answer)),
                    Err(err) => {
                        let err = Arc::new(self.failed("GetParameters", err).await);
                        found.extend(spread(&err, &names));
                    }
                }
            }
        }
        found
    }

    async fn ssm(&self, region: Option<&str>) -> Result<Client, AwsError> {
        let (config, region) = (self.config().await?, self.region_for(region).await?);
        let builder = aws_sdk_ssm::config::Builder::from(config).region(region);
        Ok(Client::from_conf(builder.build()))
    }
}

/// Asks for all names at once. One of them can be what is refused: then each is asked for.
async fn ask(client: &Client, names: Vec<String>) -> Vec<(Vec<String>, Answer)> {
    let answer = get(client, &names).await;
    let is_refused =
        answer.as_ref().is_err_and(|it| it.code().is_some_and(|it| REFUSALS.contains(&it)));
    if !is_refused || names.len() == 1 {
        return vec![(names, answer)];
    }
    let mut answers = Vec::new();
    for name in names {
        let names = vec![name];
        let answer = get(client, &names).await;
        answers.push((names, answer));
    }
    answers
}

/// The errors by which SSM refuses a call that may be right but for one of its names.
const REFUSALS: [&str; 2] = ["AccessDeniedException", "ValidationException"];

async fn get(client: &Client, names: &[String]) -> Answer {
    let request = client.get_parameters().set_names(Some(names.to_vec()));
    request.with_decryption(true).send().await
}

fn values(
    names: Vec<String>,
    answer: GetParametersOutput,
) -> impl Iterator<Item = (String, Result<Option<String>, Arc<AwsError>>)> {
    let found = answer.parameters.unwrap_or_default();
    names.into_iter().map(move |name| {
        let parameter = found.iter().find(|it| is_named(it, &name));
        let value = parameter.and_then(|it| it.value.clone());
        (name, Ok(value))
    })
}

/// Whether a parameter is the one that was asked for as `name`. An answer has the selector by
/// itself, and the name may be an ARN in one and not in the other.
fn is_named(parameter: &Parameter, name: &str) -> bool {
    let selector = parameter.selector().unwrap_or_default();
    let Some(base) = name.strip_suffix(selector) else { return false };
    let short = |name: &str| {
        let resource = name.split_once(":parameter/").filter(|_| name.starts_with("arn:"));
        resource.map_or(name, |it| it.1).trim_start_matches('/').to_owned()
    };
    match region_of(base) {
        // Two regions or accounts may have the same name, and only ARNs tell them apart.
        Some(_) if parameter.arn().is_some_and(|it| it.starts_with("arn:")) => {
            parameter.arn() == Some(base)
        }
        Some(_) => parameter.name().is_some_and(|it| short(it) == short(base)),
        None => parameter.name().is_some_and(|it| it == base),
    }
}

fn spread<'a>(
    err: &'a Arc<AwsError>,
    names: &'a [String],
) -> impl Iterator<Item = (String, Result<Option<String>, Arc<AwsError>>)> + 'a {
    names.iter().map(|it| (it.clone(), Err(Arc::clone(err))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_for_what_was_asked() {
        let arn = "arn:aws:ssm:eu-west-1:1:parameter/prod/db";
        let parameter = |name: &str, selector: Option<&str>| {
            let builder = Parameter::builder().name(name).set_selector(selector.map(str::to_owned));
            builder.arn(arn).build()
        };
        for (name, selector, asked, want) in [
            ("/prod/db", None, "/prod/db", true),
            ("/prod/db", None, "/prod/db:3", false),
            ("/prod/db", Some(":3"), "/prod/db:3", true),
            ("/prod/db", Some(":3"), "/prod/db", false),
            ("/prod/db", Some(":label"), "/prod/db:label", true),
            ("/prod/db", None, arn, true),
            (arn, None, arn, true),
            ("/prod/db", Some(":3"), &format!("{arn}:3"), true),
            ("/prod/db", None, "arn:aws:ssm:eu-west-1:2:parameter/prod/db", false),
            ("/prod/db", None, "prod/db", false),
        ] {
            assert_eq!(is_named(&parameter(name, selector), asked), want, "for `{asked}`");
        }
        let without_arn = Parameter::builder().name("db").build();
        assert!(is_named(&without_arn, "arn:aws:ssm:eu-west-1:1:parameter/db"));
    }
}
