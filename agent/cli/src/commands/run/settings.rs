//! Everything that is decided about a build before its buildspec is read: what flags, env files
//! and the project say, and which of them wins.
//!
//! **Architecture invariant:** [`Settings::new`] is pure; what it needs of files comes in as
//! [`Files`]. What the buildspec adds is in [`Settings::fit`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rbuild_agent::{
    artifacts::Packaging,
    buildspec::{Buildspec, Variable},
    choice::{
        AfterAbort, AfterContinue, Choices, Collision, Masking, PowerShell, RetryScope, Unset,
    },
    phase::Phase,
    plan::{Breaks, Start},
};

use super::{
    env_file,
    project::{self, Project, ProjectArtifacts, ProjectBuildspec, Target},
    sources::Sources,
};
use crate::{
    args::{
        self, Run,
        run::{Compat, Encryption, PhaseName},
    },
    failure::{Failure, Kind},
    host,
};

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) sources: Sources,
    pub(super) buildspec: BuildspecAt,
    pub(super) variables: Variables,
    pub(super) choices: Choices,
    pub(super) timeout: Option<Duration>,
    pub(super) start: Start,
    /// Whether the build goes on where the one before ended.
    pub(super) resumes: bool,
    pub(super) breaks: Breaks,
    pub(super) destination: Destination,
    /// The AWS profile, for rbuild and for commands.
    pub(super) profile: Option<String>,
    pub(super) project: Option<Project>,
    /// What was asked for and is not done, in words.
    pub(super) notes: Vec<String>,
}

/// Where the buildspec is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BuildspecAt {
    /// A file, relative to the source folder.
    Path(PathBuf),
    /// A file that may be relative to the current folder, too, if there is none in the source.
    Either(PathBuf),
    /// In the project's file.
    Inline { shown: String, text: String },
}

/// The variables that are asked for, besides those of the buildspec. Later wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variables {
    pub(super) project: Vec<Variable>,
    pub(super) env_files: Vec<Variable>,
    pub(super) flags: Vec<Variable>,
}

/// Where artifacts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To a folder of rbuild's own, or to the one that was asked for.
    Folder { asked: Option<PathBuf>, packaging: Packaging },
    /// To `s3://BUCKET/PREFIX`.
    Uri { uri: String, packaging: Packaging, encryption: Option<Encryption> },
    /// To where the project has them: the primary ones, and those with an identifier.
    Project { primary: Option<Target>, secondary: Vec<(String, Target)> },
    /// Nowhere: there are none.
    Nowhere,
}

/// What files say.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) project: Option<Project>,
    /// What env files say.
    pub(super) env: Vec<Variable>,
    /// What `--env` says itself.
    pub(super) flags: Vec<Variable>,
}

/// What an argument of `--env` means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Env<'a> {
    Variable(&'a str, &'a str),
    File(&'a Path),
}

impl Files {
    /// Reads the files that the arguments name.
    pub(super) fn read(args: &Run) -> Result<Self, Failure> {
        let mut files = Self::default();
        let caller = &host::variable_or_empty;
        for path in &args.env_file {
            files.env.extend(env_file::read(path, caller)?);
        }
        for argument in &args.env {
            match env(argument, &Path::exists) {
                Env::Variable(name, value) => {
                    files.flags.push(env_file::plain(name, value.to_owned()));
                }
                Env::File(path) if path.exists() => {
                    files.env.extend(env_file::read(path, caller)?);
                }
                Env::File(path) => {
                    let path = path.display();
                    let message = format!("`{path}` is neither NAME=VALUE nor an env file");
                    return Err(Failure::new(Kind::Input, message));
                }
            }
        }
        files.project = args.project.as_deref().map(project::read).transpose()?;
        Ok(files)
    }
}

/// A file of that name is meant before a variable is.
fn env<'a>(text: &'a str, exists: &dyn Fn(&Path) -> bool) -> Env<'a> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !exists(Path::new(text)) => {
            Env::Variable(name, value)
        }
        _ => Env::File(Path::new(text)),
    }
}

