//! Whether a history of a register is linearizable: whether each operation could have happened at
//! one instant between its beginning and its end.
//!
//! Wing and Gong's search, with Lowe's memory: orders are tried depth first, and what has been
//! tried with the same operations done and the same value is not tried again. A history is cut
//! where nothing is under way, and each segment is searched for itself: under a lock that excludes,
//! few operations overlap. A general search of an invalid history takes for ever, so no operation
//! may overlap with more than [`WIDTH_MAX`] that began after it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::event::{StoreOp, StoreResult};

/// How many operations may begin while one is under way.
pub const WIDTH_MAX: usize = 127;

/// One operation on a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterOp {
    /// When it began, in any unit.
    pub invoked: u64,
    /// When it was over, in the same.
    pub returned: u64,
    /// What was wanted.
    pub op: StoreOp,
    /// What came of it: done, or nobody knows. Others have no index in a history.
    pub result: StoreResult,
}

/// A history that cannot have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// It is not linearizable.
    #[error("no order explains {0}")]
    NotLinearizable(String),
    /// Too much is under way at once to be searched.
    #[error("{0} operations begin while one is under way: only {WIDTH_MAX} can be searched")]
    TooWide(usize),
}

/// Checks the history of a register that began with the value `initial`.
///
/// # Errors
///
/// What no order explains.
pub fn check(initial: u64, history: &mut [RegisterOp]) -> Result<(), HistoryError> {
    history.sort_by_key(|operation| operation.invoked);
    let mut values = BTreeSet::from([initial]);
    let mut rest = &*history;
    while !rest.is_empty() {
        let (segment, behind) = rest.split_at(segment_length(rest));
        rest = behind;
        let width = width(segment);
        if width > WIDTH_MAX {
            return Err(HistoryError::TooWide(width));
        }
        let after = values_after(segment, &values);
        if after.is_empty() {
            return Err(HistoryError::NotLinearizable(describe(segment, &values)));
        }
        values = after;
    }
    Ok(())
}

/// How many operations come before the first instant at which nothing is under way.
fn segment_length(history: &[RegisterOp]) -> usize {
    let mut busy_until = 0;
    let overlapping = history.iter().enumerate().take_while(|(index, operation)| {
        let is_part = *index == 0 || operation.invoked <= busy_until;
        busy_until = busy_until.max(operation.returned);
        is_part
    });
    overlapping.count()
}

/// How many operations begin while one is under way, at most.
fn width(segment: &[RegisterOp]) -> usize {
    let behind = |index: usize| {
        let during = segment[index + 1..].iter();
        during.take_while(|other| other.invoked <= segment[index].returned).count()
    };
    (0..segment.len()).map(behind).max().unwrap_or(0)
}

/// Which operations of a segment are done: all before an index, and some behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Completed {
    whole: usize,
    /// Counted from `whole`, which is never among them.
    behind: u128,
}

impl Completed {
    fn contains(self, index: usize) -> bool {
        index < self.whole || self.behind & (1 << (index - self.whole)) != 0
    }

    fn with(mut self, index: usize) -> Self {
        self.behind |= 1 << (index - self.whole);
        let more = self.behind.trailing_ones();
        // In two steps: a shift by all bits there are would be none.
        self.behind = self.behind >> (more / 2) >> (more - more / 2);
        self.whole += more as usize;
        self
    }
}

/// All values that the register may have after `segment`, if it had one of `before`.
fn values_after(segment: &[RegisterOp], before: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut ends = BTreeSet::new();
    let mut to_try: Vec<_> = before.iter().map(|value| (Completed::default(), *value)).collect();
    let mut tried: BTreeSet<_> = to_try.iter().copied().collect();
    while let Some((done, value)) = to_try.pop() {
        if done.whole == segment.len() {
            ends.insert(value);
            continue;
        }
        let mut next = candidates(segment, done);
        // A read that can be now may as well be: it changes nothing for the others. Without this
        // many readers at once have as many orders as there are subsets of them.
        if let Some(idle) = next.iter().copied().find(|at| segment[*at].is_consistent_read(value)) {
            next = vec![idle];
        }
        for index in next {
            for after in values_of(&segment[index], value).into_iter().flatten() {
                let reached = (done.with(index), after);
                if tried.insert(reached) {
                    to_try.push(reached);
                }
            }
        }
    }
    ends
}

/// Operations that may come next: those that began before any other that is left was over.
fn candidates(segment: &[RegisterOp], done: Completed) -> Vec<usize> {
    let mut first_returned = u64::MAX;
    let mut next = Vec::new();
    for (index, operation) in segment.iter().enumerate().skip(done.whole) {
        if operation.invoked > first_returned {
            break;
        }
        if !done.contains(index) {
            first_returned = first_returned.min(operation.returned);
            next.push(index);
        }
    }
    next.retain(|index| segment[*index].invoked <= first_returned);
    next
}

/// What the register may hold after an operation; nothing if what came of it contradicts `value`.
/// What nobody knows of may not have been done at all.
fn values_of(operation: &RegisterOp, value: u64) -> [Option<u64>; 2] {
    let after = match operation.op {
        StoreOp::Read => value,
        StoreOp::Write { value } => value,
        StoreOp::Increment => value.wrapping_add(1),
    };
    match operation.result {
        StoreResult::Done { value: seen } => [Some(after).filter(|after| *after == seen), None],
        StoreResult::Unknown | StoreResult::Refused | StoreResult::Abandoned => {
            [Some(value), Some(after)]
        }
    }
}

impl RegisterOp {
    /// Whether it is a read that is explained by this value.
    fn is_consistent_read(&self, value: u64) -> bool {
        self.op == StoreOp::Read && values_of(self, value).into_iter().flatten().next().is_some()
    }
}

/// A segment in words.
fn describe(segment: &[RegisterOp], values: &BTreeSet<u64>) -> String {
    let mut text = format!("{} operations from {values:?}:", segment.len());
    for operation in segment.iter().take(DESCRIBED_MAX) {
        let RegisterOp { invoked, returned, op, result } = operation;
        // Writing to a string does not fail.
        let _ = write!(text, " [{invoked}..{returned} {op}: {result}]");
    }
    text
}

/// More would not be read.
const DESCRIBED_MAX: usize = 12;

#[cfg(test)]
mod tests;
