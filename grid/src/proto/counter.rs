//! Counters that cannot wrap: a decrement below zero is a bug of the machine, and is reported as one.

use std::fmt::Display;
use std::ops::SubAssign;

/// Subtracts from a counter that is known to be large enough. Otherwise it panics in debug builds;
/// in others it reports a bug and sets the counter to zero, because a wrapped one would lift a limit.
pub(super) fn subtract<N>(counter: &mut N, amount: N, name: &str)
where
    N: Copy + Default + Display + PartialOrd + SubAssign,
{
    debug_assert!(*counter >= amount, "{name} is {counter}, {amount} is to be subtracted");
    if *counter >= amount {
        *counter -= amount;
    } else {
        crate::bug!("{name} is {counter}, {amount} is to be subtracted");
        *counter = N::default();
    }
}
