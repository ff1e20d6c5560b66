//! What came out, as tables that can go into a document as they are.

use std::time::Duration;

/// Of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    p50: Duration,
    p99: Duration,
    longest: Duration,
    per_second: f64,
}

impl Figures {
    pub(crate) fn new(mut times: Vec<Duration>, all: Duration) -> Self {
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        let per_second = times.len() as f64 / all.as_secs_f64();
        Self { p50: at(0.5), p99: at(0.99), longest: at(1.0), per_second }
    }
}

/// The rounds of both ways to wait.
#[derive(Debug, Default)]
pub(crate) struct Contended {
    pub(crate) told: Vec<Figures>,
    pub(crate) polling: Vec<Figures>,
}

impl Contended {
    /// The latest round, in a line.
    pub(crate) fn last(&self) -> String {
        let rate = |rounds: &[Figures]| rounds.last().map_or(0.0, |round| round.per_second);
        format!("told {:.0}/s, polling {:.0}/s", rate(&self.told), rate(&self.polling))
    }
}

pub(crate) fn alone(figures: &Figures) -> String {
    let Figures { p50, p99, longest, per_second } = figures;
    format!(
        "\n| lock and unlock, alone | median | p99 | longest |\n|---|---|---|---|\n\
         | {per_second:.0}/s | {} | {} | {} |\n",
        text(*p50),
        text(*p99),
        text(*longest)
    )
}

/// Medians of the rounds, and the ratio of the medians.
pub(crate) fn contended(rounds: &Contended) -> String {
    let time = |name: &str, of: fn(&Figures) -> Duration| {
        let [told, polling] = both(rounds, |figures| of(figures).as_secs_f64());
        let texts = [told, polling].map(|seconds| text(Duration::from_secs_f64(seconds)));
        format!("| {name} | {} | {} | {:.3} |\n", texts[0], texts[1], told / polling)
    };
    let [told, polling] = both(rounds, |figures| figures.per_second);
    let rate = told / polling;
    [
        "\n| contended | told | polling | told / polling |\n|---|---|---|---|\n".to_owned(),
        time("wait, median", |figures| figures.p50),
        time("wait, p99", |figures| figures.p99),
        time("wait, longest", |figures| figures.longest),
        format!("| locks a second | {told:.0} | {polling:.0} | {rate:.1} |\n"),
    ]
    .concat()
}

fn both(rounds: &Contended, of: impl Fn(&Figures) -> f64) -> [f64; 2] {
    [&rounds.told, &rounds.polling].map(|rounds| median(rounds.iter().map(&of).collect()))
}

/// Of an odd number of figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn text(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{:.0} µs", seconds * 1e6),
    }
}
