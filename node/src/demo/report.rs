//! The table at the end of the demo, and the verdict.

mod locks;

use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;

use self::locks::LockTable;
use super::cluster::End;
use super::ledger::{Ledger, Pair, Streams};
use super::load::Stopped;
use super::locks::LockOutcome;
use super::view::describe;
use crate::latency::{Latencies, Shown};
use crate::outcome::Outcome;

/// What only the kill of a server may bring about.
const LOST: [Outcome; 3] = [Outcome::Disconnected, Outcome::NotConnected, Outcome::Killed];

/// What was found when the load had ended.
pub(super) struct Findings {
    pub(super) ledger: Ledger,
    pub(super) stopped: Stopped,
    /// Both ends of all connections, when all was calm or the patience over.
    pub(super) ends: Vec<End>,
    /// Locks that somebody still had something to do with, then.
    pub(super) locks_left: usize,
    /// Ends of connections that were up, and that should have been.
    pub(super) connected: usize,
    pub(super) expected: usize,
    /// What grid holds to be impossible, and yet met.
    pub(super) bugs: u64,
}

impl Findings {
    /// Everything that should not be.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<_> =
            self.ledger.pairs().iter().flat_map(|pair| pair_reasons(pair)).collect();
        reasons.extend(locks::reasons(&self.ledger.locks, self.locks_left));
        let Stopped { hanging, panicked } = self.stopped;
        if hanging > 0 {
            reasons.push(format!("{hanging} callers wait for answers that do not come"));
        }
        if panicked > 0 {
            reasons.push(format!("{panicked} callers panicked"));
        }
        if self.connected != self.expected {
            let Self { connected, expected, .. } = self;
            reasons.push(format!("{connected} of {expected} ends of connections are up"));
        }
        let left = self.ends.iter().filter(|end| !end.stats.is_quiescent());
        reasons.extend(left.map(|End { from, to, stats }| {
            format!(
                "{} left behind: {} calls and {} served, {} and {} of them streams, {} handlers, \
                 {} bytes, {} messages",
                arrow(*from, *to),
                stats.live_calls,
                stats.live_served,
                stats.live_streams,
                stats.live_streams_served,
                stats.live_handler_tasks,
                stats.queued_bytes,
                stats.blocked_messages,
            )
        }));
        if self.bugs > 0 {
            reasons.push(format!("grid met {} bugs of its own; see the log", self.bugs));
        }
        reasons
    }

    /// The last line, when there are no reasons.
    pub(super) fn verdict(&self) -> String {
        let calls = HumanCount(self.ledger.started());
        let streams = HumanCount(self.ledger.sum_of_streams(Streams::opened));
        let messages = HumanCount(self.ledger.sum_of_streams(Streams::completed));
        let locks = HumanCount(self.ledger.locks.count(LockOutcome::Granted));
        let connections = match self.connected / 2 {
            1 => "the connection is".to_owned(),
            several => format!("all {several} connections are"),
        };
        format!(
            "every one of {calls} calls and {streams} streams had exactly one outcome; all {messages} \
             messages on finished streams came back once, in order; {locks} locks were held, with tokens \
             that grew, and none by two at once; {connections} up at both ends"
        )
    }
}

fn pair_reasons(pair: &Pair) -> Vec<String> {
    let name = arrow(pair.from, pair.to);
    let calls = Judged {
        what: "calls",
        begun: pair.started(),
        ended: pair.ended(),
        well: Outcome::Answered,
        count: &|outcome| pair.count(outcome),
    };
    let streams = Judged {
        what: "streams",
        begun: pair.streams.opened(),
        ended: pair.streams.ended(),
        well: Outcome::Finished,
        count: &|outcome| pair.streams.count(outcome),
    };
    let judged = [calls, streams];
    let mut reasons: Vec<_> =
        judged.iter().flat_map(|judged| judged.reasons(&name, pair.is_hit())).collect();
    let (surprises, count) = pair.surprises();
    let more = count.saturating_sub(surprises.len() as u64);
    reasons.extend(surprises.iter().map(|surprise| format!("{name}: unexpected: {surprise}")));
    if more > 0 {
        reasons.push(format!("{name}: and {more} more unexpected outcomes"));
    }
    reasons
}