impl Settings {
    /// What flags and files say together.
    pub(super) fn new(args: &Run, files: Files) -> Result<Self, Failure> {
        let Files { project, env: env_files, flags } = files;
        let sources = Sources::new(args)?;
        if let Some(project) = &project {
            check_sources(&sources, project)?;
        }
        Ok(Self {
            buildspec: buildspec(args, project.as_ref())?,
            variables: Variables {
                project: project.as_ref().map(|it| it.variables.clone()).unwrap_or_default(),
                env_files,
                flags,
            },
            choices: choices(&args.compat)?,
            timeout: args.timeout.or(project.as_ref().and_then(|it| it.timeout)),
            start: start(args),
            resumes: args.debugging.resume,
            breaks: breaks(args)?,
            destination: destination(args, project.as_ref())?,
            profile: args.profile.clone(),
            notes: notes(args, project.as_ref()),
            sources,
            project,
        })
    }

    /// The buildspec as the project has it run: which names its artifacts have, and whether there
    /// are any.
    pub(super) fn fit(&self, mut buildspec: Buildspec) -> Result<Buildspec, Failure> {
        if let Start::Only(phase) = self.start
            && buildspec.phase(phase).is_none()
        {
            let message = format!("the buildspec has no phase `{}`", phase.name());
            return Err(Failure::new(Kind::Input, message));
        }
        if self.destination == Destination::Nowhere {
            buildspec.artifacts = None;
            buildspec.secondary_artifacts = Vec::new();
        }
        let Some(project) = &self.project else { return Ok(buildspec) };
        if !project.artifacts.takes_name()
            && let Some(artifacts) = &mut buildspec.artifacts
        {
            artifacts.name = None;
        }
        for it in &mut buildspec.secondary_artifacts {
            if !project.secondary_artifacts_of(&it.identifier)?.takes_name() {
                it.artifacts.name = None;
            }
        }
        Ok(buildspec)
    }

    /// Whether a person may get a shell.
    pub(super) fn are_breaks(&self) -> bool {
        self.breaks.on_failure || !self.breaks.before.is_empty()
    }
}

impl Project {
    /// Where artifacts with this identifier go.
    fn secondary_artifacts_of(&self, identifier: &str) -> Result<&ProjectArtifacts, Failure> {
        let found = self.secondary_artifacts.iter().find(|(id, _)| id == identifier);
        found.map(|it| &it.1).ok_or_else(|| {
            let name = &self.name;
            let message = format!("the project `{name}` has no secondary artifacts `{identifier}`");
            let ids = self.secondary_artifacts.iter().map(|(id, _)| format!("`{id}`"));
            let ids: Vec<String> = ids.collect();
            Failure::new(Kind::Input, message).hint(match ids.is_empty() {
                true => "it has none at all".to_owned(),
                false => format!("it has {}", ids.join(", ")),
            })
        })
    }
}

impl ProjectArtifacts {
    /// Whether the name that the buildspec gives to artifacts counts.
    fn takes_name(&self) -> bool {
        matches!(self, Self::S3(target) if target.override_name)
    }
}

fn check_sources(sources: &Sources, project: &Project) -> Result<(), Failure> {
    let is_mapped = |id: &str| sources.secondary.iter().any(|it| it.0 == id);
    let missing: Vec<&str> = project
        .secondary_sources
        .iter()
        .map(|it| it.identifier.as_str())
        .filter(|it| !is_mapped(it))
        .collect();
    if let Some(first) = missing.first() {
        let message =
            format!("no folder is known for the secondary source `{first}` of the project");
        let flags: Vec<String> = missing.iter().map(|it| format!("-s {it}:DIR")).collect();
        return Err(Failure::new(Kind::Input, message).hint(format!("add {}", flags.join(" "))));
    }
    let is_known = |id: &str| project.secondary_sources.iter().any(|it| it.identifier == id);
    match sources.secondary.iter().find(|it| !is_known(&it.0)) {
        None => Ok(()),
        Some((id, _)) => {
            let message = format!("the project `{}` has no secondary source `{id}`", project.name);
            Err(Failure::new(Kind::Input, message))
        }
    }
}

