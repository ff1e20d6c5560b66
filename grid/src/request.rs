//! A single request from its caller's side: payload in; payload or error out (B10).

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::connection::Link;
use crate::error::CallError;
use crate::handler::HandlerId;
use crate::name::Name;
use crate::proto::connection::Outcome;
use crate::proto::subroute::Subroute;
use crate::shared::{NewCall, StartedCall};
use crate::time::Instant;
use crate::trace::{CallTrace, CallSide, TraceOutcome};

/// A request that is being put together. Await it to send it.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Request {
    link: Arc<Link>,
    handler: HandlerId,
    name: Option<&'static str>,
    subroute: Option<Subroute>,
    payload: Bytes,
    timeout: Option<Duration>,
}

impl Request {
    pub(crate) fn new(link: Arc<Link>, handler: HandlerId, payload: Bytes) -> Self {
        Self { link, handler, name: None, subroute: None, payload, timeout: None }
    }

    /// To the handler under this subroute (B33).
    pub fn subroute(mut self, subroute: &Subroute) -> Self {
        self.subroute = Some(subroute.clone());
        self
    }

    /// How long to wait at most. Without one,
    /// [`Limits::deadline_default`](crate::limits::Limits::deadline_default) is applied. What is
    /// left of it travels, and the handler is cancelled when it is over. Zero fails without sending.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// A name for traces.
    pub(crate) fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }
}

impl IntoFuture for Request {
    type Output = Result<Bytes, CallError>;
    type IntoFuture = ResponseFuture;

    fn into_future(self) -> ResponseFuture {
        let Self { link, handler, name, subroute, payload, timeout } = self;
        let trace = link.tracer.is_active().then(|| {
            Box::new(Trace {
                start: link.shared.now(),
                name: trace_name(handler, name, subroute.as_ref()),
                bytes_out: payload.len(),
            })
        });
        let call = NewCall {
            handler: handler.get(),
            subroute: subroute.map(|subroute| subroute.id(handler.get())),
            payload,
            timeout: timeout.unwrap_or(link.shared.limits().deadline_default),
        };
        ResponseFuture { link, trace, state: State::Idle(call) }
    }
}

pub(crate) fn trace_name(
    id: HandlerId,
    name: Option<&str>,
    subroute: Option<&Subroute>,
) -> Arc<str> {
    match (name, subroute) {
        (Some(name), None) => name.into(),
        (Some(name), Some(subroute)) => format!("{name}/{}", subroute.as_str()).into(),
        (None, None) => id.to_string().into(),
        (None, Some(subroute)) => format!("{id}/{}", subroute.as_str()).into(),
    }
}

/// A request under way.
///
/// ```text
///            poll                      outcome
///   Idle ──────────► Waiting ─────────────────────► Over
///    │                  │ drop: the handler is cancelled (B11)
///    └── not started ───┴──────────────────────────► Over
/// ```
///
/// # Cancel safety
///
/// Dropping it gives the call up: it returns at once, the handler on the other side is cancelled,
/// and a late answer is discarded. Whether the handler ran is then not known.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct ResponseFuture {
    link: Arc<Link>,
    trace: Option<Box<Trace>>,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(NewCall),
    Waiting(StartedCall),
    Over,
}

#[derive(Debug)]
struct Trace {
    start: Instant,
    name: Arc<str>,
    bytes_out: usize,
}

impl Future for ResponseFuture {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, State::Over) {
            State::Idle(call) => match this.link.shared.start(call, cx.waker()) {
                Ok(call) => {
                    this.state = State::Waiting(call);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(this.finish(Err(error))),
            },
            State::Waiting(call) => match call.poll(cx.waker()) {
                Poll::Pending => {
                    this.state = State::Waiting(call);
                    Poll::Pending
                }
                Poll::Ready(outcome) => {
                    let result = into_result(outcome, this.link.shared.remote());
                    Poll::Ready(this.finish(result))
                }
            },
            // Polled after it had ended, which futures need not allow. Not a panic: that would be one
            // in a server that has better things to do.
            State::Over => {
                let remote = this.link.shared.remote().clone();
                Poll::Ready(Err(CallError::Disconnected { remote }))
            }
        }
    }
}

impl ResponseFuture {
    fn finish(&mut self, result: Result<Bytes, CallError>) -> Result<Bytes, CallError> {
        if let Some(trace) = self.trace.take() {
            let bytes_in = result.as_ref().map_or(0, Bytes::len);
            let outcome = match &result {
                Ok(_) => TraceOutcome::Ok,
                Err(error) => TraceOutcome::Failed(error.clone()),
            };
            trace.emit(&self.link, bytes_in, outcome);
        }
        result
    }
}

impl Drop for ResponseFuture {
    fn drop(&mut self) {
        if let State::Waiting(call) = &self.state {
            self.link.shared.give_up(call);
            if let Some(trace) = self.trace.take() {
                trace.emit(&self.link, 0, TraceOutcome::Cancelled);
            }
        }
    }
}

impl Trace {
    fn emit(self, link: &Link, bytes_in: usize, outcome: TraceOutcome) {
        let Link { shared, tracer, .. } = link;
        tracer.emit(&CallTrace {
            name: self.name,
            local: shared.local().clone(),
            remote: shared.remote().clone(),
            side: CallSide::Caller,
            start: self.start,
            duration: shared.now().since(self.start),
            bytes_out: self.bytes_out,
            bytes_in,
            outcome,
        });
    }
}

fn into_result(outcome: Outcome, remote: &Name) -> Result<Bytes, CallError> {
    let remote = || remote.clone();
    Err(match outcome {
        Outcome::Response(payload) => return Ok(payload),
        Outcome::RemoteError(message) => CallError::Remote { remote: remote(), message },
        Outcome::UnknownHandler(message) => CallError::UnknownHandler { remote: remote(), message },
        Outcome::Refused(message) => CallError::Refused { remote: remote(), message },
        Outcome::DeadlineExceeded => CallError::DeadlineExceeded { remote: remote() },
        Outcome::Disconnected => CallError::Disconnected { remote: remote() },
    })
}
