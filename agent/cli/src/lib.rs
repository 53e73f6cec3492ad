//! The command line: arguments in; words, and an exit status, out.
//!
//! Read in this order: [`main`], [`args`], the module in [`commands`] that has the name of the
//! command, [`console`], [`failure`]. [`host`] is what is known of this machine, [`input`] reads files,
//! [`memory`] sets the allocator up, [`registries`], [`secrets`], [`s3`] and [`aws`] are the adapters of the libraries' ports.
//!
//! **Architecture invariant:** only this crate reads arguments, the environment, and the clock;
//! only this crate prints; only this crate uses all the others.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod aws;
mod build_log;
mod commands;
mod console;
mod failure;
mod host;
mod input;
mod memory;
mod registries;
mod s3;
mod secrets;

/// Does what the arguments of this process say.
pub fn main() -> ExitCode {
    // The supervisor of a build's processes is this program too: before anything else starts.
    if host::is_supervisor() {
        return commands::supervise();
    }
    memory::share_and_give_back();
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(err) => return console::print_usage(&err),
    };
    console::conclude(&commands::dispatch(args))
}
