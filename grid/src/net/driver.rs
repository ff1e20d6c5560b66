//! Drives an open connection in one task: reads, dispatches, writes, sleeps.
//!
//! One task, not a reader and a writer: the response to a request that was just read and the next
//! calls of the callers woken by the same read are sent together, as one frame and one system call.
//! That is most of the crate's speed (ARCHITECTURE.md, "Why it is fast").
//!
//! ```text
//!          ┌─────────────────────────── turn ────────────────────────────┐
//!   woken ─┤ timers ► read until drained ► run handlers ► queue responses│
//!          │   └► data to write? yield once, so that the next calls of   │
//!          │      callers that were just woken are part of it            │
//!          │   └► write all ► flush ► no work left? sleep                │
//!          └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! It never blocks on a single source: it keeps reading while the socket accepts no bytes, and its
//! timers run while no bytes arrive, so that an unresponsive peer is detected ([B07]).
//!
//! [B07]: crate::rules#b07

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

use super::dispatch::Dispatcher;
use super::websocket::WebSocket;
use crate::buggify::{FaultDelay, FaultInjector, FaultPoint};
use crate::limits::{
    BYTES_PER_TURN, FINAL_READ_TURNS_MAX, FRAMES_PER_TURN, MESSAGES_PER_LOCK, TURNS_PER_POLL,
};
use crate::proto::connection::{CloseReason, HandlerResult};
use crate::proto::message::{Message, Messages, ParseError};
use crate::shared::{DeferredWork, Epoch, Output, Park, SharedRef, Written};
use crate::time::Instant;

/// The future of an open connection; resolves with the reason for its end.
pub(super) struct Driver {
    socket: WebSocket,
    dispatcher: Dispatcher,
    _detach_on_drop: DetachOnDrop,
    messages: Vec<Message>,
    work: DeferredWork,
    responses: Vec<(u64, HandlerResult)>,
    sleep: Pin<Box<Sleep>>,
    /// Instant at which `sleep` ends, if it is set.
    sleep_until: Option<Instant>,
    needs_flush: bool,
    /// Whether the machine had data to write when it was last queried.
    wants_transmit: bool,
    /// Whether the last flush found the socket full.
    is_blocked: bool,
    has_yielded: bool,
    // Fault points for tests (ARCHITECTURE.md, "Fault points"); empty types in a server.
    full_socket: FaultDelay,
    delayed_flush: FaultDelay,
    spurious_wake: FaultDelay,
}

/// Ends the connection when its task ends in any way: an aborted or panicked task must not leave
/// callers waiting (B05).
struct DetachOnDrop {
    shared: SharedRef,
    epoch: Epoch,
}

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        let reason = CloseReason::Transport("the connection's task ended".into());
        self.shared.detach(self.epoch, reason);
    }
}

/// Result of reading from the socket in one turn.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
enum ReadProgress {
    /// No data is left to read now.
    Drained,
    /// The limit of a turn was reached; more data may be there.
    Partial,
}

impl Driver {
    pub(super) fn new(
        socket: WebSocket,
        dispatcher: Dispatcher,
        fault_injector: &FaultInjector,
    ) -> Self {
        let _detach_on_drop =
            DetachOnDrop { shared: SharedRef::clone(&dispatcher.shared), epoch: dispatcher.epoch };
        Self {
            socket,
            dispatcher,
            _detach_on_drop,
            messages: Vec::new(),
            work: DeferredWork::default(),
            responses: Vec::new(),
            sleep: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            sleep_until: None,
            needs_flush: false,
            wants_transmit: false,
            is_blocked: false,
            has_yielded: false,
            full_socket: FaultDelay::new(fault_injector, FaultPoint::FullSocket),
            delayed_flush: FaultDelay::new(fault_injector, FaultPoint::DelayFlush),
            spurious_wake: FaultDelay::new(fault_injector, FaultPoint::SpuriousWake),
        }
    }

