//! Secrets Manager: the values of versions of secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aws_sdk_secretsmanager::{Client, operation::get_secret_value::GetSecretValueOutput};
use futures_util::{StreamExt as _, stream};

use super::{Aws, AwsError, region_of};

/// How many calls are made at once.
const AT_ONCE: usize = 8;

/// A version of a secret: the current one if neither stage nor version is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretVersion {
    /// The name or the ARN of the secret.
    pub(crate) secret: String,
    pub(crate) stage: Option<String>,
    pub(crate) version: Option<String>,
}

/// The value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SecretValue {
    Text(String),
    /// Bytes, which no variable can have as its value.
    Binary,
}

/// The value of each version that was asked for.
pub(crate) type Values = BTreeMap<SecretVersion, Result<SecretValue, Arc<AwsError>>>;

impl Aws {
    /// The values of versions of secrets. `BatchGetSecretValue` would take a permission more than
    /// `CodeBuild` asks for, and knows only the current version.
    pub(crate) async fn secrets(&self, versions: BTreeSet<SecretVersion>) -> Values {
        let regions: BTreeSet<Option<&str>> =
            versions.iter().map(|it| region_of(&it.secret)).collect();
        let mut clients = BTreeMap::new();
        for region in regions {
            let client = self.secrets_manager(region).await.map_err(Arc::new);
            clients.insert(region.map(str::to_owned), client);
        }
        let calls = versions.into_iter().map(|it| {
            let client = clients[&region_of(&it.secret).map(str::to_owned)].clone();
            async move {
                let value = match client {
                    Ok(client) => self.secret(&client, &it).await.map_err(Arc::new),
                    Err(err) => Err(err),
                };
                (it, value)
            }
        });
        stream::iter(calls).buffer_unordered(AT_ONCE).collect().await
    }

    async fn secrets_manager(&self, region: Option<&str>) -> Result<Client, AwsError> {
        let (config, region) = (self.config().await?, self.region_for(region).await?);
        let builder = aws_sdk_secretsmanager::config::Builder::from(config).region(region);
        Ok(Client::from_conf(builder.build()))
    }

    async fn secret(&self, client: &Client, it: &SecretVersion) -> Result<SecretValue, AwsError> {
        let call = "GetSecretValue";
        let request = client.get_secret_value().secret_id(&it.secret);
        let request = request.set_version_stage(it.stage.clone());
        match request.set_version_id(it.version.clone()).send().await {
            Ok(answer) => value(answer).ok_or(AwsError::Incomplete { call, what: "SecretString" }),
            Err(err) => Err(self.failed(call, err).await),
        }
    }
}

fn value(answer: GetSecretValueOutput) -> Option<SecretValue> {
    match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => Some(SecretValue::Text(text)),
        (None, Some(_)) => Some(SecretValue::Binary),
        (None, None) => None,
    }
}
