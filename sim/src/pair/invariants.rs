//! What must hold in a world after each operation, and once everything was delivered or closed.

use std::collections::BTreeSet;

use grid::proto::connection::{CloseReason, Connection};
use grid::time::Instant;

use super::operation::{End, How};
use super::{Call, World};

impl World {
    pub(super) fn check(&mut self) {
        let now = self.now;
        let limits = self.limits.clone();
        for end in End::BOTH {
            let live = self.live_calls_of(end).len();
            let side = self.side(end);
            let connection = &side.connection;
            assert_eq!(connection.live_calls(), live, "the machine's account is the world's");
            assert!(connection.live_calls() <= limits.calls_made_max);
            assert!(connection.live_served() <= limits.calls_served_max);
            assert!(connection.live_served() >= side.running.len());
            assert!(side.running.keys().all(|mux_id| connection.is_serving(*mux_id)));
            let bound = limits.queue_bytes_max + limits.control_bytes_max;
            assert!(connection.queued_bytes() <= bound, "the queue is bounded");
            let blocked = connection.blocked_messages();
            assert!(blocked <= connection.live_calls() + connection.live_served());
            assert!(blocked == 0 || connection.wants_transmit(), "who waits will be woken");
            assert_eq!(connection.wants_transmit(), connection.queued_bytes() > 0);
            if side.is_closed {
                assert_nothing_is_left(&mut side.connection, now);
            }
        }
        for call in self.calls.iter().filter(|call| call.end.is_none()) {
            assert!(call.deadline > now, "no call outlives its deadline");
        }
    }

    fn live_calls_of(&self, end: End) -> BTreeSet<u64> {
        let live = |call: &&Call| call.caller == end && call.end.is_none();
        self.calls.iter().filter(live).map(|call| call.mux_id).collect()
    }

    /// Delivers whatever waits, in both directions, until nothing moves.
    fn deliver_everything(&mut self) {
        loop {
            for end in End::BOTH {
                self.transmit(end, usize::MAX);
                self.take_events();
            }
            if [&self.a, &self.b].iter().all(|side| side.wire.is_empty() && !side.is_closed) {
                return self.check();
            }
            for end in End::BOTH {
                let waiting = self.side(end.other()).wire.len();
                self.receive(end, waiting + 1);
                self.take_events();
            }
            if self.a.is_closed && self.b.is_closed {
                return self.check();
            }
            self.check();
        }
    }

    /// Every call under way is answered, and the answers arrive.
    ///
    /// # Panics
    ///
    /// Where a machine does not do as it promises.
    pub fn finish_everything(&mut self) {
        self.deliver_everything();
        if !self.a.is_closed {
            for end in End::BOTH {
                let running: BTreeSet<_> = self.side(end).running.keys().copied().collect();
                let wanted = self.live_calls_of(end.other());
                assert_eq!(running, wanted, "what is served is what is waited for (B11)");
                for mux_id in running {
                    self.finish(end, mux_id, How::Answer);
                    self.take_events();
                    self.check();
                }
            }
        }
        self.deliver_everything();
        let left = self.calls.iter().filter(|call| call.end.is_none()).count();
        assert_eq!(left, 0, "after everything was delivered no call is without an end (B14)");
        for side in [&self.a, &self.b] {
            assert!(side.connection.is_idle(), "nothing is under way");
        }
    }

    /// The connection is cut, and both ends know.
    ///
    /// # Panics
    ///
    /// Where a machine leaves anything behind.
    pub fn close_everything(&mut self) {
        for end in End::BOTH {
            self.side(end).connection.close(CloseReason::Transport("cut".into()));
        }
        self.take_events();
        self.check();
        let left = self.calls.iter().filter(|call| call.end.is_none()).count();
        assert_eq!(left, 0, "after the end of the connection no call is without an end (B14)");
    }
}

/// B05, and that a connection which is over stays so.
fn assert_nothing_is_left(connection: &mut Connection, now: Instant) {
    assert_eq!(connection.live_calls(), 0);
    assert_eq!(connection.live_served(), 0);
    assert_eq!(connection.queued_bytes(), 0);
    assert_eq!(connection.blocked_messages(), 0);
    assert_eq!(connection.poll_timeout(), None);
    assert_eq!(connection.poll_transmit(now), None);
    assert!(connection.is_idle());
}
