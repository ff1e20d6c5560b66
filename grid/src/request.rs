//! A single request, as its caller uses it: payload in; payload or error out ([B10]).
//!
//! [B10]: crate::rules#b10

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::error::CallError;
use crate::outcome;
use crate::proto::subroute::Subroute;
use crate::remote_handle::RemoteHandle;
use crate::route::{HandlerId, call_name};
use crate::shared::{NewCall, StartedCall};
use crate::trace::{CallRecorder, CallSide, TraceOutcome};

/// A request builder. Await it to send the request.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Request {
    remote: Arc<RemoteHandle>,
    handler: HandlerId,
    name: Option<&'static str>,
    subroute: Option<Subroute>,
    payload: Bytes,
    timeout: Option<Duration>,
}

impl Request {
    pub(crate) fn new(remote: Arc<RemoteHandle>, handler: HandlerId, payload: Bytes) -> Self {
        Self { remote, handler, name: None, subroute: None, payload, timeout: None }
    }

    /// Calls the handler that is registered under this subroute ([B33]).
    ///
    /// [B33]: crate::rules#b33
    pub fn subroute(mut self, subroute: &Subroute) -> Self {
        self.subroute = Some(subroute.clone());
        self
    }

    /// Sets the call's timeout; the default is
    /// [`Limits::deadline_default`](crate::limits::Limits::deadline_default). The remaining time is
    /// sent to the callee, which cancels the handler when it has passed. Zero fails without
    /// sending.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the name used in traces.
    pub(crate) fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }
}

impl IntoFuture for Request {
    type Output = Result<Bytes, CallError>;
    type IntoFuture = ResponseFuture;

    fn into_future(self) -> ResponseFuture {
        let Self { remote, handler, name, subroute, payload, timeout } = self;
        let recorder =
            CallRecorder::start(&remote.tracer, &remote.shared, CallSide::Caller, || {
                call_name(handler, name, subroute.as_ref())
            });
        recorder.add_bytes_out(payload.len());
        let call = NewCall {
            handler: handler.get(),
            subroute: subroute.map(|subroute| subroute.id(handler.get())),
            payload,
            timeout: timeout.unwrap_or(remote.shared.limits().deadline_default),
        };
        ResponseFuture { remote, recorder, state: ResponseState::Idle(call) }
    }
}

/// The future of a request: sends it when first polled, then waits for its response.
///
/// ```text
///            poll                      outcome
///   Idle ──────────► Waiting ─────────────────────► Done
///    │                  │ drop: the handler is cancelled (B11)
///    └── not started ───┴──────────────────────────► Done
/// ```
///
/// # Cancel safety
///
/// Dropping it cancels the call: the callee cancels the handler, and a late response is discarded.
/// Whether the handler ran is then not known.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct ResponseFuture {
    remote: Arc<RemoteHandle>,
    recorder: CallRecorder,
    state: ResponseState,
}

#[derive(Debug)]
enum ResponseState {
    Idle(NewCall),
    Waiting(StartedCall),
    Done,
}

impl Future for ResponseFuture {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, ResponseState::Done) {
            ResponseState::Idle(call) => match this.remote.shared.start(call, cx.waker()) {
                Ok(call) => {
                    this.state = ResponseState::Waiting(call);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(this.finish(Err(error))),
            },
            ResponseState::Waiting(call) => match call.poll(cx.waker()) {
                Poll::Pending => {
                    this.state = ResponseState::Waiting(call);
                    Poll::Pending
                }
                Poll::Ready(outcome) => {
                    let result = outcome::call_result(outcome, this.remote.shared.remote());
                    Poll::Ready(this.finish(result))
                }
            },
            // Polled after completion, where a future may panic. An error instead: a
            // server should not panic for a caller's mistake.
            ResponseState::Done => {
                let remote = this.remote.shared.remote().clone();
                Poll::Ready(Err(CallError::Disconnected { remote }))
            }
        }
    }
}

impl ResponseFuture {
    fn finish(&mut self, result: Result<Bytes, CallError>) -> Result<Bytes, CallError> {
        self.recorder.add_bytes_in(result.as_ref().map_or(0, Bytes::len));
        self.recorder.finish(|| match &result {
            Ok(_) => TraceOutcome::Ok,
            Err(error) => TraceOutcome::Failed(error.clone()),
        });
        result
    }
}

impl Drop for ResponseFuture {
    fn drop(&mut self) {
        if let ResponseState::Waiting(call) = &self.state {
            self.remote.shared.cancel(call);
            self.recorder.finish(|| TraceOutcome::Cancelled);
        }
    }
}
