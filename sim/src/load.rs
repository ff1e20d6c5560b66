//! What the nodes of a run ask of each other, and how both ends of a call tell what they saw.
//!
//! Both ends look a call up in the plan by the number that its payload carries, so that the handler
//! does what the plan says, and each message says which one it should be: an answer that reached
//! another call, a message that is missing or came twice or was damaged is seen.

use std::sync::{Arc, Mutex, PoisonError};

use grid::error::HandlerError;
use grid::{CallError, HandlerId, Manager, RegisterError, Route, Start};

use crate::event::{CallId, CallKind, EventKind, HandlerEnd, Outcome};
use crate::plan::{CAPACITIES, Load};
use crate::recorder::NodeRecorder;
use crate::world::{Host, url};

pub mod body;
mod iam;
mod lock;
mod request;
mod stream;

/// All calls of a run, by their number. Cheap to clone; grows while a scenario asks for more.
#[derive(Debug, Clone, Default)]
pub struct LoadTable(Arc<Mutex<Vec<Load>>>);

impl LoadTable {
    /// Adds a call.
    pub(crate) fn add(&self, load: Load) -> CallId {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.push(load);
        CallId::try_from(table.len() - 1).unwrap_or(CallId::MAX)
    }

    /// The call with this number.
    pub fn get(&self, call: CallId) -> Option<Load> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(call as usize).cloned()
    }
}

/// Serves requests in place.
const IN_PLACE: HandlerId = HandlerId::new(200);
/// Serves requests in tasks of their own.
const SPAWNED: HandlerId = HandlerId::new(201);
/// Serves nothing.
const UNKNOWN: HandlerId = HandlerId::new(202);
/// Serves streams, the first of as many as there are [`CAPACITIES`].
const STREAMS: u8 = 210;

const fn stream_handler(capacities: u8) -> HandlerId {
    HandlerId::new(STREAMS + capacities)
}

/// Registers what serves the load.
pub(crate) fn register(
    manager: &Manager,
    table: &LoadTable,
    recorder: &NodeRecorder,
) -> Result<(), RegisterError> {
    for (id, start) in [(IN_PLACE, Start::InPlace), (SPAWNED, Start::Spawned)] {
        let (table, recorder) = (table.clone(), recorder.clone());
        let route = Route::new(id).start(start);
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

/// Does what the plan says for one call, from beginning to end.
pub(crate) async fn perform(call: CallId, load: Load, host: Host) {
    host.gate.pass().await;
    let load = match load {
        Load::Lock(plan) => return lock::make(call, plan, host).await,
        Load::Force(plan) => return lock::force(call, plan, host).await,
        Load::Change(plan) => return iam::change(call, plan, host).await,
        load @ (Load::Request(_) | Load::Stream(_)) => load,
    };
    let (_, to) = load.ends();
    let (connection, recorder) = (host.manager.connection(&url(to)), host.recorder.clone());
    // A call that waits must not keep its manager.
    drop(host);
    match (load, connection) {
        (Load::Request(plan), Some(to)) => request::make(call, plan, to, recorder).await,
        (Load::Stream(plan), Some(to)) => stream::make(call, plan, to, recorder).await,
        // The plan was checked: whom it asks is a node of the cluster.
        (Load::Lock(_) | Load::Force(_) | Load::Change(_), _) | (_, None) => {}
    }
}

/// A call that somebody waits for. Writes down that it began, and how it ended.
#[derive(Debug)]
struct Open {
    call: CallId,
    recorder: NodeRecorder,
}

impl Open {
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

/// A handler that runs. Writes down that it began, and that it was dropped if it did not end.
#[derive(Debug)]
struct Serving {
    call: CallId,
    recorder: NodeRecorder,
    has_ended: bool,
}

impl Serving {
    fn begin(call: CallId, context: &grid::RequestContext, recorder: &NodeRecorder) -> Self {
        let from = crate::world::node_of(context.caller());
        recorder.record(EventKind::HandlerStarted { call, from });
        Self { call, recorder: recorder.clone(), has_ended: false }
    }

    fn end(mut self, how: HandlerEnd) {
        self.has_ended = true;
        self.recorder.record(EventKind::HandlerEnded { call: self.call, how });
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.has_ended {
            let how = HandlerEnd::Cancelled;
            self.recorder.record(EventKind::HandlerEnded { call: self.call, how });
        }
    }
}

/// A handler was given something that its caller did not send.
fn wrong_input(call: CallId, text: String, recorder: &NodeRecorder) -> HandlerError {
    recorder.record(EventKind::WrongInput { call, text: text.clone() });
    text.into()
}

/// What an error means for the one who made a call.
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

/// A panic that is part of the plan: it unwinds without the hook that reports the others.
fn planned_panic() -> ! {
    std::panic::resume_unwind(Box::new(PLANNED_PANIC))
}

/// What handlers say that panic as planned.
pub const PLANNED_PANIC: &str = "planned";

/// What handlers say that fail as planned.
pub const PLANNED_ERROR: &str = "planned error";

/// Sleeps, if there is anything to sleep.
async fn pause(ms: u32) {
    if ms > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(ms))).await;
    }
}
