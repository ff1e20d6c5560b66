//! A stream from its caller's side: opened, then messages both ways until either side is done.
//!
//! The halves are in [`sender`] and [`receiver`]; a handler has the same receiver, and a
//! [`StreamOutput`]. What a handler looks like is at
//! [`Manager::register_stream`](crate::Manager::register_stream).

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::connection::Link;
use crate::error::{SendError, StreamError};
use crate::handler::HandlerId;
use crate::limits::{STREAM_CAPACITY, STREAM_CAPACITY_MAX};
use crate::proto::connection::{Capacities, StreamEnd};
use crate::proto::subroute::Subroute;
use crate::request::trace_name;
use crate::shared::{NewStream, Shared, StreamHandle};
use crate::time::Instant;
use crate::trace::{CallTrace, CallSide, TraceOutcome};

pub mod receiver;
pub mod sender;

pub use receiver::StreamReceiver;
pub use sender::{StreamOutput, StreamSender};

/// A stream that is being put together. Await it to open it.
#[derive(Debug)]
#[must_use = "a stream is not opened until it is awaited"]
pub struct OpenStream {
    link: Arc<Link>,
    handler: HandlerId,
    name: Option<&'static str>,
    subroute: Option<Subroute>,
    payload: Option<Bytes>,
    timeout: Option<Duration>,
    capacities: Capacities,
}

impl OpenStream {
    pub(crate) fn new(link: Arc<Link>, handler: HandlerId, payload: Bytes) -> Self {
        let capacities = Capacities { input: STREAM_CAPACITY, output: STREAM_CAPACITY };
        let payload = Some(payload);
        Self { link, handler, name: None, subroute: None, payload, timeout: None, capacities }
    }

    /// To the handler under this subroute (B33).
    pub fn subroute(mut self, subroute: &Subroute) -> Self {
        self.subroute = Some(subroute.clone());
        self
    }

    /// How long the stream may take, from opening to end. Without one it may take for ever, and its
    /// two ends ping each other. What is left of it travels, and the handler is cancelled when it is
    /// over. Zero fails without sending.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Opens it without an initial payload, which is not the same as with an empty one.
    pub fn without_payload(mut self) -> Self {
        self.payload = None;
        self
    }

    /// How many messages to the handler may be under way, as the handler is registered; 0 if it
    /// takes none (B26). [`STREAM_CAPACITY`] unless told.
    pub fn input_capacity(mut self, messages: u32) -> Self {
        self.capacities.input = messages.min(STREAM_CAPACITY_MAX);
        self
    }

    /// How many messages from the handler may be under way, as the handler is registered; at least
    /// 1. [`STREAM_CAPACITY`] unless told.
    pub fn output_capacity(mut self, messages: u32) -> Self {
        self.capacities.output = messages.clamp(1, STREAM_CAPACITY_MAX);
        self
    }

    /// A name for traces.
    pub(crate) fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    async fn open(self) -> Result<Stream, StreamError> {
        let Self { link, handler, name, subroute, payload, timeout, capacities } = self;
        let trace = link.tracer.is_active().then(|| Trace {
            start: link.shared.now(),
            name: trace_name(handler, name, subroute.as_ref()),
            payload_bytes: payload.as_ref().map_or(0, Bytes::len),
        });
        let stream = NewStream {
            handler: handler.get(),
            subroute: subroute.map(|subroute| subroute.id(handler.get())),
            payload,
            timeout,
            capacities,
        };
        let opened = Shared::open(&link.shared, stream);
        let handle = match opened {
            Ok(handle) => handle,
            Err(error) => {
                if let Some(trace) = trace {
                    trace.emit(&link, &Traffic::default(), TraceOutcome::Failed(error.clone()));
                }
                return Err(error.into());
            }
        };
        let traffic = trace.is_some().then(Arc::default);
        let end = End {
            handle,
            traffic,
            live_halves: AtomicUsize::new(HALVES),
            is_sender_dropped: AtomicBool::new(false),
            of_caller: Some(OfCaller { link, trace }),
        };
        poll_fn(|cx| end.handle.poll_open(cx.waker())).await.map_err(|how| end.error(how))?;
        let end = Arc::new(end);
        Ok(Stream {
            receiver: StreamReceiver::new(Arc::clone(&end)),
            sender: StreamSender::new(end),
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

/// An open stream, seen from its caller.
///
/// Dropping it cancels the handler, unless the stream is over (B25). Use [`split`](Self::split) to
/// send and receive in different tasks.
#[derive(Debug)]
pub struct Stream {
    receiver: StreamReceiver,
    sender: StreamSender,
}

impl Stream {
    /// See [`StreamSender::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the message back, unless it was queued already.
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.sender.send(payload).await
    }

    /// The next message; see [`StreamReceiver::next`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        self.receiver.next().await
    }

    /// Sends nothing more; messages can still be received. See [`StreamSender::finish`].
    ///
    /// # Errors
    ///
    /// [`StreamError`] if the stream is over, and not well. What came before can still be received.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, once it was polled, finishes the stream all the same.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        self.sender.wait_finished().await
    }

    /// The two halves. Either may be dropped alone; both together cancel.
    pub fn split(self) -> (StreamSender, StreamReceiver) {
        (self.sender, self.receiver)
    }
}

/// One end of a stream, shared by its two halves.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) handle: StreamHandle,
    /// Counted if anybody wants to see it.
    pub(crate) traffic: Option<Arc<Traffic>>,
    /// How many of the two are not being dropped.
    live_halves: AtomicUsize,
    /// Whether the sender was dropped alone, which finishes once the receiver is used again.
    is_sender_dropped: AtomicBool,
    of_caller: Option<OfCaller>,
}

