//! The result of the demo: a table of at most 80 columns, and the failures or a summary.

mod locks;

use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;

use self::locks::LockTable;
use super::cluster::ConnectionEnd;
use super::counters::{Counters, Pair, Streams};
use super::load::StoppedLoad;
use super::locks::LockOutcome;
use super::view::list_outcomes;
use crate::latency::{DisplayLatency, Latencies};
use crate::outcome::Outcome;

/// Width of the table.
const COLUMNS: usize = 80;

/// Outcomes that are expected only if a server was killed.
const KILL_OUTCOMES: [Outcome; 3] = [Outcome::Disconnected, Outcome::NotConnected, Outcome::Killed];

/// The state at the end of the demo.
pub(super) struct Findings {
    pub(super) counters: Counters,
    pub(super) stopped: StoppedLoad,
    /// Both ends of all connections, after draining.
    pub(super) ends: Vec<ConnectionEnd>,
    /// Locks that were still held, waited for or granted.
    pub(super) locks_left: usize,
    /// Connection ends that were up, and the number in a fully connected cluster.
    pub(super) connected: usize,
    pub(super) expected: usize,
    /// Violated invariants that grid has logged.
    pub(super) bugs: u64,
}

impl Findings {
    /// All failures; empty after a clean demo.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures: Vec<_> =
            self.counters.pairs().iter().flat_map(|pair| pair_failures(pair)).collect();
        failures.extend(locks::failures(&self.counters.locks, self.locks_left));
        let StoppedLoad { hanging, panicked } = self.stopped;
        if hanging > 0 {
            failures.push(format!("{hanging} workers hang, waiting for a response"));
        }
        if panicked > 0 {
            failures.push(format!("{panicked} workers panicked"));
        }
        if self.connected != self.expected {
            let Self { connected, expected, .. } = self;
            failures.push(format!("{connected} of {expected} connection ends are up"));
        }
        let left = self.ends.iter().filter(|end| !end.stats.is_quiescent());
        failures.extend(left.map(|ConnectionEnd { from, to, stats }| {
            format!(
                "{} not drained: {} outbound and {} inbound calls, {} and {} of them streams, \
                 {} handlers, {} bytes, {} messages",
                arrow(*from, *to),
                stats.live_outbound_calls,
                stats.live_inbound_calls,
                stats.live_outbound_streams,
                stats.live_inbound_streams,
                stats.live_handler_tasks,
                stats.queued_bytes,
                stats.blocked_messages,
            )
        }));
        if self.bugs > 0 {
            failures.push(format!("grid reported {} violated invariants, see the log", self.bugs));
        }
        failures
    }

    /// The last lines, if there are no failures.
    pub(super) fn summary(&self) -> String {
        let calls = HumanCount(self.counters.started());
        let streams = HumanCount(self.counters.sum_of_streams(Streams::opened));
        let messages = HumanCount(self.counters.sum_of_streams(Streams::completed));
        let locks = HumanCount(self.counters.locks.count(LockOutcome::Granted));
        let connections = match self.connected / 2 {
            1 => "the connection is".to_owned(),
            count => format!("all {count} connections are"),
        };
        format!(
            "demo succeeded:\n  \
             - {calls} calls had exactly one outcome each\n  \
             - {streams} streams had exactly one outcome each\n  \
             - {messages} messages on finished streams were echoed once, in order\n  \
             - {locks} locks held: tokens grew, and no holders conflicted\n  \
             - {connections} up at both ends"
        )
    }
}

fn pair_failures(pair: &Pair) -> Vec<String> {
    let name = arrow(pair.from, pair.to);
    let calls = OutcomeCounts {
        unit: "calls",
        started: pair.started(),
        ended: pair.ended(),
        success: Outcome::Responded,
        count: &|outcome| pair.count(outcome),
    };
    let streams = OutcomeCounts {
        unit: "streams",
        started: pair.streams.opened(),
        ended: pair.streams.ended(),
        success: Outcome::Finished,
        count: &|outcome| pair.streams.count(outcome),
    };
    let counts = [calls, streams];
    let mut failures: Vec<_> =
        counts.iter().flat_map(|counts| counts.failures(&name, pair.was_killed())).collect();
    let (unexpected, count) = pair.unexpected();
    let more = count.saturating_sub(unexpected.len() as u64);
    failures.extend(unexpected.iter().map(|text| format!("{name}: unexpected: {text}")));
    if more > 0 {
        failures.push(format!("{name}: and {more} more unexpected outcomes"));
    }
    failures
}

/// Counts of all calls or of all streams of a pair, which are checked the same way.
struct OutcomeCounts<'a> {
    unit: &'static str,
    started: u64,
    ended: u64,
    /// The outcome that at least one must have.
    success: Outcome,
    count: &'a dyn Fn(Outcome) -> u64,
}

