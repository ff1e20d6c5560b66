//! The protected store: a register for each resource, outside of all nodes.
//!
//! It fences ([B54]): it remembers the highest token of a writer, and refuses any lower token. It
//! is never down and never slow; the load chooses the latency of an operation.
//!
//! [B54]: crate::rules#b54

use std::collections::BTreeMap;
use std::sync::Arc;

use grid::sync::{Mutex, MutexGuard};

/// The registers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Store(Arc<Mutex<BTreeMap<u8, Register>>>);

#[derive(Debug, Default)]
struct Register {
    value: u64,
    /// The highest token of a writer, whether it read or wrote.
    fence: u64,
}

/// The operation's token is below that of an earlier writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is below {fence}")]
pub struct StaleToken {
    /// The token of that writer.
    pub fence: u64,
}

impl Store {
    fn registers(&self) -> MutexGuard<'_, BTreeMap<u8, Register>> {
        self.0.lock()
    }

    /// Reads the register of `resource`.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] if a writer with a higher token has used the register.
    pub fn read(&self, resource: u8, token: u64, is_writer: bool) -> Result<u64, StaleToken> {
        let mut registers = self.registers();
        let register = registers.entry(resource).or_default();
        register.admit(token)?;
        if is_writer {
            register.fence = token;
        }
        Ok(register.value)
    }

    /// Writes `value` to the register of `resource`.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] if a writer with a higher token has used the register.
    pub fn write(&self, resource: u8, token: u64, value: u64) -> Result<(), StaleToken> {
        let mut registers = self.registers();
        let register = registers.entry(resource).or_default();
        register.admit(token)?;
        (register.fence, register.value) = (token, value);
        Ok(())
    }
}

impl Register {
    fn admit(&self, token: u64) -> Result<(), StaleToken> {
        let fence = self.fence;
        if token < fence { Err(StaleToken { fence }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b54_operation_with_a_lower_token_than_an_earlier_writer_is_refused() {
        let store = Store::default();
        assert_eq!(store.write(0, 5, 17), Ok(()));
        assert_eq!(store.read(0, 9, false), Ok(17));
        assert_eq!(store.write(0, 5, 18), Ok(()), "a reader's token does not fence");
        assert_eq!(store.read(0, 7, true), Ok(18));
        assert_eq!(store.write(0, 5, 19), Err(StaleToken { fence: 7 }), "a writer has read since");
        assert_eq!(store.read(0, 6, false), Err(StaleToken { fence: 7 }));
        assert_eq!(store.read(0, 7, false), Ok(18), "a refused write has no effect");
        assert_eq!(store.write(1, 1, 1), Ok(()), "each resource has its own fence");
    }
}
