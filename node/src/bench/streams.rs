//! `gridwire bench --stream`: how many messages per second one stream of a connection carries, and
//! how many several do.
//!
//! ```text
//!   open all      ── seconds ──      finish all     all ends confirmed
//!  ─────────────┬────────────────┬────────────────┬────────────────────
//!               └──────────── measured time ──────┘
//! ```
//!
//! Only confirmed messages count, over the whole time until their confirmation. One way, the
//! server's handler responds with the number of messages at the end; echoed, each message comes
//! back. A stream that confirms fewer messages than were sent has failed. Warm-up is the same, on
//! other streams.

mod report;

use std::time::{Duration, Instant};

use bytes::Bytes;
use grid::{Connection, HandlerId, SendError, Stream, StreamError, StreamReceiver, StreamSender};
use tokio::task::JoinSet;

use super::{BenchError, random_payload};
use crate::cli::BenchArgs;
use crate::client::Client;
use crate::handlers::{ECHO_STREAM, STREAM_SINK, SinkCount};
use crate::output;

use self::report::Report;

/// Measures, and prints the result.
pub(super) async fn run(arguments: &BenchArgs) -> Result<(), BenchError> {
    let runs = measure(arguments).await?;
    let report = Report::new(arguments, &runs);
    match arguments.json {
        true => output::print_line(&report.json().map_err(std::io::Error::from)?)?,
        false => output::print_line(&report)?,
    }
    let mut failures = runs.iter().flat_map(|run| &run.failures);
    if let Some(first) = failures.next() {
        let failed = 1 + failures.count();
        let streams = runs.iter().map(|run| run.opened).sum();
        return Err(BenchError::StreamsFailed { failed, streams, first: first.to_string() });
    }
    match runs.iter().all(|run| run.confirmed > 0) {
        true => Ok(()),
        false => Err(BenchError::NoMessages),
    }
}

/// The direction of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Into the server, which counts them.
    OneWay,
    /// Into the server and back.
    Echoed,
}

impl Direction {
    const ALL: [Self; 2] = [Self::OneWay, Self::Echoed];

    const fn handler(self) -> HandlerId {
        match self {
            Self::OneWay => STREAM_SINK,
            Self::Echoed => ECHO_STREAM,
        }
    }
}

/// Why a stream failed.
#[derive(Debug, thiserror::Error)]
enum StreamFailure {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the stream did not end within {0:?} after its last message was due")]
    Late(Duration),
    #[error("the server did not respond with a message count")]
    NotCounted,
    #[error("an echo differs from its message")]
    Wrong,
    #[error("{sent} messages were sent, {confirmed} arrived")]
    Lost { sent: u64, confirmed: u64 },
}

/// The result of one measurement.
struct StreamRun {
    streams: u32,
    direction: Direction,
    elapsed: Duration,
    sent: u64,
    confirmed: u64,
    /// Streams that were opened, including the warm-up.
    opened: usize,
    failures: Vec<StreamFailure>,
}

async fn measure(arguments: &BenchArgs) -> Result<Vec<StreamRun>, BenchError> {
    let client =
        Client::connect(&arguments.peer, &arguments.client.identity, arguments.client.timeout)
            .await?;
    let bench = Bench {
        connection: client.connection.clone(),
        payload: random_payload(usize::try_from(arguments.size).unwrap_or(usize::MAX)),
        timeout: arguments.client.timeout,
    };
    let mut runs = Vec::new();
    for streams in arguments.streams() {
        for direction in Direction::ALL {
            let warm_up = match arguments.warmup {
                0 => None,
                seconds => Some(bench.run(streams, direction, Duration::from_secs(seconds)).await?),
            };
            let seconds = Duration::from_secs(arguments.seconds);
            let mut run = bench.run(streams, direction, seconds).await?;
            if let Some(warm_up) = warm_up {
                run.opened += warm_up.opened;
                run.failures.extend(warm_up.failures);
            }
            runs.push(run);
        }
    }
    client.shutdown().await;
    Ok(runs)
}

