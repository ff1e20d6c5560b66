//! Each point is reached by the last event of its sequence, and by nothing before.

use std::time::Duration;

use super::*;
use crate::event::MessageSummary;
use crate::fault::{Bounce, Cut, CutOneWay, Drift, Hold, PowerLoss, Repair, Restart, Skew, Slow};
use crate::plan::{Plan, PlannedHandlerEnd, StreamPlan};
use crate::world::World;

const A: Node = Node(0);
const B: Node = Node(1);

fn made(kind: CallKind) -> EventKind {
    EventKind::CallMade { call: 0, to: B, kind, timeout_ms: None }
}

fn ended(outcome: Outcome) -> EventKind {
    EventKind::CallEnded { call: 0, outcome }
}

fn handler(how: HandlerEnd) -> EventKind {
    EventKind::HandlerEnded { call: 0, how }
}

fn state(state: ConnectionState, cause: &str) -> EventKind {
    EventKind::State { remote: B, state, cause: Some(cause.to_owned()) }
}

fn opened(socket: SocketId) -> EventKind {
    EventKind::SocketOpened { socket, remote: B, dialed: false }
}

fn sent_message(socket: SocketId, op: &str) -> EventKind {
    let op = op.to_owned();
    let message = MessageSummary { op, mux_id: 0, sequence: 0, flags: 0, bytes: 0, call: None };
    EventKind::MessageSent { socket, index: 0, message }
}

/// Returns the events that reach a point, all in the same millisecond.
fn reaching(point: &str) -> Vec<EventKind> {
    use {CallKind::Request, CallKind::Stream};
    let request = || made(Request);
    let stream = || made(Stream);
    let served = || EventKind::HandlerStarted { call: 0, from: A };
    let waits = |end| EventKind::SendBlocked { call: 0, end, number: 1 };
    let refused = || Outcome::UnknownHandler;
    if let Some(kind) = point.strip_prefix("fault_") {
        return vec![EventKind::Fault { fault: fault(kind) }];
    }
    if let Some(point) = point.strip_prefix("buggify_") {
        return vec![EventKind::FaultPoint { point: point.to_owned(), lasts_ms: 1 }];
    }
    match point {
        "graceful_restart" => vec![
            EventKind::Fault { fault: fault("bounce") },
            state(ConnectionState::Shutdown, "this server is shutting down"),
        ],
        "call_succeeded" => vec![request(), ended(Outcome::Completed)],
        "call_disconnected_while_handler_runs" => {
            vec![request(), served(), ended(Outcome::Disconnected)]
        }
        "call_cancelled_before_handler_started" => vec![request(), ended(Outcome::Cancelled)],
        "call_cancelled_while_handler_runs" => {
            vec![request(), served(), ended(Outcome::Cancelled)]
        }
        "call_not_connected" => vec![request(), ended(Outcome::NotConnected)],
        "call_to_unknown_handler" => vec![request(), ended(refused())],
        "connection_closed_by_missed_pings" => {
            vec![state(ConnectionState::Backoff, "2 pings in a row without a pong")]
        }
        "connection_superseded" => vec![
            opened(1),
            sent_message(1, "Response"),
            opened(2),
            sent_message(2, "ConnectResponse"),
            sent_message(2, "Ping"),
        ],
        "crash_with_calls_in_flight" => vec![request(), ended(Outcome::Crashed)],
        "deadline_exceeded" => vec![request(), ended(Outcome::Deadline)],
        "dial_timed_out" => vec![state(ConnectionState::Backoff, "no response within 5s")],
        "handler_failed" => vec![request(), served(), handler(HandlerEnd::Failed)],
        "handler_panicked" => vec![request(), served(), handler(HandlerEnd::Panicked)],
        "rejected_for_clock_skew" => {
            vec![state(
                ConnectionState::Backoff,
                "rejected: time difference too large: the clocks of",
            )]
        }
        "rejected_for_auth_token" => {
            vec![state(ConnectionState::Backoff, "rejected: auth token: it is not signed")]
        }
        "response_arrived_as_connection_died" => {
            vec![request(), state(ConnectionState::Backoff, "reset"), ended(Outcome::Completed)]
        }
        "send_blocked_and_cancelled" => {
            vec![stream(), served(), waits(StreamSide::Caller), ended(Outcome::Cancelled)]
        }
        "stream_succeeded" => vec![stream(), ended(Outcome::Completed)],
        "stream_ended_in_tick_of_cancel" => {
            vec![stream(), served(), ended(Outcome::Cancelled), handler(HandlerEnd::Returned)]
        }
        "stream_cancelled_with_full_buffer" => {
            vec![stream(), served(), waits(StreamSide::Callee), ended(Outcome::Cancelled)]
        }
        "stream_half_closed" => vec![
            stream(),
            EventKind::InputEnded { call: 0, end: StreamSide::Callee, clean: true },
            EventKind::Sent { call: 0, end: StreamSide::Callee, number: 1 },
        ],
        "stream_without_request_side" => vec![stream(), ended(Outcome::Completed)],
        _ => Vec::new(),
    }
}

