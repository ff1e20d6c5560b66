//! Strikes the rare-event points of grid's code, as often as the plan says, until all is healed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grid::buggify::{Buggify, Point};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::event::What;
use crate::recorder::Pen;

/// Of so many times that a point is passed it is struck as often as the plan says.
const OF: u16 = 10_000;

/// One incarnation's source of rare events.
pub(super) struct Rare {
    /// By the name of its point.
    often: Vec<(String, u16)>,
    rng: Mutex<SmallRng>,
    pen: Pen,
    is_over: Arc<AtomicBool>,
}

impl Rare {
    pub(super) fn new(
        often: Vec<(String, u16)>,
        seed: u64,
        pen: Pen,
        is_over: Arc<AtomicBool>,
    ) -> Self {
        Self { often, rng: Mutex::new(SmallRng::seed_from_u64(seed)), pen, is_over }
    }
}

impl Buggify for Rare {
    fn strike(&self, point: Point) -> Option<Duration> {
        let (_, often) = self.often.iter().find(|(name, _)| name == point.name())?;
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        if rng.random_range(0..OF) >= *often {
            return None;
        }
        let longest_ms = match point {
            Point::DelayFlush => 50,
            Point::SpuriousWake => 100,
            Point::FullSocket => 200,
            Point::TinyQueue => 1,
            Point::EarlyTimeout => 100,
            Point::Supersede => 5_000,
        };
        let lasts_ms = rng.random_range(1..=longest_ms);
        self.pen.record(What::Rare { point: point.name().to_owned(), lasts_ms });
        Some(Duration::from_millis(lasts_ms))
    }
}
