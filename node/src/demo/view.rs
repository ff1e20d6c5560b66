//! The progress of the demo: a live view on a terminal, one line per second elsewhere.

use std::io;
use std::time::Duration;

use grid::Name;
use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outcome::Outcome;
use crate::output;

/// Time between two refreshes.
pub(super) const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// Weight of the newest measurement of a rate; the rest is the average before it, for a steady
/// view.
const NEWEST_WEIGHT: f64 = 0.3;

/// Servers in one line of the live view: three fit 80 columns.
const NODES_PER_LINE: usize = 3;

/// Pairs that are listed as down. More are only counted.
const PAIRS_LISTED: usize = 8;

/// The counters at one moment.
pub(super) struct Snapshot {
    /// Time since the load began.
    pub(super) elapsed: Duration,
    /// Connection ends that are up, and the number in a fully connected cluster.
    pub(super) connected: usize,
    pub(super) expected: usize,
    /// For each server, whether it runs.
    pub(super) are_running: Vec<bool>,
    /// Pairs of servers that are not connected.
    pub(super) down: Vec<(usize, usize)>,
    /// Outcomes of calls.
    pub(super) outcomes: [u64; Outcome::COUNT],
    /// Messages of streams that were echoed.
    pub(super) echoed: u64,
    /// Locks that were held and released.
    pub(super) locked: u64,
}

/// The progress display.
pub(super) struct View {
    total: Duration,
    live: Option<LiveView>,
    /// The last whole second for which a line was written.
    shown_seconds: u64,
    calls: Rate,
    messages: Rate,
    locks: Rate,
}

/// A smoothed rate per second.
#[derive(Default)]
struct Rate {
    per_second: f64,
    before: Option<(Duration, u64)>,
}

/// The lines that are redrawn. None of them remains when the view is closed.
struct LiveView {
    all: MultiProgress,
    names: Vec<String>,
    time: ProgressBar,
    nodes: Vec<ProgressBar>,
    connections: ProgressBar,
    down: ProgressBar,
    calls: ProgressBar,
    streams: ProgressBar,
    locks: ProgressBar,
}

impl View {
    /// Creates the view of a demo of this length, with these servers.
    pub(super) fn new(total: Duration, names: &[Name]) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let live = (!all.is_hidden()).then(|| LiveView::new(all, total, names));
        let [calls, messages, locks] = [(); 3].map(|()| Rate::default());
        Self { total, live, shown_seconds: 0, calls, messages, locks }
    }

    /// Displays the counters.
    pub(super) fn refresh(&mut self, now: &Snapshot) -> io::Result<()> {
        let Snapshot { elapsed, connected, expected, outcomes, echoed, locked, .. } = now;
        let calls = self.calls.measure(*elapsed, outcomes.iter().sum());
        let messages = self.messages.measure(*elapsed, *echoed);
        let (calls, messages) = (format!("{calls} calls/s"), format!("{messages} messages/s"));
        let locks = format!("{} locks/s", self.locks.measure(*elapsed, *locked));
        let outcomes = list_outcomes(outcomes);
        if let Some(live) = &self.live {
            live.show_cluster(now);
            live.time.set_position(millis(*elapsed));
            live.calls.set_message(format!("{calls} · {outcomes}"));
            live.streams.set_message(format!("{messages} · {} in total", HumanCount(*echoed)));
            live.locks.set_message(format!("{locks} · {} in total", HumanCount(*locked)));
            return Ok(());
        }
        if elapsed.as_secs() <= self.shown_seconds {
            return Ok(());
        }
        self.shown_seconds = elapsed.as_secs();
        let seconds = elapsed.as_secs_f64();
        let total = self.total.as_secs();
        let down = match now.down.as_slice() {
            [] => String::new(),
            pairs => format!(" · down: {}", list_pairs(pairs)),
        };
        output::print_line(&format!(
            "{seconds:5.1} s of {total} · {connected}/{expected} ends connected{down} · {calls} · \
             {messages} · {locks} · {outcomes}"
        ))
    }

    /// Prints an event above the live view, where it remains.
    pub(super) fn print_event(&self, text: &str) -> io::Result<()> {
        match &self.live {
            Some(live) => live.all.println(text),
            None => output::print_line(&text),
        }
    }

    /// Removes the live view, to make room for the result.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.live.take().map_or(Ok(()), LiveView::close)
    }
}

