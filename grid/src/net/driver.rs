//! The one task of an open connection: reads, dispatches, writes, sleeps.
//!
//! One task, not a reader and a writer: a request that came in, its answer and whatever callers
//! were woken by the same read leave together, as one frame and one system call. That is most of
//! the crate's speed (ARCHITECTURE.md, "Why it is fast").
//!
//! ```text
//!          ┌────────────────────────── turn ───────────────────────────┐
//!   woken ─┤ timers ► read what is there ► run handlers ► queue answers │
//!          │   └► something to write? yield once, so that callers who   │
//!          │      were woken just now get their next call into it       │
//!          │   └► write all ► flush ► nothing more to do? sleep         │
//!          └────────────────────────────────────────────────────────────┘
//! ```
//!
//! It never waits on one thing alone: while its socket takes no bytes it goes on reading, and while
//! none arrive its timers run, so that a peer that stops is found (B07).

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
use crate::buggify::{Hold, Point, Rare};
use crate::limits::{
    BYTES_PER_TURN, FRAMES_PER_TURN, LAST_TURNS, MESSAGES_PER_LOCK, TURNS_PER_POLL,
};
use crate::proto::connection::{Answer, CloseReason};
use crate::proto::message::{Message, Messages, ParseError};
use crate::shared::{Epoch, Park, SharedRef, Work, Written};
use crate::time::Instant;

/// Runs an open connection; resolves with the reason for its end.
pub(super) struct Driver {
    socket: WebSocket,
    dispatcher: Dispatcher,
    _attached: Attached,
    messages: Vec<Message>,
    work: Work,
    answers: Vec<(u64, Answer)>,
    sleep: Pin<Box<Sleep>>,
    /// When `sleep` ends, if it was set.
    armed: Option<Instant>,
    needs_flush: bool,
    /// Whether there was something to write when this was last asked.
    wants_transmit: bool,
    /// Whether the last flush found the socket full.
    is_blocked: bool,
    has_yielded: bool,
    // Where a test can hold it up or wake it (ARCHITECTURE.md, "Rare on purpose"); empty in a server.
    full_socket: Hold,
    delayed_flush: Hold,
    spurious_wake: Hold,
}

/// Ends the connection when its task does, however that happens: a task that is aborted or panics
/// must not leave callers waiting for it (B05).
struct Attached {
    shared: SharedRef,
    epoch: Epoch,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let reason = CloseReason::Transport("the connection's task ended".into());
        self.shared.detach(self.epoch, reason);
    }
}

/// How far a turn's reading got.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// To the end of what is there.
    All,
    /// To the limit of a turn; there may be more.
    Some,
}

impl Driver {
    pub(super) fn new(socket: WebSocket, dispatcher: Dispatcher, rare: &Rare) -> Self {
        let _attached =
            Attached { shared: SharedRef::clone(&dispatcher.shared), epoch: dispatcher.epoch };
        Self {
            socket,
            dispatcher,
            _attached,
            messages: Vec::new(),
            work: Work::default(),
            answers: Vec::new(),
            sleep: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            armed: None,
            needs_flush: false,
            wants_transmit: false,
            is_blocked: false,
            has_yielded: false,
            full_socket: Hold::new(rare, Point::FullSocket),
            delayed_flush: Hold::new(rare, Point::DelayFlush),
            spurious_wake: Hold::new(rare, Point::SpuriousWake),
        }
    }

