//! Tests of collecting and writing, with real files.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{PermissionsExt, symlink},
};

use expect_test::{Expect, expect};

use super::*;

/// A source folder with files, and a destination.
struct Case {
    place: tempfile::TempDir,
    destination: PathBuf,
}

impl Case {
    fn new(files: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let destination = place.path().join("out");
        let case = Self { place, destination };
        fs::create_dir(case.source()).unwrap();
        for name in files {
            case.add(name, name);
        }
        case
    }

    fn source(&self) -> PathBuf {
        self.place.path().join("src")
    }

    fn add(&self, name: &str, content: &str) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn package(
        &self,
        selection: &Selection,
        packaging: Packaging,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Packed, ArtifactsError> {
        let (source, destination) = (self.source(), self.destination.clone());
        let modified = Some(1_705_313_472);
        let mut artifacts = LocalArtifacts { source, destination, packaging, modified };
        artifacts.package(selection, &mut || None, emit)
    }

    /// The events and the files of one run; paths are relative to the place of the case.
    fn play(&self, selection: &Selection, packaging: Packaging) -> String {
        let mut seen = String::new();
        let result = self.package(selection, packaging, &mut |event| {
            writeln!(seen, "{event:?}").unwrap();
        });
        match result {
            Ok(packed) if packaging == Packaging::Zip => draw_zip(local(&packed), &mut seen),
            Ok(_) => draw_folder(&self.destination, &self.destination, &mut seen),
            Err(err) => writeln!(seen, "error: {err}").unwrap(),
        }
        seen.replace(self.place.path().to_str().unwrap(), "PLACE")
    }
}

fn draw_folder(root: &Path, folder: &Path, seen: &mut String) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            draw_folder(root, &path, seen);
        } else {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let content = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display();
            writeln!(seen, "{mode:o} {name}: {content}").unwrap();
        }
    }
}

fn draw_zip(path: &Path, seen: &mut String) {
    let mut zip = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).unwrap();
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        let mode = file.unix_mode().unwrap();
        let time = file.last_modified().unwrap();
        let name = file.name().unwrap().into_owned();
        writeln!(seen, "{mode:o} {time} {name}: {content}").unwrap();
    }
}

fn selection(files: &[&str]) -> Selection {
    let files = files.iter().map(|it| (*it).to_owned()).collect();
    Selection { files, ..Selection::default() }
}

#[track_caller]
fn check(case: &Case, selection: &Selection, packaging: Packaging, want: Expect) {
    want.assert_eq(&case.play(selection, packaging));
}

