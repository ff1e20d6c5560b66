//! A stream as its caller uses it: opens it, then sends and receives until either side is done.
//!
//! The halves are in [`sender`] and [`receiver`]. A handler has the same receiver, and a
//! [`StreamOutput`]; [`Manager::register_stream`](crate::Manager::register_stream) has an example.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::error::{SendError, StreamError};
use crate::limits::{STREAM_CAPACITY, STREAM_CAPACITY_MAX};
use crate::outcome;
use crate::proto::connection::{Capacities, End};
use crate::proto::subroute::Subroute;
use crate::remote_handle::RemoteHandle;
use crate::route::{HandlerId, call_name};
use crate::shared::{NewStream, Shared, StreamHandle};
use crate::trace::{CallRecorder, CallSide, TraceOutcome};

pub mod receiver;
pub mod sender;

pub use receiver::StreamReceiver;
pub use sender::{StreamOutput, StreamSender};

/// A stream builder. Await it to open the stream.
#[derive(Debug)]
#[must_use = "a stream is not opened until it is awaited"]
pub struct OpenStream {
    remote: Arc<RemoteHandle>,
    handler: HandlerId,
    name: Option<&'static str>,
    subroute: Option<Subroute>,
    payload: Option<Bytes>,
    timeout: Option<Duration>,
    capacities: Capacities,
}

impl OpenStream {
    pub(crate) fn new(remote: Arc<RemoteHandle>, handler: HandlerId, payload: Bytes) -> Self {
        let capacities = Capacities { input: STREAM_CAPACITY, output: STREAM_CAPACITY };
        let payload = Some(payload);
        Self { remote, handler, name: None, subroute: None, payload, timeout: None, capacities }
    }

    /// Opens a stream to the handler that is registered under this subroute ([B33]).
    ///
    /// [B33]: crate::rules#b33
    pub fn subroute(mut self, subroute: &Subroute) -> Self {
        self.subroute = Some(subroute.clone());
        self
    }

    /// Limits the time from opening to end. Without a timeout the stream may stay open for ever,
    /// and its two ends ping each other. The remaining time is sent to the callee, which cancels
    /// the handler when it has passed. Zero fails without sending.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Opens the stream without an initial payload, which differs from an empty one.
    pub fn without_payload(mut self) -> Self {
        self.payload = None;
        self
    }

    /// Sets how many messages to the handler may be in flight; 0 if it accepts none ([B26]). Must be
    /// the handler's registered value. The default is [`STREAM_CAPACITY`].
    ///
    /// [B26]: crate::rules#b26
    pub fn input_capacity(mut self, messages: u32) -> Self {
        self.capacities.input = messages.min(STREAM_CAPACITY_MAX);
        self
    }

    /// Sets how many messages from the handler may be in flight, at least 1. Must be the handler's
    /// registered value. The default is [`STREAM_CAPACITY`].
    pub fn output_capacity(mut self, messages: u32) -> Self {
        self.capacities.output = messages.clamp(1, STREAM_CAPACITY_MAX);
        self
    }

    /// Sets the name used in traces.
    pub(crate) fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    async fn open(self) -> Result<Stream, StreamError> {
        let Self { remote, handler, name, subroute, payload, timeout, capacities } = self;
        let mut recorder =
            CallRecorder::start(&remote.tracer, &remote.shared, CallSide::Caller, || {
                call_name(handler, name, subroute.as_ref())
            });
        recorder.add_bytes_out(payload.as_ref().map_or(0, Bytes::len));
        let stream = NewStream {
            handler: handler.get(),
            subroute: subroute.map(|subroute| subroute.id(handler.get())),
            payload,
            timeout,
            capacities,
        };
        let handle = match Shared::open(&remote.shared, stream) {
            Ok(handle) => handle,
            Err(error) => {
                recorder.finish(|| TraceOutcome::Failed(error.clone()));
                return Err(error.into());
            }
        };
        let endpoint = StreamEndpoint::new(handle, recorder, Some(remote));
        poll_fn(|cx| endpoint.handle.poll_open(cx.waker()))
            .await
            .map_err(|end| endpoint.error(end))?;
        let endpoint = Arc::new(endpoint);
        Ok(Stream {
            receiver: StreamReceiver::new(Arc::clone(&endpoint)),
            sender: StreamSender::new(endpoint),
        })
    }
}

