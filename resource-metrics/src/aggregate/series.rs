//! One value over time: current, average weighted by time, maximum.

use std::time::Duration;

use crate::report::Summary;

/// One value over time.
///
/// The average is a sum divided by its total time. A plain sum over years of minutes would lose
/// small values to rounding. This is a compensated sum (Kahan-Babuška-Neumaier): it keeps the
/// rounding error of each addition, so that its error does not grow with the number of samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Series {
    current: Option<f64>,
    maximum: Option<f64>,
    /// Sum of value times seconds.
    sum: f64,
    /// Accumulated rounding error of `sum`.
    compensation: f64,
    /// Total time of the sum: integer nanoseconds, which overflow after 584 years.
    time: Duration,
}

impl Series {
    /// Records the value of a period of this length. A value that is not finite is missing.
    pub(super) fn observe(&mut self, value: Option<f64>, time: Duration) {
        self.current = value.filter(|value| value.is_finite());
        let Some(value) = self.current else { return };
        self.maximum = Some(self.maximum.map_or(value, |maximum| maximum.max(value)));
        self.add(value * time.as_secs_f64());
        self.time += time;
    }

    /// Records that there is no value of this interval.
    pub(super) fn record_missing(&mut self) {
        self.current = None;
    }

    fn add(&mut self, term: f64) {
        let sum = self.sum + term;
        self.compensation += match self.sum.abs() >= term.abs() {
            true => (self.sum - sum) + term,
            false => (term - sum) + self.sum,
        };
        self.sum = sum;
    }

    pub(super) fn summary(&self) -> Summary {
        let average = match self.time.is_zero() {
            true => self.current.or(self.maximum), // One sample only.
            false => Some((self.sum + self.compensation) / self.time.as_secs_f64()),
        };
        Summary { current: self.current, average, maximum: self.maximum }
    }

    /// Returns the total time of the values so far.
    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// Checks that the values agree: the current one and the average are at most the maximum.
    pub(super) fn check_invariants(&self, name: &str) {
        let Self { current, maximum, sum, compensation, time } = *self;
        let is_finite = current.is_none_or(f64::is_finite) && maximum.is_none_or(f64::is_finite);
        assert!(is_finite, "{name}: current {current:?}, maximum {maximum:?}");
        assert!(current <= maximum, "{name}: current {current:?}, maximum {maximum:?}");
        let Some(maximum) = maximum else {
            assert!(time.is_zero(), "{name}: time is {time:?}, and maximum None");
            assert!(sum == 0.0, "{name}: sum is {sum}, and maximum None");
            return;
        };
        let average = (sum + compensation) / time.as_secs_f64();
        // Without time there is no average. A sum of very large values may overflow.
        if average.is_finite() {
            let rounding = maximum.abs() * 1e-9 + f64::MIN_POSITIVE;
            assert!(average <= maximum + rounding, "{name}: average {average}, maximum {maximum}");
        }
    }
}

/// Checks that values which are read together have the same total time.
pub(super) fn check_same_time(all: &[Series], name: &str) {
    for (index, series) in all.iter().enumerate() {
        series.check_invariants(name);
        let first = all.first().map(Series::time);
        assert_eq!(Some(series.time), first, "{name}: time of value {index}, and of the first");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b70_averages_are_exact_over_ten_years_of_minutes() {
        let mut series = Series::default();
        let minute = Duration::from_secs(60);
        // A burst first, to which a plain sum would never add the small values.
        series.observe(Some(1e18), minute);
        let small: u32 = 10 * 365 * 24 * 60;
        for _ in 0..small {
            series.observe(Some(1.0), minute);
        }
        let exact = (1e18 + f64::from(small)) / (1.0 + f64::from(small));
        let average = series.summary().average.expect("an average");
        assert!((average / exact - 1.0).abs() < 1e-15, "{average} is not {exact}");
        let without_small = 1e18 / (1.0 + f64::from(small));
        assert!(exact - without_small > 0.9, "the small values matter");
    }

    #[test]
    fn b70_a_value_is_weighted_by_its_duration() {
        let mut series = Series::default();
        assert_eq!(series.summary(), Summary::default());
        series.observe(Some(3.0), Duration::ZERO);
        let once = Summary { current: Some(3.0), average: Some(3.0), maximum: Some(3.0) };
        assert_eq!(series.summary(), once);
        series.observe(Some(1.0), Duration::from_secs(30));
        series.observe(Some(2.0), Duration::from_secs(90));
        series.record_missing();
        let then = Summary { current: None, average: Some(1.75), maximum: Some(3.0) };
        assert_eq!(series.summary(), then);
    }

    #[test]
    fn values_that_are_not_finite_are_missing() {
        let mut series = Series::default();
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            series.observe(Some(wrong), Duration::from_secs(1));
        }
        assert_eq!(series.summary(), Summary::default());
    }
}