/// The flag wins over the project.
fn buildspec(args: &Run, project: Option<&Project>) -> Result<BuildspecAt, Failure> {
    match (&args.buildspec, &args.local_agent.buildspec_file) {
        (Some(one), Some(other)) if one != other => {
            let (one, other) = (one.display(), other.display());
            let message = format!("`{one}` and `{other}` cannot both be the buildspec");
            return Err(Failure::new(Kind::Input, message));
        }
        (Some(path), _) => return Ok(BuildspecAt::Path(path.clone())),
        (None, Some(path)) => return Ok(BuildspecAt::Either(path.clone())),
        (None, None) => {}
    }
    Ok(match project.map(|it| &it.buildspec) {
        None | Some(ProjectBuildspec::Default) => BuildspecAt::Path("buildspec.yml".into()),
        Some(ProjectBuildspec::Path(path)) => BuildspecAt::Path(path.into()),
        Some(ProjectBuildspec::Inline(text)) => {
            let file = args.project.as_deref().unwrap_or(Path::new("project"));
            let shown = format!("{} (source.buildspec)", file.display());
            BuildspecAt::Inline { shown, text: text.clone() }
        }
    })
}

fn phase(name: PhaseName) -> Phase {
    match name {
        PhaseName::Install => Phase::Install,
        PhaseName::PreBuild => Phase::PreBuild,
        PhaseName::Build => Phase::Build,
        PhaseName::PostBuild => Phase::PostBuild,
    }
}

fn start(args: &Run) -> Start {
    match (args.debugging.from, args.debugging.only) {
        (_, Some(only)) => Start::Only(phase(only)),
        (Some(from), None) => Start::From(phase(from)),
        (None, None) => Start::All,
    }
}

/// People count commands from 1.
fn breaks(args: &Run) -> Result<Breaks, Failure> {
    let before: Option<Vec<usize>> =
        args.debugging.break_before.iter().map(|it| it.checked_sub(1)).collect();
    let mut before = before.ok_or_else(|| {
        Failure::new(Kind::Input, "commands are counted from 1")
            .hint("--dry-run shows their numbers")
    })?;
    before.sort_unstable();
    before.dedup();
    Ok(Breaks { before, on_failure: args.debugging.break_on_failure })
}

fn choices(compat: &[Compat]) -> Result<Choices, Failure> {
    let mut choices = Choices::default();
    for (index, it) in compat.iter().enumerate() {
        let of_one_name = |other: &&Compat| *other != it && other.name() == it.name();
        if compat.iter().take(index).find(of_one_name).is_some() {
            let message = format!("--compat {} is there twice, with different values", it.name());
            return Err(Failure::new(Kind::Input, message));
        }
        it.choose(&mut choices);
    }
    Ok(choices)
}

impl Compat {
    /// What is chosen.
    fn name(self) -> &'static str {
        match self {
            Self::ContinueFail | Self::ContinuePass => "on-failure-continue",
            Self::AbortStop | Self::AbortUpload => "on-failure-abort",
            Self::RetryBuild | Self::RetryPhase => "retry",
            Self::CollisionsLast | Self::CollisionsFirst | Self::CollisionsError => "collisions",
            Self::UnsetKeep | Self::UnsetRestore => "unset",
            Self::MaskLines | Self::MaskWhole => "mask",
            Self::PowershellCarry | Self::PowershellForget => "powershell-variables",
        }
    }

    fn choose(self, choices: &mut Choices) {
        match self {
            Self::ContinueFail => choices.after_continue = AfterContinue::Fail,
            Self::ContinuePass => choices.after_continue = AfterContinue::Pass,
            Self::AbortStop => choices.after_abort = AfterAbort::Stop,
            Self::AbortUpload => choices.after_abort = AfterAbort::Upload,
            Self::RetryBuild => choices.retry = RetryScope::Build,
            Self::RetryPhase => choices.retry = RetryScope::Phase,
            Self::CollisionsLast => choices.collision = Collision::Last,
            Self::CollisionsFirst => choices.collision = Collision::First,
            Self::CollisionsError => choices.collision = Collision::Error,
            Self::UnsetKeep => choices.unset = Unset::Keep,
            Self::UnsetRestore => choices.unset = Unset::Restore,
            Self::MaskLines => choices.masking = Masking::Lines,
            Self::MaskWhole => choices.masking = Masking::Whole,
            Self::PowershellCarry => choices.powershell = PowerShell::Carry,
            Self::PowershellForget => choices.powershell = PowerShell::Forget,
        }
    }
}

