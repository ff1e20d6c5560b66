//! Runs clusters on a simulated network, from seeds: many of them, or one to be looked at.
//!
//! Exit codes: 0 all is well, 1 a run failed, 2 the command line or a file is wrong, 141
//! whoever read the output is gone.
#![allow(clippy::print_stderr, reason = "a command line program says what is wrong")]

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
        // As the shell tells of programs that a closed pipe ends; there is nobody to be told more.
        Err(error) if error.is_closed_pipe() => ExitCode::from(141),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
