//! Sees every panic and every `bug!` of a run: none of them may pass unnoticed.
//!
//! turmoil on stable Rust swallows panics of spawned tasks, and grid goes on after a bug. A run has
//! a thread to itself, so both are counted by thread.

use std::cell::RefCell;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

fn note(what: String) -> bool {
    SEEN.with(|seen| match &mut *seen.borrow_mut() {
        Some(seen) => {
            seen.push(what);
            true
        }
        None => false,
    })
}

/// Watches this thread until it is dropped.
#[must_use]
pub(crate) struct Guard {
    _default: DefaultGuard,
}

impl Guard {
    pub(crate) fn begin() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let others = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !note(format!("panic: {panic}")) {
                    others(panic);
                }
            }));
        });
        SEEN.with(|seen| *seen.borrow_mut() = Some(Vec::new()));
        Self { _default: tracing::subscriber::set_default(Bugs) }
    }

    /// What happened since it was last asked.
    pub(crate) fn take(&self) -> Vec<String> {
        SEEN.with(|seen| seen.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        SEEN.with(|seen| *seen.borrow_mut() = None);
    }
}

/// Hears nothing but bugs, so that all other logging costs nothing.
struct Bugs;

impl Subscriber for Bugs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == "grid::bug"
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(Level::ERROR.into())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        note(format!("bug: {}", text.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_bugs_of_this_thread_are_seen() {
        let guard = Guard::begin();
        let _ = std::panic::catch_unwind(|| panic!("on purpose"));
        grid::bug!("also on {}", "purpose");
        // As load does it: unwinding that is part of a plan is no panic.
        let _ = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new("planned")));
        let seen = guard.take();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen[0].contains("on purpose"), "{seen:?}");
        assert!(seen[1].contains("also on purpose"), "{seen:?}");
        assert!(guard.take().is_empty());
    }
}
