//! A MinIO holder: one UID for all attempts of a lock, retried with random pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grid::sync::Mutex;
use grid::{CallOptions, Connection, Manager};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout, timeout_at};

use super::minio_locker::MinioLocker;
use super::minio_wire::{MinioArgs, MinioOperation, MinioResponse};
use super::{MinioTiming, now};
use crate::proto::quorum::LockKind;

/// Timeout of a request to lock. An attempt does not wait for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A server that takes locks as MinIO does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MinioHolder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    owner: String,
    lockers: Vec<Target>,
    timing: MinioTiming,
    rng: Mutex<SmallRng>,
}

#[derive(Debug, Clone)]
enum Target {
    Local(MinioLocker),
    Remote(Connection),
    /// A name that the manager does not know.
    Unknown,
}

impl Target {
    /// Returns the response; `None` if the call failed.
    async fn call(
        &self,
        operation: MinioOperation,
        args: MinioArgs,
        longest: Duration,
    ) -> Option<MinioResponse> {
        match self {
            Self::Local(locker) => locker.execute(operation, args).await.ok(),
            Self::Remote(connection) => {
                let options = CallOptions::default().timeout(longest);
                operation.handler().call_with(connection, &args, options).await.ok()
            }
            Self::Unknown => None,
        }
    }
}

impl MinioHolder {
    /// Creates a holder that takes its locks from these lockers. `local` is this server's own
    /// locker, if it is among them.
    pub fn new(
        manager: &Manager,
        lockers: &[String],
        local: Option<&MinioLocker>,
        timing: MinioTiming,
        seed: u64,
    ) -> Self {
        let target = |name: &String| match (manager.connection(name), local) {
            (Some(connection), _) => Target::Remote(connection),
            (None, Some(local)) if *name == manager.local().to_string() => {
                Target::Local(local.clone())
            }
            (None, _) => Target::Unknown,
        };
        let lockers = lockers.iter().map(target).collect();
        let (host, port) = manager.local().host_port();
        let owner = format!("{host}:{port}");
        let rng = Mutex::new(SmallRng::seed_from_u64(seed));
        Self(Arc::new(Inner { owner, lockers, timing, rng }))
    }

    /// Returns a lock of these resources, with a UID of its own.
    pub fn mutex(&self, resources: &[&str]) -> MinioMutex {
        let mut resources: Vec<_> = resources.iter().map(|&name| name.to_owned()).collect();
        resources.sort();
        let uid = format!("{:032x}", self.0.rng.lock().random::<u128>());
        MinioMutex { holder: self.clone(), uid, resources }
    }

    fn random(&self, max: Duration) -> Duration {
        self.0.rng.lock().random_range(Duration::ZERO..=max)
    }

    fn lockers(&self) -> usize {
        self.0.lockers.len()
    }

    fn quorum(&self, kind: LockKind) -> usize {
        let lockers = self.lockers();
        let read = lockers - lockers / 2;
        match kind {
            LockKind::Write if lockers.is_multiple_of(2) => read + 1,
            LockKind::Write | LockKind::Read => read,
        }
    }

    /// Sends a request to the lockers that `select` chooses, in parallel. Returns the responses, in
    /// the order of the lockers.
    async fn call_all(
        &self,
        operation: MinioOperation,
        args: &MinioArgs,
        longest: Duration,
        select: impl Fn(usize) -> bool,
    ) -> Vec<Option<MinioResponse>> {
        let mut calls = JoinSet::new();
        for (index, target) in self.0.lockers.iter().enumerate().filter(|(index, _)| select(*index))
        {
            let (target, args) = (target.clone(), args.clone());
            calls.spawn(async move { (index, target.call(operation, args, longest).await) });
        }
        let mut responses = vec![None; self.lockers()];
        while let Some(call) = calls.join_next().await {
            if let Ok((index, response)) = call {
                responses[index] = response;
            }
        }
        responses
    }
}

/// A lock, not yet held. All its attempts have one UID.
#[derive(Debug, Clone)]
pub struct MinioMutex {
    holder: MinioHolder,
    uid: String,
    resources: Vec<String>,
}

/// A grant of one locker.
type Grant = (usize, bool);

impl MinioMutex {
    /// Acquires the lock; `None` if that does not succeed in time.
    pub async fn lock(&self, kind: LockKind, longest: Duration) -> Option<MinioLock> {
        let deadline = now() + longest;
        let timing = &self.holder.0.timing;
        let mut pause_max = timing.retry_first;
        loop {
            if let Some(granted) = self.attempt(kind).await {
                return Some(MinioLock::new(self.clone(), kind, granted));
            }
            if now() >= deadline {
                return None;
            }
            sleep(self.holder.random(pause_max)).await;
            pause_max = (pause_max + timing.retry_step).min(timing.retry_max);
        }
    }

    /// Asks all lockers. Returns which of them granted it, if they are a quorum.
    async fn attempt(&self, kind: LockKind) -> Option<Vec<bool>> {
        let (lockers, quorum) = (self.holder.lockers(), self.holder.quorum(kind));
        let mut responses = self.send_lock(kind);
        let deadline = now() + self.holder.0.timing.attempt;
        let (mut granted, mut failed) = (vec![false; lockers], 0);
        for _ in 0..lockers {
            match timeout_at(deadline, responses.recv()).await {
                Ok(Some((index, true))) => granted[index] = true,
                Ok(Some((_, false))) => failed += 1,
                Ok(None) | Err(_) => break,
            }
            if failed > lockers - quorum {
                break;
            }
        }
        self.release_late_grants(kind, responses);
        if granted.iter().filter(|granted| **granted).count() >= quorum {
            return Some(granted);
        }
        self.release(kind, &mut granted).await;
        None
    }

