//! The streams of the demo: from every server to every other, with numbered messages in both
//! directions, each with an expected outcome.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use grid::{Connection, SendError, StreamError, StreamReceiver, StreamSender};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

use super::RETRY_INTERVAL;
use super::counters::{OpenStream, Pair};
use crate::handlers::ECHO_STREAM;
use crate::outcome::Outcome;

/// Streams per second of all servers together, without the steady ones.
const STREAMS_PER_SECOND: u32 = 240;

/// Messages per second of all paced streams together.
const PACED_MESSAGES_PER_SECOND: u32 = 2_400;

/// Shortest time between two messages of a paced stream: the resolution of timers.
const PERIOD_MIN: Duration = Duration::from_millis(1);

/// Duration of a steady stream. Each pair has one open almost always, so also at the kill.
const STEADY_MS: Range<u64> = 200..1_500;

/// Messages of a burst: often more than the stream's credit, so that it has to wait.
const BURST_MESSAGES: Range<u64> = 0..200;

/// Shortest and longest message, except one of [`LARGE_EVERY`].
const MESSAGE_BYTES: Range<usize> = 16..512;

/// Every n-th message is [`LARGE_BYTES`] long.
const LARGE_EVERY: u64 = 64;
const LARGE_BYTES: usize = 8 * 1_024;

/// A type of stream. It determines the expected outcome while the connection is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamKind {
    /// Some messages, as fast as the receiver allows, then a half-close.
    Burst,
    /// Paced messages for a while, then a half-close.
    Steady,
    /// Paced messages until the stream's deadline.
    ShortDeadline,
    /// Dropped while messages are in flight.
    Dropped,
}

impl StreamKind {
    /// Draws a random type of stream, except the steady one.
    fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..10) {
            0 => Self::ShortDeadline,
            1 => Self::Dropped,
            _ => Self::Burst,
        }
    }

    /// Expected outcome while the connection is up.
    const fn expected(self) -> Outcome {
        match self {
            Self::Burst | Self::Steady => Outcome::Finished,
            Self::ShortDeadline => Outcome::Deadline,
            Self::Dropped => Outcome::Cancelled,
        }
    }
}

/// Opens one stream after the other to one server.
pub(super) struct StreamWorker {
    connection: Connection,
    pair: Arc<Pair>,
    rng: SmallRng,
    random_bytes: Bytes,
    is_stopping: Arc<AtomicBool>,
    /// The type of all its streams; `None` for a mix.
    fixed_kind: Option<StreamKind>,
    /// Time between two streams.
    pause: Duration,
    /// Time between two messages of a paced stream.
    pace: Duration,
}

impl StreamWorker {
    /// Creates the two workers of a pair: one with a mix, one that always has a steady stream open.
    pub(super) fn of_pair(
        pairs: u32,
        pair: &Arc<Pair>,
        connection: &Connection,
        random_bytes: &Bytes,
        is_stopping: &Arc<AtomicBool>,
    ) -> [Self; 2] {
        let worker = |fixed_kind, pause| Self {
            connection: connection.clone(),
            pair: Arc::clone(pair),
            rng: SmallRng::seed_from_u64((pair.from << 8 | pair.to) as u64),
            random_bytes: random_bytes.clone(),
            is_stopping: Arc::clone(is_stopping),
            fixed_kind,
            pause,
            pace: (Duration::from_secs(1) * pairs / PACED_MESSAGES_PER_SECOND).max(PERIOD_MIN),
        };
        let pause = Duration::from_secs(1) * pairs / STREAMS_PER_SECOND;
        [worker(None, pause), worker(Some(StreamKind::Steady), Duration::ZERO)]
    }

    pub(super) async fn work(mut self) {
        while !self.is_stopping.load(Ordering::Relaxed) {
            let kind = self.fixed_kind.unwrap_or_else(|| StreamKind::draw(&mut self.rng));
            let (outcome, text) = self.stream(kind).await;
            match outcome {
                outcome if outcome == kind.expected() => tokio::time::sleep(self.pause).await,
                // Expected only if one of the two was killed; the report checks that.
                Outcome::Disconnected | Outcome::NotConnected => {
                    let _ = timeout(RETRY_INTERVAL, self.connection.wait_connected()).await;
                }
                // The violation is recorded already.
                Outcome::Wrong => {}
                outcome => {
                    let label = outcome.label();
                    self.pair.record_unexpected(&format!("{kind:?} stream: {label}. {text}"));
                }
            }
        }
    }

