//! Streams over serde types, declared once as a constant and used by caller and callee ([B30]).
//!
//! ```
//! use grid::{Connection, HandlerId, Manager, NoPayload, StreamHandler};
//!
//! /// Doubles each number.
//! const DOUBLE: StreamHandler<NoPayload, u64, u64> =
//!     StreamHandler::new(HandlerId::new(140), "Double");
//!
//! fn serve(manager: &Manager) -> Result<(), grid::RegisterError> {
//!     DOUBLE.register(manager, |_context, NoPayload, mut input, mut output| async move {
//!         while let Some(number) = input.next().await {
//!             output.send(&(number? * 2)).await?;
//!         }
//!         Ok(())
//!     })
//! }
//!
//! async fn call(connection: &Connection) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
//!     let (mut sender, mut receiver) = DOUBLE.call(connection, &NoPayload).await?.split();
//!     for number in [1, 2, 3] {
//!         sender.send(&number).await?;
//!     }
//!     sender.finish().await?;
//!     let mut doubled = Vec::new();
//!     while let Some(number) = receiver.next().await {
//!         doubled.push(number?);
//!     }
//!     Ok(doubled)
//! }
//! ```
//!
//! [`NoPayload`] is the type of the initial payload of a stream without one. [`NoInput`] is the
//! message type of a stream whose caller sends no messages: its sender has no `send` method.
//!
//! ```compile_fail,E0277
//! use grid::{HandlerId, NoInput, StreamHandler};
//!
//! const LIST: StreamHandler<String, NoInput, String> =
//!     StreamHandler::new(HandlerId::new(141), "List");
//!
//! # async fn example(connection: grid::Connection) {
//! let mut stream = LIST.call(&connection, &"a".to_owned()).await.unwrap();
//! stream.send(&NoInput).await.unwrap(); // no such method: the stream has no input
//! # }
//! ```
//!
//! [B30]: crate::rules#b30

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Sink;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CallOptions, decode, encode};
use crate::connection::Connection;
use crate::error::{HandlerError, RegisterError, StreamError, TypedSendError, TypedStreamError};
use crate::handler::RequestContext;
use crate::limits::STREAM_CAPACITY;
use crate::manager::Manager;
use crate::route::{HandlerId, Route};
use crate::stream::{Stream, StreamOutput, StreamReceiver, StreamSender};

/// The payload type of a stream without an initial payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoPayload;

/// The message type of a stream whose handler accepts no messages ([B26]).
///
/// [B26]: crate::rules#b26
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoInput {}

/// Initial payload of a stream: any serde type, or [`NoPayload`].
pub trait Payload: Sized + Send + 'static {
    /// Encodes the payload; `None` if there is none to send.
    ///
    /// # Errors
    ///
    /// The encoder's error.
    fn to_wire(&self) -> Result<Option<Bytes>, String>;

    /// Decodes the received payload.
    ///
    /// # Errors
    ///
    /// The decoder's error, or that a required payload is missing.
    fn from_wire(payload: Option<&Bytes>) -> Result<Self, String>;
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Payload for T {
    fn to_wire(&self) -> Result<Option<Bytes>, String> {
        encode(self).map(Some)
    }

    fn from_wire(payload: Option<&Bytes>) -> Result<Self, String> {
        decode(payload.ok_or("the stream has no payload")?)
    }
}

impl Payload for NoPayload {
    fn to_wire(&self) -> Result<Option<Bytes>, String> {
        Ok(None)
    }

    /// Ignores a payload.
    fn from_wire(_: Option<&Bytes>) -> Result<Self, String> {
        Ok(Self)
    }
}

/// Messages to a handler: any serde type, or [`NoInput`].
pub trait Input: Send + 'static {
    /// Whether the stream has messages to the handler.
    const EXISTS: bool;
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Input for T {
    const EXISTS: bool = true;
}

impl Input for NoInput {
    const EXISTS: bool = false;
}

/// A stream handler with typed messages.
pub struct StreamHandler<P, Request, Response> {
    id: HandlerId,
    name: &'static str,
    input_capacity: u32,
    output_capacity: u32,
    types: PhantomData<fn(P, Request) -> Response>,
}

