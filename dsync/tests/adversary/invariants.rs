//! Invariants, checked after every event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dsync::proto::hold::Status;
use dsync::proto::quorum::LockKind;
use dsync::proto::token::Token;
use rand::RngExt;

use super::{World, limits};

/// Highest tokens granted for a resource.
#[derive(Debug, Default)]
pub(super) struct History {
    writer: Token,
    any: Token,
}

impl World {
    /// Checks the token of a hold that has changed, and counts grants and losses.
    pub(super) fn observe_hold(&mut self, client: usize, number: u64) {
        let now = self.clients[client].clock.now(self.now);
        let Some(held) = self.clients[client].holds.get_mut(&number) else { return };
        let status = held.hold.status(now);
        self.observed_held |= matches!(status, Status::Held { .. });
        match status {
            Status::Held { token, .. } if held.held.is_none() => {
                held.held = Some(token);
                self.without_token += u64::from(token.is_none());
                let is_plain = self.faults.plain_lockers > 0;
                assert!(token.is_some() || is_plain, "B59: all lockers know tokens");
                self.granted += 1;
                self.second_rounds += u64::from(held.hold.stats().second_rounds > 0);
                let (kind, resources) = (held.kind, held.resources.clone());
                for (name, token) in resources.iter().zip(std::iter::repeat(token)) {
                    let Some(token) = token else { continue };
                    let history = self.history.entry(Arc::clone(name)).or_default();
                    let floor = if kind == LockKind::Write { history.any } else { history.writer };
                    assert!(token > floor, "B54: {kind} {name}: {token} after {floor}");
                    history.any = history.any.max(token);
                    if kind == LockKind::Write {
                        history.writer = token;
                    }
                }
                if self.rng.random_range(0..1_000) < self.faults.isolations && !self.is_healed {
                    self.isolate(client);
                }
            }
            Status::Held { token, .. } => {
                assert_eq!(held.held, Some(token), "the token of a held lock never changes");
            }
            Status::Ended(_) => {
                self.lost += u64::from(held.held.take().is_some());
                if held.hold.is_finished() {
                    let (id, started_at) = (Arc::clone(&held.id), held.started_at);
                    self.clients[client].holds.remove(&number);
                    self.check_released(&id, started_at);
                }
            }
            Status::Acquiring => assert_eq!(held.held, None, "a lock is acquired once"),
        }
    }

    /// Checks a hold that finished in less time than a lease: every locker that has not restarted
    /// meanwhile has confirmed the release, and has no grant of it left.
    fn check_released(&mut self, id: &str, hold_started_at: u64) {
        let lifetime = Duration::from_nanos(self.now - hold_started_at);
        if lifetime > limits().lease.mul_f64(0.9) {
            return;
        }
        for locker in self.lockers.iter_mut().filter(|locker| locker.started_at < hold_started_at) {
            let grants = locker.table.grants(locker.clock.now(self.now), usize::MAX, usize::MAX);
            let remaining = grants.iter().find(|grant| {
                grant.uid.rsplit_once('.').is_some_and(|(lock, _attempt)| lock == id)
            });
            assert!(remaining.is_none(), "B50: a finished lock has a grant: {remaining:?}");
        }
    }

    /// Checks that no writer and another holder of a resource both see it held.
    pub(super) fn check(&self) {
        let mut holders: BTreeMap<&Arc<str>, Vec<(LockKind, usize)>> = BTreeMap::new();
        for (index, client) in self.clients.iter().enumerate() {
            let now = client.clock.now(self.now);
            for held in client.holds.values() {
                if let Status::Held { token, .. } = held.hold.status(now) {
                    for name in held.resources.iter() {
                        let history = self.history.get(name);
                        let latest_conflicting = history.map(|history| match held.kind {
                            LockKind::Write => history.any,
                            LockKind::Read => history.writer,
                        });
                        assert!(
                            token.is_none() || token >= latest_conflicting,
                            "B54: {token:?} is held, though {latest_conflicting:?} was granted later"
                        );
                        holders.entry(name).or_default().push((held.kind, index));
                    }
                }
            }
        }
        for (name, holds) in holders {
            let writers = holds.iter().filter(|(kind, _)| *kind == LockKind::Write).count();
            assert!(writers == 0 || holds.len() == 1, "B51: {name} is held by {holds:?}");
        }
    }

    /// Returns the numbers of remaining grants and waiters at all lockers, and of holds.
    pub(crate) fn remaining(&mut self) -> (usize, usize, usize) {
        for locker in &mut self.lockers {
            locker.table.handle_timeout(locker.clock.now(self.now));
        }
        let (now, lease) = (self.now, limits().lease);
        let plain = self.lockers.iter_mut().filter_map(|locker| {
            let now = locker.clock.now(now);
            locker.plain.as_mut().map(|plain| plain.len(now, lease))
        });
        let plain_grants: usize = plain.sum();
        let sizes = self.lockers.iter().map(|locker| locker.table.sizes());
        let (grants, waiters) = sizes.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        let holds = self.clients.iter().map(|client| client.holds.len()).sum();
        (grants + plain_grants, waiters, holds)
    }
}
