//! One value over time: what it is now, its average weighted by time, its maximum.

use std::time::Duration;

use crate::report::Summary;

/// One value over time.
///
/// The average is a sum, divided by the time that it is of. Added up plainly, a sum over years of
/// minutes would swallow small values. This one carries along what each addition lost (after Neumaier),
/// so that its error does not grow with the number of samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Series {
    current: Option<f64>,
    maximum: Option<f64>,
    /// Of value times seconds.
    sum: f64,
    /// What `sum` is too small by.
    lost: f64,
    /// The time that the sum is of: whole nanoseconds, good for 584 years.
    time: Duration,
}

impl Series {
    /// The value was this for so long. What is no number was not measured.
    pub(super) fn observe(&mut self, value: Option<f64>, time: Duration) {
        self.current = value.filter(|value| value.is_finite());
        let Some(value) = self.current else { return };
        self.maximum = Some(self.maximum.map_or(value, |maximum| maximum.max(value)));
        self.add(value * time.as_secs_f64());
        self.time += time;
    }

    /// It was not measured this time.
    pub(super) fn miss(&mut self) {
        self.current = None;
    }

    fn add(&mut self, term: f64) {
        let sum = self.sum + term;
        self.lost += match self.sum.abs() >= term.abs() {
            true => (self.sum - sum) + term,
            false => (term - sum) + self.sum,
        };
        self.sum = sum;
    }

    pub(super) fn summary(&self) -> Summary {
        let average = match self.time.is_zero() {
            true => self.current.or(self.maximum), // Seen once.
            false => Some((self.sum + self.lost) / self.time.as_secs_f64()),
        };
        Summary { current: self.current, average, maximum: self.maximum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b70_averages_are_exact_over_ten_years_of_minutes() {
        let mut series = Series::default();
        let minute = Duration::from_secs(60);
        // A burst at first, which a plain sum would never add the small values to.
        series.observe(Some(1e18), minute);
        let small: u32 = 10 * 365 * 24 * 60;
        for _ in 0..small {
            series.observe(Some(1.0), minute);
        }
        let exact = (1e18 + f64::from(small)) / (1.0 + f64::from(small));
        let average = series.summary().average.expect("an average");
        assert!((average / exact - 1.0).abs() < 1e-15, "{average} is not {exact}");
        let without_small = 1e18 / (1.0 + f64::from(small));
        assert!(exact - without_small > 0.9, "the small ones matter");
    }

    #[test]
    fn b70_a_value_counts_for_as_long_as_it_was() {
        let mut series = Series::default();
        assert_eq!(series.summary(), Summary::default());
        series.observe(Some(3.0), Duration::ZERO);
        let once = Summary { current: Some(3.0), average: Some(3.0), maximum: Some(3.0) };
        assert_eq!(series.summary(), once);
        series.observe(Some(1.0), Duration::from_secs(30));
        series.observe(Some(2.0), Duration::from_secs(90));
        series.miss();
        let then = Summary { current: None, average: Some(1.75), maximum: Some(3.0) };
        assert_eq!(series.summary(), then);
    }

    #[test]
    fn what_is_no_number_was_not_measured() {
        let mut series = Series::default();
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            series.observe(Some(wrong), Duration::from_secs(1));
        }
        assert_eq!(series.summary(), Summary::default());
    }
}
