//! The command line program: exit codes, messages, files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::{Command, Output};

use sim::corpus::{self, Entry};
use sim::plan::{Fault, Load, Node, Plan, PlannedHandlerEnd, RequestPlan};

fn sim(arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_sim");
    Command::new(binary).args(arguments).output().expect("the binary of this crate runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns a folder for the files of one test.
fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("the target folder has a UTF-8 name")
}

/// Returns a plan that fails its scenario's expectation.
fn failing_plan() -> Plan {
    let mut plan = (sim::scenarios::find("partition_heals").expect("it exists").plan)(1);
    // Never repaired: the scenario expects reconnection.
    plan.faults.retain(|(_, fault)| !matches!(fault, Fault::Repair(_)));
    plan
}

fn save(test: &str, plan: Plan) -> PathBuf {
    let file = folder(test).join("plan.toml");
    let entry = Entry { about: "for a test".into(), invariant: String::new(), plan };
    corpus::write(&file, &entry).expect("a plan can be written");
    file
}

#[test]
fn passing_seeds_exit_with_0_and_a_summary() {
    let output = sim(&["run", "--scenario", "swarm", "--seeds", "0..3", "--jobs", "2"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains("3 runs in"), "{stdout}");
    assert!(stdout.contains("coverage points reached"), "{stdout}");
}

#[test]
fn run_with_json_prints_one_line_for_each_run() {
    let output = sim(&["run", "--scenario", "swarm", "--seeds", "5..7", "--json"]);
    let mut seeds: Vec<_> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .inspect(|line| assert!(line["violation"].is_null(), "{line}"))
        .map(|line| line["seed"].as_u64())
        .collect();
    seeds.sort();
    assert_eq!(seeds, [Some(5), Some(6)]);
}

/// `.ci/planted` relies on it: a passing run must not end the search for a violation.
#[test]
fn stop_at_first_continues_after_a_passing_run() {
    let arguments = ["run", "--scenario", "swarm", "--seeds", "0..3", "--json", "--stop-at-first"];
    let output = sim(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(text(&output.stdout).lines().count(), 3);
}

#[test]
fn failing_run_exits_with_1_and_prints_its_faults_and_last_events() {
    let file = save("failing", failing_plan());
    let output = sim(&["replay", "--schedule", path(&file)]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("FAILED: scenario partition_heals"), "{stdout}");
    assert!(stdout.contains("cut node-0 | node-2"), "{stdout}");
    assert!(stdout.contains("VIOLATED"), "{stdout}");
}

#[test]
fn trace_can_be_written_in_four_formats() {
    let folder = folder("trace");
    let begins = [
        ("page.html", "<!doctype html>"),
        ("run.jsonl", "{\"at_ms\":0"),
        ("run.txt", "    0.0"),
        ("run.shiviz", "(?<"),
    ];
    for (name, begin) in begins {
        let file = folder.join(name);
        let output = sim(&["replay", "3", "--trace", path(&file)]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        let trace = std::fs::read_to_string(&file).expect("the trace is there");
        assert!(trace.starts_with(begin), "{name}: {}", &trace[..80]);
    }
}

#[test]
fn shrunk_plan_fails_in_the_same_way() {
    let mut plan = failing_plan();
    // Fewer calls to remove: this test is about the command, not the search.
    plan.load.retain(|(at, load)| *at > 59_000 && load.ends() == (Node(0), Node(3)));
    let file = save("shrink", plan);
    let small = folder("shrink").join("small.toml");
    let output = sim(&["shrink", "--schedule", path(&file), "--out", path(&small), "--runs", "60"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}{}", text(&output.stderr));
    let entry = corpus::read(&small).expect("the small plan is there");
    assert_eq!(entry.plan.load.len(), 1, "{stdout}");
    assert_eq!(entry.invariant, "scenario partition_heals");
    let output = sim(&["replay", "--schedule", path(&small)]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
}

#[test]
fn invalid_command_line_or_file_exits_with_2() {
    let folder = folder("wrong");
    let file = |name: &str, content: &str| {
        let file = folder.join(name);
        std::fs::write(&file, content).expect("the target folder can be written");
        file
    };
    let garbage = file("garbage.toml", "seed = 'a'");
    let mut plan = Plan::quiet(2);
    plan.load.push((0, Load::Request(request(Node(7)))));
    let impossible = save("impossible", plan);
    let cases: [(&[&str], &str); 8] = [
        (&["run", "--scenario", "no_such"], "unknown scenario no_such; the scenarios are: "),
        (&["run", "--seeds", "9..3"], "is an empty range"),
        (&["run", "--seeds", "x"], "neither a seed nor a range"),
        (&["run", "--jobs", "0"], "invalid value '0'"),
        (&["replay"], "give a seed"),
        (&["replay", "--schedule", "/no/such/file"], "/no/such/file"),
        (&["replay", "--schedule", path(&garbage)], "neither a corpus entry nor a plan"),
        (&["replay", "--schedule", path(&impossible)], "node-7 cannot call node-1"),
    ];
    for (arguments, problem) in cases {
        let output = sim(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(problem), "{arguments:?}: {stderr}");
    }
    let output = sim(&["shrink", "3", "--out", path(&folder.join("none.toml"))]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nothing to shrink"));
}

fn request(from: Node) -> RequestPlan {
    RequestPlan {
        from,
        to: Node(1),
        bytes: 16,
        response_bytes: 16,
        work_ms: 0,
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: None,
    }
}

#[test]
fn every_scenario_is_listed() {
    let stdout = text(&sim(&["list"]).stdout);
    for scenario in sim::scenarios::ALL {
        assert!(stdout.contains(scenario.name), "{stdout}");
    }
}
