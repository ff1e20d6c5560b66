//! The way of tools into a cluster: for a while, take the name of one of its clients.
//!
//! Which of two servers dials is decided by their names (P4), so the probe both dials and listens.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grid::{Auth, BuildError, CallError, Connection, FailureKind, Manager, Name};

use crate::cli::EntryArgs;
use crate::listen::{self, ListenError};
use crate::secret;

/// How long the end of a probe waits for what is under way.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Time between two looks at whether the server has refused the probe.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A connection to one server, under a name that the server knows.
pub(crate) struct Probe {
    manager: Manager,
    pub(crate) connection: Connection,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("secret_file = {path:?}: {problem}; it must be {}", secret::allowed())]
    Secret { path: String, problem: String },
    #[error("--name {0} is the server that is to be called; give one of its clients")]
    Itself(Name),
    #[error("--name {name}: its host cannot be found: {cause}; or give --listen")]
    Resolve { name: Name, cause: io::Error },
    #[error(
        "{error} (has another tool taken the name {name}? take another of the server's clients)"
    )]
    NameInUse { name: Name, error: ListenError },
    #[error(transparent)]
    Listen(ListenError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("a server that dialled {name} has a token that this probe refuses: {problem}")]
    Stranger { name: Name, problem: String },
    #[error("{peer} does not let this probe in: {reason}")]
    Refused { peer: Name, reason: String },
    #[error(
        "not connected to {peer} within {waited:?}{last}: does it run, has it the same secret, and \
         is {name} among its clients?"
    )]
    NotConnected { peer: Name, name: Name, waited: Duration, last: String },
    #[error(transparent)]
    Call(#[from] CallError),
}

impl ProbeError {
    /// 2 for what the user gave, 1 for what happened.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Secret { .. } | Self::Itself(_) | Self::Resolve { .. } => 2,
            _ => 1,
        }
    }
}

impl Probe {
    /// Connects to `peer`, or says why that was not possible in time.
    pub(crate) async fn connect(
        peer: &Name,
        arguments: &EntryArgs,
        within: Duration,
    ) -> Result<Self, ProbeError> {
        let name = &arguments.name;
        if name == peer {
            return Err(ProbeError::Itself(name.clone()));
        }
        let wrong = |problem| ProbeError::Secret {
            path: arguments.secret_file.display().to_string(),
            problem,
        };
        let secret = secret::read(&arguments.secret_file).map_err(wrong)?;
        let auth =
            Auth::shared_secret(secret.expose()).map_err(|error| wrong(error.to_string()))?;
        let (auth, strangers) = watched(auth);
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
            true => ProbeError::NameInUse { name: name.clone(), error },
            false => ProbeError::Listen(error),
        })?;
        manager.start()?;
        tokio::spawn(manager.clone().serve(listener));
        wait_connected(&connection, &strangers, within).await?;
        Ok(Self { manager, connection })
    }

    /// Leaves in good order.
    pub(crate) async fn leave(self) {
        self.manager.shutdown(SHUTDOWN_GRACE).await;
    }
}

async fn resolve(name: &Name) -> Result<SocketAddr, ProbeError> {
    let failed = |cause| ProbeError::Resolve { name: name.clone(), cause };
    let mut addresses = tokio::net::lookup_host(name.host_port()).await.map_err(failed)?;
    addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// Why the last token of a server that dialled the probe was refused.
type Strangers = Arc<Mutex<Option<String>>>;

/// The same authentication, which also tells about tokens that it refuses. A server that dials is
/// told why, but the one who waits for it here has to know too.
fn watched(auth: Auth) -> (Auth, Strangers) {
    let strangers = Strangers::default();
    let (makes, checks, told) = (auth.clone(), auth, Arc::clone(&strangers));
    let watched = Auth::new(
        move |now| makes.make_token(now),
        move |token, now| {
            checks.check_token(token, now).inspect_err(|error| {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            })
        },
    );
    (watched, strangers)
}

/// Waits for the connection, but not on when one of the two has said no.
async fn wait_connected(
    connection: &Connection,
    strangers: &Mutex<Option<String>>,
    timeout: Duration,
) -> Result<(), ProbeError> {
    let refused = async {
        loop {
            let stranger = strangers.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(problem) = stranger {
                let name = connection.local().clone();
                return ProbeError::Stranger { name, problem };
            }
            if let Some(reason) = refusal(connection) {
                return ProbeError::Refused { peer: connection.remote().clone(), reason };
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let connected = tokio::time::timeout(timeout, async {
        tokio::select! {
            biased;
            connected = connection.wait_connected() => connected.map_err(ProbeError::from),
            refused = refused => Err(refused),
        }
    });
    connected.await.unwrap_or_else(|_| {
        Err(ProbeError::NotConnected {
            peer: connection.remote().clone(),
            name: connection.local().clone(),
            waited: timeout,
            last: connection
                .stats()
                .last_failure
                .map_or_else(String::new, |last| format!(" (the last attempt: {last})")),
        })
    })
}

/// Why the server does not want this probe, where the last attempt ended with that. Other failures
/// may pass.
fn refusal(connection: &Connection) -> Option<String> {
    let last = connection.stats().last_failure?;
    (last.kind == FailureKind::Refused).then(|| last.cause.to_string())
}
