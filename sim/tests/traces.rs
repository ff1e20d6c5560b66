//! The events of six canonical situations, as reviewed snapshots of small plans.
//!
//! The snapshots omit pings and pongs, received messages, and everything after healing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use insta::assert_snapshot;
use sim::event::EventKind;
use sim::fault::{Cut, PowerLoss, Repair, Restart};
use sim::plan::{Fault, Load, Node, Plan, PlannedHandlerEnd, RequestPlan, StreamPlan};
use sim::sweep::run_plan;

const A: Node = Node(0);
const B: Node = Node(1);

fn plan(duration_ms: u64) -> Plan {
    let mut plan = Plan::quiet(2);
    plan.duration_ms = duration_ms;
    (plan.cluster.latency_min_ms, plan.cluster.latency_max_ms) = (5, 5);
    plan.cluster.limits.ping_interval_ms = Some(1_000);
    plan
}

fn request(from: Node, to: Node) -> RequestPlan {
    RequestPlan {
        from,
        to,
        bytes: 100,
        response_bytes: 50,
        work_ms: 0,
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: None,
    }
}

fn stream(from: Node, to: Node, up: u32, down: u32) -> StreamPlan {
    StreamPlan {
        from,
        to,
        capacities: 1,
        up,
        down,
        bytes: 20,
        up_pace_ms: 0,
        down_pace_ms: 0,
        receive_pace_ms: Some(0),
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: Some(5_000),
    }
}

/// Returns the events of a run, one line each.
fn page(plan: &Plan) -> String {
    plan.check().expect("the plan can be run");
    let run = run_plan(plan);
    assert_eq!(run.violation, None);
    let until_healed = run.events.iter().take_while(|event| event.kind != EventKind::Healed);
    let shown = until_healed.filter(|event| match &event.kind {
        EventKind::MessageReceived { .. } => false,
        EventKind::MessageSent { message, .. } => message.op != "Ping" && message.op != "Pong",
        _ => true,
    });
    shown.map(|event| format!("{event}\n")).collect()
}

#[test]
fn request_and_response() {
    let mut plan = plan(300);
    plan.load.push((100, Load::Request(request(A, B))));
    plan.load.push((
        150,
        Load::Request(RequestPlan { ending: PlannedHandlerEnd::Panic, ..request(B, A) }),
    ));
    plan.load.push((
        200,
        Load::Request(RequestPlan { ending: PlannedHandlerEnd::Unknown, ..request(A, B) }),
    ));
    assert_snapshot!(page(&plan));
}

#[test]
fn stream_with_one_credit_in_each_direction() {
    let mut plan = plan(400);
    plan.load.push((100, Load::Stream(stream(A, B, 2, 2))));
    assert_snapshot!(page(&plan));
}

#[test]
fn call_is_cancelled() {
    let mut plan = plan(400);
    let unresponsive = RequestPlan { ending: PlannedHandlerEnd::Never, ..request(A, B) };
    plan.load.push((
        100,
        Load::Request(RequestPlan { cancel_after_ms: Some(50), ..unresponsive.clone() }),
    ));
    plan.load.push((200, Load::Request(RequestPlan { timeout_ms: Some(50), ..unresponsive })));
    assert_snapshot!(page(&plan));
}

#[test]
fn half_open_peer_is_detected_by_pings() {
    let mut plan = plan(6_000);
    plan.load.push((1_020, Load::Request(request(A, B))));
    // Messages in flight are lost without any notification.
    plan.faults.push((1_025, Fault::Cut(Cut { a: A, b: B })));
    plan.faults.push((1_030, Fault::Repair(Repair { a: A, b: B })));
    assert_snapshot!(page(&plan));
}

#[test]
fn power_loss_with_a_call_in_flight() {
    let mut plan = plan(6_000);
    let served = RequestPlan { work_ms: 1_000, ..request(A, B) };
    plan.load.push((100, Load::Request(served)));
    plan.faults.push((300, Fault::PowerLoss(PowerLoss { node: B })));
    plan.faults.push((400, Fault::Restart(Restart { node: B })));
    plan.load.push((5_500, Load::Request(request(A, B))));
    assert_snapshot!(page(&plan));
}

#[test]
fn peer_with_a_wrong_secret_is_refused() {
    let mut plan = plan(800);
    plan.cluster.wrong_secret_nodes.push(B);
    plan.load.push((500, Load::Request(request(A, B))));
    assert_snapshot!(page(&plan));
}
