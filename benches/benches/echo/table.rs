//! What came out, as a table that can go into a document as it is.

use std::fmt::Write;

/// The rounds of one number of calls under way, in calls a second.
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

/// Medians, the ratio of the medians, and between which ratios the single rounds lay: how much the
/// machine let them vary.
pub(crate) fn text(levels: &[Level]) -> String {
    let mut text = String::from(
        "\n| calls under way | grid, calls/s | tonic, calls/s | grid / tonic | of single rounds |\n\
         |---|---|---|---|---|\n",
    );
    for Level { in_flight, grid, tonic } in levels {
        let (of_grid, of_tonic) = (median(grid), median(tonic));
        let ratio = of_grid / of_tonic;
        let rounds = grid.iter().zip(tonic).map(|(grid, tonic)| grid / tonic);
        let (least, most) = rounds.fold((f64::INFINITY, 0.0_f64), |(least, most), ratio| {
            (least.min(ratio), most.max(ratio))
        });
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| {in_flight} | {:.1} k | {:.1} k | {ratio:.1} | {least:.1} to {most:.1} |",
            of_grid / 1e3,
            of_tonic / 1e3
        );
    }
    text
}

/// Of an odd number of figures.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
