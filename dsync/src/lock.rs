//! One lock of this process: its machine, and what its holder and its driver share.

use std::sync::{Arc, Mutex, PoisonError};

use grid::time::Instant;
use tokio::sync::{Notify, watch};

use crate::error::Lost;
use crate::proto::hold::{Hold, Output, Status};
use crate::validity::Validity;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lock {
    number: u64,
    hold: Mutex<Hold>,
    validity: Validity,
    /// Somebody else than its driver has done something to the machine.
    changed: Notify,
    ended: watch::Sender<Option<Lost>>,
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

    /// Does one thing to the machine, as its driver: makes known what came of it, and collects what
    /// it wants done.
    pub(crate) fn drive<R>(
        &self,
        now: Instant,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Hold) -> R,
    ) -> R {
        let (result, status, is_released) = {
            let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut hold);
            if let Status::Held { until, .. } = hold.status(now)
                && !self.validity.publish(until)
            {
                hold.lapse(now);
            }
            out.extend(std::iter::from_fn(|| hold.poll_output()));
            (result, hold.status(now), hold.is_released())
        };
        self.tell(status, is_released);
        result
    }

    fn tell(&self, status: Status, is_released: bool) {
        if let Status::Ended(end) = status {
            self.validity.revoke();
            self.ended.send_if_modified(|ended| ended.replace(end.into()).is_none());
        }
        if is_released {
            self.released.send_replace(true);
        }
    }

    /// Does one thing to the machine, as somebody else.
    pub(crate) fn act<R>(&self, now: Instant, act: impl FnOnce(&mut Hold) -> R) -> R {
        let (result, status) = {
            let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut hold);
            (result, hold.status(now))
        };
        self.tell(status, false);
        self.changed.notify_one();
        result
    }

    /// Asks the machine something.
    pub(crate) fn look<R>(&self, ask: impl FnOnce(&Hold) -> R) -> R {
        ask(&self.hold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody wants it any more.
    pub(crate) fn let_go(&self, now: Instant) {
        self.act(now, |hold| hold.let_go(now));
    }

    /// Resolves when [`act`](Self::act) was called since this last resolved.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves when it is not held any more.
    pub(crate) fn ended(self: &Arc<Self>) -> impl Future<Output = Lost> + Send + use<> {
        let mut ended = self.ended.subscribe();
        async move {
            let end = ended.wait_for(Option::is_some).await;
            end.map_or(Lost::Expired, |end| end.unwrap_or(Lost::Expired))
        }
    }

    /// Resolves when others can get it.
    pub(crate) fn released(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let mut released = self.released.subscribe();
        async move {
            // Its sender is gone only when it is over.
            let _ = released.wait_for(|is_released| *is_released).await;
        }
    }
}
