//! The addresses of handlers: their ids, and the routes that they are registered under.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

use crate::error::RegisterError;
use crate::limits::STREAM_CAPACITY;
use crate::proto::connection::Capacities;
use crate::proto::subroute::Subroute;

/// A handler's number: 1 to 255, chosen by the application.
///
/// PROTOCOL.md lists the numbers that MinIO uses; this workspace's own start at 128. An
/// incompatible change of a handler takes a new number ([B34]).
///
/// [B34]: crate::rules#b34
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerId(NonZeroU8);

impl HandlerId {
    /// Creates an id from a constant, so that an invalid number does not compile. Use
    /// [`HandlerId::try_from`] for numbers that are read at run time.
    ///
    /// # Panics
    ///
    /// If the number is 0.
    pub const fn new(number: u8) -> Self {
        match NonZeroU8::new(number) {
            Some(number) => Self(number),
            None => zero_id(),
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

#[expect(clippy::panic, reason = "documented, and at compile time in a constant")]
const fn zero_id() -> HandlerId {
    panic!("handler ids are 1 to 255")
}

impl TryFrom<u8> for HandlerId {
    type Error = RegisterError;

    fn try_from(number: u8) -> Result<Self, RegisterError> {
        NonZeroU8::new(number).map(Self).ok_or(RegisterError::InvalidId)
    }
}

impl fmt::Debug for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which task a handler starts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Execution {
    /// Polled once by the connection's own task, and moved to a task of its own only if it is not
    /// ready then. Twice as fast for a handler that responds at once.
    #[default]
    Inline,
    /// Spawned as a task of its own at once, for handlers that compute for long before their first
    /// await: inline they would stall the whole connection. Code that blocks its thread still
    /// belongs in [`tokio::task::spawn_blocking`].
    Spawned,
}

/// The id, subroute and options that a handler is registered with.
#[derive(Debug, Clone)]
pub struct Route {
    pub(crate) id: HandlerId,
    pub(crate) subroute: Option<Subroute>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) execution: Execution,
    pub(crate) capacities: Capacities,
}

impl Route {
    /// Creates a route to the handler with this number.
    pub const fn new(id: HandlerId) -> Self {
        let capacities = Capacities { input: STREAM_CAPACITY, output: STREAM_CAPACITY };
        Self { id, subroute: None, name: None, execution: Execution::Inline, capacities }
    }

    /// Limits the route to calls that name this subroute ([B33]).
    ///
    /// [B33]: crate::rules#b33
    #[must_use]
    pub fn subroute(mut self, subroute: &Subroute) -> Self {
        self.subroute = Some(subroute.clone());
        self
    }

    /// Sets the name used in traces and errors. The default is the number.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets which task the handler starts on.
    #[must_use]
    pub const fn execution(mut self, execution: Execution) -> Self {
        self.execution = execution;
        self
    }
}

impl Route {
    /// For streams: sets how many messages to the handler may be in flight; 0 if it accepts none
    /// ([B26]). Callers must use the same value. The default is [`STREAM_CAPACITY`].
    ///
    /// [B26]: crate::rules#b26
    #[must_use]
    pub const fn input_capacity(mut self, messages: u32) -> Self {
        self.capacities.input = messages;
        self
    }

    /// For streams: sets how many messages from the handler may be in flight, at least 1. Callers
    /// must use the same value. The default is [`STREAM_CAPACITY`].
    #[must_use]
    pub const fn output_capacity(mut self, messages: u32) -> Self {
        self.capacities.output = messages;
        self
    }
}

/// Returns the name of a call in traces and errors: the handler's name, or its number where it has
/// none here, with the subroute.
pub(crate) fn call_name(
    id: HandlerId,
    name: Option<&str>,
    subroute: Option<&Subroute>,
) -> Arc<str> {
    match (name, subroute) {
        (Some(name), None) => name.into(),
        (Some(name), Some(subroute)) => format!("{name}/{}", subroute.as_str()).into(),
        (None, None) => id.to_string().into(),
        (None, Some(subroute)) => format!("{id}/{}", subroute.as_str()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handler_ids_are_1_to_255() {
        assert_eq!(HandlerId::try_from(0), Err(RegisterError::InvalidId));
        assert_eq!(HandlerId::try_from(255).map(HandlerId::get), Ok(255));
    }
}
