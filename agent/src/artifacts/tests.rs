//! Tests of collecting and writing, with real files.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Write as _},
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
        let artifacts = LocalArtifacts::new(source, destination, packaging);
        let mut artifacts = artifacts.with_modified(Some(1_705_313_472));
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
            FileSkipped { path: "PLACE/src/dangling", reason: DanglingLink }
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
        let mut artifacts = LocalArtifacts::new(source, destination, packaging);
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
fn what_is_in_the_way_is_told_before_anything_is_replaced() {
    let case = Case::new(&["a", "d/f", "z"]);
    let out = |name: &str| case.destination.join(name);
    let ways: [(&str, &dyn Fn(), &str); 3] = [
        ("d", &|| fs::write(out("d"), "old").unwrap(), "no folder"),
        ("z", &|| fs::create_dir(out("z")).unwrap(), "a folder"),
        ("d/f", &|| fs::create_dir_all(out("d/f")).unwrap(), "a folder"),
    ];
    for (name, make, what) in ways {
        fs::create_dir_all(&case.destination).unwrap();
        fs::write(out("a"), "old").unwrap();
        make();
        let selection = selection(&["**/*"]);
        let err = case.package(&selection, Packaging::Folder, &mut |_| {}).unwrap_err();
        let want =
            format!("`{}` is in the way of the artifacts: it is {what}", out(name).display());
        assert_eq!(err.to_string(), want);
        assert!(!err.is_of_the_machine());
        assert_eq!(fs::read(out("a")).unwrap(), b"old");
        fs::remove_dir_all(&case.destination).unwrap();
    }
    fs::create_dir_all(out("artifacts.zip")).unwrap();
    let err = case.package(&selection(&["a"]), Packaging::Zip, &mut |_| {}).unwrap_err();
    assert!(matches!(err, ArtifactsError::InTheWay { .. }), "{err}");
}

#[test]
fn variables_of_patterns_are_asked_for_once() {
    let artifacts = buildspec::Artifacts {
        files: vec!["$A/${B}".to_owned(), "$B*".to_owned()],
        base_directory: Some("${C}".to_owned()),
        name: Some("n-$A".to_owned()),
        exclude_paths: vec!["$D/*".to_owned()],
        s3_prefix: Some("p/${A}".to_owned()),
        enable_symlinks: true,
        discard_paths: true,
    };
    assert_eq!(Selection::words(&artifacts), ["n-$A", "${A}", "${B}", "${C}", "${D}"]);
    let values = ["n-1", "1", "2", "3", "4"].map(OsString::from);
    let selection = Selection::new(&artifacts, &values);
    assert_eq!(selection.files, ["1/2", "2*"]);
    assert_eq!(selection.base_directory.as_deref(), Some("3"));
    assert_eq!(selection.name.as_deref(), Some("n-1"));
    assert_eq!(selection.exclude_paths, ["4/*"]);
    assert_eq!(selection.s3_prefix.as_deref(), Some("p/1"));
    assert!(selection.enable_symlinks && selection.discard_paths);
}

#[test]
fn what_exclude_paths_mean_is_left_out() {
    let files =
        ["a", ".git/config", ".env", "d/.env", "d/x.tmp", "d/y", "node_modules/m/i.js", "x.tmp"];
    let case = Case::new(&files);
    let outside = case.place.path().join("outside.tmp");
    fs::write(&outside, "").unwrap();
    let absolute = outside.display().to_string();
    for (exclude, want) in [
        (&["**/.*"][..], ".git/config a d/x.tmp d/y node_modules/m/i.js outside x.tmp"),
        // The folder of this test has a dot, too.
        (&["**/.*", "**/.*/**/*"], "a d/x.tmp d/y node_modules/m/i.js x.tmp"),
        (&["**/node_modules/**/*", ".git/**"], ".env a d/.env d/x.tmp d/y outside x.tmp"),
        (&["*.tmp"], ".env .git/config a d/.env d/x.tmp d/y node_modules/m/i.js outside"),
        (&["**/*.tmp"], ".env .git/config a d/.env d/y node_modules/m/i.js"),
        (&["d", "a"], ".env .git/config d/.env d/x.tmp d/y node_modules/m/i.js outside x.tmp"),
        (&["**/*.tmp", "{d,node_modules}/**", ".*", ".git/*"], "a"),
        (&[&absolute, "?*/**"], ".env a x.tmp"),
    ] {
        let exclude_paths = exclude.iter().map(|it| (*it).to_owned()).collect();
        let selection = Selection { exclude_paths, ..selection(&["**/*", &absolute]) };
        let (source, excluded) = (&case.source(), &[case.destination.as_path()]);
        let collection = Collection { source, excluded, packaging: Packaging::Folder };
        let found = collection.find(&selection, &mut |_| {}).unwrap();
        let name = |it: &Artifact| match it.path == outside {
            true => "outside".to_owned(),
            false => it.name.display().to_string(),
        };
        let mut found: Vec<String> = found.iter().map(name).collect();
        found.sort();
        assert_eq!(found.join(" "), want, "without {exclude:?}");
    }
    let nothing = Selection { exclude_paths: vec!["**".into()], ..selection(&["a", "d/*"]) };
    let err = case.package(&nothing, Packaging::Zip, &mut |_| {}).unwrap_err();
    assert!(matches!(err, ArtifactsError::NoFiles));
    let climbing = Selection { exclude_paths: vec!["../x".into()], ..selection(&["a"]) };
    let err = case.package(&climbing, Packaging::Zip, &mut |_| {}).unwrap_err();
    assert!(matches!(err, ArtifactsError::Escapes { .. }));
}

