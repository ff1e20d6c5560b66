//! `gridwire serve`: one server of a cluster, from start to graceful shutdown.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use grid::{Env, Name, RegisterError};
use resource_metrics::{ResourceMetrics, SystemSource};

use crate::config::{MetricsConfig, ServeConfig};
use crate::grids::{Grids, GridsError, Members};
use crate::http::{self, Metrics, Routes};
use crate::listen::{self, ListenError};
use crate::lock_service::LockService;
use crate::startup::{self, PoolError, Startup, StartupError, StartupParts, system};
use crate::{handlers, signals};

/// Longest wait for outstanding calls at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Why a server did not start, or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Grids(#[from] GridsError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Metrics(#[from] resource_metrics::BuildError),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("cannot read this program, to compare its checksum with other servers: {0}")]
    Program(io::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// Serves until SIGINT or SIGTERM.
pub(crate) fn run(config: &ServeConfig) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(serve(config))
}

async fn serve(config: &ServeConfig) -> Result<(), ServeError> {
    let ServeConfig { name, peers, clients, lockers, metrics, .. } = config;
    let members = Members { local: name, peers, clients, lockers };
    let grids = Grids::build(members, &config.auth, config.lock_lease, Env::system())?;
    handlers::register(&grids.main)?;
    let lock_service = LockService::register(&grids)?;
    let metrics = build_metrics(&grids, peers, metrics)?;
    let startup = build_startup(&grids, config).await?;
    let listener = listen::bind(config.listen)?;
    startup.start(|| {
        grids.start()?;
        metrics.metrics.start();
        tracing::info!(
            %name, listen = %config.listen, peers = peers.len(), clients = clients.len(),
            lockers = lockers.len(), "serving"
        );
        Ok::<(), GridsError>(())
    })?;
    let routes = Routes::new(grids.clone(), startup.clone()).with_metrics(metrics);
    let accepting = tokio::spawn(http::accept(listener, routes));
    let signal = signals::wait_for_stop_signal().await.map_err(ServeError::Signals)?;
    tracing::info!(signal, grace = ?SHUTDOWN_GRACE, "shutting down");
    accepting.abort();
    startup.stop();
    lock_service.stop();
    grids.shutdown(SHUTDOWN_GRACE).await;
    tracing::info!("stopped");
    Ok(())
}

/// Prepares the startup. Writes to disk only to initialise pools.
async fn build_startup(grids: &Grids, config: &ServeConfig) -> Result<Startup, ServeError> {
    let ServeConfig { name, peers, iam, .. } = config;
    let system = system::collect(config).map_err(ServeError::Program)?;
    if iam.pools.is_empty() {
        tracing::warn!(
            "IAM is kept in memory only and is lost with the last server: use --data to keep it"
        );
    }
    let pools = startup::directories(&iam.pools, iam.initialise, &iam.root_secret, &grids.env);
    let pools = pools.await?;
    Ok(Startup::register(StartupParts {
        grids,
        servers: peers.iter().chain([name]).collect(),
        system,
        root_user: iam.root_user.clone(),
        root_secret: iam.root_secret.clone(),
        pools,
    })?)
}

/// Collects from servers only: clients have no metrics.
fn build_metrics(
    grids: &Grids,
    peers: &BTreeSet<Name>,
    config: &MetricsConfig,
) -> Result<Metrics, ServeError> {
    let mut limits = resource_metrics::Limits::default();
    limits.sample_interval = config.interval;
    let metrics = ResourceMetrics::builder(&grids.main)
        .servers(peers.iter().map(ToString::to_string))
        .env(grids.env.clone())
        .source(SystemSource::new(config.drives.clone()))
        .limits(limits)
        .build()?;
    Ok(Metrics { metrics, access: config.access.clone() })
}
