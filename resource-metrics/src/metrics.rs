//! One server's part in the metrics of its cluster.

use std::fmt;
use std::sync::{Arc, OnceLock};

use grid::net::clock::SystemClock;
use grid::time::Clock;
use grid::{Connection, Manager, Name};
use tokio::task::AbortHandle;

use crate::collect::flight::Flight;
use crate::collect::{Answer, Collection, gather};
use crate::error::{BuildError, CollectError};
use crate::limits::Limits;
use crate::report::{GET_RESOURCE_METRICS, Report};
use crate::sample::{Drives, Source, SystemSource};
use crate::sampler::Sampler;

/// Puts a [`ResourceMetrics`] together.
pub struct ResourceMetricsBuilder {
    manager: Manager,
    servers: Option<Vec<String>>,
    source: Option<Box<dyn Source>>,
    clock: Option<Arc<dyn Clock>>,
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
    /// The servers that are asked, where they are not all that the manager knows. This one may be
    /// among them; it is reported on in any case.
    #[must_use]
    pub fn servers<I>(mut self, servers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.servers = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Where samples come from, if not from this machine with all [`Drives::Mounted`].
    #[must_use]
    pub fn source(mut self, source: impl Source) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Another clock than the system's. Waiting is by tokio's, in any case.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Other limits than the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Builds it, and registers its handler with the manager. It samples nothing before
    /// [`ResourceMetrics::start`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the server or the limit that is wrong.
    pub fn build(self) -> Result<ResourceMetrics, BuildError> {
        self.limits.check()?;
        let manager = self.manager;
        let local = manager.local().clone();
        let peers = match self.servers {
            Some(servers) => peers(&manager, &local, servers)?,
            None => manager.connections(),
        };
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let source = self.source.unwrap_or_else(|| Box::new(SystemSource::new(Drives::Mounted)));
        let sampler = Arc::new(Sampler::new(source, Arc::clone(&clock)));
        let flight = Flight::new(self.limits.collect_shared_for);
        let served = Arc::clone(&sampler);
        GET_RESOURCE_METRICS.register(&manager, move |_context, _request| {
            let report = Report::clone(&served.latest());
            async move { Ok(report) }
        })?;
        let sampling = OnceLock::new();
        let limits = self.limits;
        let inner = Inner { local, peers: peers.into(), clock, sampler, flight, limits, sampling };
        Ok(ResourceMetrics { inner: Arc::new(inner) })
    }
}

/// Connections to these servers, each once.
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

/// One server's part in the metrics of its cluster: samples itself, answers others, asks them. Cheap
/// to clone.
#[derive(Clone)]
pub struct ResourceMetrics {
    inner: Arc<Inner>,
}

impl fmt::Debug for ResourceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMetrics")
            .field("local", &self.inner.local)
            .field("peers", &self.inner.peers.len())
            .finish_non_exhaustive()
    }
}

struct Inner {
    local: Name,
    peers: Arc<[Connection]>,
    clock: Arc<dyn Clock>,
    sampler: Arc<Sampler>,
    flight: Flight<Collection>,
    limits: Limits,
    /// The task that samples, once it is started.
    sampling: OnceLock<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(sampling) = self.sampling.get() {
            sampling.abort();
        }
    }
}

impl ResourceMetrics {
    /// A part in the metrics of the servers of `manager`.
    pub fn builder(manager: &Manager) -> ResourceMetricsBuilder {
        ResourceMetricsBuilder {
            manager: manager.clone(),
            servers: None,
            source: None,
            clock: None,
            limits: Limits::default(),
        }
    }

    /// Begins to take samples, the first at once, until the last clone is dropped. To be called
    /// inside a tokio runtime; further calls do nothing.
    pub fn start(&self) {
        self.inner.sampling.get_or_init(|| {
            let sampler = Arc::clone(&self.inner.sampler);
            let every = self.inner.limits.sample_interval;
            tokio::spawn(async move { sampler.run(every).await }).abort_handle()
        });
    }

    /// Takes one sample now, beside those that [`start`](Self::start) takes: for tests and
    /// simulations, whose time is their own.
    ///
    /// # Cancel safety
    ///
    /// A sample that is given up is missed.
    pub async fn sample_now(&self) {
        self.inner.sampler.sample().await;
    }

    /// What this server has to say.
    pub fn latest(&self) -> Arc<Report> {
        self.inner.sampler.latest()
    }

    /// What all servers have to say: no later than
    /// [`collect_deadline`](crate::Limits::collect_deadline), and with one request to each at most.
    /// Callers at the same time, or within
    /// [`collect_shared_for`](crate::Limits::collect_shared_for), get the same.
    ///
    /// # Errors
    ///
    /// [`CollectError`], if this server is shutting down. Servers that do not answer are no error,
    /// but [`Answer::Down`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; others who wait for the same still get it.
    pub async fn collect(&self) -> Result<Arc<Collection>, CollectError> {
        let inner = &self.inner;
        let collected = inner.flight.get(&inner.clock, || {
            let (peers, sampler) = (Arc::clone(&inner.peers), Arc::clone(&inner.sampler));
            let (local, within) = (inner.local.to_string(), inner.limits.collect_deadline);
            async move {
                let mut servers = gather(&peers, within).await;
                let own = Report::clone(&sampler.latest());
                servers.insert(local, Answer::Up(Box::new(own)));
                Collection { servers }
            }
        });
        collected.await.ok_or(CollectError::Aborted)
    }
}
