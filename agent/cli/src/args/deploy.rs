//! What a person may type after `rbuild deploy`.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use rbuild_deployer::{
    image::ImageUri,
    placeholder::Token,
    render::{Image, RevisionArn},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Deploy {
    /// Put images into the task definition and the appspec
    ///
    /// Replaces each `<TOKEN>` by its image, as AWS's pipelines do it, and writes taskdef.json,
    /// appspec.yaml, imagedefinitions.json, and imageDetail.json into a folder. Everything else in
    /// the files stays as it is. Prints the paths of what it wrote.
    #[command(after_help = RENDER_EXAMPLES)]
    Render(Render),
    /// Register a task definition, and make a service use it
    ///
    /// The service must have ECS's own deployment controller. Prints the ARN of the new task
    /// definition; does not wait for the rollout.
    #[command(after_help = ECS_EXAMPLES)]
    Ecs(Ecs),
    /// Not built yet
    #[command(
        name = "codedeploy",
        hide = true,
        aliases = ["check", "continue", "diff", "rollback", "status", "stop", "wait"]
    )]
    Later(Later),
}

const RENDER_EXAMPLES: &str = "\
Examples:
  Files for a pipeline that deploys with CodeDeploy:
    rbuild deploy render --image IMAGE1_NAME=shop@sha256:… --pipeline -o out

  Files for a rolling update, from a task definition with two images:
    rbuild deploy render --taskdef ecs/taskdef.json --image WEB=… --image PROXY=… -o out";

const ECS_EXAMPLES: &str = "\
Examples:
  Show what would change:
    rbuild deploy ecs --cluster prod --service web --image IMAGE1_NAME=shop@sha256:… --dry-run

  Deploy a task definition that is rendered already:
    rbuild deploy ecs --cluster prod --service web --taskdef out/taskdef.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// The image that replaces `<TOKEN>`, by digest
    #[arg(long = "image", value_name = "TOKEN=URI")]
    pub(crate) images: Vec<ImageArg>,
    /// Accept images by tag; a tag can move to another image
    #[arg(long)]
    pub(crate) allow_tag: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Render {
    #[command(flatten)]
    pub(crate) images: Images,
    /// The template of the task definition
    ///
    /// [default: taskdef.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) taskdef: Option<PathBuf>,
    /// The template of the appspec [default: appspec.yaml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) appspec: Option<PathBuf>,
    /// The registered revision that replaces `<TASK_DEFINITION>` in the appspec
    #[arg(long, value_name = "ARN", conflicts_with = "pipeline")]
    pub(crate) task_definition: Option<RevisionArn>,
    /// Leave `<TASK_DEFINITION>` to the pipeline, which registers the task definition
    #[arg(long)]
    pub(crate) pipeline: bool,
    /// A tag for imageDetail.json, for images that are not on ECR (which is asked itself)
    #[arg(long = "image-tag", value_name = "TAG")]
    pub(crate) image_tags: Vec<String>,
    /// The folder to write to; not one that holds the templates
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Print one JSON object instead of paths
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ecs {
    /// The cluster, by name or ARN
    #[arg(long)]
    pub(crate) cluster: String,
    /// The service, by name or ARN
    #[arg(long)]
    pub(crate) service: String,
    /// The task definition, or a description of one
    ///
    /// [default: taskdef.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) taskdef: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) images: Images,
    /// Print what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Not built yet
    #[arg(long, hide = true)]
    pub(crate) wait: bool,
}

/// Anything: the command is refused anyway.
#[derive(Debug, clap::Args)]
pub(crate) struct Later {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<OsString>,
}

/// An image and its placeholder, as `TOKEN=URI`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageArg(pub(crate) Image);

impl FromStr for ImageArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((token, uri)) = text.split_once('=') else {
            return Err("it has no `=` between the placeholder's name and the image".to_owned());
        };
        let token: Token = token.parse().map_err(|err| format!("{err}"))?;
        let uri = ImageUri::parse(uri).map_err(|err| err.to_string())?;
        Ok(Self(Image { token, uri }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        deploy: Deploy,
    }

    #[test]
    fn images_are_a_placeholder_and_a_reference() {
        for (text, want) in [
            ("A=shop:v1", Ok(("A", "shop:v1"))),
            ("shop:v1", Err("it has no `=` between the placeholder's name and the image")),
            ("<A>=shop:v1", Err("`<A>` is not the name of a placeholder")),
            ("A=", Err("`` is not an image: a part of its name is empty")),
            ("A=b=c", Err("`b=c` is not an image: no image has `=` in its name")),
        ] {
            let found = text.parse::<ImageArg>();
            let found = found
                .as_ref()
                .map(|ImageArg(image)| (image.token.as_str(), image.uri.as_str()))
                .map_err(String::as_str);
            assert_eq!(found, want, "for `{text}`");
        }
    }

    #[test]
    fn what_is_not_built_yet_is_recognised_with_all_its_arguments() {
        for words in ["codedeploy --app x", "wait d-1 --timeout=3", "status", "rollback -f", "stop"]
        {
            let program = Program::parse_from(["deploy"].into_iter().chain(words.split(' ')));
            assert!(matches!(program.deploy, Deploy::Later(_)), "for `{words}`");
        }
    }

    #[test]
    fn an_arn_and_a_pipeline_exclude_each_other() {
        let arn = "arn:aws:ecs:eu-west-1:123456789012:task-definition/shop:7";
        let words = ["deploy", "render", "-o", "out", "--pipeline", "--task-definition", arn];
        assert!(Program::try_parse_from(words).is_err());
        assert!(Program::try_parse_from(&words[..5]).is_ok());
    }
}
