//! The command line of `gridwire`.

mod iam;
mod lock;
mod metrics;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use grid::Name;
use grid::limits::MESSAGE_BYTES_MAX;

pub(crate) use self::iam::{
    Attachment, GroupCommand, IamArgs, IamCommand, PolicyCommand, ServiceAccountCommand,
    UserCommand,
};
pub(crate) use self::lock::LocksArgs;
#[cfg(unix)]
pub(crate) use self::lock::{ExecArgs, LockArgs};
pub(crate) use self::metrics::MetricsArgs;

/// Maximum number of concurrent calls of a bench. Each has its own histogram.
const BENCH_CONCURRENCY_MAX: i64 = 4_096;

/// Default number of concurrent calls of a bench.
const BENCH_CALLS: u32 = 64;

/// Default numbers of streams of a bench: one, then enough for messages to share frames.
const BENCH_STREAMS: [u32; 2] = [1, 64];

/// Largest payload of a bench: the largest message without its header, rounded down.
const BENCH_SIZE_MAX: u64 = MESSAGE_BYTES_MAX as u64 - 1_024;

/// Longest bench, in seconds.
const BENCH_SECONDS_MAX: u64 = 86_400;

/// Version, git commit and build profile; the last two come from `build.rs`.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("GRIDWIRE_BUILD_COMMIT"),
    ", ",
    env!("GRIDWIRE_BUILD_PROFILE"),
    ")"
);

/// The reference storage server: serves a cluster, calls it, administers it and measures it.
#[derive(Debug, Parser)]
#[command(name = "gridwire", version = VERSION, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Serve(ServeArgs),
    Call(CallArgs),
    Bench(BenchArgs),
    #[cfg(unix)]
    Lock(LockArgs),
    #[cfg(unix)]
    #[command(name = "__exec", hide = true)]
    LockExec(ExecArgs),
    /// Watches over the command of `gridwire lock`. Not for users.
    #[cfg(unix)]
    #[command(name = "__watch", hide = true)]
    LockWatch,
    Locks(LocksArgs),
    Metrics(MetricsArgs),
    Iam(IamArgs),
}

impl Command {
    /// Default log level, without RUST_LOG.
    pub(crate) const fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            // A tool reports its failure as an error. Warnings would be about connections of other
            // servers of the cluster, which dial the tool because its name is configured there.
            Self::Call(_) | Self::Bench(_) | Self::Locks(_) | Self::Metrics(_) | Self::Iam(_) => {
                "error"
            }
            #[cfg(unix)]
            Self::Lock(_) | Self::LockExec(_) | Self::LockWatch => "error",
            // The demo kills a server on purpose: warnings about it are expected.
            Self::Demo(_) => "error",
        }
    }
}

/// Runs some servers in one process under a mixed load, and kills one of them in the middle.
///
/// Ends with a table of all pairs of servers. Exit codes: 0 if every call and every stream had
/// exactly one outcome, every response was correct, no message of a stream was lost, duplicated or
/// reordered, nothing failed unexpectedly, and all servers were connected at the end; 1 otherwise;
/// 130 when stopped by Ctrl-C, which still prints the table.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Number of servers: 2 to 16.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) nodes: u8,

    /// Duration of the load: 3 to 3600 seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(3..=3_600))]
    pub(crate) seconds: u64,
}

