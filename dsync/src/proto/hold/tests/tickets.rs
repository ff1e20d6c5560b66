//! The ticket of a lock at its holder, and attempts that are made only once.

use super::*;
use crate::limits::TICKET_RENEWAL;

impl Harness {
    /// Refuses a lock request, and says which ticket was queued last.
    fn refuse(&mut self, locker: usize, stamp: TokenStamp, last_ticket: Token) {
        let rpc = self.rpc(locker, is_lock);
        let queue = QueueReport { is_queued: true, last_ticket };
        self.respond_with(locker, rpc, Ok(CONFLICT), (Some(stamp), queue));
    }

    /// Returns the tickets of the requests that are in flight.
    fn tickets(&self) -> Vec<Option<Ticket>> {
        let ticket = |request: &Request| match request {
            Request::Lock(request) | Request::Wait(request) => request.ticket.clone(),
            Request::Unlock { waiter, .. } => waiter.as_ref().and_then(|own| own.ticket.clone()),
            Request::CancelTicket(ticket) => Some(ticket.clone()),
            Request::Refresh(_) | Request::PlainUnlock { .. } => None,
        };
        self.in_flight.values().map(|(_, request)| ticket(request)).collect()
    }

    /// Returns the ids of the wait requests in flight.
    fn waits(&self) -> Vec<RpcId> {
        let waits = self.in_flight.iter().filter(|(_, (_, request))| is_wait(request));
        waits.map(|(rpc, _)| *rpc).collect()
    }
}

/// Returns a lock that waits for notifications of all three lockers, at most for about `retry_max`.
fn waiting(retry_max: Duration) -> Harness {
    let limits = Limits { retry_max, ..Limits::default() };
    let mut harness = Harness::new(HoldConfig { limits, ..config(3, LockKind::Write) });
    for locker in 0..2 {
        harness.respond(locker, is_lock, CONFLICT);
    }
    harness.respond(2, is_unlock, Response::Released);
    assert_eq!(harness.pending(|_| true), [0, 1, 2], "one wait request each");
    harness
}

#[test]
fn b58_one_ticket_is_kept_over_all_attempts() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    assert_eq!(harness.tickets(), [None, None, None], "the first attempt is the youngest request");
    let last = HIGH.later_by(LEASE);
    harness.refuse(0, STAMP, last);
    harness.refuse(1, STAMP, Token::default());
    let expected = Some(Ticket { time: last.next(), id: "lock".into() });
    let later = TokenStamp { highest: HIGH, wall: last.later_by(LEASE) };
    for attempt in 2..6 {
        assert!(harness.tickets().iter().all(|ticket| *ticket == expected), "attempt {attempt}");
        for locker in harness.pending(is_unlock) {
            harness.respond(locker, is_unlock, Response::Released);
        }
        harness.advance(Limits::default().retry_max);
        assert_eq!(harness.pending(is_lock), [0, 1, 2], "attempt {attempt}");
        assert!(harness.tickets().iter().all(|ticket| *ticket == expected), "attempt {attempt}");
        harness.refuse(0, later, last.later_by(LEASE));
        harness.refuse(1, later, last.later_by(LEASE));
    }
}

#[test]
fn b58_the_time_of_a_ticket_is_that_of_the_clocks_and_not_of_the_tokens() {
    let mut harness = Harness::new(config(1, LockKind::Write));
    let wall = HIGH.later_by(Duration::from_secs(1));
    harness.refuse(0, TokenStamp { highest: HIGH.later_by(LEASE), wall }, Token::default());
    assert_eq!(harness.tickets(), [Some(Ticket { time: wall, id: "lock".into() })]);
}

#[test]
fn b58_the_time_of_a_ticket_waits_for_the_responses_of_a_read_quorum() {
    let mut harness = Harness::new(config(5, LockKind::Write));
    for locker in 0..2 {
        let rpc = harness.rpc(locker, is_lock);
        harness.respond_to(locker, rpc, Err(Failure { may_have_run: false }));
    }
    harness.refuse(2, STAMP, Token::default());
    harness.refuse(3, STAMP, Token::default());
    assert_eq!(harness.pending(|_| true), [4], "two of five may not know the latest ticket");
    harness.refuse(4, STAMP, HIGH.later_by(LEASE));
    let expected = Some(Ticket { time: HIGH.later_by(LEASE).next(), id: "lock".into() });
    assert_eq!(harness.tickets(), [expected.clone(), expected.clone(), expected]);
}

#[test]
fn b58_the_release_of_a_failed_attempt_keeps_the_ticket_and_that_of_an_ended_lock_does_not() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    harness.grant([0]);
    harness.respond(1, is_lock, CONFLICT);
    harness.respond(2, is_lock, CONFLICT);
    let waiter = |harness: &Harness| match &harness.in_flight[&harness.rpc(0, is_unlock)].1 {
        Request::Unlock { waiter, .. } => waiter.clone().and_then(|waiter| waiter.ticket),
        other => panic!("{other:?}"),
    };
    assert!(waiter(&harness).is_some());
    harness.hold.release(harness.now);
    harness.collect();
    assert_eq!(harness.pending(is_cancel), [1, 2], "the first one is queued by its release");
    harness.fail(0, is_unlock);
    assert_eq!(harness.pending(is_cancel), [1, 2, 0]);
    harness.advance(Duration::from_secs(1));
    assert_eq!(waiter(&harness), None);
    assert!(!harness.hold.is_finished());
    harness.respond(0, is_unlock, Response::Released);
    assert!(!harness.hold.is_finished(), "the ticket is not cancelled yet");
    for locker in harness.pending(is_cancel) {
        harness.respond(locker, is_cancel, Response::Released);
    }
    assert!(harness.hold.is_finished());
}

