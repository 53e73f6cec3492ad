//! A Dockerfile becomes a plan: which stages a build needs, what they start from, and what is
//! refused, before anything is done.
//!
//! **Architecture invariant:** no I/O. What a plan holds can be built; what is not built yet is
//! refused here by its name and place, never ignored.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    config::Platform,
    dockerfile::{
        Arg, Dockerfile, Instruction, Place, Stage, Switch, Word,
        instruction::{Add, Command, Copy, Source},
        words::{self, ExpandError},
    },
    reference::{Reference, ReferenceError},
};

/// What a build does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The stages that it needs, each after those that it needs itself; the last is the target.
    pub stages: Vec<StagePlan>,
    /// The values of the arguments before the first FROM.
    pub global_args: BTreeMap<String, String>,
    /// The character that escapes.
    pub escape: char,
    /// What is suspicious.
    pub warnings: Vec<(Place, String)>,
}

/// What one stage does.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// Its name, or its number; empty if the file has no other.
    pub shown: String,
    /// What it starts from.
    pub base: Base,
    /// FROM as it is written.
    pub source: String,
    /// Where FROM is.
    pub place: Place,
    /// Its instructions.
    pub steps: Vec<Step>,
}

/// One instruction, and where it copies from if that is not the build context.
#[derive(Clone, Debug)]
pub struct Step {
    /// The instruction.
    pub instruction: Instruction,
    /// What `--from` names.
    pub from: Option<Base>,
}

/// What a stage starts from, or copies from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// A stage of the plan, by its number there.
    Stage(usize),
    /// An image of the store or of a registry.
    Image(Reference),
    /// An image of an OCI layout: `oci:DIR[:NAME]`.
    Layout {
        /// The folder as it is written.
        folder: String,
        /// The image's name in it.
        name: Option<String>,
    },
}

/// What a plan depends on.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The values that were given for arguments.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; the last one if none is named.
    pub target: Option<String>,
    /// What the image is for.
    pub platform: Platform,
}

/// Why a Dockerfile cannot be built.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct PlanError {
    /// What is wrong.
    pub kind: PlanErrorKind,
    /// Where, if it is in the file.
    pub place: Option<Place>,
}

fn listed(known: &[String]) -> String {
    match known {
        [] => "no stage has a name".to_owned(),
        known => format!("there is {}", known.join(", ")),
    }
}

/// What is wrong with a Dockerfile that is one.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PlanErrorKind {
    /// It is of the language, and not built yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// There is no stage of that name.
    #[error("there is no stage `{name}`; {}", listed(known))]
    NoStage {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The name of an image is none.
    #[error("`{text}` is not the name of an image")]
    Reference {
        /// The name.
        text: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// The name of an image is empty once its variables are replaced.
    #[error("`{0}` is empty once its variables are replaced")]
    Empty(String),
    /// Variables could not be replaced.
    #[error(transparent)]
    Expand(ExpandError),
    /// A stage copies from itself or a later one.
    #[error("`--from={0}` names a stage that is not before this one")]
    Later(String),
    /// `scratch` has no files.
    #[error("`scratch` has no files to copy")]
    CopyScratch,
}

/// Plans the build of `dockerfile`.
pub fn plan(dockerfile: &Dockerfile, inputs: &Inputs) -> Result<Plan, PlanError> {
    let mut planner = Planner {
        dockerfile,
        global_args: BTreeMap::new(),
        platform_args: platform_args(&inputs.platform),
        warnings: Vec::new(),
    };
    for warning in &dockerfile.warnings {
        planner.warnings.push((warning.place, warning.kind.to_string()));
    }
    planner.read_global_args(&inputs.build_args)?;
    let target = planner.target(inputs.target.as_deref())?;
    let needed = planner.needed(target)?;
    let numbers: BTreeMap<usize, usize> =
        needed.iter().enumerate().map(|(number, index)| (*index, number)).collect();
    let stages =
        needed.iter().map(|index| planner.stage(*index, &numbers)).collect::<Result<_, _>>()?;
    planner.warn_of_unused(&inputs.build_args, &needed);
    let Planner { global_args, warnings, .. } = planner;
    Ok(Plan { stages, global_args, escape: dockerfile.directives.escape, warnings })
}

impl Plan {
    /// All images and layouts that it needs, each once, with the place that needs it first.
    pub fn bases(&self) -> BTreeMap<Base, Place> {
        let mut bases = BTreeMap::new();
        for stage in &self.stages {
            let copied =
                stage.steps.iter().filter_map(|it| Some((it.from.as_ref()?, it.instruction.place)));
            for (base, place) in [(&stage.base, stage.place)].into_iter().chain(copied) {
                if matches!(base, Base::Image(_) | Base::Layout { .. }) {
                    bases.entry(base.clone()).or_insert(place);
                }
            }
        }
        bases
    }
}

/// The arguments that describe the platform (Dockerfile reference, "Automatic platform ARGs in
/// the global scope").
pub fn platform_args(platform: &Platform) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for side in ["BUILD", "TARGET"] {
        args.insert(format!("{side}PLATFORM"), platform.to_string());
        args.insert(format!("{side}OS"), platform.os.clone());
        args.insert(format!("{side}ARCH"), platform.architecture.clone());
        args.insert(format!("{side}VARIANT"), String::new());
    }
    args
}

