//! `rbuild deploy`

use std::future::Future;

use rbuild_deployer::{
    apply::{self, ApplyError},
    definition::{DefinitionError, TaskDefinition},
    ecs::{Ecs as _, EcsError, aws::AwsEcs},
    event::Event,
    image::ImageUri,
    placeholder::Place,
    plan::{self, Change, ImageChange, Plan, PlanError},
    render::{self, Facts, Image, RenderError, Revision, Template, Templates},
};
use rbuild_imagebuilder::registry::ecr::EcrRegistry;
use serde_json::json;

use self::files::File;
use crate::{
    args::deploy::{Deploy, Ecs, ImageArg, Images, Render},
    aws::{Aws, AwsError},
    console,
    failure::{Failure, Kind},
    host, registries,
};

mod files;

pub(crate) fn deploy(args: &Deploy) -> Result<(), Failure> {
    match args {
        Deploy::Render(args) => on_runtime(STOPPED_RENDER, render(args, &Aws::new())),
        Deploy::Ecs(args) if args.wait => {
            let message = "`--wait` is not built yet: waiting for a rollout comes later";
            Err(Failure::new(Kind::Input, message))
        }
        Deploy::Ecs(args) if args.dry_run => on_runtime(STOPPED_DRY_RUN, ecs(args, &Aws::new())),
        Deploy::Ecs(args) => on_runtime(STOPPED_ECS, ecs(args, &Aws::new())),
        Deploy::Later(_) => {
            let message = "of `rbuild deploy`, only `render` and `ecs` are built yet: deploying \
                           with CodeDeploy, waiting for a rollout, and judging it come later";
            Err(Failure::new(Kind::Input, message))
        }
    }
}

/// What there is when `deploy render` was stopped.
const STOPPED_RENDER: &str = "run it again: each file that is there is whole, but they may be of \
                              different renderings";

/// What there is when a dry run was stopped.
const STOPPED_DRY_RUN: &str = "run it again: nothing was changed";

/// What there is when `deploy ecs` was stopped: a call that was under way may have been heard.
const STOPPED_ECS: &str = "a task definition may have been registered, and the service may or may \
                           not have been told to use it: look at it before you run it again";

fn on_runtime(
    hint: &'static str,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    host::stop_on_signals(hint)?;
    registries::runtime()?.block_on(command)
}

async fn render(args: &Render, aws: &Aws) -> Result<(), Failure> {
    let images = images(&args.images)?;
    let taskdef = files::read_taskdef(args.taskdef.as_deref())?;
    let appspec = files::read_appspec(args.appspec.as_deref(), &taskdef)?;
    files::refuse_folder_of_inputs(&args.output, [Some(&taskdef), appspec.as_ref()])?;
    let revision = match &args.task_definition {
        Some(arn) => Revision::Registered(arn.clone()),
        None if args.pipeline => Revision::Pipeline,
        None => Revision::Unknown,
    };
    let templates =
        Templates { taskdef: &taskdef.text, appspec: appspec.as_ref().map(|file| &*file.text) };
    let rendered = render::render(templates, &images, &revision)
        .map_err(|err| not_rendered(err, &taskdef, appspec.as_ref()))?;
    rendered.too_large().iter().for_each(show);
    let details = image_details(&images, &args.image_tags, aws).await?;
    let files = files::files(&args.output, &taskdef, appspec.as_ref(), rendered, details)?;
    files::write(&args.output, &files)?;
    console::print_data(if args.json { files::as_json(&files) } else { files::as_lines(&files) })
}

async fn ecs(args: &Ecs, aws: &Aws) -> Result<(), Failure> {
    let images = images(&args.images)?;
    let file = files::read_taskdef(args.taskdef.as_deref())?;
    let text =
        render::fill_taskdef(&file.text, &images).map_err(|err| not_rendered(err, &file, None))?;
    let definition = TaskDefinition::parse(&text).map_err(|err| not_a_definition(err, &file))?;
    let ecs = aws.ecs().await.map_err(|err| unreached("ECS cannot be asked", err))?;
    let plan = match make_plan(args, &ecs, &definition).await {
        Ok(plan) => plan,
        Err(Trouble::Service(err)) => return Err(not_to_be_planned(err)),
        Err(Trouble::Ecs(err)) => return Err(not_planned(args, err, aws).await),
    };
    if args.dry_run {
        return console::print_data(if args.json { plan_as_json(&plan) } else { plan.to_string() });
    }
    let arn = match apply::apply(&plan, &definition, &ecs, &mut |event| show(&event)).await {
        Ok(arn) => arn,
        Err(err) => return Err(not_applied(err, aws).await),
    };
    console::print_data(if args.json { outcome_as_json(&plan, &arn) } else { format!("{arn}\n") })
}

