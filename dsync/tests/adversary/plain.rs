//! A locker of the MinIO type: no leases, tokens, tickets or tombstones. The network delivers its
//! requests in any order, as its concurrent handlers execute them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dsync::limits::LEASE;
use dsync::proto::hold::{Request, Response};
use dsync::proto::quorum::LockKind;
use dsync::proto::table::{Granted, LockRequest, RefreshOutcome, Refusal};
use dsync::proto::token::Token;
use grid::time::Instant;

/// Grants by id.
#[derive(Debug, Default)]
pub(super) struct PlainTable {
    grants: BTreeMap<Arc<str>, PlainGrant>,
    swept_at: Instant,
}

#[derive(Debug)]
struct PlainGrant {
    kind: LockKind,
    resources: Vec<Arc<str>>,
    refreshed_at: Instant,
}

impl PlainTable {
    pub(super) fn new(now: Instant) -> Self {
        Self { grants: BTreeMap::new(), swept_at: now }
    }

    /// Handles a request; `None` if it does not know it.
    pub(super) fn handle(&mut self, request: &Request, now: Instant, lease: Duration) -> Response {
        self.sweep(now, lease);
        match request {
            Request::Lock(request) => Response::Lock(self.lock(request, now)),
            Request::Refresh(refresh) => {
                Response::Refresh(match self.grants.get_mut(&refresh.uid) {
                    Some(grant) => {
                        grant.refreshed_at = now;
                        RefreshOutcome::Held { lease: LEASE }
                    }
                    None => RefreshOutcome::NotFound,
                })
            }
            Request::Unlock { uid, .. } | Request::PlainUnlock { uid, .. } => {
                self.grants.remove(uid);
                Response::Released
            }
            Request::CancelTicket(_) | Request::Wait(_) => panic!("B59: {request:?} is unknown"),
        }
    }

    fn lock(&mut self, request: &LockRequest, now: Instant) -> Result<Granted, Refusal> {
        let resources: Vec<_> = request.resources.iter().cloned().collect();
        if request.kind == LockKind::Read && resources.len() > 1 {
            return Err(Refusal::Full);
        }
        let is_free = self.grants.values().all(|grant| {
            !grant.kind.excludes(request.kind)
                || grant.resources.iter().all(|name| !resources.contains(name))
        });
        if !is_free || self.grants.contains_key(&request.uid) {
            return Err(Refusal::Conflict);
        }
        let grant = PlainGrant { kind: request.kind, resources, refreshed_at: now };
        self.grants.insert(Arc::clone(&request.uid), grant);
        Ok(Granted { token: Token::default(), lease: LEASE })
    }

    /// Drops grants without a refresh for a lease, once a lease.
    fn sweep(&mut self, now: Instant, lease: Duration) {
        if now.since(self.swept_at) >= lease {
            self.swept_at = now;
            self.grants.retain(|_, grant| now.since(grant.refreshed_at) <= lease);
        }
    }

    /// Returns the number of grants.
    pub(super) fn len(&mut self, now: Instant, lease: Duration) -> usize {
        self.sweep(now, lease);
        self.grants.len()
    }
}
