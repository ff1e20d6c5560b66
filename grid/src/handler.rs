//! Handlers, the registry that a call is looked up in, and the context that a handler receives.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::error::{HandlerError, RegisterError};
use crate::limits::STREAM_CAPACITY_MAX;
use crate::name::Name;
use crate::proto::connection::{CallKind, Capacities, Incoming, UNKNOWN_HANDLER};
use crate::proto::subroute::{Subroute, SubrouteId};
use crate::route::{HandlerId, Route, call_name};
use crate::shared::{Epoch, SharedRef};
use crate::stream::{StreamOutput, StreamReceiver};
use crate::sync::RwLock;
use crate::time::Instant;

/// The future of a running handler.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Bytes, HandlerError>> + Send>>;

/// Serves single requests.
///
/// Implemented by functions: `|context, payload| async move { Ok(payload) }`.
///
/// If the caller cancels the call, its deadline passes or its connection ends, the handler is
/// cancelled: its future is dropped at its next await ([B11]). A panic fails only the call that it
/// happens in ([B13]).
///
/// [B11]: crate::rules#b11
/// [B13]: crate::rules#b13
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

/// A stream handler's function; see
/// [`Manager::register_stream`](crate::Manager::register_stream).
pub(crate) type StreamHandlerFn = Box<
    dyn Fn(RequestContext, Option<Bytes>, StreamReceiver, StreamOutput) -> StreamFuture
        + Send
        + Sync,
>;

/// The future of a running stream handler.
pub(crate) type StreamFuture = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

/// The function of a registered handler, by the kind of call that it serves.
pub(crate) enum RegisteredFn {
    Requests(Box<dyn Handler>),
    Streams(StreamHandlerFn),
}

/// A handler with the route that it is registered under.
pub(crate) struct RegisteredHandler {
    pub(crate) route: Route,
    /// Name for traces and errors, with the subroute.
    pub(crate) name: Arc<str>,
    pub(crate) function: RegisteredFn,
}

/// All handlers of a manager.
#[derive(Default)]
pub(crate) struct Registry(RwLock<HandlerTable>);

#[derive(Default)]
struct HandlerTable {
    by_id: FxHashMap<u8, Arc<RegisteredHandler>>,
    by_subroute: FxHashMap<SubrouteId, Arc<RegisteredHandler>>,
}

impl Registry {
    pub(crate) fn register(
        &self,
        route: Route,
        function: RegisteredFn,
    ) -> Result<(), RegisterError> {
        let id = route.id.get();
        let name = call_name(route.id, route.name.as_deref(), route.subroute.as_ref());
        let key = route.subroute.as_ref().map(|subroute| subroute.id(id));
        let Capacities { input, output } = route.capacities;
        if input > STREAM_CAPACITY_MAX || !(1..=STREAM_CAPACITY_MAX).contains(&output) {
            let name = name.to_string();
            return Err(RegisterError::Capacity { name, max: STREAM_CAPACITY_MAX });
        }
        let registered = Arc::new(RegisteredHandler { route, name, function });
        let mut table = self.0.write();
        let is_taken = match key {
            None => table.by_id.contains_key(&id),
            Some(key) => table.by_subroute.contains_key(&key),
        };
        if is_taken {
            return Err(RegisterError::Duplicate { name: registered.name.to_string() });
        }
        match key {
            None => table.by_id.insert(id, registered),
            Some(key) => table.by_subroute.insert(key, registered),
        };
        Ok(())
    }

    /// Looks up the handler of a call, or returns the error text for its caller (B12, P13).
    pub(crate) fn find(&self, incoming: &Incoming) -> Result<Arc<RegisteredHandler>, String> {
        let table = self.0.read();
        let handler = incoming.handler;
        let (found, subroute) = match &incoming.subroute {
            None => (table.by_id.get(&handler), String::new()),
            Some(id) => (table.by_subroute.get(id), format!(" with subroute {id:?}")),
        };
        let hint = match (found.map(|found| &found.function), incoming.kind) {
            (Some(RegisteredFn::Requests(_)), CallKind::Stream { .. }) => {
                ": it serves single requests"
            }
            (Some(RegisteredFn::Streams(_)), CallKind::Request) => ": it serves streams",
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
        let table = self.0.read();
        let mut names: Vec<_> =
            table.by_id.values().chain(table.by_subroute.values()).map(|r| &r.name).collect();
        names.sort_unstable();
        f.debug_set().entries(names).finish()
    }
}

/// Describes a call to its handler. Cheap to clone.
#[derive(Clone)]
pub struct RequestContext {
    pub(crate) registered: Arc<RegisteredHandler>,
    pub(crate) shared: SharedRef,
    pub(crate) epoch: Epoch,
    pub(crate) mux_id: u64,
    pub(crate) deadline: Option<Instant>,
}

impl RequestContext {
    /// Returns the name of the calling server.
    pub fn caller(&self) -> &Name {
        self.shared.remote()
    }

    /// Returns the name of this server.
    pub fn local(&self) -> &Name {
        self.shared.local()
    }

    /// Returns the handler's number.
    pub fn handler(&self) -> HandlerId {
        self.registered.route.id
    }

    /// Returns the subroute that the handler was called under.
    pub fn subroute(&self) -> Option<&str> {
        self.registered.route.subroute.as_ref().map(Subroute::as_str)
    }

    /// Returns the call's deadline by the manager's clock; `None` if it has none.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the time until the deadline; `None` if there is none, zero if it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(self.shared.now()))
    }

    /// Resolves when the call ends: the caller cancels it, the deadline passes, the connection
    /// ends, or the handler responds.
    ///
    /// The handler itself need not watch it, because its future is dropped then. It is for tasks
    /// and threads that the handler starts. Dropping it has no effect on the call.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled {
            shared: SharedRef::clone(&self.shared),
            epoch: self.epoch,
            mux_id: self.mux_id,
            key: None,
        }
    }

    /// Returns whether the call has ended, so that a response would be discarded.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        !self.shared.is_live(self.epoch, self.mux_id)
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

/// The future returned by [`RequestContext::cancelled`].
#[derive(Debug)]
pub struct Cancelled {
    shared: SharedRef,
    epoch: Epoch,
    mux_id: u64,
    /// Registration of the waker, once polled.
    key: Option<usize>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { shared, epoch, mux_id, key } = &mut *self;
        shared.poll_cancelled(*epoch, *mux_id, key, cx.waker())
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.deregister(self.epoch, self.mux_id, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> RegisteredFn {
        RegisteredFn::Requests(Box::new(
            |_: RequestContext, payload: Bytes| async move { Ok(payload) },
        ))
    }

    fn incoming(handler: u8, subroute: Option<SubrouteId>) -> Incoming {
        Incoming {
            mux_id: 1,
            kind: CallKind::Request,
            handler,
            subroute,
            payload: Bytes::new(),
            deadline: None,
        }
    }

    #[test]
    fn b33_subroutes_distinguish_handlers_of_one_id_and_duplicates_are_refused() {
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
    fn b12_the_error_for_an_unknown_handler_names_it() {
        let registry = Registry::default();
        let error = registry.find(&incoming(7, None)).err().expect("nothing is registered");
        assert_eq!(error, "Invalid Handler for type: 7");
    }
}
