//! Pairing of events, and escaping: no text of a trace can break out of the page.

use crate::event::{
    CallKind, ConnectionState, Event, EventKind, HandlerEnd, MessageSummary, Outcome,
};
use crate::fault::{Cut, CutOneWay, PowerLoss, Repair, Restart, Slow};
use crate::plan::{Cluster, Fault, LimitsPlan, Node, Plan};

use super::diagram::{Arrow, BarSide, Diagram, Tone};
use super::fault_spans::FaultSpan;

pub(super) fn at(at_ms: u64, node: u64, kind: EventKind) -> Event {
    Event { at_ms, node: Some(Node(u8::try_from(node).expect("few nodes"))), kind }
}

pub(super) fn sent(at_ms: u64, node: u64, socket: u32, index: u64) -> Event {
    call_message_sent(at_ms, node, (socket, index), ("Ping", 0, None))
}

pub(super) fn received(at_ms: u64, node: u64, socket: u32, index: u64) -> Event {
    at(at_ms, node, EventKind::MessageReceived { socket, index })
}

fn call_message_sent(
    at_ms: u64,
    node: u64,
    (socket, index): (u32, u64),
    (op, mux_id, call): (&str, u64, Option<u32>),
) -> Event {
    let message = MessageSummary { op: op.into(), mux_id, sequence: 0, flags: 0, bytes: 0, call };
    at(at_ms, node, EventKind::MessageSent { socket, index, message })
}

fn plan() -> Plan {
    let cluster = Cluster {
        nodes: 3,
        tick_ms: 1,
        latency_min_ms: 1,
        latency_max_ms: 5,
        socket_segments: 64,
        limits: LimitsPlan::default(),
        fault_points: vec![],
        late: vec![],
        wrong_secret_nodes: vec![],
        locks: None,
        iam: None,
        metrics: None,
    };
    let scenario = "</script><!-- & \u{2028}".to_owned();
    let seed = u64::MAX;
    Plan { scenario, seed, cluster, duration_ms: 9, faults: vec![], load: vec![] }
}

fn diagram(events: &[Event]) -> Diagram {
    Diagram::of(&plan(), events)
}

fn fault(at_ms: u64, fault: Fault) -> Event {
    Event { at_ms, node: None, kind: EventKind::Fault { fault } }
}

#[test]
fn message_is_paired_by_socket_direction_and_index() {
    // Both directions count from 0, and another socket has the same numbers.
    let trace = [
        sent(0, 0, 7, 0),
        sent(0, 1, 7, 0),
        sent(1, 2, 8, 0),
        received(2, 0, 7, 0),
        received(3, 1, 7, 0),
        received(4, 1, 8, 0),
    ];
    let arrow = |sent, received, from, to| Arrow {
        sent,
        received: Some(received),
        from: Node(from),
        to: Some(Node(to)),
    };
    let expected = [arrow(0, 4, 0, 1), arrow(1, 3, 1, 0), arrow(2, 5, 2, 1)];
    assert_eq!(diagram(&trace).messages, expected);
}

#[test]
fn lost_message_still_has_its_receiver() {
    let opened = EventKind::SocketOpened { socket: 4, remote: Node(2), dialed: true };
    let trace = [at(0, 0, opened), sent(1, 0, 4, 0), sent(2, 1, 5, 0)];
    let messages = diagram(&trace).messages;
    assert_eq!((messages[0].received, messages[0].to), (None, Some(Node(2))));
    assert_eq!((messages[1].received, messages[1].to), (None, None));
}

#[test]
fn message_received_but_never_sent_is_not_drawn() {
    let twice =
        [sent(0, 0, 1, 0), received(1, 1, 1, 0), received(2, 1, 1, 0), received(3, 1, 9, 0)];
    let messages = diagram(&twice).messages;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].received, Some(1));
}

#[test]
fn p09_messages_belong_to_a_call_by_the_mux_id_of_its_caller() {
    let trace = [
        call_message_sent(0, 0, (1, 0), ("ConnectMux", 5, Some(70))),
        // The same mux id, of a call that the other end made.
        call_message_sent(0, 1, (1, 0), ("Request", 5, Some(80))),
        received(1, 1, 1, 0),
        received(1, 0, 1, 0),
        call_message_sent(2, 1, (1, 1), ("AckMux", 5, None)),
        call_message_sent(3, 0, (1, 1), ("Response", 5, None)),
        call_message_sent(4, 0, (1, 2), ("UnblockSrvMux", 5, None)),
        call_message_sent(5, 0, (2, 0), ("UnblockSrvMux", 5, None)),
        call_message_sent(6, 0, (1, 3), ("Ping", 0, None)),
        received(7, 1, 1, 2),
    ];
    let of = [
        Some(70),
        Some(80),
        Some(70),
        Some(80),
        Some(70),
        Some(80),
        Some(70),
        None,
        None,
        Some(70),
    ];
    assert_eq!(diagram(&trace).calls, of);
}

