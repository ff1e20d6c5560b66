//! Exclusion and token order under an adversarial network, crashes and clock drift.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adversary;

use adversary::{Faults, World};
use dsync::proto::hold::WaitMode;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Number of seeds, from `DSYNC_SEEDS` if set.
#[expect(clippy::disallowed_methods, reason = "the environment may say how long to search")]
fn seeds() -> u64 {
    std::env::var("DSYNC_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200)
}

fn random_faults(rng: &mut SmallRng) -> Faults {
    let mut pick = |choices: &[u32]| choices[rng.random_range(0..choices.len())];
    Faults {
        lockers: pick(&[1, 2, 3, 3, 4, 4, 5, 6]) as usize,
        plain_lockers: 0,
        clients: pick(&[2, 3, 5]) as usize,
        resources: pick(&[1, 2, 4]) as usize,
        loss_percent: pick(&[0, 2, 20]),
        delay_max_ms: u64::from(pick(&[5, 500, 4_000, 20_000])),
        slow_responses: pick(&[0, 0, 1]) == 1,
        locker_crashes: pick(&[0, 5, 40]),
        client_crashes: pick(&[0, 5]),
        partitions: pick(&[0, 50]),
        isolations: pick(&[0, 50, 200]),
        total_outages: pick(&[0, 0, 0, 5]),
        forced_unlocks: pick(&[0, 0, 10]),
        drift_ppm: pick(&[0, 10_000]),
        wait_mode: if pick(&[0, 1]) == 0 { WaitMode::Notified } else { WaitMode::Polling },
    }
}

/// Runs a world with faults, then without them, until everything has ended.
fn run(faults: Faults, seed: u64) -> World {
    let run = std::panic::catch_unwind(|| {
        let mut world = World::new(faults, seed);
        world.run(60_000);
        world.stop_faults();
        world.run(1_000);
        world.release_all();
        // Grants to dead clients, and late ones, end with their lease.
        world.run(60_000);
        assert_eq!(world.remaining(), (0, 0, 0), "remaining grants, waiters and holds");
        world
    });
    run.unwrap_or_else(|_| panic!("seed {seed}: {faults:?}"))
}

#[test]
fn b51_no_two_conflicting_holders_see_is_held_and_b54_tokens_grow() {
    let (mut granted, mut lost, mut second) = (0, 0, 0);
    for seed in 0..seeds() {
        let faults = random_faults(&mut SmallRng::seed_from_u64(seed));
        let World { granted: a, lost: b, second_rounds: c, .. } = run(faults, seed);
        (granted, lost, second) = (granted + a, lost + b, second + c);
    }
    // Coverage: a run without these events would pass vacuously.
    assert!(granted > 1_500 && lost > 1_000 && second > 300, "{granted} {lost} {second}");
}

#[test]
fn b59_no_two_conflicting_holders_see_is_held_beside_lockers_of_the_minio_type() {
    let (mut granted, mut without_token) = (0, 0);
    for seed in 0..seeds() {
        let mut rng = SmallRng::seed_from_u64(seed);
        let faults = random_faults(&mut rng);
        let plain_lockers = rng.random_range(1..=faults.lockers);
        let world = run(Faults { plain_lockers, ..faults }, seed);
        (granted, without_token) = (granted + world.granted, without_token + world.without_token);
    }
    assert!(
        granted > 1_000 && without_token > 200 && without_token < granted,
        "{granted} granted, {without_token} of them without a token"
    );
}
