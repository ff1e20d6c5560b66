//! The command lines of `gridwire lock` and `gridwire locks`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use grid::Name;

use super::{EntryArgs, ProbeArgs, timeout};

/// Runs a command while a lock is held.
///
/// A running server takes the lock on behalf of this tool. It is free again when the command has
/// ended or this tool has died, or, if it is the server that dies, a lease later.
///
/// Once the lock is no longer certain, the command gets SIGTERM, and SIGKILL five seconds later. Until
/// it has ended, and after a kill -9 of this tool, it may overlap with the next holder: what must not
/// be written by both has to compare GRIDWIRE_LOCK_TOKEN, which grows from holder to holder.
///
/// The command finds GRIDWIRE_LOCK_TOKEN, GRIDWIRE_LOCK_UID and GRIDWIRE_LOCK_RESOURCES (separated by newlines)
/// in its environment, and gets SIGINT, SIGTERM, SIGHUP and SIGQUIT that this tool gets. Unless the
/// standard input is a terminal, it runs in a process group of its own, which is signalled as a
/// whole.
///
/// Exit codes: the command's own; 128 + N when signal N ended it; 1 (or what -E says) when the lock
/// could not be had in time; 2 when something given here is wrong; 69 when the server could not be
/// asked; 75 when the lock was lost while the command ran; 126 when the command cannot be run, 127
/// when it cannot be found.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// What to lock; several are taken all or none.
    #[arg(value_name = "RESOURCE", required = true)]
    pub(crate) resources: Vec<String>,

    /// Lock for reading: others may hold it for reading too.
    #[arg(long)]
    pub(crate) read: bool,

    /// The exit code when the lock could not be had in time.
    #[arg(short = 'E', long, value_name = "N", default_value_t = 1)]
    pub(crate) conflict_exit_code: u8,

    /// Base URL of the server that takes the lock, as it calls itself.
    #[arg(long, value_name = "URL")]
    pub(crate) peer: Name,

    #[command(flatten)]
    pub(crate) entry: EntryArgs,

    /// Longest wait for the lock, once there is a connection: 500ms, 10s, 2m.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,

    /// Longest wait for the connection. A server that dials the tool does so every five seconds at
    /// least.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(crate) connect_timeout: Duration,

    /// The command and its arguments, after `--`.
    #[arg(last = true, value_name = "COMMAND", required = true)]
    pub(crate) command: Vec<OsString>,
}

/// Shows who holds and who waits for which locks, as far as the lockers that answer know; or takes a
/// lock away.
#[derive(Debug, Args)]
pub(crate) struct LocksArgs {
    /// Base URL of the server that asks the lockers, as it calls itself.
    #[arg(long, value_name = "URL")]
    pub(crate) peer: Name,

    /// Print one line of JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Take away the lock with this id. It is free when its holder has let go or its lease ended.
    #[arg(long, value_name = "UID", conflicts_with = "unlock_resource")]
    pub(crate) unlock: Option<String>,

    /// Take away all locks of this resource, likewise.
    #[arg(long, value_name = "NAME")]
    pub(crate) unlock_resource: Option<String>,

    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
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

    const PROBE: [&str; 6] =
        ["--peer", "http://a:1", "--name", "http://g:1", "--secret-file", "secret"];

    fn parse(before: &[&str], after: &[&str]) -> Result<Tool, clap::Error> {
        Tool::try_parse_from([&["gridwire"], before, &PROBE[..], after].concat())
    }

    #[test]
    fn what_comes_after_two_dashes_is_the_command_whatever_it_looks_like() {
        Tool::command().debug_assert();
        let parsed = parse(&["lock", "a/b", "c"], &["--", "sh", "--read", "-E", "--"]);
        let Ok(Tool::Lock(arguments)) = parsed else { panic!("{parsed:?}") };
        assert_eq!(arguments.resources, ["a/b", "c"]);
        assert_eq!(arguments.command, ["sh", "--read", "-E", "--"]);
        assert!(!arguments.read);
        assert_eq!(arguments.conflict_exit_code, 1);
    }

    #[test]
    fn a_lock_needs_a_resource_and_a_command() {
        parse(&["lock"], &["--", "true"]).expect_err("no resource");
        parse(&["lock", "a"], &[]).expect_err("no command");
        parse(&["lock", "a"], &["--"]).expect_err("an empty command");
        parse(&["lock", "a", "-E", "256"], &["--", "true"]).expect_err("no exit code");
    }

    #[test]
    fn locks_are_taken_away_by_id_or_by_resource() {
        let parsed = parse(&["locks", "--unlock", "1-2"], &["--json"]);
        let Ok(Tool::Locks(arguments)) = parsed else { panic!("{parsed:?}") };
        assert_eq!((arguments.unlock.as_deref(), arguments.json), (Some("1-2"), true));
        parse(&["locks", "--unlock", "1-2", "--unlock-resource", "a"], &[]).expect_err("both");
    }
}
