//! A process that is stopped does nothing and hears nothing; when it goes on, nothing was lost,
//! whatever else was done to its links meanwhile.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use grid::time::Clock;
use sim::event::{Event, EventKind, Outcome};
use sim::plan::{ClockWhilePaused, Fault, HandlerEnding, Load, Node, Plan, RequestPlan};
use sim::world::World;

const STOPPED: Node = Node(0);
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
        ending: HandlerEnding::Success,
        timeout_ms: Some(60_000),
        cancel_after_ms: None,
    })
}

/// When each call ended, and how.
fn ends(world: &World) -> Vec<(u64, Outcome)> {
    let ended = |event: Event| match event.kind {
        EventKind::CallEnded { outcome, .. } => Some((event.at_ms, outcome)),
        _ => None,
    };
    world.recorder().take().into_iter().filter_map(ended).collect()
}

#[test]
fn what_is_sent_to_a_process_that_is_stopped_arrives_when_it_goes_on() {
    for clock in [ClockWhilePaused::Ran, ClockWhilePaused::Frozen] {
        let mut world = world();
        world.fault(Fault::Pause { node: STOPPED });
        let begun = world.now_ms();
        // For less than it takes to find a peer dead.
        world.submit(request(OTHER, STOPPED)).expect("it runs");
        world.submit(request(STOPPED, OTHER)).expect("it runs, and is stopped");
        world.run_for(Duration::from_secs(3));
        assert_eq!(ends(&world), [], "nothing was answered, and nothing asked");
        world.fault(Fault::Resume { node: STOPPED, clock });
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
fn a_process_that_is_stopped_sees_no_time_pass() {
    let mut world = world();
    let (sender, readings) = std::sync::mpsc::channel();
    world.spawn(STOPPED, move |host| async move {
        loop {
            let _ = sender.send(host.clock.now());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    world.run_for(Duration::from_secs(1));
    world.fault(Fault::Pause { node: STOPPED });
    readings.try_iter().for_each(drop);
    world.run_for(Duration::from_secs(5));
    let seen: Vec<_> = readings.try_iter().collect();
    assert!(seen.len() > 10, "turmoil polls all");
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
    world.fault(Fault::Resume { node: STOPPED, clock: ClockWhilePaused::Ran });
    world.run_for(Duration::from_millis(200));
    let after = readings.try_iter().last().expect("it goes on");
    assert!(after.since(seen[0]) >= Duration::from_secs(5));
}

#[test]
fn links_are_as_they_should_be_whatever_was_done_while_an_end_was_stopped() {
    let (a, b) = (STOPPED, OTHER);
    let during: [&[Fault]; 6] = [
        &[Fault::Cut { a, b }],
        &[Fault::CutOneWay { from: a, to: b }],
        &[Fault::CutOneWay { from: b, to: a }, Fault::CutOneWay { from: a, to: b }],
        &[Fault::Hold { a, b }],
        &[Fault::Hold { a, b }, Fault::CutOneWay { from: a, to: b }],
        &[Fault::Pause { node: OTHER }],
    ];
    for trouble in during {
        for is_before in [true, false] {
            let mut world = world();
            let (pause, wake) =
                (Fault::Pause { node: a }, Fault::Resume { node: a, clock: ClockWhilePaused::Ran });
            let (first, then): (Vec<_>, Vec<_>) = if is_before {
                (trouble.to_vec(), vec![pause])
            } else {
                (vec![pause], trouble.to_vec())
            };
            first.into_iter().chain(then).for_each(|fault| world.fault(fault));
            world.run_for(Duration::from_secs(1));
            world.fault(wake);
            world.run_for(Duration::from_secs(1));
            // It is still in trouble: nothing gets there and back.
            world.recorder().take();
            world.submit(request(a, b)).expect("it runs");
            world.run_for(Duration::from_secs(2));
            assert_eq!(ends(&world), [], "{trouble:?}, {is_before}");
            world.fault(Fault::Repair { a, b });
            world.fault(Fault::Resume { node: b, clock: ClockWhilePaused::Ran });
            let healed = world.wait_until(Duration::from_secs(90), World::is_connected);
            assert_eq!(healed, Ok(()), "{trouble:?}, {is_before}");
            world.run_for(Duration::from_secs(60));
            world.recorder().take();
            world.submit(request(a, b)).expect("it runs");
            world.run_for(Duration::from_secs(1));
            assert!(matches!(ends(&world)[..], [(_, Outcome::Completed)]), "{trouble:?}");
        }
    }
}

#[test]
fn a_process_that_loses_its_power_while_it_is_stopped_begins_anew() {
    let mut world = world();
    let node = STOPPED;
    world.fault(Fault::Pause { node });
    world.run_for(Duration::from_secs(1));
    world.fault(Fault::PowerLoss { node });
    world.run_for(Duration::from_secs(1));
    world.fault(Fault::Restart { node });
    world.wait_until(Duration::from_secs(60), World::is_connected).expect("connected again");
}

#[test]
fn healing_wakes_everybody() {
    let mut world = world();
    for node in [Node(0), Node(2)] {
        world.fault(Fault::Pause { node });
    }
    world.run_for(Duration::from_secs(40));
    world.heal();
    world.wait_until(Duration::from_secs(60), World::is_connected).expect("connected again");
}
