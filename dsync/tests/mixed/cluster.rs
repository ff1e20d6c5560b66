//! Clusters of servers of two kinds, over loopback sockets. Time is a tenth of what it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dsync::testing::{MinioHolder, MinioLocker, MinioTiming};
use dsync::{DRWMutex, Dsync, Limits, LockKind, LockOptions};
use grid::{Auth, LOCK_GRID_PATH, Manager};
use tokio::net::TcpListener;

/// Software of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Minio,
}

/// How much faster than in use time passes.
pub(crate) const SCALE: u32 = 10;

/// Longest wait for one lock under contention: two minutes, scaled.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(12);

pub(crate) struct Server {
    pub(crate) manager: Manager,
    software: Software,
}

enum Software {
    Ours(Dsync),
    Minio { locker: Option<MinioLocker>, holder: MinioHolder },
}

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

fn limits() -> Limits {
    Limits::with_lease(dsync::limits::LEASE / SCALE)
}

fn start(
    listener: TcpListener,
    kind: Kind,
    index: usize,
    urls: &[String],
    lockers: &[String],
    timing: MinioTiming,
) -> Server {
    let url = &urls[index];
    let manager = Manager::builder(url)
        .servers(urls)
        .auth(Auth::shared_secret(b"what all servers know").expect("long enough"))
        .path(LOCK_GRID_PATH)
        .build()
        .expect("a valid configuration");
    let seed = index as u64;
    let software = match kind {
        Kind::Ours => {
            let builder = Dsync::builder(&manager).lockers(lockers).limits(limits());
            Software::Ours(builder.build().expect("valid lockers"))
        }
        Kind::Minio => {
            let locker = lockers.contains(url).then(|| MinioLocker::new(timing.clone(), seed));
            if let Some(locker) = &locker {
                locker.register(&manager).expect("no other handlers");
            }
            let holder = MinioHolder::new(&manager, lockers, locker.as_ref(), timing, seed);
            Software::Minio { locker, holder }
        }
    };
    manager.start().expect("a runtime");
    if let Software::Ours(dsync) = &software {
        dsync.start();
        dsync.open();
    }
    tokio::spawn(manager.clone().serve(listener));
    Server { manager, software }
}

impl Cluster {
    /// Starts these servers, which are all lockers, and then these, which are none. No MinIO locker
    /// sweeps while a test runs, so that a grant which is not released stays to be seen.
    pub(crate) async fn start(lockers: &[Kind], others: &[Kind]) -> Self {
        let mut timing = MinioTiming::scaled(SCALE);
        timing.expiry = MinioTiming::default().expiry;
        timing.dispatch *= 10;
        // A response that is late because the machine is busy fails an attempt.
        timing.attempt = MinioTiming::default().attempt;
        Self::start_with(lockers, others, timing).await
    }

    /// Likewise, with MinIO lockers that sweep.
    pub(crate) async fn start_with(lockers: &[Kind], others: &[Kind], timing: MinioTiming) -> Self {
        let kinds = [lockers, others].concat();
        let mut listeners = Vec::new();
        for _ in &kinds {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        }
        let url =
            |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("bound"));
        let urls: Vec<_> = listeners.iter().map(url).collect();
        let lockers = urls[..lockers.len()].to_vec();
        let servers: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                start(listener, kinds[index], index, &urls, &lockers, timing.clone())
            })
            .collect();
        let cluster = Self { servers };
        for server in &cluster.servers {
            for connection in server.manager.connections() {
                connection.wait_connected().await.expect("all run");
            }
            if let Software::Ours(dsync) = &server.software {
                eventually("it is open", || dsync.is_open()).await;
            }
        }
        cluster
    }

    pub(crate) fn dsync(&self, server: usize) -> &Dsync {
        match &self.servers[server].software {
            Software::Ours(dsync) => dsync,
            Software::Minio { .. } => panic!("server {server} is of the other kind"),
        }
    }

    pub(crate) fn minio(&self, server: usize) -> &MinioHolder {
        match &self.servers[server].software {
            Software::Ours(_) => panic!("server {server} is of the other kind"),
            Software::Minio { holder, .. } => holder,
        }
    }

    /// Number of grants at all lockers.
    pub(crate) fn grants(&self) -> usize {
        let of = |server: &Server| match &server.software {
            Software::Ours(dsync) => dsync.stats().locker.map_or(0, |locker| locker.grants),
            Software::Minio { locker, .. } => locker.as_ref().map_or(0, MinioLocker::grants),
        };
        self.servers.iter().map(of).sum()
    }

    /// Takes `count` write locks of one resource at each of these servers at the same time, each
    /// held for a moment. Returns how many were granted.
    pub(crate) async fn contend(&self, servers: &[usize], count: usize) -> usize {
        let holders = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for &server in servers {
            let holders = Arc::clone(&holders);
            let contender = Contender::of(&self.servers[server]);
            tasks.push(tokio::spawn(async move {
                let mut granted = 0;
                for _ in 0..count {
                    granted += usize::from(contender.lock_once(&holders).await);
                }
                granted
            }));
        }
        let mut granted = 0;
        for task in tasks {
            granted += task.await.expect("exclusion");
        }
        granted
    }
}

#[derive(Clone)]
enum Contender {
    Ours(DRWMutex),
    Minio(MinioHolder),
}

const CONTENDED: &str = "bucket/contended";

impl Contender {
    fn of(server: &Server) -> Self {
        match &server.software {
            Software::Ours(dsync) => Self::Ours(DRWMutex::new(dsync, [CONTENDED])),
            Software::Minio { holder, .. } => Self::Minio(holder.clone()),
        }
    }

    /// Returns whether the lock was granted. Fails if it is held twice.
    async fn lock_once(&self, holders: &AtomicU64) -> bool {
        match self {
            Self::Ours(mutex) => {
                let options = LockOptions::default().timeout(LOCK_TIMEOUT);
                let Ok(guard) = mutex.lock(options).await else { return false };
                hold(holders).await;
                guard.unlock();
            }
            Self::Minio(holder) => {
                let mutex = holder.mutex(&[CONTENDED]);
                let Some(lock) = mutex.lock(LockKind::Write, LOCK_TIMEOUT).await else {
                    return false;
                };
                hold(holders).await;
                drop(lock.unlock());
            }
        }
        true
    }
}

async fn hold(holders: &AtomicU64) {
    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two holders");
    // Longer than a few round trips, so that contenders are refused.
    tokio::time::sleep(Duration::from_millis(20)).await;
    holders.fetch_sub(1, Ordering::SeqCst);
}

/// Waits for a condition.
pub(crate) async fn eventually(state: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let longest = Duration::from_secs(20);
    tokio::time::timeout(longest, wait).await.unwrap_or_else(|_| panic!("not reached: {state}"));
}
