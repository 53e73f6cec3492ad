//! The client of S3.
//!
//! Credentials come from the same places as those of all of AWS, and are fetched again before they
//! end.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use object_store::{
    Attribute, Attributes, BackoffConfig, Certificate, ClientOptions, CredentialProvider,
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum},
    client::{
        HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};

use super::{
    Encryption, S3Options, S3Target,
    error::{Answer, Why, innermost},
};
use crate::{
    aws::{Aws, AwsError, S3Access},
    host,
};

/// How often a request is tried.
pub(super) const TRIES: usize = 5;
/// How long one try may take: time for a part by a line of some Mbit/s.
const LONGEST_TRY: Duration = Duration::from_mins(2);
/// How long before their end credentials are not used any more.
const MARGIN: Duration = Duration::from_mins(5);

/// A bucket that objects can be sent to.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) client: AmazonS3,
    /// What is kept with every object.
    pub(super) attributes: Attributes,
    bucket: String,
    region: String,
    /// The region of the bucket, if S3 has said that it is another one.
    other_region: Arc<Mutex<Option<String>>>,
}

/// Makes the client for a target, and gets credentials; sends nothing to S3 yet.
pub(super) async fn connect(
    aws: &Aws,
    target: &S3Target,
    options: &S3Options,
) -> Result<Store, Why> {
    let access = aws.s3().await.map_err(Why::Aws)?;
    let credentials = HeldCredentials::new(access.credentials.clone());
    credentials.credential().await.map_err(Why::Aws)?;
    let other_region = Arc::default();
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&target.bucket)
        .with_region(&access.region)
        .with_credentials(Arc::new(credentials))
        .with_client_options(client_options(&access, options)?)
        .with_http_connector(Watching { other_region: Arc::clone(&other_region) })
        .with_checksum_algorithm(Checksum::SHA256)
        .with_retry(retry());
    let builder = match endpoint(&access)? {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    let client = encrypted(builder, &target.encryption).build();
    let client = client.map_err(|err| Why::Client(innermost(&err).to_string()))?;
    let mut attributes = Attributes::new();
    if let Some(arn) = &options.build_arn {
        attributes.insert(Attribute::Metadata("codebuild-buildarn".into()), arn.clone().into());
    }
    let (bucket, region) = (target.bucket.clone(), access.region);
    Ok(Store { client, attributes, bucket, region, other_region })
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(5),
            base: 2.,
        },
        max_retries: TRIES - 1,
        retry_timeout: LONGEST_TRY * 2,
    }
}

fn client_options(access: &S3Access, options: &S3Options) -> Result<ClientOptions, Why> {
    let mut client = ClientOptions::new()
        .with_timeout(LONGEST_TRY)
        // Whether it is allowed is asked for with the endpoint.
        .with_allow_http(true);
    if let Some(proxy) = &options.proxy {
        client = client.with_proxy_url(proxy);
    }
    let Some(roots) = &access.roots else { return Ok(client) };
    client = client.with_no_system_certificates(true);
    for root in roots {
        let root = Certificate::from_der(root).map_err(|err| Why::Client(err.to_string()))?;
        client = client.with_root_certificate(root);
    }
    Ok(client)
}

/// Where S3 is, if that is not where the client thinks.
fn endpoint(access: &S3Access) -> Result<Option<String>, Why> {
    let Some(endpoint) = &access.endpoint else {
        // AWS has another domain in China.
        let is_in_china = access.region.starts_with("cn-");
        let url = || format!("https://s3.{}.amazonaws.com.cn", access.region);
        return Ok(is_in_china.then(url));
    };
    match endpoint.starts_with("https://") || is_on_this_machine(endpoint) {
        true => Ok(Some(endpoint.clone())),
        false => Err(Why::Insecure { endpoint: endpoint.clone() }),
    }
}

/// Whether a URL names a host that is this machine.
fn is_on_this_machine(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    // What is before an `@` is no host.
    !authority.contains('@')
        && (host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback()))
}

fn encrypted(builder: AmazonS3Builder, encryption: &Encryption) -> AmazonS3Builder {
    let ask = |algorithm: &str| {
        // The client has no other way to ask for either without a key.
        let key = "aws_server_side_encryption".parse::<AmazonS3ConfigKey>();
        key.map(|key| builder.clone().with_config(key, algorithm))
    };
    match encryption {
        Encryption::OfBucket => builder,
        Encryption::S3 => ask("AES256").unwrap_or(builder),
        Encryption::Kms(None) => ask("aws:kms").unwrap_or(builder),
        Encryption::Kms(Some(key)) => builder.with_sse_kms_encryption(key),
    }
}

