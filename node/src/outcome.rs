//! How a call or a stream can end, as counted by `bench` and `demo`.

use grid::{CallError, StreamError, TypedCallError};

/// The outcome of a call or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Outcome {
    /// The expected response.
    Responded,
    /// A stream that finished, with every message echoed.
    Finished,
    /// Another response; or a stream that lost, duplicated or changed messages.
    Wrong,
    /// An error that the handler returned.
    Remote,
    /// No such handler.
    UnknownHandler,
    /// Refused by the callee.
    Refused,
    /// The connection was lost during the call.
    Disconnected,
    /// Not connected.
    NotConnected,
    /// Deadline exceeded.
    Deadline,
    /// Cancelled by the caller.
    Cancelled,
    /// The caller's own server was killed during the call.
    Killed,
    /// Any other error: too large, too many, shutting down.
    Other,
}

impl Outcome {
    /// All outcomes, in display order.
    pub(crate) const ALL: [Self; 12] = [
        Self::Responded,
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

    /// Number of outcomes.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Index into an array of [`COUNT`](Self::COUNT) elements.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Name of the outcome in reports.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Responded => "responded",
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
    fn outcome_indices_match_the_display_order() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), place, "{}", outcome.label());
        }
    }
}
