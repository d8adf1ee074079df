//! `taskstore`: one member of the store, and a small client for people.

use std::process::ExitCode;

use clap::Parser;
use taskstore::cli::{self, Cli, Command};

/// Gives back what short-lived batches, frozen copies and answers have taken.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Member(args) => cli::member::run(args),
        Command::Dev(args) => cli::dev::run(args),
        Command::Task(args) => cli::member::block_on(cli::task::run(args)),
        Command::Backup(args) => cli::member::block_on(cli::backup::run(args)),
        Command::Drill(args) => cli::member::block_on(cli::drill::run(args)),
        Command::Restore(args) => cli::member::block_on(cli::restore::run(args)),
        Command::Bench(args) => cli::member::block_on(cli::bench::run(args)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("taskstore: {error:#}");
        ExitCode::FAILURE
    })
}