    /// Ends the connection, if it is not over, and gives the socket back.
    pub(super) fn end(self, reason: CloseReason) -> WebSocket {
        let Dispatcher { shared, epoch, .. } = &self.dispatcher;
        shared.detach(*epoch, reason);
        self.socket
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.armed.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
            self.armed = None; // what is due is done in each turn
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
                Err(reason) => return Err(self.read_the_rest(cx, reason)),
            };
            if read == Read::All && written != Written::Some && !self.poll_park(cx, written)? {
                return Ok(());
            }
        }
        // Much to do: let other tasks have the thread in between.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Read, CloseReason> {
        let mut bytes = 0;
        let mut read = Read::Some;
        let mut end = None;
        for _ in 0..FRAMES_PER_TURN {
            if bytes >= BYTES_PER_TURN {
                break;
            }
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => {
                    read = Read::All;
                    break;
                }
                Poll::Ready(Some(Ok(WsMessage::Binary(frame)))) => {
                    bytes += frame.len();
                    if let Err(reason) = self.take_in(frame) {
                        end = Some(reason);
                        break;
                    }
                }
                Poll::Ready(Some(Ok(WsMessage::Close(_))) | None) => {
                    end = Some(CloseReason::Peer);
                    break;
                }
                // P3: text is ignored, control frames are answered by the layer below.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    end = Some(close_reason(&error));
                    break;
                }
            }
        }
        // What came whole before the end counts: an answer that is here is delivered (B14).
        self.dispatch(bytes)?;
        end.map_or(Ok(read), Err)
    }

    /// Collects the messages of a frame, and dispatches as often as enough are there: a frame may
    /// hold a million.
    fn take_in(&mut self, frame: Bytes) -> Result<(), CloseReason> {
        let malformed = |error: ParseError| CloseReason::Protocol(error.to_string().into());
        for message in Messages::of(frame).map_err(malformed)? {
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
                "skipped a message that means nothing here"
            );
        }
        self.wants_transmit = received?;
        if !self.work.incoming.is_empty() {
            self.dispatcher.serve(&mut self.work.incoming, &mut self.answers);
            if !self.answers.is_empty() {
                self.dispatcher.shared.answer(self.dispatcher.epoch, &self.answers);
                self.answers.clear();
            }
            // An answer, an acknowledgement, a refusal: nearly every call leaves something to write.
            self.wants_transmit = true;
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Written, CloseReason> {
        let mut written = Written::Some;
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

    /// Hands all that was written to the socket over to what is below it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, CloseReason> {
        // Until it is done no further frame is taken.
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

    /// The socket takes no more bytes, but answers may still lie in it: those are delivered, not
    /// lost (B14).
    fn read_the_rest(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> CloseReason {
        // Beyond what tokio lets a task do in one go: there will be no other.
        let mut last_turns = unconstrained(std::future::poll_fn(|cx| {
            for _ in 0..LAST_TURNS {
                match self.poll_read(cx) {
                    Ok(Read::Some) => {}
                    Ok(Read::All) | Err(_) => break,
                }
            }
            Poll::Ready(())
        }));
        let _ = Pin::new(&mut last_turns).poll(cx);
        reason
    }

    /// Goes to sleep. Returns whether there is something to do after all.
    fn poll_park(&mut self, cx: &mut Context<'_>, written: Written) -> Result<bool, CloseReason> {
        let Dispatcher { shared, epoch, .. } = &self.dispatcher;
        let Park::Until(until) = shared.park(*epoch, written, cx.waker())? else {
            return Ok(true);
        };
        self.spurious_wake.wake_later(cx);
        let Some(until) = until else { return Ok(false) };
        // A sleep that ends earlier is left alone: waking for nothing now and then is cheaper than
        // setting it with each call.
        if self.armed.is_none_or(|armed| until < armed) {
            let wait = until.since(shared.now());
            #[expect(clippy::disallowed_methods, reason = "tokio's timer takes tokio's time")]
            let at = tokio::time::Instant::now() + wait;
            self.sleep.as_mut().reset(at);
            self.armed = Some(until);
            return Ok(self.sleep.as_mut().poll(cx).is_ready());
        }
        Ok(false)
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

/// What an error of the WebSocket layer means for the connection.
fn close_reason(error: &WsError) -> CloseReason {
    match error {
        WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::Peer,
        // Only WebSocket pings that the peer makes us answer can fill it.
        WsError::WriteBufferFull(_) => {
            CloseReason::Protocol("the peer sends pings and does not read the pongs".into())
        }
        WsError::Capacity(_) | WsError::Protocol(_) | WsError::Utf8(_) => {
            CloseReason::Protocol(error.to_string().into())
        }
        _ => CloseReason::Transport(error.to_string().into()),
    }
}
