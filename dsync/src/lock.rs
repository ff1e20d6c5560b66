//! One lock of this process, shared by its guard and its driver.

use std::sync::Arc;

use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::{Notify, watch};

use crate::error::LossReason;
use crate::proto::hold::{Hold, Output, Status};
use crate::validity::{Published, Validity};

/// One lock of this process: its state machine, and the state shared with its guard and driver.
#[derive(Debug)]
pub(crate) struct Lock {
    number: u64,
    hold: Mutex<Hold>,
    validity: Validity,
    /// Wakes the driver after a change by another task.
    changed: Notify,
    ended: watch::Sender<Option<LossReason>>,
    released: watch::Sender<bool>,
}

impl Lock {
    pub(crate) fn new(number: u64, hold: Hold) -> Self {
        Self {
            number,
            hold: Mutex::new(hold),
            validity: Validity::default(),
            changed: Notify::new(),
            ended: watch::Sender::new(None),
            released: watch::Sender::new(false),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn validity(&self) -> &Validity {
        &self.validity
    }

    /// Applies a change as the driver: publishes the status, and collects the outputs.
    pub(crate) fn drive<R>(
        &self,
        now: Instant,
        out: &mut Vec<Output>,
        change: impl FnOnce(&mut Hold) -> R,
    ) -> R {
        let (result, status, is_released) = {
            let mut hold = self.hold.lock();
            let result = change(&mut hold);
            if let Status::Held { until, .. } = hold.status(now)
                && self.validity.publish(until) == Published::HasEnded
            {
                hold.expire(now);
            }
            out.extend(std::iter::from_fn(|| hold.poll_output()));
            (result, hold.status(now), hold.is_released())
        };
        self.publish_status(status, is_released);
        result
    }

    fn publish_status(&self, status: Status, is_released: bool) {
        if let Status::Ended(end) = status {
            self.validity.revoke();
            self.ended.send_if_modified(|ended| ended.replace(end.into()).is_none());
        }
        if is_released {
            self.released.send_replace(true);
        }
    }

    /// Applies a change as another task, and wakes the driver.
    pub(crate) fn apply<R>(&self, now: Instant, change: impl FnOnce(&mut Hold) -> R) -> R {
        let (result, status) = {
            let mut hold = self.hold.lock();
            let result = change(&mut hold);
            (result, hold.status(now))
        };
        self.publish_status(status, false);
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

    /// Resolves when others can acquire the lock.
    pub(crate) fn released(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let mut released = self.released.subscribe();
        async move {
            // The sender is dropped only after the lock has ended.
            let _ = released.wait_for(|is_released| *is_released).await;
        }
    }
}