#[derive(Debug)]
struct OfCaller {
    /// Keeps the manager alive.
    link: Arc<Link>,
    trace: Option<Trace>,
}

/// Bytes of payload that went through one end of a stream.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: AtomicUsize,
    pub(crate) bytes_out: AtomicUsize,
}

const HALVES: usize = 2;

/// Whether a half that is being dropped leaves the other one behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    First,
    Last,
}

impl End {
    /// One half begins to be dropped. In one step: two threads that drop one each must not both
    /// find the other still there.
    pub(crate) fn drop_half(&self) -> Dropped {
        let before = self.live_halves.fetch_sub(1, Ordering::AcqRel);
        if before == HALVES { Dropped::First } else { Dropped::Last }
    }

    /// The sender was dropped, and the receiver was not. If that is one task that ends, the receiver
    /// will not be used again, and the stream be cancelled; only one that is shows that somebody still
    /// wants what the handler makes of its whole input. So the end waits for that.
    pub(crate) fn sender_was_dropped(&self) {
        self.is_sender_dropped.store(true, Ordering::Release);
        self.handle.wake_receiver();
    }

    /// The receiver is used: finishes, if the sender was dropped.
    pub(crate) fn receiver_is_used(&self) {
        if self.is_sender_dropped.load(Ordering::Acquire) {
            self.is_sender_dropped.store(false, Ordering::Relaxed);
            self.handle.finish();
        }
    }

    /// That of a handler.
    pub(crate) fn of_handler(handle: StreamHandle, traffic: Option<Arc<Traffic>>) -> Self {
        let live_halves = AtomicUsize::new(HALVES);
        let is_sender_dropped = AtomicBool::new(false);
        Self { handle, traffic, live_halves, is_sender_dropped, of_caller: None }
    }

    pub(crate) fn error(&self, end: StreamEnd) -> StreamError {
        StreamError::new(end, self.handle.shared().remote())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let Some(OfCaller { link, trace: Some(trace) }) = self.of_caller.take() else { return };
        let outcome = match self.handle.end() {
            None => TraceOutcome::Cancelled,
            Some(StreamEnd::Finished) => TraceOutcome::Ok,
            Some(end) => TraceOutcome::StreamFailed(self.error(end)),
        };
        let none = Traffic::default();
        trace.emit(&link, self.traffic.as_deref().unwrap_or(&none), outcome);
    }
}

#[derive(Debug)]
struct Trace {
    start: Instant,
    name: Arc<str>,
    payload_bytes: usize,
}

impl Trace {
    fn emit(self, link: &Link, traffic: &Traffic, outcome: TraceOutcome) {
        let Link { shared, tracer, .. } = link;
        tracer.emit(&CallTrace {
            name: self.name,
            local: shared.local().clone(),
            remote: shared.remote().clone(),
            side: CallSide::Caller,
            start: self.start,
            duration: shared.now().since(self.start),
            bytes_out: self.payload_bytes + traffic.bytes_out.load(Ordering::Relaxed),
            bytes_in: traffic.bytes_in.load(Ordering::Relaxed),
            outcome,
        });
    }
}
