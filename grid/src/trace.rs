//! Traces of calls: caller, callee, handler, duration and outcome of each ([B42]).
//!
//! Without a subscriber a call costs one atomic load. [`log_calls`] is a ready-made subscriber that
//! emits each call as an event of the `tracing` crate, with the field names of OpenTelemetry's
//! conventions for remote procedure calls.
//!
//! [B42]: crate::rules#b42

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{CallError, StreamError};
use crate::name::Name;
use crate::shared::SharedRef;
use crate::sync::RwLock;
use crate::time::Instant;

/// A call that has ended. A stream counts as one call, with all of its messages.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallTrace {
    /// The handler's name with its subroute, or its number where it has no name here.
    pub name: Arc<str>,
    /// This server.
    pub local: Name,
    /// The server at the other end.
    pub remote: Name,
    /// Side of the call that this server is.
    pub side: CallSide,
    /// Start of the call, by the manager's clock.
    pub start: Instant,
    /// Time from start to end.
    pub duration: Duration,
    /// Payload bytes sent by this server.
    pub bytes_out: usize,
    /// Payload bytes received by this server.
    pub bytes_in: usize,
    /// Outcome of the call.
    pub outcome: TraceOutcome,
}

/// Side of a call that a trace was recorded on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSide {
    /// This server made the call.
    Caller,
    /// This server served the call.
    Callee,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceOutcome {
    /// With a response.
    Ok,
    /// The caller's call failed.
    Failed(CallError),
    /// The caller's stream failed.
    StreamFailed(StreamError),
    /// The callee's handler failed with this text.
    HandlerFailed(Arc<str>),
    /// The call was cancelled, recorded on either side.
    Cancelled,
}

impl fmt::Display for TraceOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Failed(error) => error.fmt(f),
            Self::StreamFailed(error) => error.fmt(f),
            Self::HandlerFailed(message) => f.write_str(message),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// A callback for every call of a manager. Runs on the call's task: it must return quickly.
pub type Subscriber = Arc<dyn Fn(&CallTrace) + Send + Sync>;

/// The subscribers of one manager.
#[derive(Default)]
pub(crate) struct Tracer {
    is_active: AtomicBool,
    subscribers: RwLock<Vec<Subscriber>>,
}

impl Tracer {
    /// Returns whether there is a subscriber: the one atomic load.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    pub(crate) fn subscribe(&self, subscriber: Subscriber) {
        let mut subscribers = self.subscribers.write();
        subscribers.push(subscriber);
        self.is_active.store(true, Ordering::Relaxed);
    }

    pub(crate) fn unsubscribe(&self, subscriber: &Subscriber) {
        let mut subscribers = self.subscribers.write();
        subscribers.retain(|other| !Arc::ptr_eq(other, subscriber));
        self.is_active.store(!subscribers.is_empty(), Ordering::Relaxed);
    }

    fn emit(&self, trace: &CallTrace) {
        // Cloned, so that no lock is held while a subscriber runs.
        let subscribers = self.subscribers.read().clone();
        for subscriber in subscribers {
            let run = std::panic::AssertUnwindSafe(|| subscriber(trace));
            if let Err(panic) = std::panic::catch_unwind(run) {
                // Leaked: the panic payload may itself panic when it is dropped.
                std::mem::forget(panic);
                // Caught: a subscriber's panic must not end the connection's task.
                tracing::warn!(target: "grid", call = %trace.name, "trace subscriber panicked");
            }
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("is_active", &self.is_active()).finish()
    }
}

/// Records one call from its start to its end: a request or a stream, at its caller or its callee.
/// Records nothing if there is no subscriber at the start.
///
/// Clones count the bytes of the same call. One of its owners finishes the record.
#[derive(Debug, Clone)]
pub(crate) struct CallRecorder(Option<Arc<CallRecord>>);

#[derive(Debug)]
struct CallRecord {
    tracer: Arc<Tracer>,
    shared: SharedRef,
    name: Arc<str>,
    side: CallSide,
    start: Instant,
    bytes_out: AtomicUsize,
    bytes_in: AtomicUsize,
}

impl CallRecorder {
    /// Starts the record of a call with the remote of `shared`.
    pub(crate) fn start(
        tracer: &Arc<Tracer>,
        shared: &SharedRef,
        side: CallSide,
        name: impl FnOnce() -> Arc<str>,
    ) -> Self {
        Self(tracer.is_active().then(|| {
            Arc::new(CallRecord {
                tracer: Arc::clone(tracer),
                shared: SharedRef::clone(shared),
                name: name(),
                side,
                start: shared.now(),
                bytes_out: AtomicUsize::new(0),
                bytes_in: AtomicUsize::new(0),
            })
        }))
    }

    /// Counts payload bytes that this server sent.
    pub(crate) fn add_bytes_out(&self, bytes: usize) {
        if let Some(record) = &self.0 {
            record.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts payload bytes that this server received.
    pub(crate) fn add_bytes_in(&self, bytes: usize) {
        if let Some(record) = &self.0 {
            record.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Emits the trace of the call. Does nothing when called again.
    pub(crate) fn finish(&mut self, outcome: impl FnOnce() -> TraceOutcome) {
        let Some(record) = self.0.take() else { return };
        record.tracer.emit(&CallTrace {
            name: Arc::clone(&record.name),
            local: record.shared.local().clone(),
            remote: record.shared.remote().clone(),
            side: record.side,
            start: record.start,
            duration: record.shared.now().since(record.start),
            bytes_out: record.bytes_out.load(Ordering::Relaxed),
            bytes_in: record.bytes_in.load(Ordering::Relaxed),
            outcome: outcome(),
        });
    }
}

/// Returns a subscriber that logs each call at debug level under the target `grid::call`.
pub fn log_calls() -> Subscriber {
    Arc::new(|trace: &CallTrace| {
        let (kind, client, server) = match trace.side {
            CallSide::Caller => ("client", &trace.local, &trace.remote),
            CallSide::Callee => ("server", &trace.remote, &trace.local),
        };
        tracing::debug!(
            target: "grid::call",
            side = ?trace.side,
            otel.kind = kind,
            rpc.system = "grid",
            rpc.method = %trace.name,
            server.address = %server,
            client.address = %client,
            duration_us = u64::try_from(trace.duration.as_micros()).unwrap_or(u64::MAX),
            bytes_out = trace.bytes_out,
            bytes_in = trace.bytes_in,
            outcome = %trace.outcome,
            "call"
        );
    })
}