/// All calls or all streams of a pair: the same is asked of both.
struct Judged<'a> {
    what: &'static str,
    begun: u64,
    ended: u64,
    /// How at least one must have ended.
    well: Outcome,
    count: &'a dyn Fn(Outcome) -> u64,
}

impl Judged<'_> {
    fn reasons(&self, name: &str, is_hit: bool) -> Vec<String> {
        let Self { what, begun, ended, well, count } = self;
        let mut reasons = Vec::new();
        if begun != ended {
            reasons.push(format!("{name}: {begun} {what} had {ended} outcomes"));
        }
        if count(*well) == 0 {
            reasons.push(format!("{name}: no {what} came to: {}", well.label()));
        }
        for outcome in LOST.into_iter().filter(|_| !is_hit) {
            let (count, label) = (count(outcome), outcome.label());
            if count > 0 {
                reasons.push(format!("{name}: {count} {what} {label}, though neither was killed"));
            }
        }
        reasons
    }
}

fn arrow(from: usize, to: usize) -> String {
    format!("node {} → node {}", from + 1, to + 1)
}

/// The table, and the sums below it.
pub(super) struct Report<'a>(pub(super) &'a Findings);

/// One line of the table.
struct Line {
    name: String,
    calls: u64,
    answered: u64,
    streams: u64,
    finished: u64,
    latencies: Latencies,
    reconnects: u64,
    recovered_after: Option<Duration>,
}

