//! A paused process neither runs nor receives. Its messages arrive when it resumes, and faults of
//! its links last across the pause.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use grid::time::Clock;
use sim::event::{Event, EventKind, Outcome};
use sim::fault::{Cut, CutOneWay, Hold, Pause, PowerLoss, Repair, Restart, Resume};
use sim::plan::{ClockWhilePaused, Fault, Load, Node, Plan, PlannedHandlerEnd, RequestPlan};
use sim::world::World;

const PAUSED: Node = Node(0);
const OTHER: Node = Node(1);

fn world() -> World {
    let mut world = World::new(&Plan::quiet(3));
    world.wait_until(Duration::from_secs(10), World::is_connected).expect("connected");
    world
}

fn request(from: Node, to: Node) -> Load {
    Load::Request(RequestPlan {
        from,
        to,
        bytes: 100,
        response_bytes: 100,
        work_ms: 0,
        ending: PlannedHandlerEnd::Success,
        timeout_ms: Some(60_000),
        cancel_after_ms: None,
    })
}

/// When and how each call ended.
fn ends(world: &World) -> Vec<(u64, Outcome)> {
    let ended = |event: Event| match event.kind {
        EventKind::CallEnded { outcome, .. } => Some((event.at_ms, outcome)),
        _ => None,
    };
    world.recorder().take().into_iter().filter_map(ended).collect()
}

#[test]
fn messages_to_a_paused_process_arrive_when_it_resumes() {
    for clock in [ClockWhilePaused::Ran, ClockWhilePaused::Frozen] {
        let mut world = world();
        world.inject(Fault::Pause(Pause { node: PAUSED }));
        let begun = world.now_ms();
        // Less than the time to detect a dead peer.
        world.submit(request(OTHER, PAUSED)).expect("it runs");
        world.submit(request(PAUSED, OTHER)).expect("it runs, and is paused");
        world.run_for(Duration::from_secs(3));
        assert_eq!(ends(&world), [], "no call ended during the pause");
        world.inject(Fault::Resume(Resume { node: PAUSED, clock }));
        world.run_for(Duration::from_millis(500));
        let ends = ends(&world);
        assert_eq!(ends.len(), 2, "{clock:?}: {ends:?}");
        for (at, outcome) in ends {
            assert!(at >= begun + 3_000, "at {at} ms");
            assert_eq!(outcome, Outcome::Completed);
        }
    }
}

#[test]
fn paused_process_sees_no_time_pass() {
    let mut world = world();
    let (sender, readings) = std::sync::mpsc::channel();
    let runs = world.spawn(PAUSED, move |host| async move {
        loop {
            let _ = sender.send(host.clock.now());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(runs);
    world.run_for(Duration::from_secs(1));
    world.inject(Fault::Pause(Pause { node: PAUSED }));
    readings.try_iter().for_each(drop);
    world.run_for(Duration::from_secs(5));
    let seen: Vec<_> = readings.try_iter().collect();
    assert!(seen.len() > 10, "turmoil polls paused processes too");
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
    world.inject(Fault::Resume(Resume { node: PAUSED, clock: ClockWhilePaused::Ran }));
    world.run_for(Duration::from_millis(200));
    let after = readings.try_iter().last().expect("it resumes");
    assert!(after.since(seen[0]) >= Duration::from_secs(5));
}

#[test]
fn links_keep_their_faults_across_a_pause_of_one_end() {
    let (a, b) = (PAUSED, OTHER);
    let during: [&[Fault]; 6] = [
        &[Fault::Cut(Cut { a, b })],
        &[Fault::CutOneWay(CutOneWay { from: a, to: b })],
        &[
            Fault::CutOneWay(CutOneWay { from: b, to: a }),
            Fault::CutOneWay(CutOneWay { from: a, to: b }),
        ],
        &[Fault::Hold(Hold { a, b })],
        &[Fault::Hold(Hold { a, b }), Fault::CutOneWay(CutOneWay { from: a, to: b })],
        &[Fault::Pause(Pause { node: OTHER })],
    ];
    for faults in during {
        for is_before in [true, false] {
            let mut world = world();
            let (pause, resume) = (
                Fault::Pause(Pause { node: a }),
                Fault::Resume(Resume { node: a, clock: ClockWhilePaused::Ran }),
            );
            let (first, then): (Vec<_>, Vec<_>) = if is_before {
                (faults.to_vec(), vec![pause])
            } else {
                (vec![pause], faults.to_vec())
            };
            first.into_iter().chain(then).for_each(|fault| world.inject(fault));
            world.run_for(Duration::from_secs(1));
            world.inject(resume);
            world.run_for(Duration::from_secs(1));
            // The fault still lasts: no response returns.
            world.recorder().take();
            world.submit(request(a, b)).expect("it runs");
            world.run_for(Duration::from_secs(2));
            assert_eq!(ends(&world), [], "{faults:?}, {is_before}");
            world.inject(Fault::Repair(Repair { a, b }));
            world.inject(Fault::Resume(Resume { node: b, clock: ClockWhilePaused::Ran }));
            let healed = world.wait_until(Duration::from_secs(90), World::is_connected);
            assert_eq!(healed, Ok(()), "{faults:?}, {is_before}");
            world.run_for(Duration::from_secs(60));
            world.recorder().take();
            world.submit(request(a, b)).expect("it runs");
            world.run_for(Duration::from_secs(1));
            assert!(matches!(ends(&world)[..], [(_, Outcome::Completed)]), "{faults:?}");
        }
    }
}

#[test]
fn paused_process_that_loses_power_restarts() {
    let mut world = world();
    let node = PAUSED;
    world.inject(Fault::Pause(Pause { node }));
    world.run_for(Duration::from_secs(1));
    world.inject(Fault::PowerLoss(PowerLoss { node }));
    world.run_for(Duration::from_secs(1));
    world.inject(Fault::Restart(Restart { node }));
    world.wait_until(Duration::from_secs(60), World::is_connected).expect("connected again");
}

#[test]
fn healing_resumes_every_process() {
    let mut world = world();
    for node in [Node(0), Node(2)] {
        world.inject(Fault::Pause(Pause { node }));
    }
    world.run_for(Duration::from_secs(40));
    world.heal();
    world.wait_until(Duration::from_secs(60), World::is_connected).expect("connected again");
}
