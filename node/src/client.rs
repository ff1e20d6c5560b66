//! A tool's connection to one server, under one of the cluster's client names.
//!
//! The names of both ends decide which is the dialer ([P4]), so a tool both dials and listens.
//!
//! [P4]: grid::protocol#p4

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grid::sync::Mutex;
use grid::{Auth, BuildError, CallError, Connection, FailureKind, Manager, Name};

use crate::cli::ClientIdentityArgs;
use crate::listen::{self, ListenError};
use crate::secret;

/// Longest wait for outstanding calls at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Time between two checks whether the server has refused the tool.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A connection to one server, under a name that the server accepts.
pub(crate) struct Client {
    manager: Manager,
    pub(crate) connection: Connection,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("secret_file = {path:?}: {problem}; it must be {}", secret::allowed())]
    Secret { path: String, problem: String },
    #[error("--name {0} is the server to call; use one of its --clients")]
    Itself(Name),
    #[error("--name {name}: its host cannot be resolved: {cause}; or use --listen")]
    Resolve { name: Name, cause: io::Error },
    #[error(
        "{error} (does another tool use the name {name}? use another of the server's --clients)"
    )]
    NameInUse { name: Name, error: ListenError },
    #[error(transparent)]
    Listen(ListenError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("a server that dialed {name} has a token that this tool refuses: {problem}")]
    UntrustedToken { name: Name, problem: String },
    #[error("{peer} refuses this tool: {reason}")]
    Refused { peer: Name, reason: String },
    #[error(
        "not connected to {peer} within {waited:?}{last}: is it running, does it have the same secret, and \
         is {name} among its --clients?"
    )]
    NotConnected { peer: Name, name: Name, waited: Duration, last: String },
    #[error(transparent)]
    Call(#[from] CallError),
}

impl ClientError {
    /// Returns 2 for invalid arguments, 1 for other failures.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Secret { .. } | Self::Itself(_) | Self::Resolve { .. } => 2,
            _ => 1,
        }
    }
}

impl Client {
    /// Connects to `peer` within the given time.
    pub(crate) async fn connect(
        peer: &Name,
        arguments: &ClientIdentityArgs,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let name = &arguments.name;
        if name == peer {
            return Err(ClientError::Itself(name.clone()));
        }
        let invalid = |problem| ClientError::Secret {
            path: arguments.secret_file.display().to_string(),
            problem,
        };
        let secret = secret::read(&arguments.secret_file).map_err(invalid)?;
        let auth =
            Auth::shared_secret(secret.expose()).map_err(|error| invalid(error.to_string()))?;
        let (auth, refused_token) = record_refusals(auth);
        let manager = Manager::builder(name.as_str())
            .servers([name.as_str(), peer.as_str()])
            .auth(auth)
            .build()?;
        let connection = manager
            .connection(peer.as_str())
            .ok_or_else(|| BuildError::LocalMissing { local: name.clone() })?;
        let address = match arguments.listen {
            Some(address) => address,
            None => resolve(name).await?,
        };
        let listener = listen::bind(address).map_err(|error| match error.is_in_use() {
            true => ClientError::NameInUse { name: name.clone(), error },
            false => ClientError::Listen(error),
        })?;
        manager.start()?;
        tokio::spawn(manager.clone().serve(listener));
        wait_connected(&connection, &refused_token, timeout).await?;
        Ok(Self { manager, connection })
    }

    /// Shuts the connection down gracefully.
    pub(crate) async fn shutdown(self) {
        self.manager.shutdown(SHUTDOWN_GRACE).await;
    }
}

async fn resolve(name: &Name) -> Result<SocketAddr, ClientError> {
    let failed = |cause| ClientError::Resolve { name: name.clone(), cause };
    let mut addresses = tokio::net::lookup_host(name.host_port()).await.map_err(failed)?;
    addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// Why the token of the last server that dialed the tool was refused.
type RefusedToken = Arc<Mutex<Option<String>>>;

/// Wraps an authentication so that it also records why it refused a token. The dialing server gets
/// the reason anyway, but the user waits at this end.
fn record_refusals(auth: Auth) -> (Auth, RefusedToken) {
    let refused_token = RefusedToken::default();
    let (signer, verifier, record) = (auth.clone(), auth, Arc::clone(&refused_token));
    let recording = Auth::new(
        move |now| signer.make_token(now),
        move |token, now| {
            verifier.check_token(token, now).inspect_err(|error| {
                *record.lock() = Some(error.to_string());
            })
        },
    );
    (recording, refused_token)
}

/// Waits for the connection. Returns early if either end refuses the other.
async fn wait_connected(
    connection: &Connection,
    refused_token: &Mutex<Option<String>>,
    timeout: Duration,
) -> Result<(), ClientError> {
    let refused = async {
        loop {
            let problem = refused_token.lock().take();
            if let Some(problem) = problem {
                let name = connection.local().clone();
                return ClientError::UntrustedToken { name, problem };
            }
            if let Some(reason) = refusal(connection) {
                return ClientError::Refused { peer: connection.remote().clone(), reason };
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let connected = tokio::time::timeout(timeout, async {
        tokio::select! {
            biased;
            connected = connection.wait_connected() => connected.map_err(ClientError::from),
            refused = refused => Err(refused),
        }
    });
    connected.await.unwrap_or_else(|_| {
        Err(ClientError::NotConnected {
            peer: connection.remote().clone(),
            name: connection.local().clone(),
            waited: timeout,
            last: connection
                .stats()
                .last_failure
                .map_or_else(String::new, |last| format!(" (last attempt: {last})")),
        })
    })
}

/// Returns the server's reason if it refused the last attempt. Other failures may be transient.
fn refusal(connection: &Connection) -> Option<String> {
    let last = connection.stats().last_failure?;
    (last.kind == FailureKind::Refused).then(|| last.cause.to_string())
}
