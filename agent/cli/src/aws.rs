//! AWS as this program reaches it: one configuration, one client for each service and region,
//! and the logins of ECR, in memory alone.
//!
//! **Architecture invariant:** nothing of AWS is loaded before it is needed, and nothing is
//! loaded twice.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fmt, fs,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, default_provider,
    environment::EnvironmentVariableRegionProvider,
    meta::region::{ProvideRegion, RegionProviderChain},
    profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider},
    provider_config::ProviderConfig,
};
use aws_sdk_ecr::{
    config::{ProvideCredentials, RuntimeComponents, SharedCredentialsProvider, SharedHttpClient},
    error::{ProvideErrorMetadata, SdkError},
    primitives::DateTime,
    types::{ImageDetail, ImageIdentifier},
};
use aws_smithy_http_client::{
    Builder, ConnectorBuilder,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use rbuild_deployer::{ecs::aws::AwsEcs, image::ImageUri, render::EcrImage};
use rbuild_imagebuilder::registry::{
    Credential,
    ecr::{EcrRegistry, Endpoint},
};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::{failure::Kind, host};

mod ecr;
mod ecr_public;
mod secrets_manager;
mod ssm;

pub(crate) use ecr::NewRepository;
pub(crate) use secrets_manager::{SecretValue, SecretVersion, Values as SecretValues};
pub(crate) use ssm::Parameters;

const LOGIN_CALL: &str = "GetAuthorizationToken";
/// How long before its end a login is not used any more.
const MARGIN: Duration = Duration::from_mins(1);

/// AWS, loaded when it is first needed.
pub(crate) struct Aws {
    now: fn() -> SystemTime,
    asked: Asked,
    config: OnceCell<SdkConfig>,
    ecr: Mutex<HashMap<(String, Endpoint), Arc<Ecr>>>,
    ecr_public: HeldLogin,
}

/// What was asked for, and so wins over what the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
}

/// The ECR of one region, and the login to its registries. A login is the caller's: it serves for
/// the registries of all accounts there.
struct Ecr {
    client: aws_sdk_ecr::Client,
    login: HeldLogin,
}

/// S3 as the environment and the files in `~/.aws` say.
pub(crate) struct S3Access {
    pub(crate) region: String,
    /// Where S3 is, if that is not where AWS has it.
    pub(crate) endpoint: Option<String>,
    pub(crate) credentials: SharedCredentialsProvider,
    /// The roots to trust, if those of the host are not there: certificates in DER.
    pub(crate) roots: Option<Vec<&'static [u8]>>,
}

impl Aws {
    /// AWS as the environment says, by the host's clock.
    pub(crate) fn new() -> Self {
        Self::asked(Asked::default())
    }

    /// AWS as was asked for, and else as the environment says.
    pub(crate) fn asked(asked: Asked) -> Self {
        let now = || SystemTime::UNIX_EPOCH + host::now();
        Self {
            now,
            asked,
            config: OnceCell::new(),
            ecr: Mutex::default(),
            ecr_public: HeldLogin::default(),
        }
    }

    /// AWS as a test says.
    #[cfg(test)]
    pub(crate) fn of(config: SdkConfig) -> Self {
        Self { config: OnceCell::new_with(Some(config)), ..Self::new() }
    }

    /// ECS in the region that is set.
    pub(crate) async fn ecs(&self) -> Result<AwsEcs, AwsError> {
        let (config, region) = (self.config().await?, self.region().await?);
        let builder = aws_sdk_ecs::config::Builder::from(config).region(region);
        Ok(AwsEcs::new(aws_sdk_ecs::Client::from_conf(builder.build())))
    }

    /// What a client of S3 needs to know that is not the SDK's.
    pub(crate) async fn s3(&self) -> Result<S3Access, AwsError> {
        let config = self.config().await?;
        let credentials = config
            .credentials_provider()
            .ok_or_else(|| AwsError::NoCredentials("no provider is set".into()))?;
        let endpoint = host::variable("AWS_ENDPOINT_URL_S3");
        Ok(S3Access {
            region: self.region().await?.to_string(),
            endpoint: endpoint.or_else(|| config.endpoint_url().map(str::to_owned)),
            credentials,
            roots: match trust_store()? {
                Trust::Host => None,
                Trust::Bundled => Some(bundled().collect()),
            },
        })
    }

