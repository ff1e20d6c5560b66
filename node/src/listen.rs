//! Opens the listening sockets of servers, of probes and of the demo.

use std::net::SocketAddr;
use std::{fmt, io};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel holds while nobody accepts them.
const BACKLOG: u32 = 1_024;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ListenError {
    address: SocketAddr,
    cause: io::Error,
}

impl ListenError {
    /// Whether somebody else listens there.
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

/// Listens on `address`; port 0 lets the system choose.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    try_bind(address).map_err(|cause| ListenError { address, cause })
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of the process that was here before may still be in TIME_WAIT: a server must be
    // able to come back at once. On Windows the option means something else, and harmful.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
