//! Refreshes of many locks at one locker, sent together.
//!
//! The first refresh of a batch opens it. It is sent when it is full, or a short window later: much
//! shorter than the time for which the votes are still valid. A refresh counts from when its hold
//! decided to send it, which is before the batch is sent ([B52](crate::rules#b52)).

use std::sync::Arc;
use std::time::Duration;

use grid::Env;
use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::oneshot;

use crate::error::LockerError;
use crate::limits::{REFRESH_BATCH_BYTES_MAX, REFRESHES_PER_BATCH};
use crate::locker::{Locker, ResponseFuture, StampedResponse};
use crate::proto::table::RefreshRequest;

/// Collects refreshes for one locker.
pub(crate) struct RefreshBatcher {
    locker: Arc<dyn Locker>,
    env: Env,
    open: Mutex<OpenBatch>,
}

/// Refreshes that are not sent yet.
#[derive(Default)]
struct OpenBatch {
    /// Number of the batch, so that a timer sends only the batch that it was set for.
    number: u64,
    members: Vec<Member>,
    /// Total length of their resource names.
    bytes: usize,
    /// When the first of them was added.
    opened_at: Option<Instant>,
}

/// A refresh of the batch, and the call that waits for its response.
struct Member {
    refresh: RefreshRequest,
    respond: oneshot::Sender<Result<StampedResponse, LockerError>>,
}

impl Member {
    fn bytes(&self) -> usize {
        self.refresh.claim.as_ref().map_or(0, |claim| claim.request.resources.bytes())
    }
}

impl OpenBatch {
    fn take(&mut self) -> Vec<Member> {
        self.number += 1;
        (self.bytes, self.opened_at) = (0, None);
        std::mem::take(&mut self.members)
    }

    /// Adds a refresh. Returns the batches that are to be sent now: those that are full, and one
    /// that is overdue. Its timer has ended with the runtime that it was set in.
    fn add(&mut self, member: Member, window: Duration, now: Instant) -> [Vec<Member>; 2] {
        let bytes = member.bytes();
        let is_full = !self.members.is_empty() && self.bytes + bytes > REFRESH_BATCH_BYTES_MAX;
        let is_overdue = self.opened_at.is_some_and(|at| now.since(at) > window * 2);
        let earlier = if is_full || is_overdue { self.take() } else { Vec::new() };
        self.opened_at.get_or_insert(now);
        self.bytes += bytes;
        self.members.push(member);
        let full = match self.members.len() >= REFRESHES_PER_BATCH {
            true => self.take(),
            false => Vec::new(),
        };
        [earlier, full]
    }
}

impl RefreshBatcher {
    pub(crate) fn new(locker: Arc<dyn Locker>, env: Env) -> Self {
        Self { locker, env, open: Mutex::default() }
    }

    /// Refreshes a lock, together with others whose refreshes follow within `window`. To be called
    /// inside a tokio runtime. Dropping the future before the batch is sent removes the refresh from
    /// it.
    pub(crate) fn refresh(
        self: &Arc<Self>,
        refresh: RefreshRequest,
        window: Duration,
        timeout: Duration,
    ) -> ResponseFuture<StampedResponse> {
        let (respond, response) = oneshot::channel();
        let (full, opened) = {
            let mut open = self.open.lock();
            let full = open.add(Member { refresh, respond }, window, self.env.now());
            (full, (open.members.len() == 1).then_some(open.number))
        };
        for batch in full.into_iter().filter(|batch| !batch.is_empty()) {
            tokio::spawn(send(Arc::clone(&self.locker), batch, timeout));
        }
        if let Some(number) = opened {
            tokio::spawn(Arc::clone(self).send_later(number, window, timeout));
        }
        Box::pin(async move {
            let limit = window * 2 + timeout;
            let message = match tokio::time::timeout(limit, response).await {
                Ok(Ok(response)) => return response,
                Ok(Err(_)) => "the batch of the refresh was dropped".to_owned(),
                Err(_) => "the batch of the refresh got no response in time".to_owned(),
            };
            Err(LockerError { may_have_run: true, message })
        })
    }