struct Planner<'a> {
    dockerfile: &'a Dockerfile,
    global_args: BTreeMap<String, String>,
    platform_args: BTreeMap<String, String>,
    warnings: Vec<(Place, String)>,
}

impl Planner<'_> {
    fn read_global_args(&mut self, given: &BTreeMap<String, String>) -> Result<(), PlanError> {
        for Arg { name, default } in &self.dockerfile.global_args {
            let value = match (given.get(&name.text), default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => self.expand_globally(default)?,
                (None, None) => continue,
            };
            self.global_args.insert(name.text.clone(), value);
        }
        Ok(())
    }

    fn expand_globally(&mut self, word: &Word) -> Result<String, PlanError> {
        let lookup = |name: &str| {
            self.global_args.get(name).or_else(|| self.platform_args.get(name)).cloned()
        };
        let escape = self.dockerfile.directives.escape;
        let expanded = words::expand(&word.text, escape, &lookup)
            .map_err(|err| PlanErrorKind::Expand(err).at(word.place))?;
        for name in &expanded.unset {
            let text = format!("`{name}` is not an argument from before the first FROM");
            self.warnings.push((word.place, text));
        }
        Ok(expanded.text)
    }

    fn target(&self, name: Option<&str>) -> Result<usize, PlanError> {
        let stages = &self.dockerfile.stages;
        let Some(name) = name else { return Ok(stages.len() - 1) };
        let lower = name.to_lowercase();
        let by_name = |it: &Stage| it.name.as_ref().is_some_and(|it| it.text == lower);
        let by_number = || name.parse().ok().filter(|it| *it < stages.len());
        stages.iter().rposition(by_name).or_else(by_number).ok_or_else(|| {
            let known = stages.iter().filter_map(|it| it.name.as_ref());
            let known = known.map(|it| format!("`{}`", it.text)).collect();
            let kind = PlanErrorKind::NoStage { name: name.to_owned(), known };
            PlanError { kind, place: None }
        })
    }

    /// The stages that `target` needs, each after those that it needs itself.
    fn needed(&mut self, target: usize) -> Result<Vec<usize>, PlanError> {
        let mut needed = BTreeSet::from([target]);
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            let stage = &self.dockerfile.stages[index];
            let image = self.expand_globally(&stage.image)?;
            let copied = stage.instructions.iter().filter_map(|it| match &it.command {
                Command::Copy(copy) => copy.from.as_ref().map(|it| it.text.clone()),
                _ => None,
            });
            for name in [image].into_iter().chain(copied) {
                let numbered = || name.parse().ok().filter(|it| *it < index);
                if let Some(found) = self.earlier_stage(&name, index).or_else(numbered)
                    && needed.insert(found)
                {
                    open.push(found);
                }
            }
        }
        // Stages only name earlier ones, so their order in the file will do.
        Ok(needed.into_iter().collect())
    }

    /// The stage before `index` that `name` names: the last of that name, or of that number.
    fn earlier_stage(&self, name: &str, index: usize) -> Option<usize> {
        let lower = name.to_lowercase();
        let earlier = &self.dockerfile.stages[..index];
        let by_name = |it: &Stage| it.name.as_ref().is_some_and(|it| it.text == lower);
        earlier.iter().rposition(by_name)
    }

    fn stage(
        &mut self,
        index: usize,
        numbers: &BTreeMap<usize, usize>,
    ) -> Result<StagePlan, PlanError> {
        let dockerfile = self.dockerfile;
        let stage = &dockerfile.stages[index];
        if let Some(platform) = &stage.platform {
            let what = "`--platform` of `FROM`".to_owned();
            return Err(PlanErrorKind::Unsupported(what).at(platform.place));
        }
        let image = self.expand_globally(&stage.image)?;
        let place = stage.image.place;
        let base = match self.earlier_stage(&image, index) {
            Some(found) => Base::Stage(numbers[&found]),
            None if image.is_empty() => {
                return Err(PlanErrorKind::Empty(stage.image.text.clone()).at(place));
            }
            None => base(&image, place)?,
        };
        let steps = stage.instructions.iter().map(|it| self.step(it, index, numbers));
        let steps = steps.collect::<Result<_, _>>()?;
        let shown = match &stage.name {
            Some(name) => name.text.clone(),
            None if self.dockerfile.stages.len() == 1 => String::new(),
            None => format!("stage-{index}"),
        };
        Ok(StagePlan { shown, base, source: stage.source.clone(), place: stage.place, steps })
    }

    fn step(
        &self,
        instruction: &Instruction,
        index: usize,
        numbers: &BTreeMap<usize, usize>,
    ) -> Result<Step, PlanError> {
        refuse_unsupported(instruction)?;
        let from = match &instruction.command {
            Command::Copy(Copy { from: Some(from), .. }) => {
                Some(self.copied_from(from, index, numbers)?)
            }
            _ => None,
        };
        Ok(Step { instruction: instruction.clone(), from })
    }

    fn copied_from(
        &self,
        from: &Word,
        index: usize,
        numbers: &BTreeMap<usize, usize>,
    ) -> Result<Base, PlanError> {
        if let Some(found) = self.earlier_stage(&from.text, index) {
            return Ok(Base::Stage(numbers[&found]));
        }
        if let Ok(number) = from.text.parse::<usize>() {
            return numbered(number, index, from, numbers);
        }
        if from.text.contains('$') {
            let what = "a variable in `--from`".to_owned();
            return Err(PlanErrorKind::Unsupported(what).at(from.place));
        }
        let lower = from.text.to_lowercase();
        let is_later = self.dockerfile.stages[index..]
            .iter()
            .any(|it| it.name.as_ref().is_some_and(|it| it.text == lower));
        match base(&from.text, from.place)? {
            _ if is_later => Err(PlanErrorKind::Later(from.text.clone()).at(from.place)),
            Base::Scratch => Err(PlanErrorKind::CopyScratch.at(from.place)),
            base => Ok(base),
        }
    }

    fn warn_of_unused(&mut self, given: &BTreeMap<String, String>, needed: &[usize]) {
        let declared = |name: &str| {
            let in_stage = |it: &Instruction| match &it.command {
                Command::Arg(args) => args.iter().any(|it| it.name.text == name),
                _ => false,
            };
            self.dockerfile.global_args.iter().any(|it| it.name.text == name)
                || needed
                    .iter()
                    .any(|it| self.dockerfile.stages[*it].instructions.iter().any(in_stage))
        };
        let unused: Vec<String> = given
            .keys()
            .filter(|it| !declared(it) && !is_predefined(it))
            .map(|it| format!("the build argument `{it}` is given, and no ARG takes it"))
            .collect();
        let nowhere = Place { line: 0, column: 0 };
        self.warnings.extend(unused.into_iter().map(|it| (nowhere, it)));
    }
}

