//! One server's view of the cluster's locks, and the builder for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use grid::{Env, Manager, Name, RegisterError};

use crate::admission::Admission;
use crate::clock::LeaseClock;
use crate::driver::DriverParts;
use crate::error::{BuildError, NotReadyReason};
use crate::limits::{LOCKERS_MAX, Limits};
use crate::live_locks::{LiveLocks, LocksConfig};
use crate::local::LocalLocker;
use crate::locker::Locker;
use crate::loss_log::LossLog;
use crate::operation::{self, HolderNotifier, HolderParts, LockerParts};
use crate::peers::Peers;
use crate::proto::agreement::{Agreement, AgreementConfig, ListHashes};
use crate::proto::hold::WaitMode;
use crate::proto::quorum::ListId;
use crate::quorum_check::QuorumCheck;
use crate::remote::RemoteLocker;
use crate::stats::{Counters, Stats};
use crate::tasks::Tasks;

/// Builder of a [`Dsync`].
pub struct DsyncBuilder {
    manager: Manager,
    lockers: Option<Vec<String>>,
    limits: Limits,
    wait_mode: WaitMode,
    env: Option<Env>,
}

impl std::fmt::Debug for DsyncBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DsyncBuilder").field("lockers", &self.lockers).finish_non_exhaustive()
    }
}

impl DsyncBuilder {
    /// Sets the servers that grant locks; by default all servers of the manager. Must be the same
    /// on every server of the cluster.
    #[must_use]
    pub fn lockers<I>(mut self, lockers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.lockers = Some(lockers.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how to wait for a lock. Polling instead of notifications is meant for benchmarks.
    #[must_use]
    pub fn wait_mode(mut self, wait_mode: WaitMode) -> Self {
        self.wait_mode = wait_mode;
        self
    }

    /// Sets the clock and the source of randomness; by default those of the system, with
    /// [`LeaseClock`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Builds the instance, and registers its handlers with the manager. It neither grants nor takes
    /// locks before [`Dsync::start`] and [`Dsync::open`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the invalid locker or limit.
    pub fn build(self) -> Result<Dsync, BuildError> {
        self.limits.check()?;
        let Self { manager, lockers, limits, wait_mode, env } = self;
        let env = env.unwrap_or_else(|| Env::system().with_clock(LeaseClock::new()));
        let local = manager.local().clone();
        let connections = manager.connections();
        let remotes = connections.iter().map(|remote| remote.remote().clone());
        let nodes: BTreeSet<Name> = remotes.chain([local.clone()]).collect();
        let lockers = check_lockers(lockers, &nodes)?;
        let local_locker = lockers.contains(&local).then(|| {
            let nodes = nodes.iter().map(|node| Arc::from(node.as_str()));
            LocalLocker::new(local.as_str(), nodes, &limits, env.clone())
        });
        let hashes = ListHashes::of(
            lockers.iter().map(Name::as_str),
            nodes.iter().map(Name::as_str),
            limits.lease,
        );
        let others = nodes.iter().filter(|node| **node != local).map(|node| node.as_str().into());
        let config = AgreementConfig::new(others.collect(), hashes, &limits);
        let agreement = Agreement::new(config, env.now());
        let admission = Arc::new(Admission::new(agreement, env.clone(), local_locker.clone()));
        let names = lockers.iter().map(|name| name.as_str().into()).collect();
        let lockers = lockers.iter().filter_map(|name| match &local_locker {
            Some(local_locker) if *name == local => {
                Some(Arc::new(local_locker.clone()) as Arc<dyn Locker>)
            }
            _ => {
                let remote = manager.connection(name.as_str()).map(RemoteLocker::new);
                remote.map(|remote| Arc::new(remote) as Arc<dyn Locker>)
            }
        });
        let peers = Arc::new(Peers::new(lockers.collect(), local_locker, connections, &env));
        let owner = local.as_str().into();
        let list = ListId { epoch: 0, hash: hashes.list };
        let config = LocksConfig { owner, lockers: names, list, limits, wait_mode };
        let locks = Arc::new(LiveLocks::new(config, env.clone()));
        let dsync = Dsync::assemble(manager, env, (locks, peers), admission);
        dsync.register()?;
        Ok(dsync)
    }
}

fn check_lockers(
    given: Option<Vec<String>>,
    nodes: &BTreeSet<Name>,
) -> Result<BTreeSet<Name>, BuildError> {
    let mut lockers = BTreeSet::new();
    for text in given.into_iter().flatten() {
        let name: Name = text.parse()?;
        if !nodes.contains(&name) {
            return Err(BuildError::Unknown { name: text });
        }
        if !lockers.insert(name) {
            return Err(BuildError::Duplicate { name: text });
        }
    }
    if lockers.is_empty() {
        lockers.clone_from(nodes);
    }
    match lockers.len() {
        1..=LOCKERS_MAX => Ok(lockers),
        count => Err(BuildError::Lockers { count, max: LOCKERS_MAX }),
    }
}

/// The locks that this server holds, and its locker if the server is one. Cheap to clone.
///
/// It keeps its manager alive. Locks outlive it until they are released.
#[derive(Clone)]
pub struct Dsync {
    manager: Manager,
    pub(crate) env: Env,
    pub(crate) locks: Arc<LiveLocks>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) counters: Arc<Counters>,
}

impl std::fmt::Debug for Dsync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dsync")
            .field("owner", self.locks.owner())
            .field("lockers", &self.lockers())
            .finish_non_exhaustive()
    }
}