impl<P, Request, Response> StreamHandler<P, Request, Response>
where
    P: Payload,
    Request: Input,
    Response: Serialize + DeserializeOwned + Send + 'static,
{
    /// Declares a handler. Its name is for traces and errors and is not sent.
    pub const fn new(id: HandlerId, name: &'static str) -> Self {
        Self {
            id,
            name,
            input_capacity: STREAM_CAPACITY,
            output_capacity: STREAM_CAPACITY,
            types: PhantomData,
        }
    }

    /// Sets how many messages to the handler may be in flight. No effect with [`NoInput`].
    #[must_use]
    pub const fn input_capacity(mut self, messages: u32) -> Self {
        self.input_capacity = messages;
        self
    }

    /// Sets how many messages from the handler may be in flight, at least 1.
    #[must_use]
    pub const fn output_capacity(mut self, messages: u32) -> Self {
        self.output_capacity = messages;
        self
    }

    /// Returns the handler's number.
    pub const fn id(&self) -> HandlerId {
        self.id
    }

    /// Returns the handler's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the capacity as sent and registered: 0 without input.
    const fn wire_input_capacity(&self) -> u32 {
        if Request::EXISTS { self.input_capacity } else { 0 }
    }

    /// Registers `serve` as this handler's function.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the number is taken, or a capacity is out of bounds.
    pub fn register<F, Fut>(&self, manager: &Manager, serve: F) -> Result<(), RegisterError>
    where
        F: Fn(RequestContext, P, TypedReceiver<Request>, TypedOutput<Response>) -> Fut
            + Send
            + Sync
            + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.register_at(manager, Route::new(self.id), serve)
    }

    /// Registers `serve` with the subroute and execution of `route`. The route's number, name and
    /// capacities are replaced by this handler's.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the number is taken under that subroute, or a capacity is out of
    /// bounds.
    pub fn register_at<F, Fut>(
        &self,
        manager: &Manager,
        route: Route,
        serve: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn(RequestContext, P, TypedReceiver<Request>, TypedOutput<Response>) -> Fut
            + Send
            + Sync
            + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let route = Route { id: self.id, ..route }
            .name(self.name)
            .input_capacity(self.wire_input_capacity())
            .output_capacity(self.output_capacity);
        let serve = move |context: RequestContext, payload: Option<Bytes>, input, output| {
            let served = P::from_wire(payload.as_ref())
                .map(|payload| {
                    serve(context, payload, TypedReceiver::new(input), TypedOutput::new(output))
                })
                .map_err(|cause| {
                    let type_name = type_name::<P>();
                    format!("cannot decode the payload as {type_name}: {cause}")
                });
            async move { served?.await }
        };
        manager.register_stream(route, serve)
    }

    /// Opens a stream to this handler on the remote of `connection`.
    ///
    /// # Errors
    ///
    /// [`TypedStreamError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the stream on both servers.
    pub async fn call(
        &self,
        connection: &Connection,
        payload: &P,
    ) -> Result<TypedStream<Request, Response>, TypedStreamError> {
        self.call_with(connection, payload, CallOptions::default()).await
    }

    /// Opens a stream to this handler under a subroute or with a timeout.
    ///
    /// # Errors
    ///
    /// [`TypedStreamError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the stream on both servers.
    pub async fn call_with(
        &self,
        connection: &Connection,
        payload: &P,
        options: CallOptions<'_>,
    ) -> Result<TypedStream<Request, Response>, TypedStreamError> {
        let payload = payload.to_wire().map_err(|cause| TypedStreamError::Encode {
            type_name: type_name::<P>(),
            cause: cause.into(),
        })?;
        let mut open = match payload {
            Some(payload) => connection.stream(self.id, payload),
            None => connection.stream(self.id, Bytes::new()).without_payload(),
        }
        .name(self.name)
        .input_capacity(self.wire_input_capacity())
        .output_capacity(self.output_capacity);
        if let Some(timeout) = options.timeout {
            open = open.timeout(timeout);
        }
        if let Some(subroute) = options.subroute {
            open = open.subroute(subroute);
        }
        Ok(TypedStream { stream: open.await?, types: PhantomData })
    }
}

impl<P, Request, Response> fmt::Debug for StreamHandler<P, Request, Response> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandler").field("id", &self.id).field("name", &self.name).finish()
    }
}

/// An open stream with typed messages; see [`Stream`].
pub struct TypedStream<Request, Response> {
    stream: Stream,
    types: PhantomData<fn(Request) -> Response>,
}

impl<Request, Response> TypedStream<Request, Response> {
    /// Splits the stream into its halves. Either may be dropped alone; dropping both cancels.
    pub fn split(self) -> (TypedSender<Request>, TypedReceiver<Response>) {
        let (sender, receiver) = self.stream.split();
        (TypedSender { sender, types: PhantomData }, TypedReceiver::new(receiver))
    }
}

impl<Request: Serialize, Response> TypedStream<Request, Response> {
    /// Sends a message; see [`StreamSender::send`].
    ///
    /// # Errors
    ///
    /// [`TypedSendError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the message, unless it was queued already.
    pub async fn send(&mut self, message: &Request) -> Result<(), TypedSendError> {
        let payload = encode_message(message)?;
        Ok(self.stream.send(payload).await?)
    }
}

