//! The demo, from its command line to its verdict.
#![allow(clippy::expect_used, reason = "this is how tests fail")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use support::{gridwire, run, signal};

#[test]
fn a_demo_ends_with_a_table_and_a_verdict() {
    let ended = run(&["demo", "--nodes", "3", "--seconds", "4"]);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        let start = format!("node {from} → node {to} ");
        let line = ended.stdout.lines().find(|line| line.starts_with(&start));
        let line = line.expect("every pair has a line").trim_end();
        // The third is killed, so its pairs reconnect once and show how long that took.
        let is_hit = from == 3 || to == 3;
        assert_eq!(line.ends_with(" ms"), is_hit, "{line}");
        assert_eq!(line.ends_with(" -"), !is_hit, "{line}");
    }
    // A steady stream of each pair is nearly always open, so the kill cut some.
    let streams = ended.stdout.lines().find(|line| line.starts_with("on streams: "));
    let streams = streams.expect("there is a line about messages");
    assert!(!streams.contains(" 0 streams were cut") && !streams.contains(": 0 "), "{streams}");
    let verdict = ended.stdout.lines().last().expect("there is output");
    assert!(verdict.starts_with("every one of "), "{verdict}");
    assert!(verdict.contains(" streams had exactly one outcome; all "), "{verdict}");
    let locks = ended.stdout.lines().find(|line| line.contains(" tries for locks: "));
    assert!(locks.expect("there is a line about locks").contains(" granted, "), "{locks:?}");
    assert!(verdict.contains(" came back once, in order; "), "{verdict}");
    let end = " locks were held, with tokens that grew, and none by two at once; all 3 connections \
               are up at both ends";
    assert!(verdict.ends_with(end), "{verdict}");
}

#[test]
fn a_demo_that_is_interrupted_shows_what_there_was() {
    let mut child = gridwire(&["demo", "--nodes", "2", "--seconds", "600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gridwire can be run");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("calls/s") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("text"), 0, "it ended before its first line");
    }
    signal(&child, "INT");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("it is our child").code(), Some(130), "{rest}");
    assert!(rest.contains("node 1 → node 2 "), "{rest}");
    assert!(!rest.contains("every one of"), "{rest}");
}

#[test]
fn a_demo_has_limits() {
    for (flag, value, allowed) in [
        ("--nodes", "1", "2..=16"),
        ("--nodes", "17", "2..=16"),
        ("--seconds", "2", "3..=3600"),
        ("--seconds", "3601", "3..=3600"),
    ] {
        let ended = run(&["demo", flag, value]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for expected in [flag, value, allowed] {
            assert!(ended.stderr.contains(expected), "{ended:?}");
        }
    }
}
