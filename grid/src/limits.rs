//! Every limit of the crate: its name, its default, its unit, and how it relates to the others.
//!
//! The constants are defaults; [`Limits`] carries the values that a manager runs with, so that an
//! application (and the simulator) can choose its own. [`Limits::check`] holds whatever was chosen
//! to the same relations that the asserts below hold the defaults to.

use std::time::Duration;

use crate::error::BuildError;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Largest grid message in bytes, header and trailers included. Sending a larger one is refused;
/// receiving one ends the connection before anything of that size is allocated.
pub const MESSAGE_BYTES_MAX: usize = 16 * MIB;

/// What a receiver allows a frame beyond the message in it: the envelope of a merged frame and the
/// length in front of its message.
pub const FRAME_OVERHEAD_BYTES_MAX: usize = KIB;

/// A frame under construction that has reached this many bytes takes no further message.
///
/// Chosen by measurement: below 16 KiB frames cost system calls, above 64 KiB nothing was gained.
pub const FRAME_BYTES_TARGET: usize = 64 * KIB;

/// What may wait to be written, in bytes. Holds at least two of the largest messages, so that one
/// in progress never keeps the next from being queued.
pub const QUEUE_BYTES_MAX: usize = 40 * MIB;

/// What control messages may take beyond [`QUEUE_BYTES_MAX`]. Only a peer that makes us answer
/// while it does not read can use it up, and then the connection ends.
pub const CONTROL_BYTES_MAX: usize = 8 * MIB;

/// Calls that this side may have under way to one remote.
pub const CALLS_MADE_MAX: usize = 65_536;

/// Calls of one remote that are served at once; more are answered with an overload error.
pub const CALLS_SERVED_MAX: usize = 65_536;

/// Largest message before a peer has proved who it is, in bytes. A Connect holds two names and a
/// token.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * KIB;

/// Sockets that have not proved who they are, at once and for the whole manager.
pub const UNAUTHENTICATED_MAX: usize = 256;

/// Accepted connections of one remote that wait to supersede the one in use.
pub const SUPERSEDING_MAX: usize = 4;

/// Longest time from the first byte of a connection to its accepted Connect, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest difference between the two servers' clocks that a handshake accepts (P11).
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// Time between two pings of a connection (P12).
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Pings in a row that may go unanswered before the connection counts as dead (B07).
pub const PINGS_MISSED_MAX: u32 = 2;

/// Time between two pings of a stream by its caller.
pub const STREAM_PING_INTERVAL: Duration = Duration::from_secs(15);

/// Pings of a stream in a row that may go unanswered before its caller gives it up (B07).
pub const STREAM_PINGS_MISSED_BY_CALLER_MAX: u32 = 2;

/// Pings of a stream in a row that may stay away before its serving side gives it up (B07).
pub const STREAM_PINGS_MISSED_BY_CALLEE_MAX: u32 = 4;

/// Messages of a stream that may be under way in one direction, unless its handler is declared
/// otherwise. Enough to keep a fast link busy with small messages. What a receiver may have to hold
/// is this times [`MESSAGE_BYTES_MAX`]: declare less for handlers of large messages.
pub const STREAM_CAPACITY: u32 = 64;

/// The most that a handler may be declared with.
pub const STREAM_CAPACITY_MAX: u32 = 65_536;

/// Deadline of a request whose caller gave none (B10).
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// Clocks of two servers run at rates that differ by no more than one part in so many. Far more than
/// quartz has; what matters is that the end of a call is not told as something that it is not.
pub const CLOCK_RATES_DIFFER_BY: u32 = 64;

/// First wait before a new attempt to connect; each further one doubles it (B04).
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Longest wait before a new attempt to connect.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A connection that held this long starts its back-off anew.
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(10);

/// The same trouble with the same remote is logged once in this time (B04, B41).
pub const LOG_REPEAT_AFTER: Duration = Duration::from_secs(3600);

/// Longest time that a closing connection may take to write what is queued.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Frames that one turn of a connection's task reads before it writes, and writes before it reads.
pub const FRAMES_PER_TURN: usize = 16;

/// Turns that one poll of a connection's task may take before it lets others have the thread.
pub const TURNS_PER_POLL: usize = 4;

/// Bytes after which a turn reads no further frame.
pub const BYTES_PER_TURN: usize = 256 * KIB;

/// Turns in which a socket that failed is read to its end: as many as a full receive buffer needs.
pub const LAST_TURNS: usize = 64;

/// Messages that are taken in under one hold of the lock.
pub const MESSAGES_PER_LOCK: usize = 512;

/// What may be read of a socket before its handshake is over: the upgrade's own headers and one
/// message.
pub const HANDSHAKE_BUDGET_BYTES: usize = 2 * HANDSHAKE_BYTES_MAX;