    /// Sends the request to all lockers. The tasks outlive the attempt.
    fn send_lock(&self, kind: LockKind) -> mpsc::UnboundedReceiver<Grant> {
        let operation = match kind {
            LockKind::Write => MinioOperation::Lock,
            LockKind::Read => MinioOperation::ReadLock,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        for (index, target) in self.holder.0.lockers.iter().enumerate() {
            let (target, args, sender) = (target.clone(), self.args(kind), sender.clone());
            tokio::spawn(async move {
                let response = target.call(operation, args, CALL_TIMEOUT).await;
                let is_granted =
                    response.is_some_and(|response| response.code == MinioResponse::SUCCESS);
                // Without a receiver this process is at its end.
                let _ = sender.send((index, is_granted));
            });
        }
        receiver
    }

    fn release_late_grants(&self, kind: LockKind, mut late: mpsc::UnboundedReceiver<Grant>) {
        let mutex = self.clone();
        tokio::spawn(async move {
            while let Some((index, is_granted)) = late.recv().await {
                let mut granted = vec![false; mutex.holder.lockers()];
                granted[index] = is_granted;
                if is_granted {
                    mutex.release(kind, &mut granted).await;
                }
            }
        });
    }

    /// Sends a release to the lockers that granted the lock, and clears those that confirm it.
    /// Returns whether enough of them did.
    async fn release(&self, kind: LockKind, granted: &mut [bool]) -> bool {
        let operation = match kind {
            LockKind::Write => MinioOperation::Unlock,
            LockKind::Read => MinioOperation::ReadUnlock,
        };
        let longest = self.holder.0.timing.release;
        let asked = granted.to_vec();
        let args = self.args(kind);
        let responses = self.holder.call_all(operation, &args, longest, |index| asked[index]).await;
        for (granted, response) in granted.iter_mut().zip(&responses) {
            *granted &= response.as_ref().is_none_or(MinioResponse::is_error);
        }
        let failed = granted.iter().filter(|granted| **granted).count();
        match self.holder.lockers() {
            lockers if lockers.is_multiple_of(2) => failed < lockers / 2,
            lockers => failed <= lockers / 2,
        }
    }

    fn args(&self, kind: LockKind) -> MinioArgs {
        MinioArgs {
            uid: self.uid.clone(),
            resources: self.resources.clone(),
            owner: self.holder.0.owner.clone(),
            source: "a test double of MinIO".to_owned(),
            quorum: i64::try_from(self.holder.quorum(kind)).ok(),
        }
    }

    fn args_of_uid(&self) -> MinioArgs {
        MinioArgs { uid: self.uid.clone(), ..MinioArgs::default() }
    }
}

/// A held lock, refreshed until it is unlocked, dropped or lost. Dropping it releases nothing, as a
/// crash.
#[derive(Debug)]
pub struct MinioLock {
    mutex: MinioMutex,
    kind: LockKind,
    granted: Vec<bool>,
    is_lost: Arc<AtomicBool>,
    /// Dropping it ends the refreshes.
    _refreshes: oneshot::Sender<()>,
}

impl MinioLock {
    fn new(mutex: MinioMutex, kind: LockKind, granted: Vec<bool>) -> Self {
        let (refreshes, mut ended) = oneshot::channel();
        let is_lost = Arc::new(AtomicBool::new(false));
        let (refreshed, lost) = (mutex.clone(), Arc::clone(&is_lost));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = &mut ended => {}
                () = refreshed.refresh_until_lost(kind) => {
                    lost.store(true, Ordering::SeqCst);
                    refreshed.force_unlock().await;
                }
            }
        });
        Self { mutex, kind, granted, is_lost, _refreshes: refreshes }
    }

    /// Returns the UID.
    pub fn uid(&self) -> &str {
        &self.mutex.uid
    }

    /// Returns whether the lock was lost: too many lockers do not know it.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::SeqCst)
    }

    /// Unlocks in the background. The future resolves when enough lockers have confirmed it.
    pub fn unlock(self) -> impl Future<Output = bool> + Send + 'static {
        let Self { mutex, kind, mut granted, .. } = self;
        let timing = mutex.holder.0.timing.clone();
        let releasing = tokio::spawn(timeout(timing.release, async move {
            while !mutex.release(kind, &mut granted).await {
                sleep(mutex.holder.random(timing.release_retry)).await;
            }
        }));
        async move { matches!(releasing.await, Ok(Ok(()))) }
    }
}

impl MinioMutex {
    async fn refresh_until_lost(&self, kind: LockKind) {
        let MinioTiming { refresh, refresh_call, .. } = self.holder.0.timing;
        let tolerance = self.holder.lockers() - self.holder.quorum(kind);
        let mut timer = interval(refresh);
        timer.tick().await;
        loop {
            timer.tick().await;
            let args = self.args_of_uid();
            let responses =
                self.holder.call_all(MinioOperation::Refresh, &args, refresh_call, |_| true).await;
            let unknown = responses.iter().flatten();
            let unknown = unknown.filter(|response| response.code == MinioResponse::NOT_FOUND);
            if unknown.count() > tolerance {
                return;
            }
        }
    }

    async fn force_unlock(&self) {
        let longest = self.holder.0.timing.release;
        let args = self.args_of_uid();
        self.holder.call_all(MinioOperation::ForceUnlock, &args, longest, |_| true).await;
    }
}
