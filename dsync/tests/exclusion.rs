//! Exclusion and tokens, under everything that an adversary can do between lockers and holders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod field;

use dsync::proto::hold::Waiting;
use field::{Field, Weather};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How many seeds; more by `DSYNC_SEEDS`.
#[expect(clippy::disallowed_methods, reason = "whoever runs a test may say how long it looks")]
fn seeds() -> u64 {
    std::env::var("DSYNC_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200)
}

fn weather(rng: &mut SmallRng) -> Weather {
    let mut pick = |choices: &[u32]| choices[rng.random_range(0..choices.len())];
    Weather {
        lockers: pick(&[1, 2, 3, 3, 4, 4, 5, 6]) as usize,
        clients: pick(&[2, 3, 5]) as usize,
        resources: pick(&[1, 2, 4]) as usize,
        lost: pick(&[0, 2, 20]),
        delay_max_ms: u64::from(pick(&[5, 500, 4_000, 20_000])),
        slow_answers: pick(&[0, 0, 1]) == 1,
        locker_crashes: pick(&[0, 5, 40]),
        client_crashes: pick(&[0, 5]),
        cuts: pick(&[0, 50]),
        isolations: pick(&[0, 50, 200]),
        blackouts: pick(&[0, 0, 0, 5]),
        forced: pick(&[0, 0, 10]),
        drift_ppm: pick(&[0, 10_000]),
        waiting: if pick(&[0, 1]) == 0 { Waiting::Told } else { Waiting::Polling },
    }
}

#[test]
fn b51_no_two_exclude_each_other_and_believe_and_b54_tokens_grow() {
    let (mut granted, mut lost, mut second) = (0, 0, 0);
    for seed in 0..seeds() {
        let weather = weather(&mut SmallRng::seed_from_u64(seed));
        let run = std::panic::catch_unwind(|| {
            let mut field = Field::new(weather, seed);
            field.run(60_000);
            field.calm_down();
            field.run(1_000);
            field.let_all_go();
            // Whatever was granted to the dead, or late, ends with its lease.
            field.run(40_000);
            assert_eq!(field.left(), (0, 0, 0), "grants, waiters and holds are left");
            (field.granted, field.lost, field.second_rounds)
        });
        let (a, b, c) = run.unwrap_or_else(|_| panic!("seed {seed}: {weather:?}"));
        (granted, lost, second) = (granted + a, lost + b, second + c);
    }
    // What never happens proves nothing.
    assert!(granted > 1_500 && lost > 1_000 && second > 300, "{granted} {lost} {second}");
}
