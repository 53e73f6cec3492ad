//! Flags that people know from docker and that there are not: each is told of in its own words.

/// A flag, and what is said of it.
pub(crate) struct Absent {
    command: &'static str,
    flags: &'static [&'static str],
    pub(crate) message: &'static str,
    pub(crate) hint: &'static str,
}

const BUILD: &str = "image build";

const ALL: [Absent; 7] = [
    Absent {
        command: BUILD,
        flags: &["--secret", "--ssh"],
        message: "builds of images run no commands that could use a secret or an SSH agent",
        hint: "fetch what needs them before, e.g., in `rbuild run`, and COPY it",
    },
    Absent {
        command: BUILD,
        flags: &["-q", "--quiet"],
        message: "there is no flag that silences a build",
        hint: "only the digest is on standard output: send standard error elsewhere (2>/dev/null)",
    },
    Absent {
        command: BUILD,
        flags: &["--squash"],
        message: "layers are not squashed: those of a base would be carried again and again",
        hint: "copy from a stage that has all the files, with `COPY --from=STAGE / /`",
    },
    Absent {
        command: BUILD,
        flags: &["--load", "--output", "-o"],
        message: "an image that is built is in the store, and in no daemon",
        hint: "`rbuild image save --format docker-archive NAME | docker load` gives it to docker; \
               `rbuild image save -o FILE NAME` writes a file",
    },
    Absent {
        command: BUILD,
        flags: &["--label"],
        message: "labels are not given as arguments",
        hint: "write ARG and LABEL into the Dockerfile, and give --build-arg",
    },
    Absent {
        command: BUILD,
        flags: &["--pull", "--cache-from", "--cache-to", "--progress", "--provenance", "--sbom"],
        message: "this flag of docker's is not there",
        hint: "leave it out: registries are always asked what a tag is, and the cache is the store",
    },
    Absent {
        command: "login",
        flags: &["-p", "--password"],
        message: "a password among the arguments would be seen by all on this machine",
        hint: "`echo $PASSWORD | rbuild login -u USER --password-stdin REGISTRY`",
    },
];

/// What is to be said of a flag of docker's that a command has not.
pub(crate) fn absent(command: &str, flag: &str) -> Option<&'static Absent> {
    ALL.iter().find(|it| it.command == command && it.flags.contains(&flag))
}
