//! Every limit of the crate: its name, default, unit, and relation to the other limits.
//!
//! The constants are defaults. [`Limits`] carries the values that a manager runs with, so that an
//! application (and the simulator) can choose its own. [`Limits::check`] enforces for the chosen
//! values the relations that the asserts below enforce for the defaults.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Largest grid message in bytes, header and trailers included. Sending a larger one is refused;
/// receiving one ends the connection before anything of that size is allocated.
pub const MESSAGE_BYTES_MAX: usize = 16 * MIB;

/// Bytes that a frame may have beyond the message in it: the envelope of a merged frame and the
/// length prefix of its message.
pub const FRAME_OVERHEAD_BYTES_MAX: usize = KIB;

/// Size in bytes at which a frame under construction takes no further message.
///
/// Chosen by measurement: below 16 KiB frames cost system calls, above 64 KiB nothing was gained.
pub const FRAME_BYTES_TARGET: usize = 64 * KIB;

/// Most bytes of data that may be queued for writing. Holds at least two of the largest messages,
/// so that one in progress never keeps the next from being queued.
pub const QUEUE_BYTES_MAX: usize = 40 * MIB;

/// Bytes that control messages may take beyond [`QUEUE_BYTES_MAX`]. Only a peer that provokes
/// replies without reading them can use up this reserve, and then the connection ends.
pub const CONTROL_BYTES_MAX: usize = 8 * MIB;

/// Most outstanding calls from this side to one remote.
pub const OUTBOUND_CALLS_MAX: usize = 65_536;

/// Most outstanding calls from one remote; further ones are refused with an overload error.
pub const INBOUND_CALLS_MAX: usize = 65_536;

/// Largest message of a peer that is not authenticated yet, in bytes. A Connect holds two names and
/// a token.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * KIB;

/// Most sockets that are not authenticated yet, over the whole manager.
pub const UNAUTHENTICATED_MAX: usize = 256;

/// Most accepted connections of one remote that wait to supersede the one in use.
pub const SUPERSEDING_MAX: usize = 4;

/// Longest time from the first byte of a connection to its accepted Connect, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest difference between the two servers' clocks that a handshake accepts ([P11]).
///
/// [P11]: crate::protocol#p11
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// Time between two pings of a connection ([P12]).
///
/// [P12]: crate::protocol#p12
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Pings in a row without a pong before the connection counts as dead ([B07]).
///
/// [B07]: crate::rules#b07
pub const PINGS_MISSED_MAX: u32 = 2;

/// Time between two pings of a stream by its caller.
pub const STREAM_PING_INTERVAL: Duration = Duration::from_secs(15);

/// Pings of a stream in a row without a pong before its caller ends it ([B07]).
///
/// [B07]: crate::rules#b07
pub const STREAM_PINGS_MISSED_BY_CALLER_MAX: u32 = 2;

/// Expected pings of a stream in a row that may be missing before its callee ends it ([B07]).
///
/// [B07]: crate::rules#b07
pub const STREAM_PINGS_MISSED_BY_CALLEE_MAX: u32 = 4;

/// Messages of a stream that may be in flight in one direction, unless its handler is declared with
/// another number. Enough to keep a fast link busy with small messages. A receiver may have to hold
/// this many times [`MESSAGE_BYTES_MAX`]: declare less for handlers of large messages.
pub const STREAM_CAPACITY: u32 = 64;

/// Largest capacity with which a handler may be declared.
pub const STREAM_CAPACITY_MAX: u32 = 65_536;

/// Deadline of a request whose caller set none ([B10]).
///
/// [B10]: crate::rules#b10
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// Bound on clock drift: the clocks of two servers run at rates that differ by at most one part in
/// this many. Far more than the drift of quartz clocks; it only keeps the end of a call from being
/// reported with the wrong cause.
pub const CLOCK_DRIFT_DIVISOR: u32 = 64;

/// First wait before a new attempt to connect; each further one doubles it ([B04]).
///
/// [B04]: crate::rules#b04
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Longest wait before a new attempt to connect.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Age at which a connection that ends resets the back-off.
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(10);

/// Interval in which the same fault of the same remote is logged once ([B04], [B41]).
///
/// [B04]: crate::rules#b04
/// [B41]: crate::rules#b41
pub const LOG_REPEAT_AFTER: Duration = Duration::from_secs(3600);

/// Longest time that a closing connection may take to write its queue.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Frames that one turn of a connection's task reads before it writes, and writes before it reads.
pub const FRAMES_PER_TURN: usize = 16;

