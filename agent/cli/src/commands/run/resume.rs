//! Where the state of a build that did not succeed is kept, so that `--resume` goes on with it.
//!
//! There is one for each source folder. It is removed when a build begins afresh, and written when
//! one does not succeed.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rbuild_agent::{
    buildspec::PhaseCommands,
    plan::Plan,
    resume::{Origin, State},
    run::ResumePoint,
    secret::Redactor,
};
use rbuild_imagebuilder::digest::Digest;

use super::{place, state};
use crate::{
    console,
    failure::{Failure, Kind},
    input,
};

/// The most bytes of a state: the system gives a process no more variables than a few megabytes.
const LARGEST: u64 = 32_000_000;

/// The state of the last build of `source`, if these phases can go on with it.
pub(super) fn load(source: &Path, phases: &[PhaseCommands]) -> Result<State, Failure> {
    let path = path(source)
        .ok_or_else(|| Failure::new(Kind::Input, "there is no place for the state of builds"))
        .map_err(|it| it.hint("set HOME"))?;
    read(&path, source, phases)
}

fn read(path: &Path, source: &Path, phases: &[PhaseCommands]) -> Result<State, Failure> {
    let bytes = input::read(path, LARGEST).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Kind::Input, "there is no build of this source that could go on")
                .hint("a build can go on if it failed, was stopped, or ran out of time")
        }
        _ => unusable(path).because(err),
    })?;
    let state = State::parse(&bytes).map_err(|err| unusable(path).because(err))?;
    check(&state, source, phases)?;
    Ok(state)
}

fn unusable(path: &Path) -> Failure {
    let message = format!("the state of the last build, `{}`, cannot be used", path.display());
    Failure::new(Kind::Input, message).hint("run the build without --resume")
}

fn check(state: &State, source: &Path, phases: &[PhaseCommands]) -> Result<(), Failure> {
    let refused = |message: String| {
        Err(Failure::new(Kind::Input, message).hint("run the build without --resume"))
    };
    if state.source != source {
        let other = state.source.display();
        return refused(format!("the last build was of another source, `{other}`"));
    }
    if digest(phases, state.step).as_ref() != Some(&state.commands) {
        let count = state.step;
        let commands = if count == 1 { "command".to_owned() } else { format!("{count} commands") };
        return refused(format!(
            "the build cannot go on: the first {commands} of the buildspec changed since the last \
             build"
        ));
    }
    match state.directory.is_dir() {
        true => Ok(()),
        false => {
            let folder = state.directory.display();
            refused(format!("the folder `{folder}`, where the build would go on, is gone"))
        }
    }
}

/// Says which variables are not what they were.
pub(super) fn warn_of_withheld(state: &State) {
    let names = state.withheld.iter().map(|it| format!("`{}`", it.to_string_lossy()));
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        console::warn(&format!(
            "{} held secrets, which are not kept: commands that went before set them",
            names.join(", ")
        ));
    }
}

/// Forgets the build of `source` before this one.
pub(super) fn forget(source: &Path) {
    // What cannot be removed is refused later, by the commands that it is of.
    let _ = path(source).map(fs::remove_file);
}

/// Keeps where a build can go on that itself went on with `before`; whether that worked.
pub(super) fn keep(
    point: &ResumePoint,
    plan: &Plan,
    programs: &Path,
    redactor: &Redactor,
    before: Option<&State>,
) -> bool {
    let Some(commands) = digest(plan.phases(), point.step) else { return false };
    let environment = plan.environment();
    let (source, commands) = (plan.source(), commands.as_str());
    let lacks = before.map_or(&[][..], |it| &it.withheld);
    let origin = Origin { source, commands, programs, environment, redactor, lacks };
    let state = State::new(point, origin);
    state.zip(path(source)).is_some_and(|(state, path)| write(&path, &state.to_bytes()).is_ok())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    state::make(folder)?;
    place::remove_leftovers(folder);
    let part = place::beside(path, place::PART);
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn path(source: &Path) -> Option<PathBuf> {
    Some(state::folder("resume")?.join(format!("{}.json", state::name_of(source))))
}

/// A digest of the first commands of all phases; nothing if there are fewer. Each is framed by its
/// length.
fn digest(phases: &[PhaseCommands], count: usize) -> Option<String> {
    let commands: Vec<_> = phases
        .iter()
        .flat_map(|it| {
            it.commands.iter().chain(&it.finally).map(move |command| (it.phase, command))
        })
        .collect();
    let mut bytes = Vec::new();
    for (phase, command) in commands.get(..count)? {
        for text in [phase.name(), &command.text] {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    Some(Digest::of(&bytes).hex())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rbuild_agent::buildspec::Buildspec;

    use super::*;

    fn phases(commands: &str) -> Vec<PhaseCommands> {
        let text = format!("version: 0.2\nphases: {{build: {{commands: {commands}}}}}\n");
        Buildspec::parse(text.as_bytes()).unwrap().phases
    }

    #[test]
    fn a_build_goes_on_if_what_it_did_is_what_it_would_do() {
        let state = State {
            source: "/".into(),
            commands: digest(&phases("[a, bc, d]"), 2).unwrap(),
            step: 2,
            directory: "/".into(),
            programs: "/p".into(),
            set: Vec::new(),
            unset: Vec::new(),
            withheld: Vec::new(),
        };
        let told = |state: &State, source: &str, commands: &str| {
            let checked = check(state, Path::new(source), &phases(commands));
            checked.map_or_else(
                |err| err.to_string().lines().next().unwrap().to_owned(),
                |()| "goes on".to_owned(),
            )
        };
        let changed = "error: the build cannot go on: the first 2 commands of the buildspec \
                       changed since the last build";
        for (commands, want) in [
            ("[a, bc, d]", "goes on"),
            ("[a, bc, other, more]", "goes on"),
            ("[a, bc]", "goes on"),
            ("[a]", changed),
            ("[ab, c, d]", changed),
            ("[a, b, d]", changed),
        ] {
            assert_eq!(told(&state, "/", commands), want, "for {commands}");
        }
        let other = "error: the last build was of another source, `/`";
        assert_eq!(told(&state, "/other", "[a, bc]"), other);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        write(&path, &state.to_bytes()).unwrap();
        assert_eq!(read(&path, Path::new("/"), &phases("[a, bc, d]")).unwrap(), state);
        let gone = State { directory: "/no/such".into(), ..state };
        let want = "error: the folder `/no/such`, where the build would go on, is gone";
        assert_eq!(told(&gone, "/", "[a, bc]"), want);
    }

    #[test]
    fn a_state_is_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resume/x.json");
        write(&path, b"1").unwrap();
        write(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        let mode = |it: &Path| fs::metadata(it).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
