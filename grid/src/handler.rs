//! What serves a call: handlers, where they are registered, and what they are told.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU8;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::error::{HandlerError, RegisterError};
use crate::limits::{STREAM_CAPACITY, STREAM_CAPACITY_MAX};
use crate::name::Name;
use crate::proto::connection::{Asked, Capacities, Incoming, UNKNOWN_HANDLER};
use crate::proto::subroute::{Subroute, SubrouteId};
use crate::shared::{Epoch, SharedRef};
use crate::stream::{StreamOutput, StreamReceiver};
use crate::time::Instant;

/// A handler's number: 1 to 255, chosen by the application.
///
/// PROTOCOL.md lists those that existing clusters use; what this workspace adds starts at 128. An
/// incompatible change of a handler takes a new number (B34).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerId(NonZeroU8);

impl HandlerId {
    /// The handler with this number. Meant for constants, where a wrong number does not compile;
    /// [`HandlerId::try_from`] is for numbers that come from elsewhere.
    ///
    /// # Panics
    ///
    /// If the number is 0.
    pub const fn new(number: u8) -> Self {
        match NonZeroU8::new(number) {
            Some(number) => Self(number),
            None => const_zero(),
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

#[expect(clippy::panic, reason = "documented, and at compile time where it is meant to be used")]
const fn const_zero() -> HandlerId {
    panic!("handler ids are 1 to 255")
}

impl TryFrom<u8> for HandlerId {
    type Error = RegisterError;

    fn try_from(number: u8) -> Result<Self, RegisterError> {
        NonZeroU8::new(number).map(Self).ok_or(RegisterError::InvalidId)
    }
}

impl fmt::Debug for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The future of a running handler.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Bytes, HandlerError>> + Send>>;

/// Serves single requests.
///
/// Implemented by functions: `|context, payload| async move { Ok(payload) }`.
///
/// A handler whose caller gave up, whose deadline passed or whose connection ended is cancelled by
/// dropping its future at its next await (B11). One that panics fails its own call only (B13).
pub trait Handler: Send + Sync + 'static {
    /// Serves one request.
    fn serve(&self, context: RequestContext, payload: Bytes) -> HandlerFuture;
}

impl<F, Fut> Handler for F
where
    F: Fn(RequestContext, Bytes) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, HandlerError>> + Send + 'static,
{
    fn serve(&self, context: RequestContext, payload: Bytes) -> HandlerFuture {
        Box::pin(self(context, payload))
    }
}

/// Serves streams; see [`Manager::register_stream`](crate::Manager::register_stream).
pub(crate) type StreamServer = Box<
    dyn Fn(RequestContext, Option<Bytes>, StreamReceiver, StreamOutput) -> StreamFuture
        + Send
        + Sync,
>;

/// The future of a running handler of streams.
pub(crate) type StreamFuture = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

/// Where a handler begins to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Execution {
    /// Polled once by the connection's own task, and given a task of its own only if it is not
    /// ready then. Twice as fast for a handler that answers at once.
    #[default]
    Inline,
    /// Given a task of its own at once, for handlers that compute for long before their first
    /// await: in place they would hold up everything else on the connection. What blocks its thread
    /// belongs in [`tokio::task::spawn_blocking`] all the same.
    Spawned,
}

/// What a handler is registered as.
#[derive(Debug, Clone)]
pub struct Route {
    pub(crate) id: HandlerId,
    pub(crate) subroute: Option<Subroute>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) execution: Execution,
    pub(crate) capacities: Capacities,
}

impl Route {
    /// The handler with this number.
    pub const fn new(id: HandlerId) -> Self {
        let capacities = Capacities { input: STREAM_CAPACITY, output: STREAM_CAPACITY };
        Self { id, subroute: None, name: None, execution: Execution::Inline, capacities }
    }

    /// Under a subroute: it serves only calls that name it (B33).
    #[must_use]
    pub fn subroute(mut self, subroute: &Subroute) -> Self {
        self.subroute = Some(subroute.clone());
        self
    }

