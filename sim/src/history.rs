//! Whether a history of a register is linearizable: whether each operation could have happened at one
//! instant between its beginning and its end.
//!
//! Wing and Gong's search, with Lowe's memory: orders are tried depth first, and what has been tried with
//! the same operations done and the same value is not tried again. A history is cut where nothing is under
//! way, and each piece is searched for itself: under a lock that excludes, pieces are a few operations
//! long. A general search of an invalid history takes for ever from a few hundred on, so a piece may have
//! [`PIECE_MAX`] operations.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::event::{StoreOp, StoreResult};

/// Operations of a piece, at most.
pub const PIECE_MAX: usize = 128;

/// One operation on a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// When it began, in any unit.
    pub invoked: u64,
    /// When it was over, in the same.
    pub returned: u64,
    /// What was wanted.
    pub op: StoreOp,
    /// What came of it: done, or nobody knows. Others have no place in a history.
    pub result: StoreResult,
}

/// A history that cannot have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not linearizable.
    #[error("no order explains {0}")]
    Unexplained(String),
    /// Too much is under way at once to be searched.
    #[error("{0} operations without a pause: only {PIECE_MAX} can be searched")]
    TooLong(usize),
}

/// Checks the history of a register that began with the value `initial`.
///
/// # Errors
///
/// What no order explains.
pub fn check(initial: u64, history: &mut [Operation]) -> Result<(), Problem> {
    history.sort_by_key(|operation| operation.invoked);
    let mut values = BTreeSet::from([initial]);
    let mut rest = &*history;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(piece_length(rest));
        rest = behind;
        if piece.len() > PIECE_MAX {
            return Err(Problem::TooLong(piece.len()));
        }
        let after = values_after(piece, &values);
        if after.is_empty() {
            return Err(Problem::Unexplained(told(piece, &values)));
        }
        values = after;
    }
    Ok(())
}

/// How many operations come before the first instant at which nothing is under way.
fn piece_length(history: &[Operation]) -> usize {
    let mut busy_until = 0;
    let overlapping = history.iter().enumerate().take_while(|(place, operation)| {
        let is_part = *place == 0 || operation.invoked <= busy_until;
        busy_until = busy_until.max(operation.returned);
        is_part
    });
    overlapping.count()
}

/// All values that the register may have after `piece`, if it had one of `before`.
fn values_after(piece: &[Operation], before: &BTreeSet<u64>) -> BTreeSet<u64> {
    let all_done = if piece.len() == PIECE_MAX { u128::MAX } else { (1 << piece.len()) - 1 };
    let mut ends = BTreeSet::new();
    let mut to_try: Vec<(u128, u64)> = before.iter().map(|value| (0, *value)).collect();
    let mut tried: BTreeSet<_> = to_try.iter().copied().collect();
    while let Some((done, value)) = to_try.pop() {
        if done == all_done {
            ends.insert(value);
            continue;
        }
        // A read that can be now may as well be: it changes nothing for the others. Without this many
        // readers at once have as many orders as there are subsets of them.
        let is_idle = |(_, operation): &(usize, &Operation)| operation.may_change_nothing(value);
        let idle = candidates(piece, done).find(is_idle);
        let is_next = |place| idle.is_none_or(|(idle, _)| idle == place);
        for (place, operation) in candidates(piece, done).filter(|(place, _)| is_next(*place)) {
            for next in values_of(operation, value).into_iter().flatten() {
                let reached = (done | 1 << place, next);
                if tried.insert(reached) {
                    to_try.push(reached);
                }
            }
        }
    }
    ends
}

/// Operations that may come next: those that began before any other that is left was over.
fn candidates(piece: &[Operation], done: u128) -> impl Iterator<Item = (usize, &Operation)> {
    let left = move || piece.iter().enumerate().filter(move |(place, _)| done & (1 << place) == 0);
    let first_over = left().map(|(_, operation)| operation.returned).min().unwrap_or(0);
    left().filter(move |(_, operation)| operation.invoked <= first_over)
}

/// What the register may hold after an operation; nothing if what came of it contradicts `value`. What
/// nobody knows of may not have been done at all.
fn values_of(operation: &Operation, value: u64) -> [Option<u64>; 2] {
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

impl Operation {
    /// Whether it is a read that is explained by this value.
    fn may_change_nothing(&self, value: u64) -> bool {
        self.op == StoreOp::Read && values_of(self, value).into_iter().flatten().next().is_some()
    }
}

/// A piece in words.
fn told(piece: &[Operation], values: &BTreeSet<u64>) -> String {
    let mut text = format!("{} operations from {values:?}:", piece.len());
    for operation in piece.iter().take(TOLD_MAX) {
        let Operation { invoked, returned, op, result } = operation;
        // Writing to a string does not fail.
        let _ = write!(text, " [{invoked}..{returned} {op}: {result}]");
    }
    text
}

/// More would not be read.
const TOLD_MAX: usize = 12;

#[cfg(test)]
mod tests;