/// Buffer that a WebSocket reads into, in bytes. tungstenite fills it with zeros before each read, so
/// that a large one costs more than the system calls it saves.
pub const READ_BUFFER_BYTES: usize = 16 * KIB;

/// Bytes in a WebSocket's write buffer from which on they go to the socket before the flush. The most
/// that is ever buffered is this and one frame, unless a peer sends pings and does not read the
/// pongs: twice as much is the end of that.
pub const WRITE_BUFFER_BYTES: usize = 128 * KIB;

/// Subjects whose last line in the log is remembered. Those are remotes, each as the dialled and as the dialling end,
/// and a few kinds of strangers: more than this never comes up.
pub const LOG_SUBJECTS_MAX: usize = 4 * SERVERS_MAX;

/// Longest name of a server, in bytes: a host name has at most 253, the rest is scheme and port. Also
/// what an error or a refusal quotes of a name that somebody else chose.
pub const NAME_BYTES_MAX: usize = 300;

/// Longest reason for a refused connection that is kept, in bytes; what is longer is cut. Errors of
/// calls are kept whole: they are no longer than a message.
pub const REASON_BYTES_MAX: usize = 4 * KIB;

/// More than a cancellation takes in the queue, in bytes.
const CANCELLATION_BYTES_MAX: usize = 64;

/// No queue may be chosen larger than this, so that sums of such sizes cannot overflow.
const QUEUE_BYTES_CEILING: usize = 1 << 40;

/// Streams may not be chosen to ping less often than this.
const PING_CEILING: Duration = Duration::from_secs(3600);

/// No wait between two attempts to connect may be chosen longer than this.
const BACKOFF_CEILING: Duration = Duration::from_secs(3600);

/// Servers that one manager may know, itself included.
pub const SERVERS_MAX: usize = 4_096;

const _: () = assert!(QUEUE_BYTES_MAX >= 2 * MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_TARGET <= MESSAGE_BYTES_MAX);
const _: () = assert!(HANDSHAKE_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(REASON_BYTES_MAX < HANDSHAKE_BYTES_MAX);
// A cancellation of each call under way fits the reserve.
const _: () = assert!(CALLS_MADE_MAX * CANCELLATION_BYTES_MAX <= CONTROL_BYTES_MAX);
const _: () = assert!(QUEUE_BYTES_MAX + CONTROL_BYTES_MAX <= QUEUE_BYTES_CEILING);
// A lengths field of the wire is 32 bits wide.
const _: () = assert!(MESSAGE_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX <= u32::MAX as usize);

/// The limits that one manager runs with. Start from [`Limits::default`] and change what must
/// differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// See [`QUEUE_BYTES_MAX`].
    pub queue_bytes_max: usize,
    /// See [`CONTROL_BYTES_MAX`].
    pub control_bytes_max: usize,
    /// See [`FRAME_BYTES_TARGET`]. Never more than `message_bytes_max` in effect, so that a frame
    /// is never larger than what a peer with the same limits takes.
    pub frame_bytes_target: usize,
    /// See [`CALLS_MADE_MAX`].
    pub calls_made_max: usize,
    /// See [`CALLS_SERVED_MAX`].
    pub calls_served_max: usize,
    /// See [`UNAUTHENTICATED_MAX`].
    pub unauthenticated_max: usize,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`CLOCK_SKEW_MAX`].
    pub clock_skew_max: Duration,
    /// See [`PING_INTERVAL`]. Travels in whole milliseconds.
    pub ping_interval: Duration,
    /// See [`PINGS_MISSED_MAX`].
    pub pings_missed_max: u32,
    /// See [`STREAM_PING_INTERVAL`]. Both ends must have the same.
    pub stream_ping_interval: Duration,
    /// See [`STREAM_PINGS_MISSED_BY_CALLER_MAX`].
    pub stream_pings_missed_by_caller_max: u32,
    /// See [`STREAM_PINGS_MISSED_BY_CALLEE_MAX`].
    pub stream_pings_missed_by_callee_max: u32,
    /// See [`DEADLINE_DEFAULT`].
    pub deadline_default: Duration,
    /// See [`BACKOFF_MIN`].
    pub backoff_min: Duration,
    /// See [`BACKOFF_MAX`].
    pub backoff_max: Duration,
    /// See [`BACKOFF_RESET_AFTER`].
    pub backoff_reset_after: Duration,
    /// See [`CLOSE_TIMEOUT`].
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            control_bytes_max: CONTROL_BYTES_MAX,
            frame_bytes_target: FRAME_BYTES_TARGET,
            calls_made_max: CALLS_MADE_MAX,
            calls_served_max: CALLS_SERVED_MAX,
            unauthenticated_max: UNAUTHENTICATED_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            clock_skew_max: CLOCK_SKEW_MAX,
            ping_interval: PING_INTERVAL,
            pings_missed_max: PINGS_MISSED_MAX,
            stream_ping_interval: STREAM_PING_INTERVAL,
            stream_pings_missed_by_caller_max: STREAM_PINGS_MISSED_BY_CALLER_MAX,
            stream_pings_missed_by_callee_max: STREAM_PINGS_MISSED_BY_CALLEE_MAX,
            deadline_default: DEADLINE_DEFAULT,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            backoff_reset_after: BACKOFF_RESET_AFTER,
            close_timeout: CLOSE_TIMEOUT,
        }
    }
}

