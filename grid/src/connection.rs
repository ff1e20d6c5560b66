//! The user's handle on one remote server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::CallError;
use crate::handler::HandlerId;
use crate::name::Name;
use crate::request::Request;
use crate::shared::{ConnectionState, SharedRef};
use crate::stats::ConnectionStats;
use crate::stream::OpenStream;
use crate::trace::Tracer;

/// The connection to one remote, over all its reconnects. Cheap to clone.
///
/// Keeps its manager alive: see [`Manager`](crate::Manager).
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) link: Arc<Link>,
}

/// What all handles on one remote share, and every call under way.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) shared: SharedRef,
    pub(crate) tracer: Arc<Tracer>,
    /// Shared with the manager; its drop is the last handle's.
    pub(crate) _alive: Arc<dyn Alive>,
}

/// What ends a manager when the last handle on it is dropped.
pub(crate) trait Alive: Send + Sync + std::fmt::Debug {}

impl Connection {
    /// This server.
    pub fn local(&self) -> &Name {
        self.link.shared.local()
    }

    /// The server at the other end.
    pub fn remote(&self) -> &Name {
        self.link.shared.remote()
    }

    /// Calls `handler` with `payload`. Await what is returned, after setting what must differ from
    /// the defaults:
    ///
    /// ```
    /// # use grid::{CallError, Connection, HandlerId};
    /// # use std::time::Duration;
    /// const ECHO: HandlerId = HandlerId::new(200);
    ///
    /// # async fn example(connection: Connection) -> Result<(), CallError> {
    /// let answer = connection.request(ECHO, "hello").timeout(Duration::from_secs(2)).await?;
    /// assert_eq!(answer, "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The answer is a slice of the frame that it came in, which stays allocated as long as the
    /// answer does: copy what is kept for long.
    ///
    /// # Errors
    ///
    /// [`CallError`]. A remote that is not connected fails at once; wait for it with
    /// [`wait_connected`](Self::wait_connected).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call, on the other side too.
    pub fn request(&self, handler: HandlerId, payload: impl Into<Bytes>) -> Request {
        Request::new(Arc::clone(&self.link), handler, payload.into())
    }

    /// Opens a stream to `handler`, with `payload` to begin with. Await what is returned, after
    /// setting what must differ from the defaults:
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
    /// Resolves when the other side has taken the stream. Flow control is by credits, whose
    /// capacities must be those that the handler is registered with (P17).
    ///
    /// # Errors
    ///
    /// [`StreamError`](crate::StreamError).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or what it returned, cancels the stream, on the other side too.
    pub fn stream(&self, handler: HandlerId, payload: impl Into<Bytes>) -> OpenStream {
        OpenStream::new(Arc::clone(&self.link), handler, payload.into())
    }

    /// Where the connection stands now.
    pub fn state(&self) -> ConnectionState {
        self.link.shared.connection_state().0
    }

    /// A watch on the state, which misses no change that is still in force.
    pub fn watch(&self) -> StateWatch {
        let (state, version) = self.link.shared.connection_state();
        StateWatch { shared: SharedRef::clone(&self.link.shared), state, version, key: None }
    }

    /// Waits until the remote is connected. Returns at once if it is.
    ///
    /// # Errors
    ///
    /// [`CallError::Shutdown`] if it never will be.
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

    /// What can be seen of the remote now.
    pub fn stats(&self) -> ConnectionStats {
        self.link.shared.stats()
    }
}

/// Follows the state of one connection.
#[derive(Debug)]
pub struct StateWatch {
    shared: SharedRef,
    state: ConnectionState,
    version: u64,
    key: Option<usize>,
}

impl StateWatch {
    /// The state that was seen last.
    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// The new state, once it is another than the one seen last, or was in between. Never resolves
    /// after [`ConnectionState::Shutdown`], which is the last.
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
            self.shared.stop_watching(self.version, key);
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
