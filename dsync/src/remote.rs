//! A locker on another server, called over grid.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use grid::Connection;

use crate::error::LockerError;
use crate::limits::REFRESHES_WITHOUT_BATCH;
use crate::locker::{Locker, ResponseFuture, StampedResponse};
use crate::operation::{
    CancelTicket, ForceUnlock, List, Lock, ReadLock, ReadUnlock, Refresh, RefreshBatch, Unlock,
    Wait, call, call_newer,
};
use crate::proto::hold::Request;
use crate::proto::quorum::LockKind;
use crate::proto::table::{ForceTarget, LockRequest, RefreshRequest};
use crate::wire::LockerListing;

/// A locker on another server.
#[derive(Debug, Clone)]
pub struct RemoteLocker {
    connection: Connection,
    /// Refreshes to send singly before a batch is tried again.
    singles_left: Arc<AtomicU32>,
}

impl RemoteLocker {
    /// Returns the locker at the other end of a connection of the lock grid.
    pub fn new(connection: Connection) -> Self {
        Self { connection, singles_left: Arc::default() }
    }
}

impl Locker for RemoteLocker {
    fn name(&self) -> &str {
        self.connection.remote().as_str()
    }

    fn call(&self, request: Request, timeout: Duration) -> ResponseFuture<StampedResponse> {
        let to = &self.connection;
        match &request {
            Request::Lock(LockRequest { kind: LockKind::Write, .. }) => {
                Box::pin(call::<Lock>(to, &request, timeout))
            }
            Request::Lock(LockRequest { kind: LockKind::Read, .. }) => {
                Box::pin(call::<ReadLock>(to, &request, timeout))
            }
            Request::Refresh(_) => Box::pin(call::<Refresh>(to, &request, timeout)),
            Request::Unlock { kind: LockKind::Write, .. } => {
                Box::pin(call::<Unlock>(to, &request, timeout))
            }
            Request::Unlock { kind: LockKind::Read, .. } => {
                Box::pin(call::<ReadUnlock>(to, &request, timeout))
            }
            Request::PlainUnlock { kind: LockKind::Write, .. } => {
                Box::pin(call::<Unlock>(to, &request, timeout))
            }
            Request::PlainUnlock { kind: LockKind::Read, .. } => {
                Box::pin(call::<ReadUnlock>(to, &request, timeout))
            }
            Request::CancelTicket(_) => Box::pin(call::<CancelTicket>(to, &request, timeout)),
            Request::Wait(_) => Box::pin(call::<Wait>(to, &request, timeout)),
        }
    }

    fn accepts_batches(&self) -> bool {
        let next = |left: u32| left.checked_sub(1);
        self.singles_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err()
    }

    fn refresh_batch(
        &self,
        refreshes: Vec<RefreshRequest>,
        timeout: Duration,
    ) -> ResponseFuture<Vec<Result<StampedResponse, LockerError>>> {
        let singles_left = Arc::clone(&self.singles_left);
        let on_unknown = move || singles_left.store(REFRESHES_WITHOUT_BATCH, Ordering::Relaxed);
        let responses =
            call_newer::<RefreshBatch, _>(&self.connection, &refreshes, timeout, on_unknown);
        Box::pin(async move {
            let responses = responses.await?;
            if responses.len() == refreshes.len() {
                return Ok(responses);
            }
            let (sent, got) = (refreshes.len(), responses.len());
            let message = format!("{got} responses to {sent} refreshes");
            Err(LockerError { may_have_run: true, message })
        })
    }

    fn list(&self, timeout: Duration) -> ResponseFuture<LockerListing> {
        Box::pin(call::<List>(&self.connection, &(), timeout))
    }

    fn force_unlock(&self, target: &ForceTarget, timeout: Duration) -> ResponseFuture<usize> {
        Box::pin(call::<ForceUnlock>(&self.connection, &vec![target.clone()], timeout))
    }
}
