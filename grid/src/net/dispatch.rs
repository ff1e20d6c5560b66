//! Runs handlers: polled once inline, then as a task of their own. A panic fails only its own call.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::error::HandlerError;
use crate::handler::{HandlerFuture, RegisteredFn, RegisteredHandler, Registry, RequestContext};
use crate::proto::connection::{CallKind, HandlerResult, Incoming};
use crate::route::Execution;
use crate::shared::{Epoch, HandlerTask, Shared, SharedRef};
use crate::stream::{StreamEndpoint, StreamOutput, StreamReceiver};
use crate::trace::{CallRecorder, CallSide, TraceOutcome, Tracer};

/// Runs the handlers of one connection.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) registry: Arc<Registry>,
    pub(super) tracer: Arc<Tracer>,
    pub(super) shared: SharedRef,
    pub(super) epoch: Epoch,
}

impl Dispatcher {
    /// Starts the handlers of incoming calls. Responses that are ready at once are pushed to
    /// `responses`; spawned tasks send the others.
    pub(super) fn serve(
        &self,
        incoming: &mut Vec<Incoming>,
        responses: &mut Vec<(u64, HandlerResult)>,
    ) {
        for request in incoming.drain(..) {
            let mux_id = request.mux_id;
            match self.registry.find(&request) {
                Ok(registered) => {
                    if let Some(response) = self.run(registered, request) {
                        responses.push((mux_id, response));
                    }
                }
                Err(reason) => self.shared.refuse(self.epoch, mux_id, &reason),
            }
        }
    }

    fn run(&self, registered: Arc<RegisteredHandler>, request: Incoming) -> Option<HandlerResult> {
        let mux_id = request.mux_id;
        let name = || Arc::clone(&registered.name);
        let mut recorder = CallRecorder::start(&self.tracer, &self.shared, CallSide::Callee, name);
        recorder.add_bytes_in(request.payload.len());
        let execution = registered.route.execution;
        let Some(invocation) = self.prepare(registered, request, &recorder) else {
            recorder.finish(|| TraceOutcome::Cancelled);
            return None;
        };
        let future = match execution {
            Execution::Inline => match poll_inline(invocation) {
                PolledOnce::Pending(future) => future,
                PolledOnce::Ready(response) => {
                    record_response(&mut recorder, &response);
                    return Some(response);
                }
            },
            // The handler's function is called by the new task too.
            Execution::Spawned => Box::pin(async move { invocation.start().await }),
        };
        tokio::spawn(SpawnedHandler {
            future: Some(future),
            recorder,
            epoch: self.epoch,
            mux_id,
            key: None,
            _task_count: HandlerTask::new(&self.shared),
            shared: SharedRef::clone(&self.shared),
        });
        None
    }

    /// Prepares a handler's arguments, and accepts the call if it is a stream. Returns `None` if
    /// the caller has cancelled the stream already.
    fn prepare(
        &self,
        registered: Arc<RegisteredHandler>,
        request: Incoming,
        recorder: &CallRecorder,
    ) -> Option<Invocation> {
        let Incoming { mux_id, kind, payload, deadline, .. } = request;
        let context = RequestContext {
            registered: Arc::clone(&registered),
            shared: SharedRef::clone(&self.shared),
            epoch: self.epoch,
            mux_id,
            deadline,
        };
        let has_payload = match kind {
            CallKind::Request => {
                let payload = Some(payload);
                return Some(Invocation { registered, context, payload, endpoint: None });
            }
            CallKind::Stream { has_payload } => has_payload,
        };
        let capacities = registered.route.capacities;
        let handle = Shared::accept(&self.shared, self.epoch, mux_id, capacities)?;
        let endpoint = Some(Arc::new(StreamEndpoint::new(handle, recorder.clone(), None)));
        let payload = has_payload.then_some(payload);
        Some(Invocation { registered, context, payload, endpoint })
    }
}

/// A handler with the arguments of one call.
struct Invocation {
    registered: Arc<RegisteredHandler>,
    context: RequestContext,
    payload: Option<Bytes>,
    /// The handler's end of a stream; `None` for a request.
    endpoint: Option<Arc<StreamEndpoint>>,
}

