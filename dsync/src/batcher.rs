//! Refreshes of many locks at one locker, sent together.
//!
//! The first refresh of a batch opens it. It is sent when it is full, or a short window later: much
//! shorter than the time for which the votes are still valid. A refresh counts from when its hold
//! decided to send it, which is before the batch is sent ([B52](crate::rules#b52)).

use std::sync::Arc;
use std::time::Duration;

use grid::sync::Mutex;
use tokio::sync::oneshot;

use crate::error::LockerError;
use crate::limits::{REFRESH_BATCH_BYTES_MAX, REFRESHES_PER_BATCH};
use crate::locker::{Locker, ResponseFuture, StampedResponse};
use crate::proto::table::RefreshRequest;

/// Collects refreshes for one locker.
pub(crate) struct RefreshBatcher {
    locker: Arc<dyn Locker>,
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
        self.bytes = 0;
        std::mem::take(&mut self.members)
    }

    /// Adds a refresh. Returns the batches that are full now.
    fn add(&mut self, member: Member) -> [Vec<Member>; 2] {
        let bytes = member.bytes();
        let is_full = !self.members.is_empty() && self.bytes + bytes > REFRESH_BATCH_BYTES_MAX;
        let earlier = if is_full { self.take() } else { Vec::new() };
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
    pub(crate) fn new(locker: Arc<dyn Locker>) -> Self {
        Self { locker, open: Mutex::default() }
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
            let full = open.add(Member { refresh, respond });
            (full, (open.members.len() == 1).then_some(open.number))
        };
        for batch in full.into_iter().filter(|batch| !batch.is_empty()) {
            tokio::spawn(send(Arc::clone(&self.locker), batch, timeout));
        }
        if let Some(number) = opened {
            tokio::spawn(Arc::clone(self).send_later(number, window, timeout));
        }
        Box::pin(async move {
            response.await.unwrap_or_else(|_| {
                let message = "the batch of the refresh was dropped".to_owned();
                Err(LockerError { may_have_run: true, message })
            })
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