fn fault(kind: &str) -> Fault {
    let (a, b, node) = (A, B, A);
    let all = [
        Fault::Cut(Cut { a, b }),
        Fault::CutOneWay(CutOneWay { from: a, to: b }),
        Fault::Hold(Hold { a, b }),
        Fault::Repair(Repair { a, b }),
        Fault::Slow(Slow { a, b, ms: 1 }),
        Fault::PowerLoss(PowerLoss { node }),
        Fault::Restart(Restart { node }),
        Fault::Skew(Skew { node, ms: 1 }),
        Fault::Drift(Drift { node, ppm: 1 }),
        Fault::Bounce(Bounce { node, grace_ms: 0 }),
    ];
    let found = all.into_iter().find(|fault| fault.kind() == kind);
    found.unwrap_or_else(|| panic!("no fault is called {kind}"))
}

/// A stream without a request side.
fn load() -> Load {
    Load::Stream(StreamPlan {
        from: A,
        to: B,
        capacities: 0,
        up: 0,
        down: 1,
        bytes: 16,
        up_pace_ms: 0,
        down_pace_ms: 0,
        receive_pace_ms: Some(0),
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: None,
    })
}

fn reached(events: &[EventKind]) -> Coverage {
    let mut coverage = Coverage::default();
    for kind in events {
        let event = Event { at_ms: 7, node: Some(A), kind: kind.clone() };
        coverage.on_event(&event, Some(&load()));
    }
    coverage
}

#[test]
fn each_point_is_reached_by_the_last_event_of_its_sequence() {
    for point in POINTS.iter().filter(|point| **point != "message_waited_for_queue_space") {
        let events = reaching(point);
        let (last, before) = events.split_last().unwrap_or_else(|| panic!("no events for {point}"));
        assert!(!reached(before).counts.contains_key(*point), "{point} before {last}");
        assert!(!reached(&events).missing(POINTS).contains(point), "{point}");
    }
}

#[test]
fn message_waited_for_queue_space_is_reached_by_a_view() {
    let mut world = World::new(&Plan::quiet(2));
    world.run_for(Duration::from_secs(1));
    let mut views = world.views();
    let mut coverage = Coverage::default();
    coverage.on_view(&views);
    assert!(coverage.missing(POINTS).contains(&"message_waited_for_queue_space"));
    views[0].connections[0].blocked_messages = 1;
    coverage.on_view(&views);
    assert!(!coverage.missing(POINTS).contains(&"message_waited_for_queue_space"));
}

#[test]
fn similar_events_do_not_reach_a_point() {
    let backoff = || state(ConnectionState::Backoff, "the peer closed the connection");
    let reconnected =
        [opened(1), sent_message(1, "Ping"), backoff(), opened(2), sent_message(2, "Ping")];
    assert_eq!(reached(&reconnected).counts.get("connection_superseded"), None);
    let at_the_end = [state(ConnectionState::Shutdown, "this server is shutting down")];
    assert_eq!(reached(&at_the_end).counts.get("graceful_restart"), None);
    let no_token = [state(ConnectionState::Backoff, "no token: none")];
    assert_eq!(reached(&no_token).counts.get("rejected_for_auth_token"), None);
}

#[test]
fn response_may_precede_or_follow_the_loss_of_its_connection() {
    for lost in [ConnectionState::Backoff, ConnectionState::Connecting] {
        let lost = state(lost, "the peer closed the connection");
        let request = made(CallKind::Request);
        let completed = ended(Outcome::Completed);
        for events in [[&request, &completed, &lost], [&request, &lost, &completed]] {
            let events = events.map(EventKind::clone);
            assert!(reached(&events).counts.contains_key("response_arrived_as_connection_died"));
        }
    }
}

#[test]
fn required_points_depend_on_the_scenarios() {
    assert_eq!(points_of(["swarm"]), POINTS);
    assert_eq!(points_of(["locks", "locks_contention"]), LOCK_POINTS);
    assert_eq!(points_of(["iam", "iam_late_pools"]), IAM_POINTS);
    let both = points_of(["locks", "swarm"]);
    assert!(POINTS.iter().chain(LOCK_POINTS).all(|point| both.contains(point)));
    assert!(both.is_sorted_by(|one, next| one < next), "each once: {both:?}");
}
