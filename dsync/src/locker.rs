//! Who grants locks, wherever it is.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::LockerError;
use crate::proto::hold::{Answer, Message};
use crate::proto::table::Forced;
use crate::proto::token::Stamp;
use crate::wire::LockerListing;

/// An answer that is on its way.
pub type Answering<T> = Pin<Box<dyn Future<Output = Result<T, LockerError>> + Send>>;

/// An answer, and what the locker told of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// The answer.
    pub answer: Answer,
    /// Absent from lockers of existing clusters.
    pub stamp: Option<Stamp>,
}

/// Grants locks. [`LocalLocker`](crate::LocalLocker) does so in this process,
/// [`RemoteLocker`](crate::RemoteLocker) asks another server.
pub trait Locker: Send + Sync + 'static {
    /// The server's name.
    fn name(&self) -> &str;

    /// Asks for what a holder wants, for so long at most. Dropping the future takes the question
    /// back if it is not answered yet.
    fn ask(&self, message: Message, limit: Duration) -> Answering<Stamped>;

    /// Lists grants and waiters.
    fn list(&self, limit: Duration) -> Answering<LockerListing>;

    /// Forces grants open; their holders let go of them. Returns how many there were.
    fn force_unlock(&self, what: &Forced, limit: Duration) -> Answering<usize>;
}
