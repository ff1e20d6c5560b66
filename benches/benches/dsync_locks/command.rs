//! The protocol between the processes: a command is a line of text, and so is its result.

use std::time::Duration;

use dsync::WaitMode;

/// Wait mode of the locks, as a command-line argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Notified,
    Polling,
}

/// A workload that a server runs and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerCommand {
    /// Locks and unlocks `locks` resources, one after the other.
    Uncontended { locks: usize },
    /// Runs `tasks` tasks, each of which acquires the same lock `locks_each` times.
    Contended { tasks: usize, locks_each: usize },
}

impl Mode {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Notified => "notified",
            Self::Polling => "polling",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut all = [Self::Notified, Self::Polling].into_iter();
        all.find(|mode| mode.text() == text).expect("a mode's text")
    }

    pub(crate) const fn wait_mode(self) -> WaitMode {
        match self {
            Self::Notified => WaitMode::Notified,
            Self::Polling => WaitMode::Polling,
        }
    }
}

impl ServerCommand {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Uncontended { locks } => format!("uncontended {locks}"),
            Self::Contended { tasks, locks_each } => format!("contended {tasks} {locks_each}"),
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse().expect("a number");
        match words[0] {
            "uncontended" => Self::Uncontended { locks: number(1) },
            _ => Self::Contended { tasks: number(1), locks_each: number(2) },
        }
    }
}

/// Formats durations as nanoseconds.
pub(crate) fn format_times(times: &[Duration]) -> String {
    let nanos: Vec<_> = times.iter().map(|time| time.as_nanos().to_string()).collect();
    nanos.join(" ")
}

/// Parses durations formatted by [`format_times`].
pub(crate) fn parse_times(text: &str) -> Vec<Duration> {
    let time = |nanos: &str| Duration::from_nanos(nanos.parse().expect("nanoseconds"));
    text.split(' ').map(time).collect()
}
