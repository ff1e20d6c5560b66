//! Renders a run: as an HTML page, as a log for other tools, as text.
//!
//! Everything here is a function of the trace, and of the plan for what the trace does not hold.
//! `diagram` pairs the events that belong together, in Rust, where it is tested; the page only
//! draws the result.

mod diagram;
mod fault_spans;
mod shiviz;

use std::fmt::Write;

use serde::Serialize;

use crate::event::{Event, EventKind};
use crate::plan::Plan;

use diagram::Diagram;
pub use shiviz::shiviz;

const PAGE: &str = include_str!("report/page/page.html");
const STYLE: &str = include_str!("report/page/page.css");
/// The parts of one script: later parts use earlier ones.
const SCRIPT: [&str; 8] = [
    include_str!("report/page/model.js"),
    include_str!("report/page/view.js"),
    include_str!("report/page/draw.js"),
    include_str!("report/page/text.js"),
    include_str!("report/page/list.js"),
    include_str!("report/page/controls.js"),
    include_str!("report/page/page.js"),
    include_str!("report/page/selftest.js"),
];

/// Returns a space-time diagram of a run: one self-contained HTML page.
///
/// It stays usable with a hundred thousand events. Opened with `#selftest` in its address, it
/// exercises its own controls and writes `PASS` or `FAIL` to its title (`.ci/page`).
pub fn html(plan: &Plan, events: &[Event]) -> String {
    let data = Data {
        scenario: &plan.scenario,
        seed: plan.seed.to_string(),
        tick_ms: plan.cluster.tick_ms.max(1),
        faulty_ms: plan.duration_ms,
        plan: serde_json::to_string_pretty(plan).unwrap_or_default(),
        lines: events.iter().map(|event| event.kind.to_string()).collect(),
        diagram: Diagram::of(plan, events),
        events,
    };
    // The data is inserted last: its text is not searched for placeholders.
    PAGE.replace("/*style*/", STYLE)
        .replace("/*script*/", &SCRIPT.join("\n"))
        .replace("/*data*/", &inside_script(&data))
}

/// Returns one line for each event.
pub fn text(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{event}");
    }
    text
}

/// Index of an event in the trace.
type EventIndex = usize;

/// The data of the page.
#[derive(Serialize)]
struct Data<'a> {
    scenario: &'a str,
    /// As text: JavaScript's numbers have 53 bits.
    seed: String,
    tick_ms: u64,
    faulty_ms: u64,
    plan: String,
    events: &'a [Event],
    lines: Vec<String>,
    diagram: Diagram,
}

/// Encodes `data` as JSON that is safe inside a `<script>`: an HTML parser looks for `</script` and
/// `<!--` there, even in the middle of a string.
fn inside_script(data: &impl Serialize) -> String {
    // Encoding cannot fail: no map has keys that are not text.
    let json = serde_json::to_string(data).unwrap_or_default();
    json.replace('<', "\\u003c")
}

/// Returns whether an event is a violation.
fn is_violation(event: &Event) -> bool {
    matches!(event.kind, EventKind::Violated { .. })
}

#[cfg(test)]
mod tests;
