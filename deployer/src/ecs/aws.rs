//! The port [`Ecs`] on the SDK.
//!
//! **Architecture invariant:** the SDK's types lose what they do not know. So the body of
//! `RegisterTaskDefinition` is put into the request as it is, before it is signed, and the answer is
//! read as it came; endpoint, credentials, signature, and retries remain the SDK's.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_ecs::{
    Client,
    config::{ConfigBag, Intercept, RuntimeComponents},
    error::{BoxError, ProvideErrorMetadata, SdkError},
};
use aws_smithy_runtime_api::client::interceptors::{
    context::{AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut},
    dyn_dispatch_hint,
};
use aws_smithy_types::body::SdkBody;
use serde_json::Value;

use super::{Ecs, EcsError, Registered, Service};
use crate::definition::{Container, TaskDefinition, field_paths};

/// What a service without a deployment controller has.
const DEFAULT_CONTROLLER: &str = "ECS";

/// The errors by which ECS says that the request is wrong.
const REFUSALS: [&str; 10] = [
    "ClientException",
    "ClusterNotFoundException",
    "InvalidParameterException",
    "NamespaceNotFoundException",
    "PlatformTaskDefinitionIncompatibilityException",
    "PlatformUnknownException",
    "ServiceNotActiveException",
    "ServiceNotFoundException",
    "UnsupportedFeatureException",
    "ValidationException",
];

/// ECS itself.
#[derive(Clone, Debug)]
pub struct AwsEcs {
    client: Client,
}

impl AwsEcs {
    /// ECS as `client` reaches it.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Ecs for AwsEcs {
    async fn describe_service(
        &self,
        cluster: &str,
        service: &str,
    ) -> Result<Option<Service>, EcsError> {
        let request = self.client.describe_services().cluster(cluster).services(service);
        let answer = request.send().await.map_err(|err| failed("DescribeServices", err))?;
        let Some(found) = answer.services.unwrap_or_default().into_iter().next() else {
            return Ok(None);
        };
        let controller = found.deployment_controller.map(|controller| controller.r#type);
        Ok(Some(Service {
            status: found.status.unwrap_or_default(),
            controller: controller
                .map_or_else(|| DEFAULT_CONTROLLER.to_owned(), |kind| kind.as_str().to_owned()),
            task_definition: found.task_definition,
        }))
    }

    async fn describe_task_definition(&self, arn: &str) -> Result<Vec<Container>, EcsError> {
        let call = "DescribeTaskDefinition";
        let request = self.client.describe_task_definition().task_definition(arn);
        let answer = request.send().await.map_err(|err| failed(call, err))?;
        let definition =
            answer.task_definition.ok_or(EcsError::Incomplete { call, field: "taskDefinition" })?;
        let containers = definition.container_definitions.unwrap_or_default().into_iter();
        let container = |name: Option<String>, image: Option<String>| Container {
            name: name.unwrap_or_default(),
            image: image.unwrap_or_default(),
        };
        Ok(containers.map(|found| container(found.name, found.image)).collect())
    }

    async fn register_task_definition(
        &self,
        definition: &TaskDefinition,
    ) -> Result<Registered, EcsError> {
        let call = "RegisterTaskDefinition";
        let raw = RawJson::new(definition.to_json());
        let answer = Arc::clone(&raw.answer);
        let request = self.client.register_task_definition().family(definition.family());
        let sent = request.customize().interceptor(raw).send().await;
        sent.map_err(|err| failed(call, err))?;
        let bytes = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        registered(call, &bytes.unwrap_or_default())
    }

    async fn update_service(
        &self,
        cluster: &str,
        service: &str,
        arn: &str,
    ) -> Result<(), EcsError> {
        // Nothing else is sent: what is not named is left to whatever sets it, such as scaling.
        let request = self.client.update_service();
        let request = request.cluster(cluster).service(service).task_definition(arn);
        request.send().await.map_err(|err| failed("UpdateService", err))?;
        Ok(())
    }
}

fn registered(call: &'static str, answer: &[u8]) -> Result<Registered, EcsError> {
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|err| EcsError::NoAnswer { call, source: err.into() })?;
    let definition = answer.get("taskDefinition").and_then(Value::as_object);
    let incomplete = |field| EcsError::Incomplete { call, field };
    let definition = definition.ok_or_else(|| incomplete("taskDefinition"))?;
    let arn = definition.get("taskDefinitionArn").and_then(Value::as_str);
    let arn = arn.ok_or_else(|| incomplete("taskDefinitionArn"))?.to_owned();
    // The tags stand beside the definition in an answer, and in it in a request.
    let tags = answer.get("tags").map(|_| "tags".to_owned());
    Ok(Registered {
        arn,
        fields: field_paths(definition, |_| true).into_iter().chain(tags).collect(),
    })
}

