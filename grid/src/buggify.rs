//! Rare events on purpose: named points in the shell at which what seldom happens can be made to.
//!
//! With the feature `buggify` an application that tests gives a manager a [`Buggify`], which is asked
//! each time that a [`Point`] is passed. Without the feature, which is how servers are built, asking
//! is a constant and the points are not there: `.ci/buggify-free` looks into the binary.
//!
//! A point does nothing that a network, a kernel or another server could not do, so whatever breaks
//! at one is a bug. The pure half has none: its rare events are messages and instants, which a test
//! hands in.

#[cfg(not(feature = "buggify"))]
mod absent;
#[cfg(feature = "buggify")]
mod armed;

#[cfg(not(feature = "buggify"))]
pub(crate) use absent::{Hold, Rare};
#[cfg(feature = "buggify")]
pub use armed::{Buggify, MARKER};
#[cfg(feature = "buggify")]
pub(crate) use armed::{Hold, Rare};

/// A place where something rare can happen. Each says what the duration means that it is struck
/// with.
#[cfg_attr(not(feature = "buggify"), expect(unreachable_pub, reason = "public with the feature"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// What was written to the socket stays there for the duration before it is flushed, while the
    /// connection goes on to read and to keep its timers. Stands for a kernel or a network that
    /// takes its time. Asked before each flush; one that was delayed is done without asking again.
    DelayFlush,
    /// The connection's task, about to sleep, is woken after the duration for nothing. Stands for
    /// wakers that somebody kept. Asked each time that it goes to sleep and has no such wake-up
    /// before it, so that always striking wakes it again and again: with zero it never rests.
    SpuriousWake,
    /// The socket counts as full for the duration: no frame is taken from the queue, while the
    /// connection goes on to read and to keep its timers. Stands for a peer that reads slowly. Asked
    /// before each look for a frame, also where there turns out to be none; a look that was delayed
    /// is had without asking again.
    FullSocket,
    /// The queue of one remote is the smallest that [`Limits`](crate::Limits) allow: two of the
    /// largest messages. Stands for load at which queues are full. Asked for each remote when a
    /// manager is built; the duration means nothing.
    TinyQueue,
    /// A dial is given up after the duration, though its time is not over; a longer duration than
    /// that changes nothing. Stands for an answer that comes too late: the other end may have
    /// accepted the connection by then. Asked for each dial.
    EarlyTimeout,
    /// A connection that was dialled here is forgotten after the duration: its socket stays open,
    /// unread, for [`handshake_timeout`](crate::Limits::handshake_timeout), and the remote is dialled
    /// again, so that the other end has the new connection supersede the old. Stands for a host or a
    /// middlebox that lost the connection without a word. Asked once for each such connection.
    Supersede,
}
