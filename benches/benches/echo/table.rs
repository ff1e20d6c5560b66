//! The results, as a Markdown table.

use std::fmt::Write;

/// The results for one number of calls in flight, in calls per second and round.
pub(crate) struct Level {
    pub(crate) in_flight: usize,
    pub(crate) grid: Vec<f64>,
    pub(crate) tonic: Vec<f64>,
}

impl Level {
    pub(crate) fn new(in_flight: usize) -> Self {
        Self { in_flight, grid: Vec::new(), tonic: Vec::new() }
    }
}

/// Formats the medians, the ratio of the medians, and the range of the ratios of single rounds,
/// which shows the variation due to the machine.
pub(crate) fn text(levels: &[Level]) -> String {
    let mut text = String::from(
        "\n| calls in flight | grid, calls/s | tonic, calls/s | grid / tonic | range of rounds |\n\
         |---|---|---|---|---|\n",
    );
    for Level { in_flight, grid, tonic } in levels {
        let (grid_median, tonic_median) = (median(grid), median(tonic));
        let ratio = grid_median / tonic_median;
        let rounds = grid.iter().zip(tonic).map(|(grid, tonic)| grid / tonic);
        let (min, max) = rounds
            .fold((f64::INFINITY, 0.0_f64), |(min, max), ratio| (min.min(ratio), max.max(ratio)));
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| {in_flight} | {:.1} k | {:.1} k | {ratio:.1} | {min:.1} to {max:.1} |",
            grid_median / 1e3,
            tonic_median / 1e3
        );
    }
    text
}

/// Returns the median of an odd number of figures.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