/// Runs one server of a cluster.
///
/// A flag overrides its environment variable (GRIDWIRE_LISTEN, GRIDWIRE_NAME, GRIDWIRE_PEERS,
/// GRIDWIRE_CLIENTS, GRIDWIRE_LOCKERS, GRIDWIRE_LOCK_LEASE, GRIDWIRE_SECRET_FILE,
/// GRIDWIRE_METRICS_TOKEN_FILE, GRIDWIRE_METRICS_PUBLIC, GRIDWIRE_METRICS_INTERVAL,
/// GRIDWIRE_DRIVES, GRIDWIRE_DATA, GRIDWIRE_INITIALISE, GRIDWIRE_ROOT_USER,
/// GRIDWIRE_ROOT_SECRET_FILE, GRIDWIRE_CONFIG), which overrides the configuration file. SIGINT and
/// SIGTERM shut the server down gracefully. It is ready when `GET /health/ready` returns 200.
#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on, such as 0.0.0.0:9000.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// Base URL at which the other servers reach this one, such as http://10.0.0.1:9000.
    #[arg(long, value_name = "URL")]
    pub(crate) name: Option<String>,

    /// Base URLs of all other servers, separated by commas; may list this one too. Empty for a
    /// single server.
    #[arg(long, value_name = "URL,URL")]
    pub(crate) peers: Option<String>,

    /// Names for clients, separated by commas: a tool such as `gridwire call` uses one of them, a
    /// base URL at which this server reaches the tool. Clients are not servers of the cluster.
    #[arg(long, value_name = "URL,URL")]
    pub(crate) clients: Option<String>,

    /// Servers that grant locks, separated by commas; default all. Must be the same on every
    /// server.
    #[arg(long, value_name = "URL,URL")]
    pub(crate) lockers: Option<String>,

    /// Time after which a lock expires if its holder no longer refreshes it, such as 60s, the
    /// default. Must be the same on every server. To shorten it, stop all servers and wait for the
    /// longer lease to pass before starting them with the shorter one.
    #[arg(long, value_name = "DURATION")]
    pub(crate) lock_lease: Option<String>,

    /// File with the secret that all servers share.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<String>,

    /// File with the token that reading /v2/metrics/resource requires. Without it and without
    /// --metrics-public, reading is forbidden.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics_token_file: Option<String>,

    /// Allow reading /v2/metrics/resource without a token.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) metrics_public: Option<String>,

    /// Time between two samples of this machine; default 60s.
    #[arg(long, value_name = "DURATION")]
    pub(crate) metrics_interval: Option<String>,

    /// Drives to sample, as directories on them, separated by commas; default every file system
    /// that is mounted from a block device.
    #[arg(long, value_name = "DIR,DIR")]
    pub(crate) drives: Option<String>,

    /// Directories, used by this server only, for users, policies and the deployment id, separated
    /// by commas. Each is a pool; the first that has an item wins. Without it they are kept in
    /// memory, and are lost when the last server stops.
    #[arg(long, value_name = "DIR,DIR")]
    pub(crate) data: Option<String>,

    /// Create pools in --data directories that are empty or missing. For the first start only:
    /// without this flag the server waits, because an empty directory may be the mount point of a
    /// disk that is not mounted yet.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) initialise: Option<String>,

    /// Name of the root account, which has all permissions; default `root`. Must be the same
    /// on every server.
    #[arg(long, value_name = "NAME")]
    pub(crate) root_user: Option<String>,

    /// File with the root account's secret, which also encrypts the pools; default the secret of
    /// --secret-file. Must be the same on every server.
    #[arg(long, value_name = "FILE")]
    pub(crate) root_secret_file: Option<String>,

    /// TOML file with the keys listen, name, peers, clients, lockers, lock_lease, secret_file,
    /// metrics_token_file, metrics_public, metrics_interval, drives, data, initialise, root_user
    /// and root_secret_file; peers, clients, lockers, drives and data are lists, metrics_public and
    /// initialise are true or false.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<String>,
}

/// A tool's identity in a cluster.
///
/// Servers accept only configured names, and either end may be the dialer. So a tool uses one
/// of the server's client names, and listens there.
#[derive(Debug, Args)]
pub(crate) struct ClientIdentityArgs {
    /// A name from the server's --clients that no other tool uses now. The tool listens there,
    /// because the server may be the dialer.
    #[arg(long, value_name = "URL", env = "GRIDWIRE_NAME")]
    pub(crate) name: Name,

