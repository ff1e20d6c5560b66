//! What the locks protect: a register for each resource, outside of all nodes.
//!
//! It fences (B54): it remembers the highest token that a writer came with, and refuses whoever
//! comes with a lower one. It is never down and never slow; how long an operation travels is the
//! load's choice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The registers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Store(Arc<Mutex<BTreeMap<u8, Register>>>);

#[derive(Debug, Default)]
struct Register {
    value: u64,
    /// The highest token of a writer, whether it read or wrote.
    fence: u64,
}

/// A writer with a higher token was here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is below {fence}")]
pub struct Refused {
    /// That token.
    pub fence: u64,
}

impl Store {
    fn registers(&self) -> MutexGuard<'_, BTreeMap<u8, Register>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the register of `resource` holds.
    ///
    /// # Errors
    ///
    /// If a writer with a higher token was here before.
    pub fn read(&self, resource: u8, token: u64, is_writer: bool) -> Result<u64, Refused> {
        let mut registers = self.registers();
        let register = registers.entry(resource).or_default();
        register.admit(token)?;
        if is_writer {
            register.fence = token;
        }
        Ok(register.value)
    }

    /// Lets the register of `resource` hold `value`.
    ///
    /// # Errors
    ///
    /// If a writer with a higher token was here before.
    pub fn write(&self, resource: u8, token: u64, value: u64) -> Result<(), Refused> {
        let mut registers = self.registers();
        let register = registers.entry(resource).or_default();
        register.admit(token)?;
        (register.fence, register.value) = (token, value);
        Ok(())
    }
}

impl Register {
    fn admit(&self, token: u64) -> Result<(), Refused> {
        let fence = self.fence;
        if token < fence { Err(Refused { fence }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b54_whoever_comes_behind_a_writer_with_a_higher_token_is_refused() {
        let store = Store::default();
        assert_eq!(store.write(0, 5, 17), Ok(()));
        assert_eq!(store.read(0, 9, false), Ok(17));
        assert_eq!(store.write(0, 5, 18), Ok(()), "a reader's token fences nobody");
        assert_eq!(store.read(0, 7, true), Ok(18));
        assert_eq!(store.write(0, 5, 19), Err(Refused { fence: 7 }), "a writer has read meanwhile");
        assert_eq!(store.read(0, 6, false), Err(Refused { fence: 7 }));
        assert_eq!(store.read(0, 7, false), Ok(18), "nothing that was refused was written");
        assert_eq!(store.write(1, 1, 1), Ok(()), "each resource for itself");
    }
}
