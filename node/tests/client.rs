//! `gridwire call` and `gridwire bench` against running servers.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use support::{Cluster, ProcessOutput, run};

#[test]
fn bench_json_prints_one_line() {
    let cluster = Cluster::start();
    let url = cluster.servers[0].url();
    let output = run(&[
        "bench",
        "--peer",
        &url,
        "--name",
        &cluster.clients[0],
        "--secret-file",
        &cluster.secret_file,
        "--concurrency",
        "8",
        "--size",
        "100",
        "--seconds",
        "1",
        "--warmup",
        "0",
        "--json",
        "--timeout",
        "30s",
    ]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    let json: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert!(json["ops"].as_u64().expect("a number") > 0, "{json}");
    assert!(json["ops_per_second"].as_f64().expect("a number") > 0.0, "{json}");
    let latency = |part: &str| json["latency_us"][part].as_f64().expect("a number");
    let parts = ["p50", "p90", "p99", "p999", "max"].map(latency);
    assert!(parts.is_sorted() && parts[0] > 0.0, "{json}");
    assert_eq!(json["errors"], serde_json::json!({}));
}

/// Runs a short bench of streams against the first server.
fn bench_streams(cluster: &Cluster, rest: &[&str]) -> ProcessOutput {
    let url = cluster.servers[0].url();
    let short = ["--seconds", "1", "--warmup", "0", "--timeout", "30s"];
    let probe = ["--name", &cluster.clients[0], "--secret-file", &cluster.secret_file];
    run(&[&["bench", "--stream", "--peer", &url][..], &probe, &short, rest].concat())
}

#[test]
fn bench_of_streams_counts_confirmed_messages() {
    let cluster = Cluster::start();
    let output = bench_streams(&cluster, &["--json"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    let json: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!((&json["size_bytes"], &json["capacity"]), (&512.into(), &64.into()), "{json}");
    let runs = json["runs"].as_array().expect("a list");
    let which: Vec<_> =
        runs.iter().map(|run| (run["streams"].as_u64(), run["way"].as_str())).collect();
    let both_ways = |streams| [(Some(streams), Some("one_way")), (Some(streams), Some("echoed"))];
    assert_eq!(which, [both_ways(1), both_ways(64)].concat(), "{json}");
    for run in runs {
        let confirmed = run["confirmed"].as_u64().expect("a number");
        assert!(confirmed > 0 && run["sent"].as_u64() == Some(confirmed), "{json}");
        assert_eq!(run["failed"], 0, "{json}");
        let seconds = run["seconds"].as_f64().expect("a number");
        let rate = run["messages_per_second"].as_f64().expect("a number");
        assert!(seconds >= 1.0 && (rate * seconds / confirmed as f64 - 1.0).abs() < 0.01, "{json}");
    }
}

#[test]
fn bench_of_streams_prints_a_row_per_direction() {
    let cluster = Cluster::start();
    let output = bench_streams(&cluster, &["--concurrency", "3", "--size", "0"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    for way in ["      3  one way ", "      3  echoed "] {
        let lines = output.stdout.lines().filter(|line| line.starts_with(way)).count();
        assert_eq!(lines, 1, "{output:?}");
    }
}

#[test]
fn tool_with_another_secret_gets_a_clear_error() {
    let cluster = Cluster::start();
    let wrong = cluster.directory.file("wrong", "a wrong secret");
    for server in &cluster.servers {
        let url = server.url();
        let rest = ["--name", &cluster.clients[0], "--secret-file", &wrong, "--timeout", "10s"];
        let call = run(&[&["call", &url, "echo", "hello"][..], &rest].concat());
        let bench = run(&[&["bench", "--peer", &url][..], &rest].concat());
        for output in [call, bench] {
            assert_eq!(output.code, Some(1), "{output:?}");
            assert!(output.stderr.contains("signed with another secret"), "{output:?}");
            assert!(!output.stderr.contains("a wrong secret"), "{output:?}");
        }
    }
}

#[test]
fn tool_with_an_unknown_name_gets_a_clear_error() {
    let cluster = Cluster::start();
    let [unknown] = support::free_addresses();
    let name = format!("http://{unknown}");
    for server in &cluster.servers {
        let url = server.url();
        let secret_file = &cluster.secret_file;
        let output = run(&[
            "call",
            &url,
            "echo",
            "hello",
            "--name",
            &name,
            "--secret-file",
            secret_file,
            "--timeout",
            "1s",
        ]);
        assert_eq!(output.code, Some(1), "{output:?}");
        // The server refuses if the tool is the dialer. If the server is, it never dials.
        let is_reported = output.stderr.contains("is not a server of this cluster");
        let is_suggested = output.stderr.contains(&format!("is {name} among its --clients?"));
        assert!(is_reported || is_suggested, "{output:?}");
    }
}

#[test]
fn stopped_server_is_waited_for_until_the_timeout() {
    let mut cluster = Cluster::start();
    cluster.servers[0].kill();
    let url = cluster.servers[0].url();
    let output = run(&[
        "call",
        &url,
        "echo",
        "hello",
        "--name",
        &cluster.clients[0],
        "--secret-file",
        &cluster.secret_file,
        "--timeout",
        "300ms",
    ]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(&format!("not connected to {url} within 300ms")), "{output:?}");
}

#[test]
fn slow_call_fails_at_its_deadline() {
    let cluster = Cluster::start();
    let url = cluster.servers[1].url();
    // Long enough for the connection, much shorter than the handler.
    let output = run(&[
        "call",
        &url,
        "sleep",
        "600000",
        "--name",
        &cluster.clients[0],
        "--secret-file",
        &cluster.secret_file,
        "--timeout",
        "7s",
    ]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("deadline exceeded calling"), "{output:?}");
}

#[test]
fn invalid_arguments_are_rejected_before_connecting() {
    let directory = support::Directory::new();
    let secret_file = directory.file("secret", "a good secret");
    let short = directory.file("short", "short");
    let name = "http://127.0.0.1:1";
    let peer = "http://127.0.0.1:2";
    for (arguments, expected) in [
        (vec!["call", "nowhere", "echo", "x"], "it must be a base URL"),
        (vec!["call", peer, "shout", "x"], "[possible values: echo, sleep]"),
        (vec!["call", peer, "sleep", "long"], "it must be milliseconds, 0 to 4294967295"),
        (vec!["call", name, "echo", "x"], "--name http://127.0.0.1:1 is the server to call"),
        (vec!["call", peer, "echo", "x", "--timeout", "5"], "such as 500ms, 10s or 2m"),
        (vec!["bench", "--peer", peer, "--concurrency", "0"], "0 is not in 1..=4096"),
        (vec!["bench", "--peer", peer, "--stream", "--concurrency", "0"], "0 is not in 1..=4096"),
        (vec!["bench", "--peer", peer, "--stream", "64"], "unexpected argument '64'"),
        (vec!["bench", "--peer", peer, "--stream=64"], "unexpected value '64' for '--stream'"),
        (vec!["call", peer, "echo", "x", "--stream"], "unexpected argument '--stream'"),
        (vec!["bench", "--peer", peer, "--size", "99999999"], "99999999 is not in 0..=16776192"),
        (vec!["bench", "--peer", peer, "--seconds", "0"], "0 is not in 1..=86400"),
    ] {
        let rest = ["--name", name, "--secret-file", &secret_file];
        let output = run(&[&arguments[..], &rest].concat());
        assert_eq!(output.code, Some(2), "{arguments:?} {output:?}");
        assert!(output.stderr.contains(expected), "{arguments:?} {output:?}");
    }
    let output = run(&["call", peer, "echo", "x", "--name", name, "--secret-file", &short]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("at least 8"), "{output:?}");
}
