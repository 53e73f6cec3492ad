//! `rbuild-bench layers`: images are built and pushed, by rbuild and by others, by turns.
//!
//! `cargo build --release --locked && cargo run --release --locked -p rbuild-bench -- layers`
//!
//! Read in this order: here (what is run when), [`trees`] (what is put into images), [`programs`]
//! (who does it), [`meter`] (what it costs), [`report`] (what that means).
//!
//! What is compared is a build *and* its push to a docker-registry: others compress only when they
//! push. "Cold" means that the programs' own caches and the registry's repository are empty; the
//! files of the context are in the page cache, for all alike. Storages are removed at the very end,
//! since creating files is slow for a minute after many were removed.
//!
//! **Architecture invariant:** everything but sockets is kept below one folder, and removed but for
//! the trees; only processes that were started here are ended.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use rbuild_tests::{Scratch, scratch};

use self::{
    programs::Program,
    report::{Results, Row},
    trees::{Scale, Tree},
};

mod meter;
mod programs;
mod report;
mod trees;

/// Compares building and pushing images with other programs.
#[derive(Debug, Parser)]
#[command(name = "rbuild-bench layers")]
struct Options {
    /// Only this tree; may be repeated
    #[arg(long, value_enum)]
    tree: Vec<trees::Name>,

    /// Only this case; may be repeated
    #[arg(long, value_enum)]
    case: Vec<Case>,

    /// Only this program, and rbuild; may be repeated
    #[arg(long, value_enum)]
    peer: Vec<programs::Name>,

    /// How often each case is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// A tenth of everything, once
    #[arg(long)]
    quick: bool,

    /// Push with `rbuild image build --push`
    #[arg(long)]
    build_push: bool,

    /// Keep trees, and meanwhile all else, below this folder (about 8 GB a round)
    /// [default: rbuild-bench in the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// The program to measure [default: the release build beside this program]
    program: Option<PathBuf>,
}

/// What happened since the last build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    /// There was none
    Cold,
    /// Nothing
    Noop,
    /// The first file in order changed (of a single file: its beginning)
    First,
    /// The last file in order changed (of a single file: its end)
    Last,
    /// A file was added before all others
    Front,
}

/// Runs it all.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let options = Options::parse_from([OsString::from("layers")].into_iter().chain(arguments));
    let rbuild = crate::program(options.program.clone().map(PathBuf::into_os_string))?;
    let dir = options.dir.clone().unwrap_or_else(|| env::temp_dir().join("rbuild-bench"));
    fs::create_dir_all(&dir)?;
    let dir = fs::canonicalize(dir)?;
    scratch::remove_leftovers(&dir);
    let work = Scratch::below(&dir);
    crate::report(&format!("{}: {}", rbuild.display(), work.path().display()));
    let scale = if options.quick { Scale::Quick } else { Scale::Full };
    let chosen = |it: &trees::Name| options.tree.is_empty() || options.tree.contains(it);
    let mut programs = programs::all(&rbuild, work.path(), options.build_push, &options.peer);
    for name in trees::Name::value_variants().iter().filter(|it| chosen(it)) {
        let tree = trees::make(*name, scale, &dir)?;
        crate::report(&tree.to_string());
        let results = measure(&tree, &options, &mut programs, work.path())?;
        crate::report(&results.to_string());
    }
    Ok(())
}

/// Measures all cases of one tree.
fn measure(
    tree: &Tree,
    options: &Options,
    programs: &mut Vec<Box<dyn Program>>,
    work: &Path,
) -> io::Result<Results> {
    let mut results = Results::default();
    let rounds = if options.quick { 1 } else { options.rounds };
    for round in 0..rounds {
        tree.reset()?;
        for limit in programs::limits(tree, &work.join(format!("{}-{round}", tree.name()))) {
            let cost = meter::measure(vec![limit.command], None, None)?;
            results.add(Row::Limit(limit.name), cost);
        }
        for program in programs.iter_mut() {
            program.reset()?;
        }
        for case in Case::value_variants() {
            tree.change(*case)?;
            for program in turns(programs, round) {
                let cost = program.build_and_push(tree, &format!("round-{round}"));
                let is_wanted = options.case.is_empty() || options.case.contains(case);
                match cost {
                    Ok(cost) if is_wanted => results.add(Row::Program(*case, program.name()), cost),
                    Ok(_) => {}
                    Err(err) if program.name() == "rbuild" => return Err(err),
                    Err(err) => {
                        let name = program.name();
                        crate::report(&format!("!!! {name} FAILED ({case:?}): {err}"));
                    }
                }
            }
        }
    }
    Ok(results)
}

/// The programs in another order each round: nobody always comes first.
fn turns(
    programs: &mut [Box<dyn Program>],
    round: usize,
) -> impl Iterator<Item = &mut Box<dyn Program>> {
    let start = round % programs.len().max(1);
    let (before, after) = programs.split_at_mut(start);
    after.iter_mut().chain(before)
}
