//! The results, as a Markdown table.

use std::time::Duration;

use crate::CONTENDERS;
use crate::cluster::PROCESSES;

/// The results of one round: percentiles of the times, and locks per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measurement {
    times: [Duration; COLUMNS],
    per_second: f64,
}

/// Columns of times: one per percentile.
const COLUMNS: usize = PERCENTILES.len();
/// The median, the 99th percentile and the maximum.
const PERCENTILES: [f64; 3] = [0.5, 0.99, 1.0];

/// The results of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) uncontended: Vec<Measurement>,
    pub(crate) notified: Vec<Measurement>,
    pub(crate) polling: Vec<Measurement>,
}

impl Measurement {
    /// Summarises the `times` of single locks, all of which took `elapsed` together.
    pub(crate) fn new(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        times.sort();
        let at = |percentile: f64| times[((times.len() - 1) as f64 * percentile).round() as usize];
        Self { times: PERCENTILES.map(at), per_second: times.len() as f64 / elapsed.as_secs_f64() }
    }

    /// Returns the median of each value over the rounds.
    fn median(rounds: &[Self]) -> Self {
        let times = std::array::from_fn(|column| {
            let seconds = rounds.iter().map(|round| round.times[column].as_secs_f64());
            Duration::from_secs_f64(median(seconds.collect()))
        });
        Self { times, per_second: median(rounds.iter().map(|round| round.per_second).collect()) }
    }
}

/// Formats the medians of the rounds, and the ratio between the two wait modes.
pub(crate) fn text(rounds: &Rounds) -> String {
    let (notified, polling) =
        (Measurement::median(&rounds.notified), Measurement::median(&rounds.polling));
    let ratio = |column: usize| {
        let [notified, polling] =
            [notified, polling].map(|figures| figures.times[column].as_secs_f64());
        format!("{:.3}", notified / polling)
    };
    let ratios: [String; COLUMNS] = std::array::from_fn(ratio);
    let heads = ["median", "p99", "max"].map(str::to_owned);
    [
        line(&format!("{PROCESSES} processes"), &heads, "locks/s"),
        line("---", &heads.clone().map(|_| "--:".to_owned()), "--:"),
        measurement_line("lock and unlock, uncontended", Measurement::median(&rounds.uncontended)),
        measurement_line(&format!("wait, {CONTENDERS} contenders, notified"), notified),
        measurement_line(&format!("wait, {CONTENDERS} contenders, polling"), polling),
        line(
            "notified / polling",
            &ratios,
            &format!("{:.1}", notified.per_second / polling.per_second),
        ),
    ]
    .concat()
}

fn measurement_line(name: &str, Measurement { times, per_second }: Measurement) -> String {
    line(name, &times.map(time), &format!("{per_second:.0}"))
}

fn line(name: &str, columns: &[String; COLUMNS], last: &str) -> String {
    let [p50, p99, max] = columns;
    format!("| {name:<30} | {p50:>8} | {p99:>8} | {max:>8} | {last:>8} |\n")
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{:.0} µs", seconds * 1e6),
    }
}

/// Returns the median of an odd number of values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