fn failed<E, R>(call: &'static str, err: SdkError<E, R>) -> EcsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let Some(service) = err.as_service_error() else {
        let source = err.into_source().unwrap_or_else(Into::into);
        return EcsError::NoAnswer { call, source };
    };
    let code = service.code().unwrap_or("an error without a name").to_owned();
    let message = service.message().unwrap_or("no message").to_owned();
    // ECS calls this a mistake of the client, but only one of two simultaneous clients has it.
    let in_the_way = message.starts_with("Too many concurrent attempts");
    if REFUSALS.contains(&code.as_str()) && !in_the_way {
        return EcsError::Refused { call, code, message };
    }
    EcsError::NotDone { call, code, message }
}

/// Sends a body as it is, and keeps the answer as it came.
#[derive(Debug)]
struct RawJson {
    body: Vec<u8>,
    answer: Arc<Mutex<Option<Vec<u8>>>>,
}

impl RawJson {
    fn new(body: Vec<u8>) -> Self {
        Self { body, answer: Arc::default() }
    }
}

#[dyn_dispatch_hint]
impl Intercept for RawJson {
    fn name(&self) -> &'static str {
        "RawJson"
    }

    // Before the loop of attempts, and so before each of them is signed.
    fn modify_before_retry_loop(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        *request.body_mut() = SdkBody::from(self.body.clone());
        // It is that of the SDK's own body otherwise, and the request is cut there.
        request.headers_mut().insert("content-length", self.body.len().to_string());
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.response().body().bytes().map(<[u8]>::to_vec);
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread::{self, JoinHandle},
        time::Duration,
    };

    use aws_sdk_ecs::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:task-definition/shop:8";

    /// One request, as it came over the wire.
    #[derive(Debug)]
    struct Request {
        head: String,
        body: String,
    }

    /// Answers one connection after the other, and returns what was asked.
    fn serve(answers: Vec<(u16, String)>) -> (String, JoinHandle<Vec<Request>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            answers.into_iter().map(|(status, body)| answer(&listener, status, &body)).collect()
        });
        (url, asked)
    }

    fn answer(listener: &TcpListener, status: u16, body: &str) -> Request {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = header(&head, "content-length").unwrap().parse().unwrap();
        let mut request = vec![0; length];
        stream.read_exact(&mut request).unwrap();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).unwrap();
        Request { head, body: String::from_utf8(request).unwrap() }
    }

    fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn client(url: &str) -> AwsEcs {
        let retry =
            RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::ZERO);
        let config = aws_sdk_ecs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(url)
            .retry_config(retry)
            .build();
        AwsEcs::new(Client::from_conf(config))
    }

    /// Makes one call against these answers, and returns what came of it and what was asked.
    fn call<T>(answers: &[(u16, &str)], call: impl AsyncFnOnce(AwsEcs) -> T) -> (T, Vec<Request>) {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let (url, asked) = serve(answers);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(call(client(&url)));
        (outcome, asked.join().unwrap())
    }

    fn definition(text: &str) -> TaskDefinition {
        TaskDefinition::parse(text).unwrap()
    }

    const SENT: &str = r#"{"family":"shop","cpu":2.50,"é":"ü","newer":{"b":[1.50,"",{}],"a":12345678901234567890123},"containerDefinitions":[{"name":"web","image":"shop:v1","unknown":[]}]}"#;

    fn register(answers: &[(u16, &str)]) -> (Result<Registered, EcsError>, Vec<Request>) {
        call(answers, async |ecs| ecs.register_task_definition(&definition(SENT)).await)
    }

    #[test]
    fn a_task_definition_is_sent_byte_for_byte() {
        let answer = format!(
            r#"{{"taskDefinition":{{"taskDefinitionArn":"{ARN}","newest":2.50,"containerDefinitions":[{{"name":"web","links":[]}}]}},"tags":[]}}"#
        );
        let (registered, asked) = register(&[(200, &answer)]);
        let [request] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(request.body, SENT);
        let target = "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition";
        assert_eq!(header(&request.head, "x-amz-target"), Some(target));
        assert!(header(&request.head, "authorization").unwrap().starts_with("AWS4-HMAC-SHA256 "));
        let fields = [
            "taskDefinitionArn",
            "newest",
            "containerDefinitions",
            "containerDefinitions[web].name",
            "containerDefinitions[web].links",
            "tags",
        ];
        let fields = fields.map(str::to_owned).to_vec();
        assert_eq!(registered.unwrap(), Registered { arn: ARN.into(), fields });
    }

    #[test]
    fn a_task_definition_is_sent_byte_for_byte_again() {
        let answer = format!(r#"{{"taskDefinition":{{"taskDefinitionArn":"{ARN}"}}}}"#);
        let (registered, asked) = register(&[(503, "{}"), (200, &answer)]);
        let bodies: Vec<_> = asked.iter().map(|request| request.body.as_str()).collect();
        assert_eq!(bodies, [SENT, SENT]);
        assert_eq!(registered.unwrap().arn, ARN);
    }

    #[test]
    fn an_answer_without_an_arn_is_not_taken_for_one() {
        for (answer, want) in [
            ("{}", "the answer of ECS to RegisterTaskDefinition has no `taskDefinition`"),
            (
                r#"{"taskDefinition":{}}"#,
                "the answer of ECS to RegisterTaskDefinition has no `taskDefinitionArn`",
            ),
        ] {
            let (registered, _) = register(&[(200, answer)]);
            assert_eq!(registered.unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn errors_say_whose_fault_they_are() {
        for (status, code, message, want) in [
            (400, "ClientException", "Bad cpu.", "ECS refuses"),
            (400, "ClusterNotFoundException", "Cluster not found.", "ECS refuses"),
            (400, "ServiceNotActiveException", "Service was not ACTIVE.", "ECS refuses"),
            (400, "InvalidParameterException", "CODE_DEPLOY", "ECS refuses"),
            (400, "AccessDeniedException", "not authorized", "ECS did not do"),
            (400, "ExpiredTokenException", "The security token is expired", "ECS did not do"),
            (
                400,
                "ClientException",
                "Too many concurrent attempts to create a new revision of the specified family.",
                "ECS did not do",
            ),
        ] {
            let body = format!(r#"{{"__type":"{code}","message":"{message}"}}"#);
            let (registered, _) = register(&[(status, &body)]);
            let want = format!("{want} RegisterTaskDefinition: {code}: {message}");
            assert_eq!(registered.unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn throttling_and_faults_are_tried_again_and_then_told() {
        for (status, code) in [
            (400, "ThrottlingException"),
            (400, "LimitExceededException"),
            (500, "ServerException"),
        ] {
            let body = format!(r#"{{"__type":"{code}","message":"later"}}"#);
            let (registered, asked) = register(&[(status, &body), (status, &body)]);
            assert_eq!(asked.len(), 2);
            let want = format!("ECS did not do RegisterTaskDefinition: {code}: later");
            assert_eq!(registered.unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn garbage_and_silence_are_no_answers() {
        let (registered, _) = register(&[(200, "<html>")]);
        let want = "RegisterTaskDefinition got no usable answer from ECS";
        assert_eq!(registered.unwrap_err().to_string(), want);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(client(&url).update_service("c", "s", ARN));
        assert_eq!(outcome.unwrap_err().to_string(), "UpdateService got no usable answer from ECS");
    }

    #[test]
    fn a_service_is_told_its_task_definition_and_nothing_else() {
        let (outcome, asked) = call(&[(200, r#"{"service":{}}"#)], async |ecs| {
            ecs.update_service("prod", "web", ARN).await
        });
        outcome.unwrap();
        let sent: Value = serde_json::from_str(&asked[0].body).unwrap();
        let want = serde_json::json!({"cluster": "prod", "service": "web", "taskDefinition": ARN});
        assert_eq!(sent, want);
    }

    #[test]
    fn services_are_read() {
        let missing = r#"{"services":[],"failures":[{"arn":"a","reason":"MISSING"}]}"#;
        let plain = format!(r#"{{"services":[{{"status":"ACTIVE","taskDefinition":"{ARN}"}}]}}"#);
        let other =
            r#"{"services":[{"status":"DRAINING","deploymentController":{"type":"CODE_DEPLOY"}}]}"#;
        let service = |status: &str, controller: &str, arn: Option<&str>| {
            Some(Service {
                status: status.into(),
                controller: controller.into(),
                task_definition: arn.map(str::to_owned),
            })
        };
        for (answer, want) in [
            (missing, None),
            (plain.as_str(), service("ACTIVE", "ECS", Some(ARN))),
            (other, service("DRAINING", "CODE_DEPLOY", None)),
        ] {
            let (found, _) =
                call(&[(200, answer)], async |ecs| ecs.describe_service("prod", "web").await);
            assert_eq!(found.unwrap(), want);
        }
    }

    #[test]
    fn task_definitions_are_read() {
        let answer = r#"{"taskDefinition":{"containerDefinitions":[{"name":"web","image":"shop:v1","newer":1}]}}"#;
        let (found, _) =
            call(&[(200, answer)], async |ecs| ecs.describe_task_definition(ARN).await);
        assert_eq!(found.unwrap(), [Container { name: "web".into(), image: "shop:v1".into() }]);
    }
}
