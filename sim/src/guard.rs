//! Captures every panic and every `bug!` of a run, because each must fail it.
//!
//! turmoil on stable Rust swallows panics of spawned tasks, and grid continues after a bug. A run
//! has a thread of its own, so both are recorded by thread.

use std::cell::{Cell, RefCell};
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::node::Node;

thread_local! {
    static FAILURES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    /// The node that is running.
    static NODE: Cell<Node> = const { Cell::new(Node(u8::MAX)) };
    /// Nodes that have logged that IAM is loaded, and their retries.
    static LOADED: RefCell<Vec<(Node, u32)>> = const { RefCell::new(Vec::new()) };
}

fn record_failure(what: String) -> bool {
    FAILURES.with(|seen| match &mut *seen.borrow_mut() {
        Some(seen) => {
            seen.push(what);
            true
        }
        None => false,
    })
}

/// Records panics and bugs of this thread until it is dropped.
#[must_use]
pub(crate) struct Guard {
    _default: DefaultGuard,
}

impl Guard {
    pub(crate) fn begin() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous_hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !record_failure(format!("panic: {panic}")) {
                    previous_hook(panic);
                }
            }));
        });
        FAILURES.with(|seen| *seen.borrow_mut() = Some(Vec::new()));
        LOADED.with(|loaded| loaded.borrow_mut().clear());
        Self { _default: tracing::subscriber::set_default(BugSubscriber) }
    }

    /// Returns the panics and bugs since the last call.
    pub(crate) fn take_failures(&self) -> Vec<String> {
        FAILURES.with(|seen| seen.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Guard {
    /// Returns the nodes that have logged since the last call that IAM is loaded, once for each log
    /// line, with the number of retries.
    pub(crate) fn take_loaded(&self) -> Vec<(Node, u32)> {
        LOADED.with(|loaded| std::mem::take(&mut *loaded.borrow_mut()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        FAILURES.with(|seen| *seen.borrow_mut() = None);
    }
}

/// Receives only bugs, IAM's logs for operators, and the name of the running node. All other
/// logging is disabled and costs nothing.
struct BugSubscriber;

impl Subscriber for BugSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match metadata.is_event() {
            true => {
                let is_iam_log = metadata.target() == "iam" && *metadata.level() <= Level::INFO;
                is_iam_log || metadata.target() == "grid::bug"
            }
            false => metadata.target().starts_with("turmoil") && metadata.name() == "node",
        }
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(Level::INFO.into())
    }

    /// turmoil creates a span whenever it runs a node.
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut name = NodeVisitor(None);
        span.record(&mut name);
        if let NodeVisitor(Some(node)) = name {
            NODE.set(node);
        }
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = LogLine::default();
        event.record(&mut line);
        if event.metadata().target() == "iam" {
            if line.text == LOADED_TEXT {
                LOADED.with(|loaded| loaded.borrow_mut().push((NODE.get(), line.retries)));
            }
            return;
        }
        record_failure(format!("bug: {}", line.text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message that IAM logs when it is loaded.
const LOADED_TEXT: &str = "IAM is loaded";

/// Extracts the node that a span names.
struct NodeVisitor(Option<Node>);

impl Visit for NodeVisitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            let number = value.strip_prefix("node-").and_then(|number| number.parse().ok());
            self.0 = number.map(Node);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Message and retries of a log line.
#[derive(Default)]
struct LogLine {
    text: String,
    retries: u32,
}

impl Visit for LogLine {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "retries" {
            self.retries = u32::try_from(value).unwrap_or(u32::MAX);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_bugs_of_this_thread_are_recorded() {
        let guard = Guard::begin();
        let _ = std::panic::catch_unwind(|| panic!("on purpose"));
        grid::bug!("also on {}", "purpose");
        // As load does it: unwinding that is part of a plan is no panic.
        let _ = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new("planned")));
        let seen = guard.take_failures();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen[0].contains("on purpose"), "{seen:?}");
        assert!(seen[1].contains("also on purpose"), "{seen:?}");
        assert!(guard.take_failures().is_empty());
    }
}
