//! One lock of this process, shared by its guard and its driver.

use std::sync::Arc;

use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::{Notify, watch};

use crate::error::{LossReason, UnlockReport};
use crate::proto::hold::{Hold, Output, Status};
use crate::validity::{Published, Validity};

/// One lock of this process: its state machine, and the state shared with its guard and driver.
#[derive(Debug)]
pub(crate) struct Lock {
    number: u64,
    hold: Mutex<Hold>,
    validity: Validity,
    /// Text of the last refusal that has no code of its own.
    error: Mutex<Option<Arc<str>>>,
    /// Wakes the driver after a change by another task.
    changed: Notify,
    ended: watch::Sender<Option<LossReason>>,
    released: watch::Sender<Release>,
}

/// Progress of a lock's release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Release {
    report: UnlockReport,
    is_finished: bool,
}

impl Release {
    fn of(hold: &Hold) -> Self {
        Self { report: hold.unlock_report(), is_finished: hold.is_finished() }
    }
}

impl Lock {
    pub(crate) fn new(number: u64, hold: Hold) -> Self {
        let released = watch::Sender::new(Release::of(&hold));
        Self {
            number,
            hold: Mutex::new(hold),
            validity: Validity::default(),
            error: Mutex::default(),
            changed: Notify::new(),
            ended: watch::Sender::new(None),
            released,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn validity(&self) -> &Validity {
        &self.validity
    }

    /// Records the text of a refusal, for the error of the acquisition.
    pub(crate) fn record_error(&self, error: Arc<str>) {
        *self.error.lock() = Some(error);
    }

    /// Returns the text of the last refusal that has no code of its own.
    pub(crate) fn last_error(&self) -> Option<Arc<str>> {
        self.error.lock().clone()
    }

    /// Applies a change as the driver: publishes the status, and collects the outputs.
    pub(crate) fn drive<R>(
        &self,
        now: Instant,
        out: &mut Vec<Output>,
        change: impl FnOnce(&mut Hold) -> R,
    ) -> R {
        let (result, status, release) = {
            let mut hold = self.hold.lock();
            let result = change(&mut hold);
            if let Status::Held { until, .. } = hold.status(now)
                && self.validity.publish(until) == Published::HasEnded
            {
                hold.expire(now);
            }
            out.extend(std::iter::from_fn(|| hold.poll_output()));
            (result, hold.status(now), Release::of(&hold))
        };
        self.publish_status(status, Some(release));
        result
    }

    fn publish_status(&self, status: Status, release: Option<Release>) {
        if let Status::Ended(end) = status {
            self.validity.revoke();
            self.ended.send_if_modified(|ended| ended.replace(end.into()).is_none());
        }
        if let (Status::Ended(_), Some(release)) = (status, release) {
            self.released.send_if_modified(|known| std::mem::replace(known, release) != release);
        }
    }

    /// Applies a change as another task, and wakes the driver.
    pub(crate) fn apply<R>(&self, now: Instant, change: impl FnOnce(&mut Hold) -> R) -> R {
        let (result, status) = {
            let mut hold = self.hold.lock();
            let result = change(&mut hold);
            (result, hold.status(now))
        };
        self.publish_status(status, None);
        self.changed.notify_one();
        result
    }

    /// Reads from the hold.
    pub(crate) fn inspect<R>(&self, read: impl FnOnce(&Hold) -> R) -> R {
        read(&self.hold.lock())
    }

    /// Releases the lock, or cancels its acquisition.
    pub(crate) fn release(&self, now: Instant) {
        self.apply(now, |hold| hold.release(now));
    }

    /// Resolves when [`apply`](Self::apply) has been called since this last resolved.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves when the lock is no longer held.
    pub(crate) fn ended(self: &Arc<Self>) -> impl Future<Output = LossReason> + Send + use<> {
        let mut ended = self.ended.subscribe();
        async move {
            let end = ended.wait_for(Option::is_some).await;
            end.map_or(LossReason::Expired, |end| end.unwrap_or(LossReason::Expired))
        }
    }

    /// Resolves when no locker has a grant of the lock left, or when its driver has ended.
    pub(crate) fn released(&self) -> impl Future<Output = UnlockReport> + Send + use<> {
        let mut released = self.released.subscribe();
        async move {
            // Without a sender the driver has ended: nothing more is confirmed.
            let _ = released.wait_for(|release| release.is_finished).await;
            let release = *released.borrow();
            release.report
        }
    }
}
