//! One server's metrics, and the collection of all servers' metrics.

use std::fmt;
use std::sync::{Arc, OnceLock};

use grid::env::Env;
use grid::{Connection, Manager, Name};
use tokio::task::AbortHandle;

use crate::collect::single_flight::SingleFlight;
use crate::collect::{Collection, ServerStatus, gather};
use crate::error::{BuildError, CollectError};
use crate::limits::Limits;
use crate::report::{GET_RESOURCE_METRICS, Report};
use crate::sample::{Drives, Source, SystemSource};
use crate::sampler::Sampler;

/// Builder of a [`ResourceMetrics`].
pub struct ResourceMetricsBuilder {
    manager: Manager,
    servers: Option<Vec<String>>,
    source: Option<Box<dyn Source>>,
    env: Option<Env>,
    limits: Limits,
}

impl fmt::Debug for ResourceMetricsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMetricsBuilder")
            .field("servers", &self.servers)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ResourceMetricsBuilder {
    /// Sets the servers to collect from; by default all that the manager knows. This server may be
    /// among them; it is reported in any case.
    #[must_use]
    pub fn servers<I>(mut self, servers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.servers = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the source of samples, instead of this machine with all [`Drives::Mounted`].
    #[must_use]
    pub fn source(mut self, source: impl Source) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Sets the clock that timestamps samples. Timers always use tokio's. Default:
    /// [`Env::system`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Builds the instance, and registers its handler with the manager. It takes no samples before
    /// [`ResourceMetrics::start`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the invalid server or limit.
    pub fn build(self) -> Result<ResourceMetrics, BuildError> {
        self.limits.check()?;
        let manager = self.manager;
        let local = manager.local().clone();
        let peers = match self.servers {
            Some(servers) => peers(&manager, &local, servers)?,
            None => manager.connections(),
        };
        let env = self.env.unwrap_or_default();
        let source = self.source.unwrap_or_else(|| Box::new(SystemSource::new(Drives::Mounted)));
        let sampler = Arc::new(Sampler::new(source, env.clone()));
        let collections = SingleFlight::new(self.limits.collect_ttl);
        let handler_sampler = Arc::clone(&sampler);
        GET_RESOURCE_METRICS.register(&manager, move |_context, _request| {
            let report = Report::clone(&handler_sampler.latest());
            async move { Ok(report) }
        })?;
        let sample_task = OnceLock::new();
        let limits = self.limits;
        let inner = MetricsInner {
            local,
            peers: peers.into(),
            env,
            sampler,
            collections,
            limits,
            sample_task,
        };
        Ok(ResourceMetrics { inner: Arc::new(inner) })
    }
}

/// Returns connections to these servers, without duplicates.
fn peers(
    manager: &Manager,
    local: &Name,
    servers: Vec<String>,
) -> Result<Vec<Connection>, BuildError> {
    let mut peers: Vec<Connection> = Vec::new();
    for text in servers {
        let name: Name = text.parse()?;
        if name == *local || peers.iter().any(|peer| *peer.remote() == name) {
            continue;
        }
        let peer = manager.connection(name.as_str());
        peers.push(peer.ok_or(BuildError::Unknown { name: text })?);
    }
    Ok(peers)
}

/// Samples this server, serves its report to others, and collects theirs. Cheap to clone.
#[derive(Clone)]
pub struct ResourceMetrics {
    inner: Arc<MetricsInner>,
}

impl fmt::Debug for ResourceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMetrics")
            .field("local", &self.inner.local)
            .field("peers", &self.inner.peers.len())
            .finish_non_exhaustive()
    }
}

struct MetricsInner {
    local: Name,
    peers: Arc<[Connection]>,
    env: Env,
    sampler: Arc<Sampler>,
    collections: SingleFlight<Collection>,
    limits: Limits,
    /// Task that takes samples, once it is started.
    sample_task: OnceLock<AbortHandle>,
}

impl Drop for MetricsInner {
    fn drop(&mut self) {
        if let Some(sample_task) = self.sample_task.get() {
            sample_task.abort();
        }
    }
}

impl ResourceMetrics {
    /// Returns a builder for the servers of `manager`.
    pub fn builder(manager: &Manager) -> ResourceMetricsBuilder {
        ResourceMetricsBuilder {
            manager: manager.clone(),
            servers: None,
            source: None,
            env: None,
            limits: Limits::default(),
        }
    }

    /// Starts to take samples, the first at once, until the last clone is dropped. Must be called
    /// inside a tokio runtime; further calls do nothing.
    pub fn start(&self) {
        self.inner.sample_task.get_or_init(|| {
            let sampler = Arc::clone(&self.inner.sampler);
            let interval = self.inner.limits.sample_interval;
            tokio::spawn(async move { sampler.run(interval).await }).abort_handle()
        });
    }

    /// Takes one sample now, in addition to those of [`start`](Self::start): for tests and
    /// simulations that control time themselves.
    ///
    /// # Cancel safety
    ///
    /// A cancelled sample is missed.
    pub async fn sample_now(&self) {
        self.inner.sampler.sample().await;
    }

    /// Returns this server's latest report.
    pub fn latest(&self) -> Arc<Report> {
        self.inner.sampler.latest()
    }

    /// Collects the reports of all servers: within
    /// [`collect_deadline`](crate::Limits::collect_deadline), and with at most one request to each.
    /// Concurrent callers, and those within [`collect_ttl`](crate::Limits::collect_ttl), share one
    /// collection.
    ///
    /// # Errors
    ///
    /// [`CollectError`], if this server is shutting down. A server that does not respond is not
    /// an error, but [`ServerStatus::Down`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; other callers still get the collection.
    pub async fn collect(&self) -> Result<Arc<Collection>, CollectError> {
        let inner = &self.inner;
        let collected = inner.collections.get(&inner.env, || {
            let (peers, sampler) = (Arc::clone(&inner.peers), Arc::clone(&inner.sampler));
            let (local, timeout) = (inner.local.to_string(), inner.limits.collect_deadline);
            async move {
                let mut servers = gather(&peers, timeout).await;
                let own = Report::clone(&sampler.latest());
                servers.insert(local, ServerStatus::Up(Box::new(own)));
                Collection { servers }
            }
        });
        collected.await.ok_or(CollectError::Aborted)
    }
}
