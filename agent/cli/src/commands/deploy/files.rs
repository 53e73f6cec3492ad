//! The files that `rbuild deploy` reads and writes.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use rbuild_deployer::render::{IMAGE_DEFINITIONS, IMAGE_DETAIL, Rendered};
use serde_json::json;

use crate::failure::{Failure, Kind};

/// A file that was read, with the name by which a person knows it.
pub(super) struct File {
    path: PathBuf,
    pub(super) text: String,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failure =
            |what: &str| Failure::new(Kind::Input, format!("`{}` {what}", path.display()));
        let bytes = fs::read(path).map_err(|err| failure("could not be read").because(err))?;
        let hint = "write it as UTF-8 without a byte order mark, as CodePipeline reads it";
        let text = String::from_utf8(bytes)
            .map_err(|err| failure("is not UTF-8").because(err.utf8_error()).hint(hint))?;
        if text.starts_with('\u{feff}') {
            return Err(failure("begins with a byte order mark").hint(hint));
        }
        Ok(Self { path: path.to_owned(), text })
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// An appspec that nobody named may be missing: a rolling deployment has none.
pub(super) fn read_appspec(named: Option<&Path>) -> Result<Option<File>, Failure> {
    let default = Path::new("appspec.yaml");
    match named {
        Some(path) => File::read(path).map(Some),
        None if fs::exists(default).unwrap_or(true) => File::read(default).map(Some),
        None => Ok(None),
    }
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

/// Writes the files, each of them whole.
pub(super) fn write(files: &[Output]) -> Result<(), Failure> {
    files.iter().try_for_each(|file| write_whole(&file.path, &file.text))
}

/// Writes a file under another name, and then gives it its own: nobody sees half of it.
fn write_whole(path: &Path, text: &str) -> Result<(), Failure> {
    let failure = |err: io::Error| {
        let message = format!("`{}` could not be written", path.display());
        Failure::new(kind_of(&err), message).because(err)
    };
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
        for (name, want) in [
            ("bom.json", "begins with a byte order mark"),
            ("utf16.json", "is not UTF-8"),
            ("missing.json", "could not be read"),
            (".", "could not be read"),
        ] {
            let failure = File::read(&folder.path().join(name)).err().unwrap();
            assert!(failure.to_string().contains(want), "{failure}");
            assert_eq!(failure.kind, Kind::Input);
        }
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