    /// The region that is set, or that of this instance.
    async fn region(&self) -> Result<Region, AwsError> {
        let region = match self.config().await?.region() {
            Some(region) => Some(region.clone()),
            None => default_provider::region::default_provider().region().await,
        };
        region.ok_or(AwsError::NoRegion)
    }

    /// The region that an ARN names, or the one that is set.
    async fn region_for(&self, arn: Option<&str>) -> Result<Region, AwsError> {
        match arn {
            Some(region) => Ok(Region::new(region.to_owned())),
            None => self.region().await,
        }
    }

    /// What ECR says of an image.
    pub(crate) async fn image(
        &self,
        registry: &EcrRegistry,
        uri: &ImageUri,
    ) -> Result<EcrImage, AwsError> {
        let call = "DescribeImages";
        let id = ImageIdentifier::builder()
            .set_image_digest(uri.digest().map(str::to_owned))
            // With a digest there is no question, and a tag that moved would make it one.
            .set_image_tag(if uri.digest().is_some() { None } else { Some(tag(uri)) })
            .build();
        let ecr = self.ecr(registry).await?;
        let request = ecr.client.describe_images().registry_id(&registry.account);
        let request = request.repository_name(uri.repository()).image_ids(id);
        let answer = request.send().await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(err) => return Err(self.failed(call, err).await),
        };
        let found = answer.image_details.unwrap_or_default().into_iter().next();
        found.map(image).ok_or(AwsError::Incomplete { call, what: "imageDetails" })
    }

    /// The login to a registry: the one that is held, unless it ended or the registry `refused`
    /// its password. However many ask at once, one call is made.
    pub(crate) async fn ecr_login(
        &self,
        registry: &EcrRegistry,
        refused: Option<&str>,
    ) -> Result<Credential, AwsError> {
        let ecr = self.ecr(registry).await?;
        ecr.login.login((self.now)(), refused, self.fetch_login(&ecr.client)).await
    }

    /// As [`Self::ecr_login`], to ECR Public.
    pub(crate) async fn ecr_public_login(
        &self,
        refused: Option<&str>,
    ) -> Result<Credential, AwsError> {
        let fetch = Box::pin(ecr_public::fetch_login(self));
        self.ecr_public.login((self.now)(), refused, fetch).await
    }

    async fn fetch_login(&self, client: &aws_sdk_ecr::Client) -> Result<EcrLogin, AwsError> {
        match client.get_authorization_token().send().await {
            Ok(answer) => {
                let data = answer.authorization_data.unwrap_or_default().into_iter().next();
                let data = data.ok_or_else(|| no_login("authorizationData"))?;
                login(data.authorization_token, data.expires_at)
            }
            Err(err) => Err(self.failed(LOGIN_CALL, err).await),
        }
    }

    async fn ecr(&self, registry: &EcrRegistry) -> Result<Arc<Ecr>, AwsError> {
        let config = self.config().await?;
        let key = (registry.region.clone(), registry.endpoint);
        let mut known = self.ecr.lock().unwrap_or_else(PoisonError::into_inner);
        let ecr = known.entry(key).or_insert_with(|| Arc::new(new_ecr(config, registry)));
        Ok(Arc::clone(ecr))
    }

    async fn config(&self) -> Result<&SdkConfig, AwsError> {
        self.config.get_or_try_init(|| load(&self.asked)).await
    }

    /// What went wrong with a call. That there are no credentials shows as no answer, too.
    async fn failed<E, R>(&self, call: &'static str, err: SdkError<E, R>) -> AwsError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: fmt::Debug + Send + Sync + 'static,
    {
        if let Some(service) = err.as_service_error() {
            let code = service.code().unwrap_or("an error without a name").to_owned();
            let message = service.message().unwrap_or("no message").to_owned();
            return AwsError::NotDone { call, code, message };
        }
        if let Some(missing) = self.without_credentials().await {
            return missing;
        }
        let source = err.into_source().unwrap_or_else(Into::into);
        AwsError::NoAnswer { call, source }
    }

    /// The reason, if it is for want of credentials that a call got no answer.
    pub(crate) async fn without_credentials(&self) -> Option<AwsError> {
        let provider = self.config.get()?.credentials_provider()?;
        let missing = provider.provide_credentials().await.err()?;
        Some(AwsError::NoCredentials(missing.into()))
    }
}

