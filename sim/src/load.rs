//! The workload of a run: the operations of the nodes, and the events that both ends of a call
//! record.
//!
//! Both ends look a call up in the plan by the number in its payload, so the handler does what the
//! plan says. Each message states its own number: a response to another call and a missing,
//! duplicate or damaged message are detected.

use std::sync::Arc;

use grid::error::HandlerError;
use grid::sync::Mutex;
use grid::{CallError, Execution, HandlerId, Manager, RegisterError, Route};

use crate::event::{CallId, CallKind, EventKind, HandlerEnd, Outcome};
use crate::host::Host;
use crate::node::{node_of, url};
use crate::plan::{CAPACITIES, Load};
use crate::recorder::NodeRecorder;

pub mod body;
mod iam;
mod lock;
mod request;
mod stream;

/// All operations of a run, by their number. Cheap to clone; grows while a scenario submits more.
#[derive(Debug, Clone, Default)]
pub struct LoadTable(Arc<Mutex<Vec<Load>>>);

impl LoadTable {
    /// Adds an operation, and returns its number.
    pub(crate) fn add(&self, load: Load) -> CallId {
        let mut table = self.0.lock();
        table.push(load);
        CallId::try_from(table.len() - 1).unwrap_or(CallId::MAX)
    }

    /// Returns the operation with this number.
    pub fn get(&self, call: CallId) -> Option<Load> {
        self.0.lock().get(call as usize).cloned()
    }
}

/// Handler that returns without being spawned.
const IN_PLACE: HandlerId = HandlerId::new(200);
/// Handler that is spawned as a task.
const SPAWNED: HandlerId = HandlerId::new(201);
/// Handler that is not registered.
const UNKNOWN: HandlerId = HandlerId::new(202);
/// First of the stream handlers, one for each of [`CAPACITIES`].
const STREAMS: u8 = 210;

const fn stream_handler(capacities: u8) -> HandlerId {
    HandlerId::new(STREAMS + capacities)
}

/// Registers the handlers of the load.
pub(crate) fn register(
    manager: &Manager,
    table: &LoadTable,
    recorder: &NodeRecorder,
) -> Result<(), RegisterError> {
    for (id, execution) in [(IN_PLACE, Execution::Inline), (SPAWNED, Execution::Spawned)] {
        let (table, recorder) = (table.clone(), recorder.clone());
        let route = Route::new(id).execution(execution);
        manager.register(route, move |context, payload| {
            request::serve(table.clone(), recorder.clone(), context, payload)
        })?;
    }
    for (index, (input, output)) in (0u8..).zip(CAPACITIES) {
        let (table, recorder) = (table.clone(), recorder.clone());
        let route = Route::new(stream_handler(index)).input_capacity(input).output_capacity(output);
        manager.register_stream(route, move |context, payload, input, output| {
            stream::serve(table.clone(), recorder.clone(), context, payload, (input, output))
        })?;
    }
    Ok(())
}

/// Performs one operation as the plan says, from start to end.
pub(crate) async fn perform(call: CallId, load: Load, host: Host) {
    host.gate.pass().await;
    let load = match load {
        Load::Lock(plan) => return lock::perform(call, plan, host).await,
        Load::Force(plan) => return lock::force(call, plan, host).await,
        Load::Change(plan) => return iam::change(call, plan, host).await,
        load @ (Load::Request(_) | Load::Stream(_)) => load,
    };
    let (_, to) = load.ends();
    let (connection, recorder) = (host.manager.connection(&url(to)), host.recorder.clone());
    // An outstanding call must not keep its manager alive.
    drop(host);
    match (load, connection) {
        (Load::Request(plan), Some(to)) => request::perform(call, plan, to, recorder).await,
        (Load::Stream(plan), Some(to)) => stream::perform(call, plan, to, recorder).await,
        // The plan was checked: the callee is a node of the cluster.
        (Load::Lock(_) | Load::Force(_) | Load::Change(_), _) | (_, None) => {}
    }
}

/// Records the start and the end of a call at its caller.
#[derive(Debug)]
struct CallRecord {
    call: CallId,
    recorder: NodeRecorder,
}

impl CallRecord {
    fn begin(call: CallId, kind: CallKind, load: &Load, recorder: &NodeRecorder) -> Self {
        let timeout_ms = match load {
            Load::Request(plan) => plan.timeout_ms,
            Load::Stream(plan) => plan.timeout_ms,
            Load::Lock(plan) => Some(plan.timeout_ms),
            Load::Force(_) | Load::Change(_) => None,
        };
        let (_, to) = load.ends();
        recorder.record(EventKind::CallMade { call, to, kind, timeout_ms });
        Self { call, recorder: recorder.clone() }
    }

    fn end(self, outcome: Outcome) {
        self.recorder.record(EventKind::CallEnded { call: self.call, outcome });
    }
}

/// Records the start and the end of a handler; dropped without an end, it records a cancellation.
#[derive(Debug)]
struct HandlerRecord {
    call: CallId,
    recorder: NodeRecorder,
    has_ended: bool,
}

impl HandlerRecord {
    fn begin(call: CallId, context: &grid::RequestContext, recorder: &NodeRecorder) -> Self {
        let from = node_of(context.caller());
        recorder.record(EventKind::HandlerStarted { call, from });
        Self { call, recorder: recorder.clone(), has_ended: false }
    }

    fn end(mut self, how: HandlerEnd) {
        self.has_ended = true;
        self.recorder.record(EventKind::HandlerEnded { call: self.call, how });
    }
}

impl Drop for HandlerRecord {
    fn drop(&mut self) {
        if !self.has_ended {
            let how = HandlerEnd::Cancelled;
            self.recorder.record(EventKind::HandlerEnded { call: self.call, how });
        }
    }
}

/// Records input that the caller did not send, and returns the handler's error.
fn wrong_input(call: CallId, text: String, recorder: &NodeRecorder) -> HandlerError {
    recorder.record(EventKind::WrongInput { call, text: text.clone() });
    text.into()
}

/// Returns the outcome of a call that failed with `error`.
fn outcome_of(error: CallError) -> Outcome {
    match error {
        CallError::NotConnected { .. } => Outcome::NotConnected,
        CallError::Disconnected { .. } => Outcome::Disconnected,
        CallError::DeadlineExceeded { .. } => Outcome::Deadline,
        CallError::Remote { message, .. } => Outcome::RemoteError { text: message.to_string() },
        CallError::UnknownHandler { .. } => Outcome::UnknownHandler,
        CallError::Refused { message, .. } => Outcome::Refused { text: message.to_string() },
        error => Outcome::NotMade { text: error.to_string() },
    }
}

/// Panics as planned: it unwinds without the hook that reports other panics.
fn planned_panic() -> ! {
    std::panic::resume_unwind(Box::new(PLANNED_PANIC))
}

/// Message of planned panics.
pub const PLANNED_PANIC: &str = "planned";

/// Message of planned errors.
pub const PLANNED_ERROR: &str = "planned error";

/// Sleeps for `ms`; returns at once if that is 0.
async fn sleep_ms(ms: u32) {
    if ms > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(ms))).await;
    }
}
