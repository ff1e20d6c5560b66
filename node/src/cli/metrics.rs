//! The command line of `gridwire metrics`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use grid::Name;

use super::timeout;

/// Shows metrics of the drives, network, CPU and memory of all servers, from any of them.
///
/// Exit codes: 0 if the server responded, even if it reports others as down; 1 failure; 2 invalid
/// arguments.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Base URL of any server.
    #[arg(value_name = "URL")]
    pub(crate) server: Name,

    /// File with the token that reading metrics requires; not needed where they are public.
    #[arg(long, value_name = "FILE", env = "GRIDWIRE_METRICS_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Longest wait for the response: 500ms, 10s, 2m. The server waits up to five seconds for its
    /// peers.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,

    /// Print one line of JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}
