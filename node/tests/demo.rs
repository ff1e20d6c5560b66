//! The demo, from its command line to its exit code.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use support::{gridwire, run, signal};

#[test]
fn demo_ends_with_a_table_and_a_summary() {
    let output = run(&["demo", "--nodes", "3", "--seconds", "4"]);
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        let start = format!("{from} → {to} ");
        let line = output.stdout.lines().find(|line| line.starts_with(&start));
        let line = line.expect("every pair has a line").trim_end();
        // The third is killed, so its pairs reconnect once, and show how long that took.
        let was_killed = from == 3 || to == 3;
        assert_eq!(line.ends_with(" ms"), was_killed, "{line}");
        assert_eq!(line.ends_with(" -"), !was_killed, "{line}");
    }
    // A steady stream of each pair is open almost always, so the kill cuts some.
    let words = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, streams) = words.split_once("on streams: ").expect("there is a line about messages");
    assert!(!streams.starts_with("0 messages"), "{streams}");
    assert!(!streams.contains("; 0 streams interrupted by the kill"), "{streams}");
    assert!(words.contains(" lock attempts: ") && words.contains(" granted, "), "{words}");
    let (_, summary) = words.split_once("demo succeeded: - ").expect("there is a summary");
    for expected in [
        " calls had exactly one outcome each - ",
        " streams had exactly one outcome each - ",
        " messages on finished streams were echoed once, in order - ",
        " locks held: tokens grew, and no holders conflicted - ",
    ] {
        assert!(summary.contains(expected), "{summary}");
    }
    assert!(summary.ends_with("all 3 connections are up at both ends"), "{summary}");
}

#[test]
fn interrupted_demo_prints_its_table() {
    let mut child = gridwire(&["demo", "--nodes", "2", "--seconds", "600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gridwire runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("calls/s") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("text"), 0, "it ended before its first line");
    }
    signal(&child, "INT");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("waiting for the child succeeds").code(), Some(130), "{rest}");
    assert!(rest.contains("\n1 → 2 "), "{rest}");
    assert!(!rest.contains("demo succeeded"), "{rest}");
}

#[test]
fn demo_arguments_have_limits() {
    for (flag, value, allowed) in [
        ("--nodes", "1", "2..=16"),
        ("--nodes", "17", "2..=16"),
        ("--seconds", "2", "3..=3600"),
        ("--seconds", "3601", "3..=3600"),
    ] {
        let output = run(&["demo", flag, value]);
        assert_eq!(output.code, Some(2), "{output:?}");
        for expected in [flag, value, allowed] {
            assert!(output.stderr.contains(expected), "{output:?}");
        }
    }
}
