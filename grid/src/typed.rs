//! Handlers over serde types, encoded as msgpack with named fields ([B30], [P21]).
//!
//! A typed handler is declared once, as a constant, and used by caller and callee:
//!
//! ```
//! use grid::{Connection, HandlerId, Manager, SingleHandler};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct DiskInfoRequest {
//!     disk: String,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct DiskInfo {
//!     used: u64,
//!     total: u64,
//! }
//!
//! const DISK_INFO: SingleHandler<DiskInfoRequest, DiskInfo> =
//!     SingleHandler::new(HandlerId::new(130), "DiskInfo");
//!
//! fn serve(manager: &Manager) -> Result<(), grid::RegisterError> {
//!     DISK_INFO.register(manager, |_context, request| async move {
//!         match request.disk.as_str() {
//!             "/dev/sda" => Ok(DiskInfo { used: 1, total: 2 }),
//!             other => Err(format!("no such disk: {other}").into()),
//!         }
//!     })
//! }
//!
//! async fn call(connection: &Connection) -> Result<DiskInfo, grid::TypedCallError> {
//!     DISK_INFO.call(connection, &DiskInfoRequest { disk: "/dev/sda".into() }).await
//! }
//! ```
//!
//! [B30]: crate::rules#b30
//! [P21]: crate::protocol#p21

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::Connection;
use crate::error::{HandlerError, RegisterError, TypedCallError};
use crate::handler::RequestContext;
use crate::manager::Manager;
use crate::proto::subroute::Subroute;
use crate::route::{HandlerId, Route};
use crate::shared_bytes;

pub mod stream;

/// A handler of single requests with typed payloads.
pub struct SingleHandler<Request, Response> {
    id: HandlerId,
    name: &'static str,
    types: PhantomData<fn(Request) -> Response>,
}

impl<Request, Response> SingleHandler<Request, Response>
where
    Request: Serialize + DeserializeOwned + Send + 'static,
    Response: Serialize + DeserializeOwned + Send + 'static,
{
    /// Declares a handler. Its name is for traces and errors and is not sent.
    pub const fn new(id: HandlerId, name: &'static str) -> Self {
        Self { id, name, types: PhantomData }
    }

    /// Returns the handler's number.
    pub const fn id(&self) -> HandlerId {
        self.id
    }

    /// Returns the handler's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Registers `serve` as this handler's function.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Duplicate`] if the number is taken.
    pub fn register<F, Fut>(&self, manager: &Manager, serve: F) -> Result<(), RegisterError>
    where
        F: Fn(RequestContext, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, HandlerError>> + Send + 'static,
    {
        self.register_at(manager, Route::new(self.id), serve)
    }

    /// Registers `serve` with the subroute and execution of `route`. The route's number and name
    /// are replaced by this handler's.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Duplicate`] if the number is taken under that subroute.
    pub fn register_at<F, Fut>(
        &self,
        manager: &Manager,
        route: Route,
        serve: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn(RequestContext, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, HandlerError>> + Send + 'static,
    {
        let route = Route { id: self.id, ..route }.name(self.name);
        manager.register(route, move |context: RequestContext, payload: Bytes| {
            let decoded = decode::<Request>(&payload).map(|request| serve(context, request));
            async move {
                let served = decoded.map_err(|cause| {
                    let type_name = type_name::<Request>();
                    HandlerError::from(format!("cannot decode the request as {type_name}: {cause}"))
                })?;
                let response = served.await?;
                encode(&response).map_err(|cause| {
                    let type_name = type_name::<Response>();
                    HandlerError::from(format!("cannot encode the answer as {type_name}: {cause}"))
                })
            }
        })
    }

    /// Calls this handler on the remote of `connection`.
    ///
    /// # Errors
    ///
    /// [`TypedCallError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call on both servers.
    pub async fn call(
        &self,
        connection: &Connection,
        request: &Request,
    ) -> Result<Response, TypedCallError> {
        self.call_with(connection, request, CallOptions::default()).await
    }

    /// Calls this handler under a subroute or with a timeout.
    ///
    /// # Errors
    ///
    /// [`TypedCallError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call on both servers.
    pub async fn call_with(
        &self,
        connection: &Connection,
        request: &Request,
        options: CallOptions<'_>,
    ) -> Result<Response, TypedCallError> {
        let payload = encode(request).map_err(|cause| TypedCallError::Encode {
            type_name: type_name::<Request>(),
            cause: cause.into(),
        })?;
        let mut call = connection.request(self.id, payload).name(self.name);
        if let Some(timeout) = options.timeout {
            call = call.timeout(timeout);
        }
        if let Some(subroute) = options.subroute {
            call = call.subroute(subroute);
        }
        let response = call.await?;
        decode(&response).map_err(|cause| TypedCallError::Decode {
            type_name: type_name::<Response>(),
            cause: Arc::from(cause),
        })
    }
}

impl<Request, Response> fmt::Debug for SingleHandler<Request, Response> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleHandler").field("id", &self.id).field("name", &self.name).finish()
    }
}

/// Options of one call of a typed handler.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallOptions<'a> {
    pub(crate) timeout: Option<Duration>,
    pub(crate) subroute: Option<&'a Subroute>,
}

impl<'a> CallOptions<'a> {
    /// Sets the call's timeout; see [`Request::timeout`](crate::Request::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Calls the handler that is registered under this subroute.
    #[must_use]
    pub fn subroute(mut self, subroute: &'a Subroute) -> Self {
        self.subroute = Some(subroute);
        self
    }
}

/// Encodes a value as msgpack with named fields.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, String> {
    rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|error| error.to_string())
}

/// Decodes a value from msgpack; its byte fields share the payload's memory (B31).
pub(crate) fn decode<T: DeserializeOwned>(payload: &Bytes) -> Result<T, String> {
    shared_bytes::scope(payload, || rmp_serde::from_slice(payload))
        .map_err(|error| error.to_string())
}