impl OutcomeCounts<'_> {
    fn failures(&self, name: &str, was_killed: bool) -> Vec<String> {
        let Self { unit, started, ended, success, count } = self;
        let mut failures = Vec::new();
        if started != ended {
            failures.push(format!("{name}: {started} {unit} had {ended} outcomes"));
        }
        if count(*success) == 0 {
            failures.push(format!("{name}: no {unit} {}", success.label()));
        }
        for outcome in KILL_OUTCOMES.into_iter().filter(|_| !was_killed) {
            let (count, label) = (count(outcome), outcome.label());
            if count > 0 {
                failures.push(format!(
                    "{name}: {count} {unit} {label}, though neither node was killed"
                ));
            }
        }
        failures
    }
}

fn arrow(from: usize, to: usize) -> String {
    format!("node {} → node {}", from + 1, to + 1)
}

/// The table, and the sums below it.
pub(super) struct Report<'a>(pub(super) &'a Findings);

/// One row of the table.
struct PairRow {
    name: String,
    calls: u64,
    responded: u64,
    streams: u64,
    finished: u64,
    latencies: Latencies,
    reconnects: u64,
    recovered_after: Option<Duration>,
}

impl PairRow {
    fn new(pair: &Pair, ends: &[ConnectionEnd]) -> Self {
        let end = ends.iter().find(|end| end.from == pair.from && end.to == pair.to);
        let connections = pair.connections_before() + end.map_or(0, |end| end.stats.connections);
        Self {
            name: format!("{} → {}", pair.from + 1, pair.to + 1),
            calls: pair.started(),
            responded: pair.count(Outcome::Responded),
            streams: pair.streams.opened(),
            finished: pair.streams.count(Outcome::Finished),
            latencies: pair.latencies(),
            reconnects: connections.saturating_sub(1),
            recovered_after: pair.recovered_after(),
        }
    }
}

impl fmt::Display for PairRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered = self.recovered_after.map(|after| format!("{} ms", after.as_millis()));
        write!(
            f,
            "{:<8}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}{:>7}{:>10}",
            self.name,
            short_count(self.calls),
            short_count(self.responded),
            DisplayLatency(self.latencies.quantile(0.5)),
            DisplayLatency(self.latencies.quantile(0.99)),
            short_count(self.streams),
            short_count(self.finished),
            self.reconnects,
            recovered.as_deref().unwrap_or("-"),
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Findings { counters, ends, .. }) = self;
        writeln!(
            f,
            "\n{:<8}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}{:>7}{:>10}",
            "nodes",
            "calls",
            "responded",
            "median",
            "p99",
            "streams",
            "finished",
            "reconn",
            "recovered"
        )?;
        for pair in counters.pairs() {
            writeln!(f, "{}", PairRow::new(pair, ends))?;
        }
        write!(f, "\n{}", LockTable(&counters.locks))?;
        let (calls, outcomes) =
            (HumanCount(counters.started()), list_outcomes(&counters.outcomes()));
        writeln!(f, "{}", wrap(&format!("{calls} calls: {outcomes}")))?;
        let opened = HumanCount(counters.sum_of_streams(Streams::opened));
        let outcomes = list_outcomes(&counters.stream_outcomes());
        writeln!(f, "{}", wrap(&format!("{opened} streams: {outcomes}")))?;
        let interrupted: u64 = [Outcome::Disconnected, Outcome::Killed]
            .map(|outcome| counters.sum_of_streams(|streams| streams.count(outcome)))
            .iter()
            .sum();
        let echoed = HumanCount(counters.sum_of_streams(Streams::echoed));
        let completed = HumanCount(counters.sum_of_streams(Streams::completed));
        let messages = format!(
            "on streams: {echoed} messages echoed, {completed} of them on finished streams; \
             {interrupted} streams interrupted by the kill"
        );
        writeln!(f, "{}", wrap(&messages))?;
        let legend = "reconn: reconnects; recovered: time from the restart of the killed server until \
                      this end was connected";
        writeln!(f, "{}", wrap(legend))
    }
}

/// A count of at most seven characters.
fn short_count(count: u64) -> String {
    match count {
        0..1_000_000 => HumanCount(count).to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.1} G", count as f64 / 1e9),
    }
}