    /// A name for traces and errors. Without one the number is used.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where it begins to run.
    #[must_use]
    pub const fn execution(mut self, execution: Execution) -> Self {
        self.execution = execution;
        self
    }
}

impl Route {
    /// For streams: how many messages to the handler may be under way; 0 if it takes none (B26).
    /// Callers must be told the same. [`STREAM_CAPACITY`] unless told.
    #[must_use]
    pub const fn input_capacity(mut self, messages: u32) -> Self {
        self.capacities.input = messages;
        self
    }

    /// For streams: how many messages from the handler may be under way, at least 1. Callers must be
    /// told the same. [`STREAM_CAPACITY`] unless told.
    #[must_use]
    pub const fn output_capacity(mut self, messages: u32) -> Self {
        self.capacities.output = messages;
        self
    }
}

/// What a handler serves.
pub(crate) enum Serves {
    Requests(Box<dyn Handler>),
    Streams(StreamServer),
}

/// A handler and what it was registered as.
pub(crate) struct Registered {
    pub(crate) route: Route,
    pub(crate) name: Arc<str>,
    pub(crate) serves: Serves,
}

/// All handlers of a manager.
#[derive(Default)]
pub(crate) struct Registry(RwLock<Table>);

#[derive(Default)]
struct Table {
    plain: FxHashMap<u8, Arc<Registered>>,
    subrouted: FxHashMap<SubrouteId, Arc<Registered>>,
}

impl Registry {
    pub(crate) fn register(&self, route: Route, serves: Serves) -> Result<(), RegisterError> {
        let id = route.id.get();
        let name: Arc<str> = match (&route.name, &route.subroute) {
            (Some(name), None) => Arc::clone(name),
            (Some(name), Some(subroute)) => format!("{name}/{}", subroute.as_str()).into(),
            (None, None) => id.to_string().into(),
            (None, Some(subroute)) => format!("{id}/{}", subroute.as_str()).into(),
        };
        let key = route.subroute.as_ref().map(|subroute| subroute.id(id));
        let Capacities { input, output } = route.capacities;
        if input > STREAM_CAPACITY_MAX || !(1..=STREAM_CAPACITY_MAX).contains(&output) {
            let name = name.to_string();
            return Err(RegisterError::Capacity { name, max: STREAM_CAPACITY_MAX });
        }
        let registered = Arc::new(Registered { route, name, serves });
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_taken = match key {
            None => table.plain.contains_key(&id),
            Some(key) => table.subrouted.contains_key(&key),
        };
        if is_taken {
            return Err(RegisterError::Duplicate { name: registered.name.to_string() });
        }
        match key {
            None => table.plain.insert(id, registered),
            Some(key) => table.subrouted.insert(key, registered),
        };
        Ok(())
    }

    /// Who serves a request, or what its caller is told (B12, P13).
    pub(crate) fn find(&self, incoming: &Incoming) -> Result<Arc<Registered>, String> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let handler = incoming.handler;
        let (found, subroute) = match &incoming.subroute {
            None => (table.plain.get(&handler), String::new()),
            Some(id) => (table.subrouted.get(id), format!(" with subroute {id:?}")),
        };
        let hint = match (found.map(|found| &found.serves), incoming.asked) {
            (Some(Serves::Requests(_)), Asked::Stream { .. }) => ": it serves single requests",
            (Some(Serves::Streams(_)), Asked::Request) => ": it serves streams",
            (Some(_), _) | (None, _) => "",
        };
        found
            .filter(|_| hint.is_empty())
            .cloned()
            .ok_or_else(|| format!("{UNKNOWN_HANDLER}: {handler}{subroute}{hint}"))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> =
            table.plain.values().chain(table.subrouted.values()).map(|r| &r.name).collect();
        names.sort_unstable();
        f.debug_set().entries(names).finish()
    }
}

