//! Latencies: recorded in nanoseconds, displayed in microseconds or milliseconds.

use std::fmt;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

/// Lowest latency of the histogram, in nanoseconds. Lower ones share its first bucket.
const SHORTEST_NANOS: u64 = 64;

/// Highest latency, in nanoseconds. Higher ones are recorded as this one.
const LONGEST_NANOS: u64 = 60_000_000_000;

/// Resolution of the histogram: 1 %. A finer histogram per caller costs more cache misses than the
/// calls that it measures.
const SIGNIFICANT_DIGITS: u8 = 2;

/// A histogram of latencies: about 15 KB.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u32>);

impl Latencies {
    /// Creates an empty histogram.
    pub(crate) fn new() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(SHORTEST_NANOS, LONGEST_NANOS, SIGNIFICANT_DIGITS).map(Self)
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the latencies of another histogram.
    pub(crate) fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.0.high(), other.0.high(), "all histograms have the same bounds");
        // Fails only for a histogram with wider bounds.
        let _ = self.0.add(&other.0);
    }

    /// Number of recorded latencies.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns a quantile: 0.5 is the median.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e9)
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

/// Displays a latency with three or four digits and its unit.
pub(crate) struct DisplayLatency(pub(crate) Duration);

impl fmt::Display for DisplayLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        let text = match micros {
            ..100.0 => format!("{micros:.1} µs"),
            ..1_000.0 => format!("{micros:.0} µs"),
            ..100_000.0 => format!("{:.2} ms", micros / 1e3),
            _ => format!("{:.0} ms", micros / 1e3),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_has_a_suitable_unit() {
        let shown = |nanos| DisplayLatency(Duration::from_nanos(nanos)).to_string();
        assert_eq!(shown(21_340), "21.3 µs");
        assert_eq!(shown(213_400), "213 µs");
        assert_eq!(shown(2_134_000), "2.13 ms");
        assert_eq!(shown(213_400_000), "213 ms");
        assert_eq!(format!("{:>9}", DisplayLatency(Duration::from_micros(5))), "   5.0 µs");
    }

    #[test]
    fn quantiles_are_exact_to_one_percent() {
        let mut latencies = Latencies::new().expect("the bounds are constants");
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let mut merged = Latencies::new().expect("the bounds are constants");
        merged.merge(&latencies);
        assert_eq!(merged.count(), 1_000);
        let median = merged.quantile(0.5).as_secs_f64() * 1e6;
        assert!((495.0..=505.0).contains(&median), "{median}");
    }
}
