//! What became of every stream of the demo, and of every message on it.
//!
//! ```text
//!   open          came_back(0), came_back(1), …          finish(sent) | end(outcome)
//!  ──────► Open ─────────────────────────────────► Open ─────────────────────────────► one outcome
//!            │ dropped                                                                   counted
//!            └──► counted as `Killed`: its server went, and its task with it
//! ```
//!
//! Messages are numbered from 0 on each stream, and every one must come back next: a number that was
//! left out was lost, one that comes again was doubled. What is out of order makes the stream's
//! outcome `Wrong`, however it ends; a stream that finishes must also have brought back as many as
//! were sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Pair;
use crate::outcome::Outcome;

/// The streams from one server to another.
#[derive(Default)]
pub(in crate::demo) struct Streams {
    opened: AtomicU64,
    outcomes: [AtomicU64; Outcome::COUNT],
    /// Messages that came back.
    echoed: AtomicU64,
    /// Those of them that came back on streams that finished: all that were sent there.
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
}

impl Pair {
    /// A stream is about to be opened.
    pub(in crate::demo) fn open(self: &Arc<Self>) -> OpenStream {
        self.streams.opened.fetch_add(1, Ordering::Relaxed);
        OpenStream { pair: Arc::clone(self), echoed: 0, wrong: None, is_ended: false }
    }
}

/// A stream that has no outcome yet.
#[must_use = "a stream that is dropped counts as killed"]
pub(in crate::demo) struct OpenStream {
    pair: Arc<Pair>,
    /// How many came back, so the number that is next.
    echoed: u64,
    /// The first thing that should not have been.
    wrong: Option<String>,
    is_ended: bool,
}

impl OpenStream {
    /// The message of this number came back; `None` if it is no message of this stream.
    pub(in crate::demo) fn came_back(&mut self, number: Option<u64>) {
        let due = self.echoed;
        match number {
            Some(number) if number == due => {
                self.echoed += 1;
                self.pair.streams.echoed.fetch_add(1, Ordering::Relaxed);
            }
            Some(number) => self.is_wrong(format!("message {number} came back, {due} was due")),
            None => self.is_wrong(format!("not message {due} came back but something else")),
        }
    }

    /// The other side finished, and this one had sent so many messages.
    pub(in crate::demo) fn finish(mut self, sent: u64) -> Outcome {
        if sent != self.echoed {
            self.is_wrong(format!("{sent} messages were sent, {} came back", self.echoed));
        }
        if self.wrong.is_none() {
            self.pair.streams.completed.fetch_add(sent, Ordering::Relaxed);
        }
        self.end(Outcome::Finished)
    }

    /// The stream's outcome, unless something was wrong before. Returns what is counted.
    pub(in crate::demo) fn end(mut self, outcome: Outcome) -> Outcome {
        let outcome = match &self.wrong {
            None => outcome,
            Some(wrong) => {
                self.pair.surprised(&format!("stream: {wrong}"));
                Outcome::Wrong
            }
        };
        self.is_ended = true;
        self.count(outcome);
        outcome
    }

    fn is_wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
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

    /// A stream on which three messages were sent, and these came back before it finished.
    fn finished_after(echoes: &[Option<u64>]) -> (Outcome, String) {
        let pair = pair();
        let mut stream = pair.open();
        echoes.iter().for_each(|echo| stream.came_back(*echo));
        let outcome = stream.finish(3);
        (outcome, pair.surprises().0.join(";"))
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
    fn a_stream_is_well_only_with_each_message_once_and_in_order() {
        let (outcome, surprises) = finished_after(&[Some(0), Some(1), Some(2)]);
        assert_eq!((outcome, surprises.as_str()), (Outcome::Finished, ""));
        for (echoes, expected) in [
            (&[Some(0), Some(2)][..], "message 2 came back, 1 was due"),
            (&[Some(0), Some(1)], "3 messages were sent, 2 came back"),
            (&[Some(0), Some(0), Some(1), Some(2)], "message 0 came back, 1 was due"),
            (&[Some(1), Some(0), Some(2)], "message 1 came back, 0 was due"),
            (&[Some(0), Some(1), Some(2), Some(3)], "3 messages were sent, 4 came back"),
            (&[Some(0), None, Some(1), Some(2)], "not message 1 came back but something else"),
        ] {
            let (outcome, surprises) = finished_after(echoes);
            assert_eq!(outcome, Outcome::Wrong, "{echoes:?}");
            assert_eq!(surprises, format!("stream: {expected}"), "{echoes:?}");
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong_on_a_stream_that_is_cut() {
        let pair = pair();
        let mut stream = pair.open();
        stream.came_back(Some(1));
        assert_eq!(stream.end(Outcome::Disconnected), Outcome::Wrong);
        assert_eq!(pair.streams.completed(), 0);
    }
}
