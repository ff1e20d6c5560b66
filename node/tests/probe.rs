//! `gridwire call` and `gridwire bench` against running servers.
#![allow(clippy::expect_used, reason = "this is how tests fail")]

mod support;

use support::{Cluster, Ended, run};

#[test]
fn a_bench_prints_one_line_of_json() {
    let cluster = Cluster::start();
    let url = cluster.servers[0].url();
    let ended = run(&[
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
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert!(json["ops"].as_u64().expect("a number") > 0, "{json}");
    assert!(json["ops_per_second"].as_f64().expect("a number") > 0.0, "{json}");
    let latency = |part: &str| json["latency_us"][part].as_f64().expect("a number");
    let parts = ["p50", "p90", "p99", "p999", "max"].map(latency);
    assert!(parts.is_sorted() && parts[0] > 0.0, "{json}");
    assert_eq!(json["errors"], serde_json::json!({}));
}

/// Runs a short bench of streams against the first server.
fn bench_streams(cluster: &Cluster, rest: &[&str]) -> Ended {
    let url = cluster.servers[0].url();
    let short = ["--seconds", "1", "--warmup", "0", "--timeout", "30s"];
    let probe = ["--name", &cluster.clients[0], "--secret-file", &cluster.secret_file];
    run(&[&["bench", "--stream", "--peer", &url][..], &probe, &short, rest].concat())
}

#[test]
fn a_bench_of_streams_counts_what_the_other_end_confirms() {
    let cluster = Cluster::start();
    let ended = bench_streams(&cluster, &["--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
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
fn a_bench_of_as_many_streams_as_were_asked_for_prints_a_table() {
    let cluster = Cluster::start();
    let ended = bench_streams(&cluster, &["--concurrency", "3", "--size", "0"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for way in ["      3  one way ", "      3  echoed "] {
        let lines = ended.stdout.lines().filter(|line| line.starts_with(way)).count();
        assert_eq!(lines, 1, "{ended:?}");
    }
}

#[test]
fn a_probe_with_another_secret_is_told_so() {
    let cluster = Cluster::start();
    let wrong = cluster.directory.file("wrong", "what nobody knows");
    for server in &cluster.servers {
        let url = server.url();
        let rest = ["--name", &cluster.clients[0], "--secret-file", &wrong, "--timeout", "10s"];
        let call = run(&[&["call", &url, "echo", "hello"][..], &rest].concat());
        let bench = run(&[&["bench", "--peer", &url][..], &rest].concat());
        for ended in [call, bench] {
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("signed with another secret"), "{ended:?}");
            assert!(!ended.stderr.contains("what nobody knows"), "{ended:?}");
        }
    }
}

#[test]
fn a_probe_whose_name_the_server_does_not_know_is_told_so() {
    let cluster = Cluster::start();
    let [stranger] = support::free_addresses();
    let name = format!("http://{stranger}");
    for server in &cluster.servers {
        let url = server.url();
        let secret_file = &cluster.secret_file;
        let ended = run(&[
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
        assert_eq!(ended.code, Some(1), "{ended:?}");
        // Said by the server if the probe is the one to dial. If the server is, it never does.
        let is_said = ended.stderr.contains("is not a server of this cluster");
        let is_guessed = ended.stderr.contains(&format!("is {name} among its clients?"));
        assert!(is_said || is_guessed, "{ended:?}");
    }
}

#[test]
fn a_server_that_does_not_run_is_waited_for_as_long_as_was_said() {
    let mut cluster = Cluster::start();
    cluster.servers[0].kill();
    let url = cluster.servers[0].url();
    let ended = run(&[
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
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("not connected to {url} within 300ms")), "{ended:?}");
}

#[test]
fn a_call_may_be_slower_than_its_caller_has_time() {
    let cluster = Cluster::start();
    let url = cluster.servers[1].url();
    // Long enough to be dialled, much shorter than the handler.
    let ended = run(&[
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
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("deadline exceeded calling"), "{ended:?}");
}

#[test]
fn what_is_wrong_with_a_probe_is_said_before_anything_is_done() {
    let directory = support::Directory::new();
    let secret_file = directory.file("secret", "a good secret");
    let short = directory.file("short", "short");
    let name = "http://127.0.0.1:1";
    let peer = "http://127.0.0.1:2";
    for (arguments, expected) in [
        (vec!["call", "nowhere", "echo", "x"], "it must be a base URL"),
        (vec!["call", peer, "shout", "x"], "[possible values: echo, sleep]"),
        (vec!["call", peer, "sleep", "long"], "it must be milliseconds, 0 to 4294967295"),
        (vec!["call", name, "echo", "x"], "--name http://127.0.0.1:1 is the server that is to be"),
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
        let ended = run(&[&arguments[..], &rest].concat());
        assert_eq!(ended.code, Some(2), "{arguments:?} {ended:?}");
        assert!(ended.stderr.contains(expected), "{arguments:?} {ended:?}");
    }
    let ended = run(&["call", peer, "echo", "x", "--name", name, "--secret-file", &short]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("at least 8"), "{ended:?}");
}