#[test]
fn files_are_found_and_copied() {
    let case = Case::new(&["a", ".hidden", "d/b", "d/e/c"]);
    fs::set_permissions(case.source().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    check(
        &case,
        &selection(&["**/*"]),
        Packaging::Folder,
        expect![[r#"
            BaseDirectoryWanted(".")
            BaseDirectoryFound(".")
            PatternMatched { pattern: "**/*", literal: false, files: 4 }
            FilesFound(4)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out"), files: 4, bytes: 16 })
            644 .hidden: .hidden
            755 a: a
            644 d/b: d/b
            644 d/e/c: d/e/c
        "#]],
    );
    let later = case.play(&selection(&["a"]), Packaging::Folder);
    assert!(later.contains("d/e/c"), "files that are there stay: {later}");
}

#[test]
fn a_pattern_without_files_is_told_and_none_at_all_is_an_error() {
    let case = Case::new(&["d/b"]);
    let patterns = ["missing", "d/*", "no/*", "d", "d/"];
    check(
        &case,
        &selection(&patterns),
        Packaging::Folder,
        expect![[r#"
            BaseDirectoryWanted(".")
            BaseDirectoryFound(".")
            PatternMatched { pattern: "missing", literal: true, files: 0 }
            PatternMatched { pattern: "d/*", literal: false, files: 1 }
            PatternMatched { pattern: "no/*", literal: false, files: 0 }
            PatternMatched { pattern: "d", literal: true, files: 0 }
            PatternMatched { pattern: "d/", literal: true, files: 0 }
            FilesFound(1)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out"), files: 1, bytes: 3 })
            644 d/b: d/b
        "#]],
    );
    check(
        &case,
        &selection(&["missing"]),
        Packaging::Folder,
        expect![[r#"
        BaseDirectoryWanted(".")
        BaseDirectoryFound(".")
        PatternMatched { pattern: "missing", literal: true, files: 0 }
        error: no file matches the patterns of the artifacts
    "#]],
    );
}

#[test]
fn base_directories_are_stripped() {
    let case = Case::new(&["out-1/a", "out-2/b", "out-2/d/c", "other/x", "out-file"]);
    let with_base =
        |text: &str| Selection { base_directory: Some(text.to_owned()), ..selection(&["**/*"]) };
    check(
        &case,
        &with_base("out-*"),
        Packaging::Folder,
        expect![[r#"
            BaseDirectoryWanted("out-*")
            BaseDirectoryFound("out-1")
            PatternMatched { pattern: "**/*", literal: false, files: 1 }
            BaseDirectoryFound("out-2")
            PatternMatched { pattern: "**/*", literal: false, files: 2 }
            FilesFound(3)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out"), files: 3, bytes: 23 })
            644 a: out-1/a
            644 b: out-2/b
            644 d/c: out-2/d/c
        "#]],
    );
    let case = Case { destination: case.place.path().join("out2"), ..case };
    check(
        &case,
        &with_base("./out-2/d"),
        Packaging::Folder,
        expect![[r#"
            BaseDirectoryWanted("./out-2/d")
            BaseDirectoryFound("./out-2/d")
            PatternMatched { pattern: "**/*", literal: false, files: 1 }
            FilesFound(1)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out2"), files: 1, bytes: 9 })
            644 c: out-2/d/c
        "#]],
    );
    let absolute = case.source().join("other").display().to_string();
    let case = Case { destination: case.place.path().join("out3"), ..case };
    check(
        &case,
        &with_base(&absolute),
        Packaging::Folder,
        expect![[r#"
            BaseDirectoryWanted("PLACE/src/other")
            BaseDirectoryFound("PLACE/src/other")
            PatternMatched { pattern: "**/*", literal: false, files: 1 }
            FilesFound(1)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out3"), files: 1, bytes: 7 })
            644 x: other/x
        "#]],
    );
    check(
        &case,
        &with_base("cdk.out"),
        Packaging::Folder,
        expect![[r#"
        BaseDirectoryWanted("cdk.out")
        error: no directory matches the base directory `cdk.out`
    "#]],
    );
    check(
        &case,
        &with_base("cdk.*"),
        Packaging::Folder,
        expect![[r#"
        BaseDirectoryWanted("cdk.*")
        error: no directory matches the base directory `cdk.*`
    "#]],
    );
    check(
        &case,
        &with_base("out-file"),
        Packaging::Folder,
        expect![[r#"
        BaseDirectoryWanted("out-file")
        error: no directory matches the base directory `out-file`
    "#]],
    );
    check(
        &case,
        &with_base("../x"),
        Packaging::Folder,
        expect![[r#"
        BaseDirectoryWanted("../x")
        error: `../x` leads out of the base directory
    "#]],
    );
}

#[test]
fn absolute_patterns_are_stored_relative() {
    let case = Case::new(&["in/a"]);
    fs::write(case.place.path().join("outside"), "outside").unwrap();
    let outside = case.place.path().join("outside").display().to_string();
    let inside = case.source().join("in/*").display().to_string();
    let packed = case.package(&selection(&[&outside, &inside]), Packaging::Folder, &mut |_| {});
    assert_eq!(packed.unwrap().files, 2);
    assert_eq!(fs::read_to_string(case.destination.join("in/a")).unwrap(), "in/a");
    let stored = case.destination.join(outside.trim_start_matches('/'));
    assert_eq!(fs::read_to_string(stored).unwrap(), "outside");
}

#[test]
fn of_files_with_the_same_name_the_last_is_taken() {
    let case = Case::new(&["a/x", "b/x", "c/y"]);
    let selection = Selection { discard_paths: true, ..selection(&["**/*", "a/x"]) };
    check(
        &case,
        &selection,
        Packaging::Folder,
        expect![[r#"
            BaseDirectoryWanted(".")
            BaseDirectoryFound(".")
            PatternMatched { pattern: "**/*", literal: false, files: 3 }
            PatternMatched { pattern: "a/x", literal: true, files: 1 }
            NameCollision { name: "x", kept: "PLACE/src/b/x", dropped: "PLACE/src/a/x" }
            FilesFound(2)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out"), files: 2, bytes: 6 })
            644 x: b/x
            644 y: c/y
        "#]],
    );
}

#[test]
fn links_are_followed_to_files_and_not_to_folders() {
    let case = Case::new(&["real/a"]);
    let source = case.source();
    fs::create_dir(case.place.path().join("outside")).unwrap();
    fs::write(case.place.path().join("outside/secret"), "secret").unwrap();
    symlink("real/a", source.join("link")).unwrap();
    symlink("../outside", source.join("folder")).unwrap();
    symlink(".", source.join("loop")).unwrap();
    symlink("nowhere", source.join("dangling")).unwrap();
    check(
        &case,
        &selection(&["**/*", "*/*"]),
        Packaging::Folder,
        expect![[r#"
            BaseDirectoryWanted(".")
            BaseDirectoryFound(".")
            PatternMatched { pattern: "**/*", literal: false, files: 2 }
            PatternMatched { pattern: "*/*", literal: false, files: 1 }
            FilesFound(2)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out"), files: 2, bytes: 12 })
            644 link: real/a
            644 real/a: real/a
        "#]],
    );
    let case = Case { destination: case.place.path().join("out2"), ..case };
    check(
        &case,
        &selection(&["folder/*"]),
        Packaging::Zip,
        expect![[r#"
            BaseDirectoryWanted(".")
            BaseDirectoryFound(".")
            PatternMatched { pattern: "folder/*", literal: false, files: 1 }
            FilesFound(1)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out2/artifacts.zip"), files: 1, bytes: 6 })
            100644 2024-01-15 10:11:12 folder/secret: secret
        "#]],
    );
}

#[test]
fn the_destination_is_not_collected() {
    let case = Case::new(&["a", "dist/old", "dist/deep/old", "distant/b"]);
    let case = Case { destination: case.source().join("dist"), ..case };
    for _ in 0..2 {
        let patterns = ["**/*", "dist/old", "dist/deep/*"];
        let packed = case.package(&selection(&patterns), Packaging::Folder, &mut |_| {}).unwrap();
        assert_eq!(packed.files, 2);
    }
    let case = Case::new(&["a", "d/b"]);
    let case = Case { destination: case.source(), ..case };
    let packed = case.package(&selection(&["**/*"]), Packaging::Zip, &mut |_| {}).unwrap();
    assert_eq!(packed.files, 2, "what holds the source is not left out");
}

#[test]
fn a_destination_that_is_the_source_keeps_its_files() {
    let case = Case::new(&["a", "d/b"]);
    symlink("a", case.source().join("link")).unwrap();
    fs::set_permissions(case.source().join("a"), fs::Permissions::from_mode(0o640)).unwrap();
    let case = Case { destination: case.source(), ..case };
    let modified = |name| fs::metadata(case.source().join(name)).unwrap().modified().unwrap();
    let before = modified("a");
    for _ in 0..2 {
        check(
            &case,
            &selection(&["**/*"]),
            Packaging::Folder,
            expect![[r#"
                BaseDirectoryWanted(".")
                BaseDirectoryFound(".")
                PatternMatched { pattern: "**/*", literal: false, files: 3 }
                FilesFound(3)
                ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/src"), files: 3, bytes: 5 })
                640 a: a
                644 d/b: d/b
                640 link: a
            "#]],
        );
    }
    assert_eq!(modified("a"), before);
    assert!(case.source().join("link").is_symlink());
    for packaging in [Packaging::Folder, Packaging::Zip] {
        let named = Selection { name: Some("shop".to_owned()), ..selection(&["**/*", "shop.zip"]) };
        let count = || case.package(&named, packaging, &mut |_| {}).unwrap().files;
        assert_eq!(count(), count(), "artifacts are not collected again: {packaging:?}");
    }
}

#[test]
fn what_a_killed_rbuild_left_behind_is_not_collected_and_goes() {
    let gone = std::process::Command::new("true").spawn().unwrap();
    let gone_id = gone.id();
    gone.wait_with_output().unwrap();
    let name = |id: u32| format!(".rbuild-{id}-0123456789abcdef");
    let (gone, here, other) = (name(gone_id), name(std::process::id()), ".rbuild-cache");
    let inside = |folder: &str| format!("{folder}/x");
    let files = ["a".to_owned(), inside(&gone), here.clone(), inside(other)];
    let case = Case::new(&files.each_ref().map(String::as_str));
    let case = Case { destination: case.source(), ..case };
    let patterns = ["**/*", &inside(&gone), &here, ".rbuild-*/*"];
    let packed = case.package(&selection(&patterns), Packaging::Folder, &mut |_| {}).unwrap();
    assert_eq!(packed.files, 2, "`a`, and what has only a similar name");
    assert!(!case.source().join(gone).exists());
    assert!(case.source().join(here).exists(), "its process may go on");
    assert!(case.source().join(inside(other)).exists());
}

#[test]
fn a_file_where_another_needs_a_folder_is_an_error() {
    let case = Case::new(&["x1/a", "x1/a!", "x2/a/b"]);
    let selection = Selection { base_directory: Some("x*".to_owned()), ..selection(&["**/*"]) };
    for packaging in [Packaging::Folder, Packaging::Zip] {
        let err = case.package(&selection, packaging, &mut |_| {}).unwrap_err();
        assert!(!err.is_of_the_machine());
        let seen = err.to_string().replace(case.source().to_str().unwrap(), "SRC");
        let want = "`SRC/x1/a` and `SRC/x2/a/b` cannot both be kept: \
                    `a` would be both file and folder";
        assert_eq!(seen, want);
    }
}

#[test]
fn names_make_folders_and_zip_files() {
    let case = Case::new(&["a"]);
    for (name, packaging, want) in [
        (None, Packaging::Folder, "PLACE/out"),
        (None, Packaging::Zip, "PLACE/out/artifacts.zip"),
        (Some("shop"), Packaging::Folder, "PLACE/out/shop"),
        (Some("shop"), Packaging::Zip, "PLACE/out/shop.zip"),
        (Some("shop.zip"), Packaging::Zip, "PLACE/out/shop.zip"),
        (Some("v1.2"), Packaging::Zip, "PLACE/out/v1.2.zip"),
        (Some("builds/7/./x"), Packaging::Zip, "PLACE/out/builds/7/x.zip"),
        (Some("  "), Packaging::Zip, "PLACE/out/artifacts.zip"),
        (Some("../x"), Packaging::Folder, "error"),
        (Some("a/../../x"), Packaging::Zip, "error"),
        (Some("/tmp/x"), Packaging::Folder, "error"),
        (Some("."), Packaging::Zip, "error"),
    ] {
        let name = name.map(str::to_owned);
        let selection = Selection { name: name.clone(), ..selection(&["a"]) };
        let path = match case.package(&selection, packaging, &mut |_| {}) {
            Ok(packed) => local(&packed).display().to_string(),
            Err(ArtifactsError::Name { .. }) => "error".to_owned(),
            Err(err) => panic!("{err}"),
        };
        let path = path.replace(case.place.path().to_str().unwrap(), "PLACE");
        assert_eq!(path, want, "for {name:?}");
    }
    let names: Vec<_> = fs::read_dir(&case.destination).unwrap().flatten().collect();
    let is_hidden = |it: &fs::DirEntry| it.file_name().to_string_lossy().starts_with('.');
    assert!(!names.iter().any(is_hidden), "nothing is left over: {names:?}");
}

#[test]
fn zips_keep_modes_and_are_the_same_each_time() {
    let case = Case::new(&["d/b", "a"]);
    case.add("run", "#!/bin/sh\n");
    fs::set_permissions(case.source().join("run"), fs::Permissions::from_mode(0o750)).unwrap();
    check(
        &case,
        &selection(&["**/*"]),
        Packaging::Zip,
        expect![[r#"
            BaseDirectoryWanted(".")
            BaseDirectoryFound(".")
            PatternMatched { pattern: "**/*", literal: false, files: 3 }
            FilesFound(3)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out/artifacts.zip"), files: 3, bytes: 14 })
            100644 2024-01-15 10:11:12 a: a
            100644 2024-01-15 10:11:12 d/b: d/b
            100750 2024-01-15 10:11:12 run: #!/bin/sh

        "#]],
    );
    let zip = case.destination.join("artifacts.zip");
    let first = fs::read(&zip).unwrap();
    File::open(case.source().join("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    case.play(&selection(&["a", "d/**", "run"]), Packaging::Zip);
    assert_eq!(fs::read(&zip).unwrap(), first);
}

#[test]
fn nothing_is_visible_before_it_is_whole() {
    let case = Case::new(&["a", "b"]);
    fs::create_dir(&case.destination).unwrap();
    for packaging in [Packaging::Folder, Packaging::Zip] {
        let mut left = 1;
        let mut stopped = || {
            left -= 1;
            (left < 0).then_some(2)
        };
        let (source, destination) = (case.source(), case.destination.clone());
        let mut artifacts = LocalArtifacts { source, destination, packaging, modified: None };
        let err = artifacts.package(&selection(&["*"]), &mut stopped, &mut |_| {}).unwrap_err();
        assert!(matches!(err, ArtifactsError::Stopped { signal: 2 }), "{err}");
        assert_eq!(fs::read_dir(&case.destination).unwrap().count(), 0);
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let case = Case::new(&["a"]);
    fs::write(&case.destination, "a file is in the way").unwrap();
    let err = case.package(&selection(&["a"]), Packaging::Zip, &mut |_| {}).unwrap_err();
    let path = case.destination.display();
    assert_eq!(err.to_string(), format!("`{path}` could not be written"));
    assert!(err.is_of_the_machine());
}

#[test]
fn variables_of_patterns_are_asked_for_once() {
    let artifacts = buildspec::Artifacts {
        files: vec!["$A/${B}".to_owned(), "$B*".to_owned()],
        base_directory: Some("${C}".to_owned()),
        name: Some("n-$A".to_owned()),
        ..buildspec::Artifacts::default()
    };
    assert_eq!(Selection::words(&artifacts), ["n-$A", "${A}", "${B}", "${C}"]);
    let values = ["n-1", "1", "2", "3"].map(OsString::from);
    let selection = Selection::new(&artifacts, &values);
    assert_eq!(selection.files, ["1/2", "2*"]);
    assert_eq!(selection.base_directory.as_deref(), Some("3"));
    assert_eq!(selection.name.as_deref(), Some("n-1"));
}

/// Where artifacts are that are on this machine.
#[track_caller]
fn local(packed: &Packed) -> &Path {
    match &packed.location {
        Location::Local(path) => path,
        Location::Remote(uri) => panic!("{uri} is not on this machine"),
    }
}
