//! The keys of the language, section by section: what each is called, what it holds, what it is
//! for.
//!
//! **Architecture invariant:** these tables are all that is known of the language's form. What
//! reads a file, what suggests keys, and the schema for editors take it from here, and a test
//! holds that what is read by hand keeps to them.

use super::ShellName;

/// The keys of one mapping.
#[derive(Debug)]
pub(crate) struct Section {
    /// All keys.
    pub(crate) keys: &'static [Key],
    /// Those that must be there.
    pub(crate) required: &'static [&'static str],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What its value is.
    pub(crate) kind: Kind,
    /// What it is for, for people.
    pub(crate) about: &'static str,
}

/// What the value of a key is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A scalar, as it is written.
    Text,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// One of these, in any case.
    AnyCase(&'static [&'static str]),
    /// Text of the form of this regular expression.
    Form(&'static str),
    /// Yes or no, in all the ways of YAML 1.1; no if it is not there.
    Bool,
    /// A whole number from 1 on.
    Count,
    /// A list of scalars, with at most so many; a scalar is a list of one.
    Texts(usize),
    /// A mapping of any names to scalars.
    Values,
    /// A mapping of any names to lists of scalars.
    ValueLists,
    /// A mapping of these keys.
    Mapping(&'static Section),
    /// A mapping of any names to mappings of these keys, with at most so many.
    Named(&'static Section, usize),
    /// A list of mappings of these keys.
    List(&'static Section),
}

/// As many as one likes.
pub(crate) const ANY: usize = usize::MAX;

/// `AWS` user guide: at most twelve secondary artifacts a build.
pub(crate) const MOST_SECONDARY_ARTIFACTS: usize = 12;

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, about }
}

pub(crate) const TOP: Section = Section {
    keys: &[
        key("version", Kind::OneOf(&["0.1", "0.2"]), "The version of the language: 0.2."),
        key("run-as", Kind::Text, "The user of the machine who runs all commands; root if none."),
        key("env", Kind::Mapping(&ENV), "Variables, and the shell for the commands."),
        key(
            "environment_variables",
            Kind::Mapping(&ENVIRONMENT_VARIABLES),
            "What `env` was called in version 0.1.",
        ),
        key("proxy", Kind::Mapping(&PROXY), "What of CodeBuild's own traffic uses the proxy."),
        key("batch", Kind::Mapping(&BATCH), "The builds of a batch; other builds ignore it."),
        key("phases", Kind::Mapping(&PHASES), "The commands of the build, phase by phase."),
        key("reports", Kind::Named(&REPORT, 5), "The test and coverage reports, by group."),
        key("artifacts", Kind::Mapping(&ARTIFACTS), "What to keep of the build."),
        key("cache", Kind::Mapping(&CACHE), "What to keep from one build to the next."),
    ],
    required: &["version"],
};

pub(crate) const ENV: Section = Section {
    keys: &[
        key("shell", Kind::OneOf(&ShellName::NAMES), "The shell for the commands; sh if none."),
        key("variables", Kind::Values, "Variables with their values, which are not expanded."),
        key(
            "parameter-store",
            Kind::Values,
            "Variables with names of parameters in SSM Parameter Store.",
        ),
        key(
            "secrets-manager",
            Kind::Values,
            "Variables with secrets: secret-id:json-key:version-stage:version-id.",
        ),
        key(
            "exported-variables",
            Kind::Texts(ANY),
            "Names of variables whose values are told at the end of the build.",
        ),
        key("git-credential-helper", Kind::Bool, "Whether git gets the source's credentials."),
    ],
    required: &[],
};

pub(crate) const ENVIRONMENT_VARIABLES: Section = Section {
    keys: &[key("plaintext", Kind::Values, "Variables with their values.")],
    required: &[],
};

pub(crate) const PROXY: Section = Section {
    keys: &[
        key("upload-artifacts", Kind::Bool, "Whether artifacts are uploaded through the proxy."),
        key("logs", Kind::Bool, "Whether logs are uploaded through the proxy."),
    ],
    required: &[],
};

pub(crate) const PHASES: Section = Section {
    keys: &[
        key("install", Kind::Mapping(&INSTALL), "Prepares the machine."),
        key("pre_build", Kind::Mapping(&PHASE), "What comes before the build, such as logins."),
        key("build", Kind::Mapping(&PHASE), "The build."),
        key("post_build", Kind::Mapping(&PHASE), "Publishes; runs after a failed build, too."),
    ],
    required: &[],
};

const RUN_AS: Key =
    key("run-as", Kind::Text, "The user of the machine who runs the commands of this phase.");
const ON_FAILURE: Key = key(
    "on-failure",
    Kind::Form(
        "^([Aa][Bb][Oo][Rr][Tt]|[Cc][Oo][Nn][Tt][Ii][Nn][Uu][Ee]|[Rr][Ee][Tt][Rr][Yy](-.+)?)$",
    ),
    "What happens if it fails: ABORT, CONTINUE, RETRY, RETRY-count, RETRY-regex, or \
     RETRY-count-regex.",
);
const COMMANDS: Key =
    key("commands", Kind::Texts(ANY), "The commands; the first one that fails ends them.");
const FINALLY: Key =
    key("finally", Kind::Texts(ANY), "Commands that run after `commands`, even if one failed.");

pub(crate) const INSTALL: Section = Section {
    keys: &[
        RUN_AS,
        ON_FAILURE,
        key("runtime-versions", Kind::Values, "Runtimes with their versions, on AWS's images."),
        COMMANDS,
        FINALLY,
    ],
    required: &[],
};

pub(crate) const PHASE: Section =
    Section { keys: &[RUN_AS, ON_FAILURE, COMMANDS, FINALLY], required: &[] };

const FILES: Key = key("files", Kind::Texts(ANY), "The patterns of the files.");
const NAME: Key = key("name", Kind::Text, "The name of the artifact; the shell expands it.");
const DISCARD_PATHS: Key = key("discard-paths", Kind::Bool, "Whether all files lie in one folder.");
const BASE_DIRECTORY: Key =
    key("base-directory", Kind::Text, "The folder of the files: a path or a pattern.");
const EXCLUDE_PATHS: Key =
    key("exclude-paths", Kind::Texts(ANY), "The patterns of the files to leave out.");
const ENABLE_SYMLINKS: Key =
    key("enable-symlinks", Kind::Bool, "Whether links stay links in a zip file.");
const S3_PREFIX: Key = key("s3-prefix", Kind::Text, "What the key in S3 begins with.");

pub(crate) const ARTIFACTS: Section = Section {
    keys: &[
        FILES,
        NAME,
        DISCARD_PATHS,
        BASE_DIRECTORY,
        EXCLUDE_PATHS,
        ENABLE_SYMLINKS,
        S3_PREFIX,
        key(
            "secondary-artifacts",
            Kind::Named(&SECONDARY_ARTIFACTS, MOST_SECONDARY_ARTIFACTS),
            "What else to keep, each by itself, by identifier.",
        ),
    ],
    required: &["files"],
};

pub(crate) const SECONDARY_ARTIFACTS: Section = Section {
    keys: &[FILES, NAME, DISCARD_PATHS, BASE_DIRECTORY, EXCLUDE_PATHS, ENABLE_SYMLINKS, S3_PREFIX],
    required: &["files"],
};

const FILE_FORMATS: &[&str] = &[
    "CUCUMBERJSON",
    "JUNITXML",
    "NUNITXML",
    "NUNIT3XML",
    "TESTNGXML",
    "VISUALSTUDIOTRX",
    "CLOVERXML",
    "COBERTURAXML",
    "JACOCOXML",
    "SIMPLECOV",
];

pub(crate) const REPORT: Section = Section {
    keys: &[
        key("files", Kind::Texts(ANY), "The patterns of the report files."),
        key("base-directory", Kind::Text, "The folder of the files."),
        key("discard-paths", Kind::Bool, "Whether the files are kept without their folders."),
        key("file-format", Kind::AnyCase(FILE_FORMATS), "What the files are; JUNITXML if none."),
    ],
    required: &["files"],
};

pub(crate) const CACHE: Section = Section {
    keys: &[
        key("key", Kind::Text, "The key of the cache; the shell expands it."),
        key("fallback-keys", Kind::Texts(5), "What other keys may begin with, best first."),
        key("action", Kind::AnyCase(&["restore", "save"]), "What to do with it; both if none."),
        key("paths", Kind::Texts(ANY), "The paths or patterns to keep."),
    ],
    required: &[],
};

pub(crate) const BATCH: Section = Section {
    keys: &[
        key("fast-fail", Kind::Bool, "Whether the first build that fails stops the others."),
        key("build-list", Kind::List(&LIST_TASK), "Builds that run at the same time."),
        key("build-graph", Kind::List(&GRAPH_TASK), "Builds that wait for one another."),
        key("build-matrix", Kind::Mapping(&MATRIX), "A build for each of all combinations."),
        key("build-fanout", Kind::Mapping(&FANOUT), "Equal builds that share the tests."),
    ],
    required: &[],
};

const IDENTIFIER: Key = key("identifier", Kind::Text, "The name of the build in its batch.");
const TASK_BUILDSPEC: Key =
    key("buildspec", Kind::Text, "The buildspec of the build, or its path; this one if none.");
const DEBUG_SESSION: Key =
    key("debug-session", Kind::Bool, "Whether one may connect to the build.");
const IGNORE_FAILURE: Key =
    key("ignore-failure", Kind::Bool, "Whether the batch may succeed if the build fails.");
const TASK_ENV: Key = key("env", Kind::Mapping(&TASK_ENVIRONMENT), "What differs in the project.");

pub(crate) const LIST_TASK: Section = Section {
    keys: &[IDENTIFIER, TASK_BUILDSPEC, DEBUG_SESSION, TASK_ENV, IGNORE_FAILURE],
    required: &["identifier"],
};

pub(crate) const GRAPH_TASK: Section = Section {
    keys: &[
        IDENTIFIER,
        TASK_BUILDSPEC,
        DEBUG_SESSION,
        key("depend-on", Kind::Texts(ANY), "The identifiers of the builds that come before it."),
        TASK_ENV,
        IGNORE_FAILURE,
    ],
    required: &["identifier"],
};

const COMPUTE_TYPE: Key = key("compute-type", Kind::Text, "The size of the machine.");
const FLEET: Key = key("fleet", Kind::Text, "The fleet of machines.");
const IMAGE: Key = key("image", Kind::Text, "The image.");
const PRIVILEGED_MODE: Key =
    key("privileged-mode", Kind::Bool, "Whether the build may run a Docker daemon.");
const ENVIRONMENT_TYPE: Key = key("type", Kind::Text, "The type of the environment.");

pub(crate) const TASK_ENVIRONMENT: Section = Section {
    keys: &[
        COMPUTE_TYPE,
        FLEET,
        IMAGE,
        PRIVILEGED_MODE,
        ENVIRONMENT_TYPE,
        key("variables", Kind::Values, "Variables with their values."),
        key("git-credential-helper", Kind::Bool, "Whether git gets the source's credentials."),
    ],
    required: &[],
};

pub(crate) const MATRIX: Section = Section {
    keys: &[
        key("static", Kind::Mapping(&STATIC), "What is the same for all builds."),
        key("dynamic", Kind::Mapping(&DYNAMIC), "What differs from build to build."),
    ],
    required: &[],
};

pub(crate) const STATIC: Section =
    Section { keys: &[IGNORE_FAILURE, DEBUG_SESSION, TASK_ENV], required: &[] };

pub(crate) const DYNAMIC: Section = Section {
    keys: &[
        key("buildspec", Kind::Texts(ANY), "The buildspecs, or their paths."),
        key("env", Kind::Mapping(&DYNAMIC_ENVIRONMENT), "What differs in the project."),
    ],
    required: &[],
};

pub(crate) const DYNAMIC_ENVIRONMENT: Section = Section {
    keys: &[
        key("compute-type", Kind::Texts(ANY), "The sizes of the machine."),
        key("fleet", Kind::Texts(ANY), "The fleets of machines."),
        key("image", Kind::Texts(ANY), "The images."),
        key("variables", Kind::ValueLists, "Variables with all their values."),
    ],
    required: &[],
};

pub(crate) const FANOUT: Section = Section {
    keys: &[
        key("parallelism", Kind::Count, "How many builds there are."),
        IGNORE_FAILURE,
        DEBUG_SESSION,
    ],
    required: &["parallelism"],
};

impl Section {
    /// The names of all keys.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|it| it.name).collect()
    }

    /// Where `name` is among the keys.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|it| it.name == name)
    }
}
