//! `gridwire`, the reference storage server: serves a cluster, and calls, administers and measures
//! one.
//!
//! Exit codes: 0 success, 1 failure, 2 invalid command line or configuration, 69 server unreachable
//! (`gridwire iam`), 130 stopped by Ctrl-C. `gridwire lock` has more, and passes on its command's
//! code.

mod bench;
mod call;
mod cli;
mod client;
mod config;
mod demo;
mod grids;
mod handlers;
mod http;
mod iam;
mod latency;
mod listen;
#[cfg(unix)]
mod lock;
mod lock_service;
mod locks;
mod metrics;
mod metrics_access;
mod outcome;
mod output;
mod secret;
mod serve;
mod signals;
mod startup;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.command.log_level());
    match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            output::print_error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments)?,
        Command::Serve(flags) => serve::run(&config::ServeConfig::from_process(flags)?)?,
        Command::Call(arguments) => call::run(&arguments)?,
        Command::Bench(arguments) => bench::run(&arguments)?,
        Command::Locks(arguments) => locks::run(&arguments)?,
        Command::Metrics(arguments) => metrics::run(&arguments)?,
        Command::Iam(arguments) => iam::run(&arguments)?,
        #[cfg(unix)]
        Command::Lock(arguments) => return Ok(lock::run(&arguments)?.into()),
        #[cfg(unix)]
        Command::LockExec(arguments) => return Err(lock::exec(&arguments).into()),
        #[cfg(unix)]
        Command::LockWatch => return Ok(lock::watch()?.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reason for an exit code other than 0.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
    #[error(transparent)]
    Call(#[from] call::CallFailure),
    #[error(transparent)]
    Bench(#[from] bench::BenchError),
    #[error(transparent)]
    Locks(#[from] locks::LocksError),
    #[error(transparent)]
    Metrics(#[from] metrics::MetricsError),
    #[error(transparent)]
    Iam(#[from] iam::IamError),
    #[cfg(unix)]
    #[error(transparent)]
    Lock(#[from] lock::LockFailure),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Demo(failure) => failure.exit_code(),
            Self::Serve(_) => 1,
            Self::Call(failure) => failure.exit_code(),
            Self::Bench(failure) => failure.exit_code(),
            Self::Locks(failure) => failure.exit_code(),
            Self::Metrics(failure) => failure.exit_code(),
            Self::Iam(failure) => failure.exit_code(),
            #[cfg(unix)]
            Self::Lock(failure) => failure.exit_code(),
        }
    }
}

/// Logs to stderr. `RUST_LOG` selects what is logged; without it, the command's own level does.
fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
