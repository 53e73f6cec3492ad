//! The trees that are put into images: made from a fixed seed, kept between runs, and changed in
//! place.
//!
//! Contents are texts of words and phrases, and things like machine code. gzip makes somewhat more
//! of them than of real ones: a third of the texts, 37 % of the `node_modules`, half of the program.

use std::{
    cell::Cell,
    fmt, fs,
    fs::File,
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use super::Case;

/// Change it when other trees come out.
const VERSION: &str = "1";
/// What changes when a file does.
const MARK: usize = 32;

/// A tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// 20,000 files of 300 MB
    Files,
    /// One file of 200 MB
    Binary,
    /// 1 GB in 60,000 files, as `npm install` leaves it
    Modules,
}

/// How large trees are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    /// A tenth.
    Quick,
}

/// A tree on disk.
#[derive(Debug)]
pub(crate) struct Tree {
    name: &'static str,
    folder: PathBuf,
    files: usize,
    bytes: u64,
    /// The first and the last file in order, and where in them a change is made.
    first: (PathBuf, u64),
    last: (PathBuf, u64),
    changes: Cell<u64>,
}

/// Makes a tree below a folder, if it is not there yet.
pub(crate) fn make(name: Name, scale: Scale, dir: &Path) -> io::Result<Tree> {
    let text = match name {
        Name::Files => "files",
        Name::Binary => "binary",
        Name::Modules => "modules",
    };
    let folder = dir.join(format!("tree-{text}-{scale:?}-{VERSION}").to_lowercase());
    let list = folder.join("list");
    if !list.exists() {
        crate::report(&format!("making {}", folder.display()));
        drop(fs::remove_dir_all(&folder));
        let made = Maker::new(folder.join("context"), scale).make(name)?;
        fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY . /srv\nCMD [\"/srv/app\"]\n")?;
        fs::write(folder.join("part"), made.join("\n"))?;
        fs::rename(folder.join("part"), &list)?;
    }
    let list = fs::read_to_string(list)?;
    Tree::open(text, folder, &list.lines().collect::<Vec<_>>())
}

impl Tree {
    fn open(name: &'static str, folder: PathBuf, paths: &[&str]) -> io::Result<Self> {
        let path = |it: Option<&&str>| {
            let path = it.ok_or_else(|| io::Error::other("an empty tree"))?;
            Ok::<_, io::Error>(folder.join("context").join(path))
        };
        let (first, last) = (path(paths.first())?, path(paths.last())?);
        let mut bytes = 0;
        for file in paths {
            bytes += fs::metadata(folder.join("context").join(file))?.len();
        }
        let end = fs::metadata(&last)?.len().saturating_sub(MARK as u64);
        let (files, changes) = (paths.len(), Cell::new(0));
        Ok(Self { name, files, bytes, first: (first, 0), last: (last, end), folder, changes })
    }

    /// Its name, which is also that of a repository.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What is put into an image.
    pub(crate) fn context(&self) -> PathBuf {
        self.folder.join("context")
    }

    /// How it is put there.
    pub(crate) fn dockerfile(&self) -> PathBuf {
        self.folder.join("Dockerfile")
    }

