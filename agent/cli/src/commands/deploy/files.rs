//! The files that `rbuild deploy` reads and writes.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use rbuild_deployer::{
    placeholder::Token,
    render::{IMAGE_DEFINITIONS, IMAGE_DETAIL, Rendered},
};
use serde_json::json;

use crate::{
    console,
    failure::{Failure, Kind},
    input,
};

/// Where the task definition is if nobody says so.
const TASKDEF: &str = "taskdef.json";

/// Where the appspec is if nobody says so.
const APPSPEC: &str = "appspec.yaml";

/// The most bytes of a template: more than CodePipeline takes.
const LARGEST_TEMPLATE: u64 = 4_000_000;

/// A file that was read, with the name by which a person knows it.
pub(super) struct File {
    path: PathBuf,
    pub(super) text: String,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failure =
            |what: &str| Failure::new(Kind::Input, format!("`{}` {what}", path.display()));
        let bytes = input::read(path, LARGEST_TEMPLATE)
            .map_err(|err| failure("could not be read").because(err))?;
        let hint = "write it as UTF-8 without a byte order mark, as CodePipeline reads it";
        let text = String::from_utf8(bytes)
            .map_err(|err| failure("is not UTF-8").because(err.utf8_error()).hint(hint))?;
        if text.starts_with('\u{feff}') {
            return Err(failure("begins with a byte order mark").hint(hint));
        }
        Ok(Self { path: path.to_owned(), text })
    }

    /// Reads a file of the current folder that nobody named.
    fn read_default(name: &'static str, option: &str) -> Result<Self, Failure> {
        if leads_outside(Path::new("."), name) {
            let message = format!("`{name}` is a link that leads out of the current folder");
            return Err(Failure::new(Kind::Input, message)
                .hint(format!("pass `{option} {name}`, if that file is meant")));
        }
        Self::read(Path::new(name))
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Whether a file of this folder is a link that leads out of it. The link came with the source,
/// and could have the user's own files shown or written elsewhere.
fn leads_outside(folder: &Path, name: &str) -> bool {
    let real = fs::canonicalize(folder.join(name));
    // What is missing leads nowhere.
    real.is_ok_and(|real| fs::canonicalize(folder).is_ok_and(|it| !real.starts_with(it)))
}

pub(super) fn read_taskdef(named: Option<&Path>) -> Result<File, Failure> {
    match named {
        Some(path) => File::read(path),
        None => File::read_default(TASKDEF, "--taskdef"),
    }
}

/// An appspec that nobody named may be missing: a rolling deployment has none.
pub(super) fn read_appspec(named: Option<&Path>, taskdef: &File) -> Result<Option<File>, Failure> {
    if let Some(path) = named {
        return File::read(path).map(Some);
    }
    for path in passed_over(Path::new(""), &taskdef.path) {
        let shown = path.display();
        console::warn(&format!("`{shown}` is not read: pass `--appspec {shown}` if it is meant"));
    }
    match fs::exists(APPSPEC).unwrap_or(true) {
        true => File::read_default(APPSPEC, "--appspec").map(Some),
        false => Ok(None),
    }
}

/// What looks like an appspec in `folder` or beside the task definition, and is not read.
fn passed_over(folder: &Path, taskdef: &Path) -> Vec<PathBuf> {
    let default = fs::canonicalize(folder.join(APPSPEC)).ok();
    let mut found = Vec::new();
    let mut passed_over = Vec::new();
    for path in [Path::new(TASKDEF), taskdef].map(|it| folder.join(it)) {
        for name in [APPSPEC, "appspec.yml"] {
            let path = path.with_file_name(name);
            let Ok(real) = fs::canonicalize(&path) else { continue };
            if default.as_ref() != Some(&real) && !found.contains(&real) {
                found.push(real);
                passed_over.push(path);
            }
        }
    }
    passed_over
}

/// A file to write, and what it is.
pub(super) struct Output {
    role: &'static str,
    path: PathBuf,
    text: String,
}

pub(super) fn files(
    folder: &Path,
    taskdef: &File,
    appspec: Option<&File>,
    rendered: Rendered,
    details: Vec<(String, String)>,
) -> Result<Vec<Output>, Failure> {
    let output = |role, path: PathBuf, text| Output { role, path: folder.join(path), text };
    let mut files = vec![output("taskdef", file_name(taskdef), rendered.taskdef)];
    if let (Some(file), Some(text)) = (appspec, rendered.appspec) {
        files.push(output("appspec", file_name(file), text));
    }
    files.push(output("imagedefinitions", IMAGE_DEFINITIONS.into(), rendered.image_definitions));
    let several = 1 < details.len();
    for (token, text) in details {
        let path = if several { Path::new(&token).join(IMAGE_DETAIL) } else { IMAGE_DETAIL.into() };
        files.push(output("imageDetails", path, text));
    }
    for (index, file) in files.iter().enumerate() {
        if files[..index].iter().any(|earlier| earlier.path == file.path) {
            let message = format!("two files would be written to `{}`", file.path.display());
            return Err(Failure::new(Kind::Input, message).hint("give the templates other names"));
        }
    }
    Ok(files)
}

/// The name of a file that was read, and so has one.
fn file_name(file: &File) -> PathBuf {
    file.path.file_name().unwrap_or_default().into()
}

/// The templates are the team's: what is rendered never lies among them.
pub(super) fn refuse_folder_of_inputs<'a>(
    folder: &Path,
    inputs: impl IntoIterator<Item = Option<&'a File>>,
) -> Result<(), Failure> {
    // A folder that is not there yet holds no input.
    let Ok(folder_found) = fs::canonicalize(folder) else {
        return Ok(());
    };
    for input in inputs.into_iter().flatten() {
        if folders(&input.path).contains(&folder_found) {
            let message = format!("`{}` is the folder of `{}`", folder.display(), input.name());
            return Err(Failure::new(Kind::Input, message)
                .hint("name another folder with `-o`: the templates are never written over"));
        }
    }
    Ok(())
}