impl Rate {
    /// Records a counter's value. Returns the rate.
    fn measure(&mut self, now: Duration, count: u64) -> HumanCount {
        if let Some((at, before)) = self.before {
            let seconds = now.saturating_sub(at).as_secs_f64();
            if seconds > 0.0 {
                let newest = (count - before) as f64 / seconds;
                let weight = if self.per_second == 0.0 { 1.0 } else { NEWEST_WEIGHT };
                self.per_second += weight * (newest - self.per_second);
            }
        }
        self.before = Some((now, count));
        HumanCount(self.per_second as u64)
    }
}

impl LiveView {
    fn new(all: MultiProgress, total: Duration, names: &[Name]) -> Self {
        let bar = |bar: ProgressBar, template: &str| {
            // The templates are constants; the default bar is better than no bar.
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸─");
            all.add(bar.with_style(style))
        };
        let line = |template| bar(ProgressBar::new_spinner(), template);
        let time =
            bar(ProgressBar::new(millis(total)), "time         {bar:40.cyan} {elapsed} of {msg}");
        time.set_message(format!("{} s", total.as_secs()));
        let lines = names.len().div_ceil(NODES_PER_LINE);
        let nodes = (0..lines).map(|line_of_nodes| match line_of_nodes {
            0 => line("nodes        {wide_msg}"),
            _ => line("             {wide_msg}"),
        });
        let nodes = nodes.collect();
        let connections =
            bar(ProgressBar::new(0), "connections  {bar:40.green} {pos}/{len} ends connected");
        let down = line("pairs down   {wide_msg}");
        let calls = line("calls        {wide_msg}");
        let streams = line("streams      {wide_msg}");
        let locks = line("locks        {wide_msg}");
        let names = names.iter().map(|name| name.as_str().trim_start_matches("http://").to_owned());
        let names = names.collect();
        Self { all, names, time, nodes, connections, down, calls, streams, locks }
    }

    fn show_cluster(&self, now: &Snapshot) {
        let nodes: Vec<_> = self.names.iter().zip(&now.are_running).enumerate().collect();
        for (line, nodes) in self.nodes.iter().zip(nodes.chunks(NODES_PER_LINE)) {
            let cells = nodes.iter().map(|(node, (name, is_running))| {
                let state = if **is_running { "" } else { " killed" };
                format!("{:<22}", format!("{} {name}{state}", node + 1))
            });
            line.set_message(cells.collect::<String>());
        }
        self.connections.set_position(now.connected as u64);
        self.connections.set_length(now.expected as u64);
        self.down.set_message(list_pairs(&now.down));
    }

    /// Removes all lines. A bar that is dropped unfinished would draw itself once more.
    fn close(self) -> io::Result<()> {
        let Self { all, names: _, time, nodes, connections, down, calls, streams, locks } = self;
        let bars = [time, connections, down, calls, streams, locks];
        for bar in bars.iter().chain(&nodes) {
            bar.finish_and_clear();
        }
        all.clear()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Lists pairs of servers: "1↔4, 2↔4".
fn list_pairs(pairs: &[(usize, usize)]) -> String {
    let listed = pairs.iter().take(PAIRS_LISTED).map(|(a, b)| format!("{}↔{}", a + 1, b + 1));
    let listed = listed.collect::<Vec<_>>().join(", ");
    match pairs.len().saturating_sub(PAIRS_LISTED) {
        _ if pairs.is_empty() => "none".to_owned(),
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// Lists all outcomes that occurred: "12,345 responded, 3 deadline".
pub(super) fn list_outcomes(outcomes: &[u64; Outcome::COUNT]) -> String {
    let with_counts = Outcome::ALL.into_iter().zip(outcomes).filter(|(_, count)| **count > 0);
    let texts = with_counts.map(|(outcome, n)| format!("{} {}", HumanCount(*n), outcome.label()));
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { "none yet".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_pairs_are_listed_by_number_and_long_lists_are_truncated() {
        assert_eq!(list_pairs(&[]), "none");
        assert_eq!(list_pairs(&[(0, 3), (1, 3)]), "1↔4, 2↔4");
        let many: Vec<_> = (0..15).map(|node| (node, 15)).collect();
        assert!(list_pairs(&many).ends_with("8↔16 and 7 more"), "{}", list_pairs(&many));
    }
}