impl Limits {
    /// Largest WebSocket message that a receiver takes, in bytes.
    pub fn frame_bytes_max(&self) -> usize {
        self.message_bytes_max.saturating_add(FRAME_OVERHEAD_BYTES_MAX)
    }

    /// The smallest queue that is allowed: one of the largest messages that is on its way never
    /// keeps the next from being queued.
    pub(crate) fn queue_bytes_min(&self) -> usize {
        self.message_bytes_max.saturating_mul(2)
    }

    /// Whether the chosen values fit together.
    ///
    /// # Errors
    ///
    /// [`BuildError::Limit`] names the first value that does not, and what it must be.
    pub fn check(&self) -> Result<(), BuildError> {
        let wrong = |name, must| Err(BuildError::Limit { name, must });
        if self.message_bytes_max < HANDSHAKE_BYTES_MAX
            || self.frame_bytes_max() > u32::MAX as usize
        {
            return wrong("message_bytes_max", "between 16 KiB and 4 GiB less 1 KiB");
        }
        if self.queue_bytes_max < self.queue_bytes_min()
            || self.queue_bytes_max > QUEUE_BYTES_CEILING
        {
            return wrong("queue_bytes_max", "at least twice message_bytes_max, at most 1 TiB");
        }
        if self.control_bytes_max < self.calls_made_max.saturating_mul(CANCELLATION_BYTES_MAX)
            || self.control_bytes_max > QUEUE_BYTES_CEILING
        {
            return wrong("control_bytes_max", "at least 64 times calls_made_max, at most 1 TiB");
        }
        if self.frame_bytes_target == 0 {
            return wrong("frame_bytes_target", "at least 1 byte");
        }
        if self.calls_made_max == 0 || self.calls_served_max == 0 {
            return wrong("calls_made_max and calls_served_max", "at least 1");
        }
        if self.unauthenticated_max == 0 {
            return wrong("unauthenticated_max", "at least 1");
        }
        if self.ping_interval < Duration::from_millis(1)
            || self.ping_interval.as_millis() > u128::from(u32::MAX)
        {
            return wrong("ping_interval", "between 1 ms and 49 days");
        }
        if self.pings_missed_max == 0 {
            return wrong("pings_missed_max", "at least 1");
        }
        if self.stream_ping_interval.is_zero() || self.stream_ping_interval > PING_CEILING {
            return wrong("stream_ping_interval", "more than zero and at most an hour");
        }
        if self.stream_pings_missed_by_caller_max == 0
            || self.stream_pings_missed_by_callee_max < self.stream_pings_missed_by_caller_max
        {
            return wrong(
                "stream_pings_missed_by_caller_max",
                "at least 1, and at most stream_pings_missed_by_callee_max",
            );
        }
        if self.handshake_timeout.is_zero() || self.deadline_default.is_zero() {
            return wrong("handshake_timeout and deadline_default", "more than zero");
        }
        if self.backoff_min.is_zero() || self.backoff_max < self.backoff_min {
            return wrong("backoff_min", "more than zero and at most backoff_max");
        }
        if self.backoff_max > BACKOFF_CEILING {
            return wrong("backoff_max", "at most an hour");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        Limits::default().check().expect("the defaults are checked");
    }

    #[test]
    fn limits_of_any_size_are_checked_without_a_panic() {
        let set: [fn(&mut Limits); 8] = [
            |limits| limits.message_bytes_max = usize::MAX,
            |limits| limits.queue_bytes_max = usize::MAX,
            |limits| limits.control_bytes_max = usize::MAX,
            |limits| limits.control_bytes_max = KIB,
            |limits| limits.calls_made_max = usize::MAX,
            |limits| limits.backoff_max = Duration::MAX,
            |limits| limits.stream_ping_interval = Duration::MAX,
            |limits| limits.stream_pings_missed_by_caller_max = u32::MAX,
        ];
        for set in set {
            let mut limits = Limits::default();
            set(&mut limits);
            assert!(limits.check().is_err(), "{limits:?}");
        }
    }

    #[test]
    fn a_limit_that_does_not_fit_is_named_with_what_it_must_be() {
        let limits = Limits { queue_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
        let error = limits.check().expect_err("a queue of one message must be refused");
        assert_eq!(
            error.to_string(),
            "limit queue_bytes_max must be at least twice message_bytes_max, at most 1 TiB"
        );
    }
}
