//! Whether this server grants and takes locks ([B65]): it does once the application has opened it,
//! for as long as a majority of all servers is known to run with the same list of lockers.
//!
//! [`Agreement`](crate::proto::agreement) decides the second. No timer opens the gate; one closes it:
//! the locker knows until when it may grant, so that a process that was suspended grants nothing when
//! it resumes.
//!
//! [B65]: crate::rules#b65

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grid::Env;
use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::Notify;

use crate::error::{LockError, NotReadyReason};
use crate::local::LocalLocker;
use crate::proto::agreement::{Agreement, ListHashes, NodeChange, NodeReport};
use crate::proto::hold::AttemptLimit;
use crate::proto::quorum::ListId;
use crate::wire::LockerStateResponse;

/// Admission of one server.
pub(crate) struct Admission {
    env: Env,
    /// Random id of this process.
    process: u64,
    local_locker: Option<LocalLocker>,
    state: Mutex<AdmissionState>,
    /// Whether this server does not belong to the cluster. Its drivers then send nothing that takes
    /// or extends a lock, also to other lockers.
    is_excluded: Arc<AtomicBool>,
    published: Mutex<Published>,
    /// Wakes in the order of the waits: a `watch` channel would wake them in random order.
    changed: Notify,
}

/// What decides whether this server is admitted.
struct AdmissionState {
    agreement: Agreement,
    opening: Opening,
}

/// Decision of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Opening {
    NotOpened,
    Opened,
    Closed { reason: Arc<str> },
}

/// State as waiting acquisitions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Published {
    Ready,
    NotReady(NotReadyReason),
    ShuttingDown,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Admission").field(&*self.published.lock()).finish()
    }
}

impl Admission {
    /// Returns the admission of a server that has just started: it is not admitted.
    pub(crate) fn new(agreement: Agreement, env: Env, local_locker: Option<LocalLocker>) -> Self {
        let list = ListId { epoch: 0, hash: agreement.hashes().list };
        if let Some(locker) = &local_locker {
            locker.set_list(list);
            locker.set_admitted_until(Instant::default());
        }
        Self {
            process: env.seed(),
            env,
            local_locker,
            state: Mutex::new(AdmissionState { agreement, opening: Opening::NotOpened }),
            is_excluded: Arc::new(AtomicBool::new(true)),
            published: Mutex::new(Published::NotReady(NotReadyReason::NotVerified)),
            changed: Notify::new(),
        }
    }

