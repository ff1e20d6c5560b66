//! The outcome of every stream of the demo, and the echo of every message on it.
//!
//! ```text
//!   open       record_echo(0), record_echo(1), …       finish(sent) | end(outcome)
//!  ──────► Open ──────────────────────────────► Open ─────────────────────────────► one outcome
//!            │ dropped                                                              counted
//!            └──► counted as `Killed`: its server was killed, with its tasks
//! ```
//!
//! Messages are numbered from 0 on each stream, and echoes must arrive in this order: a skipped
//! number was lost, a repeated one was duplicated. A violation makes the stream's outcome `Wrong`,
//! however the stream ends. A stream that finishes must also have echoed as many messages as were
//! sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Pair;
use crate::outcome::Outcome;

/// The streams from one server to another.
#[derive(Default)]
pub(in crate::demo) struct Streams {
    opened: AtomicU64,
    outcomes: [AtomicU64; Outcome::COUNT],
    /// Messages that were echoed.
    echoed: AtomicU64,
    /// Messages that were echoed on finished streams: all that were sent there.
    completed: AtomicU64,
}

impl Streams {
    pub(in crate::demo) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    pub(in crate::demo) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()].load(Ordering::Relaxed)
    }

    pub(in crate::demo) fn ended(&self) -> u64 {
        Outcome::ALL.into_iter().map(|outcome| self.count(outcome)).sum()
    }

    pub(in crate::demo) fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed)
    }

    pub(in crate::demo) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Sets all counters, for tests of their display.
    #[cfg(test)]
    pub(super) fn set_all(&self, count: u64) {
        let counters = [&self.opened, &self.echoed, &self.completed].into_iter();
        counters.chain(&self.outcomes).for_each(|counter| counter.store(count, Ordering::Relaxed));
    }
}

impl Pair {
    /// Counts a stream that is about to be opened.
    pub(in crate::demo) fn open(self: &Arc<Self>) -> OpenStream {
        self.streams.opened.fetch_add(1, Ordering::Relaxed);
        OpenStream { pair: Arc::clone(self), echoed: 0, violation: None, is_ended: false }
    }
}

/// A stream without an outcome.
#[must_use = "a stream that is dropped counts as killed"]
pub(in crate::demo) struct OpenStream {
    pair: Arc<Pair>,
    /// Number of echoes, which is the next message number.
    echoed: u64,
    /// The first violation.
    violation: Option<String>,
    is_ended: bool,
}

impl OpenStream {
    /// Records the echo of this message; `None` if it is not a message of this stream.
    pub(in crate::demo) fn record_echo(&mut self, number: Option<u64>) {
        let expected = self.echoed;
        match number {
            Some(number) if number == expected => {
                self.echoed += 1;
                self.pair.streams.echoed.fetch_add(1, Ordering::Relaxed);
            }
            Some(number) => {
                self.record_violation(format!("message {number} was echoed, expected {expected}"));
            }
            None => {
                self.record_violation(format!(
                    "an unknown message was echoed, expected {expected}"
                ));
            }
        }
    }

    /// Counts a stream that the callee finished, after `sent` messages.
    pub(in crate::demo) fn finish(mut self, sent: u64) -> Outcome {
        if sent != self.echoed {
            self.record_violation(format!(
                "{sent} messages were sent, {} were echoed",
                self.echoed
            ));
        }
        if self.violation.is_none() {
            self.pair.streams.completed.fetch_add(sent, Ordering::Relaxed);
        }
        self.end(Outcome::Finished)
    }

    /// Counts the stream's outcome, `Wrong` after a violation. Returns the counted outcome.
    pub(in crate::demo) fn end(mut self, outcome: Outcome) -> Outcome {
        let outcome = match &self.violation {
            None => outcome,
            Some(violation) => {
                self.pair.record_unexpected(&format!("stream: {violation}"));
                Outcome::Wrong
            }
        };
        self.is_ended = true;
        self.count(outcome);
        outcome
    }

    fn record_violation(&mut self, violation: String) {
        self.violation.get_or_insert(violation);
    }

    fn count(&self, outcome: Outcome) {
        self.pair.streams.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count(Outcome::Killed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Arc<Pair> {
        Arc::new(Pair::new(0, 1).expect("the histogram's bounds are constants"))
    }

    /// Finishes a stream on which three messages were sent, after these echoes.
    fn finished_after(echoes: &[Option<u64>]) -> (Outcome, String) {
        let pair = pair();
        let mut stream = pair.open();
        echoes.iter().for_each(|echo| stream.record_echo(*echo));
        let outcome = stream.finish(3);
        (outcome, pair.unexpected().0.join(";"))
    }

    #[test]
    fn every_stream_is_counted_once_however_it_ends() {
        let pair = pair();
        assert_eq!(pair.open().finish(0), Outcome::Finished);
        assert_eq!(pair.open().end(Outcome::Disconnected), Outcome::Disconnected);
        drop(pair.open());
        let hanging = pair.open();
        assert_eq!((pair.streams.opened(), pair.streams.ended()), (4, 3), "one has no outcome");
        drop(hanging);
        assert_eq!((pair.streams.opened(), pair.streams.ended()), (4, 4));
        assert_eq!(pair.streams.count(Outcome::Killed), 2);
    }

    #[test]
    fn stream_finishes_only_with_each_message_once_and_in_order() {
        let (outcome, unexpected) = finished_after(&[Some(0), Some(1), Some(2)]);
        assert_eq!((outcome, unexpected.as_str()), (Outcome::Finished, ""));
        for (echoes, expected) in [
            (&[Some(0), Some(2)][..], "message 2 was echoed, expected 1"),
            (&[Some(0), Some(1)], "3 messages were sent, 2 were echoed"),
            (&[Some(0), Some(0), Some(1), Some(2)], "message 0 was echoed, expected 1"),
            (&[Some(1), Some(0), Some(2)], "message 1 was echoed, expected 0"),
            (&[Some(0), Some(1), Some(2), Some(3)], "3 messages were sent, 4 were echoed"),
            (&[Some(0), None, Some(1), Some(2)], "an unknown message was echoed, expected 1"),
        ] {
            let (outcome, unexpected) = finished_after(echoes);
            assert_eq!(outcome, Outcome::Wrong, "{echoes:?}");
            assert_eq!(unexpected, format!("stream: {expected}"), "{echoes:?}");
        }
    }

    #[test]
    fn violation_outlasts_a_disconnect() {
        let pair = pair();
        let mut stream = pair.open();
        stream.record_echo(Some(1));
        assert_eq!(stream.end(Outcome::Disconnected), Outcome::Wrong);
        assert_eq!(pair.streams.completed(), 0);
    }
}