impl Store {
    /// What went wrong with the object `key`.
    pub(super) fn why(&self, key: &str, err: object_store::Error) -> Why {
        let (bucket, key) = (self.bucket.clone(), key.to_owned());
        let cause = innermost(&err);
        if let Some(credentials) = missing_credentials(cause) {
            return Why::Aws(credentials);
        }
        let answer = Answer::find(&err.to_string());
        let other_region = self.other_region.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let other_region = other_region.or_else(|| answer.as_ref()?.region.clone());
        match (other_region.filter(|it| *it != self.region), answer) {
            (Some(region), _) => Why::OtherRegion { bucket, region, asked: self.region.clone() },
            (None, Some(answer)) => Why::Refused { bucket, key, answer },
            (None, None) => Why::NoAnswer { bucket, key, cause: cause.to_string() },
        }
    }
}

/// The credentials that are held until shortly before they end.
struct HeldCredentials {
    provider: SharedCredentialsProvider,
    held: tokio::sync::Mutex<Option<Credentials>>,
}

impl fmt::Debug for HeldCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldCredentials")
    }
}

impl HeldCredentials {
    fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, held: tokio::sync::Mutex::default() }
    }

    async fn credential(&self) -> Result<Arc<AwsCredential>, AwsError> {
        let mut held = self.held.lock().await;
        let now = SystemTime::UNIX_EPOCH + host::now();
        let serves = |it: &&Credentials| it.expiry().is_none_or(|end| now + MARGIN < end);
        let credentials = match held.as_ref().filter(serves) {
            Some(credentials) => credentials,
            None => {
                let found = self.provider.provide_credentials().await;
                held.insert(found.map_err(|err| AwsError::NoCredentials(err.into()))?)
            }
        };
        Ok(Arc::new(AwsCredential {
            key_id: credentials.access_key_id().to_owned(),
            secret_key: credentials.secret_access_key().to_owned(),
            token: credentials.session_token().map(str::to_owned),
        }))
    }
}

/// An error about credentials, on its way through the client, which takes errors as they are.
#[derive(Debug)]
struct NoCredentials(Mutex<Option<AwsError>>);

impl fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there are no AWS credentials any more")
    }
}

impl std::error::Error for NoCredentials {}

fn missing_credentials(cause: &(dyn std::error::Error + 'static)) -> Option<AwsError> {
    let NoCredentials(error) = cause.downcast_ref()?;
    error.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the client's traits ask for.
type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl CredentialProvider for HeldCredentials {
    type Credential = AwsCredential;

    fn get_credential<'a, 'f>(&'a self) -> Answering<'f, object_store::Result<Arc<AwsCredential>>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            self.credential().await.map_err(|err| {
                let source = Box::new(NoCredentials(Mutex::new(Some(err))));
                object_store::Error::Generic { store: "S3", source }
            })
        })
    }
}

/// Makes clients that notice in which region S3 says that the bucket is: the client drops that.
#[derive(Debug)]
struct Watching {
    other_region: Arc<Mutex<Option<String>>>,
}

impl HttpConnector for Watching {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let other_region = Arc::clone(&self.other_region);
        Ok(HttpClient::new(Watched { client, other_region }))
    }
}

#[derive(Debug)]
struct Watched {
    client: HttpClient,
    other_region: Arc<Mutex<Option<String>>>,
}

impl HttpService for Watched {
    fn call<'a, 'f>(
        &'a self,
        request: HttpRequest,
    ) -> Answering<'f, Result<HttpResponse, HttpError>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let response = self.client.execute(request).await?;
            let region = response.headers().get("x-amz-bucket-region");
            if let Some(region) = region.and_then(|it| it.to_str().ok())
                && !response.status().is_success()
            {
                let mut other = self.other_region.lock().unwrap_or_else(PoisonError::into_inner);
                *other = Some(region.to_owned());
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_encryption() {
        for (endpoint, want) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost:4566/", true),
            ("http://[::1]:9000/x", true),
            ("https://minio.example", true),
            ("http://minio.example:9000", false),
            ("http://127.0.0.1.example", false),
            ("http://localhost@evil.example", false),
            ("http://127.0.0.1:1@evil.example", false),
            ("ftp://127.0.0.1", false),
        ] {
            let is_taken = endpoint.starts_with("https://") || is_on_this_machine(endpoint);
            assert_eq!(is_taken, want, "{endpoint}");
        }
    }
}