/// Loads what the environment and the files in `~/.aws` say. The instance's metadata service is
/// asked for credentials, but not for a region: ECR's is in the name of the registry, and where
/// nobody is asked, nobody is waited for.
async fn load(asked: &Asked) -> Result<SdkConfig, AwsError> {
    let roots = match trust_store()? {
        Trust::Host => TrustStore::default(),
        Trust::Bundled => TrustStore::empty().with_pem_certificate(bundled_roots()),
    };
    let client = http_client(roots)?;
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(client.clone());
    let region = RegionProviderChain::first_try(asked.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new());
    let Some(profile) = &asked.profile else {
        let region = region.or_else(ProfileFileRegionProvider::new());
        return Ok(loader.region(region).load().await);
    };
    let of_profile = ProfileFileRegionProvider::builder().profile_name(profile).build();
    let region = region.or_else(of_profile).region().await;
    // The credentials of the environment would win over those of a profile.
    let provider = ProviderConfig::without_region().with_http_client(client);
    let credentials = ProfileFileCredentialsProvider::builder()
        .profile_name(profile)
        .configure(&provider.with_region(region.clone()))
        .build();
    let loader = loader.profile_name(profile).credentials_provider(credentials);
    Ok(loader.region(region).load().await)
}

fn new_ecr(config: &SdkConfig, registry: &EcrRegistry) -> Ecr {
    let mut builder =
        aws_sdk_ecr::config::Builder::from(config).region(Region::new(registry.region.clone()));
    if registry.endpoint == Endpoint::Fips {
        builder = builder.use_fips(true);
    }
    Ecr { client: aws_sdk_ecr::Client::from_conf(builder.build()), login: HeldLogin::default() }
}

/// The region in a full ARN, `arn:PARTITION:SERVICE:REGION:ACCOUNT:…`.
pub(crate) fn region_of(name: &str) -> Option<&str> {
    let region = name.strip_prefix("arn:")?.split(':').nth(2)?;
    (!region.is_empty()).then_some(region)
}

/// A reference without tag and digest means the tag `latest`.
fn tag(uri: &ImageUri) -> String {
    uri.tag().unwrap_or("latest").to_owned()
}

fn image(found: ImageDetail) -> EcrImage {
    EcrImage {
        digest: found.image_digest,
        size: found.image_size_in_bytes,
        pushed_at: found.image_pushed_at.and_then(|time| pushed_at(time.secs())),
        tags: found.image_tags.unwrap_or_default(),
    }
}

/// A time as `CodePipeline` writes it: `Mon Jan 21 20:04:00 UTC 2019`.
fn pushed_at(seconds: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (weekday, month) = (time.weekday().to_string(), time.month().to_string());
    let (day, year) = (time.day(), time.year());
    let (hour, minute, second) = time.to_hms();
    Some(format!("{weekday:.3} {month:.3} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}"))
}

/// A login to the registries of ECR in one region, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EcrLogin {
    credential: Credential,
    expires: SystemTime,
}

impl EcrLogin {
    fn serves(&self, now: SystemTime, refused: Option<&str>) -> bool {
        now + MARGIN < self.expires && refused != Some(self.credential.password.as_str())
    }
}

fn no_login(what: &'static str) -> AwsError {
    AwsError::Incomplete { call: LOGIN_CALL, what }
}

fn login(token: Option<String>, expires: Option<DateTime>) -> Result<EcrLogin, AwsError> {
    let token = token.ok_or_else(|| no_login("authorizationToken"))?;
    let text = BASE64.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = text
        .as_deref()
        .and_then(|text| text.split_once(':'))
        .ok_or_else(|| no_login("authorizationToken"))?;
    let expires = expires.and_then(|time| SystemTime::try_from(time).ok());
    let credential = Credential { username: username.into(), password: password.into() };
    Ok(EcrLogin { credential, expires: expires.ok_or_else(|| no_login("expiresAt"))? })
}

