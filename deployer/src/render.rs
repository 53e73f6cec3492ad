//! Puts images into the templates of a deployment, as `CodePipeline` does it.
//!
//! The rules are those of `CodePipeline`'s actions `ECS` (`imagedefinitions.json`) and
//! `CodeDeployToECS` (`imageDetail.json`, placeholders in `taskdef.json` and `appspec.yaml`).
//!
//! **Architecture invariant:** texts in, texts out. Who reads the templates and writes the files
//! is no matter of this module, nor is how the facts about an image were learned.

use std::{fmt, str::FromStr};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::{
    definition,
    event::Event,
    image::ImageUri,
    placeholder::{self, Place, TASK_DEFINITION, Token},
};

/// The file for `CodePipeline`'s action `ECS`.
pub const IMAGE_DEFINITIONS: &str = "imagedefinitions.json";

/// The file for `CodePipeline`'s action `CodeDeployToECS`, one for each image.
pub const IMAGE_DETAIL: &str = "imageDetail.json";

/// The largest `imagedefinitions.json` that `CodePipeline` takes.
const DEFINITIONS_LIMIT: usize = 100 * 1024;

/// The largest artifact that `CodePipeline`'s action `CodeDeployToECS` takes.
const ARTIFACT_LIMIT: usize = 3 * 1024 * 1024;

/// The texts to fill in.
#[derive(Clone, Copy, Debug)]
pub struct Templates<'a> {
    /// The task definition.
    pub taskdef: &'a str,
    /// The `AppSpec`; a rolling deployment has none.
    pub appspec: Option<&'a str>,
}

/// Which of the two templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// The task definition.
    Taskdef,
    /// The `AppSpec`.
    Appspec,
}

/// An image and its placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The placeholder.
    pub token: Token,
    /// What replaces it.
    pub uri: ImageUri,
}

/// What is known of an image, apart from its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts {
    /// What ECR says.
    Ecr {
        /// The account whose registry has it, which is also the registry's id.
        account: String,
        /// What ECR says of the image.
        image: EcrImage,
    },
    /// What the caller says: no other registry is asked.
    Given {
        /// The tags of the image.
        tags: Vec<String>,
    },
}

/// What ECR says of an image. What it leaves out is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EcrImage {
    /// Its digest.
    pub digest: Option<String>,
    /// Its size in bytes, compressed.
    pub size: Option<i64>,
    /// When it was pushed, as `CodePipeline` writes it: `Mon Jan 21 20:04:00 UTC 2019`.
    pub pushed_at: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// What becomes of `<TASK_DEFINITION>` in the `AppSpec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// This revision replaces it.
    Registered(RevisionArn),
    /// It stays: `CodePipeline` registers the task definition and fills it in.
    Pipeline,
    /// Nobody has said; so there must be none.
    Unknown,
}

/// The ARN of a task definition, with its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionArn(String);

/// Some text is not the ARN of a task definition with its revision.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not the ARN of a task definition with its revision")]
pub struct RevisionArnError(String);

impl FromStr for RevisionArn {
    type Err = RevisionArnError;

