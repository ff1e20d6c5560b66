//! Locks across processes: servers that grant them, and tools that hold them while a command runs.
//!
//! With four lockers, a writer's quorum is three. The commands and the tests synchronise through
//! files in the test's directory.
#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use support::ProcessOutput;
use support::lock::{
    Cluster, HOLD, HOLD_TO_THE_END, LOST, after, entry, start, wait_for_waiter, wait_open,
};

#[test]
fn lock_passes_to_the_next_holder_with_a_greater_token() {
    let cluster = start();
    let first = entry(&cluster, 0, 0).lock("first", &["a/b", "c"], HOLD);
    let token = first.token();
    let refused = entry(&cluster, 1, 1).lock("refused", &["c", "--timeout", "300ms"], HOLD);
    let refused = refused.end();
    assert_eq!(refused.code, Some(99), "{refused:?}");
    assert!(refused.stderr.contains("c is not locked: not locked within"), "{refused:?}");
    let other = entry(&cluster, 1, 1).lock("other", &["d"], "say held; exit 4").end();
    assert_eq!(other.code, Some(4), "unused holds that: {other:?}");

    let next = entry(&cluster, 2, 2).lock("next", &["c"], HOLD);
    wait_for_waiter(entry(&cluster, 3, 1));
    assert!(!next.has_file("held"));
    first.create_file("go");
    assert_eq!(first.end().code, Some(0));
    assert!(next.token() > token);
    next.create_file("go");
    assert_eq!(next.end().code, Some(0));
}

#[test]
fn readers_share_a_lock() {
    let cluster = start();
    let both = [("one", 0), ("two", 1)]
        .map(|(name, number)| entry(&cluster, number, number).lock(name, &["a", "--read"], HOLD));
    for tool in &both {
        tool.token();
    }
    let writer = entry(&cluster, 2, 2).lock("writer", &["a", "--timeout", "300ms"], HOLD).end();
    assert_eq!(writer.code, Some(99), "{writer:?}");
    for tool in both {
        tool.create_file("go");
        assert_eq!(tool.end().code, Some(0));
    }
}

#[test]
fn lock_survives_the_loss_of_one_of_four_lockers_but_not_of_two() {
    let mut cluster = start();
    // Longer than the lease: without refreshes the lock would be lost.
    let script = format!("sleep 6; say outlived; {HOLD_TO_THE_END}");
    let first = entry(&cluster, 0, 0).lock("first", &["a"], &format!("say begun; {script}"));
    first.wait_file("begun");
    cluster.servers[3].kill();
    let token = first.token();
    assert!(first.has_file("outlived"));

    cluster.servers[2].kill();
    let killed = Instant::now();
    let next = entry(&cluster, 1, 1).lock("next", &["a"], &after(&first));
    first.wait_file("ended");
    // At most the rest of the lease; the remainder is for slow machines.
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    assert!(!next.has_file("held"), "two of four are not a quorum");
    let lost = first.end();
    assert_eq!(lost.code, LOST, "{lost:?}");
    assert!(
        lost.stderr.contains("a is no longer locked, and the command was terminated"),
        "{lost:?}"
    );

    cluster.servers[2].restart();
    assert!(next.token() > token);
    next.create_file("go");
    assert_eq!(next.end().code, Some(0));
}

#[test]
fn death_of_the_holders_server_terminates_the_command_before_the_lease_expires() {
    let mut cluster = start();
    let first = entry(&cluster, 3, 0).lock("first", &["a"], HOLD_TO_THE_END);
    let token = first.token();
    let next = entry(&cluster, 0, 1).lock("next", &["a"], &after(&first));
    wait_for_waiter(entry(&cluster, 1, 2));
    cluster.servers[3].kill();
    let lost = first.end();
    assert_eq!(lost.code, LOST, "{lost:?}");
    assert!(next.token() > token);
    next.create_file("go");
    assert_eq!(next.end().code, Some(0));
}

#[test]
fn lock_of_a_stopped_server_is_lost() {
    let cluster = start();
    let first = entry(&cluster, 0, 0).lock("first", &["a"], HOLD_TO_THE_END);
    first.token();
    let next = entry(&cluster, 1, 1).lock("next", &["a"], &after(&first));
    cluster.servers[0].send("STOP");
    let lost = first.end();
    cluster.servers[0].send("CONT");
    assert_eq!(lost.code, LOST, "{lost:?}");
    assert!(lost.stderr.contains("the server did not confirm the lock in time"), "{lost:?}");
    next.token();
    next.create_file("go");
    assert_eq!(next.end().code, Some(0));
}

