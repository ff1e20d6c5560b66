//! The command lines of `gridwire lock` and `gridwire locks`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use grid::Name;

use super::{ClientArgs, ClientIdentityArgs, timeout, timeout_or_zero};

/// Runs a command while a lock is held.
///
/// A running server holds the lock on behalf of this tool. It is released when the command has
/// ended, or when its lease has expired: after the death of the server or a kill -9 of this tool.
///
/// When the lock can no longer be confirmed, the command gets SIGTERM, and SIGKILL five seconds
/// later, both before another holder can get the lock. (With a lease of less than 20 s the time
/// between the two is shorter.) A watchdog process does so too if this tool is killed, or is
/// stopped until then. What escapes both, such as a daemon that leaves the process group, may
/// overlap with the next holder. A resource that must not be written by both must compare
/// GRIDWIRE_LOCK_TOKEN, a fencing token that grows with each holder.
///
/// The command's environment has GRIDWIRE_LOCK_TOKEN, GRIDWIRE_LOCK_UID and GRIDWIRE_LOCK_RESOURCES
/// (separated by newlines); no GRIDWIRE_LOCK_TOKEN if too few lockers have tokens, as with MinIO
/// servers among them. Signals that would end this tool are forwarded to the command: SIGINT,
/// SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM and the like. Unless the standard input is a
/// terminal, the command runs in the watchdog's process group, which is signalled as a whole.
///
/// Exit codes: the command's own; 128 + N when signal N ended it; 1 (or the value of -E) when
/// others kept the lock until the timeout, or held it when it was tried for; 2 invalid arguments;
/// 69 when the lock could not be requested: the server is unreachable, or too few lockers responded
/// or were ready; 75 when the lock was lost while the command ran; 126 when the command cannot be
/// executed, 127 when it is not found.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Resources to lock, all or none.
    #[arg(value_name = "RESOURCE", required = true)]
    pub(crate) resources: Vec<String>,

    /// Lock for reading: shared with other readers.
    #[arg(long)]
    pub(crate) read: bool,

    /// Exit code when others hold the lock.
    #[arg(short = 'E', long, value_name = "N", default_value_t = 1)]
    pub(crate) conflict_exit_code: u8,

    /// Base URL of the server that holds the lock: its own --name.
    #[arg(long, value_name = "URL")]
    pub(crate) peer: Name,

    #[command(flatten)]
    pub(crate) identity: ClientIdentityArgs,

    /// Longest wait for the lock, once connected: 500ms, 10s, 2m. With 0s the lockers are asked
    /// once: the lock is taken if it is free.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout_or_zero)]
    pub(crate) timeout: Duration,

    /// Take the lock only if it is free now, as with --timeout 0s.
    #[arg(long = "try", conflicts_with = "timeout")]
    pub(crate) try_once: bool,

    /// Longest wait for the connection. A server that is the dialer tries at least every five
    /// seconds.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(crate) connect_timeout: Duration,

    /// The command and its arguments, after `--`.
    #[arg(last = true, value_name = "COMMAND", required = true)]
    pub(crate) command: Vec<OsString>,
}

impl LockArgs {
    /// Longest wait for the lock; zero to try once.
    pub(crate) fn wait_max(&self) -> Duration {
        if self.try_once { Duration::ZERO } else { self.timeout }
    }
}

/// Becomes the command of `gridwire lock`. Not for users.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Process id of the tool.
    pub(crate) parent: i32,

    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// Lists held locks and waiters, as reported by the lockers that respond; or forces a lock open.
#[derive(Debug, Args)]
pub(crate) struct LocksArgs {
    /// Base URL of the server that queries the lockers: its own --name.
    #[arg(long, value_name = "URL")]
    pub(crate) peer: Name,

    /// Print one line of JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Force the lock with this id open. It is free when its holder releases it or its lease
    /// expires.
    #[arg(long, value_name = "UID", conflicts_with = "unlock_resource")]
    pub(crate) unlock: Option<String>,

    /// Force all locks of this resource open, likewise.
    #[arg(long, value_name = "NAME")]
    pub(crate) unlock_resource: Option<String>,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    enum Tool {
        Lock(LockArgs),
        Locks(LocksArgs),
    }

    const CLIENT_ARGUMENTS: [&str; 6] =
        ["--peer", "http://a:1", "--name", "http://g:1", "--secret-file", "secret"];

    fn parse(before: &[&str], after: &[&str]) -> Result<Tool, clap::Error> {
        Tool::try_parse_from([&["gridwire"], before, &CLIENT_ARGUMENTS[..], after].concat())
    }

    #[test]
    fn arguments_after_two_dashes_are_the_command() {
        Tool::command().debug_assert();
        let parsed = parse(&["lock", "a/b", "c"], &["--", "sh", "--read", "-E", "--"]);
        let Ok(Tool::Lock(arguments)) = parsed else { panic!("{parsed:?}") };
        assert_eq!(arguments.resources, ["a/b", "c"]);
        assert_eq!(arguments.command, ["sh", "--read", "-E", "--"]);
        assert!(!arguments.read);
        assert_eq!(arguments.conflict_exit_code, 1);
    }

    #[test]
    fn lock_requires_a_resource_and_a_command() {
        parse(&["lock"], &["--", "true"]).expect_err("no resource");
        parse(&["lock", "a"], &[]).expect_err("no command");
        parse(&["lock", "a"], &["--"]).expect_err("an empty command");
        parse(&["lock", "a", "-E", "256"], &["--", "true"]).expect_err("no exit code");
    }

    #[test]
    fn lock_is_tried_once_with_a_flag_or_without_a_timeout() {
        let wait_max =
            |flags: &[&str]| match parse(&["lock", "a"], &[flags, &["--", "true"]].concat()) {
                Ok(Tool::Lock(arguments)) => arguments.wait_max(),
                parsed => panic!("{parsed:?}"),
            };
        assert_eq!(wait_max(&[]), Duration::from_secs(10));
        for flags in [&["--try"][..], &["--timeout", "0"], &["--timeout", "0s"]] {
            assert_eq!(wait_max(flags), Duration::ZERO, "{flags:?}");
        }
        parse(&["lock", "a", "--try", "--timeout", "1s"], &["--", "true"]).expect_err("both");
    }

    #[test]
    fn locks_are_forced_open_by_id_or_by_resource() {
        let parsed = parse(&["locks", "--unlock", "1-2"], &["--json"]);
        let Ok(Tool::Locks(arguments)) = parsed else { panic!("{parsed:?}") };
        assert_eq!((arguments.unlock.as_deref(), arguments.json), (Some("1-2"), true));
        parse(&["locks", "--unlock", "1-2", "--unlock-resource", "a"], &[]).expect_err("both");
    }
}