    fn from_str(text: &str) -> Result<Self, RevisionArnError> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_family = |text: &str| {
            (1..=255).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let is_arn = match text.split(':').collect::<Vec<_>>()[..] {
            ["arn", partition, "ecs", region, account, resource, revision] => {
                partition.starts_with("aws")
                    && !region.is_empty()
                    && account.len() == 12
                    && is_number(account)
                    && resource.strip_prefix("task-definition/").is_some_and(is_family)
                    && is_number(revision)
            }
            _ => false,
        };
        if !is_arn {
            return Err(RevisionArnError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RevisionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The files of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The task definition.
    pub taskdef: String,
    /// The `AppSpec`, if there was one.
    pub appspec: Option<String>,
    /// `imagedefinitions.json`.
    pub image_definitions: String,
}

/// Why templates and images do not make the files of a deployment.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum RenderError {
    /// Two images have the same placeholder.
    #[error("the placeholder `<{token}>` has two images")]
    Twice {
        /// The placeholder's name.
        token: Token,
    },
    /// An image has a placeholder that is in no template.
    #[error("the placeholder `<{token}>` is in none of the files")]
    Unused {
        /// The placeholder's name.
        token: Token,
    },
    /// The ARN of a task definition was given, and nothing asks for it.
    #[error("there is no `<{TASK_DEFINITION}>` to replace by `{arn}`")]
    ArnUnused {
        /// The ARN.
        arn: RevisionArn,
    },
    /// The task definition is not JSON.
    #[error("this is not JSON: {reason}")]
    Json {
        /// Where it ceases to be JSON.
        place: Place,
        /// What is wrong there.
        reason: String,
    },
    /// The `AppSpec` asks for a task definition, and nobody has said which.
    #[error("nothing says which task definition replaces `<{TASK_DEFINITION}>`")]
    Revision {
        /// Where it asks.
        place: Place,
    },
    /// A placeholder has no image.
    #[error("nothing replaces the placeholder `<{token}>`")]
    Leftover {
        /// The template.
        template: Template,
        /// The placeholder's name.
        token: String,
        /// Where it stands.
        place: Place,
    },
    /// No container would get an image.
    #[error("no container of the task definition has a placeholder as its `image`")]
    NoContainer,
    /// The task definition stands in another object, as a description of it does.
    #[error(
        "the task definition stands within `{wrapper}`, and CodePipeline needs it without that"
    )]
    Wrapped {
        /// The name of the field in which it stands.
        wrapper: &'static str,
    },
    /// A container that gets an image has no name.
    #[error("container {number} of the task definition has no `name`")]
    Unnamed {
        /// The container's number, from 1.
        number: usize,
    },
}

/// Fills the templates in with `images` and the task definition's `revision`.
pub fn render(
    templates: Templates<'_>,
    images: &[Image],
    revision: &Revision,
) -> Result<Rendered, RenderError> {
    let texts = [Some(templates.taskdef), templates.appspec];
    check_tokens(texts.into_iter().flatten(), images)?;
    // No image can break JSON, so the template is where mistakes are, and where they are shown.
    let definition = parse(templates.taskdef)?;
    check_leftovers(Template::Taskdef, templates.taskdef, images)?;
    let appspec = match templates.appspec {
        Some(template) => Some(fill_appspec(template, images, revision)?),
        None => no_appspec(revision)?,
    };
    Ok(Rendered {
        taskdef: fill(templates.taskdef, images),
        appspec,
        image_definitions: image_definitions(&definition, images)?,
    })
}

/// Fills the task definition `text` in with `images`; every placeholder must have its image.
pub fn fill_taskdef(text: &str, images: &[Image]) -> Result<String, RenderError> {
    check_tokens([text].into_iter(), images)?;
    parse(text)?;
    check_leftovers(Template::Taskdef, text, images)?;
    Ok(fill(text, images))
}

impl Rendered {
    /// The files that are larger than `CodePipeline` takes.
    pub fn too_large(&self) -> Vec<Event<'static>> {
        let sizes = [
            ("the task definition", Some(self.taskdef.len()), ARTIFACT_LIMIT),
            ("the AppSpec", self.appspec.as_ref().map(String::len), ARTIFACT_LIMIT),
            (IMAGE_DEFINITIONS, Some(self.image_definitions.len()), DEFINITIONS_LIMIT),
        ];
        let too_large = |(file, bytes, limit)| match bytes {
            Some(bytes) if limit < bytes => Some(Event::TooLarge { file, bytes, limit }),
            _ => None,
        };
        sizes.into_iter().filter_map(too_large).collect()
    }
}

/// Each token has one image, and each image's token is asked for.
fn check_tokens<'a>(
    texts: impl Iterator<Item = &'a str> + Clone,
    images: &[Image],
) -> Result<(), RenderError> {
    for (index, Image { token, .. }) in images.iter().enumerate() {
        if images[..index].iter().any(|earlier| earlier.token == *token) {
            return Err(RenderError::Twice { token: token.clone() });
        }
        let placeholder = token.placeholder();
        if !texts.clone().any(|text| text.contains(&placeholder)) {
            return Err(RenderError::Unused { token: token.clone() });
        }
    }
    Ok(())
}

fn parse(taskdef: &str) -> Result<Value, RenderError> {
    serde_json::from_str(taskdef).map_err(|err| {
        let (place, reason) = definition::syntax(taskdef, &err);
        RenderError::Json { place, reason }
    })
}