/// The folder where a file is named, and the one where it really is if that name is a link.
fn folders(path: &Path) -> Vec<PathBuf> {
    let named = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = fs::canonicalize(path).ok().and_then(|it| it.parent().map(Path::to_owned));
    fs::canonicalize(named).into_iter().chain(real).collect()
}

/// Writes the files, each of them whole, and removes what is left of an earlier rendering.
pub(super) fn write(folder: &Path, files: &[Output]) -> Result<(), Failure> {
    let left = left_of_earlier(folder).map_err(|err| failed(folder, "could not be read", err))?;
    files.iter().try_for_each(|file| write_whole(&file.path, &file.text))?;
    let is_old = |path: &&PathBuf| files.iter().all(|file| file.path != **path);
    left.iter().filter(is_old).try_for_each(|path| {
        remove(folder, path).map_err(|err| {
            failed(path, "is of an earlier rendering, and could not be removed", err)
        })
    })
}

/// What an earlier rendering may have written that this one need not write. Where there is no
/// `imagedefinitions.json`, there was none, and all files are somebody else's.
fn left_of_earlier(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !is_file(&folder.join(IMAGE_DEFINITIONS)) {
        return Ok(Vec::new());
    }
    let mut left = vec![folder.join(APPSPEC), folder.join(IMAGE_DETAIL)];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_token = entry.file_name().to_str().is_some_and(|it| it.parse::<Token>().is_ok());
        if is_token && entry.file_type()?.is_dir() && has_only_a_detail(&entry.path())? {
            left.push(entry.path().join(IMAGE_DETAIL));
        }
    }
    left.retain(|path| is_file(path));
    Ok(left)
}

/// Whether it is a file, and no link to one.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_file())
}

fn has_only_a_detail(folder: &Path) -> io::Result<bool> {
    let mut names = fs::read_dir(folder)?.map(|entry| entry.map(|it| it.file_name()));
    Ok(names.next().transpose()?.is_some_and(|it| it == IMAGE_DETAIL) && names.next().is_none())
}

/// Removes a file below `folder`, and the folder of an image that is empty then.
fn remove(folder: &Path, path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    match path.parent() {
        Some(parent) if parent != folder => fs::remove_dir(parent),
        _ => Ok(()),
    }
}

fn failed(path: &Path, what: &str, err: io::Error) -> Failure {
    Failure::new(kind_of(&err), format!("`{}` {what}", path.display())).because(err)
}

/// Writes a file under another name, and then gives it its own: nobody sees half of it.
fn write_whole(path: &Path, text: &str) -> Result<(), Failure> {
    let failure = |err| failed(path, "could not be written", err);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failure)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = folder.join(format!(".{name}.{}.part", std::process::id()));
    let written = write_synced(&part, text).and_then(|()| fs::rename(&part, path));
    written.map_err(|err| {
        // It is of no use, and the error is that of the writing.
        let _ = fs::remove_file(&part);
        failure(err)
    })
}

