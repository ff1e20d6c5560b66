//! The command of `gridwire lock` ends before its lock is granted to another holder, whichever of
//! the tool's processes dies or is stopped.
#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::process::Command;

use support::eventually;
use support::lock::{
    Cluster, HOLD, HOLD_TO_THE_END, LOST, Tool, ToolEntry, after, entry, start, wait_for_waiter,
    wait_open,
};

/// Signals that end a process by default, and that the tool forwards: all but those that other tests
/// send, by their numbers on Linux.
const FORWARDED: [(&str, i32); 11] = [
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("STKFLT", 16),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Writes its process id, ignores SIGTERM, and never ends.
const STUBBORN: &str =
    "trap '' TERM; say pid $$; say held $GRIDWIRE_LOCK_TOKEN; while :; do sleep 0.05; done";

/// Has a descendant that ignores SIGTERM and whose process id it writes, and never ends by itself.
const STUBBORN_DESCENDANT: &str = "sh -c 'trap \"\" TERM; echo $$ > $0.new; mv $0.new $0.pid; \
    while :; do sleep 0.05; done' $files & \
    while [ ! -e $files.pid ]; do sleep 0.05; done; say held $GRIDWIRE_LOCK_TOKEN; wait";

/// Returns a script that becomes this script under another program, which leaves the process group
/// that it starts in.
fn under(program: &str, script: &str) -> String {
    let say = "say() { echo \"$2\" > $files.tmp; mv $files.tmp $files.$1; }";
    let script = format!("{say}; {script}").replace('\'', r"'\''");
    format!("export files; exec {program} sh -c '{script}'")
}

/// Programs and scripts, with a name for each. None of the commands' processes is in the group that
/// the command started in.
fn leaving_commands() -> [(&'static str, String); 4] {
    [
        ("timeout", under("timeout 600", HOLD_TO_THE_END)),
        ("timeout-stubborn", under("timeout 600", STUBBORN)),
        ("session-stubborn", under("setsid", STUBBORN)),
        ("session-descendant", under("setsid", STUBBORN_DESCENDANT)),
    ]
}

/// Exits with 5 if it runs although the first command has not ended.
fn after_leaving(first: &Tool) -> String {
    match first.has_file("pid") {
        true => after_stubborn(first),
        false => after(first),
    }
}

/// For each command that leaves its group: has a tool hold a lock with it, calls `end`, checks that
/// it has ended before the next holder's command runs, and calls `check`. `end` gets an entry for
/// another tool too.
fn end_leaving_commands(end: impl Fn(&Tool, ToolEntry<'_>), check: impl Fn(Tool)) {
    let cluster = start();
    for (name, script) in leaving_commands() {
        let first = entry(&cluster, 0, 0).lock(name, &["a"], &script);
        first.token();
        let next = format!("after-{name}");
        let next = entry(&cluster, 1, 1).lock(&next, &["a"], &after_leaving(&first));
        wait_for_waiter(entry(&cluster, 2, 2));
        end(&first, entry(&cluster, 2, 2));
        assert_passes_on(next);
        check(first);
    }
}

/// Exits with 5 if it runs although the first command, which is stubborn, has not ended. (It may be
/// a zombie: its parent is stopped.)
fn after_stubborn(first: &Tool) -> String {
    let state = format!("sed 's/.*) //' /proc/$(cat {}.pid)/stat 2>/dev/null", first.files);
    format!("case \"$({state})\" in ''|Z*) ;; *) exit 5 ;; esac; {HOLD}")
}

/// Returns the process id of a tool's watchdog.
fn watchdog(tool: &Tool) -> u32 {
    let parent = format!("PPid:\t{}\n", tool.child().id());
    let is_watchdog = |pid: &u32| {
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        read("status").is_ok_and(|status| status.contains(&parent))
            && read("cmdline").is_ok_and(|command| command.contains("__watch"))
    };
    let processes = std::fs::read_dir("/proc").expect("Linux");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_watchdog).expect("it has a watchdog")
}

fn kill(signal: &str, processes: &[u32]) {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(processes.iter().map(ToString::to_string))
        .status()
        .expect("there is a kill command");
    assert!(status.success());
}

fn pid(tool: &Tool) -> u32 {
    tool.child().id()
}

/// Waits until the lock is granted to the next holder, and ends it. The script of the next holder
/// fails if the first command has not ended.
fn assert_passes_on(next: Tool) {
    next.token();
    next.create_file("go");
    assert_eq!(next.end().code, Some(0));
}

#[test]
fn signals_that_would_end_the_tool_are_forwarded_and_the_lock_is_kept() {
    let cluster = Cluster::start();
    cluster.servers.iter().for_each(wait_open);
    let traps: String =
        FORWARDED.iter().map(|(_, number)| format!("trap 'say got{number}' {number}; ")).collect();
    let first = entry(&cluster, 0, 0).lock("first", &["a"], &format!("{traps}{HOLD}"));
    first.token();
    for (name, number) in FORWARDED {
        first.signal(&number.to_string());
        first.wait_file(&format!("got{number}"));
        let other = entry(&cluster, 1, 1).lock(name, &["a", "--try"], "exit 5").end();
        assert_eq!(other.code, Some(99), "after SIG{name}: {other:?}");
    }
    first.create_file("go");
    assert_eq!(first.end().code, Some(0));
    for (name, number) in [FORWARDED[0], FORWARDED[9]] {
        let first = entry(&cluster, 0, 0).lock(&format!("ended-{name}"), &["a"], HOLD);
        first.token();
        first.signal(&number.to_string());
        assert_eq!(first.end().code, Some(128 + number), "the command does not handle SIG{name}");
        let next = entry(&cluster, 1, 1).lock(&format!("next-{name}"), &["a"], "exit 6").end();
        assert_eq!(next.code, Some(6), "the lock was released: {next:?}");
    }
}

#[test]
fn command_of_a_killed_tool_ends_before_the_lock_is_granted() {
    let cluster = start();
    let hold = |number: usize, resource: &str, name: &str, script: &str| {
        entry(&cluster, number, number).lock(name, &[resource], script)
    };
    let (polite, stubborn) =
        (hold(0, "a", "polite", HOLD_TO_THE_END), hold(1, "b", "stubborn", STUBBORN));
    polite.token();
    stubborn.token();
    let after_both = [
        hold(2, "a", "after-polite", &after(&polite)),
        hold(3, "b", "after-stubborn", &after_stubborn(&stubborn)),
    ];
    // A tool that aborts ends as one that panics.
    polite.signal("ABRT");
    stubborn.signal("KILL");
    let ended = polite.end();
    assert!(ended.stderr.contains("its command is terminated"), "{ended:?}");
    assert_eq!(stubborn.end().code, None);
    after_both.into_iter().for_each(assert_passes_on);
}

#[test]
fn command_of_a_stopped_tool_ends_before_the_lock_is_granted() {
    let cluster = start();
    let hold = |number: usize, resource: &str, name: &str, script: &str| {
        entry(&cluster, number, number).lock(name, &[resource], script)
    };
    let (polite, stubborn) =
        (hold(0, "a", "polite", HOLD_TO_THE_END), hold(1, "b", "stubborn", STUBBORN));
    polite.token();
    stubborn.token();
    let after_both = [
        hold(2, "a", "after-polite", &after(&polite)),
        hold(3, "b", "after-stubborn", &after_stubborn(&stubborn)),
    ];
    for stopped in [&polite, &stubborn] {
        stopped.signal("STOP");
    }
    after_both.into_iter().for_each(assert_passes_on);
    for stopped in [polite, stubborn] {
        stopped.signal("CONT");
        let lost = stopped.end();
        assert_eq!(lost.code, LOST, "{lost:?}");
        assert!(lost.stderr.contains("its command is terminated"), "by the watchdog: {lost:?}");
    }
}

#[test]
fn command_that_left_its_group_ends_when_the_lock_is_lost() {
    let force = |_first: &Tool, operator: ToolEntry<'_>| {
        let forced = operator.locks(&["--unlock-resource", "a"]);
        assert_eq!(forced.code, Some(0), "{forced:?}");
    };
    end_leaving_commands(force, |first| {
        let lost = first.end();
        assert_eq!(lost.code, LOST, "{lost:?}");
        assert!(lost.stderr.contains("forced open"), "by the tool: {lost:?}");
    });
}

#[test]
fn command_that_left_its_group_ends_when_the_tool_is_killed() {
    let kill = |first: &Tool, _: ToolEntry<'_>| first.signal("KILL");
    end_leaving_commands(kill, |first| assert_eq!(first.end().code, None));
}

#[test]
fn command_that_left_its_group_ends_when_the_tool_is_stopped() {
    let stop = |first: &Tool, _: ToolEntry<'_>| first.signal("STOP");
    end_leaving_commands(stop, |first| {
        first.signal("CONT");
        let lost = first.end();
        assert_eq!(lost.code, LOST, "{lost:?}");
        assert!(lost.stderr.contains("its command is terminated"), "by the watchdog: {lost:?}");
    });
}

#[test]
fn command_without_a_watchdog_is_ended_by_the_tool() {
    let cluster = start();
    let first = entry(&cluster, 0, 0).lock("first", &["a"], HOLD_TO_THE_END);
    first.token();
    let next = entry(&cluster, 1, 1).lock("next", &["a"], &after(&first));
    wait_for_waiter(entry(&cluster, 2, 2));
    kill("KILL", &[watchdog(&first)]);
    let lost = first.end();
    assert_eq!(lost.code, LOST, "{lost:?}");
    assert!(lost.stderr.contains("the watchdog process of this tool has ended"), "{lost:?}");
    assert_passes_on(next);
}

#[test]
fn command_of_a_tool_killed_with_its_watchdog_is_ended_by_the_kernel() {
    let cluster = start();
    let first = entry(&cluster, 0, 0).lock("first", &["a"], HOLD_TO_THE_END);
    first.token();
    let next = entry(&cluster, 1, 1).lock("next", &["a"], &after(&first));
    // Stopped, the tool cannot react to the end of the watchdog.
    kill("STOP", &[pid(&first)]);
    kill("KILL", &[watchdog(&first)]);
    kill("KILL", &[pid(&first)]);
    first.wait_file("ended");
    assert_eq!(first.end().code, None);
    assert_passes_on(next);
}

#[test]
fn stopped_watchdog_delays_nothing() {
    let cluster = start();
    let first = entry(&cluster, 0, 0).lock("first", &["a"], HOLD);
    first.token();
    kill("STOP", &[watchdog(&first)]);
    first.create_file("go");
    assert_eq!(first.end().code, Some(0));
    let next = entry(&cluster, 1, 1).lock("next", &["a"], "exit 6").end();
    assert_eq!(next.code, Some(6), "{next:?}");
}

#[test]
fn free_lock_is_taken_by_a_single_attempt_and_a_held_one_is_refused_at_once() {
    let cluster = Cluster::start();
    cluster.servers.iter().for_each(wait_open);
    for (name, once) in [("flag", &["--try"][..]), ("zero", &["--timeout", "0s"])] {
        let first = entry(&cluster, 0, 0).lock(name, &[&["a"], once].concat(), HOLD);
        first.token();
        let refused = entry(&cluster, 1, 1).lock("refused", &[&["a"], once].concat(), "exit 5");
        let refused = refused.end();
        assert_eq!(refused.code, Some(99), "{refused:?}");
        let text = &refused.stderr;
        assert!(text.contains("a is not locked") && text.contains("others hold it"), "{text}");
        assert!(!text.contains("could not be reached"), "all lockers run: {text}");
        first.create_file("go");
        assert_eq!(first.end().code, Some(0));
    }
}

#[test]
fn lock_that_cannot_be_requested_has_another_exit_code_than_one_that_others_hold() {
    let mut cluster = start();
    cluster.servers[2].kill();
    cluster.servers[3].kill();
    let refused = entry(&cluster, 0, 0).lock("refused", &["a", "--try"], "exit 5").end();
    assert_eq!(refused.code, Some(69), "two of four lockers are not a quorum: {refused:?}");
    eventually("the error names what is missing", || {
        let refused = entry(&cluster, 0, 0).lock("again", &["a", "--try"], "exit 5").end();
        refused.stderr.contains("2 could not be reached").then_some(())
    });
}