/// A build on this machine overwrites nothing in the project's bucket unless it is asked to.
fn destination(args: &Run, project: Option<&Project>) -> Result<Destination, Failure> {
    let of_project = project.map(|it| &it.artifacts);
    let packaging = packaging(args, of_project);
    match (&args.artifacts, project) {
        (Some(asked), _) => Ok(match asked.to_str().filter(|it| it.starts_with("s3://")) {
            Some(uri) => {
                let encryption = args.artifacts_encryption.clone();
                Destination::Uri { uri: uri.to_owned(), packaging, encryption }
            }
            None if args.artifacts_encryption.is_some() => {
                let message = "--artifacts-encryption is for artifacts in S3";
                return Err(Failure::new(Kind::Input, message).hint("write -a s3://BUCKET/PREFIX"));
            }
            None => Destination::Folder { asked: Some(asked.clone()), packaging },
        }),
        (None, Some(project)) if args.upload => upload(project),
        (None, Some(project))
            if project.artifacts == ProjectArtifacts::None
                && project.secondary_artifacts.is_empty() =>
        {
            Ok(Destination::Nowhere)
        }
        (None, _) => Ok(Destination::Folder { asked: None, packaging }),
    }
}

fn packaging(args: &Run, of_project: Option<&ProjectArtifacts>) -> Packaging {
    let is_zip = match (args.artifacts_packaging, of_project) {
        (Some(asked), _) => asked == args::Packaging::Zip,
        (None, Some(ProjectArtifacts::S3(target))) => return target.packaging,
        (None, of_project) => of_project == Some(&ProjectArtifacts::Pipeline),
    };
    if is_zip { Packaging::Zip } else { Packaging::Folder }
}

fn upload(project: &Project) -> Result<Destination, Failure> {
    let refused =
        |message: String, hint: &str| Err(Failure::new(Kind::Input, message).hint(hint.to_owned()));
    let name = &project.name;
    let primary = match &project.artifacts {
        ProjectArtifacts::S3(target) => Some(target.clone()),
        ProjectArtifacts::None => None,
        ProjectArtifacts::Pipeline => {
            let message = format!("the artifacts of the project `{name}` go to a pipeline");
            return refused(message, "name a place for them: -a DIR or -a s3://BUCKET/PREFIX");
        }
    };
    let secondary = project.secondary_artifacts.iter().filter_map(|(id, it)| match it {
        ProjectArtifacts::S3(target) => Some((id.clone(), target.clone())),
        ProjectArtifacts::None | ProjectArtifacts::Pipeline => None,
    });
    let secondary: Vec<_> = secondary.collect();
    match primary.is_none() && secondary.is_empty() {
        true => refused(
            format!("the project `{name}` has no artifacts to upload"),
            "leave out --upload",
        ),
        false => Ok(Destination::Project { primary, secondary }),
    }
}

/// What the local agent does and rbuild does not: said, since a build may depend on it.
fn notes(args: &Run, project: Option<&Project>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(image) = &args.local_agent.image {
        notes.push(format!("commands run on this machine, and not in the image `{image}`"));
    }
    if args.local_agent.reports.is_some() {
        notes.push("rbuild does not process reports yet: -r is left out".to_owned());
    }
    if args.local_agent.privileged {
        notes.push("there is no container that could be privileged: -d is left out".to_owned());
    }
    if let Some(image) = &args.local_agent.agent_image {
        notes.push(format!("rbuild needs no image of an agent: `{image}` is left out"));
    }
    if let Some(project) = project {
        let not_done = project.not_done.iter();
        notes.extend(not_done.map(|it| format!("the project `{}`: rbuild {it}", project.name)));
    }
    notes
}

#[cfg(test)]
mod tests;
