//! Benchmarks of the hot paths, each beside a peer or a limit of the machine in the same run.
//!
//! `cargo build --release --locked && cargo run --release --locked -p rbuild-bench`
//! `cargo run --release --locked -p rbuild-bench curve` compares compressors.
//!
//! `… -p rbuild-bench -- layers` compares building and pushing images with other programs.
//!
//! Machines are noisy: each round measures both sides, one after the other, and what counts is the
//! ratio. The least time of a side is what the work costs; the median is what it costs here today.
//! The peak of memory is that of rbuild's own process (`VmHWM`), without what commands use.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

mod agent;
mod curve;
mod layers;
mod measure;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            report(&format!("the benchmark could not run: {err}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1).peekable();
    if arguments.next_if(|it| it == "layers").is_some() {
        return layers::run(arguments);
    }
    let first = arguments.next();
    // In memory where that is possible: the disk is not what is measured.
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    if first.as_ref().is_some_and(|it| it == "curve") {
        return curve::run(place.path(), arguments.next());
    }
    let program = program(first)?;
    report(&format!("{}: {}", program.display(), place.path().display()));
    for benchmark in [agent::commands, agent::masking, agent::start] {
        for comparison in benchmark(&program, place.path())? {
            report(&comparison.to_string());
        }
    }
    Ok(())
}

/// The program to measure: the argument, or the release build beside this program.
fn program(asked: Option<OsString>) -> io::Result<PathBuf> {
    let program = match asked {
        Some(path) => PathBuf::from(path),
        None => env::current_exe()?.with_file_name("rbuild"),
    };
    fs::canonicalize(&program).map_err(|err| {
        let message = format!("{}: {err} (`cargo build --release` makes it)", program.display());
        io::Error::new(err.kind(), message)
    })
}

/// Writes files of a benchmark into a folder of its own.
fn folder(place: &Path, name: &str, files: &[(&str, &str)]) -> io::Result<PathBuf> {
    let folder = place.join(name);
    fs::create_dir_all(&folder)?;
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    Ok(folder)
}

#[expect(clippy::print_stdout, reason = "this program is there to print")]
fn report(text: &str) {
    println!("{text}");
}
