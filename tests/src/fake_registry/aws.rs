//! The few calls of Amazon ECR's API that have to do with /v2: they and the registry know of the
//! same repositories and tokens, which no emulator's do.
//!
//! The wire format is AWS JSON 1.1: `POST /`, the call's name in `X-Amz-Target`.

use std::io::Read;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    ACCOUNT, Shared,
    quirk::{Door, Lifetime},
    state::State,
    wire::{Body, Head, Reply},
};

/// 2100-01-01: no clock here, and clients compare it with theirs.
const EXPIRES: u64 = 4_102_444_800;

type Outcome = Result<Value, (&'static str, String)>;

/// Answers a call.
pub(super) fn call(shared: &Shared, head: &Head, body: &mut Body<'_>) -> Reply {
    let mut text = String::new();
    if let Err(err) = body.take(1024 * 1024).read_to_string(&mut text) {
        return answer(
            400,
            &json!({"__type": "SerializationException", "message": err.to_string()}),
        );
    }
    let target = head.header("x-amz-target").unwrap_or_default();
    let (_, name) = target.split_once('.').unwrap_or_default();
    let input: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut state = shared.state();
    state.calls.push((name.to_owned(), input.clone()));
    let is_public = target.starts_with("SpencerFrontendService.");
    let outcome = match name {
        "GetAuthorizationToken" => Ok(authorization(shared, &mut state, is_public)),
        "CreateRepository" => create(shared, &mut state, &input),
        "DescribeRepositories" => describe(shared, &state, &input),
        "DescribeImages" => describe_images(&state, &input),
        "BatchGetImage" | "PutLifecyclePolicy" => Ok(json!({})),
        _ => Err(("UnknownOperationException", format!("`{target}` is not known here"))),
    };
    match outcome {
        Ok(value) => answer(200, &value),
        Err((kind, message)) => answer(400, &json!({"__type": kind, "message": message})),
    }
}

fn answer(status: u16, value: &Value) -> Reply {
    Reply::new(status).body("application/x-amz-json-1.1", value.to_string())
}

fn authorization(shared: &Shared, state: &mut State, is_public: bool) -> Value {
    let lifetime = match state.settings.door {
        Door::Aws(lifetime) => lifetime,
        _ => Lifetime::Unlimited,
    };
    let token = format!("AWS:{}", state.tokens.give(Vec::new(), lifetime));
    let token = BASE64_STANDARD.encode(token);
    if is_public {
        let data = json!({"authorizationToken": token, "expiresAt": EXPIRES});
        return json!({"authorizationData": data});
    }
    let endpoint = format!("http://{}", shared.host());
    let data = json!({
        "authorizationToken": token,
        "expiresAt": EXPIRES,
        "proxyEndpoint": endpoint,
    });
    json!({"authorizationData": [data]})
}

fn create(shared: &Shared, state: &mut State, input: &Value) -> Outcome {
    let name = input["repositoryName"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(("InvalidParameterException", "`repositoryName` is missing".into()));
    }
    if state.repositories.contains_key(name) {
        let message = format!("The repository with name '{name}' already exists");
        return Err(("RepositoryAlreadyExistsException", message));
    }
    state.repositories.entry(name.to_owned()).or_default();
    Ok(json!({"repository": repository(shared, name)}))
}

fn describe(shared: &Shared, state: &State, input: &Value) -> Outcome {
    let all = || state.repositories.keys().cloned().collect();
    let asked = input["repositoryNames"].as_array();
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = asked.map_or_else(all, |it| it.iter().map(text).collect());
    if let Some(name) = names.iter().find(|it| !state.repositories.contains_key(*it)) {
        return Err(missing(name));
    }
    let found: Vec<_> = names.iter().map(|it| repository(shared, it)).collect();
    Ok(json!({"repositories": found}))
}

fn describe_images(state: &State, input: &Value) -> Outcome {
    let name = input["repositoryName"].as_str().unwrap_or_default();
    let repository = state.repositories.get(name).ok_or_else(|| missing(name))?;
    let ids = input["imageIds"].as_array().into_iter().flatten();
    let mut details = Vec::new();
    for id in ids {
        let wanted = id["imageDigest"].as_str().or(id["imageTag"].as_str()).unwrap_or_default();
        let Some(digest) = repository.resolve(wanted) else {
            let message = format!("The image with imageId '{wanted}' does not exist");
            return Err(("ImageNotFoundException", message));
        };
        let tags: Vec<_> = repository.tags.iter().filter(|it| it.1 == digest).collect();
        let tags: Vec<_> = tags.into_iter().map(|(tag, _)| tag).collect();
        details.push(json!({
            "registryId": ACCOUNT,
            "repositoryName": name,
            "imageDigest": digest,
            "imageTags": tags,
            "imageManifestMediaType": repository.manifests[digest].media_type,
        }));
    }
    Ok(json!({"imageDetails": details}))
}

fn missing(name: &str) -> (&'static str, String) {
    let message = format!(
        "The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
    );
    ("RepositoryNotFoundException", message)
}

fn repository(shared: &Shared, name: &str) -> Value {
    json!({
        "repositoryArn": format!("arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/{name}"),
        "registryId": ACCOUNT,
        "repositoryName": name,
        "repositoryUri": format!("{}/{name}", shared.host()),
    })
}
