//! Runs handlers: once in place, then as a task of its own, and never lets one harm another.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::error::HandlerError;
use crate::handler::{HandlerFuture, Registered, Registry, RequestContext, Serves, Execution};
use crate::proto::connection::{Answer, Asked, Incoming};
use crate::shared::{Epoch, HandlerTask, Shared, SharedRef};
use crate::stream::{End, StreamOutput, StreamReceiver, Traffic};
use crate::time::Instant;
use crate::trace::{CallTrace, CallSide, TraceOutcome, Tracer};

/// Runs the handlers of one connection.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) registry: Arc<Registry>,
    pub(super) tracer: Arc<Tracer>,
    pub(super) shared: SharedRef,
    pub(super) epoch: Epoch,
}

impl Dispatcher {
    /// Serves requests. Answers that are ready at once are added to `answers`; the others will be
    /// given by tasks.
    pub(super) fn serve(&self, incoming: &mut Vec<Incoming>, answers: &mut Vec<(u64, Answer)>) {
        for request in incoming.drain(..) {
            let mux_id = request.mux_id;
            match self.registry.find(&request) {
                Ok(registered) => {
                    if let Some(answer) = self.run(registered, request) {
                        answers.push((mux_id, answer));
                    }
                }
                Err(reason) => self.shared.refuse(self.epoch, mux_id, &reason),
            }
        }
    }

    fn run(&self, registered: Arc<Registered>, request: Incoming) -> Option<Answer> {
        let mux_id = request.mux_id;
        let mut trace = self.tracer.is_active().then(|| {
            Box::new(Trace {
                tracer: Arc::clone(&self.tracer),
                name: Arc::clone(&registered.name),
                start: self.shared.now(),
                bytes_in: request.payload.len(),
                traffic: None,
            })
        });
        let execution = registered.route.execution;
        let Some(call) = self.prepare(registered, request, &mut trace) else {
            if let Some(trace) = trace {
                trace.emit(&self.shared, (TraceOutcome::Cancelled, 0));
            }
            return None;
        };
        let future = match execution {
            Execution::Inline => match serve_in_place(call) {
                Served::Pending(future) => future,
                Served::Ready(answer) => return Some(self.ready(trace, answer)),
            },
            // Even the call of its function is the new task's business.
            Execution::Spawned => Box::pin(async move { call.start().await }),
        };
        tokio::spawn(Running {
            future: Some(future),
            trace,
            epoch: self.epoch,
            mux_id,
            key: None,
            _counted: HandlerTask::counted(&self.shared),
            shared: SharedRef::clone(&self.shared),
        });
        None
    }

    /// Puts together what a handler gets; a stream is accepted. `None` if its caller has given it up
    /// already.
    fn prepare(
        &self,
        registered: Arc<Registered>,
        request: Incoming,
        trace: &mut Option<Box<Trace>>,
    ) -> Option<Call> {
        let Incoming { mux_id, asked, payload, deadline, .. } = request;
        let context = RequestContext {
            registered: Arc::clone(&registered),
            shared: SharedRef::clone(&self.shared),
            epoch: self.epoch,
            mux_id,
            deadline,
        };
        let has_payload = match asked {
            Asked::Request => {
                return Some(Call { registered, context, payload: Some(payload), end: None });
            }
            Asked::Stream { has_payload } => has_payload,
        };
        let capacities = registered.route.capacities;
        let handle = Shared::accept(&self.shared, self.epoch, mux_id, capacities)?;
        let traffic = trace.as_mut().map(|trace| Arc::clone(trace.traffic.get_or_insert_default()));
        let end = Some(Arc::new(End::of_handler(handle, traffic)));
        Some(Call { registered, context, payload: has_payload.then_some(payload), end })
    }

    fn ready(&self, trace: Option<Box<Trace>>, answer: Answer) -> Answer {
        if let Some(trace) = trace {
            trace.emit(&self.shared, outcome_of(&answer));
        }
        answer
    }
}

/// A call that is ready to be served.
struct Call {
    registered: Arc<Registered>,
    context: RequestContext,
    payload: Option<Bytes>,
    /// This end of it, if it is a stream.
    end: Option<Arc<End>>,
}

