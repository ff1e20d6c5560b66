//! How a remote is reached.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::name::Name;

/// A two-way stream of bytes.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What a dial returns.
pub type ConnectFuture = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send>>;

/// Opens connections to remotes. The simulator, and applications with TLS or proxies, have their
/// own.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `remote`. The caller limits the time that it may take, by dropping the future.
    ///
    /// # Errors
    ///
    /// Why the remote was not reached.
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
                    format!("{remote} needs a transport with TLS: give the manager one"),
                ));
            }
            let stream = TcpStream::connect(remote.host_port()).await?;
            // Messages are batched before they get here: waiting for more only costs.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }
}
