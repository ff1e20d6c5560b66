//! The streams of the demo: from every server to every other, numbered messages both ways, and what
//! each stream must come to.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use grid::{Connection, SendError, StreamError, StreamReceiver, StreamSender};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

use super::ledger::{OpenStream, Pair};
use super::load::RETRY_EVERY;
use crate::handlers::ECHO_STREAM;
use crate::outcome::Outcome;

/// Streams that all servers together open in a second, but for the steady ones.
const STREAMS_PER_SECOND: u32 = 240;

/// Messages a second on all streams that send at a pace together.
const PACED_MESSAGES_PER_SECOND: u32 = 2_400;

/// Shortest time between two messages of a pace: what timers can tell apart.
const PACE_MIN: Duration = Duration::from_millis(1);

/// How long a steady stream sends. One of each pair is open nearly always, so also when a server is
/// killed.
const STEADY_MS: Range<u64> = 200..1_500;

/// What a burst sends: more than may be under way, often, so that it has to wait for credit.
const BURST_MESSAGES: Range<u64> = 0..200;

/// Shortest and longest message, but for one of [`LARGE_EVERY`].
const MESSAGE_BYTES: Range<usize> = 16..512;

/// One message of so many is [`LARGE_BYTES`] long.
const LARGE_EVERY: u64 = 64;
const LARGE_BYTES: usize = 8 * 1_024;

/// One stream of the demo, and so what must come of it while the connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Some messages, as fast as they are taken, and a half-close.
    Burst,
    /// Messages at a pace for a while, and a half-close.
    Steady,
    /// Messages at a pace, until the deadline of the stream.
    ShortDeadline,
    /// Dropped in the middle.
    Dropped,
}

impl Kind {
    /// The mix, beside the steady streams.
    fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..10) {
            0 => Self::ShortDeadline,
            1 => Self::Dropped,
            _ => Self::Burst,
        }
    }

    /// What must come of it.
    const fn expected(self) -> Outcome {
        match self {
            Self::Burst | Self::Steady => Outcome::Finished,
            Self::ShortDeadline => Outcome::Deadline,
            Self::Dropped => Outcome::Cancelled,
        }
    }
}

/// Opens one stream after the other to one server.
pub(super) struct Streamer {
    connection: Connection,
    pair: Arc<Pair>,
    rng: SmallRng,
    noise: Bytes,
    is_over: Arc<AtomicBool>,
    /// Only streams of this kind; else a mix.
    only: Option<Kind>,
    /// Between two streams.
    pause: Duration,
    /// Between two messages at a pace.
    pace: Duration,
}

impl Streamer {
    /// The two of a pair: one with a mix, one that always has a steady stream open.
    pub(super) fn of_pair(
        pairs: u32,
        pair: &Arc<Pair>,
        connection: &Connection,
        noise: &Bytes,
        is_over: &Arc<AtomicBool>,
    ) -> [Self; 2] {
        let streamer = |only, pause| Self {
            connection: connection.clone(),
            pair: Arc::clone(pair),
            rng: SmallRng::seed_from_u64((pair.from << 8 | pair.to) as u64),
            noise: noise.clone(),
            is_over: Arc::clone(is_over),
            only,
            pause,
            pace: (Duration::from_secs(1) * pairs / PACED_MESSAGES_PER_SECOND).max(PACE_MIN),
        };
        let pause = Duration::from_secs(1) * pairs / STREAMS_PER_SECOND;
        [streamer(None, pause), streamer(Some(Kind::Steady), Duration::ZERO)]
    }

