//! Writes a run as a log for `ShiViz`, which draws and compares executions by their vector clocks.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::event::{Event, EventKind, SocketId};
use crate::plan::Node;

/// Pattern that parses an entry.
const PARSER: &str = r"(?<host>\S*) (?<clock>\{.*\})\n(?<event>.*)";

/// Host name of events that belong to no node.
const NO_NODE: &str = "run";

type Clock = BTreeMap<String, u64>;

/// Returns the trace as a log file for `ShiViz` (<https://bestchai.bitbucket.io/shiviz/>).
///
/// Upload the file on the tool's input page. In an uploaded file, the first line is the parser,
/// `(?<host>\S*) (?<clock>\{.*\})\n(?<event>.*)`, and the second, empty here, the delimiter of
/// several executions. Pasted as text, the log works once that parser is in the parser's field: the
/// first line then matches nothing, and is skipped.
///
/// An entry is two lines: the node with its vector clock, and the event. A node's own clock counts
/// its events from 1; a message that arrives brings the clock of its sender. Hosts are the nodes
/// with events, and `run`.
pub fn shiviz(events: &[Event]) -> String {
    let mut text = format!("{PARSER}\n\n");
    for (host, clock, event) in entries(events) {
        let clock = serde_json::to_string(&clock).unwrap_or_default();
        let line = event.kind.to_string().replace(['\n', '\r'], " ");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{host} {clock}\n{} ms: {line}", event.at_ms);
    }
    text
}

/// Returns each event with its host and the host's clock.
fn entries(events: &[Event]) -> impl Iterator<Item = (String, Clock, &Event)> {
    let mut clocks: BTreeMap<String, Clock> = BTreeMap::new();
    let mut in_flight: BTreeMap<(SocketId, u64), Vec<(Node, Clock)>> = BTreeMap::new();
    events.iter().map(move |event| {
        let host = event.node.map_or_else(|| NO_NODE.to_owned(), |node| node.to_string());
        let clock = clocks.entry(host.clone()).or_default();
        *clock.entry(host.clone()).or_default() += 1;
        match (&event.kind, event.node) {
            (EventKind::MessageSent { socket, index, .. }, Some(node)) => {
                in_flight.entry((*socket, *index)).or_default().push((node, clock.clone()));
            }
            (EventKind::MessageReceived { socket, index }, Some(node)) => {
                let sent = in_flight.entry((*socket, *index)).or_default();
                // Both directions of a socket count from 0.
                if let Some(found) = sent.iter().position(|(from, _)| *from != node) {
                    merge(clock, sent.swap_remove(found).1);
                }
            }
            _ => {}
        }
        (host, clock.clone(), event)
    })
}

fn merge(clock: &mut Clock, other: Clock) {
    for (host, time) in other {
        let known = clock.entry(host).or_default();
        *known = time.max(*known);
    }
}

#[cfg(test)]
mod tests {
    use super::entries;
    use crate::event::{Event, EventKind};
    use crate::report::tests::{received, sent};

    #[test]
    fn receive_event_follows_its_send_event() {
        let trace =
            [sent(0, 0, 3, 0), sent(1, 1, 3, 0), received(2, 1, 3, 0), received(3, 0, 3, 0)];
        let clocks: Vec<_> = entries(&trace).map(|(_, clock, _)| clock).collect();
        let dominates = |late: usize, early: usize| {
            clocks[early].iter().all(|(host, time)| clocks[late].get(host) >= Some(time))
        };
        assert!(dominates(2, 0) && dominates(3, 1));
        assert!(!dominates(1, 0) && !dominates(0, 1), "concurrent events");
    }

    #[test]
    fn clock_of_a_host_counts_its_events_from_one() {
        let mut trace = vec![Event { at_ms: 0, node: None, kind: EventKind::Healed }];
        trace.extend((0..40).map(|index| sent(index, index % 2, 1, index)));
        trace.extend((0..40).map(|index| received(50, 1 - index % 2, 1, index)));
        let mut last = super::Clock::new();
        for (host, clock, _) in entries(&trace) {
            let expected = last.get(&host).copied().unwrap_or(0) + 1;
            assert_eq!(clock[&host], expected, "{host}");
            last.insert(host, expected);
        }
        assert_eq!(last.len(), 3);
    }

    #[test]
    fn entry_has_two_lines_even_if_the_text_has_line_breaks() {
        let kind =
            EventKind::Violated { invariant: "x".into(), text: "one\ntwo\r\nthree {".into() };
        let trace = [sent(0, 0, 3, 0), Event { at_ms: 7, node: None, kind }, received(9, 1, 3, 0)];
        let log = super::shiviz(&trace);
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 2 + 2 * trace.len(), "{log}");
        assert_eq!(&lines[..2], [super::PARSER, ""]);
        assert_eq!(lines[6], r#"node-1 {"node-0":1,"node-1":1}"#);
        assert_eq!(lines[5], "7 ms: VIOLATED x: one two  three {");
    }

    #[test]
    fn empty_trace_is_a_log_without_entries() {
        assert_eq!(super::shiviz(&[]).lines().count(), 2);
    }
}