impl Call {
    /// Calls the handler's function: user code.
    fn start(self) -> HandlerFuture {
        let Self { registered, context, payload, end } = self;
        match (&registered.serves, end) {
            (Serves::Streams(handler), Some(end)) => {
                let input = StreamReceiver::new(Arc::clone(&end));
                let output = StreamOutput::new(end);
                let running = handler(context, payload, input, output);
                Box::pin(async move { running.await.map(|()| Bytes::new()) })
            }
            (Serves::Requests(handler), None) => {
                handler.serve(context, payload.unwrap_or_default())
            }
            (Serves::Streams(_), None) | (Serves::Requests(_), Some(_)) => {
                crate::bug!("handler {} was given the other kind of call", registered.name);
                Box::pin(std::future::ready(Err("internal error".into())))
            }
        }
    }
}

/// How far a handler got in place.
enum Served {
    Ready(Answer),
    /// It needs a task of its own.
    Pending(HandlerFuture),
}

/// Polls a handler once.
fn serve_in_place(call: Call) -> Served {
    let mut future = match contained(|| call.start()) {
        Ok(future) => future,
        Err(panicked) => return Served::Ready(Err(panicked)),
    };
    // Not the connection's waker: what moves to another task must not wake this one.
    let mut cx = Context::from_waker(Waker::noop());
    match poll_contained(&mut future, &mut cx) {
        Poll::Pending => Served::Pending(future),
        Poll::Ready(answer) => {
            drop_contained(Some(future));
            Served::Ready(answer)
        }
    }
}

/// Runs user code; a panic of it becomes an error of its call (B13).
fn contained<R>(run: impl FnOnce() -> R) -> Result<R, HandlerError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| HandlerError::from(format!("the handler panicked: {}", panic_text(panic))))
}

/// What a panic said.
pub(super) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned();
    // What was thrown is user code too, and may panic when it is dropped.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    text
}

fn poll_contained(future: &mut HandlerFuture, cx: &mut Context<'_>) -> Poll<Answer> {
    match contained(|| future.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(answer)) => Poll::Ready(answer),
        Err(panicked) => Poll::Ready(Err(panicked)),
    }
}

/// Drops a handler's future: user code, which may panic.
fn drop_contained(future: Option<HandlerFuture>) {
    if let Err(error) = contained(|| drop(future)) {
        tracing::warn!(target: "grid", %error, "while a handler was dropped");
    }
}

/// A handler with a task of its own.
///
/// ```text
///             ready: answer it
///   Running ─────────────────────► over
///      └── not wanted any more ──► over: the future is dropped, which is its cancellation (B11)
/// ```
struct Running {
    future: Option<HandlerFuture>,
    trace: Option<Box<Trace>>,
    shared: SharedRef,
    epoch: Epoch,
    mux_id: u64,
    /// Under which it waits for the call to be given up.
    key: Option<usize>,
    _counted: HandlerTask,
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let unwanted =
            this.shared.poll_unwanted(this.epoch, this.mux_id, &mut this.key, cx.waker());
        if unwanted.is_ready() {
            drop_contained(this.future.take());
            if let Some(trace) = this.trace.take() {
                trace.emit(&this.shared, (TraceOutcome::Cancelled, 0));
            }
            return Poll::Ready(());
        }
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        let Poll::Ready(answer) = poll_contained(future, cx) else { return Poll::Pending };
        drop_contained(this.future.take());
        if let Some(trace) = this.trace.take() {
            trace.emit(&this.shared, outcome_of(&answer));
        }
        this.shared.answer(this.epoch, &[(this.mux_id, answer)]);
        Poll::Ready(())
    }
}

struct Trace {
    tracer: Arc<Tracer>,
    name: Arc<str>,
    start: Instant,
    bytes_in: usize,
    /// What went through it, if it is a stream.
    traffic: Option<Arc<Traffic>>,
}

impl Trace {
    fn emit(self, shared: &Shared, (outcome, bytes_out): (TraceOutcome, usize)) {
        let count = |which: fn(&Traffic) -> &AtomicUsize| {
            self.traffic.as_ref().map_or(0, |traffic| which(traffic).load(Ordering::Relaxed))
        };
        self.tracer.emit(&CallTrace {
            name: self.name,
            local: shared.local().clone(),
            remote: shared.remote().clone(),
            side: CallSide::Callee,
            start: self.start,
            duration: shared.now().since(self.start),
            bytes_out: bytes_out + count(|traffic| &traffic.bytes_out),
            bytes_in: self.bytes_in + count(|traffic| &traffic.bytes_in),
            outcome,
        });
    }
}

fn outcome_of(answer: &Result<Bytes, HandlerError>) -> (TraceOutcome, usize) {
    match answer {
        Ok(payload) => (TraceOutcome::Ok, payload.len()),
        Err(error) => (TraceOutcome::HandlerFailed(error.message().into()), 0),
    }
}