/// The stage of that number, which `--from` may name too.
fn numbered(
    number: usize,
    index: usize,
    from: &Word,
    numbers: &BTreeMap<usize, usize>,
) -> Result<Base, PlanError> {
    match numbers.get(&number) {
        Some(found) if number < index => Ok(Base::Stage(*found)),
        _ => Err(PlanErrorKind::Later(from.text.clone()).at(from.place)),
    }
}

/// Arguments that need no ARG (Dockerfile reference, "Predefined ARGs").
fn is_predefined(name: &str) -> bool {
    matches!(
        name.to_lowercase().as_str(),
        "http_proxy" | "https_proxy" | "ftp_proxy" | "no_proxy" | "all_proxy"
    )
}

impl PlanErrorKind {
    fn at(self, place: Place) -> PlanError {
        PlanError { kind: self, place: Some(place) }
    }
}

/// What a name in FROM or `--from` that is no stage means.
fn base(text: &str, place: Place) -> Result<Base, PlanError> {
    if text == "scratch" {
        return Ok(Base::Scratch);
    }
    if let Some(rest) = text.strip_prefix("oci:") {
        let (folder, name) = match rest.rsplit_once(':') {
            Some((folder, name)) if !name.contains('/') => (folder, Some(name.to_owned())),
            _ => (rest, None),
        };
        return Ok(Base::Layout { folder: folder.to_owned(), name });
    }
    match text.parse::<Reference>() {
        Ok(reference) => Ok(Base::Image(reference.with_default_tag())),
        Err(source) => Err(PlanErrorKind::Reference { text: text.to_owned(), source }.at(place)),
    }
}

