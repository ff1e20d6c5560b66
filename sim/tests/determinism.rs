//! A seed determines a run completely. Every other test of this crate depends on it.
//!
//! `.ci/deterministic` compares a debug with a release build in the same way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use sim::run::Run;
use sim::{swarm, sweep};

const SEEDS: u64 = 20;

fn run(seed: u64) -> Run {
    sweep::run_plan(&swarm::plan_with_everything(seed))
}

/// Returns the digests of a fresh process, by seed.
fn digests_of_another_process() -> Vec<(u64, String)> {
    let seeds = format!("0..{SEEDS}");
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        // One thread, so that runs end in the order of their seeds. Task ids differ from this
        // process.
        .args(["run", "--scenario", "everything", "--seeds", &seeds, "--jobs", "1", "--json"])
        .output()
        .expect("the binary of this crate runs");
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let parse = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let digest = line["digest"].as_str().expect("a digest").to_owned();
        (line["seed"].as_u64().expect("a seed"), digest)
    };
    lines.lines().map(parse).collect()
}

#[test]
fn same_seed_gives_the_same_trace_in_this_and_in_a_fresh_process() {
    let mut digests = Vec::new();
    for seed in 0..SEEDS {
        let (first, second) = (run(seed), run(seed));
        let differ = first.events.iter().zip(&second.events).position(|(a, b)| a != b);
        if let Some(at) = differ {
            panic!("seed {seed} differs at {at}: {} / {}", first.events[at], second.events[at]);
        }
        assert_eq!(first.events.len(), second.events.len(), "seed {seed}");
        assert!(first.events.len() > 100, "seed {seed} has few events");
        digests.push((seed, format!("{:016x}", first.digest())));
    }
    assert_eq!(digests, digests_of_another_process());
}

#[test]
fn different_seeds_give_different_traces() {
    assert_ne!(run(1).digest(), run(2).digest());
}

#[test]
fn run_depends_on_its_plan_alone() {
    let plan = swarm::plan(4, None);
    let text = toml::to_string(&plan).expect("a plan can be written");
    let read = toml::from_str(&text).expect("a written plan can be read");
    assert_eq!(plan, read);
    assert_eq!(sweep::run_plan(&plan).digest(), sweep::run_plan(&read).digest());
}
