//! How a call or a stream can end, as both `bench` and `demo` count it.

use grid::{CallError, StreamError, TypedCallError};

/// One outcome of a call or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Outcome {
    /// Answered with what was expected.
    Answered,
    /// A stream ended well, and brought back what was sent.
    Finished,
    /// Answered with something else; or a stream lost, doubled or changed messages.
    Wrong,
    /// The handler returned an error.
    Remote,
    /// There is no such handler.
    UnknownHandler,
    /// The remote took no calls.
    Refused,
    /// The connection ended meanwhile.
    Disconnected,
    /// There was no connection.
    NotConnected,
    /// The deadline passed.
    Deadline,
    /// The caller dropped it.
    Cancelled,
    /// The caller's own server was killed meanwhile.
    Killed,
    /// Anything else: too large, too many, shutting down.
    Other,
}

impl Outcome {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 12] = [
        Self::Answered,
        Self::Finished,
        Self::Wrong,
        Self::Remote,
        Self::UnknownHandler,
        Self::Refused,
        Self::Disconnected,
        Self::NotConnected,
        Self::Deadline,
        Self::Cancelled,
        Self::Killed,
        Self::Other,
    ];

    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Place in an array of [`COUNT`](Self::COUNT).
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// How it is called where it is counted.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Finished => "finished",
            Self::Wrong => "WRONG",
            Self::Remote => "remote error",
            Self::UnknownHandler => "unknown handler",
            Self::Refused => "refused",
            Self::Disconnected => "disconnected",
            Self::NotConnected => "not connected",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Killed => "caller killed",
            Self::Other => "other",
        }
    }
}

impl From<&CallError> for Outcome {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::NotConnected { .. } => Self::NotConnected,
            CallError::Disconnected { .. } => Self::Disconnected,
            CallError::DeadlineExceeded { .. } => Self::Deadline,
            CallError::Remote { .. } => Self::Remote,
            CallError::UnknownHandler { .. } => Self::UnknownHandler,
            CallError::Refused { .. } => Self::Refused,
            _ => Self::Other,
        }
    }
}

impl From<&StreamError> for Outcome {
    fn from(error: &StreamError) -> Self {
        match error {
            StreamError::Call(error) => error.into(),
            StreamError::IncorrectSequence { .. } | StreamError::Overrun { .. } => Self::Wrong,
            _ => Self::Other,
        }
    }
}

impl From<&TypedCallError> for Outcome {
    fn from(error: &TypedCallError) -> Self {
        match error {
            TypedCallError::Call(error) => error.into(),
            TypedCallError::Decode { .. } => Self::Wrong,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_the_place_that_it_is_shown_at() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), place, "{}", outcome.label());
        }
    }
}