fn refuse_unsupported(instruction: &Instruction) -> Result<(), PlanError> {
    match &instruction.command {
        Command::Run(_) | Command::Onbuild(_) => {
            let what = format!("`{}`", instruction.command.name());
            Err(PlanErrorKind::Unsupported(what).at(instruction.place))
        }
        Command::Copy(copy) => refuse_of_copy(copy),
        Command::Add(add) => refuse_of_add(add),
        _ => Ok(()),
    }
}

fn refuse_of_copy(copy: &Copy) -> Result<(), PlanError> {
    refuse_switch("link", "COPY", copy.link)?;
    refuse_switch("parents", "COPY", copy.parents)?;
    refuse_flag("exclude", "COPY", copy.exclude.first())?;
    refuse_sources("COPY", &copy.sources)
}

fn refuse_of_add(add: &Add) -> Result<(), PlanError> {
    refuse_switch("link", "ADD", add.link)?;
    refuse_switch("keep-git-dir", "ADD", add.keep_git_dir)?;
    refuse_switch("unpack", "ADD", add.unpack)?;
    refuse_flag("exclude", "ADD", add.exclude.first())?;
    refuse_flag("checksum", "ADD", add.checksum.as_ref())?;
    refuse_sources("ADD", &add.sources)?;
    for source in &add.sources {
        if let Source::Path(word) = source
            && is_remote(&word.text)
        {
            let what = format!("`ADD` of `{}`, which is not a local file,", word.text);
            return Err(PlanErrorKind::Unsupported(what).at(word.place));
        }
    }
    Ok(())
}

/// Whether a source of ADD is fetched from elsewhere.
pub fn is_remote(text: &str) -> bool {
    let schemes = ["http://", "https://", "git://", "ssh://", "ftp://", "git@"];
    schemes.iter().any(|it| text.starts_with(it))
}

fn refuse_switch(flag: &str, instruction: &str, switch: Option<Switch>) -> Result<(), PlanError> {
    match switch {
        // Switched off, it means what there is.
        Some(Switch { is_on: true, place }) => {
            let what = format!("`--{flag}` of `{instruction}`");
            Err(PlanErrorKind::Unsupported(what).at(place))
        }
        _ => Ok(()),
    }
}

fn refuse_flag(flag: &str, instruction: &str, word: Option<&Word>) -> Result<(), PlanError> {
    match word {
        Some(word) => {
            let what = format!("`--{flag}` of `{instruction}`");
            Err(PlanErrorKind::Unsupported(what).at(word.place))
        }
        None => Ok(()),
    }
}