/// Turns that one poll of a connection's task may take before it yields the thread.
pub const TURNS_PER_POLL: usize = 4;

/// Bytes after which a turn reads no further frame.
pub const BYTES_PER_TURN: usize = 256 * KIB;

/// Turns in which a failed socket is read to its end: as many as a full receive buffer needs.
pub const FINAL_READ_TURNS_MAX: usize = 64;

/// Messages that are processed under one acquisition of the lock.
pub const MESSAGES_PER_LOCK: usize = 512;

/// Bytes that may be read from a socket before its handshake is complete: the headers of the
/// upgrade and one message.
pub const HANDSHAKE_BUDGET_BYTES: usize = 2 * HANDSHAKE_BYTES_MAX;

/// Size of the read buffer of a WebSocket, in bytes. tungstenite fills it with zeros before each
/// read, so that a large one costs more than the system calls it saves.
pub const READ_BUFFER_BYTES: usize = 16 * KIB;

/// Bytes in the write buffer of a WebSocket from which on they go to the socket before the flush.
/// The buffer holds at most this and one frame. A peer that sends WebSocket pings and does not read
/// the pongs can double it; then the connection ends.
pub const WRITE_BUFFER_BYTES: usize = 128 * KIB;

/// Subjects whose last log line is remembered. Those are remotes, each as dialed and as dialing
/// end, and a few kinds of unknown peers: the limit is never reached.
pub const LOG_SUBJECTS_MAX: usize = 4 * SERVERS_MAX;

/// Longest name of a server, in bytes: a host name has at most 253, the rest is scheme and port.
/// Also the bytes that an error or a refusal quotes of a name from outside.
pub const NAME_BYTES_MAX: usize = 300;

/// Longest reason of a refused connection that is kept, in bytes; a longer one is cut. Errors of
/// calls are kept whole: they are no longer than a message.
pub const REASON_BYTES_MAX: usize = 4 * KIB;

/// Upper bound for the bytes of a cancellation in the queue.
const CANCELLATION_BYTES_MAX: usize = 64;

/// Largest configurable queue, so that sums of such sizes cannot overflow.
const QUEUE_BYTES_CEILING: usize = 1 << 40;

/// Longest configurable ping interval of streams.
const PING_CEILING: Duration = Duration::from_secs(3600);

/// Longest configurable wait between two attempts to connect.
const BACKOFF_CEILING: Duration = Duration::from_secs(3600);

/// Most servers in the configuration of one manager, itself included.
pub const SERVERS_MAX: usize = 4_096;

const _: () = assert!(QUEUE_BYTES_MAX >= 2 * MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_TARGET <= MESSAGE_BYTES_MAX);
const _: () = assert!(HANDSHAKE_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(REASON_BYTES_MAX < HANDSHAKE_BYTES_MAX);
// The reserve holds a cancellation of each outstanding call.
const _: () = assert!(OUTBOUND_CALLS_MAX * CANCELLATION_BYTES_MAX <= CONTROL_BYTES_MAX);
const _: () = assert!(QUEUE_BYTES_MAX + CONTROL_BYTES_MAX <= QUEUE_BYTES_CEILING);
// A length field on the wire is 32 bits wide.
const _: () = assert!(MESSAGE_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX <= u32::MAX as usize);

/// The limits that one manager runs with. Start from [`Limits::default`] and change the values that
/// must differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// See [`QUEUE_BYTES_MAX`].
    pub queue_bytes_max: usize,
    /// See [`CONTROL_BYTES_MAX`].
    pub control_bytes_max: usize,
    /// See [`FRAME_BYTES_TARGET`]. The effective value is at most `message_bytes_max`, so that a
    /// frame is never larger than a peer with the same limits accepts.
    pub frame_bytes_target: usize,
    /// See [`OUTBOUND_CALLS_MAX`].
    pub outbound_calls_max: usize,
    /// See [`INBOUND_CALLS_MAX`].
    pub inbound_calls_max: usize,
    /// See [`UNAUTHENTICATED_MAX`].
    pub unauthenticated_max: usize,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`CLOCK_SKEW_MAX`].
    pub clock_skew_max: Duration,
    /// See [`PING_INTERVAL`]. Sent in whole milliseconds.
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
            outbound_calls_max: OUTBOUND_CALLS_MAX,
            inbound_calls_max: INBOUND_CALLS_MAX,
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

/// A limit that is out of range or inconsistent with another limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("limit {name} must be {must}")]
pub struct InvalidLimit {
    /// The limit's name.
    pub name: &'static str,
    /// The requirement that it violates.
    pub must: &'static str,
}

