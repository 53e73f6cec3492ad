//! One module for each command.

use std::{fs, process::ExitCode};

use clap::CommandFactory as _;

use crate::{
    args::{Args, Command},
    console,
    failure::{Failure, Kind},
};

mod cache;
mod check;
mod deploy;
mod image;
mod login;
mod logout;
mod run;
mod schema;

pub(crate) fn dispatch(args: Args) -> Result<(), Failure> {
    let Args { global, command } = args;
    let global = global.or_environment()?;
    match command {
        Command::Run(args) => run::run(&args, &global),
        Command::Check(args) => check::check(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Image(args) => image::image(&args, &global),
        Command::Login(args) => login::login(&args, &global),
        Command::Logout(args) => logout::logout(&args),
        Command::Cache(args) => cache::cache(&args, &global),
        Command::Deploy(args) => deploy::deploy(&args),
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => man(&folder),
        Command::Version => {
            console::print_data(concat!("rbuild ", env!("CARGO_PKG_VERSION"), "\n"))
        }
    }
}

/// Ends what the commands of a build started, whatever happens to the build.
pub(crate) fn supervise() -> ExitCode {
    rbuild_agent::shell::supervise()
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "rbuild", &mut text);
    console::print_data(text)
}

fn man(folder: &std::path::Path) -> Result<(), Failure> {
    let unwritten = |err| {
        Failure::new(Kind::Input, format!("`{}` could not be written", folder.display()))
            .because(err)
    };
    fs::create_dir_all(folder).map_err(unwritten)?;
    clap_mangen::generate_to(Args::command(), folder).map_err(unwritten)
}