    /// Sends the batch with this number after `window`, unless it is sent before.
    async fn send_later(self: Arc<Self>, number: u64, window: Duration, timeout: Duration) {
        tokio::time::sleep(window).await;
        let batch = {
            let mut open = self.open.lock();
            if open.number == number { open.take() } else { Vec::new() }
        };
        send(Arc::clone(&self.locker), batch, timeout).await;
    }
}

/// Sends a batch, and delivers the responses. Refreshes that are no longer wanted, because their
/// lock was released, are not sent.
async fn send(locker: Arc<dyn Locker>, batch: Vec<Member>, timeout: Duration) {
    let wanted = batch.into_iter().filter(|member| !member.respond.is_closed());
    let (refreshes, senders): (Vec<_>, Vec<_>) =
        wanted.map(|member| (member.refresh, member.respond)).unzip();
    if refreshes.is_empty() {
        return;
    }
    match locker.refresh_batch(refreshes, timeout).await {
        Ok(responses) => {
            for (sender, response) in senders.into_iter().zip(responses) {
                let _ = sender.send(response);
            }
        }
        Err(error) => {
            for sender in senders {
                let _ = sender.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::hold::Request;
    use crate::proto::table::ForceTarget;
    use crate::wire::LockerListing;

    const WINDOW: Duration = Duration::from_millis(500);
    const TIMEOUT: Duration = Duration::from_secs(5);

    /// A locker that never responds.
    struct SilentLocker;

    impl Locker for SilentLocker {
        fn name(&self) -> &'static str {
            "silent"
        }

        fn call(&self, _: Request, _: Duration) -> ResponseFuture<StampedResponse> {
            Box::pin(std::future::pending())
        }

        fn refresh_batch(
            &self,
            _: Vec<RefreshRequest>,
            _: Duration,
        ) -> ResponseFuture<Vec<Result<StampedResponse, LockerError>>> {
            Box::pin(std::future::pending())
        }

        fn list(&self, _: Duration) -> ResponseFuture<LockerListing> {
            Box::pin(std::future::pending())
        }

        fn force_unlock(&self, _: &ForceTarget, _: Duration) -> ResponseFuture<usize> {
            Box::pin(std::future::pending())
        }
    }

    fn refresh(uid: &str) -> RefreshRequest {
        RefreshRequest { uid: uid.into(), claim: None }
    }

    fn member(uid: &str) -> Member {
        Member { refresh: refresh(uid), respond: oneshot::channel().0 }
    }

    #[test]
    fn b52_a_batch_whose_timer_has_ended_is_sent_with_the_next_refresh() {
        let mut open = OpenBatch::default();
        let at = |windows: u32| Instant::default() + WINDOW * windows;
        let sent = |[earlier, full]: [Vec<Member>; 2]| [earlier.len(), full.len()];
        assert_eq!(sent(open.add(member("a"), WINDOW, at(0))), [0, 0]);
        assert_eq!(sent(open.add(member("b"), WINDOW, at(2))), [0, 0], "its timer may be late");
        let overdue = at(2) + Duration::from_millis(1);
        assert_eq!(sent(open.add(member("c"), WINDOW, overdue)), [2, 0]);
        assert_eq!(sent(open.add(member("d"), WINDOW, overdue + WINDOW)), [0, 0], "a new batch");
    }

    #[tokio::test(start_paused = true)]
    async fn b52_a_batched_refresh_without_a_response_fails_in_time() {
        let env = Env::system();
        let batcher = Arc::new(RefreshBatcher::new(Arc::new(SilentLocker), env.clone()));
        let began = env.now();
        let error = batcher.refresh(refresh("a"), WINDOW, TIMEOUT).await.expect_err("no response");
        assert!(error.may_have_run && error.message.contains("in time"), "{error}");
        let took = env.now().since(began);
        assert!(took <= WINDOW * 2 + TIMEOUT * 2, "{took:?}");
    }
}