    /// Runs one stream. Returns its outcome and error text.
    async fn stream(&mut self, kind: StreamKind) -> (Outcome, String) {
        let mut stream = self.pair.open();
        let mut opening = self.connection.stream(ECHO_STREAM, Bytes::new()).without_payload();
        if kind == StreamKind::ShortDeadline {
            opening = opening.timeout(Duration::from_millis(self.rng.random_range(1..50)));
        }
        let (sender, receiver) = match opening.await {
            Ok(opened) => opened.split(),
            Err(error) => return (stream.end((&error).into()), error.to_string()),
        };
        let messages =
            Messages { stream: self.rng.random(), random_bytes: self.random_bytes.clone() };
        let plan = self.plan(kind);
        // The receiver first: dropped in this order, the stream is cancelled and not finished.
        let both = async {
            tokio::join!(
                receive(receiver, &messages, &mut stream),
                send(sender, &messages, plan, &self.is_stopping),
            )
        };
        let cancel_after = match kind {
            StreamKind::Dropped => Duration::from_millis(self.rng.random_range(0..50)),
            StreamKind::Burst | StreamKind::Steady | StreamKind::ShortDeadline => Duration::MAX,
        };
        match timeout(cancel_after, both).await {
            Err(_) => (stream.end(Outcome::Cancelled), String::new()),
            // The receiver gets the cause; a sender only finds the stream ended.
            Ok((Err(error), _)) => (stream.end((&error).into()), error.to_string()),
            Ok((Ok(()), Err(error))) => {
                (stream.end(Outcome::Other), format!("ended before its caller finished: {error}"))
            }
            Ok((Ok(()), Ok(sent))) => (stream.finish(sent), String::new()),
        }
    }

    fn plan(&mut self, kind: StreamKind) -> Plan {
        match kind {
            StreamKind::Burst => {
                Plan { messages: Some(self.rng.random_range(BURST_MESSAGES)), pace: Duration::ZERO }
            }
            StreamKind::Steady => {
                let duration = Duration::from_millis(self.rng.random_range(STEADY_MS));
                let messages = duration.as_nanos() / self.pace.as_nanos();
                Plan { messages: u64::try_from(messages).ok(), pace: self.pace }
            }
            StreamKind::ShortDeadline | StreamKind::Dropped => {
                Plan { messages: None, pace: self.pace }
            }
        }
    }
}

/// The messages that the caller of a stream sends.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Number of messages; `None` if the deadline or the drop ends the stream.
    messages: Option<u64>,
    /// Time between two messages; zero for as fast as the receiver allows.
    pace: Duration,
}

/// Sends as planned, or until the load ends, and finishes. Returns the number of messages sent.
async fn send(
    mut sender: StreamSender,
    messages: &Messages,
    plan: Plan,
    is_stopping: &AtomicBool,
) -> Result<u64, SendError> {
    let mut sent = 0;
    let is_complete =
        |sent| plan.messages.is_some_and(|max| sent >= max || is_stopping.load(Ordering::Relaxed));
    while !is_complete(sent) {
        sender.send(messages.message(sent)).await?;
        sent += 1;
        if !plan.pace.is_zero() {
            tokio::time::sleep(plan.pace).await;
        }
    }
    sender.finish().await?;
    Ok(sent)
}

async fn receive(
    mut receiver: StreamReceiver,
    messages: &Messages,
    stream: &mut OpenStream,
) -> Result<(), StreamError> {
    while let Some(message) = receiver.next().await {
        stream.record_echo(messages.number(&message?));
    }
    Ok(())
}

/// The messages of one stream. Each is a function of its number, so that every byte of an echo can
/// be checked, and a message of another stream is found.
struct Messages {
    /// A unique number of the stream.
    stream: u64,
    random_bytes: Bytes,
}

impl Messages {
    fn message(&self, number: u64) -> Bytes {
        let bytes = match number % LARGE_EVERY {
            last if last == LARGE_EVERY - 1 => LARGE_BYTES,
            _ => {
                let spread = (self.stream ^ number.wrapping_mul(7_919)) as usize;
                MESSAGE_BYTES.start + spread % MESSAGE_BYTES.len()
            }
        };
        let mut message = BytesMut::with_capacity(bytes);
        message.put_u64(self.stream);
        message.put_u64(number);
        message.put_slice(&self.random_bytes[..bytes - MESSAGE_BYTES.start]);
        message.freeze()
    }

    /// Returns the number of a message; `None` if it is not from this stream or was changed.
    fn number(&self, message: &[u8]) -> Option<u64> {
        let number = message.get(size_of::<u64>()..2 * size_of::<u64>())?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        (self.message(number) == message).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_checked_to_the_last_byte() {
        let random_bytes = Bytes::from(vec![7; LARGE_BYTES]);
        let messages = Messages { stream: 1, random_bytes: random_bytes.clone() };
        for number in [0, 1, LARGE_EVERY - 1, u64::MAX] {
            let message = messages.message(number);
            assert_eq!(messages.number(&message), Some(number));
            assert_eq!(messages.number(&message[..message.len() - 1]), None, "cut");
            let other_stream = Messages { stream: 2, random_bytes: random_bytes.clone() };
            assert_eq!(other_stream.number(&message), None, "message of another stream");
            let mut changed = message.to_vec();
            *changed.last_mut().expect("16 bytes at least") ^= 1;
            assert_eq!(messages.number(&changed), None, "changed");
        }
        assert_eq!(messages.number(b"short"), None);
    }
}
