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
                Ok(client) => calls.extend(batches(names).into_iter().map(|names| {
                    let client = client.clone();
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

/// The names in as few calls as may be. No two of a call are names of the same parameter, so that
/// an answer is for one of them.
fn batches(names: Vec<String>) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    for name in names {
        let has_room = |it: &&mut Vec<String>| {
            it.len() < MOST_NAMES && it.iter().all(|it| short(it) != short(&name))
        };
        match batches.iter_mut().find(has_room) {
            Some(batch) => batch.push(name),
            None => batches.push(vec![name]),
        }
    }
    batches
}

/// A name without what it may have and lack: the rest of the ARN, the slash at the beginning, and
/// the version or label.
fn short(name: &str) -> &str {
    let resource = name.split_once(":parameter/").filter(|_| name.starts_with("arn:"));
    let name = resource.map_or(name, |it| it.1);
    name.split(':').next().unwrap_or(name).trim_start_matches('/')
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
        let is_it = |it: &&Parameter| it.name().is_some_and(|it| short(it) == short(&name));
        let value = found.iter().find(is_it).and_then(|it| it.value.clone());
        (name, Ok(value))
    })
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
    fn names_of_the_same_parameter_are_in_different_calls() {
        let arn = "arn:aws:ssm:eu-west-1:1:parameter/prod/db";
        let names = ["/prod/db", "/prod/db:3", "/prod/db:label", arn, "/prod/other", "db"];
        let found = batches(names.map(str::to_owned).to_vec());
        let want =
            [&["/prod/db", "/prod/other", "db"][..], &["/prod/db:3"], &["/prod/db:label"], &[arn]];
        assert_eq!(found, want);
        let many = batches((0..25).map(|it| format!("p{it}")).collect());
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    }

    #[test]
    fn answers_are_for_what_was_asked() {
        let arn = "arn:aws:ssm:eu-west-1:1:parameter/prod/db";
        for (name, asked, want) in [
            ("/prod/db", "/prod/db", true),
            ("/prod/db", "/prod/db:3", true),
            ("/prod/db", arn, true),
            (arn, arn, true),
            ("db", "arn:aws:ssm:eu-west-1:1:parameter/db:3", true),
            ("/prod/other", "/prod/db", false),
        ] {
            let parameter = Parameter::builder().name(name).value("v").build();
            let answer = GetParametersOutput::builder().parameters(parameter).build();
            let found = values(vec![asked.to_owned()], answer).next().unwrap().1.unwrap();
            assert_eq!(found.is_some(), want, "for `{asked}`");
        }
    }
}