#[test]
fn b58_a_held_lock_cancels_its_ticket_where_it_is_queued_and_not_granted() {
    let mut harness = waiting(LEASE * 10);
    harness.respond(0, is_wait, NOTIFIED);
    assert!(harness.pending(is_lock).is_empty(), "one notification is not enough");
    harness.respond(1, is_wait, NOTIFIED);
    harness.grant([0, 1]);
    assert!(harness.is_held());
    assert!(harness.pending(is_cancel).is_empty(), "the request to the third may yet be granted");
    harness.respond(2, is_lock, CONFLICT);
    assert_eq!(harness.pending(is_cancel), [2]);
    assert!(harness.pending(is_wait).is_empty());
}

#[test]
fn b58_a_ticket_is_renewed_at_intervals_and_when_a_connection_broke() {
    let mut harness = waiting(LEASE * 10);
    let first = harness.waits();
    harness.advance(TICKET_RENEWAL);
    let second = harness.waits();
    assert_eq!(harness.pending(is_wait), [0, 1, 2]);
    assert!(second.iter().all(|rpc| !first.contains(rpc)), "new requests replace the earlier ones");
    harness.fail(1, is_wait);
    assert_eq!(harness.pending(is_wait), [0, 2], "not at once");
    harness.advance(Limits::default().retry_first * 4);
    let third: Vec<_> = harness.waits().into_iter().filter(|rpc| second.contains(rpc)).collect();
    assert_eq!((harness.waits().len(), third.len()), (3, 2), "only that of the second is new");
}

#[test]
fn b58_a_long_poll_stays_outstanding_over_attempts() {
    let mut harness = waiting(Limits::default().retry_max);
    let before = harness.waits();
    while harness.pending(is_lock).is_empty() {
        harness.advance(Duration::from_millis(100));
    }
    assert_eq!(harness.waits(), before, "during the attempt");
    harness.respond(0, is_lock, CONFLICT);
    harness.respond(1, is_lock, CONFLICT);
    assert_eq!(harness.waits(), before, "and after it");
}

#[test]
fn b55_a_try_makes_one_attempt_and_ends_at_once() {
    let attempt_limit = AttemptLimit::Once;
    let new = || Harness::new(HoldConfig { attempt_limit, ..config(4, LockKind::Write) });
    let mut harness = new();
    harness.respond(0, is_lock, CONFLICT);
    harness.respond(1, is_lock, Response::Lock(Err(Refusal::QueuedAhead)));
    assert_eq!(harness.hold.status(harness.now), Status::Ended(EndReason::NotAcquired));
    assert_eq!(harness.pending(is_unlock), [2, 3]);
    assert_eq!(harness.pending(|_| true), [2, 3], "no wait request");
    let stats = harness.hold.stats();
    let counts = [stats.in_conflict, stats.queued_ahead, stats.not_waited_for, stats.unreachable];
    assert_eq!(counts, [1, 1, 2, 0], "a locker that was not waited for is not unreachable");
    let mut harness = new();
    harness.grant(0..3);
    assert!(harness.is_held());
}

#[test]
fn b58_a_waiter_that_some_lockers_have_notified_keeps_its_reservation_while_others_still_can() {
    let mut harness = Harness::new(config(2, LockKind::Write));
    harness.respond(0, is_lock, CONFLICT);
    harness.respond(1, is_unlock, Response::Released);
    assert_eq!(harness.pending(is_wait), [0, 1]);
    harness.respond(0, is_wait, NOTIFIED);
    let half = Limits::default().reservation / 2;
    for _ in 0..4 {
        assert_eq!(harness.pending(is_wait), [1]);
        harness.advance(half);
        assert_eq!(harness.pending(is_wait), [1, 0], "the first one learns that it still waits");
        harness.respond(0, is_wait, NOTIFIED);
    }
    harness.advance(half);
    harness.respond(1, is_wait, NOTIFIED);
    assert_eq!(harness.pending(is_lock), [0, 1], "one that is asked again is as free as before");
}

#[test]
fn b58_a_waiter_without_a_quorum_that_can_notify_it_lets_others_pass() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    harness.respond(0, is_lock, CONFLICT);
    for locker in 1..3 {
        harness.fail(locker, is_lock);
    }
    harness.respond(0, is_wait, NOTIFIED);
    let renewal = harness.hold.lockers[0].wait_at.map(|at| at.since(harness.now));
    assert_eq!(renewal, Some(TICKET_RENEWAL), "it cannot use the reservation");
}