/// The last login that was fetched.
#[derive(Default)]
struct HeldLogin(tokio::sync::Mutex<Option<EcrLogin>>);

impl HeldLogin {
    /// The held login if it serves; else what `fetch` gives. Those who ask meanwhile wait for it.
    async fn login(
        &self,
        now: SystemTime,
        refused: Option<&str>,
        fetch: impl Future<Output = Result<EcrLogin, AwsError>>,
    ) -> Result<Credential, AwsError> {
        let mut held = self.0.lock().await;
        if let Some(login) = held.as_ref().filter(|login| login.serves(now, refused)) {
            return Ok(login.credential.clone());
        }
        let login = held.insert(fetch.await?);
        Ok(login.credential.clone())
    }
}

/// The HTTP client of all of AWS. It is that of the SDK, but for its roots.
fn http_client(trust_store: TrustStore) -> Result<SharedHttpClient, AwsError> {
    let context = TlsContext::builder()
        .with_trust_store(trust_store)
        .build()
        .map_err(|err| AwsError::Tls(err.into()))?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .proxy_config(ProxyConfig::from_env());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder.build()
    }))
}

/// Where Linux hosts keep their roots: the places where the TLS library looks for them.
const ROOTS: [&str; 10] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
    "/opt/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/cacert.pem",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
];

/// The variables by which a person names other roots.
const ROOT_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Whose roots are trusted.
#[derive(Clone, Copy)]
enum Trust {
    Host,
    /// Those of this program.
    Bundled,
}

/// The roots of the host, or, on a host that has none (`FROM scratch`), those of this program.
fn trust_store() -> Result<Trust, AwsError> {
    let variables = ROOT_VARIABLES.into_iter().filter_map(|it| Some((it, host::variable(it)?)));
    let named: Vec<(&str, PathBuf)> = variables.flat_map(paths).collect();
    if let Some((variable, path)) = named.first() {
        // What a person names is what they trust: there is nothing to fall back to.
        let found = named.iter().any(|(_, path)| has_certificate(path));
        let missing = || AwsError::NoRoots { variable, path: path.clone() };
        return found.then_some(Trust::Host).ok_or_else(missing);
    }
    if ROOTS.iter().any(|path| has_certificate(Path::new(path))) {
        return Ok(Trust::Host);
    }
    Ok(Trust::Bundled)
}

fn paths((variable, value): (&'static str, String)) -> Vec<(&'static str, PathBuf)> {
    env::split_paths(&value).map(|path| (variable, path)).collect()
}

/// Whether a file, or any file in a folder, has a certificate in it.
fn has_certificate(path: &Path) -> bool {
    let file_has = |path: &Path| {
        let marker = b"-----BEGIN CERTIFICATE-----";
        fs::read(path).is_ok_and(|text| text.windows(marker.len()).any(|found| found == marker))
    };
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().any(|entry| file_has(&entry.path())),
        Err(_) => file_has(path),
    }
}