#[test]
fn call_has_a_bar_at_each_of_its_ends() {
    let made =
        EventKind::CallMade { call: 3, to: Node(1), kind: CallKind::Stream, timeout_ms: None };
    let trace = [
        at(0, 0, made),
        at(1, 1, EventKind::HandlerStarted { call: 3, from: Node(0) }),
        at(2, 0, EventKind::CallEnded { call: 3, outcome: Outcome::Deadline }),
        at(3, 1, EventKind::HandlerEnded { call: 3, how: HandlerEnd::Cancelled }),
        at(4, 1, EventKind::HandlerStarted { call: 4, from: Node(0) }),
    ];
    let bars = diagram(&trace).bars;
    let shape = |at: usize| {
        let bar = &bars[at];
        (bar.call, bar.node, bar.side, bar.start, bar.end, bar.tone, bar.stream)
    };
    assert_eq!(bars.len(), 3);
    assert_eq!(shape(0), (3, Node(0), BarSide::Caller, 0, Some(2), Tone::Expired, true));
    assert_eq!(shape(1), (3, Node(1), BarSide::Callee, 1, Some(3), Tone::Cancelled, true));
    assert_eq!(shape(2), (4, Node(1), BarSide::Callee, 4, None, Tone::Open, false));
}

#[test]
fn state_lasts_until_the_next_or_until_its_process_restarts() {
    let state = |state| EventKind::State { remote: Node(1), state, cause: None };
    let trace = [
        at(0, 0, state(ConnectionState::Connecting)),
        at(1, 2, state(ConnectionState::Connecting)),
        at(2, 0, state(ConnectionState::Connected)),
        at(3, 0, EventKind::Started { incarnation: 2 }),
        at(4, 0, state(ConnectionState::Connecting)),
        fault(5, Fault::PowerLoss(PowerLoss { node: Node(0) })),
    ];
    let ends: Vec<_> = diagram(&trace).states.iter().map(|span| (span.start, span.end)).collect();
    assert_eq!(ends, [(0, Some(2)), (1, None), (2, Some(3)), (4, Some(5))]);
}

#[test]
fn fault_lasts_until_an_event_ends_it() {
    let (a, b) = (Node(0), Node(1));
    let mut plan = plan();
    plan.cluster.late = vec![(Node(2), 6)];
    let trace = [
        fault(0, Fault::Cut(Cut { a, b })),
        fault(1, Fault::Slow(Slow { a, b, ms: 5 })),
        fault(2, Fault::Slow(Slow { a, b, ms: 9 })),
        fault(3, Fault::Repair(Repair { a: b, b: a })),
        fault(4, Fault::PowerLoss(PowerLoss { node: b })),
        fault(5, Fault::CutOneWay(CutOneWay { from: b, to: a })),
        at(6, 2, EventKind::Started { incarnation: 1 }),
        Event { at_ms: 7, node: None, kind: EventKind::Healed },
        fault(8, Fault::Restart(Restart { node: b })),
    ];
    let fault_spans = Diagram::of(&plan, &trace).faults;
    let shape = |span: &FaultSpan| (span.kind, span.start, span.end);
    let expected = [
        ("late", None, Some(6)),
        ("cut", Some(0), Some(3)),
        ("slow", Some(1), Some(2)),
        ("slow", Some(2), Some(3)),
        ("power_loss", Some(4), Some(8)),
        ("cut_one_way", Some(5), Some(7)),
    ];
    assert_eq!(fault_spans.iter().map(shape).collect::<Vec<_>>(), expected);
}

#[test]
fn text_of_a_trace_is_escaped_in_the_page() {
    let text = "</script><script>alert(1)</script><!--<script> /*data*/ \u{2028}\"'\\".to_owned();
    let kind = EventKind::Violated { invariant: "<!--".into(), text };
    let trace = [Event { at_ms: 1, node: None, kind }];
    let page = super::html(&plan(), &trace);
    let (_, data) = page.split_once(r#"id="data">"#).expect("the page has its data");
    let (data, rest) = data.split_once("</script>").expect("the data has an end");
    assert!(!data.contains('<'), "{data}");
    assert_eq!(rest.matches("<script>").count(), 1, "only the page's own");
    let read: serde_json::Value = serde_json::from_str(data).expect("the data is JSON");
    let event: Event =
        serde_json::from_value(read["events"][0].clone()).expect("the data is a list of events");
    assert_eq!(event, trace[0]);
    assert_eq!(read["seed"], "18446744073709551615", "as text: JavaScript has no 64-bit integers");
}

#[test]
fn page_is_self_contained() {
    let page = super::html(&plan(), &[]);
    for other in ["http:", "https:", "src=", "<link", "@import", "url(", "/*style*/", "/*script*/"]
    {
        assert!(!page.contains(other), "{other}");
    }
}

#[test]
fn text_has_a_line_for_each_event() {
    let text = super::text(&[sent(1, 0, 7, 3), received(2, 1, 7, 3)]);
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("node-1  socket 7 < 3"), "{text}");
}
