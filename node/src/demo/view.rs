//! What the demo shows while it runs: live on a terminal, one line a second elsewhere.

use std::io;
use std::time::Duration;

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outcome::Outcome;
use crate::stdout;

/// Time between two looks at the counters, and two pictures on a terminal.
pub(super) const REFRESH_EVERY: Duration = Duration::from_millis(200);

/// Weight of the newest measurement of a rate; the rest is the past, for a calm picture.
const NEWEST_WEIGHT: f64 = 0.3;

/// The counters at one moment.
pub(super) struct Snapshot {
    /// Since the load began.
    pub(super) elapsed: Duration,
    /// Ends of connections.
    pub(super) connected: usize,
    pub(super) expected: usize,
    /// Of calls.
    pub(super) outcomes: [u64; Outcome::COUNT],
    /// Messages of streams that came back.
    pub(super) echoed: u64,
    /// Locks that were granted, and released.
    pub(super) locked: u64,
}

/// The screen.
pub(super) struct View {
    total: Duration,
    live: Option<Live>,
    /// The last whole second that a line was written for.
    shown_seconds: u64,
    calls: Rate,
    messages: Rate,
    locks: Rate,
}

/// How many a second, smoothed.
#[derive(Default)]
struct Rate {
    per_second: f64,
    before: Option<(Duration, u64)>,
}

/// Five lines that are redrawn.
struct Live {
    all: MultiProgress,
    time: ProgressBar,
    connections: ProgressBar,
    calls: ProgressBar,
    streams: ProgressBar,
    locks: ProgressBar,
}

impl View {
    /// For a demo of this length.
    pub(super) fn new(total: Duration) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let live = (!all.is_hidden()).then(|| Live::new(all, total));
        let [calls, messages, locks] = [(); 3].map(|()| Rate::default());
        Self { total, live, shown_seconds: 0, calls, messages, locks }
    }

    /// Shows the counters.
    pub(super) fn show(&mut self, now: &Snapshot) -> io::Result<()> {
        let Snapshot { elapsed, connected, expected, outcomes, echoed, locked } = now;
        let calls = self.calls.measure(*elapsed, outcomes.iter().sum());
        let messages = self.messages.measure(*elapsed, *echoed);
        let (calls, messages) = (format!("{calls} calls/s"), format!("{messages} messages/s"));
        let locks = format!("{} locks/s", self.locks.measure(*elapsed, *locked));
        let outcomes = describe(outcomes);
        if let Some(live) = &self.live {
            live.time.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            live.connections.set_position(*connected as u64);
            live.connections.set_length(*expected as u64);
            live.calls.set_message(format!("{calls} · {outcomes}"));
            live.streams.set_message(format!("{messages} · {} in all", HumanCount(*echoed)));
            live.locks.set_message(format!("{locks} · {} in all", HumanCount(*locked)));
            return Ok(());
        }
        if elapsed.as_secs() <= self.shown_seconds {
            return Ok(());
        }
        self.shown_seconds = elapsed.as_secs();
        let seconds = elapsed.as_secs_f64();
        let total = self.total.as_secs();
        stdout::line(&format!(
            "{seconds:5.1} s of {total} · {connected}/{expected} ends up · {calls} · {messages} · \
             {locks} · {outcomes}"
        ))
    }

    /// Says that something happened.
    pub(super) fn say(&self, text: &str) -> io::Result<()> {
        match &self.live {
            Some(live) => live.all.println(text),
            None => stdout::line(&text),
        }
    }

    /// Clears the picture, to make room for the result.
    pub(super) fn close(&self) -> io::Result<()> {
        self.live.as_ref().map_or(Ok(()), |live| live.all.clear())
    }
}

impl Rate {
    /// So many there are by now. Returns how many a second that makes.
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

impl Live {
    fn new(all: MultiProgress, total: Duration) -> Self {
        let style = |template| {
            // The templates below are constants; a plain bar is better than none.
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸─")
        };
        let total_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        let time = all.add(ProgressBar::new(total_ms));
        time.set_style(style("time         {bar:40.cyan} {elapsed} of {msg}"));
        time.set_message(format!("{} s", total.as_secs()));
        let connections = all.add(ProgressBar::new(0));
        connections.set_style(style("connections  {bar:40.green} {pos}/{len} ends up"));
        let calls = all.add(ProgressBar::new_spinner());
        calls.set_style(style("calls        {wide_msg}"));
        let streams = all.add(ProgressBar::new_spinner());
        streams.set_style(style("streams      {wide_msg}"));
        let locks = all.add(ProgressBar::new_spinner());
        locks.set_style(style("locks        {wide_msg}"));
        Self { all, time, connections, calls, streams, locks }
    }
}

/// All outcomes that there were: "12,345 answered, 3 deadline".
pub(super) fn describe(outcomes: &[u64; Outcome::COUNT]) -> String {
    let with_counts = Outcome::ALL.into_iter().zip(outcomes).filter(|(_, count)| **count > 0);
    let texts = with_counts.map(|(outcome, n)| format!("{} {}", HumanCount(*n), outcome.label()));
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { "none yet".to_owned() } else { texts.join(", ") }
}
