//! Checks whether a history of a register is linearizable: whether each operation can have taken
//! effect at one instant between its invocation and its return.
//!
//! The search is Wing and Gong's, with Lowe's memoization: orders are tried depth first, and a
//! state (operations done, value) is tried once. A history is split at instants at which no
//! operation is outstanding, and each segment is searched alone: under an exclusive lock, few
//! operations overlap. Searching an invalid history takes exponential time, so no operation may
//! overlap with more than [`WIDTH_MAX`] that began after it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::event::{StoreOp, StoreResult};

/// Number of operations that may begin while one is outstanding.
pub const WIDTH_MAX: usize = 127;

/// One operation on a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterOp {
    /// Invocation time, in any unit.
    pub invoked: u64,
    /// Return time, in the same unit.
    pub returned: u64,
    /// The requested operation.
    pub op: StoreOp,
    /// Its result: done or unknown. Operations with other results are not part of a history.
    pub result: StoreResult,
}

/// Why a history is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinearizabilityError {
    /// It is not linearizable.
    #[error("no order explains {0}")]
    NotLinearizable(String),
    /// Too many operations overlap for a search.
    #[error("{0} operations begin while one is outstanding: only {WIDTH_MAX} can be searched")]
    TooWide(usize),
}

/// Checks the history of a register whose initial value is `initial`.
///
/// # Errors
///
/// The segment that is not linearizable.
pub fn check(initial: u64, history: &mut [RegisterOp]) -> Result<(), LinearizabilityError> {
    history.sort_by_key(|operation| operation.invoked);
    let mut values = BTreeSet::from([initial]);
    let mut rest = &*history;
    while !rest.is_empty() {
        let (segment, behind) = rest.split_at(segment_length(rest));
        rest = behind;
        let width = width(segment);
        if width > WIDTH_MAX {
            return Err(LinearizabilityError::TooWide(width));
        }
        let after = values_after(segment, &values);
        if after.is_empty() {
            return Err(LinearizabilityError::NotLinearizable(describe(segment, &values)));
        }
        values = after;
    }
    Ok(())
}

/// Returns the number of operations before the first instant at which none is outstanding.
fn segment_length(history: &[RegisterOp]) -> usize {
    let mut busy_until = 0;
    let overlapping = history.iter().enumerate().take_while(|(index, operation)| {
        let is_part = *index == 0 || operation.invoked <= busy_until;
        busy_until = busy_until.max(operation.returned);
        is_part
    });
    overlapping.count()
}

/// Returns the largest number of operations that begin while one is outstanding.
fn width(segment: &[RegisterOp]) -> usize {
    let behind = |index: usize| {
        let during = segment[index + 1..].iter();
        during.take_while(|other| other.invoked <= segment[index].returned).count()
    };
    (0..segment.len()).map(behind).max().unwrap_or(0)
}

/// The operations of a segment that are done: all before an index, and some after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Completed {
    /// Number of leading operations that are all done.
    prefix: usize,
    /// Bit i: whether the operation at `prefix + i` is done; bit 0 is never set.
    beyond: u128,
}

impl Completed {
    fn contains(self, index: usize) -> bool {
        index < self.prefix || self.beyond & (1 << (index - self.prefix)) != 0
    }

    fn with(mut self, index: usize) -> Self {
        self.beyond |= 1 << (index - self.prefix);
        let more = self.beyond.trailing_ones();
        // Two shifts: a single shift by the full width would overflow.
        self.beyond = self.beyond >> (more / 2) >> (more - more / 2);
        self.prefix += more as usize;
        self
    }
}

/// Returns all values that the register may have after `segment`, given those `before` it.
fn values_after(segment: &[RegisterOp], before: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut ends = BTreeSet::new();
    let mut to_try: Vec<_> = before.iter().map(|value| (Completed::default(), *value)).collect();
    let mut tried: BTreeSet<_> = to_try.iter().copied().collect();
    while let Some((done, value)) = to_try.pop() {
        if done.prefix == segment.len() {
            ends.insert(value);
            continue;
        }
        let mut next = candidates(segment, done);
        // A read that is possible now is done now: it does not affect the others. Otherwise n
        // concurrent readers have as many orders as they have subsets.
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

/// Returns the operations that may come next: those invoked before any other remaining one
/// returned.
fn candidates(segment: &[RegisterOp], done: Completed) -> Vec<usize> {
    let mut first_returned = u64::MAX;
    let mut next = Vec::new();
    for (index, operation) in segment.iter().enumerate().skip(done.prefix) {
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

/// Returns the values that the register may hold after an operation; none if its result contradicts
/// `value`. An operation with an unknown result may not have taken effect.
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
    /// Returns whether it is a read that `value` explains.
    fn is_consistent_read(&self, value: u64) -> bool {
        self.op == StoreOp::Read && values_of(self, value).into_iter().flatten().next().is_some()
    }
}

/// Describes a segment.
fn describe(segment: &[RegisterOp], values: &BTreeSet<u64>) -> String {
    let mut text = format!("{} operations from {values:?}:", segment.len());
    for operation in segment.iter().take(DESCRIBED_MAX) {
        let RegisterOp { invoked, returned, op, result } = operation;
        // Writing to a string does not fail.
        let _ = write!(text, " [{invoked}..{returned} {op}: {result}]");
    }
    text
}

/// Operations in a description: more would not be read.
const DESCRIBED_MAX: usize = 12;

#[cfg(test)]
mod tests;
