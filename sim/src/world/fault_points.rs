//! Fires the fault points of grid's code at the rates of the plan, until all faults are healed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grid::buggify::{Buggify, FaultPoint};
use grid::sync::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::event::EventKind;
use crate::recorder::NodeRecorder;

/// Denominator of the rates in a plan.
const RATE_BASE: u16 = 10_000;

/// Source of faults for one incarnation.
pub(super) struct FaultPoints {
    /// Rate of each point, by its name.
    rates: Vec<(String, u16)>,
    rng: Mutex<SmallRng>,
    recorder: NodeRecorder,
    is_healed: Arc<AtomicBool>,
}

impl FaultPoints {
    pub(super) fn new(
        rates: Vec<(String, u16)>,
        seed: u64,
        recorder: NodeRecorder,
        is_healed: Arc<AtomicBool>,
    ) -> Self {
        Self { rates, rng: Mutex::new(SmallRng::seed_from_u64(seed)), recorder, is_healed }
    }
}

impl Buggify for FaultPoints {
    fn inject(&self, point: FaultPoint) -> Option<Duration> {
        let (_, rate) = self.rates.iter().find(|(name, _)| name == point.name())?;
        if self.is_healed.load(Ordering::Relaxed) {
            return None;
        }
        let mut rng = self.rng.lock();
        if rng.random_range(0..RATE_BASE) >= *rate {
            return None;
        }
        let longest_ms = match point {
            FaultPoint::DelayFlush => 50,
            FaultPoint::SpuriousWake => 100,
            FaultPoint::FullSocket => 200,
            FaultPoint::TinyQueue => 1,
            FaultPoint::EarlyTimeout => 100,
            FaultPoint::Supersede => 5_000,
        };
        let lasts_ms = rng.random_range(1..=longest_ms);
        self.recorder.record(EventKind::FaultPoint { point: point.name().to_owned(), lasts_ms });
        Some(Duration::from_millis(lasts_ms))
    }
}
