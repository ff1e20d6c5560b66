//! A locker on another server, asked over grid.

use std::time::Duration;

use grid::{CallError, CallOptions, Connection, TypedCallError};

use crate::error::LockerError;
use crate::locker::{Answering, Locker, Stamped};
use crate::proto::hold::Message;
use crate::proto::quorum::Kind;
use crate::proto::table::Forced;
use crate::wire::{self, Asked, LockArgs, LockerListing};

/// A locker on another server.
#[derive(Debug, Clone)]
pub struct RemoteLocker {
    connection: Connection,
}

impl RemoteLocker {
    /// The locker at the other end of this connection of the lock traffic's manager.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }
}

impl Locker for RemoteLocker {
    fn name(&self) -> &str {
        self.connection.remote().as_str()
    }

    fn ask(&self, message: Message, limit: Duration) -> Answering<Stamped> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let handler = match &message {
                Message::Lock(ask) if ask.kind == Kind::Write => wire::LOCK,
                Message::Lock(_) => wire::READ_LOCK,
                Message::Refresh(_) => wire::REFRESH,
                Message::Unlock { kind: Kind::Write, .. } => wire::UNLOCK,
                Message::Unlock { kind: Kind::Read, .. } => wire::READ_UNLOCK,
                Message::Wait(_) => wire::WAIT,
            };
            let (args, asked) = (LockArgs::of(&message), Asked::from(&message));
            drop(message);
            let options = CallOptions::default().timeout(limit);
            let answer = handler.call_with(&connection, &args, options).await.map_err(failed)?;
            let stamp = answer.stamp();
            match answer.to_answer(asked) {
                Ok(answer) => Ok(Stamped { answer, stamp }),
                Err(text) => Err(LockerError { may_have_run: true, text }),
            }
        })
    }

    fn list(&self, limit: Duration) -> Answering<LockerListing> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let (args, options) = (wire::ListArgs {}, CallOptions::default().timeout(limit));
            wire::LIST.call_with(&connection, &args, options).await.map_err(failed)
        })
    }

    fn force_unlock(&self, what: &Forced, limit: Duration) -> Answering<usize> {
        let (connection, args) = (self.connection.clone(), LockArgs::forced(what));
        Box::pin(async move {
            let options = CallOptions::default().timeout(limit);
            let answer =
                wire::FORCE_UNLOCK.call_with(&connection, &args, options).await.map_err(failed)?;
            match answer.code {
                wire::CODE_OK => Ok(1),
                wire::CODE_NOT_FOUND => Ok(0),
                _ => Err(LockerError { may_have_run: true, text: answer.error }),
            }
        })
    }
}

/// What a failed call means for whoever counts on what it was to do.
#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn failed(error: TypedCallError) -> LockerError {
    // Errors are no refusals: what a handler did before it failed is not known.
    let did_nothing = matches!(
        error,
        TypedCallError::Encode { .. }
            | TypedCallError::Call(
                CallError::NotConnected { .. }
                    | CallError::UnknownHandler { .. }
                    | CallError::Refused { .. }
                    | CallError::TooLarge { .. }
                    | CallError::TooManyCalls { .. }
                    | CallError::Shutdown
            )
    );
    LockerError { may_have_run: !did_nothing, text: error.to_string() }
}
