//! What is said between the processes: an order is a line of text, and so is what came of it.

use std::time::Duration;

use dsync::Waiting;

/// How those wait who do not get the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Told,
    Polling,
}

/// What a server has to do and to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// To lock and unlock so many resources, one after the other.
    Alone { locks: usize },
    /// To have so many tasks take the same lock, each so often.
    Contended { tasks: usize, locks_each: usize },
}

impl Mode {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Polling => "polling",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut all = [Self::Told, Self::Polling].into_iter();
        all.find(|mode| mode.text() == text).expect("a mode of ours")
    }

    pub(crate) const fn waiting(self) -> Waiting {
        match self {
            Self::Told => Waiting::Told,
            Self::Polling => Waiting::Polling,
        }
    }
}

impl Order {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Alone { locks } => format!("alone {locks}"),
            Self::Contended { tasks, locks_each } => format!("contended {tasks} {locks_each}"),
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse().expect("a number of ours");
        match words[0] {
            "alone" => Self::Alone { locks: number(1) },
            _ => Self::Contended { tasks: number(1), locks_each: number(2) },
        }
    }
}

/// As nanoseconds.
pub(crate) fn text_of(times: &[Duration]) -> String {
    let nanos: Vec<_> = times.iter().map(|time| time.as_nanos().to_string()).collect();
    nanos.join(" ")
}

pub(crate) fn parse_times(text: &str) -> Vec<Duration> {
    let time = |nanos: &str| Duration::from_nanos(nanos.parse().expect("nanoseconds of ours"));
    text.split(' ').map(time).collect()
}