#[test]
fn exclude_paths_and_links_are_relative_to_the_base_directory() {
    let case = Case::new(&["out/a", "out/skip/b", "skip/c"]);
    symlink("../skip/c", case.source().join("out/link")).unwrap();
    let selection = Selection {
        base_directory: Some("out".to_owned()),
        exclude_paths: vec!["skip/*".to_owned()],
        enable_symlinks: true,
        ..selection(&["**/*"])
    };
    check(
        &case,
        &selection,
        Packaging::Zip,
        expect![[r#"
            BaseDirectoryWanted("out")
            BaseDirectoryFound("out")
            PatternMatched { pattern: "**/*", literal: false, files: 3 }
            FilesFound(2)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out/artifacts.zip"), files: 2, bytes: 11 })
            100644 2024-01-15 10:11:12 a: out/a
            100644 2024-01-15 10:11:12 link: skip/c
        "#]],
    );
}

#[test]
fn links_stay_links_in_a_zip_file_if_they_lead_to_where_the_others_are() {
    let case = Case::new(&["d/real", "d/e/x"]);
    fs::write(case.place.path().join("outside"), "outside").unwrap();
    let source = case.source();
    for (target, link) in [
        ("real", "d/beside"),
        ("../d/real", "d/up"),
        ("../real", "d/e/up"),
        ("d/e", "folder"),
        ("beside", "d/twice"),
        ("../src/d/real", "around"),
        ("../outside", "out-of-it"),
        (source.join("d/real").to_str().unwrap(), "absolute"),
        ("nowhere", "dangling"),
        ("itself", "itself"),
        ("../out-of-it", "d/out-in-the-end"),
        ("..", "parent"),
    ] {
        symlink(target, source.join(link)).unwrap();
    }
    let with_links = Selection { enable_symlinks: true, ..selection(&["**/*", "dangling"]) };
    check(
        &case,
        &with_links,
        Packaging::Zip,
        expect![[r#"
            BaseDirectoryWanted(".")
            BaseDirectoryFound(".")
            FileSkipped { path: "PLACE/src/dangling", reason: DanglingLink }
            FileSkipped { path: "PLACE/src/itself", reason: DanglingLink }
            PatternMatched { pattern: "**/*", literal: false, files: 11 }
            FileSkipped { path: "PLACE/src/dangling", reason: DanglingLink }
            PatternMatched { pattern: "dangling", literal: true, files: 0 }
            FilesFound(11)
            ArtifactsWritten(Packed { identifier: None, location: Local("PLACE/out/artifacts.zip"), files: 11, bytes: 66 })
            100644 2024-01-15 10:11:12 absolute: d/real
            100644 2024-01-15 10:11:12 around: d/real
            120777 2024-01-15 10:11:12 d/beside: real
            120777 2024-01-15 10:11:12 d/e/up: ../real
            100644 2024-01-15 10:11:12 d/e/x: d/e/x
            100644 2024-01-15 10:11:12 d/out-in-the-end: outside
            100644 2024-01-15 10:11:12 d/real: d/real
            120777 2024-01-15 10:11:12 d/twice: beside
            120777 2024-01-15 10:11:12 d/up: ../d/real
            120777 2024-01-15 10:11:12 folder: d/e
            100644 2024-01-15 10:11:12 out-of-it: outside
        "#]],
    );
    let case = Case { destination: case.place.path().join("out2"), ..case };
    let flat = Selection { discard_paths: true, ..with_links };
    let zip = case.play(&flat, Packaging::Zip);
    assert!(!zip.contains("\n120"), "links would lead nowhere: {zip}");
    let case = Case { destination: case.place.path().join("out3"), ..case };
    let folder = Selection { discard_paths: false, ..flat };
    case.play(&folder, Packaging::Folder);
    let copy = fs::symlink_metadata(case.destination.join("d/beside")).unwrap();
    assert!(copy.is_file(), "a folder has no links");
    assert!(!case.destination.join("folder").exists());
}

#[test]
fn someone_chooses_which_of_two_files_is_kept() {
    let case = Case::new(&["a/x", "b/x", "c/x"]);
    let with = |collision| Selection { discard_paths: true, collision, ..selection(&["**/*"]) };
    for (collision, want) in [
        (Collision::Last, "c/x"),
        (Collision::First, "a/x"),
        (Collision::Error, "`SRC/a/x` and `SRC/b/x` cannot both be kept: both would be called `x`"),
    ] {
        let mut told = Vec::new();
        let result = case.package(&with(collision), Packaging::Folder, &mut |event| {
            if let Event::NameCollision { kept, dropped, .. } = event {
                told.push((kept.to_owned(), dropped.to_owned()));
            }
        });
        let seen = match result {
            Ok(_) => fs::read_to_string(case.destination.join("x")).unwrap(),
            Err(err) => err.to_string().replace(case.source().to_str().unwrap(), "SRC"),
        };
        assert_eq!(seen, want);
        let path = |name: &str| case.source().join(name);
        let want = match collision {
            Collision::Last => vec![(path("b/x"), path("a/x")), (path("c/x"), path("b/x"))],
            Collision::First => vec![(path("a/x"), path("b/x")), (path("a/x"), path("c/x"))],
            Collision::Error => Vec::new(),
        };
        assert_eq!(told, want);
    }
}

#[test]
fn what_is_no_file_is_told_and_not_read() {
    let case = Case::new(&["a"]);
    let pipe = case.source().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("pipe", case.source().join("to-pipe")).unwrap();
    symlink("/dev/zero", case.source().join("zero")).unwrap();
    for packaging in [Packaging::Folder, Packaging::Zip] {
        for patterns in [&["**/*"][..], &["a", "pipe", "to-pipe", "zero"]] {
            let mut told = Vec::new();
            let packed = case.package(&selection(patterns), packaging, &mut |event| {
                if let Event::FileSkipped { path, reason: Skipped::NotAFile } = event {
                    told.push(path.file_name().unwrap().to_owned());
                }
            });
            told.sort();
            assert_eq!(
                (packed.unwrap().files, told),
                (1, vec!["pipe".into(), "to-pipe".into(), "zero".into()])
            );
        }
    }
}

/// Something that a build does to a file.
type Change<'a> = &'a dyn Fn(&Path);

#[test]
fn a_file_that_goes_or_changes_is_named_and_nothing_is_left() {
    for packaging in [Packaging::Folder, Packaging::Zip] {
        let changes: [(&str, Change<'_>); 3] = [
            ("goes", &|path| fs::remove_file(path).unwrap()),
            ("becomes a pipe", &|path| {
                fs::remove_file(path).unwrap();
                let made = std::process::Command::new("mkfifo").arg(path).status();
                assert!(made.unwrap().success());
            }),
            ("becomes a folder", &|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
        ];
        for (change, make) in changes {
            let case = Case::new(&["a", "b"]);
            let path = case.source().join("b");
            let err = case.package(&selection(&["*"]), packaging, &mut |event| {
                if matches!(event, Event::FilesFound(_)) {
                    make(&path);
                }
            });
            let err = err.unwrap_err();
            assert!(err.to_string().contains(path.to_str().unwrap()), "{change}: {err}");
            assert!(!err.is_of_the_machine(), "{change}: {err}");
            assert_eq!(fs::read_dir(&case.destination).unwrap().count(), 0, "{change}");
        }
        let case = Case::new(&["a", "log"]);
        let log = case.source().join("log");
        let mut stopped = || {
            fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"more").unwrap();
            None
        };
        let mut artifacts = LocalArtifacts::new(case.source(), case.destination.clone(), packaging);
        let err = artifacts.package(&selection(&["log"]), &mut stopped, &mut |_| {}).unwrap_err();
        assert!(matches!(err, ArtifactsError::Changed { .. }), "{err}");
        assert_eq!(fs::read_dir(&case.destination).unwrap().count(), 0);
    }
}

#[test]
fn secondary_artifacts_have_their_identifier_for_a_name() {
    for (identifier, name, packaging, want) in [
        (Some("site"), None, Packaging::Folder, "site"),
        (Some("site"), None, Packaging::Zip, "site.zip"),
        (Some("site"), Some(" "), Packaging::Zip, "site.zip"),
        (Some("site"), Some("web-7"), Packaging::Folder, "web-7"),
        (Some("site"), Some("web-7"), Packaging::Zip, "web-7.zip"),
        (Some("a/../../b"), None, Packaging::Zip, "error"),
    ] {
        let case = Case::new(&["a"]);
        let (identifier, name) = (identifier.map(str::to_owned), name.map(str::to_owned));
        let selection = Selection { identifier: identifier.clone(), name, ..selection(&["a"]) };
        match case.package(&selection, packaging, &mut |_| {}) {
            Ok(packed) => {
                assert_eq!(local(&packed), case.destination.join(want));
                assert_eq!(packed.identifier, identifier);
            }
            Err(err) => assert_eq!(want, "error", "{err}"),
        }
    }
}

#[test]
fn no_two_artifacts_have_the_same_place() {
    let called = |identifier: Option<&str>, name: Option<&str>, files: &[&str]| Selection {
        identifier: identifier.map(str::to_owned),
        name: name.map(str::to_owned),
        ..selection(files)
    };
    for (first, second, packaging, want) in [
        (called(None, None, &["a"]), called(Some("s"), None, &["a"]), Packaging::Folder, None),
        (called(None, None, &["a"]), called(Some("s"), None, &["a"]), Packaging::Zip, None),
        (called(None, Some("s"), &["a"]), called(Some("s"), None, &["b"]), Packaging::Folder, None),
        (
            called(None, Some("s"), &["a"]),
            called(Some("s"), None, &["b"]),
            Packaging::Zip,
            Some("s.zip"),
        ),
        (
            called(None, None, &["s/a"]),
            called(Some("s"), None, &["a"]),
            Packaging::Folder,
            Some("s/a"),
        ),
        (
            called(None, None, &["s/b"]),
            called(Some("s"), None, &["b"]),
            Packaging::Folder,
            Some("s/b"),
        ),
        (called(Some("a"), None, &["b"]), called(None, None, &["a"]), Packaging::Folder, Some("a")),
        (
            called(None, None, &["a"]),
            called(Some("a"), None, &["b"]),
            Packaging::Folder,
            Some("a/b"),
        ),
    ] {
        let case = Case::new(&["a", "b", "s/a", "s/b"]);
        let (source, destination) = (case.source(), case.destination.clone());
        let mut artifacts = LocalArtifacts::new(source, destination, packaging);
        artifacts.package(&first, &mut || None, &mut |_| {}).unwrap();
        let result = artifacts.package(&second, &mut || None, &mut |_| {});
        let taken = match &result {
            Ok(_) => None,
            Err(ArtifactsError::Taken { path }) => path.strip_prefix(&case.destination).ok(),
            Err(err) => panic!("{err}"),
        };
        assert_eq!(taken, want.map(Path::new), "{first:?} {second:?}");
    }
}

#[test]
fn names_that_zip_files_cannot_have_are_told() {
    use std::os::unix::ffi::OsStringExt as _;
    let case = Case::new(&["a"]);
    let name = OsString::from_vec(b"b\xff".to_vec());
    fs::write(case.source().join(&name), "").unwrap();
    let err = case.package(&selection(&["*"]), Packaging::Zip, &mut |_| {}).unwrap_err();
    assert!(matches!(err, ArtifactsError::NotUtf8 { .. }), "{err}");
    assert_eq!(fs::read_dir(&case.destination).unwrap().count(), 0);
    case.package(&selection(&["*"]), Packaging::Folder, &mut |_| {}).unwrap();
    assert!(case.destination.join(name).exists());
}

/// Where artifacts are that are on this machine.
#[track_caller]
fn local(packed: &Packed) -> &Path {
    match &packed.location {
        Location::Local(path) => path,
        Location::Remote(uri) => panic!("{uri} is not on this machine"),
    }
}
