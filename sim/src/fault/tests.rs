//! Every kind of fault keeps its serialised form and its texts: traces, corpus and reports hold
//! them.

use super::*;

const A: Node = Node(0);
const B: Node = Node(1);

/// Returns a fault of each kind, its serialised form, and its text.
fn one_of_each() -> Vec<(Fault, &'static str, &'static str)> {
    let (a, b, node, pool) = (A, B, B, 2);
    vec![
        (Cut { a, b }.into(), r#"{"fault":"cut","a":0,"b":1}"#, "cut node-0 | node-1"),
        (
            CutOneWay { from: b, to: a }.into(),
            r#"{"fault":"cut_one_way","from":1,"to":0}"#,
            "cut node-1 -> node-0",
        ),
        (Hold { a, b }.into(), r#"{"fault":"hold","a":0,"b":1}"#, "hold node-0 | node-1"),
        (Repair { a, b }.into(), r#"{"fault":"repair","a":0,"b":1}"#, "repair node-0 | node-1"),
        (
            Slow { a, b, ms: 7 }.into(),
            r#"{"fault":"slow","a":0,"b":1,"ms":7}"#,
            "slow node-0 | node-1: 7 ms",
        ),
        (PowerLoss { node }.into(), r#"{"fault":"power_loss","node":1}"#, "power loss of node-1"),
        (Restart { node }.into(), r#"{"fault":"restart","node":1}"#, "restart of node-1"),
        (
            Skew { node, ms: -5 }.into(),
            r#"{"fault":"skew","node":1,"ms":-5}"#,
            "wall clock of node-1 off by -5 ms",
        ),
        (
            Drift { node, ppm: 9 }.into(),
            r#"{"fault":"drift","node":1,"ppm":9}"#,
            "clocks of node-1 off by 9 ppm",
        ),
        (
            Bounce { node, grace_ms: 3 }.into(),
            r#"{"fault":"bounce","node":1,"grace_ms":3}"#,
            "bounce of node-1, grace 3 ms",
        ),
        (Pause { node }.into(), r#"{"fault":"pause","node":1}"#, "node-1 is paused"),
        (
            Resume { node, clock: ClockWhilePaused::Frozen }.into(),
            r#"{"fault":"resume","node":1,"clock":"frozen"}"#,
            "node-1 resumes, and its clocks were frozen",
        ),
        (
            PoolDown { node, pool, reason: Outage::NotInitialised }.into(),
            r#"{"fault":"pool_down","node":1,"pool":2,"reason":"not_initialised"}"#,
            "pool 2 of node-1 is not initialised",
        ),
        (
            PoolUp { node, pool }.into(),
            r#"{"fault":"pool_up","node":1,"pool":2}"#,
            "pool 2 of node-1 is online",
        ),
    ]
}

#[test]
fn serialised_form_and_text_of_each_kind_are_kept() {
    assert_eq!(one_of_each().len(), Fault::KINDS, "a kind is missing here");
    for (fault, json, text) in one_of_each() {
        assert_eq!(serde_json::to_string(&fault).expect("it can be encoded"), json);
        assert_eq!(serde_json::from_str::<Fault>(json).expect("it can be decoded"), fault);
        assert!(json.starts_with(&format!(r#"{{"fault":"{}","#, fault.kind())), "{json}");
        assert_eq!(fault.to_string(), text);
    }
}

#[test]
fn unknown_field_of_a_fault_is_refused() {
    let json = r#"{"fault":"pause","node":1,"clock":"ran"}"#;
    let error = serde_json::from_str::<Fault>(json).expect_err("a pause has no clock");
    assert!(error.to_string().contains("unknown field"), "{error}");
}

#[test]
fn debug_form_is_that_of_the_kind() {
    let fault = Fault::from(Cut { a: A, b: B });
    // The digests of traces are those of releases in which a fault was one enum.
    assert_eq!(format!("{fault:?}"), "Cut { a: Node(0), b: Node(1) }");
}

#[test]
fn fault_of_an_absent_node_is_refused() {
    for (fault, ..) in one_of_each() {
        assert_eq!(fault.check(2), Ok(()), "{fault}");
        let error = fault.check(1).expect_err("node-1 is absent");
        assert_eq!(error, "a fault concerns node-1, which does not exist", "{fault}");
        assert!(fault.concerns(B) && !fault.concerns(Node(7)), "{fault}");
    }
}

#[test]
fn drift_beyond_the_bounds_is_refused() {
    let error = Fault::from(Drift { node: A, ppm: -10_001 }).check(2).expect_err("too fast");
    assert!(error.contains("at most 10000 ppm"), "{error}");
}
