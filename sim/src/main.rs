//! Runs clusters on a simulated network, from seeds: many of them, or one to be looked at.
//!
//! Exit codes: 0 all is well, 1 a run failed, 2 the command line or a file is wrong.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program prints")]

mod cli;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let verdict = match Cli::parse().command {
        Command::Run(arguments) => cli::run::run(&arguments),
        Command::Corpus(arguments) => cli::corpus::run(&arguments),
        Command::Replay(arguments) => cli::replay::run(&arguments),
        Command::Shrink(arguments) => cli::shrink::run(&arguments),
        Command::List => {
            cli::list();
            Ok(cli::Verdict::Clean)
        }
    };
    match verdict {
        Ok(cli::Verdict::Clean) => ExitCode::SUCCESS,
        Ok(cli::Verdict::Failed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