fn fill(text: &str, images: &[Image]) -> String {
    images.iter().fold(text.to_owned(), |text, image| {
        text.replace(&image.token.placeholder(), image.uri.as_str())
    })
}

/// The template, not the text made of it, is what has places that a person can find.
fn check_leftovers(template: Template, text: &str, images: &[Image]) -> Result<(), RenderError> {
    let has_image = |name: &str| images.iter().any(|image| image.token.as_str() == name);
    let left = placeholder::leftovers(text).find(|left| {
        let by_revision = template == Template::Appspec && left.token == TASK_DEFINITION;
        !by_revision && !has_image(left.token)
    });
    match left {
        Some(left) => {
            Err(RenderError::Leftover { template, token: left.token.to_owned(), place: left.place })
        }
        None => Ok(()),
    }
}

fn fill_appspec(
    template: &str,
    images: &[Image],
    revision: &Revision,
) -> Result<String, RenderError> {
    check_leftovers(Template::Appspec, template, images)?;
    let filled = fill(template, images);
    let asks = placeholder::leftovers(template).find(|left| left.token == TASK_DEFINITION);
    match (asks, revision) {
        (Some(_), Revision::Registered(arn)) => {
            Ok(filled.replace(&format!("<{TASK_DEFINITION}>"), &arn.0))
        }
        (None, Revision::Registered(arn)) => Err(RenderError::ArnUnused { arn: arn.clone() }),
        (Some(asks), Revision::Unknown) => Err(RenderError::Revision { place: asks.place }),
        (_, Revision::Pipeline) | (None, Revision::Unknown) => Ok(filled),
    }
}

fn no_appspec(revision: &Revision) -> Result<Option<String>, RenderError> {
    match revision {
        Revision::Registered(arn) => Err(RenderError::ArnUnused { arn: arn.clone() }),
        Revision::Pipeline | Revision::Unknown => Ok(None),
    }
}

/// An entry of `imagedefinitions.json`. These are the names of `CodePipeline`, and all of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageDefinition<'a> {
    name: &'a str,
    image_uri: &'a str,
}

fn image_definitions(definition: &Value, images: &[Image]) -> Result<String, RenderError> {
    let containers = definition["containerDefinitions"].as_array().map_or(&[][..], Vec::as_slice);
    let mut entries = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let wanted = container["image"].as_str().unwrap_or_default();
        let Some(image) = images.iter().find(|image| image.token.placeholder() == wanted) else {
            continue;
        };
        let Some(name) = container["name"].as_str() else {
            return Err(RenderError::Unnamed { number: index + 1 });
        };
        entries.push(ImageDefinition { name, image_uri: image.uri.as_str() });
    }
    if entries.is_empty() {
        return Err(no_container(definition));
    }
    Ok(to_text(&entries))
}

/// ECS describes a task definition within another object, where `CodePipeline` finds nothing.
fn no_container(definition: &Value) -> RenderError {
    let wrapper = ["taskDefinition", "TaskDefinition"];
    match wrapper.into_iter().find(|it| definition[it].is_object()) {
        Some(wrapper) => RenderError::Wrapped { wrapper },
        None => RenderError::NoContainer,
    }
}

/// `imageDetail.json`, in the order in which `CodePipeline`'s source action `ECR` writes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageDetail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_size_in_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_digest: Option<&'a str>,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_pushed_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_id: Option<&'a str>,
    repository_name: &'a str,
    #[serde(rename = "ImageURI")]
    image_uri: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_tags: Option<&'a [String]>,
}

/// The `imageDetail.json` of the image `uri`.
pub fn image_detail(uri: &ImageUri, facts: &Facts) -> String {
    let base = ImageDetail {
        image_size_in_bytes: None,
        image_digest: uri.digest(),
        version: "1.0",
        image_pushed_at: None,
        registry_id: None,
        repository_name: uri.repository(),
        image_uri: uri.as_str(),
        image_tags: None,
    };
    let detail = match facts {
        Facts::Given { tags } => {
            ImageDetail { image_tags: (!tags.is_empty()).then_some(tags), ..base }
        }
        Facts::Ecr { account, image: facts } => ImageDetail {
            image_size_in_bytes: facts.size.map(|size| size.to_string()),
            image_digest: base.image_digest.or(facts.digest.as_deref()),
            image_pushed_at: facts.pushed_at.as_deref(),
            registry_id: Some(account),
            image_tags: Some(&facts.tags),
            ..base
        },
    };
    to_text(&detail)
}