    /// Ends the connection, unless it has ended, and returns the socket.
    pub(super) fn end(self, reason: CloseReason) -> WebSocket {
        let Dispatcher { shared, epoch, .. } = &self.dispatcher;
        shared.detach(*epoch, reason);
        self.socket
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.sleep_until.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
            self.sleep_until = None; // each turn handles the timers that are due
        }
        for _ in 0..TURNS_PER_POLL {
            let read = self.poll_read(cx)?;
            if (self.needs_flush || self.wants_transmit) && !self.has_yielded {
                self.has_yielded = true;
                cx.waker().wake_by_ref();
                return Ok(());
            }
            self.has_yielded = false;
            let written = match self.poll_write(cx) {
                Ok(written) => written,
                Err(reason) => return Err(self.read_remaining(cx, reason)),
            };
            if read == ReadProgress::Drained
                && written != Written::Partial
                && self.poll_park(cx, written)?.is_pending()
            {
                return Ok(());
            }
        }
        // More work than one poll should do: yield the thread to other tasks.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<ReadProgress, CloseReason> {
        let mut bytes = 0;
        let mut read = ReadProgress::Partial;
        let mut end = None;
        for _ in 0..FRAMES_PER_TURN {
            if bytes >= BYTES_PER_TURN {
                break;
            }
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => {
                    read = ReadProgress::Drained;
                    break;
                }
                Poll::Ready(Some(Ok(WsMessage::Binary(frame)))) => {
                    bytes += frame.len();
                    if let Err(reason) = self.parse_frame(frame) {
                        end = Some(reason);
                        break;
                    }
                }
                Poll::Ready(Some(Ok(WsMessage::Close(_))) | None) => {
                    end = Some(CloseReason::Peer);
                    break;
                }
                // P3: text is ignored; the WebSocket layer responds to control frames.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    end = Some(close_reason(&error));
                    break;
                }
            }
        }
        // Complete messages before the end are valid: a received response is delivered (B14).
        self.dispatch(bytes)?;
        end.map_or(Ok(read), Err)
    }

    /// Parses the messages of a frame, and dispatches them in batches: a frame may contain a
    /// million messages.
    fn parse_frame(&mut self, frame: Bytes) -> Result<(), CloseReason> {
        let malformed = |error: ParseError| CloseReason::Protocol(error.to_string().into());
        for message in Messages::new(frame).map_err(malformed)? {
            self.messages.push(message.map_err(malformed)?);
            if self.messages.len() >= MESSAGES_PER_LOCK {
                self.dispatch(0)?;
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, bytes: usize) -> Result<(), CloseReason> {
        let Dispatcher { shared, epoch, .. } = &self.dispatcher;
        let received = shared.receive(*epoch, &mut self.messages, bytes, &mut self.work);
        self.work.wake();
        for (op, mux_id) in self.work.skipped.drain(..) {
            tracing::debug!(
                target: "grid", remote = %shared.remote(), ?op, mux_id,
                "ignored an unexpected message"
            );
        }
        self.wants_transmit = received? == Output::Queued;
        if !self.work.incoming.is_empty() {
            self.dispatcher.serve(&mut self.work.incoming, &mut self.responses);
            if !self.responses.is_empty() {
                self.dispatcher.shared.respond(self.dispatcher.epoch, &self.responses);
                self.responses.clear();
            }
            // A response, an acknowledgement, a refusal: nearly every call queues data to write.
            self.wants_transmit = true;
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Written, CloseReason> {
        let mut written = Written::Partial;
        if self.is_blocked && self.poll_flush(cx)?.is_pending() {
            return Ok(Written::Blocked);
        }
        for _ in 0..FRAMES_PER_TURN {
            if self.full_socket.poll(cx).is_pending() {
                return Ok(Written::Blocked);
            }
            let mut socket = Pin::new(&mut self.socket);
            match socket.as_mut().poll_ready(cx) {
                Poll::Pending => {
                    self.is_blocked = true;
                    return Ok(Written::Blocked);
                }
                Poll::Ready(ready) => ready.map_err(|error| close_reason(&error))?,
            }
            let Some(frame) = self.dispatcher.shared.next_transmit(self.dispatcher.epoch)? else {
                written = Written::All;
                break;
            };
            self.needs_flush = true;
            let is_last = frame.is_last;
            socket
                .as_mut()
                .start_send(WsMessage::Binary(frame.into_bytes()))
                .map_err(|error| close_reason(&error))?;
            if is_last {
                written = Written::All;
                break;
            }
        }
        if self.needs_flush && self.poll_flush(cx)?.is_pending() {
            return Ok(Written::Blocked);
        }
        Ok(written)
    }

    /// Flushes the WebSocket's write buffer to the transport.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, CloseReason> {
        // No further frame is taken from the queue until the flush completes.
        self.is_blocked = true;
        if self.delayed_flush.poll(cx).is_pending() {
            return Ok(Poll::Pending);
        }
        let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) else {
            return Ok(Poll::Pending);
        };
        flushed.map_err(|error| close_reason(&error))?;
        self.is_blocked = false;
        self.needs_flush = false;
        Ok(Poll::Ready(()))
    }

    /// Reads what is left after a write failed: responses already received are delivered ([B14]).
    ///
    /// [B14]: crate::rules#b14
    fn read_remaining(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> CloseReason {
        // Without tokio's cooperative budget: the task gets no further poll to continue in.
        let mut final_turns = unconstrained(std::future::poll_fn(|cx| {
            for _ in 0..FINAL_READ_TURNS_MAX {
                match self.poll_read(cx) {
                    Ok(ReadProgress::Partial) => {}
                    Ok(ReadProgress::Drained) | Err(_) => break,
                }
            }
            Poll::Ready(())
        }));
        let _ = Pin::new(&mut final_turns).poll(cx);
        reason
    }

    /// Registers the waker and sets the sleep. Returns ready if new work arrived meanwhile.
    fn poll_park(
        &mut self,
        cx: &mut Context<'_>,
        written: Written,
    ) -> Result<Poll<()>, CloseReason> {
        let Dispatcher { shared, epoch, .. } = &self.dispatcher;
        let Park::Until(until) = shared.park(*epoch, written, cx.waker())? else {
            return Ok(Poll::Ready(()));
        };
        self.spurious_wake.wake_later(cx);
        let Some(until) = until else { return Ok(Poll::Pending) };
        // A sleep that ends earlier is kept: an occasional spurious wake-up costs less than
        // resetting the timer for each call.
        if self.sleep_until.is_none_or(|current| until < current) {
            let wait = until.since(shared.now());
            #[expect(clippy::disallowed_methods, reason = "tokio's timer takes tokio's time")]
            let at = tokio::time::Instant::now() + wait;
            self.sleep.as_mut().reset(at);
            self.sleep_until = Some(until);
            return Ok(self.sleep.as_mut().poll(cx));
        }
        Ok(Poll::Pending)
    }
}

impl Future for Driver {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        match self.poll_turns(cx) {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                let Dispatcher { shared, epoch, .. } = &self.dispatcher;
                shared.detach(*epoch, reason.clone());
                Poll::Ready(reason)
            }
        }
    }
}

/// Converts an error of the WebSocket layer to a reason for closing.
fn close_reason(error: &WsError) -> CloseReason {
    match error {
        WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::Peer,
        // Only pongs can fill it: the peer sends WebSocket pings without reading.
        WsError::WriteBufferFull(_) => {
            CloseReason::Protocol("the peer sends pings and does not read the pongs".into())
        }
        WsError::Capacity(_) | WsError::Protocol(_) | WsError::Utf8(_) => {
            CloseReason::Protocol(error.to_string().into())
        }
        _ => CloseReason::Transport(error.to_string().into()),
    }
}
