//! Fault points: named places in the `net` layer where a test can make an unlikely event happen.
//!
//! With the feature `buggify`, an application under test gives a manager a [`Buggify`], which
//! evaluates a [`FaultPoint`] each time it is reached. Servers are built without the feature. Each
//! evaluation is then a constant, and no fault point is compiled: `.ci/buggify-free` checks the
//! binary.
//!
//! A point does nothing that a network, a kernel or another server could not do, so whatever breaks
//! at one is a bug. [`proto`](crate::proto) has no fault points: its unlikely events are messages
//! and instants, which a test passes in.

#[cfg(not(feature = "buggify"))]
mod disabled;
#[cfg(feature = "buggify")]
mod enabled;

#[cfg(not(feature = "buggify"))]
pub(crate) use disabled::{FaultDelay, FaultInjector};
#[cfg(feature = "buggify")]
pub use enabled::{Buggify, MARKER};
#[cfg(feature = "buggify")]
pub(crate) use enabled::{FaultDelay, FaultInjector};

/// A place where a fault can be injected. Each variant documents what the returned duration means.
#[cfg_attr(not(feature = "buggify"), expect(unreachable_pub, reason = "public with the feature"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultPoint {
    /// Delays the flush of the socket by the duration, while the connection continues to read and
    /// to run its timers. Models a slow kernel or network. Evaluated before each flush, but not
    /// again after the delay.
    DelayFlush,
    /// Wakes the connection's task after the duration for no reason. Models a spurious wake-up from
    /// a stale waker. Evaluated each time the task goes to sleep without such a wake-up pending. An
    /// injector that always returns zero therefore keeps the task running all the time.
    SpuriousWake,
    /// Treats the socket as full for the duration: no frame is taken from the queue, while the
    /// connection continues to read and to run its timers. Models a peer that reads slowly.
    /// Evaluated before each attempt to take a frame, even if the queue is empty, but not again
    /// after the delay.
    FullSocket,
    /// Gives one remote the smallest queue that [`Limits`](crate::Limits) allow: two of the largest
    /// messages. Models load under which queues are full. Evaluated for each remote when a manager
    /// is built; the duration is ignored.
    TinyQueue,
    /// Fails a dial after the duration, before its own timeout; a longer duration has no effect.
    /// Models a response that comes too late: the other end may have accepted the connection by
    /// then. Evaluated for each dial.
    EarlyTimeout,
    /// Abandons a dialed connection after the duration: its socket stays open, unread, for
    /// [`handshake_timeout`](crate::Limits::handshake_timeout), and the remote is dialed again, so
    /// that the other end supersedes the old connection with the new one. Models a host or a
    /// middlebox that silently lost the connection. Evaluated once for each such
    /// connection.
    Supersede,
}
