//! The command line.

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
#[cfg(unix)]
pub(crate) use self::lock::LockArgs;
pub(crate) use self::lock::LocksArgs;
pub(crate) use self::metrics::MetricsArgs;

/// Calls that a bench may keep under way. Each has its own histogram, some 90 KB.
const BENCH_CONCURRENCY_MAX: i64 = 4_096;

/// Calls that a bench keeps under way unless told.
const BENCH_CALLS: u32 = 64;

/// Streams that a bench opens unless told: first alone, then enough to share frames.
const BENCH_STREAMS: [u32; 2] = [1, 64];

/// Largest payload of a bench: the largest message less its header, roundly.
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
    Locks(LocksArgs),
    Metrics(MetricsArgs),
    Iam(IamArgs),
}

impl Command {
    /// What is logged where RUST_LOG does not say otherwise.
    pub(crate) const fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            // What a probe has to say is in its last error. The warnings are about servers that it
            // was not asked about, but that dial it because they know its name.
            Self::Call(_) | Self::Bench(_) | Self::Locks(_) | Self::Metrics(_) | Self::Iam(_) => {
                "error"
            }
            #[cfg(unix)]
            Self::Lock(_) => "error",
            // A server is killed on purpose: the warnings about it are no news.
            Self::Demo(_) => "error",
        }
    }
}

/// Some servers in one process, under a mixed load, one of them killed in the middle.
///
/// Ends with a table of all pairs of servers. Exits with 0 if every call and every stream had
/// exactly one outcome, no answer was wrong, no message of a stream was lost, doubled or out of
/// order, nothing failed that should not, and all servers were connected at the end; with 1
/// otherwise; with 130 when stopped by Ctrl-C, which still prints the table.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many servers: 2 to 16.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) nodes: u8,

    /// How long the load lasts: 3 to 3600 seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(3..=3_600))]
    pub(crate) seconds: u64,
}

/// One server of a cluster, as a process of its own.
///
/// What is given here wins over the environment (GRIDWIRE_LISTEN, GRIDWIRE_NAME, GRIDWIRE_PEERS, GRIDWIRE_CLIENTS,
/// GRIDWIRE_LOCKERS, GRIDWIRE_LOCK_LEASE, GRIDWIRE_SECRET_FILE, GRIDWIRE_METRICS_TOKEN_FILE, GRIDWIRE_METRICS_PUBLIC,
/// GRIDWIRE_METRICS_INTERVAL, GRIDWIRE_DRIVES, GRIDWIRE_DATA, GRIDWIRE_INITIALISE, GRIDWIRE_ROOT_USER,
/// GRIDWIRE_ROOT_SECRET_FILE, GRIDWIRE_CONFIG), which wins over the configuration file. SIGINT and SIGTERM end
/// the server in good order.
#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on, such as 0.0.0.0:9000.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// Base URL at which the other servers know this one, such as http://10.0.0.1:9000.
    #[arg(long, value_name = "URL")]
    pub(crate) name: Option<String>,

    /// Base URLs of all other servers, separated by commas; may list this one too. Empty for a
    /// server on its own.
    #[arg(long, value_name = "URL,URL")]
    pub(crate) peers: Option<String>,

    /// Names that tools such as `gridwire call` may take, separated by commas: base URLs at which this
    /// server reaches the tool. They are no servers, and count as none.
    #[arg(long, value_name = "URL,URL")]
    pub(crate) clients: Option<String>,

    /// Which servers grant locks, separated by commas; all unless given. The same on every server.
    #[arg(long, value_name = "URL,URL")]
    pub(crate) lockers: Option<String>,

    /// How long a lock outlives a holder that nobody hears of any more, such as 60s, which it is
    /// unless given. The same on every server; before servers are started with a shorter one, let the
    /// longer one pass.
    #[arg(long, value_name = "DURATION")]
    pub(crate) lock_lease: Option<String>,

    /// File that holds the secret which all servers know.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<String>,

    /// File that holds the token with which /v2/metrics/resource may be read. Without it, and without
    /// --metrics-public, nobody may.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics_token_file: Option<String>,

    /// Let everybody read /v2/metrics/resource.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) metrics_public: Option<String>,

    /// Time between two samples of this machine, 60s unless given.
    #[arg(long, value_name = "DURATION")]
    pub(crate) metrics_interval: Option<String>,

    /// The drives that are sampled, by directories on them, separated by commas; every file system
    /// that is mounted from a block device unless given.
    #[arg(long, value_name = "DIR,DIR")]
    pub(crate) drives: Option<String>,

    /// Directories of this server alone in which users, policies and the deployment's id are kept,
    /// separated by commas: each is a pool, and the first that has an item counts. Unless given, they
    /// are kept in memory, and end with the last server.
    #[arg(long, value_name = "DIR,DIR")]
    pub(crate) data: Option<String>,

    /// Makes pools of directories in --data that are empty or not there. For the first start: where a
    /// disk is to be mounted, an empty directory is not the disk, and without this it is waited for.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) initialise: Option<String>,

    /// The account that may do everything, `root` unless given. The same on every server.
    #[arg(long, value_name = "NAME")]
    pub(crate) root_user: Option<String>,

    /// File with that account's secret, which also seals what is kept; that of --secret-file unless
    /// given. The same on every server.
    #[arg(long, value_name = "FILE")]
    pub(crate) root_secret_file: Option<String>,

    /// TOML file with the keys listen, name, peers, clients, lockers, lock_lease, secret_file,
    /// metrics_token_file, metrics_public, metrics_interval, drives, data, initialise, root_user and
    /// root_secret_file; peers, clients, lockers, drives and data are lists, metrics_public and
    /// initialise are true or false.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<String>,
}

