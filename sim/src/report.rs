//! How a run is shown: as a page to look at, as a log for other tools, as text.
//!
//! Everything here is a function of the trace (and of the plan, for what the trace does not say).
//! What belongs together in a trace is found in `diagram`, once and in Rust, where it is tested;
//! the page only draws it.

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
/// One program in parts: the later ones use the earlier ones.
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

/// A space-time diagram of a run: one page that needs nothing else, for a browser.
///
/// It stays usable with a hundred thousand events. Opened with `#selftest` behind its address, it
/// tries its own controls and writes `PASS` or `FAIL` to its title (`.ci/page`).
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
    // The data comes last: what stands in it is not taken for an index to put something.
    PAGE.replace("/*style*/", STYLE)
        .replace("/*script*/", &SCRIPT.join("\n"))
        .replace("/*data*/", &inside_script(&data))
}

/// A line for each event.
pub fn text(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{event}");
    }
    text
}

/// All that the page gets.
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

/// As JSON that may stand inside of a `<script>`: an HTML parser looks for `</script` and `<!--`
/// there, also in the middle of a string.
fn inside_script(data: &impl Serialize) -> String {
    // None of what is shown can fail to become JSON: no map has keys that are not text.
    let json = serde_json::to_string(data).unwrap_or_default();
    json.replace('<', "\\u003c")
}

/// Whether an event says that the run failed.
fn is_violation(event: &Event) -> bool {
    matches!(event.kind, EventKind::Violated { .. })
}

#[cfg(test)]
mod tests;