/// What is in the way is the caller's; a full disk is the machine's.
fn kind_of(err: &io::Error) -> Kind {
    match err.kind() {
        ErrorKind::AlreadyExists | ErrorKind::IsADirectory | ErrorKind::NotADirectory => {
            Kind::Input
        }
        _ => Kind::Outside,
    }
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(super) fn as_lines(files: &[Output]) -> String {
    let paths: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
    paths.join("\n") + "\n"
}

pub(super) fn as_json(files: &[Output]) -> String {
    let path = |file: &Output| file.path.display().to_string();
    let one = |role| files.iter().find(|file| file.role == role).map(path);
    let details: Vec<_> =
        files.iter().filter(|file| file.role == "imageDetails").map(path).collect();
    let value = json!({
        "taskdef": one("taskdef"),
        "appspec": one("appspec"),
        "imagedefinitions": one("imagedefinitions"),
        "imageDetails": details,
    });
    format!("{value}\n")
}

#[cfg(test)]
impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use expect_test::{Expect, expect};
    use tempfile::TempDir;

    use super::*;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = folder(&[("bom.json", "\u{feff}{}")]);
        fs::write(folder.path().join("utf16.json"), b"\xff\xfe{\0}\0").unwrap();
        fs::write(folder.path().join("large.json"), vec![b' '; 4_000_001]).unwrap();
        for (name, want) in [
            ("bom.json", "begins with a byte order mark"),
            ("utf16.json", "is not UTF-8"),
            ("missing.json", "could not be read"),
            (".", "could not be read"),
            ("large.json", "it has more than"),
            ("/dev/zero", "not a regular file"),
        ] {
            let failure = File::read(&folder.path().join(name)).err().unwrap();
            assert!(failure.to_string().contains(want), "{failure}");
            assert_eq!(failure.kind, Kind::Input);
        }
    }

    #[test]
    fn a_link_that_nobody_named_stays_in_its_folder() {
        let folder = folder(&[("secret", "")]);
        let inner = folder.path().join("source");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        for (target, name) in
            [("file", "inside"), ("../source/file", "around"), ("../secret", "outside")]
        {
            symlink(target, inner.join(name)).unwrap();
        }
        for (name, want) in [
            ("file", false),
            ("inside", false),
            ("around", false),
            ("missing", false),
            ("outside", true),
        ] {
            assert_eq!(leads_outside(&inner, name), want, "for `{name}`");
        }
    }

    #[test]
    fn appspecs_that_are_not_read_are_found() {
        let folder = folder(&[("appspec.yaml", ""), ("appspec.yml", "")]);
        fs::create_dir(folder.path().join("ecs")).unwrap();
        fs::write(folder.path().join("ecs/appspec.yaml"), "").unwrap();
        for (taskdef, want) in [
            ("taskdef.json", &["appspec.yml"][..]),
            ("./taskdef.json", &["appspec.yml"]),
            ("ecs/taskdef.json", &["appspec.yml", "ecs/appspec.yaml"]),
        ] {
            let found = passed_over(folder.path(), Path::new(taskdef));
            let want: Vec<_> = want.iter().map(|it| folder.path().join(it)).collect();
            assert_eq!(found, want, "for `{taskdef}`");
        }
    }

    #[test]
    fn only_what_an_earlier_rendering_left_is_removed() {
        let folder = folder(&[("mine.json", ""), ("appspec.yaml", ""), ("imageDetail.json", "")]);
        for image in ["A", "B", "not a token"] {
            fs::create_dir(folder.path().join(image)).unwrap();
            fs::write(folder.path().join(image).join(IMAGE_DETAIL), "").unwrap();
        }
        fs::write(folder.path().join("B/mine.json"), "").unwrap();
        let write = |names: &[&str]| {
            let path = |name: &&str| folder.path().join(name);
            let files: Vec<_> = names
                .iter()
                .map(|name| Output { role: "", path: path(name), text: String::new() })
                .collect();
            super::write(folder.path(), &files).unwrap();
            let mut found: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            found
        };
        let [b, other] = ["B/imageDetail.json", "not a token/imageDetail.json"];
        // What is there before the first rendering is no rendering's.
        let found = write(&[IMAGE_DEFINITIONS, "C/imageDetail.json"]);
        let all = ["A", "B", "C", "appspec.yaml", IMAGE_DETAIL, IMAGE_DEFINITIONS, "mine.json"];
        assert_eq!(found, [&all[..], &["not a token"]].concat());
        let found = write(&[IMAGE_DEFINITIONS, "C/imageDetail.json"]);
        assert_eq!(found, ["B", "C", IMAGE_DEFINITIONS, "mine.json", "not a token"]);
        let found = write(&[IMAGE_DEFINITIONS, IMAGE_DETAIL]);
        assert_eq!(found, ["B", IMAGE_DETAIL, IMAGE_DEFINITIONS, "mine.json", "not a token"]);
        assert!([b, other].iter().all(|it| folder.path().join(it).exists()));
    }

    #[test]
    fn the_folder_of_a_template_is_not_written_to() {
        let inputs = folder(&[("taskdef.json", "{}")]);
        let other = folder(&[]);
        symlink(inputs.path(), other.path().join("link")).unwrap();
        symlink(inputs.path().join("taskdef.json"), other.path().join("linked.json")).unwrap();
        let taskdef = File::read(&inputs.path().join("taskdef.json")).unwrap();
        let linked = File::read(&other.path().join("linked.json")).unwrap();
        for (input, output, ok) in [
            (&taskdef, inputs.path().to_owned(), false),
            (&taskdef, other.path().join("link"), false),
            (&taskdef, inputs.path().join("."), false),
            (&taskdef, inputs.path().join("out"), true),
            (&taskdef, other.path().to_owned(), true),
            (&linked, inputs.path().to_owned(), false),
            (&linked, other.path().to_owned(), false),
        ] {
            let found = refuse_folder_of_inputs(&output, [Some(input), None]);
            assert_eq!(found.is_ok(), ok, "for `{}`", output.display());
        }
    }

    fn rendered() -> Rendered {
        Rendered { taskdef: "t".into(), appspec: Some("a".into()), image_definitions: "i".into() }
    }

    #[track_caller]
    fn check_files(taskdef: &str, appspec: &str, details: &[&str], want: Expect) {
        let details = details.iter().map(|token| ((*token).to_owned(), "d".to_owned())).collect();
        let (taskdef, appspec) = (File::new(taskdef, ""), File::new(appspec, ""));
        let found = files(Path::new("out"), &taskdef, Some(&appspec), rendered(), details);
        let found = match found {
            Ok(files) => as_lines(&files) + &as_json(&files),
            Err(failure) => format!("{failure}\n"),
        };
        want.assert_eq(&found);
    }

    #[test]
    fn files_have_the_names_of_their_templates() {
        check_files(
            "ecs/task.json",
            "spec.yml",
            &["A"],
            expect![[r#"
                out/task.json
                out/spec.yml
                out/imagedefinitions.json
                out/imageDetail.json
                {"taskdef":"out/task.json","appspec":"out/spec.yml","imagedefinitions":"out/imagedefinitions.json","imageDetails":["out/imageDetail.json"]}
            "#]],
        );
    }

    #[test]
    fn several_images_have_a_folder_each() {
        check_files(
            "taskdef.json",
            "appspec.yaml",
            &["A", "B"],
            expect![[r#"
                out/taskdef.json
                out/appspec.yaml
                out/imagedefinitions.json
                out/A/imageDetail.json
                out/B/imageDetail.json
                {"taskdef":"out/taskdef.json","appspec":"out/appspec.yaml","imagedefinitions":"out/imagedefinitions.json","imageDetails":["out/A/imageDetail.json","out/B/imageDetail.json"]}
            "#]],
        );
    }

    #[test]
    fn two_files_never_have_one_name() {
        check_files(
            "a/x.json",
            "b/x.json",
            &["A"],
            expect![[r#"
                error: two files would be written to `out/x.json`
                hint: give the templates other names
            "#]],
        );
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = folder(&[("old.json", "old")]);
        write_whole(&folder.path().join("old.json"), "new").unwrap();
        write_whole(&folder.path().join("a/b/new.json"), "new").unwrap();
        fs::create_dir(folder.path().join("taken.json")).unwrap();
        for name in ["taken.json", "old.json/new.json"] {
            let failure = write_whole(&folder.path().join(name), "new").unwrap_err();
            assert_eq!(failure.kind, Kind::Input, "for `{name}`");
        }
        let mut found: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, ["a", "old.json", "taken.json"]);
        assert_eq!(fs::read_to_string(folder.path().join("old.json")).unwrap(), "new");
        assert_eq!(fs::read_to_string(folder.path().join("a/b/new.json")).unwrap(), "new");
    }
}