impl Invocation {
    /// Calls the handler's function, which is user code.
    fn start(self) -> HandlerFuture {
        let Self { registered, context, payload, endpoint } = self;
        match (&registered.function, endpoint) {
            (RegisteredFn::Streams(handler), Some(endpoint)) => {
                let input = StreamReceiver::new(Arc::clone(&endpoint));
                let output = StreamOutput::new(endpoint);
                let served = handler(context, payload, input, output);
                Box::pin(async move { served.await.map(|()| Bytes::new()) })
            }
            (RegisteredFn::Requests(handler), None) => {
                handler.serve(context, payload.unwrap_or_default())
            }
            (RegisteredFn::Streams(_), None) | (RegisteredFn::Requests(_), Some(_)) => {
                crate::bug!("handler {} was invoked with the wrong kind of call", registered.name);
                Box::pin(std::future::ready(Err("internal error".into())))
            }
        }
    }
}

/// Result of polling a handler once.
enum PolledOnce {
    Ready(HandlerResult),
    /// The handler needs a task of its own.
    Pending(HandlerFuture),
}

/// Starts a handler and polls it once.
fn poll_inline(invocation: Invocation) -> PolledOnce {
    let mut future = match catch_panic(|| invocation.start()) {
        Ok(future) => future,
        Err(panicked) => return PolledOnce::Ready(Err(panicked)),
    };
    // Not the connection's waker: the future may move to another task, and must not wake this one.
    let mut cx = Context::from_waker(Waker::noop());
    match poll_catching_panic(&mut future, &mut cx) {
        Poll::Pending => PolledOnce::Pending(future),
        Poll::Ready(response) => {
            drop_catching_panic(Some(future));
            PolledOnce::Ready(response)
        }
    }
}

/// Runs user code and converts its panic to an error of the call (B13).
fn catch_panic<R>(run: impl FnOnce() -> R) -> Result<R, HandlerError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| HandlerError::from(format!("the handler panicked: {}", panic_text(panic))))
}

/// Returns the message of a panic.
pub(super) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned();
    // The payload's drop is user code too, and may panic.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    text
}

fn poll_catching_panic(future: &mut HandlerFuture, cx: &mut Context<'_>) -> Poll<HandlerResult> {
    match catch_panic(|| future.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(response),
        Err(panicked) => Poll::Ready(Err(panicked)),
    }
}

/// Drops a handler's future, which is user code and may panic.
fn drop_catching_panic(future: Option<HandlerFuture>) {
    if let Err(error) = catch_panic(|| drop(future)) {
        tracing::warn!(target: "grid", %error, "handler drop panicked");
    }
}

/// A handler with a task of its own.
///
/// ```text
///             ready: respond
///   Running ───────────────────► Done
///      └── call ended ─────────► Done: the future is dropped, which cancels it (B11)
/// ```
struct SpawnedHandler {
    future: Option<HandlerFuture>,
    recorder: CallRecorder,
    shared: SharedRef,
    epoch: Epoch,
    mux_id: u64,
    /// Registration of the waker for the end of the call, once polled.
    key: Option<usize>,
    _task_count: HandlerTask,
}

impl Future for SpawnedHandler {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let cancelled =
            this.shared.poll_cancelled(this.epoch, this.mux_id, &mut this.key, cx.waker());
        if cancelled.is_ready() {
            drop_catching_panic(this.future.take());
            this.recorder.finish(|| TraceOutcome::Cancelled);
            return Poll::Ready(());
        }
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        let Poll::Ready(response) = poll_catching_panic(future, cx) else {
            return Poll::Pending;
        };
        drop_catching_panic(this.future.take());
        record_response(&mut this.recorder, &response);
        this.shared.respond(this.epoch, &[(this.mux_id, response)]);
        Poll::Ready(())
    }
}

/// Finishes the record of a call that its handler responded to.
fn record_response(recorder: &mut CallRecorder, response: &HandlerResult) {
    recorder.add_bytes_out(response.as_ref().map_or(0, Bytes::len));
    recorder.finish(|| match response {
        Ok(_) => TraceOutcome::Ok,
        Err(error) => TraceOutcome::HandlerFailed(error.message().into()),
    });
}
