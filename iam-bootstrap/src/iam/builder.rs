//! Configuration of an [`Iam`], and the wiring of its parts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use grid::sync::Mutex;
use grid::{Manager, Name, RegisterError};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use super::Iam;
use crate::broadcast::Broadcaster;
use crate::format::{FormatLock, NoFormatLock};
use crate::limits::REFRESH_INTERVAL;
use crate::model::UserName;
use crate::peers::{Admission, Peers};
use crate::pools::Pools;
use crate::reconcile::Reconciler;
use crate::record_sealer::RecordSealer;
use crate::serve::PeerHandlers;
use crate::startup::Startup;
use crate::state::IamState;
use crate::store::IamStore;
use crate::store::sealed::{Keys, Sealer};
use crate::tasks::Tasks;
use crate::writer::{Writer, WriterHandle};

/// Builds an [`Iam`].
pub struct IamBuilder {
    manager: Manager,
    root: UserName,
    keys: Keys,
    pools: Vec<Arc<dyn IamStore>>,
    format_lock: Arc<dyn FormatLock>,
    refresh_interval: Duration,
    servers: Option<Vec<String>>,
    admission: Admission,
    env: Option<Env>,
}

impl fmt::Debug for IamBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<_> = self.pools.iter().map(IamStore::name).collect();
        f.debug_struct("IamBuilder").field("pools", &pools).finish_non_exhaustive()
    }
}

/// Error of [`IamBuilder::build`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No pool was given.
    #[error("IAM needs at least one pool to keep its items in")]
    NoPool,
    /// Two pools have the same name.
    #[error("two pools are named {name}: give each pool a unique name for logs and errors")]
    DuplicatePool {
        /// The duplicate name.
        name: String,
    },
    /// A handler cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl Iam {
    /// Returns a builder for the replica on the server of `manager`. `root` is the account with
    /// all permissions, which is not stored. Changes are sent sealed with `keys`, which are the
    /// same on all servers.
    pub fn builder(manager: &Manager, root: UserName, keys: Keys) -> IamBuilder {
        IamBuilder {
            manager: manager.clone(),
            root,
            keys,
            pools: Vec::new(),
            format_lock: Arc::new(NoFormatLock),
            refresh_interval: REFRESH_INTERVAL,
            servers: None,
            admission: Arc::new(|_| Ok(())),
            env: None,
        }
    }
}

impl IamBuilder {
    /// Adds a pool. If several pools have an item, the pool that was added first wins. A change is
    /// written to the pool that has the item, a new item to the first pool.
    ///
    /// A pool belongs to this server alone: every server keeps its items in its own pools.
    #[must_use]
    pub fn pool(mut self, pool: impl IamStore) -> Self {
        self.pools.push(Arc::new(pool));
        self
    }

    /// Sets a filter on peers. A peer for which it returns an error receives no changes, is not
    /// reconciled with, and is refused. For servers of another [deployment](crate::deployment).
    #[must_use]
    pub fn admission(
        mut self,
        admit: impl Fn(&Name) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.admission = Arc::new(admit);
        self
    }

    /// Sets the lock that is held while the storage format is written for the first time. Default:
    /// no lock.
    #[must_use]
    pub fn format_lock(mut self, format_lock: impl FormatLock) -> Self {
        self.format_lock = Arc::new(format_lock);
        self
    }

    /// Sets the longest time between two reconciliations with each peer. Default:
    /// [`REFRESH_INTERVAL`].
    #[must_use]
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// Sets the servers that replicate with each other. Default: all servers that the manager
    /// knows. Any other remote of the manager neither receives changes nor is queried for them.
    #[must_use]
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the clock, and the source of randomness for nonces and jitter. Default:
    /// [`Env::system`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Builds the [`Iam`] and registers its handlers with the manager. Nothing is loaded before
    /// [`Iam::start`].
    ///
    /// # Errors
    ///
    /// [`BuildError`].
    pub fn build(self) -> Result<Iam, BuildError> {
        if self.pools.is_empty() {
            return Err(BuildError::NoPool);
        }
        let mut names = BTreeSet::new();
        for pool in &self.pools {
            if !names.insert(pool.name()) {
                return Err(BuildError::DuplicatePool { name: pool.name().to_owned() });
            }
        }
        self.wire()
    }

    /// Gives each part the others that it needs.
    fn wire(self) -> Result<Iam, BuildError> {
        let env = self.env.unwrap_or_default();
        let node = xxh3_64(self.manager.local().as_str().as_bytes());
        let (state, tasks) = (Arc::new(IamState::new()), Tasks::default());
        let (pools, reconcile_now) = (Pools::new(self.pools), Arc::new(Notify::new()));
        let sealer = Arc::new(RecordSealer::new(Sealer::new(self.keys, &env)));
        let peers = Arc::new(Peers::new(self.manager.clone(), self.servers, self.admission));
        let (writer_handle, jobs) = WriterHandle::new(Arc::clone(&state));
        let handlers = Arc::new(PeerHandlers {
            state: Arc::clone(&state),
            pools: pools.clone(),
            peers: Arc::clone(&peers),
            sealer: Arc::clone(&sealer),
            writer: writer_handle.clone(),
            reconcile_now: Arc::clone(&reconcile_now),
        });
        handlers.register(&self.manager)?;
        let reconciler = Arc::new(Reconciler {
            state: Arc::clone(&state),
            peers: Arc::clone(&peers),
            sealer: Arc::clone(&sealer),
            writer: writer_handle.clone(),
            env: env.clone(),
            refresh_interval: self.refresh_interval,
            reconcile_now,
        });
        let writer = Writer {
            state: Arc::clone(&state),
            pools: pools.clone(),
            broadcaster: Broadcaster { peers, sealer },
            tasks: tasks.clone(),
            env: env.clone(),
            node,
        };
        let startup = Startup {
            state: Arc::clone(&state),
            pools,
            root: self.root,
            format_lock: self.format_lock,
            env,
            writer,
            jobs,
            writer_handle: writer_handle.clone(),
            reconciler,
            handlers: Arc::clone(&handlers),
            tasks: tasks.clone(),
        };
        let startup = Arc::new(Mutex::new(Some(startup)));
        Ok(Iam { state, writer: writer_handle, tasks, startup, _handlers: handlers })
    }
}