    /// Takes away what was added.
    pub(crate) fn reset(&self) -> io::Result<()> {
        match fs::remove_file(self.front()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Makes a change that was never made before.
    pub(crate) fn change(&self, case: Case) -> io::Result<()> {
        self.changes.set(self.changes.get() + 1);
        let mark = format!("{:016x}{:016x}", std::process::id(), self.changes.get());
        let overwrite = |(path, at): &(PathBuf, u64)| {
            File::options().write(true).open(path)?.write_all_at(mark.as_bytes(), *at)
        };
        match case {
            Case::Cold | Case::Noop => Ok(()),
            Case::First => overwrite(&self.first),
            Case::Last => overwrite(&self.last),
            Case::Front => fs::write(self.front(), mark.repeat(100)),
        }
    }

    /// A file that sorts before all others.
    fn front(&self) -> PathBuf {
        self.context().join("!front")
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes / 1_000_000;
        write!(f, "\n=== {}: {} files, {megabytes} MB", self.name, self.files)
    }
}

/// Writes files of a tree.
struct Maker {
    context: PathBuf,
    scale: u64,
    random: fastrand::Rng,
    words: Vec<Vec<u8>>,
    phrases: Vec<Vec<u8>>,
    paths: Vec<String>,
}

impl Maker {
    fn new(context: PathBuf, scale: Scale) -> Self {
        let mut random = fastrand::Rng::with_seed(4);
        let word = |random: &mut fastrand::Rng| -> Vec<u8> {
            let ends: [&[u8]; 8] = [b" ", b" ", b" ", b"(", b".", b";\n    ", b", ", b" = "];
            let letters: Vec<u8> =
                (0..random.usize(2..11)).map(|_| random.lowercase() as u8).collect();
            [&letters, ends[random.usize(..ends.len())]].concat()
        };
        let words: Vec<_> = (0..6000).map(|_| word(&mut random)).collect();
        let phrase = |random: &mut fastrand::Rng| {
            let count = random.usize(2..9);
            (0..count)
                .map(|_| words[random.usize(..words.len())].clone())
                .collect::<Vec<_>>()
                .concat()
        };
        let phrases = (0..3000).map(|_| phrase(&mut random)).collect();
        let scale = if scale == Scale::Quick { 10 } else { 1 };
        Self { context, scale, random, words, phrases, paths: Vec::new() }
    }

    /// The paths of all files, sorted.
    fn make(mut self, name: Name) -> io::Result<Vec<String>> {
        match name {
            Name::Files => self.files()?,
            Name::Binary => self.binary("app", 200_000_000 / self.scale, 0o755)?,
            Name::Modules => self.modules()?,
        }
        self.paths.sort();
        Ok(self.paths)
    }

    fn files(&mut self) -> io::Result<()> {
        let count = 20_000 / self.scale;
        for (number, size) in self.sizes(count, 300_000_000 / self.scale, 1.0).iter().enumerate() {
            self.text(&format!("d{:03}/f{:02}.txt", number / 100, number % 100), *size)?;
        }
        Ok(())
    }

    /// Packages of some forty files each: most of them small texts, a few compiled ones, and the
    /// same licence again and again.
    fn modules(&mut self) -> io::Result<()> {
        let count = 60_000 / self.scale;
        let sizes = self.sizes(count, 1_000_000_000 / self.scale, 1.9);
        let licence = self.random.fork();
        let (mut package, mut left) = (String::new(), 0);
        for size in sizes {
            if left == 0 {
                let number = self.paths.len();
                let name = self.words[number % self.words.len()].clone();
                let name: String = String::from_utf8_lossy(&name).chars().take(2).collect();
                let scope = ["", "", "", "@types/", "@scope/"][self.random.usize(..5)];
                package = format!("node_modules/{scope}{name}-{number}").replace([' ', '.'], "-");
                left = self.random.usize(4..78);
                self.text(&format!("{package}/package.json"), size.clamp(400, 3000))?;
                let own = std::mem::replace(&mut self.random, licence.clone());
                self.text(&format!("{package}/LICENSE"), 1_080)?;
                self.random = own;
                continue;
            }
            left -= 1;
            let folder = ["lib", "dist", "dist/esm", "src/internal"][self.random.usize(..4)];
            let kind = ["js", "js", "js", "d.ts", "js.map", "md", "node"][self.random.usize(..7)];
            let path = format!("{package}/{folder}/{left}.{kind}");
            match kind {
                "node" => self.binary(&path, size, 0o755)?,
                _ => self.text(&path, size)?,
            }
        }
        Ok(())
    }

    /// Sizes with this sum, spread as those of real files are: their logarithms are normal.
    fn sizes(&mut self, count: u64, sum: u64, spread: f64) -> Vec<u64> {
        let mut normal = || {
            let (a, b) = (self.random.f64().max(1e-12), self.random.f64());
            (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        };
        let weights: Vec<f64> = (0..count).map(|_| (spread * normal()).exp().min(400.0)).collect();
        let total: f64 = weights.iter().sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "sizes of files are far below 2^52, and none is negative"
        )]
        let size = |weight: &f64| (weight / total * sum as f64) as u64;
        weights.iter().map(|it| size(it).max(2 * MARK as u64)).collect()
    }

    /// Texts: phrases that come again, and words, the first of them more often.
    fn text(&mut self, path: &str, size: u64) -> io::Result<()> {
        self.write(path, size, 0o644, |maker, out| {
            let chance = maker.random.f32();
            let piece = if maker.random.u8(..) < 150 {
                &maker.phrases[skewed(chance, maker.phrases.len())]
            } else {
                &maker.words[skewed(chance, maker.words.len())]
            };
            out.extend_from_slice(piece);
        })
    }

    /// Something like machine code: few kinds of instructions, some with a number in them.
    fn binary(&mut self, path: &str, size: u64, mode: u32) -> io::Result<()> {
        self.write(path, size, mode, |maker, out| {
            let chance = maker.random.f32();
            let piece = &maker.words[skewed(chance, 400)];
            out.extend(piece.iter().take(5).map(|it| it.wrapping_mul(7)));
            match maker.random.u8(..8) {
                0..3 => out.extend((maker.random.u32(..) >> 12).to_le_bytes()),
                3 => out.extend_from_slice(&[0; 6]),
                _ => {}
            }
        })
    }

    fn write(
        &mut self,
        path: &str,
        size: u64,
        mode: u32,
        mut add: impl FnMut(&mut Self, &mut Vec<u8>),
    ) -> io::Result<()> {
        let full = self.context.join(path);
        if let Some(folder) = full.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(full)?;
        let (mut left, mut piece) = (size, Vec::with_capacity(1 << 20));
        while 0 < left {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 20);
            piece.clear();
            while piece.len() < most {
                add(self, &mut piece);
            }
            file.write_all(&piece[..most])?;
            left -= most as u64;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        self.paths.push(path.to_owned());
        Ok(())
    }
}

/// An index below `count`: small ones are likelier. `chance` is from 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts are small"
)]
fn skewed(chance: f32, count: usize) -> usize {
    ((chance * chance * chance * count as f32) as usize).min(count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_made_once_and_changes_where_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let make = || make(Name::Files, Scale::Quick, dir.path()).unwrap();
        let tree = make();
        assert_eq!(tree.files, 2000);
        assert!((29_000_000..31_000_000).contains(&tree.bytes), "{tree}");
        let read = || [&tree.first.0, &tree.last.0].map(|it| fs::read(it).unwrap());
        let before = read();
        for (case, changed) in [(Case::Noop, [false, false]), (Case::Last, [false, true])] {
            tree.change(case).unwrap();
            let after = read();
            assert_eq!([0, 1].map(|it| before[it] != after[it]), changed, "{case:?}");
            assert_eq!(before.each_ref().map(Vec::len), after.each_ref().map(Vec::len));
        }
        let again = make();
        assert_eq!((again.files, again.bytes), (tree.files, tree.bytes));
        tree.change(Case::Front).unwrap();
        assert!(tree.front() < tree.first.0 && tree.front().exists());
        tree.reset().unwrap();
        assert!(!tree.front().exists());
    }
}