impl Dsync {
    /// Returns a builder for the servers of `manager`, which must carry lock traffic alone, at
    /// [`LOCK_GRID_PATH`](grid::LOCK_GRID_PATH).
    pub fn builder(manager: &Manager) -> DsyncBuilder {
        DsyncBuilder {
            manager: manager.clone(),
            lockers: None,
            limits: Limits::default(),
            wait_mode: WaitMode::default(),
            env: None,
        }
    }

    fn assemble(
        manager: Manager,
        env: Env,
        (locks, peers): (Arc<LiveLocks>, Arc<Peers>),
        admission: Arc<Admission>,
    ) -> Self {
        let parts = DriverParts {
            env: env.clone(),
            locks: Arc::clone(&locks),
            peers: Arc::clone(&peers),
            loss_log: Arc::new(LossLog::new(env.clone())),
            is_excluded: admission.exclusion(),
        };
        let tasks = Arc::new(Tasks::new(parts, Arc::clone(&admission)));
        Self { manager, env, locks, peers, admission, tasks, counters: Arc::default() }
    }

    /// Registers the handlers of this server.
    fn register(&self) -> Result<(), RegisterError> {
        let locker = self.locker().map(|locker| LockerParts {
            locker: locker.clone(),
            quorum_check: Arc::new(QuorumCheck::new(self.lockers(), self.env.clone())),
            notifier: self.notifier(),
        });
        operation::register(&self.manager, locker.as_ref(), &self.holder())
    }

    /// Starts to compare the list of lockers with those of the other servers, and the recovery of
    /// this server's locker, which grants once it knows its earlier grants ([B53]). To be called
    /// inside a tokio runtime; further calls do nothing.
    ///
    /// [B53]: crate::rules#b53
    pub fn start(&self) {
        self.tasks.start(&self.holder());
    }

    /// Admits this server to the locks: to be called once it has verified that it belongs to the
    /// cluster, by whatever the application knows of that; at once if it knows of nothing. From then
    /// on it grants and takes locks, while more than half of all servers are known to run with the
    /// same list of lockers ([B65]).
    ///
    /// [B65]: crate::rules#b65
    pub fn open(&self) {
        self.admission.open();
    }

    /// Excludes this server from the locks: it does not belong to the cluster, as has turned out
    /// later. Its locker refuses and refreshes nothing. Locks that this server holds run out, and
    /// acquisitions in progress fail with [`LockError::NotReady`](crate::LockError::NotReady).
    pub fn close(&self, reason: &str) {
        self.admission.close(reason);
    }

    /// Returns why this server neither grants nor takes locks; `None` if it does.
    pub fn not_ready(&self) -> Option<NotReadyReason> {
        self.admission.not_ready()
    }

    /// Returns this server's locker, if the server is a locker.
    pub fn locker(&self) -> Option<&LocalLocker> {
        self.peers.local_locker()
    }

    /// Returns whether this server takes locks, and its locker, if it is one, grants them.
    pub fn is_open(&self) -> bool {
        self.not_ready().is_none()
            && self.locker().is_none_or(|locker| locker.unreported_nodes().is_none())
    }

    /// Returns the number of servers that grant locks.
    pub fn lockers(&self) -> usize {
        self.peers.lockers().len()
    }

    /// Returns the limits.
    pub fn limits(&self) -> &Limits {
        self.locks.limits()
    }

    /// Returns the counters.
    pub fn stats(&self) -> Stats {
        self.counters.stats(self.locks.len(), self.locker())
    }

    /// Refuses new locks, releases all held ones, and waits at most `grace` until that is
    /// confirmed. This server's locker keeps running.
    pub async fn shutdown(&self, grace: Duration) {
        self.tasks.shutdown(grace).await;
    }

    /// Returns the parts that handle operations on the locks that this server holds.
    fn holder(&self) -> HolderParts {
        HolderParts {
            locks: Arc::downgrade(&self.locks),
            locker: self.locker().cloned(),
            admission: Arc::clone(&self.admission),
        }
    }

    /// Returns the parts that notify holders of locks that were forced open.
    pub(crate) fn notifier(&self) -> HolderNotifier {
        HolderNotifier { locks: Arc::downgrade(&self.locks), peers: Arc::downgrade(&self.peers) }
    }
}
