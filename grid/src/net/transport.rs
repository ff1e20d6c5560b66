//! Transports: how a connection to a remote is opened.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::name::Name;

/// A bidirectional byte stream.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// The future returned by [`Transport::connect`].
pub type ConnectFuture = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send>>;

/// Opens connections to remotes. The simulator, and applications with TLS or proxies, implement
/// their own.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `remote`. The caller enforces a timeout by dropping the future.
    ///
    /// # Errors
    ///
    /// The reason why the remote was not reached.
    fn connect(&self, remote: &Name) -> ConnectFuture;
}

/// Plain TCP, for remotes named `http://` or `ws://`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    fn connect(&self, remote: &Name) -> ConnectFuture {
        let remote = remote.clone();
        Box::pin(async move {
            if remote.is_secure() {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{remote} needs a transport with TLS: set one on the builder"),
                ));
            }
            let stream = TcpStream::connect(remote.host_port()).await?;
            // Messages are already batched: Nagle's algorithm would only add latency.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }
}