/// Why there is no plan: ECS failed, or the service is none to plan for.
enum Trouble {
    Ecs(EcsError),
    Service(PlanError),
}

impl From<EcsError> for Trouble {
    fn from(err: EcsError) -> Self {
        Self::Ecs(err)
    }
}

impl From<PlanError> for Trouble {
    fn from(err: PlanError) -> Self {
        Self::Service(err)
    }
}

async fn make_plan(args: &Ecs, ecs: &AwsEcs, definition: &TaskDefinition) -> Result<Plan, Trouble> {
    let found = ecs.describe_service(&args.cluster, &args.service).await?;
    let service = plan::rolling(&args.cluster, &args.service, found)?;
    let current = ecs.describe_task_definition(service.task_definition()).await?;
    Ok(plan::plan(service, &current, definition))
}

fn images(args: &Images) -> Result<Vec<Image>, Failure> {
    let checked = |ImageArg(image): &ImageArg| {
        if args.allow_tag {
            return Ok(image.clone());
        }
        let uri = image.uri.clone().pinned().map_err(|err| {
            Failure::new(Kind::Input, err.to_string())
                .hint("name it by digest (`NAME@sha256:…`), or pass `--allow-tag`")
        })?;
        Ok(Image { token: image.token.clone(), uri })
    };
    args.images.iter().map(checked).collect()
}

/// `imageDetail.json` of each image. What only ECR knows is asked of ECR.
async fn image_details(
    images: &[Image],
    tags: &[String],
    aws: &Aws,
) -> Result<Vec<(String, String)>, Failure> {
    let mut details = Vec::new();
    for Image { token, uri } in images {
        let facts = match uri.host().and_then(EcrRegistry::parse) {
            Some(registry) => facts_of_ecr(registry, uri, aws).await?,
            None => Facts::Given { tags: tags.to_vec() },
        };
        details.push((token.as_str().to_owned(), render::image_detail(uri, &facts)));
    }
    Ok(details)
}

async fn facts_of_ecr(registry: EcrRegistry, uri: &ImageUri, aws: &Aws) -> Result<Facts, Failure> {
    let asked = aws.image(&registry, uri).await;
    let image =
        asked.map_err(|err| unreached(&format!("`{uri}` could not be looked up in ECR"), err))?;
    Ok(Facts::Ecr { account: registry.account, image })
}

fn plan_as_json(plan: &Plan) -> String {
    let change = |change: &Change| match change {
        Change::Register { family } => json!({"change": "register", "family": family}),
        Change::UpdateService { from, to } => {
            json!({"change": "updateService", "from": from, "to": to})
        }
    };
    let image = |image: &ImageChange| {
        let ImageChange { container, from, to } = image;
        json!({"container": container, "from": from, "to": to})
    };
    let value = json!({
        "cluster": plan.cluster,
        "service": plan.service,
        "changes": plan.changes.iter().map(change).collect::<Vec<_>>(),
        "images": plan.images.iter().map(image).collect::<Vec<_>>(),
    });
    format!("{value}\n")
}

fn outcome_as_json(plan: &Plan, arn: &str) -> String {
    let value = json!({
        "cluster": plan.cluster,
        "service": plan.service,
        "from": plan.from,
        "taskDefinitionArn": arn,
    });
    format!("{value}\n")
}

/// Tells an event.
fn show(event: &Event<'_>) {
    match event {
        Event::TooLarge { file, bytes, limit } => {
            console::warn(&format!("{file} has {bytes} bytes, and CodePipeline takes {limit}"));
        }
        Event::Registered { arn } => console::say(&format!("registered {arn}")),
        Event::FieldIgnored { field } => console::warn(&format!(
            "ECS registered the task definition without `{field}`, which it does not know"
        )),
        Event::ServiceUpdated { cluster, service, arn } => console::say(&format!(
            "the service `{service}` in the cluster `{cluster}` was told to use {arn}; \
             rbuild does not wait for the rollout yet"
        )),
    }
}