impl Line {
    fn new(pair: &Pair, ends: &[End]) -> Self {
        let end = ends.iter().find(|end| end.from == pair.from && end.to == pair.to);
        let connections = pair.connections_before() + end.map_or(0, |end| end.stats.connections);
        Self {
            name: arrow(pair.from, pair.to),
            calls: pair.started(),
            answered: pair.count(Outcome::Answered),
            streams: pair.streams.opened(),
            finished: pair.streams.count(Outcome::Finished),
            latencies: pair.latencies(),
            reconnects: connections.saturating_sub(1),
            recovered_after: pair.recovered_after(),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered = self.recovered_after.map(|after| format!("{} ms", after.as_millis()));
        write!(
            f,
            "{:<17}{:>9}{:>10}{:>10}{:>10}{:>9}{:>10}{:>12}{:>11}",
            self.name,
            HumanCount(self.calls).to_string(),
            HumanCount(self.answered).to_string(),
            Shown(self.latencies.quantile(0.5)),
            Shown(self.latencies.quantile(0.99)),
            HumanCount(self.streams).to_string(),
            HumanCount(self.finished).to_string(),
            self.reconnects,
            recovered.as_deref().unwrap_or("-"),
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Findings { ledger, ends, .. }) = self;
        writeln!(
            f,
            "\n{:<17}{:>9}{:>10}{:>10}{:>10}{:>9}{:>10}{:>12}{:>11}",
            "from → to",
            "calls",
            "answered",
            "median",
            "p99",
            "streams",
            "finished",
            "reconnects",
            "recovered"
        )?;
        for pair in ledger.pairs() {
            writeln!(f, "{}", Line::new(pair, ends))?;
        }
        write!(f, "\n{}", LockTable(&ledger.locks))?;
        writeln!(f, "{} calls: {}", HumanCount(ledger.started()), describe(&ledger.outcomes()))?;
        let opened = HumanCount(ledger.sum_of_streams(Streams::opened));
        writeln!(f, "{opened} streams: {}", describe(&ledger.stream_outcomes()))?;
        let cut = [Outcome::Disconnected, Outcome::Killed];
        let cut = cut.map(|outcome| ledger.sum_of_streams(|streams| streams.count(outcome)));
        let echoed = HumanCount(ledger.sum_of_streams(Streams::echoed));
        let completed = HumanCount(ledger.sum_of_streams(Streams::completed));
        writeln!(
            f,
            "on streams: {echoed} messages came back, {completed} of them on streams that finished; \
             {} streams were cut by the kill",
            cut.iter().sum::<u64>()
        )?;
        f.write_str("recovered: from when the killed server listened again until that end was up\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A demo of two servers, in which each had one call answered, and one stream of one message.
    fn findings() -> Findings {
        let ledger = Ledger::new(2).expect("the histogram's bounds are constants");
        for pair in ledger.pairs() {
            pair.begin().end(Outcome::Answered);
            let mut stream = pair.open();
            stream.came_back(Some(0));
            assert_eq!(stream.finish(1), Outcome::Finished);
        }
        for tries in &ledger.locks.nodes {
            tries.begin().end(LockOutcome::Granted);
        }
        let stopped = Stopped { hanging: 0, panicked: 0 };
        let (ends, locks_left) = (Vec::new(), 0);
        Findings { ledger, stopped, ends, locks_left, connected: 2, expected: 2, bugs: 0 }
    }

    fn assert_only_reason(findings: &Findings, expected: &str) {
        let reasons = findings.reasons();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains(expected), "{reasons:?}");
    }

    #[test]
    fn a_demo_in_which_all_was_well_has_no_reasons_to_fail() {
        let findings = findings();
        assert_eq!(findings.reasons(), Vec::<String>::new());
        assert_eq!(
            findings.verdict(),
            "every one of 2 calls and 2 streams had exactly one outcome; all 2 messages on finished \
             streams came back once, in order; 2 locks were held, with tokens that grew, and none by two \
             at once; the connection is up at both ends"
        );
    }

    #[test]
    fn a_call_without_an_outcome_is_a_reason() {
        let findings = findings();
        let _open = findings.ledger.pairs()[0].begin();
        assert_only_reason(&findings, "node 1 → node 2: 2 calls had 1 outcomes");
    }

    #[test]
    fn a_lost_call_is_a_reason_only_where_nobody_was_killed() {
        let findings = findings();
        let pair = &findings.ledger.pairs()[1];
        pair.begin().end(Outcome::Disconnected);
        assert_only_reason(&findings, "1 calls disconnected, though neither was killed");
        pair.hit();
        assert_eq!(findings.reasons(), Vec::<String>::new());
    }

    #[test]
    fn a_stream_without_an_outcome_is_a_reason() {
        let findings = findings();
        let _open = findings.ledger.pairs()[0].open();
        assert_only_reason(&findings, "node 1 → node 2: 2 streams had 1 outcomes");
    }

    #[test]
    fn a_message_lost_or_doubled_is_a_reason_wherever_it_was() {
        for (echoes, expected) in [
            (&[0, 2][..], "node 1 → node 2: unexpected: stream: message 2 came back, 1 was due"),
            (&[0, 1, 1], "node 1 → node 2: unexpected: stream: message 1 came back, 2 was due"),
        ] {
            let findings = findings();
            let pair = &findings.ledger.pairs()[0];
            pair.hit();
            let mut stream = pair.open();
            echoes.iter().for_each(|number| stream.came_back(Some(*number)));
            assert_eq!(stream.end(Outcome::Disconnected), Outcome::Wrong);
            assert_only_reason(&findings, expected);
        }
    }

    #[test]
    fn a_cut_stream_is_a_reason_only_where_nobody_was_killed() {
        let findings = findings();
        let pair = &findings.ledger.pairs()[1];
        drop(pair.open());
        assert_only_reason(&findings, "1 streams caller killed, though neither was killed");
        pair.hit();
        assert_eq!(findings.reasons(), Vec::<String>::new());
    }

    #[test]
    fn what_else_should_not_be_is_a_reason() {
        let surprising = findings();
        surprising.ledger.pairs()[0].surprised("Small: WRONG");
        assert_only_reason(&surprising, "node 1 → node 2: unexpected: Small: WRONG");
        assert_only_reason(&Findings { connected: 1, ..findings() }, "1 of 2 ends");
        assert_only_reason(&Findings { bugs: 1, ..findings() }, "grid met 1 bugs");
        assert_only_reason(&Findings { locks_left: 1, ..findings() }, "1 locks or grants");
        let stopped = Stopped { hanging: 1, panicked: 0 };
        assert_only_reason(&Findings { stopped, ..findings() }, "1 callers wait for answers");
    }
}
