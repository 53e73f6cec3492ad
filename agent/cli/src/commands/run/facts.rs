//! What is true of a build on this machine: what `CODEBUILD_*` variables tell.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rbuild_agent::environment::{Facts, ProjectFacts, SecondarySource};

use super::{git, project::Project, settings::Settings};
use crate::host;

/// The facts of a build of the source in `folder`, with these secondary sources.
pub(super) fn facts(
    settings: &Settings,
    folder: &Path,
    secondary: Vec<(String, PathBuf)>,
    started: Duration,
    build_number: u64,
) -> Facts {
    let git = git::ask(folder);
    let project = settings.project.as_ref();
    // What is built is what the folder has, whatever the project would fetch.
    let asked = git.branch.or_else(|| git.commit.clone());
    let region = || host::variable("AWS_REGION").or_else(|| host::variable("AWS_DEFAULT_REGION"));
    Facts {
        source: folder.to_owned(),
        build_number,
        build_uuid: uuid(project),
        start_time: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
        initiator: host::variable("USER").unwrap_or_else(|| "rbuild".to_owned()),
        resolved_source_version: git.commit,
        source_version: asked.or_else(|| project.and_then(|it| it.source_version.clone())),
        source_repo_url: project.and_then(|it| it.repo_url.clone()).or(git.url),
        region: project.and_then(|it| it.region.clone()).or_else(region),
        log_path: None,
        project: project.map(project_facts),
        secondary_sources: secondary.into_iter().map(|it| secondary_source(it, project)).collect(),
    }
}

/// What the ID of the build ends with. Builds of a project have each their own, which names their
/// artifacts in S3; others have that of AWS's local agent.
fn uuid(project: Option<&Project>) -> String {
    let hex = match project {
        None => "0".repeat(32),
        Some(_) => host::random_word(),
    };
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

fn project_facts(project: &Project) -> ProjectFacts {
    ProjectFacts {
        name: project.name.clone(),
        account: project.account.clone(),
        image: project.image.clone(),
        encryption_key: project.encryption_key.clone(),
    }
}

fn secondary_source(
    (identifier, directory): (String, PathBuf),
    project: Option<&Project>,
) -> SecondarySource {
    let git = git::ask(&directory);
    let sources = project.map(|it| it.secondary_sources.as_slice()).unwrap_or_default();
    let of_project = sources.iter().find(|it| it.identifier == identifier);
    let asked = git.branch.or_else(|| git.commit.clone());
    SecondarySource {
        version: asked.or_else(|| of_project.and_then(|it| it.version.clone())),
        resolved_version: git.commit,
        repo_url: of_project.and_then(|it| it.repo_url.clone()).or(git.url),
        identifier,
        directory,
    }
}
