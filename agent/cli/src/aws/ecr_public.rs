//! Logins of ECR Public, which has an API of its own, in one region.
//! <https://docs.aws.amazon.com/AmazonECRPublic/latest/APIReference/API_GetAuthorizationToken.html>

use aws_config::Region;
use aws_sdk_ecrpublic::{Client, config::Builder};

use super::{Aws, AwsError, EcrLogin, LOGIN_CALL, login, no_login};

/// The only region that has it.
const REGION: Region = Region::from_static("us-east-1");

/// A new login.
pub(super) async fn fetch_login(aws: &Aws) -> Result<EcrLogin, AwsError> {
    let config = Builder::from(aws.config().await?).region(REGION);
    match Client::from_conf(config.build()).get_authorization_token().send().await {
        Ok(answer) => {
            let data = answer.authorization_data.ok_or_else(|| no_login("authorizationData"))?;
            login(data.authorization_token, data.expires_at)
        }
        Err(err) => Err(aws.failed(LOGIN_CALL, err).await),
    }
}
