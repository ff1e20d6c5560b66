//! Runs clusters on a simulated network from seeds: many runs, or a single one in detail.
//!
//! Exit codes: 0 success, 1 a run failed, 2 an invalid command line or file, 141 the reader of the
//! output closed the pipe.
#![allow(clippy::print_stderr, reason = "a command line program prints its errors")]

mod cli;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let status = match Cli::parse().command {
        Command::Run(arguments) => cli::run::run(&arguments),
        Command::Corpus(arguments) => cli::corpus::run(&arguments),
        Command::Replay(arguments) => cli::replay::run(&arguments),
        Command::Shrink(arguments) => cli::shrink::run(&arguments),
        Command::List => cli::list(),
    };
    match status {
        Ok(cli::ExitStatus::Success) => ExitCode::SUCCESS,
        Ok(cli::ExitStatus::Failure) => ExitCode::from(1),
        // As the shell reports a program ended by SIGPIPE; the output has no reader any more.
        Err(error) if error.is_closed_pipe() => ExitCode::from(141),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