    /// Returns the flag that is set while this server does not belong to the cluster.
    pub(crate) fn exclusion(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_excluded)
    }

    /// Returns the hashes of this server's lists.
    pub(crate) fn hashes(&self) -> ListHashes {
        self.state.lock().agreement.hashes()
    }

    /// Handles the application's decision that this server belongs to the cluster.
    pub(crate) fn open(&self) {
        self.change(|state, _| state.opening = Opening::Opened);
    }

    /// Handles the application's decision that it does not, after all.
    pub(crate) fn close(&self, reason: &str) {
        let reason = reason.into();
        self.change(|state, _| state.opening = Opening::Closed { reason });
    }

    /// Handles a server's report to a query that was sent at `sent_at`.
    pub(crate) fn handle_report(&self, node: &str, report: NodeReport, sent_at: Instant) {
        let change =
            self.change(|state, now| state.agreement.handle_report(node, report, sent_at, now));
        match change {
            NodeChange::None => {}
            NodeChange::OtherList => tracing::warn!(
                target: "dsync", server = node,
                "list of lockers or lease differs, server gets no locks"
            ),
            NodeChange::OtherServers => tracing::error!(
                target: "dsync", server = node,
                "list of servers differs, locks unavailable"
            ),
            NodeChange::Equal => tracing::info!(
                target: "dsync", server = node, "list of lockers is the same now"
            ),
        }
    }

    /// Handles the passage of time. Returns when to call this next; `None` if time changes nothing.
    pub(crate) fn handle_timeout(&self) -> Option<Instant> {
        self.change(|state, now| match state.open_until(now) {
            Ok(until) => Some(until),
            Err(NotReadyReason::Settling { within, .. }) => Some(now + within),
            Err(_) => None,
        })
    }

    /// Handles the shutdown: waiting acquisitions end.
    pub(crate) fn shut_down(&self) {
        *self.published.lock() = Published::ShuttingDown;
        self.changed.notify_waiters();
    }

    /// Applies a change, then publishes whether this server is admitted.
    fn change<R>(&self, change: impl FnOnce(&mut AdmissionState, Instant) -> R) -> R {
        let (result, until) = {
            let mut state = self.state.lock();
            let now = self.env.now();
            let result = change(&mut state, now);
            let until = state.open_until(now);
            // Under the lock, so that the locker and the drivers see the changes in their order.
            if let Some(locker) = &self.local_locker {
                locker.set_admitted_until(*until.as_ref().unwrap_or(&Instant::default()));
            }
            self.is_excluded.store(until.as_ref().is_err_and(is_exclusion), Ordering::Release);
            (result, until)
        };
        self.publish(until);
        result
    }

    fn publish(&self, until: Result<Instant, NotReadyReason>) {
        let next = until.map_or_else(Published::NotReady, |_| Published::Ready);
        let earlier = {
            let mut published = self.published.lock();
            if *published == Published::ShuttingDown {
                return;
            }
            std::mem::replace(&mut *published, next.clone())
        };
        // Also if it was ready before: a wait may have seen an end by time that was not published.
        if earlier != next || next == Published::Ready {
            self.changed.notify_waiters();
        }
        if earlier == next {
            return;
        }
        match (earlier, next) {
            (_, Published::Ready) => tracing::info!(target: "dsync", "locks are available"),
            (Published::Ready, Published::NotReady(reason)) => tracing::warn!(
                target: "dsync", %reason, "locks are no longer available"
            ),
            _ => {}
        }
    }

    /// Returns why this server is not admitted.
    pub(crate) fn not_ready(&self) -> Option<NotReadyReason> {
        let now = self.env.now();
        self.state.lock().open_until(now).err()
    }

    /// Returns why this server does not belong to the cluster; `None` if it does.
    pub(crate) fn exclusion_reason(&self) -> Option<NotReadyReason> {
        self.not_ready().filter(is_exclusion)
    }

    /// Waits until this server is admitted, as long as this limit allows. Returns what is left of the
    /// limit.
    ///
    /// # Errors
    ///
    /// [`LockError::NotReady`] when the time has passed, at once for a single attempt, or
    /// [`LockError::ShuttingDown`].
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub(crate) async fn wait(&self, limit: AttemptLimit) -> Result<AttemptLimit, LockError> {
        let began = self.env.now();
        loop {
            let now = self.env.now();
            // Created first: it is woken by any change from here on.
            let changed = self.changed.notified();
            if *self.published.lock() == Published::ShuttingDown {
                return Err(LockError::ShuttingDown);
            }
            let left = match limit {
                AttemptLimit::Once => Some(Duration::ZERO),
                AttemptLimit::Timeout(timeout) => Some((began + timeout).since(now)),
                AttemptLimit::Unlimited => None,
            };
            let Some(reason) = self.not_ready() else {
                return Ok(match limit {
                    AttemptLimit::Timeout(timeout) => {
                        AttemptLimit::Timeout(left.unwrap_or(timeout))
                    }
                    AttemptLimit::Once | AttemptLimit::Unlimited => limit,
                });
            };
            if left == Some(Duration::ZERO) {
                return Err(LockError::NotReady { reason });
            }
            match left {
                // tokio's timers have a resolution of 1 ms.
                Some(left) => {
                    let left = left.max(Duration::from_millis(1));
                    let _ = tokio::time::timeout(left, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Returns the state of this server for others.
    pub(crate) fn state(&self) -> LockerStateResponse {
        let now = self.env.now();
        let base = self.local_locker.as_ref().map(LocalLocker::state).unwrap_or_default();
        let state = self.state.lock();
        let hashes = state.agreement.hashes();
        let up_for = state.agreement.up_for(now).as_millis();
        LockerStateResponse {
            list_hash: hashes.list,
            servers_hash: hashes.servers,
            up_for_ms: u64::try_from(up_for).unwrap_or(u64::MAX),
            process: self.process,
            is_gate_open: base.is_gate_open && state.open_until(now).is_ok(),
            ..base
        }
    }
}

/// Returns whether the reason is that this server does not belong to the cluster. One that merely does
/// not know enough of the others keeps its locks for as long as lockers extend them.
fn is_exclusion(reason: &NotReadyReason) -> bool {
    match reason {
        NotReadyReason::NotVerified
        | NotReadyReason::Closed { .. }
        | NotReadyReason::ServersDiffer { .. } => true,
        NotReadyReason::NoMajority { .. } | NotReadyReason::Settling { .. } => false,
    }
}

impl AdmissionState {
    /// Returns until when this server is admitted, or why it is not.
    fn open_until(&self, now: Instant) -> Result<Instant, NotReadyReason> {
        match &self.opening {
            Opening::NotOpened => Err(NotReadyReason::NotVerified),
            Opening::Closed { reason } => {
                Err(NotReadyReason::Closed { reason: Arc::clone(reason) })
            }
            Opening::Opened => self.agreement.open_until(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::limits::{LEASE, Limits};
    use crate::proto::agreement::AgreementConfig;

    /// A clock that is set by hand, as that of a machine which is suspended.
    struct ManualClock(Arc<AtomicU64>);

    impl grid::time::Clock for ManualClock {
        fn now(&self) -> Instant {
            Instant::from_nanos(self.0.load(Ordering::Relaxed))
        }

        fn wall(&self) -> grid::time::Timestamp {
            Env::system().wall()
        }
    }

    /// The admission of one of two servers, opened, and its clock.
    fn opened() -> (Arc<Admission>, Arc<AtomicU64>) {
        let nanos = Arc::new(AtomicU64::new(0));
        let env = Env::system().with_clock(ManualClock(Arc::clone(&nanos)));
        let hashes = ListHashes::of(["a", "b"], ["a", "b"], LEASE);
        let config = AgreementConfig::new(vec!["b".into()], hashes, &Limits::default());
        let agreement = Agreement::new(config, env.now());
        let admission = Admission::new(agreement, env, None);
        admission.open();
        (Arc::new(admission), nanos)
    }

    fn report(admission: &Admission) {
        let hashes = admission.hashes();
        let report = NodeReport::Hashes { hashes, process: 1, up_for: Duration::ZERO };
        admission.handle_report("b", report, admission.env.now());
    }

    #[tokio::test]
    async fn b65_an_acquisition_that_saw_the_gate_end_by_time_sees_it_open_again() {
        let (admission, nanos) = opened();
        report(&admission);
        assert_eq!(admission.not_ready(), None);
        // The machine was suspended: the gate has ended, and no timer has run yet.
        nanos.store(u64::try_from(LEASE.as_nanos()).expect("it fits"), Ordering::Relaxed);
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.wait(AttemptLimit::Unlimited).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the gate is closed");
        report(&admission);
        let left = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert_eq!(left.expect("it was woken").expect("no panic"), Ok(AttemptLimit::Unlimited));
    }

    #[test]
    fn b65_only_a_server_that_does_not_belong_to_the_cluster_stops_its_requests() {
        let (admission, _) = opened();
        let is_excluded = admission.exclusion();
        let is_set = || is_excluded.load(Ordering::Relaxed);
        assert!(!is_set(), "too few are known, but nothing is wrong with it");
        admission.close("another deployment");
        assert!(is_set());
        admission.open();
        report(&admission);
        assert!(!is_set());
    }
}