fn refuse_sources(instruction: &str, sources: &[Source]) -> Result<(), PlanError> {
    for source in sources {
        if let Source::Heredoc(heredoc) = source {
            let what = format!("a heredoc of `{instruction}`");
            return Err(PlanErrorKind::Unsupported(what).at(heredoc.place));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, target: Option<&str>, args: &[(&str, &str)], want: Expect) {
        let dockerfile = Dockerfile::parse(text.as_bytes()).unwrap();
        let inputs = Inputs {
            build_args: args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            target: target.map(str::to_owned),
            platform: Platform::linux("x86_64"),
        };
        let mut shown = String::new();
        match plan(&dockerfile, &inputs) {
            Ok(plan) => {
                for stage in &plan.stages {
                    writeln!(shown, "{}: {:?} {}", stage.shown, stage.base, stage.steps.len())
                        .unwrap();
                    for from in stage.steps.iter().filter_map(|it| it.from.as_ref()) {
                        writeln!(shown, "  from {from:?}").unwrap();
                    }
                }
                for (place, text) in plan.warnings {
                    writeln!(shown, "{}: {text}", place.line).unwrap();
                }
            }
            Err(PlanError { kind, place }) => {
                let place = place.map(|it| format!("{}:{} ", it.line, it.column));
                writeln!(shown, "{}{kind}", place.unwrap_or_default()).unwrap();
            }
        }
        want.assert_eq(&shown);
    }

    #[test]
    fn stages_that_are_not_needed_are_left_out() {
        let text = "FROM scratch AS a\nCOPY x /\nFROM busybox AS b\nRUN make\nFROM a AS c\nCOPY --from=a /x /y\n";
        check(
            text,
            None,
            &[],
            expect![[r#"
            a: Scratch 1
            c: Stage(0) 1
              from Stage(0)
        "#]],
        );
        check(
            text,
            Some("b"),
            &[],
            expect![[r#"
            4:1 `RUN` is not supported yet
        "#]],
        );
        check(
            text,
            Some("A"),
            &[],
            expect![[r#"
            a: Scratch 1
        "#]],
        );
        check(
            text,
            Some("z"),
            &[],
            expect![[r#"
            there is no stage `z`; there is `a`, `b`, `c`
        "#]],
        );
    }

    #[test]
    fn names_of_bases_are_completed_and_their_variables_replaced() {
        let text =
            "ARG V=1\nARG I=img:$V\nFROM ${I}-$TARGETARCH\nCOPY --from=oci:../base:x /a /b\n";
        check(
            text,
            None,
            &[],
            expect![[r#"
            : Image(Reference { repository: Repository { registry: "docker.io", path: "library/img" }, tag: Some("1-amd64"), digest: None }) 1
              from Layout { folder: "../base", name: Some("x") }
        "#]],
        );
        check(
            text,
            None,
            &[("I", "scratch"), ("W", "1")],
            expect![[r#"
            : Image(Reference { repository: Repository { registry: "docker.io", path: "library/scratch-amd64" }, tag: Some("latest"), digest: None }) 1
              from Layout { folder: "../base", name: Some("x") }
            0: the build argument `W` is given, and no ARG takes it
        "#]],
        );
        check(
            "FROM $NOTHING\n",
            None,
            &[],
            expect![[r#"
            1:6 `$NOTHING` is empty once its variables are replaced
        "#]],
        );
        check(
            "FROM A/B:c\n",
            None,
            &[],
            expect![[r#"
            1:6 `A/B:c` is not the name of an image
        "#]],
        );
    }

    #[test]
    fn what_is_not_built_yet_is_refused_by_name() {
        for (line, want) in [
            ("RUN make", "2:1 `RUN` is not supported yet"),
            ("ONBUILD COPY a b", "2:1 `ONBUILD` is not supported yet"),
            ("COPY --link a b", "2:6 `--link` of `COPY` is not supported yet"),
            ("COPY --parents a b", "2:6 `--parents` of `COPY` is not supported yet"),
            ("COPY --exclude=x a b", "2:6 `--exclude` of `COPY` is not supported yet"),
            ("COPY --from=$X a b", "2:6 a variable in `--from` is not supported yet"),
            ("COPY --from=scratch a b", "2:6 `scratch` has no files to copy"),
            ("COPY --from=0 a b", "2:6 `--from=0` names a stage that is not before this one"),
            ("COPY <<EOF /x\nEOF", "2:6 a heredoc of `COPY` is not supported yet"),
            ("ADD --checksum=sha256:x a b", "2:5 `--checksum` of `ADD` is not supported yet"),
            ("ADD --unpack a b", "2:5 `--unpack` of `ADD` is not supported yet"),
            (
                "ADD https://x/y b",
                "2:5 `ADD` of `https://x/y`, which is not a local file, is not supported yet",
            ),
            ("COPY --link=false a b", ""),
        ] {
            let text = format!("FROM scratch\n{line}\n");
            let dockerfile = Dockerfile::parse(text.as_bytes()).unwrap();
            let inputs = Inputs {
                build_args: BTreeMap::new(),
                target: None,
                platform: Platform::linux("x86_64"),
            };
            let got = match plan(&dockerfile, &inputs) {
                Ok(_) => String::new(),
                Err(PlanError { kind, place }) => {
                    let Place { line, .. } = place.unwrap();
                    assert_eq!(line, 2, "for `{text}`");
                    kind.to_string()
                }
            };
            let want = want.split_once(' ').map_or("", |it| it.1);
            assert_eq!(got, want, "for `{text}`");
        }
    }
}
