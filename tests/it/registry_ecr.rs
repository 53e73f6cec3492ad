//! Amazon ECR as far as its name: in a network of its own the fake registry has the host that ECR
//! would have, and answers the calls of AWS's API that go with it.

use rbuild_tests::{
    FakeRegistry, Run, Sandbox,
    fake_registry::{ECR, Fault, Lifetime, Settings, fault::Trouble},
    namespace::Namespace,
    servers::moto::VARIABLES,
};

use crate::{
    build, digest_of,
    registry_suite::{sandbox_with_layers, saved},
    sandbox,
};

/// ECR Public's host.
const ECR_PUBLIC: &str = "public.ecr.aws";

/// ECR, and the network in which it is.
#[derive(Debug)]
pub(crate) struct Aws {
    pub(crate) registry: FakeRegistry,
    namespace: Namespace,
}

impl Aws {
    pub(crate) fn start(settings: Settings) -> Self {
        let files = sandbox(&[]);
        let hosts = format!("127.0.0.1 localhost {ECR} {ECR_PUBLIC}\n");
        let hosts = files.write("../hosts", hosts);
        // The file stays mounted when its folder is gone.
        let namespace = Namespace::new(&format!("mount --bind {} /etc/hosts", hosts.display()));
        let registry = FakeRegistry::start_in(&namespace, 80, settings);
        Self { registry, namespace }
    }

    /// A run of the program, by someone who has credentials of AWS.
    pub(crate) fn rbuild(&self, sandbox: &Sandbox, args: &[&str]) -> Run {
        let hosts = ["--insecure-registry", ECR, "--insecure-registry", ECR_PUBLIC];
        let args = [args, &hosts].concat();
        let inside = self.namespace.enter(&sandbox.src().display().to_string());
        let run = sandbox.rbuild(args).env("AWS_ENDPOINT_URL", "http://127.0.0.1:80");
        VARIABLES.into_iter().fold(run, |run, (name, value)| run.env(name, value)).under(inside)
    }

    /// The same, by someone who has none.
    fn anonymous(&self, sandbox: &Sandbox, args: &[&str]) -> Run {
        let run = self.rbuild(sandbox, args).env("AWS_EC2_METADATA_DISABLED", "true");
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].into_iter().fold(run, Run::without_env)
    }

    /// How often a password was asked for.
    pub(crate) fn logins(&self) -> usize {
        self.registry.calls().iter().filter(|(name, _)| name == "GetAuthorizationToken").count()
    }
}

#[test]
fn ecr_is_pushed_to_and_pulled_from_with_one_login() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    aws.registry.create_repository("shop");
    let (from, to) = (sandbox_with_layers(), sandbox(&[]));
    let name = format!("{ECR}/shop:1");
    let built = build(&from, &name);
    let pushed = aws.rbuild(&from, &["image", "push", &name]).ok();
    assert_eq!((digest_of(pushed.line()), aws.logins()), (built.clone(), 1));
    let pulled = aws.rbuild(&to, &["image", "pull", &name]).ok();
    assert_eq!((digest_of(pulled.line()), aws.logins()), (built, 2));
    assert_eq!(saved(&from, &name), saved(&to, &name));
    let asked = aws.registry.asked();
    let stored = asked.iter().filter(|it| it.path.starts_with("/storage/")).count();
    assert_eq!(stored, 3, "two layers and a config came from the storage");
    aws.registry.assert_was_asked_rightly();
}

#[test]
fn ecr_gets_another_password_when_it_says_that_one_has_expired() {
    for requests in [0, 1, 3, 6] {
        let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
        aws.registry.create_repository("shop");
        let (from, to) = (sandbox_with_layers(), sandbox(&[]));
        let name = format!("{ECR}/shop:1");
        let built = build(&from, &name);
        aws.registry.end_tokens_after(requests);
        let pushed = aws.rbuild(&from, &["image", "push", &name]).ok();
        assert_eq!((digest_of(pushed.line()), aws.logins()), (built.clone(), 2));
        aws.registry.end_tokens_after(requests / 2);
        let pulled = aws.rbuild(&to, &["image", "pull", &name]).ok();
        assert_eq!((digest_of(pulled.line()), aws.logins()), (built, 4));
        aws.registry.assert_was_asked_rightly();
        aws.registry.assert_is_whole();
    }
}

#[test]
fn ecr_public_wants_a_password_of_who_pushes() {
    let aws = Aws::start(Settings::ecr_public("nobody", "nothing"));
    aws.registry.create_repository("a1b2c3d4/shop");
    let (from, to) = (sandbox_with_layers(), sandbox(&[]));
    let name = format!("{ECR_PUBLIC}/a1b2c3d4/shop:1");
    let built = build(&from, &name);
    let denied = aws.anonymous(&from, &["image", "push", &name]).go();
    denied.fails(3, &[ECR_PUBLIC, "where the AWS CLI looks"]);
    let pushed = aws.rbuild(&from, &["image", "push", &name]).ok();
    assert_eq!((digest_of(pushed.line()), aws.logins()), (built.clone(), 1));
    // Everyone may pull: nobody is asked for a password.
    let pulled = aws.rbuild(&to, &["image", "pull", &name]).ok();
    assert_eq!((digest_of(pulled.line()), aws.logins()), (built.clone(), 1));
    // One process reads without, and writes with one.
    let fresh = sandbox(&[("ctx/Dockerfile", &format!("FROM {name}\nENV A=b\n"))]);
    let other = format!("{ECR_PUBLIC}/a1b2c3d4/shop:2");
    let args = ["image", "build", "--push", "-t", &other, "ctx"];
    let again = aws.rbuild(&fresh, &args).ok();
    assert_ne!(digest_of(again.line()), built);
    assert_eq!(aws.logins(), 2);
    aws.registry.assert_was_asked_rightly();
}