fn to_text(value: &impl Serialize) -> String {
    // Texts and lists of texts always have a form in JSON.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:task-definition/shop:7";

    const TASKDEF: &str = r#"{
  "family": "shop",
  "cpu": 2.50,   "newer": {"than": ["we", "are"]},
  "containerDefinitions": [
    {"name": "web", "image": "<IMAGE1_NAME>", "environment": [{"name": "I", "value": "<IMAGE1_NAME>"}]},
    {"name": "log", "image": "public.example/log:3"}
  ]
}
"#;
    const APPSPEC: &str = "\
version: 0.0
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: <TASK_DEFINITION>
";

    fn image(token: &str, uri: &str) -> Image {
        Image { token: token.parse().unwrap(), uri: ImageUri::parse(uri).unwrap() }
    }

    fn shop() -> Image {
        image("IMAGE1_NAME", &format!("shop@{DIGEST}"))
    }

    fn registered() -> Revision {
        Revision::Registered(ARN.parse().unwrap())
    }

    #[track_caller]
    fn check_error(
        taskdef: &str,
        appspec: Option<&str>,
        images: &[Image],
        revision: &Revision,
        want: &str,
    ) {
        let err = render(Templates { taskdef, appspec }, images, revision).unwrap_err();
        let place = match &err {
            RenderError::Json { place, .. } => format!("taskdef:{place}: "),
            RenderError::Revision { place } => format!("appspec:{place}: "),
            RenderError::Leftover { template: Template::Taskdef, place, .. } => {
                format!("taskdef:{place}: ")
            }
            RenderError::Leftover { template: Template::Appspec, place, .. } => {
                format!("appspec:{place}: ")
            }
            _ => String::new(),
        };
        assert_eq!(format!("{place}{err}"), want);
    }

    #[test]
    fn only_the_placeholders_change() {
        let templates = Templates { taskdef: TASKDEF, appspec: Some(APPSPEC) };
        let rendered = render(templates, &[shop()], &registered()).unwrap();
        let uri = format!("shop@{DIGEST}");
        assert_eq!(rendered.taskdef, TASKDEF.replace("<IMAGE1_NAME>", &uri));
        assert_eq!(rendered.appspec, Some(APPSPEC.replace("<TASK_DEFINITION>", ARN)));
    }

    #[test]
    fn a_pipeline_fills_the_task_definition_in_itself() {
        let templates = Templates { taskdef: TASKDEF, appspec: Some(APPSPEC) };
        let rendered = render(templates, &[shop()], &Revision::Pipeline).unwrap();
        assert_eq!(rendered.appspec.as_deref(), Some(APPSPEC));
    }

    #[test]
    fn a_rolling_deployment_has_no_appspec() {
        let templates = Templates { taskdef: TASKDEF, appspec: None };
        let rendered = render(templates, &[shop()], &Revision::Unknown).unwrap();
        assert_eq!(rendered.appspec, None);
    }

    #[test]
    fn images_may_stand_in_the_appspec() {
        let appspec = "Hooks:\n  - AfterInstall: \"<IMAGE1_NAME>\"\n";
        let templates = Templates { taskdef: TASKDEF, appspec: Some(appspec) };
        let rendered = render(templates, &[shop()], &Revision::Unknown).unwrap();
        let want = format!("Hooks:\n  - AfterInstall: \"shop@{DIGEST}\"\n");
        assert_eq!(rendered.appspec, Some(want));
    }

    #[test]
    fn every_character_that_an_image_may_have_keeps_the_json_whole() {
        let uri = format!("a-B_c.example:5000/team/shop_x-y.z:V1.0_a-b@{DIGEST}");
        let templates = Templates { taskdef: TASKDEF, appspec: None };
        let rendered =
            render(templates, &[image("IMAGE1_NAME", &uri)], &Revision::Unknown).unwrap();
        let parsed: Value = serde_json::from_str(&rendered.taskdef).unwrap();
        assert_eq!(parsed["containerDefinitions"][0]["image"], uri);
    }

    #[test]
    fn what_is_left_open_or_over_is_refused() {
        let none = Revision::Unknown;
        let twice = [shop(), shop()];
        let other = [shop(), image("IMAGE2_NAME", "other:v1")];
        check_error(TASKDEF, None, &twice, &none, "the placeholder `<IMAGE1_NAME>` has two images");
        check_error(
            TASKDEF,
            Some(APPSPEC),
            &other,
            &none,
            "the placeholder `<IMAGE2_NAME>` is in none of the files",
        );
        check_error(
            TASKDEF,
            None,
            &[],
            &none,
            "taskdef:5:31: nothing replaces the placeholder `<IMAGE1_NAME>`",
        );
        check_error(
            TASKDEF,
            Some("a: <IMAGE1_NAME>\nb: <IMAGE2_NAME>"),
            &[shop()],
            &none,
            "appspec:2:4: nothing replaces the placeholder `<IMAGE2_NAME>`",
        );
        check_error(
            TASKDEF,
            Some(APPSPEC),
            &[shop()],
            &none,
            "appspec:6:25: nothing says which task definition replaces `<TASK_DEFINITION>`",
        );
        check_error(
            TASKDEF,
            Some("version: 0.0\n"),
            &[shop()],
            &registered(),
            &format!("there is no `<TASK_DEFINITION>` to replace by `{ARN}`"),
        );
        check_error(
            TASKDEF,
            None,
            &[shop()],
            &registered(),
            &format!("there is no `<TASK_DEFINITION>` to replace by `{ARN}`"),
        );
        check_error(
            &TASKDEF.replace("shop", "<TASK_DEFINITION>"),
            None,
            &[shop()],
            &Revision::Pipeline,
            "taskdef:2:14: nothing replaces the placeholder `<TASK_DEFINITION>`",
        );
    }

    #[test]
    fn a_task_definition_that_is_not_json_has_a_place() {
        for (taskdef, want) in [
            ("{\"é\": \"<A>\",\n \"b\": x}", "taskdef:2:7: this is not JSON: expected value"),
            ("{\"é\": <A>}", "taskdef:1:7: this is not JSON: expected value"),
            ("{\"a\": \"<A>\"", "taskdef:1:11: this is not JSON: EOF while parsing an object"),
        ] {
            check_error(taskdef, None, &[image("A", "shop:v1")], &Revision::Unknown, want);
        }
    }

    #[test]
    fn some_container_must_get_an_image() {
        let none = "no container of the task definition has a placeholder as its `image`";
        let unnamed = "container 2 of the task definition has no `name`";
        for (taskdef, want) in [
            (r#"{"a": "<A>"}"#, none),
            (r#"["<A>"]"#, none),
            (r#"{"containerDefinitions": [{"name": "w", "image": "x/<A>"}]}"#, none),
            (
                r#"{"taskDefinition": {"containerDefinitions": [{"name": "w", "image": "<A>"}]}}"#,
                "the task definition stands within `taskDefinition`, and CodePipeline needs it without that",
            ),
            (r#"{"containerDefinitions": [{"image": "x"}, {"image": "<A>"}]}"#, unnamed),
        ] {
            check_error(taskdef, None, &[image("A", "shop:v1")], &Revision::Unknown, want);
        }
    }

    #[test]
    fn image_definitions_name_the_containers_that_had_a_placeholder() {
        let taskdef = r#"{"containerDefinitions": [
            {"name": "web", "image": "<A>"}, {"name": "log", "image": "log:3"},
            {"name": "job", "image": "<A>"}, {"name": "proxy", "image": "<B>"}]}"#;
        let images = [image("A", "shop:v1"), image("B", "proxy:v2")];
        let templates = Templates { taskdef, appspec: None };
        let rendered = render(templates, &images, &Revision::Unknown).unwrap();
        expect![[r#"
            [
              {
                "name": "web",
                "imageUri": "shop:v1"
              },
              {
                "name": "job",
                "imageUri": "shop:v1"
              },
              {
                "name": "proxy",
                "imageUri": "proxy:v2"
              }
            ]
        "#]]
        .assert_eq(&rendered.image_definitions);
    }

    #[track_caller]
    fn check_detail(uri: &str, facts: Facts, want: Expect) {
        want.assert_eq(&image_detail(&ImageUri::parse(uri).unwrap(), &facts));
    }

    #[test]
    fn image_detail_of_ecr_has_eight_fields() {
        check_detail(
            &format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/shop@{DIGEST}"),
            Facts::Ecr {
                account: "123456789012".into(),
                image: EcrImage {
                    digest: Some(DIGEST.into()),
                    size: Some(34_324_234),
                    pushed_at: Some("Mon Jan 21 20:04:00 UTC 2019".into()),
                    tags: vec!["latest".into(), "v1".into()],
                },
            },
            expect![[r#"
                {
                  "ImageSizeInBytes": "34324234",
                  "ImageDigest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                  "Version": "1.0",
                  "ImagePushedAt": "Mon Jan 21 20:04:00 UTC 2019",
                  "RegistryId": "123456789012",
                  "RepositoryName": "team/shop",
                  "ImageURI": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/shop@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                  "ImageTags": [
                    "latest",
                    "v1"
                  ]
                }
            "#]],
        );
    }

    #[test]
    fn image_detail_of_another_registry_leaves_out_what_only_ecr_knows() {
        check_detail(
            &format!("registry.example:5000/team/shop:v1@{DIGEST}"),
            Facts::Given { tags: vec!["v1".into()] },
            expect![[r#"
                {
                  "ImageDigest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                  "Version": "1.0",
                  "RepositoryName": "team/shop",
                  "ImageURI": "registry.example:5000/team/shop:v1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                  "ImageTags": [
                    "v1"
                  ]
                }
            "#]],
        );
        check_detail(
            "shop:v1",
            Facts::Given { tags: vec![] },
            expect![[r#"
                {
                  "Version": "1.0",
                  "RepositoryName": "shop",
                  "ImageURI": "shop:v1"
                }
            "#]],
        );
    }

    #[test]
    fn files_that_codepipeline_does_not_take_are_told() {
        let rendered = Rendered {
            taskdef: "x".repeat(ARTIFACT_LIMIT),
            appspec: Some("x".repeat(ARTIFACT_LIMIT + 1)),
            image_definitions: "x".repeat(DEFINITIONS_LIMIT + 1),
        };
        let appspec =
            Event::TooLarge { file: "the AppSpec", bytes: 3_145_729, limit: ARTIFACT_LIMIT };
        let definitions =
            Event::TooLarge { file: IMAGE_DEFINITIONS, bytes: 102_401, limit: DEFINITIONS_LIMIT };
        assert_eq!(rendered.too_large(), [appspec, definitions]);
    }

    #[test]
    fn an_arn_is_full_and_has_its_revision() {
        for (text, ok) in [
            (ARN, true),
            ("arn:aws-cn:ecs:cn-north-1:123456789012:task-definition/a_b-c:12", true),
            ("arn:aws:ecs:eu-west-1:123456789012:task-definition/shop", false),
            ("arn:aws:ecs:eu-west-1:123456789012:task-definition/shop:", false),
            ("arn:aws:ecs:eu-west-1:123456789012:task-definition/shop:x", false),
            ("arn:aws:ecs:eu-west-1:123456789012:task-definition/:7", false),
            ("arn:aws:ecs:eu-west-1:123456789012:service/shop:7", false),
            ("arn:aws:ecs::123456789012:task-definition/shop:7", false),
            ("arn:aws:ecs:eu-west-1:12:task-definition/shop:7", false),
            ("shop:7", false),
        ] {
            assert_eq!(text.parse::<RevisionArn>().is_ok(), ok, "for `{text}`");
        }
    }

    #[test]
    fn a_task_definition_alone_is_filled_in_too() {
        let images = [shop()];
        let filled = fill_taskdef(TASKDEF, &images).unwrap();
        assert_eq!(filled, TASKDEF.replace("<IMAGE1_NAME>", &format!("shop@{DIGEST}")));
        let err = fill_taskdef(TASKDEF, &[]).unwrap_err();
        assert_eq!(err.to_string(), "nothing replaces the placeholder `<IMAGE1_NAME>`");
        let err = fill_taskdef("{}", &images).unwrap_err();
        assert_eq!(err.to_string(), "the placeholder `<IMAGE1_NAME>` is in none of the files");
    }
}