/// What a handler is told about the call that it serves. Cheap to clone.
#[derive(Clone)]
pub struct RequestContext {
    pub(crate) registered: Arc<Registered>,
    pub(crate) shared: SharedRef,
    pub(crate) epoch: Epoch,
    pub(crate) mux_id: u64,
    pub(crate) deadline: Option<Instant>,
}

impl RequestContext {
    /// The server that calls.
    pub fn caller(&self) -> &Name {
        self.shared.remote()
    }

    /// This server.
    pub fn local(&self) -> &Name {
        self.shared.local()
    }

    /// The handler's number.
    pub fn handler(&self) -> HandlerId {
        self.registered.route.id
    }

    /// The subroute that the handler was called under.
    pub fn subroute(&self) -> Option<&str> {
        self.registered.route.subroute.as_ref().map(Subroute::as_str)
    }

    /// When the caller stops waiting, by the manager's clock; `None` if it never does.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits; `None` if it waits for ever, zero if it has stopped.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(self.shared.now()))
    }

    /// Resolves when the answer is not wanted any more: the caller gave up, the deadline passed,
    /// the connection ended, or the answer was given.
    ///
    /// The handler itself need not watch it, because its future is dropped then. It is for tasks
    /// and threads that the handler started. Dropping it has no effect on the call.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled {
            shared: SharedRef::clone(&self.shared),
            epoch: self.epoch,
            mux_id: self.mux_id,
            key: None,
        }
    }

    /// Whether the answer is not wanted any more.
    pub fn is_cancelled(&self) -> bool {
        !self.shared.is_wanted(self.epoch, self.mux_id)
    }
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("caller", self.caller())
            .field("handler", &self.registered.name)
            .field("mux_id", &self.mux_id)
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// See [`RequestContext::cancelled`].
#[derive(Debug)]
pub struct Cancelled {
    shared: SharedRef,
    epoch: Epoch,
    mux_id: u64,
    key: Option<usize>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { shared, epoch, mux_id, key } = &mut *self;
        shared.poll_unwanted(*epoch, *mux_id, key, cx.waker())
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.stop_waiting(self.epoch, self.mux_id, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Serves {
        Serves::Requests(Box::new(|_: RequestContext, payload: Bytes| async move { Ok(payload) }))
    }

    fn incoming(handler: u8, subroute: Option<SubrouteId>) -> Incoming {
        Incoming {
            mux_id: 1,
            asked: Asked::Request,
            handler,
            subroute,
            payload: Bytes::new(),
            deadline: None,
        }
    }

    #[test]
    fn b33_subroutes_tell_handlers_of_one_id_apart_and_duplicates_are_refused() {
        let registry = Registry::default();
        let id = HandlerId::new(128);
        let (one, two) =
            (Subroute::new("drive-1").expect("valid"), Subroute::new("drive-2").expect("valid"));
        let route = || Route::new(id).name("Read");
        registry.register(route(), echo()).expect("first");
        registry.register(route().subroute(&one), echo()).expect("another subroute");
        registry.register(route().subroute(&two), echo()).expect("another subroute");
        let error = registry.register(route().subroute(&two), echo()).expect_err("twice");
        assert_eq!(error.to_string(), "handler Read/drive-2 is registered already");

        let name = |subroute: Option<SubrouteId>| {
            registry.find(&incoming(128, subroute)).map(|found| found.name.to_string())
        };
        assert_eq!(name(None).as_deref(), Ok("Read"));
        assert_eq!(name(Some(one.id(128))).as_deref(), Ok("Read/drive-1"));
        assert_eq!(name(Some(two.id(128))).as_deref(), Ok("Read/drive-2"));
    }

    #[test]
    fn b12_an_unknown_handler_is_named() {
        let registry = Registry::default();
        let error = registry.find(&incoming(7, None)).err().expect("nothing is registered");
        assert_eq!(error, "Invalid Handler for type: 7");
    }

    #[test]
    fn handler_ids_are_1_to_255() {
        assert_eq!(HandlerId::try_from(0), Err(RegisterError::InvalidId));
        assert_eq!(HandlerId::try_from(255).map(HandlerId::get), Ok(255));
    }
}