/// Wraps a text at [`COLUMNS`]. Continuation lines are indented.
fn wrap(text: &str) -> String {
    let (mut wrapped, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let width = word.chars().count();
        let separator = match column {
            0 => "",
            column if column + 1 + width <= COLUMNS => " ",
            _ => "\n  ",
        };
        column = if separator.starts_with('\n') { 0 } else { column };
        column += separator.trim_start_matches('\n').len() + width;
        wrapped.push_str(separator);
        wrapped.push_str(word);
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clean demo of two servers: one successful call, and one stream of one message, for each
    /// pair.
    fn findings() -> Findings {
        findings_of(2, 2)
    }

    fn findings_of(nodes: usize, expected: usize) -> Findings {
        let counters = Counters::new(nodes).expect("the histogram's bounds are constants");
        for pair in counters.pairs() {
            pair.begin().end(Outcome::Responded);
            let mut stream = pair.open();
            stream.record_echo(Some(0));
            assert_eq!(stream.finish(1), Outcome::Finished);
        }
        for attempts in &counters.locks.nodes {
            attempts.begin().end(LockOutcome::Granted);
        }
        let stopped = StoppedLoad { hanging: 0, panicked: 0 };
        let (ends, locks_left) = (Vec::new(), 0);
        Findings { counters, stopped, ends, locks_left, connected: expected, expected, bugs: 0 }
    }

    fn assert_only_failure(findings: &Findings, expected: &str) {
        let failures = findings.failures();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].contains(expected), "{failures:?}");
    }

    #[test]
    fn clean_demo_has_no_failures() {
        let findings = findings();
        assert_eq!(findings.failures(), Vec::<String>::new());
        assert_eq!(
            findings.summary(),
            "demo succeeded:\n  \
             - 2 calls had exactly one outcome each\n  \
             - 2 streams had exactly one outcome each\n  \
             - 2 messages on finished streams were echoed once, in order\n  \
             - 2 locks held: tokens grew, and no holders conflicted\n  \
             - the connection is up at both ends"
        );
    }

    #[test]
    fn call_without_an_outcome_is_a_failure() {
        let findings = findings();
        let _open = findings.counters.pairs()[0].begin();
        assert_only_failure(&findings, "node 1 → node 2: 2 calls had 1 outcomes");
    }

    #[test]
    fn lost_call_is_a_failure_unless_a_server_was_killed() {
        let findings = findings();
        let pair = &findings.counters.pairs()[1];
        pair.begin().end(Outcome::Disconnected);
        assert_only_failure(&findings, "1 calls disconnected, though neither node was killed");
        pair.mark_killed();
        assert_eq!(findings.failures(), Vec::<String>::new());
    }

    #[test]
    fn stream_without_an_outcome_is_a_failure() {
        let findings = findings();
        let _open = findings.counters.pairs()[0].open();
        assert_only_failure(&findings, "node 1 → node 2: 2 streams had 1 outcomes");
    }

    #[test]
    fn lost_or_duplicated_message_is_always_a_failure() {
        for (echoes, expected) in [
            (&[0, 2][..], "node 1 → node 2: unexpected: stream: message 2 was echoed, expected 1"),
            (&[0, 1, 1], "node 1 → node 2: unexpected: stream: message 1 was echoed, expected 2"),
        ] {
            let findings = findings();
            let pair = &findings.counters.pairs()[0];
            pair.mark_killed();
            let mut stream = pair.open();
            echoes.iter().for_each(|number| stream.record_echo(Some(*number)));
            assert_eq!(stream.end(Outcome::Disconnected), Outcome::Wrong);
            assert_only_failure(&findings, expected);
        }
    }

    #[test]
    fn interrupted_stream_is_a_failure_unless_a_server_was_killed() {
        let findings = findings();
        let pair = &findings.counters.pairs()[1];
        drop(pair.open());
        assert_only_failure(&findings, "1 streams caller killed, though neither node was killed");
        pair.mark_killed();
        assert_eq!(findings.failures(), Vec::<String>::new());
    }

    #[test]
    fn other_unexpected_results_are_failures() {
        let unexpected = findings();
        unexpected.counters.pairs()[0].record_unexpected("Small: WRONG");
        assert_only_failure(&unexpected, "node 1 → node 2: unexpected: Small: WRONG");
        assert_only_failure(&Findings { connected: 1, ..findings() }, "1 of 2 connection ends");
        assert_only_failure(&Findings { bugs: 1, ..findings() }, "grid reported 1 violated");
        assert_only_failure(&Findings { locks_left: 1, ..findings() }, "1 locks or grants remain");
        let stopped = StoppedLoad { hanging: 1, panicked: 0 };
        assert_only_failure(&Findings { stopped, ..findings() }, "1 workers hang");
    }

    #[test]
    fn result_fits_80_columns_with_16_servers_and_large_numbers() {
        let findings = findings_of(16, 240);
        for (count, latency) in [(0, 0), (999_999, 99_990), (123_456_789_012, 59_999_000)] {
            let latency = Duration::from_micros(latency);
            findings.counters.pairs().iter().for_each(|pair| pair.set_all(count, latency));
            findings.counters.locks.nodes.iter().for_each(|node| node.set_all(count, latency));
            let result = format!("{}\n{}", Report(&findings), findings.summary());
            assert!(result.lines().count() > 256, "{result}");
            for line in result.lines() {
                assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
            }
        }
    }

    #[test]
    fn long_lines_are_wrapped_between_words() {
        let words = ["twenty-one characters"; 9].join(" ");
        let wrapped = wrap(&words);
        assert!(wrapped.lines().all(|line| line.chars().count() <= 80), "{wrapped}");
        assert_eq!(wrapped.split_whitespace().count(), 18);
        assert!(wrapped.lines().skip(1).all(|line| line.starts_with("  ")), "{wrapped}");
        assert_eq!(wrap("short"), "short");
    }
}
