//! Deployment files are rendered, and a service of ECS (moto's) gets a new task definition.

use std::fs;

use rbuild_tests::{
    Finished, Sandbox,
    http::{Answer, Request},
    servers::{Moto, Scripted},
};
use serde_json::{Value, json};

use crate::sandbox;

const IMAGE: &str = "127.0.0.1:5000/web@sha256:\
                     9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

const TASKDEF: &str = r#"{
  "family": "FAMILY",
  "fieldOfTomorrow": { "b": 2.50, "a": "é" },
  "containerDefinitions": [
    {
      "name": "web", "image": "<IMAGE1_NAME>", "memory": 128,
      "environment": [ { "name": "EMPTY", "value": "" }, { "name": "B", "value": "b" } ]
    }
  ]
}
"#;

const APPSPEC: &str = "\
version: 0.0 # as the team wrote it
Resources:
  - Service:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: <TASK_DEFINITION>
        LoadBalancerInfo: { ContainerName: web, ContainerPort: 8080 }
";

/// A sandbox with the files of a team whose task definition has this family.
fn team(family: &str) -> Sandbox {
    let taskdef = TASKDEF.replace("FAMILY", family);
    sandbox(&[("taskdef.json", &taskdef), ("appspec.yaml", APPSPEC)])
}

/// Renders into `out`.
fn render(sandbox: &Sandbox, image: &str) -> Finished {
    let image = format!("IMAGE1_NAME={image}");
    let args = ["deploy", "render", "--pipeline", "--image", &image, "--output", "out"];
    sandbox.rbuild(args).go()
}

#[test]
fn rendering_changes_the_placeholders_and_nothing_else() {
    let sandbox = team("web");
    render(&sandbox, IMAGE).has_status(0);
    let out = |name| fs::read_to_string(sandbox.src().join("out").join(name)).expect(name);
    let json = |name| serde_json::from_str::<Value>(&out(name)).expect(name);
    let taskdef = TASKDEF.replace("FAMILY", "web");
    assert_eq!(out("taskdef.json"), taskdef.replace("<IMAGE1_NAME>", IMAGE));
    assert_eq!(out("appspec.yaml"), APPSPEC, "CodePipeline fills in what it registers");
    assert_eq!(json("imagedefinitions.json"), json!([{"name": "web", "imageUri": IMAGE}]));
    assert_eq!(json("imageDetail.json")["ImageURI"], IMAGE);
    let original = fs::read_to_string(sandbox.src().join("taskdef.json")).unwrap();
    assert_eq!(original, taskdef, "the team's file is left as it is");
}

#[test]
fn a_placeholder_that_is_left_over_is_an_error() {
    let sandbox = team("web");
    sandbox.write("taskdef.json", TASKDEF.replace("\"B\"", "\"<OTHER>\""));
    render(&sandbox, IMAGE).fails(2, &["taskdef.json:7:", "`<OTHER>`"]);
    assert!(!sandbox.src().join("out/taskdef.json").exists(), "half of it was written");
}

#[test]
fn what_cannot_be_rendered_is_refused() {
    let sandbox = team("web");
    sandbox.write("taskdef.json", "{ <IMAGE1_NAME>");
    render(&sandbox, IMAGE).fails(2, &["taskdef.json"]);
    fs::remove_file(sandbox.src().join("taskdef.json")).unwrap();
    render(&sandbox, IMAGE).fails(2, &["taskdef.json"]);
    let sandbox = team("web");
    render(&sandbox, "not an image").fails(2, &["not an image"]);
    // A tag can move to another image.
    render(&sandbox, "web:latest").fails(2, &["web:latest", "--allow-tag"]);
    assert!(!sandbox.src().join("out").exists());
}

#[test]
fn what_an_earlier_rendering_left_goes_and_nothing_else_does() {
    let sandbox = team("web");
    render(&sandbox, IMAGE).has_status(0);
    let out = |name| sandbox.src().join("out").join(name);
    assert!(out("appspec.yaml").exists());
    sandbox.write("out/notes.txt", "the team's");
    fs::remove_file(sandbox.src().join("appspec.yaml")).unwrap();
    render(&sandbox, IMAGE).has_status(0);
    assert!(!out("appspec.yaml").exists() && out("notes.txt").exists());
    assert!(out("imageDetail.json").exists());
}