/// The parameters of all measurements.
struct Bench {
    connection: Connection,
    payload: Bytes,
    timeout: Duration,
}

impl Bench {
    async fn run(
        &self,
        streams: u32,
        direction: Direction,
        duration: Duration,
    ) -> Result<StreamRun, BenchError> {
        let mut failures = Vec::new();
        let mut open = Vec::new();
        for _ in 0..streams {
            match self.connection.stream(direction.handler(), Bytes::new()).without_payload().await
            {
                Ok(stream) => open.push(stream),
                Err(error) => failures.push(error.into()),
            }
        }
        let start = Instant::now();
        let until = start + duration;
        let mut tasks = JoinSet::new();
        for stream in open {
            let traffic = Traffic { direction, payload: self.payload.clone(), until };
            let timeout = self.timeout;
            tasks.spawn(async move {
                let ended = tokio::time::timeout(duration + timeout, traffic.drive(stream)).await;
                ended.unwrap_or(Err(StreamFailure::Late(timeout)))
            });
        }
        let (mut sent, mut confirmed) = (0, 0);
        while let Some(ended) = tasks.join_next().await {
            match ended? {
                Ok(messages) => (sent, confirmed) = (sent + messages, confirmed + messages),
                Err(failure) => {
                    if let StreamFailure::Lost { sent: stream_sent, confirmed: stream_confirmed } =
                        failure
                    {
                        (sent, confirmed) = (sent + stream_sent, confirmed + stream_confirmed);
                    }
                    failures.push(failure);
                }
            }
        }
        let (elapsed, opened) = (start.elapsed(), streams as usize);
        Ok(StreamRun { streams, direction, elapsed, sent, confirmed, opened, failures })
    }
}

/// The messages of one stream.
struct Traffic {
    direction: Direction,
    payload: Bytes,
    until: Instant,
}

impl Traffic {
    /// Sends and receives. Returns the number of messages, all of which were confirmed.
    async fn drive(self, stream: Stream) -> Result<u64, StreamFailure> {
        let (sender, receiver) = stream.split();
        // The receiver first: dropped in this order, a late stream is cancelled (B25).
        let (confirmed, sent) = tokio::join!(self.confirm(receiver), self.send(sender));
        // The receiver gets the cause; a sender only finds the stream ended.
        let (confirmed, sent) = (confirmed?, sent?);
        match sent == confirmed {
            true => Ok(sent),
            false => Err(StreamFailure::Lost { sent, confirmed }),
        }
    }

    async fn send(&self, mut sender: StreamSender) -> Result<u64, StreamFailure> {
        let mut sent = 0;
        while Instant::now() < self.until {
            sender.send(self.payload.clone()).await?;
            sent += 1;
        }
        sender.finish().await?;
        Ok(sent)
    }

    async fn confirm(&self, receiver: StreamReceiver) -> Result<u64, StreamFailure> {
        match self.direction {
            Direction::OneWay => self.receive_count(receiver).await,
            Direction::Echoed => self.count_echoes(receiver).await,
        }
    }

    async fn receive_count(&self, mut receiver: StreamReceiver) -> Result<u64, StreamFailure> {
        let response = receiver.next().await.ok_or(StreamFailure::NotCounted)??;
        let SinkCount { messages, bytes } =
            SinkCount::from_wire(&response).ok_or(StreamFailure::NotCounted)?;
        match receiver.next().await {
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) => Err(StreamFailure::NotCounted),
            None if bytes != messages * self.payload.len() as u64 => Err(StreamFailure::Wrong),
            None => Ok(messages),
        }
    }

    async fn count_echoes(&self, mut receiver: StreamReceiver) -> Result<u64, StreamFailure> {
        let mut echoes = 0;
        while let Some(echo) = receiver.next().await {
            if echo? != self.payload {
                return Err(StreamFailure::Wrong);
            }
            echoes += 1;
        }
        Ok(echoes)
    }
}
