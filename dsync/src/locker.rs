//! Interface of a locker, in this process or remote.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::LockerError;
use crate::proto::hold::{Request, Response};
use crate::proto::table::ForceTarget;
use crate::proto::token::TokenStamp;
use crate::wire::LockerListing;

/// Future of a locker's response.
pub type ResponseFuture<T> = Pin<Box<dyn Future<Output = Result<T, LockerError>> + Send>>;

/// A response with the locker's token stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StampedResponse {
    /// The response.
    pub response: Response,
    /// Token stamp; absent from MinIO lockers.
    pub stamp: Option<TokenStamp>,
}

/// A server that grants locks. [`LocalLocker`](crate::LocalLocker) does so in this process,
/// [`RemoteLocker`](crate::RemoteLocker) calls another server.
pub trait Locker: Send + Sync + 'static {
    /// Returns the server's name.
    fn name(&self) -> &str;

    /// Sends a holder's request and waits at most `timeout` for the response. Dropping the future
    /// cancels the request.
    fn call(&self, request: Request, timeout: Duration) -> ResponseFuture<StampedResponse>;

    /// Lists grants and waiters.
    fn list(&self, timeout: Duration) -> ResponseFuture<LockerListing>;

    /// Forces grants open, so that their holders stop. Returns how many there were.
    fn force_unlock(&self, target: &ForceTarget, timeout: Duration) -> ResponseFuture<usize>;
}