#[test]
fn an_appspec_of_another_name_is_not_passed_over_in_silence() {
    let sandbox = team("web");
    let folder = sandbox.src();
    fs::rename(folder.join("appspec.yaml"), folder.join("appspec.yml")).unwrap();
    let rendered = render(&sandbox, IMAGE);
    rendered.has_status(0);
    assert!(rendered.stderr.contains("appspec.yml"), "{}", rendered.stderr);
}

#[test]
fn templates_that_lead_out_of_the_checkout_are_refused() {
    let sandbox = team("web");
    sandbox.write("../home/secret", "password");
    let template = sandbox.src().join("appspec.yaml");
    fs::remove_file(&template).unwrap();
    std::os::unix::fs::symlink("../home/secret", &template).unwrap();
    let rendered = render(&sandbox, IMAGE);
    rendered.fails(2, &["appspec.yaml"]);
    assert!(!rendered.stderr.contains("password"), "{}", rendered.stderr);
}

/// Makes a cluster with a service whose task definition has the family of the cluster's name, and
/// two containers. `argv[2]` is the kind of the deployment controller.
const MAKE: &str = "
name, ecs = sys.argv[1], client('ecs')
ecs.create_cluster(clusterName=name)
containers = [{'name': 'web', 'image': 'web:old', 'memory': 128}]
ecs.register_task_definition(family=name, containerDefinitions=containers)
ecs.create_service(cluster=name, serviceName='web', taskDefinition=name, desiredCount=1,
    deploymentController={'type': sys.argv[2]})
";

/// Prints what the service uses, and how many revisions there are.
const LOOK: &str = "
name, ecs = sys.argv[1], client('ecs')
service, = ecs.describe_services(cluster=name, services=['web'])['services']
arn = service['taskDefinition']
definition = ecs.describe_task_definition(taskDefinition=arn)['taskDefinition']
revisions = ecs.list_task_definitions(familyPrefix=name)['taskDefinitionArns']
print(json.dumps({'arn': arn, 'definition': definition, 'revisions': len(revisions)}))
";

fn make_service(sandbox: &Sandbox, name: &str, controller: &str) {
    Moto::shared().python(sandbox, MAKE, &[name, controller]).ok();
}

fn look(sandbox: &Sandbox, name: &str) -> Value {
    let seen = Moto::shared().python(sandbox, LOOK, &[name]).ok();
    serde_json::from_str(seen.line()).expect("JSON")
}

/// The arguments that deploy to the service `web` of a cluster.
fn ecs<'a>(cluster: &'a str, image: &'a str) -> Vec<&'a str> {
    vec!["deploy", "ecs", "--cluster", cluster, "--service", "web", "--image", image]
}

fn deploy(sandbox: &Sandbox, cluster: &str, more: &[&str]) -> Finished {
    let image = format!("IMAGE1_NAME={IMAGE}");
    let args = [&ecs(cluster, &image)[..], more].concat();
    Moto::shared().known_to(sandbox.rbuild(args)).go()
}

#[test]
fn a_service_gets_the_new_task_definition() {
    let sandbox = team("deployed");
    make_service(&sandbox, "deployed", "ECS");
    let finished = deploy(&sandbox, "deployed", &[]);
    finished.has_status(0);
    let seen = look(&sandbox, "deployed");
    let arn = seen["arn"].as_str().expect("ARN");
    assert!(arn.ends_with("task-definition/deployed:2"), "{arn}");
    assert!(finished.stdout.contains(arn), "the new revision is what is printed\n{finished}");
    let container = &seen["definition"]["containerDefinitions"][0];
    assert_eq!(container["image"], IMAGE);
    assert_eq!(container["environment"][0], json!({"name": "EMPTY", "value": ""}));
    assert!(
        finished.stderr.contains("fieldOfTomorrow"),
        "ECS dropped it, which is said\n{finished}"
    );
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let sandbox = team("planned");
    make_service(&sandbox, "planned", "ECS");
    let before = look(&sandbox, "planned");
    let finished = deploy(&sandbox, "planned", &["--dry-run"]);
    finished.has_status(0);
    for said in ["planned", "web:old", IMAGE] {
        assert!(finished.stdout.contains(said), "nothing is said of `{said}`\n{finished}");
    }
    assert_eq!(look(&sandbox, "planned"), before);
}