#[test]
fn restarted_lockers_do_not_grant_held_locks() {
    // Long enough for all restarts.
    let mut cluster = Cluster::start_with(&["--lock-lease", "30s"]);
    cluster.servers.iter().for_each(wait_open);
    let first = entry(&cluster, 0, 0).lock("first", &["a"], HOLD);
    first.token();
    for locker in 1..4 {
        cluster.servers[locker].kill();
        cluster.servers[locker].restart();
        wait_open(&cluster.servers[locker]);
        let entry = entry(&cluster, locker, 1);
        let other = entry.lock(&format!("other-{locker}"), &["a", "--timeout", "300ms"], "exit 5");
        assert_eq!(other.end().code, Some(99));
    }
    first.create_file("go");
    assert_eq!(first.end().code, Some(0), "it was held all the time");
    let next = entry(&cluster, 1, 1).lock("next", &["a"], "exit 6").end();
    assert_eq!(next.code, Some(6), "{next:?}");
}

#[test]
fn server_shutdown_waits_for_the_command() {
    let mut cluster = start();
    // A command that takes a second to end.
    let script = HOLD_TO_THE_END.replace("say ended", "sleep 1; say ended");
    let first = entry(&cluster, 0, 0).lock("first", &["a"], &script);
    let token = first.token();
    let next = entry(&cluster, 1, 1).lock("next", &["a"], &after(&first));
    wait_for_waiter(entry(&cluster, 2, 2));
    assert_eq!(cluster.servers[0].end("TERM"), Some(0));
    let lost = first.end();
    assert_eq!(lost.code, LOST, "{lost:?}");
    assert!(lost.stderr.contains("this server is shutting down"), "{lost:?}");
    assert!(next.token() > token);
    next.create_file("go");
    assert_eq!(next.end().code, Some(0));
}

#[test]
fn operator_lists_holders_and_waiters_and_forces_locks_open() {
    let cluster = start();
    let first = entry(&cluster, 0, 0).lock("first", &["a/b"], HOLD_TO_THE_END);
    first.token();
    let next = entry(&cluster, 1, 1).lock("next", &["a/b"], &after(&first));
    let operator = entry(&cluster, 2, 2);
    wait_for_waiter(operator);
    let listing = operator.listing();
    let lock = &listing["locks"][0];
    assert_eq!(lock["resources"], serde_json::json!(["a/b"]), "{listing}");
    assert_eq!(lock["owner"], cluster.servers[0].url().as_str(), "{listing}");
    let source = lock["source"].as_str().expect("a text");
    let expected =
        format!("{}: gridwire lock, process {}: sh", cluster.clients[0], first.child().id());
    assert_eq!(source, expected);
    let shown = operator.locks(&[]);
    assert!(shown.stdout.contains(&expected) && shown.stdout.contains("a/b"), "{shown:?}");

    let uid = lock["uid"].as_str().expect("a text");
    let forced = operator.locks(&["--unlock", uid]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let lost = first.end();
    assert_eq!(lost.code, LOST, "{lost:?}");
    assert!(lost.stderr.contains("forced open"), "{lost:?}");
    next.token();
    let forced = operator.locks(&["--unlock-resource", "a/b"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert_eq!(next.end().code, LOST);
    let nothing = operator.locks(&["--unlock", uid]);
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.stderr.contains("has such a lock"), "{nothing:?}");
}

#[test]
fn exit_codes_and_signals_pass_through_the_tool() {
    let cluster = Cluster::start();
    cluster.servers.iter().for_each(wait_open);
    let tool = entry(&cluster, 0, 0);
    assert_eq!(tool.lock("own", &["a"], "exit 3").end().code, Some(3));
    assert_eq!(tool.lock("killed", &["a"], "kill -KILL $$").end().code, Some(137));
    for (command, code) in [("/does/not/exist", 127), ("/", 126)] {
        let output: ProcessOutput =
            tool.command("lock", &["a", "--", command]).output().expect("gridwire runs").into();
        assert_eq!(output.code, Some(code), "{output:?}");
        assert!(output.stderr.contains(&format!("cannot run {command:?}")), "{output:?}");
    }
    let unnamed = tool.lock("unnamed", &[""], "exit 3").end();
    assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
    assert!(unnamed.stderr.contains("a resource's name must not be empty"), "{unnamed:?}");

    let trapping =
        "trap 'exit 42' TERM; say held $GRIDWIRE_LOCK_TOKEN; while :; do sleep 0.05; done";
    let held = tool.lock("trapping", &["a"], trapping);
    held.token();
    let waiting = entry(&cluster, 1, 1).lock("waiting", &["a"], HOLD);
    wait_for_waiter(entry(&cluster, 2, 2));
    waiting.signal("INT");
    assert_eq!(waiting.end().code, Some(130), "it never ran its command");
    held.signal("TERM");
    assert_eq!(held.end().code, Some(42));
    let after = tool.lock("after", &["a", "--timeout", "1s"], "exit 6").end();
    assert_eq!(after.code, Some(6), "the lock was released: {after:?}");
}

#[test]
fn unreachable_server_is_reported() {
    let mut cluster = Cluster::start();
    cluster.servers[0].kill();
    let output =
        entry(&cluster, 0, 0).lock("x", &["a", "--connect-timeout", "300ms"], "exit 0").end();
    assert_eq!(output.code, Some(69), "{output:?}");
    let expected = format!("not connected to {} within 300ms", cluster.servers[0].url());
    assert!(output.stderr.contains(&expected), "{output:?}");
}
