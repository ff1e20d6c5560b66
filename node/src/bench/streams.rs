//! `gridwire bench --stream`: how many messages a second go through one stream of a connection, and
//! through several.
//!
//! ```text
//!   open all      ── seconds ──      finish all     all ends confirmed
//!  ─────────────┬────────────────┬────────────────┬────────────────────
//!               └──────────── what is measured ───┘
//! ```
//!
//! Only what the other end has confirmed is counted, over all the time that it took to: one way, the
//! server's handler says at the end how many messages it took; echoed, each came back. A stream on
//! which that is not as many as were sent has failed. Warm-up is the same with streams of its own.

mod report;

use std::time::{Duration, Instant};

use bytes::Bytes;
use grid::{Connection, HandlerId, SendError, Stream, StreamError, StreamReceiver, StreamSender};
use tokio::task::JoinSet;

use super::{BenchError, random_payload};
use crate::cli::BenchArgs;
use crate::handlers::{Counted, ECHO_STREAM, STREAM_SINK};
use crate::probe::Probe;
use crate::stdout;

use self::report::Report;

/// Measures, and prints what came out.
pub(super) async fn run(arguments: &BenchArgs) -> Result<(), BenchError> {
    let runs = measure(arguments).await?;
    let report = Report::new(arguments, &runs);
    match arguments.json {
        true => stdout::line(&report.json().map_err(std::io::Error::from)?)?,
        false => stdout::line(&report)?,
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

/// Which way the messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Into the server, which counts them.
    OneWay,
    /// Into the server and back.
    Echoed,
}

impl Way {
    const ALL: [Self; 2] = [Self::OneWay, Self::Echoed];

    const fn handler(self) -> HandlerId {
        match self {
            Self::OneWay => STREAM_SINK,
            Self::Echoed => ECHO_STREAM,
        }
    }
}

/// Why a stream does not count.
#[derive(Debug, thiserror::Error)]
enum StreamFailure {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the stream had no end {0:?} after its last message was due")]
    Late(Duration),
    #[error("the server did not say how many messages it took")]
    NotCounted,
    #[error("what arrived is not what was sent")]
    Wrong,
    #[error("{sent} messages were sent, {confirmed} arrived")]
    Lost { sent: u64, confirmed: u64 },
}

/// What came of one measurement.
struct Run {
    streams: u32,
    way: Way,
    elapsed: Duration,
    sent: u64,
    confirmed: u64,
    /// Streams that were opened, those of the warm-up too.
    opened: usize,
    failures: Vec<StreamFailure>,
}

async fn measure(arguments: &BenchArgs) -> Result<Vec<Run>, BenchError> {
    let probe =
        Probe::connect(&arguments.peer, &arguments.probe.entry, arguments.probe.timeout).await?;
    let bench = Bench {
        connection: probe.connection.clone(),
        payload: random_payload(usize::try_from(arguments.size).unwrap_or(usize::MAX)),
        timeout: arguments.probe.timeout,
    };
    let mut runs = Vec::new();
    for streams in arguments.streams() {
        for way in Way::ALL {
            let warm_up = match arguments.warmup {
                0 => None,
                seconds => Some(bench.run(streams, way, Duration::from_secs(seconds)).await?),
            };
            let seconds = Duration::from_secs(arguments.seconds);
            let mut run = bench.run(streams, way, seconds).await?;
            if let Some(warm_up) = warm_up {
                run.opened += warm_up.opened;
                run.failures.extend(warm_up.failures);
            }
            runs.push(run);
        }
    }
    probe.leave().await;
    Ok(runs)
}

/// What all measurements have in common.
struct Bench {
    connection: Connection,
    payload: Bytes,
    timeout: Duration,
}

impl Bench {
    async fn run(&self, streams: u32, way: Way, lasts: Duration) -> Result<Run, BenchError> {
        let mut failures = Vec::new();
        let mut open = Vec::new();
        for _ in 0..streams {
            match self.connection.stream(way.handler(), Bytes::new()).without_payload().await {
                Ok(stream) => open.push(stream),
                Err(error) => failures.push(error.into()),
            }
        }
        let begun = Instant::now();
        let until = begun + lasts;
        let mut tasks = JoinSet::new();
        for stream in open {
            let traffic = Traffic { way, payload: self.payload.clone(), until };
            let timeout = self.timeout;
            tasks.spawn(async move {
                let ended = tokio::time::timeout(lasts + timeout, traffic.drive(stream)).await;
                ended.unwrap_or(Err(StreamFailure::Late(timeout)))
            });
        }
        let (mut sent, mut confirmed) = (0, 0);
        while let Some(ended) = tasks.join_next().await {
            match ended? {
                Ok(messages) => (sent, confirmed) = (sent + messages, confirmed + messages),
                Err(failure) => {
                    if let StreamFailure::Lost { sent: of_it, confirmed: arrived } = failure {
                        (sent, confirmed) = (sent + of_it, confirmed + arrived);
                    }
                    failures.push(failure);
                }
            }
        }
        let (elapsed, opened) = (begun.elapsed(), streams as usize);
        Ok(Run { streams, way, elapsed, sent, confirmed, opened, failures })
    }
}

/// What goes through one stream.
struct Traffic {
    way: Way,
    payload: Bytes,
    until: Instant,
}

impl Traffic {
    /// Sends and receives, and returns how many messages were sent and confirmed.
    async fn drive(self, stream: Stream) -> Result<u64, StreamFailure> {
        let (sender, receiver) = stream.split();
        // The receiver first: dropped in this order, a stream that is late is cancelled (B25).
        let (confirmed, sent) = tokio::join!(self.confirm(receiver), self.send(sender));
        // What ended the stream is what the receiver learns; a sender only finds it ended.
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
        match self.way {
            Way::OneWay => self.count_taken(receiver).await,
            Way::Echoed => self.count_echoes(receiver).await,
        }
    }

    async fn count_taken(&self, mut receiver: StreamReceiver) -> Result<u64, StreamFailure> {
        let answer = receiver.next().await.ok_or(StreamFailure::NotCounted)??;
        let Counted { messages, bytes } =
            Counted::from_wire(&answer).ok_or(StreamFailure::NotCounted)?;
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