#[test]
fn a_service_that_cannot_be_updated_is_refused_before_anything_changes() {
    let sandbox = team("refused");
    deploy(&sandbox, "refused", &[]).fails(2, &["refused"]);
    make_service(&sandbox, "refused", "CODE_DEPLOY");
    let before = look(&sandbox, "refused");
    deploy(&sandbox, "refused", &[]).fails(2, &["CODE_DEPLOY"]);
    assert_eq!(look(&sandbox, "refused"), before);
}

#[test]
fn services_that_do_not_answer_are_a_matter_of_the_outside() {
    let sandbox = team("web");
    let image = format!("IMAGE1_NAME={IMAGE}");
    let run = || Moto::shared().known_to(sandbox.rbuild(ecs("web", &image)));
    // Port 1 is one that nothing listens on.
    run().env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").go().fails(3, &[]);
    let no_keys = run().without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY");
    no_keys.go().fails(3, &["credentials"]);
    let faulty = Scripted::start(|_| Answer::of(500, "{\"__type\": \"ServerException\"}"));
    let endpoint = format!("http://{}", faulty.host());
    run().env("AWS_ENDPOINT_URL", endpoint).go().fails(3, &["ServerException"]);
}

/// What is newer than the program reaches ECS: the body of the call has the file's own JSON in it.
#[test]
fn a_task_definition_is_the_same_json_from_end_to_end() {
    let ecs_of_our_own = Scripted::start(answer);
    let sandbox = team("web");
    let image = format!("IMAGE1_NAME={IMAGE}");
    let run = Moto::shared().known_to(sandbox.rbuild(ecs("web", &image)));
    run.env("AWS_ENDPOINT_URL", format!("http://{}", ecs_of_our_own.host())).ok();

    let asked = ecs_of_our_own.asked();
    let body = |wanted: &str| {
        let request =
            asked.iter().find(|it| call(it) == wanted).unwrap_or_else(|| panic!("no {wanted}"));
        String::from_utf8(request.body.clone()).expect("text")
    };
    let compact = r#"{"family":"web","fieldOfTomorrow":{"b":2.50,"a":"é"},"containerDefinitions":[{"name":"web","image":"IMAGE","memory":128,"environment":[{"name":"EMPTY","value":""},{"name":"B","value":"b"}]}]}"#;
    assert_eq!(body("RegisterTaskDefinition"), compact.replace("IMAGE", IMAGE));
    let updated: Value = serde_json::from_str(&body("UpdateService")).expect("JSON");
    assert_eq!(updated["taskDefinition"], arn(2));
    assert_eq!(updated.get("desiredCount"), None, "that is left to scaling");
}

/// What an ECS answers that has one service, which uses revision 1 of `web`.
fn answer(request: &Request) -> Answer {
    let service = json!({"serviceName": "web", "status": "ACTIVE", "taskDefinition": arn(1)});
    let answer = match call(request) {
        "DescribeServices" => json!({"services": [service], "failures": []}),
        "DescribeTaskDefinition" => task_definition(1),
        "RegisterTaskDefinition" => task_definition(2),
        "UpdateService" => json!({"service": service}),
        other => {
            return Answer::of(
                400,
                json!({"__type": "UnknownOperation", "message": other}).to_string(),
            );
        }
    };
    Answer::of(200, answer.to_string()).with("Content-Type", "application/x-amz-json-1.1")
}

/// The name of the call in a request to one of AWS's JSON APIs.
fn call(request: &Request) -> &str {
    request.header("x-amz-target").and_then(|it| it.split('.').nth(1)).unwrap_or_default()
}

fn task_definition(revision: u32) -> Value {
    let containers = json!([{"name": "web", "image": "web:old"}]);
    let arn = arn(revision);
    json!({"taskDefinition":
        {"taskDefinitionArn": arn, "family": "web", "containerDefinitions": containers}})
}

fn arn(revision: u32) -> String {
    format!("arn:aws:ecs:eu-west-1:123456789012:task-definition/web:{revision}")
}
