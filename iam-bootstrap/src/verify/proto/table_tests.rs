//! Every state of a peer and every event, as a table. Two more peers keep the verification waiting.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;

const STATES: [&str; 7] = [
    "idle",
    "in flight",
    "agrees",
    "differs",
    "differs, in flight",
    "unreachable",
    "unreachable, in flight",
];

fn config(region: &str) -> SystemConfig {
    SystemConfig { arguments: vec![format!("--region={region}")], ..SystemConfig::default() }
}

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

/// Leads peer 0 to this state.
fn in_state(state: &str) -> Verify {
    let ours = Arc::new(config("east"));
    let mut verify =
        Verify::new(VerifyConfig { ours, peers: 3, deadline: None, seed: 1 }, Instant::default());
    for peer in &mut verify.peers[1..] {
        peer.request_at = Some(at(1_000_000));
    }
    let request = |verify: &mut Verify, seconds| {
        assert_eq!(verify.poll_request(at(seconds)), Some(0));
    };
    if state == "idle" {
        return verify;
    }
    request(&mut verify, 10);
    let response = match state.split(',').next() {
        Some("agrees") => Ok(None),
        Some("differs") => Ok(Some(config("west"))),
        Some("unreachable") => Err("not connected".into()),
        _ => return verify,
    };
    verify.handle_response(0, response, at(10));
    if state.ends_with("in flight") {
        request(&mut verify, 20);
    }
    verify
}

type Event = (&'static str, fn(&mut Verify));

fn events() -> Vec<Event> {
    vec![
        ("time", |verify| verify.handle_timeout(at(30))),
        ("poll_request", |verify| {
            let polled = verify.poll_request(at(30));
            assert!(polled.is_none_or(|peer| peer == 0));
        }),
        ("the same", |verify| verify.handle_response(0, Ok(None), at(30))),
        ("west", |verify| verify.handle_response(0, Ok(Some(config("west"))), at(30))),
        ("another build", |verify| {
            let build = SystemConfig { version: "2".to_owned(), ..config("east") };
            verify.handle_response(0, Ok(Some(build)), at(30));
        }),
        ("north", |verify| verify.handle_response(0, Ok(Some(config("north"))), at(30))),
        ("no response", |verify| verify.handle_response(0, Err("timed out".into()), at(30))),
    ]
}

fn show(verify: &mut Verify) -> String {
    let peer = &verify.peers[0];
    let agreement = match &peer.agreement {
        Agreement::Unknown => "unknown".to_owned(),
        Agreement::Agrees => "agrees".to_owned(),
        Agreement::Varies { .. } => "agrees, another build".to_owned(),
        Agreement::Differs { difference, .. } => {
            let region = ["west", "north"]
                .into_iter()
                .find(|region| *difference == super::difference(&verify.ours, &config(region)));
            format!("differs: {}", region.unwrap_or("?"))
        }
    };
    let next = match (peer.in_flight, peer.request_at) {
        (true, _) => "in flight",
        (false, Some(at)) if at <= Instant::default() + SPREAD_MAX => "first request",
        (false, Some(_)) => "retry",
        (false, None) => "no request",
    };
    let (failure, attempts) = (peer.failure.as_deref().unwrap_or("none"), peer.attempts);
    let mut text = format!("{agreement}, {next}, failure {failure}, attempts {attempts}");
    if verify.report_at.is_some() {
        text.push_str("; report is due");
    }
    while let Some(report) = verify.poll_report() {
        let name = match report {
            Report::Differ { .. } => "differ",
            Report::Varies { .. } => "varies",
            Report::LocalIsOutlier { .. } => "outlier",
            Report::NowAgrees { .. } => "now agrees",
            Report::Unreachable { .. } => "unreachable",
        };
        text.push_str(&format!("; reports: {name}"));
    }
    text
}

#[test]
fn b60_every_state_of_a_peer_and_event() {
    let mut table = String::new();
    for state in STATES {
        for (event, apply) in events() {
            let mut verify = in_state(state);
            apply(&mut verify);
            let after = show(&mut verify);
            writeln!(table, "{state:<22} | {event:<13} | {after}").expect("text");
        }
    }
    insta::assert_snapshot!(table);
}