#[test]
fn ecr_has_no_repository_that_nobody_made() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    let sandbox = sandbox_with_layers();
    let name = format!("{ECR}/shop:1");
    build(&sandbox, &name);
    let refused = aws.rbuild(&sandbox, &["image", "push", &name]).go();
    refused.fails(2, &["shop", "RepositoryNotFoundException"]);
}

#[test]
fn ecr_keeps_a_tag_where_it_is() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    aws.registry.create_repository("shop");
    let sandbox = sandbox_with_layers();
    let name = format!("{ECR}/shop:1");
    let first = build(&sandbox, &name);
    let push = || aws.rbuild(&sandbox, &["image", "push", &name]);
    push().ok();
    // The same once more is fine.
    assert_eq!(digest_of(push().ok().line()), first);
    sandbox.write("ctx/hello", "other\n");
    assert_ne!(build(&sandbox, &name), first);
    push().go().fails(2, &["the tag is immutable"]);
    assert_eq!(aws.registry.tags("shop"), [("1".to_owned(), first)]);
}

#[test]
fn ecr_may_ask_to_slow_down() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    aws.registry.create_repository("shop");
    let sandbox = sandbox_with_layers();
    let name = format!("{ECR}/shop:1");
    let built = build(&sandbox, &name);
    let slow = |method: &str, part: &str| Fault::new(method, part, Trouble::status(429)).times(2);
    aws.registry.inject(slow("POST", "/blobs/uploads/"));
    aws.registry.inject(slow("PUT", "/manifests/"));
    aws.registry.inject(Fault::new("HEAD", "/blobs/", Trouble::retry_after("0")));
    let pushed = aws.rbuild(&sandbox, &["image", "push", &name]).ok();
    assert_eq!((digest_of(pushed.line()), aws.registry.faults_left()), (built, 0));
    aws.registry.assert_was_asked_rightly();
}

#[test]
fn ecr_gets_the_repository_that_it_lacks() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    let sandbox = sandbox_with_layers();
    let name = format!("{ECR}/team/shop:1");
    let built = build(&sandbox, &name);
    aws.rbuild(&sandbox, &["image", "push", &name]).go().fails(2, &["--create-repository"]);
    let copy = ["image", "copy", &format!("store:{name}"), &name];
    aws.rbuild(&sandbox, &copy).go().fails(2, &["--create-repository"]);
    // Who wants to have an image looks for one that is there.
    let pulled = aws.rbuild(&sandbox, &["image", "pull", &name]).go();
    pulled.fails(2, &["hint: look at the name and the tag"]);
    let args = [
        "image",
        "push",
        "--create-repository",
        "--repository-scan-on-push",
        "--repository-encryption",
        "KMS:alias/images",
        "--repository-immutable",
        &name,
    ];
    let pushed = aws.rbuild(&sandbox, &args).ok();
    assert_eq!(digest_of(pushed.line()), built);
    let calls = aws.registry.calls();
    let created: Vec<_> = calls.iter().filter(|(call, _)| call == "CreateRepository").collect();
    let [(_, input)] = &created[..] else { panic!("one call: {calls:?}") };
    assert_eq!(input["repositoryName"], "team/shop");
    assert_eq!(input["imageScanningConfiguration"]["scanOnPush"], true);
    assert_eq!(input["imageTagMutability"], "IMMUTABLE");
    let encryption = &input["encryptionConfiguration"];
    assert_eq!(
        (&encryption["encryptionType"], &encryption["kmsKey"]),
        (&"KMS".into(), &"alias/images".into())
    );
    // It is there now, and that is no error.
    assert_eq!(digest_of(aws.rbuild(&sandbox, &args).ok().line()), built);
    aws.registry.assert_was_asked_rightly();
    aws.registry.assert_is_whole();
}

#[test]
fn ecr_keeps_a_tag_and_the_same_image_is_no_error() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    aws.registry.create_repository("shop");
    let sandbox = sandbox_with_layers();
    let name = format!("{ECR}/shop:1");
    let first = build(&sandbox, &name);
    let push = || aws.rbuild(&sandbox, &["image", "push", "--ignore-immutable", &name]);
    assert_eq!(digest_of(push().ok().line()), first);
    assert_eq!(digest_of(push().ok().line()), first);
    sandbox.write("ctx/hello", "other\n");
    assert_ne!(build(&sandbox, &name), first);
    push().go().fails(2, &["immutable"]);
    assert_eq!(aws.registry.tags("shop"), [("1".to_owned(), first)]);
}