impl IntoFuture for OpenStream {
    type Output = Result<Stream, StreamError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// The caller's end of an open stream.
///
/// Dropping it cancels the handler, unless the stream has ended ([B25]). Use [`split`](Self::split)
/// to send and receive in different tasks.
///
/// [B25]: crate::rules#b25
#[derive(Debug)]
pub struct Stream {
    receiver: StreamReceiver,
    sender: StreamSender,
}

impl Stream {
    /// Sends a message; see [`StreamSender::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the message, unless it was queued already.
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.sender.send(payload).await
    }

    /// Receives the next message; see [`StreamReceiver::next`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        self.receiver.next().await
    }

    /// Finishes sending; messages can still be received. See [`StreamSender::finish`].
    ///
    /// # Errors
    ///
    /// [`StreamError`] if the stream ended with an error. Earlier messages can still be received.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, once polled, does not undo the finish.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        self.sender.wait_finished().await
    }

    /// Splits the stream into its halves. Either may be dropped alone; dropping both cancels.
    pub fn split(self) -> (StreamSender, StreamReceiver) {
        (self.sender, self.receiver)
    }
}

/// The caller's or the handler's end of a stream, shared by its two halves.
#[derive(Debug)]
pub(crate) struct StreamEndpoint {
    pub(crate) handle: StreamHandle,
    pub(crate) recorder: CallRecorder,
    /// Number of halves that are not being dropped.
    live_halves: AtomicUsize,
    /// Whether the sender was dropped alone, which finishes when the receiver is polled next.
    is_sender_dropped: AtomicBool,
    /// Keeps the manager alive; only at the caller's end.
    caller: Option<Arc<RemoteHandle>>,
}

const HALVES: usize = 2;

/// Order in which the two halves of an endpoint are dropped.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum DroppedHalf {
    First,
    Last,
}

impl StreamEndpoint {
    /// Creates one end of a stream: the caller's with its `caller`, the handler's without.
    ///
    /// The caller's end finishes the record when it is dropped. At the callee the task of the
    /// handler does.
    pub(crate) fn new(
        handle: StreamHandle,
        recorder: CallRecorder,
        caller: Option<Arc<RemoteHandle>>,
    ) -> Self {
        let live_halves = AtomicUsize::new(HALVES);
        let is_sender_dropped = AtomicBool::new(false);
        Self { handle, recorder, live_halves, is_sender_dropped, caller }
    }

    /// Counts a half as dropped. Atomic: of two threads that drop one half each, exactly one sees
    /// `First`.
    pub(crate) fn drop_half(&self) -> DroppedHalf {
        let before = self.live_halves.fetch_sub(1, Ordering::AcqRel);
        debug_assert!((1..=HALVES).contains(&before), "live_halves was {before} of {HALVES}");
        if before == HALVES { DroppedHalf::First } else { DroppedHalf::Last }
    }

    /// Handles that the sender was dropped before the receiver. If one task owns both halves and
    /// ends, the receiver is never polled again and the stream is cancelled. A later poll proves
    /// that the result of the whole input is still wanted, so finishing is deferred to that poll.
    pub(crate) fn on_sender_dropped(&self) {
        self.is_sender_dropped.store(true, Ordering::Release);
        self.handle.wake_receiver();
    }

    /// Handles a poll of the receiver: finishes the stream if the sender was dropped.
    pub(crate) fn on_receiver_polled(&self) {
        if self.is_sender_dropped.load(Ordering::Acquire) {
            self.is_sender_dropped.store(false, Ordering::Relaxed);
            self.handle.finish();
        }
    }

    pub(crate) fn error(&self, end: End) -> StreamError {
        outcome::stream_error(end, self.handle.shared().remote())
    }
}

impl Drop for StreamEndpoint {
    fn drop(&mut self) {
        let Some(_keeps_manager) = self.caller.take() else { return };
        let mut recorder = self.recorder.clone();
        recorder.finish(|| match self.handle.end() {
            None => TraceOutcome::Cancelled,
            Some(End::Finished) => TraceOutcome::Ok,
            Some(end) => TraceOutcome::StreamFailed(self.error(end)),
        });
    }
}
