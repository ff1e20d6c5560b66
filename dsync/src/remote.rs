//! A locker on another server, called over grid.

use std::time::Duration;

use grid::{CallError, CallOptions, Connection, TypedCallError};

use crate::error::LockerError;
use crate::locker::{Locker, ResponseFuture, StampedResponse};
use crate::proto::hold::Request;
use crate::proto::quorum::LockKind;
use crate::proto::table::ForceTarget;
use crate::wire::{self, LockArgs, LockRpc, LockerListing};

/// A locker on another server.
#[derive(Debug, Clone)]
pub struct RemoteLocker {
    connection: Connection,
}

impl RemoteLocker {
    /// Returns the locker at the other end of a connection of the lock grid.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }
}

impl Locker for RemoteLocker {
    fn name(&self) -> &str {
        self.connection.remote().as_str()
    }

    fn call(&self, request: Request, timeout: Duration) -> ResponseFuture<StampedResponse> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let handler = match &request {
                Request::Lock(request) if request.kind == LockKind::Write => wire::LOCK,
                Request::Lock(_) => wire::READ_LOCK,
                Request::Refresh(_) => wire::REFRESH,
                Request::Unlock { kind: LockKind::Write, .. } => wire::UNLOCK,
                Request::Unlock { kind: LockKind::Read, .. } => wire::READ_UNLOCK,
                Request::Wait(_) => wire::WAIT,
            };
            let (args, rpc) = (LockArgs::of(&request), LockRpc::from(&request));
            drop(request);
            let options = CallOptions::default().timeout(timeout);
            let response = handler.call_with(&connection, &args, options).await.map_err(failed)?;
            let stamp = response.stamp();
            match response.to_response(rpc) {
                Ok(response) => Ok(StampedResponse { response, stamp }),
                Err(message) => Err(LockerError { may_have_run: true, message }),
            }
        })
    }

    fn list(&self, timeout: Duration) -> ResponseFuture<LockerListing> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let (args, options) = (wire::ListArgs {}, CallOptions::default().timeout(timeout));
            wire::LIST.call_with(&connection, &args, options).await.map_err(failed)
        })
    }

    fn force_unlock(&self, target: &ForceTarget, timeout: Duration) -> ResponseFuture<usize> {
        let (connection, args) = (self.connection.clone(), LockArgs::force_target(target));
        Box::pin(async move {
            let options = CallOptions::default().timeout(timeout);
            let response =
                wire::FORCE_UNLOCK.call_with(&connection, &args, options).await.map_err(failed)?;
            match response.code {
                wire::CODE_OK => Ok(1),
                wire::CODE_NOT_FOUND => Ok(0),
                _ => Err(LockerError { may_have_run: true, message: response.error }),
            }
        })
    }
}

/// Converts the error of a call, and classifies whether the handler may have run.
#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn failed(error: TypedCallError) -> LockerError {
    // Handler errors are no refusals: what the handler did before it failed is not known.
    let did_not_run = matches!(
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
    LockerError { may_have_run: !did_not_run, message: error.to_string() }
}