fn bundled_roots() -> String {
    let pem = |certificate: &[u8]| {
        let text = BASE64.encode(certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    bundled().map(pem).collect()
}

/// The roots of this program, in DER.
fn bundled() -> impl Iterator<Item = &'static [u8]> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| &**root)
}

/// Why AWS was not reached, or did not do what was asked.
#[derive(Debug)]
pub(crate) enum AwsError {
    /// No region is set.
    NoRegion,
    /// No credentials were found, or those that were could not be loaded.
    NoCredentials(Box<dyn Error + Send + Sync>),
    /// A variable names roots that are not there.
    NoRoots { variable: &'static str, path: PathBuf },
    /// TLS could not be set up.
    Tls(Box<dyn Error + Send + Sync>),
    /// The service did not do what it was asked to.
    NotDone { call: &'static str, code: String, message: String },
    /// No answer came, or none that can be read.
    NoAnswer { call: &'static str, source: Box<dyn Error + Send + Sync> },
    /// The answer lacks what every answer has.
    Incomplete { call: &'static str, what: &'static str },
}

/// The errors by which ECR says that the request is wrong.
const REFUSALS: [&str; 4] = [
    "ImageNotFoundException",
    "InvalidParameterException",
    "RepositoryNotFoundException",
    "ValidationException",
];

impl AwsError {
    /// Whose fault it is.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::NoRegion | Self::NoRoots { .. } => Kind::Input,
            Self::NotDone { code, .. } if REFUSALS.contains(&code.as_str()) => Kind::Input,
            Self::NotDone { .. }
            | Self::NoCredentials(_)
            | Self::Tls(_)
            | Self::NoAnswer { .. }
            | Self::Incomplete { .. } => Kind::Outside,
        }
    }

    /// What to do about it, if that is known.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoRegion => Some("set AWS_REGION, or `region` in ~/.aws/config"),
            Self::NoCredentials(_) => Some(
                "AWS credentials are looked for in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                 in ~/.aws/config and ~/.aws/credentials (the profile is AWS_PROFILE), in \
                 AWS_WEB_IDENTITY_TOKEN_FILE, and in the container's and the instance's role",
            ),
            Self::NoRoots { .. }
            | Self::Tls(_)
            | Self::NotDone { .. }
            | Self::NoAnswer { .. }
            | Self::Incomplete { .. } => None,
        }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegion => f.write_str("no AWS region is set"),
            Self::NoCredentials(_) => f.write_str("there are no AWS credentials"),
            Self::NoRoots { variable, path } => {
                write!(f, "{variable} names `{}`, where there is no certificate", path.display())
            }
            Self::Tls(_) => f.write_str("TLS cannot be set up"),
            Self::NotDone { call, code, message } => {
                write!(f, "AWS did not do {call}: {code}: {message}")
            }
            Self::NoAnswer { call, .. } => write!(f, "{call} got no usable answer from AWS"),
            Self::Incomplete { call, what } => {
                write!(f, "the answer of AWS to {call} has no usable `{what}`")
            }
        }
    }
}