impl<Request, Response> TypedStream<Request, Response> {
    /// Finishes sending; messages can still be received. See [`StreamSender::finish`].
    ///
    /// # Errors
    ///
    /// [`StreamError`] if the stream ended with an error. Earlier messages can still be received.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, once polled, does not undo the finish.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        self.stream.finish().await
    }
}

impl<Request, Response: DeserializeOwned> TypedStream<Request, Response> {
    /// Receives the next message; see [`StreamReceiver::next`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Result<Response, TypedStreamError>> {
        self.stream.next().await.map(decode_message)
    }
}

impl<Request, Response> fmt::Debug for TypedStream<Request, Response> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

/// Receives typed messages: a caller's half, or a handler's input. See [`StreamReceiver`].
pub struct TypedReceiver<T> {
    receiver: StreamReceiver,
    types: PhantomData<fn() -> T>,
}

impl<T> TypedReceiver<T> {
    fn new(receiver: StreamReceiver) -> Self {
        Self { receiver, types: PhantomData }
    }
}

impl<T: DeserializeOwned> TypedReceiver<T> {
    /// Receives the next message; see [`StreamReceiver::next`].
    ///
    /// # Errors
    ///
    /// [`TypedStreamError`]. After a message that failed to decode, the next can be received.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Result<T, TypedStreamError>> {
        self.receiver.next().await.map(decode_message)
    }
}

impl<T: DeserializeOwned> futures_util::Stream for TypedReceiver<T> {
    type Item = Result<T, TypedStreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.receiver.poll_message(cx)).map(decode_message))
    }
}

impl<T> fmt::Debug for TypedReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.receiver.fmt(f)
    }
}

/// Sends a caller's typed messages. See [`StreamSender`].
pub struct TypedSender<T> {
    sender: StreamSender,
    types: PhantomData<fn(T)>,
}

/// Sends a handler's typed messages. See [`StreamOutput`].
pub struct TypedOutput<T> {
    sender: StreamOutput,
    types: PhantomData<fn(T)>,
}

impl<T> TypedSender<T> {
    /// Finishes sending; see [`StreamSender::finish`].
    ///
    /// # Errors
    ///
    /// [`StreamError`] if the stream ended with an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, once polled, does not undo the finish.
    pub async fn finish(self) -> Result<(), StreamError> {
        self.sender.finish().await
    }
}

impl<T> TypedOutput<T> {
    fn new(sender: StreamOutput) -> Self {
        Self { sender, types: PhantomData }
    }
}

/// Implements sending for both halves.
macro_rules! impl_typed_send {
    ($half:ident) => {
        impl<T: Serialize> $half<T> {
            /// Sends a message. Resolves once it is queued.
            ///
            /// # Errors
            ///
            /// [`TypedSendError`].
            ///
            /// # Cancel safety
            ///
            /// Dropping the future withdraws the message, unless it was queued already.
            pub async fn send(&mut self, message: &T) -> Result<(), TypedSendError> {
                let payload = encode_message(message)?;
                Ok(self.sender.send(payload).await?)
            }
        }

        impl<T: Serialize> Sink<T> for $half<T> {
            type Error = TypedSendError;

            fn poll_ready(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Result<(), TypedSendError>> {
                Pin::new(&mut self.sender).poll_ready(cx).map_err(TypedSendError::Send)
            }

            fn start_send(mut self: Pin<&mut Self>, message: T) -> Result<(), TypedSendError> {
                let payload = encode_message(&message)?;
                Ok(Pin::new(&mut self.sender).start_send(payload)?)
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Result<(), TypedSendError>> {
                Pin::new(&mut self.sender).poll_flush(cx).map_err(TypedSendError::Send)
            }

            fn poll_close(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Result<(), TypedSendError>> {
                Pin::new(&mut self.sender).poll_close(cx).map_err(TypedSendError::Send)
            }
        }

        impl<T> fmt::Debug for $half<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.sender.fmt(f)
            }
        }
    };
}

impl_typed_send!(TypedSender);
impl_typed_send!(TypedOutput);

fn encode_message<T: Serialize>(message: &T) -> Result<Bytes, TypedSendError> {
    encode(message).map_err(|cause| TypedSendError::Encode {
        type_name: type_name::<T>(),
        cause: cause.into(),
    })
}

fn decode_message<T: DeserializeOwned>(
    received: Result<Bytes, StreamError>,
) -> Result<T, TypedStreamError> {
    decode(&received?).map_err(|cause| TypedStreamError::Decode {
        type_name: type_name::<T>(),
        cause: Arc::from(cause),
    })
}