impl Limits {
    /// Returns the size of the largest WebSocket message that a receiver accepts, in bytes.
    pub fn frame_bytes_max(&self) -> usize {
        self.message_bytes_max.saturating_add(FRAME_OVERHEAD_BYTES_MAX)
    }

    /// Returns the smallest allowed queue. It holds two of the largest messages, so that one in
    /// transit never keeps the next from being queued.
    pub(crate) fn queue_bytes_min(&self) -> usize {
        self.message_bytes_max.saturating_mul(2)
    }

    /// Checks that the chosen values are compatible.
    ///
    /// # Errors
    ///
    /// [`InvalidLimit`] names the first value that is not, and its allowed range.
    pub fn check(&self) -> Result<(), InvalidLimit> {
        let invalid = |name, must| Err(InvalidLimit { name, must });
        if self.message_bytes_max < HANDSHAKE_BYTES_MAX
            || self.frame_bytes_max() > u32::MAX as usize
        {
            return invalid("message_bytes_max", "between 16 KiB and 4 GiB less 1 KiB");
        }
        if self.queue_bytes_max < self.queue_bytes_min()
            || self.queue_bytes_max > QUEUE_BYTES_CEILING
        {
            return invalid("queue_bytes_max", "at least twice message_bytes_max, at most 1 TiB");
        }
        if self.control_bytes_max < self.outbound_calls_max.saturating_mul(CANCELLATION_BYTES_MAX)
            || self.control_bytes_max > QUEUE_BYTES_CEILING
        {
            return invalid(
                "control_bytes_max",
                "at least 64 times outbound_calls_max, at most 1 TiB",
            );
        }
        if self.frame_bytes_target == 0 {
            return invalid("frame_bytes_target", "at least 1 byte");
        }
        if self.outbound_calls_max == 0 || self.inbound_calls_max == 0 {
            return invalid("outbound_calls_max and inbound_calls_max", "at least 1");
        }
        if self.unauthenticated_max == 0 {
            return invalid("unauthenticated_max", "at least 1");
        }
        if self.ping_interval < Duration::from_millis(1)
            || self.ping_interval.as_millis() > u128::from(u32::MAX)
        {
            return invalid("ping_interval", "between 1 ms and 49 days");
        }
        if self.pings_missed_max == 0 {
            return invalid("pings_missed_max", "at least 1");
        }
        if self.stream_ping_interval.is_zero() || self.stream_ping_interval > PING_CEILING {
            return invalid("stream_ping_interval", "more than zero and at most an hour");
        }
        if self.stream_pings_missed_by_caller_max == 0
            || self.stream_pings_missed_by_callee_max < self.stream_pings_missed_by_caller_max
        {
            return invalid(
                "stream_pings_missed_by_caller_max",
                "at least 1, and at most stream_pings_missed_by_callee_max",
            );
        }
        if self.handshake_timeout.is_zero() || self.deadline_default.is_zero() {
            return invalid("handshake_timeout and deadline_default", "more than zero");
        }
        if self.backoff_min.is_zero() || self.backoff_max < self.backoff_min {
            return invalid("backoff_min", "more than zero and at most backoff_max");
        }
        if self.backoff_max > BACKOFF_CEILING {
            return invalid("backoff_max", "at most an hour");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_limits_are_compatible() {
        Limits::default().check().expect("the defaults are checked");
    }

    #[test]
    fn check_refuses_extreme_values_without_a_panic() {
        let mutations: [fn(&mut Limits); 8] = [
            |limits| limits.message_bytes_max = usize::MAX,
            |limits| limits.queue_bytes_max = usize::MAX,
            |limits| limits.control_bytes_max = usize::MAX,
            |limits| limits.control_bytes_max = KIB,
            |limits| limits.outbound_calls_max = usize::MAX,
            |limits| limits.backoff_max = Duration::MAX,
            |limits| limits.stream_ping_interval = Duration::MAX,
            |limits| limits.stream_pings_missed_by_caller_max = u32::MAX,
        ];
        for mutate in mutations {
            let mut limits = Limits::default();
            mutate(&mut limits);
            assert!(limits.check().is_err(), "{limits:?}");
        }
    }

    #[test]
    fn check_names_the_limit_and_its_allowed_range() {
        let limits = Limits { queue_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
        let error = limits.check().expect_err("a queue of one message is refused");
        assert_eq!(
            error.to_string(),
            "limit queue_bytes_max must be at least twice message_bytes_max, at most 1 TiB"
        );
    }
}
