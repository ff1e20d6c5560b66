//! The application's handle to one remote server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::CallError;
use crate::name::Name;
use crate::remote_handle::RemoteHandle;
use crate::request::Request;
use crate::route::HandlerId;
use crate::shared::SharedRef;
use crate::stats::{ConnectionState, ConnectionStats};
use crate::stream::OpenStream;

/// The connection to one remote, over all its reconnects. Cheap to clone.
///
/// Keeps its manager alive: see [`Manager`](crate::Manager).
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) handle: Arc<RemoteHandle>,
}

impl Connection {
    /// Returns the name of this server.
    pub fn local(&self) -> &Name {
        self.handle.shared.local()
    }

    /// Returns the name of the server at the other end.
    pub fn remote(&self) -> &Name {
        self.handle.shared.remote()
    }

    /// Calls `handler` with `payload`. Await the returned [`Request`] to send it, after changing
    /// any defaults:
    ///
    /// ```
    /// # use grid::{CallError, Connection, HandlerId};
    /// # use std::time::Duration;
    /// const ECHO: HandlerId = HandlerId::new(200);
    ///
    /// # async fn example(connection: Connection) -> Result<(), CallError> {
    /// let response = connection.request(ECHO, "hello").timeout(Duration::from_secs(2)).await?;
    /// assert_eq!(response, "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The response is a slice of the received frame and keeps the whole frame allocated: copy data
    /// that is kept for long.
    ///
    /// # Errors
    ///
    /// [`CallError`]. If the remote is not connected, the call fails at once;
    /// [`wait_connected`](Self::wait_connected) waits for it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call on both servers.
    pub fn request(&self, handler: HandlerId, payload: impl Into<Bytes>) -> Request {
        Request::new(Arc::clone(&self.handle), handler, payload.into())
    }

    /// Opens a stream to `handler` with an initial `payload`. Await the returned [`OpenStream`] to
    /// open it, after changing any defaults:
    ///
    /// ```
    /// # use grid::{Connection, HandlerId};
    /// const COUNT: HandlerId = HandlerId::new(201);
    ///
    /// # async fn example(connection: Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut sender, mut receiver) = connection.stream(COUNT, "begin").await?.split();
    /// sender.send("one").await?;
    /// sender.finish().await?;
    /// while let Some(message) = receiver.next().await {
    ///     println!("{:?}", message?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Resolves when the remote has accepted the stream. Flow control is by credits; the capacities
    /// must be those that the handler is registered with ([P17]).
    ///
    /// # Errors
    ///
    /// [`StreamError`](crate::StreamError).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream that it returned, cancels the stream on both servers.
    ///
    /// [P17]: crate::protocol#p17
    pub fn stream(&self, handler: HandlerId, payload: impl Into<Bytes>) -> OpenStream {
        OpenStream::new(Arc::clone(&self.handle), handler, payload.into())
    }

    /// Returns the current state of the connection.
    pub fn state(&self) -> ConnectionState {
        self.handle.shared.connection_state().0
    }

    /// Subscribes to the state. Intermediate states may be skipped, the latest one is not.
    pub fn watch(&self) -> StateWatch {
        let (state, version) = self.handle.shared.connection_state();
        StateWatch { shared: SharedRef::clone(&self.handle.shared), state, version, key: None }
    }

    /// Waits until the remote is connected. Returns at once if it is.
    ///
    /// # Errors
    ///
    /// [`CallError::Shutdown`] if the manager is shut down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn wait_connected(&self) -> Result<(), CallError> {
        let mut watch = self.watch();
        loop {
            match watch.state() {
                ConnectionState::Connected => return Ok(()),
                ConnectionState::Shutdown => return Err(CallError::Shutdown),
                ConnectionState::Connecting | ConnectionState::Backoff => {
                    watch.changed().await;
                }
            }
        }
    }

    /// Returns statistics of the remote.
    pub fn stats(&self) -> ConnectionStats {
        self.handle.shared.stats()
    }
}

/// A subscription to the state of one connection.
#[derive(Debug)]
pub struct StateWatch {
    shared: SharedRef,
    state: ConnectionState,
    version: u64,
    /// Registration of the waker, once polled.
    key: Option<usize>,
}

impl StateWatch {
    /// Returns the state as of the last call of [`changed`](Self::changed).
    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// Waits for a change since the last call and returns the new state, which is the same again if
    /// it changed and changed back. Never resolves after [`ConnectionState::Shutdown`], the last
    /// state.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    pub fn changed(&mut self) -> impl Future<Output = ConnectionState> + Send + '_ {
        Changed(self)
    }
}

impl Drop for StateWatch {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.deregister_watcher(self.version, key);
        }
    }
}

struct Changed<'a>(&'a mut StateWatch);

impl Future for Changed<'_> {
    type Output = ConnectionState;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionState> {
        let watch = &mut *self.0;
        match watch.shared.poll_changed(watch.version, &mut watch.key, cx.waker()) {
            Poll::Pending => Poll::Pending,
            Poll::Ready((state, version)) => {
                (watch.state, watch.version) = (state, version);
                Poll::Ready(state)
            }
        }
    }
}