impl Error for AwsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoCredentials(source) | Self::Tls(source) | Self::NoAnswer { source, .. } => {
                Some(&**source)
            }
            Self::NoRegion
            | Self::NoRoots { .. }
            | Self::NotDone { .. }
            | Self::Incomplete { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Read, Write},
        net::TcpListener,
        sync::atomic::{AtomicUsize, Ordering},
        thread::{self, JoinHandle},
    };

    use aws_sdk_ecr::config::Credentials;

    use super::*;
    use crate::args::registry::Encryption;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    fn registry(region: &str) -> EcrRegistry {
        let (account, region) = ("123456789012".to_owned(), region.to_owned());
        EcrRegistry { account, region, endpoint: Endpoint::Standard }
    }

    fn credential(password: &str) -> Credential {
        Credential { username: "AWS".into(), password: password.into() }
    }

    fn uri(text: &str) -> ImageUri {
        ImageUri::parse(text).unwrap()
    }

    #[test]
    fn a_region_that_was_asked_for_wins() {
        for profile in [None, Some("team".to_owned())] {
            let asked = Asked { profile, region: Some("ap-south-1".into()) };
            let config = run(load(&asked)).unwrap();
            assert_eq!(config.region(), Some(&Region::new("ap-south-1")), "{asked:?}");
        }
    }

    #[test]
    fn times_are_written_as_codepipeline_writes_them() {
        for (seconds, want) in [
            (1_548_101_040, "Mon Jan 21 20:04:00 UTC 2019"),
            (1_709_164_801, "Thu Feb 29 00:00:01 UTC 2024"),
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
        ] {
            assert_eq!(pushed_at(seconds).as_deref(), Some(want));
        }
        assert_eq!(pushed_at(i64::MAX), None);
    }

    /// Asks a held login again and again; fetching gives `p1`, `p2`, … of an hour each.
    #[test]
    fn a_login_is_fetched_when_the_held_one_does_not_serve() {
        let held = HeldLogin::default();
        let fetched = AtomicUsize::new(0);
        for (minutes, refused, want) in [
            (0, None, "p1"),
            (58, None, "p1"),
            (58, Some("p0"), "p1"),
            (59, None, "p2"),
            (60, Some("p1"), "p2"),
            (60, Some("p2"), "p3"),
            (60, Some("p2"), "p3"),
        ] {
            let now = NOW + Duration::from_mins(minutes);
            let found = run(held.login(now, refused, async {
                let number = fetched.fetch_add(1, Ordering::Relaxed) + 1;
                let expires = now + Duration::from_hours(1);
                Ok(EcrLogin { credential: credential(&format!("p{number}")), expires })
            }));
            assert_eq!(found.unwrap().password, want, "after {minutes} minutes");
        }
    }

    #[test]
    fn a_fetch_that_fails_leaves_nothing_behind() {
        let held = HeldLogin::default();
        let failed = run(held.login(NOW, None, async { Err(AwsError::NoRegion) }));
        assert!(failed.is_err());
        assert_eq!(*run(held.0.lock()), None);
    }

    #[test]
    fn those_who_ask_at_once_get_one_login() {
        let held = HeldLogin::default();
        let fetched = AtomicUsize::new(0);
        let ask = || {
            held.login(NOW, None, async {
                fetched.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                let expires = NOW + Duration::from_hours(1);
                Ok(EcrLogin { credential: credential("p"), expires })
            })
        };
        run(async {
            let (a, b, c) = tokio::join!(ask(), ask(), ask());
            assert_eq!(a.unwrap(), b.unwrap());
            c.unwrap();
        });
        assert_eq!(fetched.into_inner(), 1);
    }

    /// Answers one request after the other, and returns the operations that were asked for with
    /// the scope of their signatures and the bodies.
    fn serve(answers: &'static [(u16, &'static str)]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            answers.iter().map(|(status, body)| answer(&listener, *status, body)).collect()
        });
        (url, asked)
    }

    fn answer(listener: &TcpListener, status: u16, body: &str) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let mut request = vec![0; field("content-length").parse().unwrap()];
        stream.read_exact(&mut request).unwrap();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let operation = field("x-amz-target").rsplit('.').next().unwrap().to_owned();
        let region = field("authorization").split('/').nth(2).unwrap().to_owned();
        format!("{operation} {region} {}", String::from_utf8(request).unwrap())
    }

    /// AWS at `url`, with credentials, and with no region.
    fn aws(url: &str) -> Aws {
        let credentials = Credentials::new("test", "test", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(url)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client(TrustStore::empty()).unwrap())
            .build();
        Aws { now: || NOW, config: OnceCell::new_with(Some(config)), ..Aws::new() }
    }

    #[test]
    fn a_login_is_fetched_once_for_each_region() {
        // `AWS:secret:1` and `AWS:secret2`, until an hour after the epoch.
        let (url, asked) = serve(&[
            (
                200,
                r#"{"authorizationData":[{"authorizationToken":"QVdTOnNlY3JldDox","expiresAt":3600}]}"#,
            ),
            (
                200,
                r#"{"authorizationData":[{"authorizationToken":"QVdTOnNlY3JldDI=","expiresAt":3600}]}"#,
            ),
        ]);
        let aws = aws(&url);
        let ask = |region: &str| run(aws.ecr_login(&registry(region), None)).unwrap();
        assert_eq!(ask("eu-west-1"), credential("secret:1"));
        assert_eq!(ask("eu-west-1"), credential("secret:1"));
        assert_eq!(ask("us-east-1"), credential("secret2"));
        let want = ["GetAuthorizationToken eu-west-1 {}", "GetAuthorizationToken us-east-1 {}"];
        assert_eq!(asked.join().unwrap(), want);
    }

    #[test]
    fn a_login_can_be_asked_for_on_any_thread() {
        let is_send = |_: &dyn Send| true;
        assert!(is_send(&Aws::new().ecr_login(&registry("eu-west-1"), None)));
    }

    #[test]
    fn a_login_that_cannot_be_read_is_an_error() {
        let want = "the answer of AWS to GetAuthorizationToken has no usable";
        let answers: [(&'static [(u16, &'static str)], &str); 4] = [
            (&[(200, "{}")], "`authorizationData`"),
            (&[(200, r#"{"authorizationData":[{}]}"#)], "`authorizationToken`"),
            (
                &[(200, r#"{"authorizationData":[{"authorizationToken":"?","expiresAt":1}]}"#)],
                "`authorizationToken`",
            ),
            (
                &[(200, r#"{"authorizationData":[{"authorizationToken":"QVdTOnNlY3JldDox"}]}"#)],
                "`expiresAt`",
            ),
        ];
        for (answer, what) in answers {
            let (url, _) = serve(answer);
            let err = run(aws(&url).ecr_login(&registry("eu-west-1"), None)).unwrap_err();
            assert_eq!(err.to_string(), format!("{want} {what}"));
            assert_eq!(err.kind(), Kind::Outside);
        }
    }

    #[test]
    fn parameters_are_asked_for_one_by_one_if_all_are_refused() {
        let denied = r#"{"__type":"AccessDeniedException","message":"no"}"#;
        let answers = vec![
            (400, denied),
            (200, r#"{"Parameters":[{"Name":"/a","Value":"1","Selector":":2"}]}"#),
            (400, denied),
        ];
        let (url, asked) = serve(answers.leak());
        let aws = aws(&url);
        let config = aws.config.into_inner().map(SdkConfig::into_builder).unwrap();
        let config = config.region(Region::new("eu-west-1")).build();
        let aws = Aws { config: OnceCell::new_with(Some(config)), ..Aws::new() };
        let found = run(aws.parameters(vec!["/a:2".into(), "/b".into()]));
        assert_eq!(found["/a:2"].as_ref().unwrap().as_deref(), Some("1"));
        assert!(matches!(&found["/b"], Err(err) if err.to_string().contains("AccessDenied")));
        let want = [r#"["/a:2","/b"]"#, r#"["/a:2"]"#, r#"["/b"]"#].map(|names| {
            format!(r#"GetParameters eu-west-1 {{"Names":{names},"WithDecryption":true}}"#)
        });
        assert_eq!(asked.join().unwrap(), want);
    }

    #[test]
    fn a_parameter_of_another_region_is_asked_for_there() {
        let (url, asked) = serve(&[(200, r#"{"InvalidParameters":["x"]}"#)]);
        let arn = "arn:aws:ssm:us-east-1:1:parameter/c";
        let found = run(aws(&url).parameters(vec![arn.into()]));
        assert_eq!(found[arn].as_ref().unwrap().as_deref(), None);
        let body = format!(r#"{{"Names":["{arn}"],"WithDecryption":true}}"#);
        assert_eq!(asked.join().unwrap(), [format!("GetParameters us-east-1 {body}")]);
    }

    #[test]
    fn without_a_region_only_what_names_its_own_is_asked_for() {
        let (url, asked) = serve(&[(200, r#"{"SecretBinary":"AAA="}"#)]);
        let version = |secret: &str| SecretVersion {
            secret: secret.to_owned(),
            stage: Some("AWSPREVIOUS".into()),
            version: None,
        };
        let arn = "arn:aws:secretsmanager:us-east-1:1:secret:s-AbCdEf";
        let aws = aws(&url);
        let found = run(aws.secrets([version(arn)].into()));
        assert!(matches!(found[&version(arn)], Ok(SecretValue::Binary)));
        let body = format!(r#"{{"SecretId":"{arn}","VersionStage":"AWSPREVIOUS"}}"#);
        assert_eq!(asked.join().unwrap(), [format!("GetSecretValue us-east-1 {body}")]);
    }

    #[test]
    fn regions_are_in_arns() {
        for (name, want) in [
            ("arn:aws:ssm:eu-west-1:1:parameter/a", Some("eu-west-1")),
            ("arn:aws:iam::1:role/a", None),
            ("arn:", None),
            ("/a:b:c:d", None),
        ] {
            assert_eq!(region_of(name), want, "for `{name}`");
        }
    }

    #[test]
    fn an_image_is_asked_for_by_its_digest() {
        let (url, asked) = serve(&[(
            200,
            r#"{"imageDetails":[{"imageDigest":"sha256:1","imageSizeInBytes":5,"imagePushedAt":1548101040,"imageTags":["v1"]}]}"#,
        )]);
        let hex = "1".repeat(64);
        let uri = uri(&format!("r.example/team/shop:v1@sha256:{hex}"));
        let found = run(aws(&url).image(&registry("eu-west-1"), &uri)).unwrap();
        let want = EcrImage {
            digest: Some("sha256:1".into()),
            size: Some(5),
            pushed_at: Some("Mon Jan 21 20:04:00 UTC 2019".into()),
            tags: vec!["v1".into()],
        };
        assert_eq!(found, want);
        let body = format!(
            r#"{{"registryId":"123456789012","repositoryName":"team/shop","imageIds":[{{"imageDigest":"sha256:{hex}"}}]}}"#
        );
        assert_eq!(asked.join().unwrap(), [format!("DescribeImages eu-west-1 {body}")]);
    }

    #[test]
    fn a_repository_is_created_as_was_asked_and_may_be_there_already() {
        let (url, asked) = serve(&[
            (200, "{}"),
            (400, r#"{"__type":"RepositoryAlreadyExistsException","message":"it is there"}"#),
            (400, r#"{"__type":"AccessDeniedException","message":"no"}"#),
        ]);
        let aws = aws(&url);
        let key = "arn:aws:kms:eu-west-1:1:key/k".to_owned();
        let encryption = Some(Encryption::Kms(Some(key)));
        let all = NewRepository { scan_on_push: true, encryption, immutable: true };
        let registry = registry("eu-west-1");
        run(aws.create_repository(&registry, "team/shop", &all)).unwrap();
        let plain = NewRepository::default();
        run(aws.create_repository(&registry, "team/shop", &plain)).unwrap();
        let error = run(aws.create_repository(&registry, "team/shop", &plain)).unwrap_err();
        assert_eq!(error.to_string(), "AWS did not do CreateRepository: AccessDeniedException: no");
        let named = r#""registryId":"123456789012","repositoryName":"team/shop""#;
        let want = [
            format!(
                r#"CreateRepository eu-west-1 {{{named},"imageTagMutability":"IMMUTABLE","imageScanningConfiguration":{{"scanOnPush":true}},"encryptionConfiguration":{{"encryptionType":"KMS","kmsKey":"arn:aws:kms:eu-west-1:1:key/k"}}}}"#
            ),
            format!("CreateRepository eu-west-1 {{{named}}}"),
            format!("CreateRepository eu-west-1 {{{named}}}"),
        ];
        assert_eq!(asked.join().unwrap(), want);
    }

    #[test]
    fn errors_of_ecr_say_whose_fault_they_are() {
        let answers: [(&'static [(u16, &'static str)], Kind); 3] = [
            (&[(400, r#"{"__type":"ImageNotFoundException","message":"no"}"#)], Kind::Input),
            (&[(400, r#"{"__type":"RepositoryNotFoundException","message":"no"}"#)], Kind::Input),
            (&[(400, r#"{"__type":"AccessDeniedException","message":"no"}"#)], Kind::Outside),
        ];
        for (answer, kind) in answers {
            let (url, _) = serve(answer);
            let uri = uri("r.example/shop:v1");
            let err = run(aws(&url).image(&registry("eu-west-1"), &uri)).unwrap_err();
            assert_eq!(err.kind(), kind);
            assert!(err.to_string().starts_with("AWS did not do DescribeImages: "), "{err}");
        }
    }

    #[test]
    fn the_roots_of_this_program_are_certificates() {
        // Making a client panics at a root that cannot be read.
        let roots = TrustStore::empty().with_pem_certificate(bundled_roots());
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client(roots).unwrap())
            .build();
        let _ = aws_sdk_ecr::Client::new(&config);
    }

    #[test]
    fn certificates_are_found_in_files_and_folders() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        assert!(!has_certificate(folder.path()));
        assert!(!has_certificate(&folder.path().join("missing.pem")));
        fs::write(folder.path().join("a.pem"), "nothing")?;
        assert!(!has_certificate(folder.path()));
        fs::write(folder.path().join("b.pem"), "# A root\n-----BEGIN CERTIFICATE-----\n")?;
        assert!(has_certificate(folder.path()));
        assert!(has_certificate(&folder.path().join("b.pem")));
        Ok(())
    }
}