fn at(failure: Failure, file: &File, place: Place) -> Failure {
    failure.excerpt(console::excerpt::excerpt(&file.name(), &file.text, place.line, place.column))
}

fn not_rendered(err: RenderError, taskdef: &File, appspec: Option<&File>) -> Failure {
    let failure = Failure::new(Kind::Input, err.to_string());
    match err {
        RenderError::Twice { .. } => failure.hint("pass `--image` once for each placeholder"),
        RenderError::Unused { token } => failure.hint(format!(
            "write `<{token}>` where the image belongs, or leave `--image {token}=…` out"
        )),
        RenderError::ArnUnused { .. } => failure.hint(
            "write `<TASK_DEFINITION>` into the AppSpec, or leave `--task-definition` out",
        ),
        RenderError::Json { place, .. } => at(failure, taskdef, place),
        RenderError::Revision { place } => at(failure, appspec.unwrap_or(taskdef), place).hint(
            "pass `--task-definition ARN` with a registered revision, or `--pipeline` where \
             CodePipeline registers the task definition and fills it in",
        ),
        RenderError::Leftover { template, token, place } => {
            let file = match template {
                Template::Taskdef => taskdef,
                Template::Appspec => appspec.unwrap_or(taskdef),
            };
            at(failure, file, place).hint(format!("pass `--image {token}=NAME@sha256:…`"))
        }
        RenderError::NoContainer => failure.hint(
            "write `\"image\": \"<TOKEN>\"` into a container, and pass `--image TOKEN=NAME@sha256:…`",
        ),
        RenderError::Wrapped { wrapper } => failure.hint(format!(
            "write only what stands within `{wrapper}` to the file"
        )),
        RenderError::Unnamed { .. } => failure.hint("give the container a `name`"),
    }
}

fn not_a_definition(err: DefinitionError, file: &File) -> Failure {
    let message = format!("`{}` cannot be registered: {err}", file.name());
    match err {
        DefinitionError::Json { place, .. } => at(Failure::new(Kind::Input, message), file, place),
        _ => Failure::new(Kind::Input, message),
    }
}

/// What can be said of a service that this program cannot update.
fn not_to_be_planned(err: PlanError) -> Failure {
    let hint = match &err {
        PlanError::Controller { .. } => {
            Some("deploying with CodeDeploy or a controller of your own is not built yet")
        }
        PlanError::Missing { .. } => Some("look at the names, and at the region"),
        PlanError::NotActive { .. } | PlanError::NoTaskDefinition { .. } => None,
    };
    Failure::of(Kind::Input, err).hint_if(hint)
}

fn unreached(message: &str, err: AwsError) -> Failure {
    let (kind, hint) = (err.kind(), err.hint());
    Failure::new(kind, message).because(err).hint_if(hint)
}

async fn not_planned(args: &Ecs, err: EcsError, aws: &Aws) -> Failure {
    let Ecs { service, cluster, .. } = args;
    let message =
        format!("what the service `{service}` in the cluster `{cluster}` runs is not known");
    of_ecs(&message, err, aws).await
}

async fn not_applied(err: ApplyError, aws: &Aws) -> Failure {
    let message = err.to_string();
    match err {
        ApplyError::Register { source, .. } | ApplyError::Update { source, .. } => {
            of_ecs(&message, source, aws).await
        }
    }
}