    pub(super) async fn work(mut self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let kind = self.only.unwrap_or_else(|| Kind::draw(&mut self.rng));
            let (outcome, text) = self.stream(kind).await;
            match outcome {
                outcome if outcome == kind.expected() => tokio::time::sleep(self.pause).await,
                // Whether these may be is a matter of the pair, which the verdict knows.
                Outcome::Disconnected | Outcome::NotConnected => {
                    let _ = timeout(RETRY_EVERY, self.connection.wait_connected()).await;
                }
                // What was wrong the ledger has written down.
                Outcome::Wrong => {}
                outcome => {
                    let label = outcome.label();
                    self.pair.surprised(&format!("{kind:?} stream came to: {label}. {text}"));
                }
            }
        }
    }

    /// One stream, from its opening to its outcome, and the text of its error.
    async fn stream(&mut self, kind: Kind) -> (Outcome, String) {
        let mut ledger = self.pair.open();
        let mut opening = self.connection.stream(ECHO_STREAM, Bytes::new()).without_payload();
        if kind == Kind::ShortDeadline {
            opening = opening.timeout(Duration::from_millis(self.rng.random_range(1..50)));
        }
        let (sender, receiver) = match opening.await {
            Ok(stream) => stream.split(),
            Err(error) => return (ledger.end((&error).into()), error.to_string()),
        };
        let messages = Messages { stream: self.rng.random(), noise: self.noise.clone() };
        let plan = self.plan(kind);
        // The receiver first: dropped in this order, the stream is cancelled and not finished.
        let both = async {
            tokio::join!(
                receive(receiver, &messages, &mut ledger),
                send(sender, &messages, plan, &self.is_over),
            )
        };
        let patience = match kind {
            Kind::Dropped => Duration::from_millis(self.rng.random_range(0..50)),
            Kind::Burst | Kind::Steady | Kind::ShortDeadline => Duration::MAX,
        };
        match timeout(patience, both).await {
            Err(_) => (ledger.end(Outcome::Cancelled), String::new()),
            // What ended the stream is what the receiver learns; a sender only finds it ended.
            Ok((Err(error), _)) => (ledger.end((&error).into()), error.to_string()),
            Ok((Ok(()), Err(error))) => {
                (ledger.end(Outcome::Other), format!("ended before its caller had: {error}"))
            }
            Ok((Ok(()), Ok(sent))) => (ledger.finish(sent), String::new()),
        }
    }

    fn plan(&mut self, kind: Kind) -> Plan {
        match kind {
            Kind::Burst => {
                Plan { messages: Some(self.rng.random_range(BURST_MESSAGES)), pace: Duration::ZERO }
            }
            Kind::Steady => {
                let lasts = Duration::from_millis(self.rng.random_range(STEADY_MS));
                let messages = lasts.as_nanos() / self.pace.as_nanos();
                Plan { messages: u64::try_from(messages).ok(), pace: self.pace }
            }
            Kind::ShortDeadline | Kind::Dropped => Plan { messages: None, pace: self.pace },
        }
    }
}

/// What a stream's caller sends.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// `None` if something else ends the stream.
    messages: Option<u64>,
    /// Between two of them; zero for as fast as they are taken.
    pace: Duration,
}

/// Sends as planned, or until the load is over, and finishes. Returns how many it sent.
async fn send(
    mut sender: StreamSender,
    messages: &Messages,
    plan: Plan,
    is_over: &AtomicBool,
) -> Result<u64, SendError> {
    let mut sent = 0;
    let is_enough =
        |sent| plan.messages.is_some_and(|most| sent >= most || is_over.load(Ordering::Relaxed));
    while !is_enough(sent) {
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
    ledger: &mut OpenStream,
) -> Result<(), StreamError> {
    while let Some(message) = receiver.next().await {
        ledger.came_back(messages.number(&message?));
    }
    Ok(())
}

/// The messages of one stream. Each follows from its number, so that what comes back can be checked
/// to the last byte, and one that was meant for another stream is found.
struct Messages {
    /// A number that no other stream has.
    stream: u64,
    noise: Bytes,
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
        message.put_slice(&self.noise[..bytes - MESSAGE_BYTES.start]);
        message.freeze()
    }

    /// The number of a message of this stream; `None` if it is none, or not as it was sent.
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
    fn a_message_is_known_by_every_byte() {
        let noise = Bytes::from(vec![7; LARGE_BYTES]);
        let messages = Messages { stream: 1, noise: noise.clone() };
        for number in [0, 1, LARGE_EVERY - 1, u64::MAX] {
            let message = messages.message(number);
            assert_eq!(messages.number(&message), Some(number));
            assert_eq!(messages.number(&message[..message.len() - 1]), None, "cut");
            let of_another = Messages { stream: 2, noise: noise.clone() };
            assert_eq!(of_another.number(&message), None, "another stream's");
            let mut changed = message.to_vec();
            *changed.last_mut().expect("16 bytes at least") ^= 1;
            assert_eq!(messages.number(&changed), None, "changed");
        }
        assert_eq!(messages.number(b"short"), None);
    }
}