    /// Address to listen on, if not the host and port of --name.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<std::net::SocketAddr>,

    /// File with the secret that all servers share.
    #[arg(long, value_name = "FILE", env = "GRIDWIRE_SECRET_FILE")]
    pub(crate) secret_file: PathBuf,
}

/// A tool's identity in a cluster, and its timeout.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    pub(crate) identity: ClientIdentityArgs,

    /// Longest wait for the connection, then for each response, or for the end of a stream after
    /// its last message: 500ms, 10s, 2m. A server that is the dialer tries at least every five
    /// seconds.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

/// Calls a handler of a running server once and prints the response.
///
/// Exit codes: 0 success, 1 failure, 2 invalid arguments.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Base URL of the server: its own --name.
    #[arg(value_name = "URL")]
    pub(crate) peer: Name,

    /// Handler to call.
    #[arg(value_enum, ignore_case = true)]
    pub(crate) handler: CallHandler,

    /// Text to echo, or milliseconds to sleep.
    pub(crate) text: String,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// The handlers that `gridwire call` supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CallHandler {
    /// Responds with the text.
    Echo,
    /// Responds after that many milliseconds.
    Sleep,
}

/// Measures a running server: echo calls in a closed loop or, with --stream, messages through
/// streams.
///
/// Exit codes: 0 success, 1 if a call or stream failed, 2 invalid arguments.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Base URL of the server: its own --name.
    #[arg(long, value_name = "URL")]
    pub(crate) peer: Name,

    /// Measure messages per second through streams: first into the server, which counts them, then
    /// echoed by it. Each stream sends as fast as its receiver allows.
    #[arg(long)]
    pub(crate) stream: bool,

    /// Concurrent calls, default 64; with --stream, concurrent streams, default 1 and then 64.
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=BENCH_CONCURRENCY_MAX)
    )]
    pub(crate) concurrency: Option<u32>,

    /// Payload bytes of each call, in each direction, or of each message.
    #[arg(
        long, value_name = "BYTES", default_value_t = 512,
        value_parser = clap::value_parser!(u64).range(0..=BENCH_SIZE_MAX)
    )]
    pub(crate) size: u64,

    /// Seconds to measure; with --stream, for each number of streams and each direction.
    #[arg(
        long, default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=BENCH_SECONDS_MAX)
    )]
    pub(crate) seconds: u64,

    /// Seconds of load before each measurement, not counted.
    #[arg(
        long, value_name = "SECONDS", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(0..=BENCH_SECONDS_MAX)
    )]
    pub(crate) warmup: u64,

    /// Threads that make the calls.
    #[arg(
        long, value_name = "N", default_value_t = 2,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub(crate) threads: u16,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

impl BenchArgs {
    /// Number of concurrent calls.
    pub(crate) fn calls(&self) -> u32 {
        self.concurrency.unwrap_or(BENCH_CALLS)
    }

    /// Numbers of concurrent streams, to be measured one after the other.
    pub(crate) fn streams(&self) -> Vec<u32> {
        self.concurrency.map_or_else(|| BENCH_STREAMS.to_vec(), |streams| vec![streams])
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match timeout_or_zero(text)? {
        Duration::ZERO => Err("must be more than zero".to_owned()),
        duration => Ok(duration),
    }
}

fn timeout_or_zero(text: &str) -> Result<Duration, String> {
    let invalid = |error| format!("{error}; use a duration such as 500ms, 10s or 2m");
    humantime::parse_duration(text).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn timeouts_have_units_and_are_not_zero() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(timeout("2m"), Ok(Duration::from_secs(120)));
        for invalid in ["", "5", "0s", "-1s", "fast"] {
            timeout(invalid).expect_err(invalid);
        }
        for zero in ["0", "0s"] {
            assert_eq!(timeout_or_zero(zero), Ok(Duration::ZERO));
        }
    }
}