/// How tools get into a cluster.
///
/// Servers talk to those only whom their configuration lists, and either side may be the one that
/// dials. So a tool takes the name of a client, and listens there.
#[derive(Debug, Args)]
pub(crate) struct EntryArgs {
    /// A name that the server has among its clients, and that no other tool has taken now. The tool
    /// listens there, because the server may be the one that dials.
    #[arg(long, value_name = "URL", env = "GRIDWIRE_NAME")]
    pub(crate) name: Name,

    /// Where to listen, if not at the host and port of --name.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<std::net::SocketAddr>,

    /// File that holds the secret which all servers know.
    #[arg(long, value_name = "FILE", env = "GRIDWIRE_SECRET_FILE")]
    pub(crate) secret_file: PathBuf,
}

/// How tools get into a cluster, and how long they wait for what they want there.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    #[command(flatten)]
    pub(crate) entry: EntryArgs,

    /// Longest wait for the connection, and then for each answer, or for the end of a stream on
    /// which all was sent: 500ms, 10s, 2m. A server that dials the tool does so every five seconds
    /// at least.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

/// Calls a handler of a running server once and prints its answer.
///
/// Exits with 0 if there is one, with 1 if not.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Base URL of the server, as it calls itself.
    #[arg(value_name = "URL")]
    pub(crate) peer: Name,

    /// What to call.
    #[arg(value_enum, ignore_case = true)]
    pub(crate) handler: Callable,

    /// The text to echo, or how many milliseconds to sleep.
    pub(crate) text: String,

    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
}

/// The handlers that `call` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Callable {
    /// Answers with the text.
    Echo,
    /// Answers after that many milliseconds.
    Sleep,
}

/// Measures a running server: echo calls, each begun when the one before it is answered; or, with
/// --stream, messages through streams.
///
/// Exits with 1 if any call or stream failed.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Base URL of the server, as it calls itself.
    #[arg(long, value_name = "URL")]
    pub(crate) peer: Name,

    /// Measure messages a second through streams, first into the server, which counts them, then
    /// echoed by it. Every stream sends as fast as the other end takes.
    #[arg(long)]
    pub(crate) stream: bool,

    /// Calls under way at once, 64 unless given; with --stream, streams at once, 1 and then 64
    /// unless given.
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=BENCH_CONCURRENCY_MAX)
    )]
    pub(crate) concurrency: Option<u32>,

    /// Bytes of payload of each call, there and back, or of each message.
    #[arg(
        long, value_name = "BYTES", default_value_t = 512,
        value_parser = clap::value_parser!(u64).range(0..=BENCH_SIZE_MAX)
    )]
    pub(crate) size: u64,

    /// How long to measure; with --stream, each number of streams in each of the two ways.
    #[arg(
        long, default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=BENCH_SECONDS_MAX)
    )]
    pub(crate) seconds: u64,

    /// Seconds of load before each measurement, which do not count.
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

    /// Print one line of JSON instead of a text.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
}

impl BenchArgs {
    /// How many calls to keep under way.
    pub(crate) fn calls(&self) -> u32 {
        self.concurrency.unwrap_or(BENCH_CALLS)
    }

    /// How many streams to open, one number after the other.
    pub(crate) fn streams(&self) -> Vec<u32> {
        self.concurrency.map_or_else(|| BENCH_STREAMS.to_vec(), |streams| vec![streams])
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; give a duration such as 500ms, 10s or 2m")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn time_outs_have_units_and_are_not_zero() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(timeout("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "0s", "-1s", "fast"] {
            timeout(wrong).expect_err(wrong);
        }
    }
}
