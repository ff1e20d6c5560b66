//! What came out, as a table that can go into a document as it is.

use std::time::Duration;

use crate::CONTENDERS;
use crate::cluster::PROCESSES;

/// Of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    times: [Duration; COLUMNS],
    per_second: f64,
}

/// The median, the 99th percentile, the longest.
const COLUMNS: usize = PARTS.len();
const PARTS: [f64; 3] = [0.5, 0.99, 1.0];

/// What was measured in all rounds.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) alone: Vec<Figures>,
    pub(crate) told: Vec<Figures>,
    pub(crate) polling: Vec<Figures>,
}

impl Figures {
    /// `all` is how long it took until all of these were over.
    pub(crate) fn new(mut times: Vec<Duration>, all: Duration) -> Self {
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        Self { times: PARTS.map(at), per_second: times.len() as f64 / all.as_secs_f64() }
    }

    /// Of each figure, the median of the rounds.
    fn median(rounds: &[Self]) -> Self {
        let times = std::array::from_fn(|column| {
            let seconds = rounds.iter().map(|round| round.times[column].as_secs_f64());
            Duration::from_secs_f64(median(seconds.collect()))
        });
        Self { times, per_second: median(rounds.iter().map(|round| round.per_second).collect()) }
    }
}

/// The medians of the rounds, and the ratio of those of the two ways to wait.
pub(crate) fn text(rounds: &Rounds) -> String {
    let (told, polling) = (Figures::median(&rounds.told), Figures::median(&rounds.polling));
    let ratio = |column: usize| {
        let [told, polling] = [told, polling].map(|figures| figures.times[column].as_secs_f64());
        format!("{:.3}", told / polling)
    };
    let ratios: [String; COLUMNS] = std::array::from_fn(ratio);
    let heads = ["median", "p99", "longest"].map(str::to_owned);
    [
        line(&format!("{PROCESSES} processes"), &heads, "locks/s"),
        line("---", &heads.clone().map(|_| "--:".to_owned()), "--:"),
        figures_line("lock and unlock, alone", Figures::median(&rounds.alone)),
        figures_line(&format!("wait, {CONTENDERS} contenders, told"), told),
        figures_line(&format!("wait, {CONTENDERS} contenders, polling"), polling),
        line("told / polling", &ratios, &format!("{:.1}", told.per_second / polling.per_second)),
    ]
    .concat()
}

fn figures_line(name: &str, Figures { times, per_second }: Figures) -> String {
    line(name, &times.map(time), &format!("{per_second:.0}"))
}

fn line(name: &str, columns: &[String; COLUMNS], last: &str) -> String {
    let [p50, p99, longest] = columns;
    format!("| {name:<28} | {p50:>8} | {p99:>8} | {longest:>8} | {last:>8} |\n")
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{:.0} µs", seconds * 1e6),
    }
}

/// Of an odd number of figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
