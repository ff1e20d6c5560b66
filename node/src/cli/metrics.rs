//! The command line of `gridwire metrics`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use grid::Name;

use super::timeout;

/// Shows what each server's drives, network, processors and memory do, as any of them tells.
///
/// Exits with 0 if the server has answered, whichever others it says are down; with 1 if it has not,
/// or would not; with 2 when something given here is wrong.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Base URL of any of the servers.
    #[arg(value_name = "URL")]
    pub(crate) server: Name,

    /// File that holds the token with which metrics may be read; not needed where they are public.
    #[arg(long, value_name = "FILE", env = "GRIDWIRE_METRICS_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Longest wait for the answer: 500ms, 10s, 2m. The server waits five seconds for the others.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,

    /// Print one line of JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}
