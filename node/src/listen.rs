//! Opens the listening sockets of servers, tools and the demo.

use std::net::SocketAddr;
use std::{fmt, io};

use tokio::net::{TcpListener, TcpSocket};

/// Length of the kernel's queue of connections that are not accepted yet.
const BACKLOG: u32 = 1_024;

/// Why listening on an address failed.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ListenError {
    address: SocketAddr,
    cause: io::Error,
}

impl ListenError {
    /// Whether another socket listens there.
    pub(crate) fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        write!(f, "cannot listen on {address}: {cause}")?;
        match cause.kind() {
            io::ErrorKind::AddrInUse => f.write_str("; another process listens there already"),
            io::ErrorKind::AddrNotAvailable => f.write_str("; no interface here has this address"),
            io::ErrorKind::PermissionDenied => f.write_str("; ports below 1024 need privileges"),
            _ => Ok(()),
        }
    }
}

/// Listens on `address`; with port 0, the system chooses a port.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    try_bind(address).map_err(|cause| ListenError { address, cause })
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of the previous process may still be in TIME_WAIT, and a server must be able to
    // restart at once. On Windows this option has another, harmful meaning.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
