//! Interface of a locker, in this process or remote.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::LockerError;
use crate::proto::hold::{Request, Response};
use crate::proto::table::{ForceTarget, RefreshRequest};
use crate::proto::token::TokenStamp;
use crate::proto::waiters::QueueReport;
use crate::wire::LockerListing;

/// Future of a locker's response.
pub type ResponseFuture<T> = Pin<Box<dyn Future<Output = Result<T, LockerError>> + Send>>;

/// A response with the locker's token stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampedResponse {
    /// The response.
    pub response: Response,
    /// Token stamp; absent from MinIO lockers.
    pub stamp: Option<TokenStamp>,
    /// State of the request's ticket in the locker's queues.
    pub queue: QueueReport,
    /// Text of the response, if it is an error that has no code of its own.
    pub error: Option<Arc<str>>,
}

/// A server that grants locks. [`LocalLocker`](crate::LocalLocker) does so in this process,
/// [`RemoteLocker`](crate::RemoteLocker) calls another server.
pub trait Locker: Send + Sync + 'static {
    /// Returns the server's name.
    fn name(&self) -> &str;

    /// Sends a holder's request and waits at most `timeout` for the response. Dropping the future
    /// cancels the request.
    fn call(&self, request: Request, timeout: Duration) -> ResponseFuture<StampedResponse>;

    /// Returns whether refreshes may be sent in batches: not to a locker in this process, nor to one
    /// that does not know them.
    fn accepts_batches(&self) -> bool {
        false
    }

    /// Refreshes several locks: at most [`REFRESHES_PER_BATCH`](crate::limits::REFRESHES_PER_BATCH),
    /// with at most [`REFRESH_BATCH_BYTES_MAX`](crate::limits::REFRESH_BATCH_BYTES_MAX) of names.
    /// The responses have the same order.
    fn refresh_batch(
        &self,
        refreshes: Vec<RefreshRequest>,
        timeout: Duration,
    ) -> ResponseFuture<Vec<Result<StampedResponse, LockerError>>>;

    /// Lists grants and waiters.
    fn list(&self, timeout: Duration) -> ResponseFuture<LockerListing>;

    /// Forces grants open, so that their holders stop. Returns how many there were.
    fn force_unlock(&self, target: &ForceTarget, timeout: Duration) -> ResponseFuture<usize>;
}