async fn of_ecs(message: &str, err: EcsError, aws: &Aws) -> Failure {
    // That there are no credentials shows as no answer.
    if matches!(err, EcsError::NoAnswer { .. })
        && let Some(missing) = aws.without_credentials().await
    {
        return unreached(message, missing);
    }
    let kind = match err {
        EcsError::Refused { .. } => Kind::Input,
        EcsError::NotDone { .. } | EcsError::NoAnswer { .. } | EcsError::Incomplete { .. } => {
            Kind::Outside
        }
    };
    Failure::new(kind, message).because(err)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const TASKDEF: &str = r#"{
  "containerDefinitions": [{"name": "web", "image": "<IMAGE1_NAME>"}]
}
"#;

    fn image(text: &str) -> Image {
        text.parse::<ImageArg>().unwrap().0
    }

    fn file(path: &str, text: &str) -> File {
        File::new(path, text)
    }

    #[track_caller]
    fn check(failure: &Failure, want: Expect) {
        want.assert_eq(&format!("{failure}\nexit {}\n", failure.kind.status()));
    }

    /// Renders, and wants a failure.
    #[track_caller]
    fn check_render(taskdef: &str, appspec: &str, images: &[Image], want: Expect) {
        let (taskdef, appspec) = (file("taskdef.json", taskdef), file("appspec.yaml", appspec));
        let templates = Templates { taskdef: &taskdef.text, appspec: Some(&appspec.text) };
        let err = render::render(templates, images, &Revision::Unknown).unwrap_err();
        check(&not_rendered(err, &taskdef, Some(&appspec)), want);
    }

    #[test]
    fn what_cannot_be_rendered_is_shown_where_it_stands() {
        let images = [image("IMAGE1_NAME=shop:v1")];
        check_render(
            "{\n  \"a\": x\n}",
            "<IMAGE1_NAME>",
            &images,
            expect![[r#"
                error: this is not JSON: expected value
                 --> taskdef.json:2:8
                  |
                2 |   "a": x
                  |        ^
                exit 2
            "#]],
        );
        check_render(
            TASKDEF,
            "a:\n  b: <IMAGE2_NAME>",
            &images,
            expect![[r#"
                error: nothing replaces the placeholder `<IMAGE2_NAME>`
                 --> appspec.yaml:2:6
                  |
                2 |   b: <IMAGE2_NAME>
                  |      ^
                hint: pass `--image IMAGE2_NAME=NAME@sha256:…`
                exit 2
            "#]],
        );
        check_render(
            TASKDEF,
            "a: <TASK_DEFINITION>",
            &images,
            expect![[r#"
                error: nothing says which task definition replaces `<TASK_DEFINITION>`
                 --> appspec.yaml:1:4
                  |
                1 | a: <TASK_DEFINITION>
                  |    ^
                hint: pass `--task-definition ARN` with a registered revision, or `--pipeline` where CodePipeline registers the task definition and fills it in
                exit 2
            "#]],
        );
    }

    #[test]
    fn a_description_of_a_task_definition_is_not_what_codepipeline_reads() {
        check_render(
            &format!(r#"{{"taskDefinition": {TASKDEF}}}"#),
            "a: b",
            &[image("IMAGE1_NAME=shop:v1")],
            expect![[r#"
                error: the task definition stands within `taskDefinition`, and CodePipeline needs it without that
                hint: write only what stands within `taskDefinition` to the file
                exit 2
            "#]],
        );
    }

    #[test]
    fn an_image_by_tag_is_refused_unless_that_is_asked_for() {
        let images_of =
            |allow_tag| images(&Images { images: vec!["A=shop:v1".parse().unwrap()], allow_tag });
        assert_eq!(images_of(true).unwrap(), [image("A=shop:v1")]);
        check(
            &images_of(false).unwrap_err(),
            expect![[r#"
                error: `shop:v1` has no digest, and a tag can move to another image
                hint: name it by digest (`NAME@sha256:…`), or pass `--allow-tag`
                exit 2
            "#]],
        );
    }

    #[test]
    fn a_plan_and_an_outcome_are_json_too() {
        let plan = Plan {
            cluster: "prod".into(),
            service: "web".into(),
            from: "arn/shop:7".into(),
            changes: vec![
                Change::Register { family: "shop".into() },
                Change::UpdateService { from: "shop:7".into(), to: "shop".into() },
            ],
            images: vec![ImageChange {
                container: "web".into(),
                from: Some("shop:1".into()),
                to: None,
            }],
        };
        expect![[r#"
            {"cluster":"prod","service":"web","changes":[{"change":"register","family":"shop"},{"change":"updateService","from":"shop:7","to":"shop"}],"images":[{"container":"web","from":"shop:1","to":null}]}
            {"cluster":"prod","service":"web","from":"arn/shop:7","taskDefinitionArn":"arn/shop:8"}
        "#]]
        .assert_eq(&(plan_as_json(&plan) + &outcome_as_json(&plan, "arn/shop:8")));
    }

    #[test]
    fn a_service_of_codedeploy_is_refused() {
        let err = PlanError::Controller { service: "web".into(), controller: "CODE_DEPLOY".into() };
        check(
            &not_to_be_planned(err),
            expect![[r#"
                error: the service `web` has the deployment controller CODE_DEPLOY, which UpdateService cannot give another task definition
                hint: deploying with CodeDeploy or a controller of your own is not built yet
                exit 2
            "#]],
        );
    }
}
