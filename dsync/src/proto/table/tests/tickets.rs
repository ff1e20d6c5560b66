//! Tickets in the table: what queues them, what they block, what ends them; and requests without.

use std::collections::BTreeMap;

use super::*;
use crate::limits::{BARGING_LIMIT, RESERVATION, TICKET_TTL};

const READ: LockKind = LockKind::Read;
const WRITE: LockKind = LockKind::Write;

fn ticket(time: u64) -> Ticket {
    Ticket { time: Token::new(time), id: format!("w{time}").into() }
}

/// Returns a request for `a` by the waiter with this ticket.
fn waiting(uid: &str, kind: LockKind, time: u64) -> LockRequest {
    LockRequest { ticket: Some(ticket(time)), ..request(uid, &["a"], kind) }
}

fn plain(uid: &str, kind: LockKind) -> LockRequest {
    LockRequest { supports_leases: false, ..request(uid, &["a"], kind) }
}

fn is_queued(table: &Table, time: u64) -> bool {
    table.queue_report(Some(&ticket(time))).is_queued
}

fn notified(table: &mut Table) -> Vec<u64> {
    std::iter::from_fn(|| table.poll_notification()).map(|ticket| ticket.time.get()).collect()
}

fn unlock(table: &mut Table, uid: &str, waiter: Option<&LockRequest>, now: Instant) {
    table.unlock(&uid.into(), waiter, now, WALL);
}

#[test]
fn b58_a_refusal_queues_the_ticket_in_its_position_at_once() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("held"), START).expect("it is free");
    for (uid, time) in [("2", 20), ("1", 10)] {
        assert_eq!(lock(&mut table, &waiting(uid, WRITE, time), START), Err(Refusal::Conflict));
        assert!(is_queued(&table, time));
    }
    let report = table.queue_report(Some(&ticket(30)));
    assert_eq!(report, QueueReport { is_queued: false, last_ticket: Token::new(20) });
    unlock(&mut table, "held", None, START);
    assert_eq!(notified(&mut table), [10], "the oldest, although it came later");
    let younger = lock(&mut table, &waiting("2b", WRITE, 20), START);
    assert_eq!(younger, Err(Refusal::QueuedAhead));
    let newcomer = lock(&mut table, &write("3"), START);
    assert_eq!(newcomer, Err(Refusal::QueuedAhead), "without a ticket it is the youngest");
    assert_eq!(lock(&mut table, &waiting("1b", WRITE, 10), START), Ok(()));
}

#[test]
fn b58_a_new_attempt_keeps_the_position_and_an_older_ticket_blocks_while_it_is_between_attempts() {
    let mut table = open(&Limits::default());
    lock(&mut table, &request("held", &["a"], READ), START).expect("it is free");
    for attempt in ["1.1", "1.2", "1.3"] {
        assert_eq!(lock(&mut table, &waiting(attempt, WRITE, 10), START), Err(Refusal::Conflict));
        assert!(is_queued(&table, 10));
        // Readers do not pass it, from its first refusal on.
        let reader = lock(&mut table, &waiting("2", READ, 20), START);
        assert_eq!(reader, Err(Refusal::QueuedAhead));
        assert_eq!(lock(&mut table, &request("3", &["a"], READ), START), Err(Refusal::QueuedAhead));
        unlock(&mut table, attempt, Some(&waiting(attempt, WRITE, 10)), START);
        assert!(is_queued(&table, 10));
    }
}

#[test]
fn b58_the_release_of_a_failed_attempt_queues_its_ticket_before_others_are_notified() {
    let mut table = open(&Limits::default());
    let older = waiting("1.1", WRITE, 10);
    assert_eq!(lock(&mut table, &older, START), Ok(()), "granted here, but not by a quorum");
    assert_eq!(lock(&mut table, &waiting("2.1", WRITE, 20), START), Err(Refusal::Conflict));
    unlock(&mut table, "1.1", Some(&older), START);
    assert_eq!(notified(&mut table), [10], "it is ahead, as if it had been refused");
    assert_eq!(lock(&mut table, &waiting("2.2", WRITE, 20), START), Err(Refusal::QueuedAhead));
    // A wait request finds the notification that no poll was there to receive.
    assert_eq!(table.wait(&older, START, WALL), WaitOutcome::Enqueued);
    assert_eq!(notified(&mut table), [10]);
}

#[test]
fn b58_a_release_without_a_waiter_ends_the_ticket_of_its_grant_and_no_other() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("held"), START).expect("it is free");
    assert_eq!(lock(&mut table, &waiting("1.1", WRITE, 10), START), Err(Refusal::Conflict));
    unlock(&mut table, "held", None, START);
    unlock(&mut table, "1.1", None, START);
    assert!(is_queued(&table, 10), "that attempt has no grant: another may be on the way");
    assert_eq!(lock(&mut table, &waiting("1.2", WRITE, 10), START), Ok(()));
    assert!(is_queued(&table, 10), "the attempt may still fail elsewhere");
    assert_eq!(table.sizes(), (1, 0), "though it does not wait here");
    unlock(&mut table, "1.2", None, START);
    assert!(!is_queued(&table, 10));
}

#[test]
fn b58_a_cancelled_ticket_is_not_queued_again_by_late_messages() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("held"), START).expect("it is free");
    let (older, younger) = (waiting("1.1", WRITE, 10), waiting("2.1", WRITE, 20));
    for request in [&older, &younger] {
        assert_eq!(lock(&mut table, request, START), Err(Refusal::Conflict));
    }
    unlock(&mut table, "held", None, START);
    assert_eq!(notified(&mut table), [10]);
    table.cancel_ticket(&ticket(10), START);
    assert_eq!(notified(&mut table), [20], "its reservation ends with it");
    unlock(&mut table, "1.1", Some(&older), START);
    assert_eq!(table.wait(&older, START, WALL), WaitOutcome::Refused);
    assert!(!is_queued(&table, 10));
    assert_eq!(lock(&mut table, &waiting("2.2", WRITE, 20), START), Ok(()));
}

#[test]
fn b58_a_waiter_that_is_gone_delays_the_next_by_one_reservation_and_keeps_its_position() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("held"), START).expect("it is free");
    for (uid, time) in [("1.1", 10), ("2.1", 20)] {
        assert_eq!(lock(&mut table, &waiting(uid, WRITE, time), START), Err(Refusal::Conflict));
    }
    unlock(&mut table, "held", None, START);
    assert_eq!(notified(&mut table), [10]);
    let missed = START + RESERVATION;
    assert_eq!(table.poll_timeout(), Some(missed));
    table.handle_timeout(missed);
    assert_eq!(notified(&mut table), [20]);
    assert!(is_queued(&table, 10));
    let states: Vec<_> =
        table.waiters(missed, 9, usize::MAX).into_iter().map(|waiter| waiter.state).collect();
    assert_eq!(states, [TicketState::Absent, TicketState::Notified]);
    // Back in contact, it is first again.
    assert_eq!(table.wait(&waiting("1.1", WRITE, 10), missed, WALL), WaitOutcome::Enqueued);
    assert_eq!(lock(&mut table, &waiting("2.2", WRITE, 20), missed), Err(Refusal::QueuedAhead));
    assert_eq!(lock(&mut table, &waiting("1.2", WRITE, 10), missed), Ok(()));
    table.handle_timeout(missed + TICKET_TTL);
    assert!(!is_queued(&table, 10) && !is_queued(&table, 20), "a ticket ends without contact");
}

#[test]
fn b58_a_restarted_locker_queues_tickets_and_notifies_them_when_it_opens() {
    let mut table = closed(&Limits::default(), &["n1"]);
    assert_eq!(lock(&mut table, &waiting("2.1", WRITE, 20), START), Err(Refusal::Closed));
    assert_eq!(table.wait(&waiting("1.1", WRITE, 10), START, WALL), WaitOutcome::Enqueued);
    assert!(is_queued(&table, 10) && is_queued(&table, 20));
    assert_eq!(notified(&mut table), [0; 0], "it grants nothing yet");
    let mut by_time = closed(&Limits::default(), &["n1"]);
    let late = START + (LEASE - TICKET_TTL / 2);
    assert_eq!(by_time.wait(&waiting("1.1", WRITE, 10), late, WALL), WaitOutcome::Enqueued);
    by_time.handle_timeout(START + LEASE);
    assert_eq!(notified(&mut by_time), [10]);
    table.handle_report("n1", Vec::new(), Token::default(), START, WALL);
    assert_eq!(notified(&mut table), [10]);
    assert_eq!(lock(&mut table, &waiting("2.2", WRITE, 20), START), Err(Refusal::QueuedAhead));
}

/// Returns the message delays from a writer's release until all `readers` that wait have the lock,
/// if they respond at once.
fn delays_until_all_read(readers: u64) -> u64 {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("held"), START).expect("it is free");
    for time in 0..readers {
        let refused = lock(&mut table, &waiting(&format!("{time}.1"), READ, time), START);
        assert_eq!(refused, Err(Refusal::Conflict));
    }
    let (mut delay, mut granted) = (1, 0);
    unlock(&mut table, "held", None, START);
    let mut arrivals: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    loop {
        // There and back.
        arrivals.entry(delay + 2).or_default().extend(notified(&mut table));
        let Some((at, locks)) = arrivals.pop_first().filter(|(_, locks)| !locks.is_empty()) else {
            break;
        };
        delay = at;
        for time in locks {
            assert_eq!(lock(&mut table, &waiting(&format!("{time}.2"), READ, time), START), Ok(()));
            granted += 1;
        }
    }
    assert_eq!(granted, readers, "without a timer: all are notified");
    delay + 1
}

#[test]
fn b58_a_thousand_readers_behind_a_writer_take_at_most_three_times_as_long_as_sixty_four() {
    let (few, many) = (delays_until_all_read(64), delays_until_all_read(1_000));
    assert_eq!(few, 4, "release, notification, request, response");
    assert!(many <= 3 * few, "{many} message delays, {few} for 64 readers");
}

#[test]
fn b59_an_id_without_leases_names_a_lock_which_can_be_granted_again_after_its_release() {
    for kind in [WRITE, READ] {
        let mut table = open(&Limits::default());
        let other = match kind {
            WRITE => READ,
            READ => WRITE,
        };
        let released = |table: &mut Table, owner, kind| {
            table.unlock_plain("m", owner, kind, START) == UnlockOutcome::Released
        };
        assert!(!released(&mut table, "n1", kind), "a release before its request ends nothing");
        for owner in ["n1", ""] {
            assert_eq!(lock(&mut table, &plain("m", kind), START), Ok(()));
            let again = lock(&mut table, &plain("m", kind), START);
            assert_eq!(again, Err(Refusal::Conflict), "not twice at once");
            assert!(!released(&mut table, "n2", kind), "another owner's");
            assert!(!released(&mut table, "n1", other), "another lock");
            assert!(released(&mut table, owner, kind));
            assert!(!released(&mut table, owner, kind));
        }
        assert_eq!(table.tombstones.len(), 0);
        assert_eq!(lock(&mut table, &plain("m", kind), START), Ok(()));
        table.force_unlock(&ForceTarget::Uid("m".to_owned()), START);
        assert_eq!(lock(&mut table, &plain("m", kind), START), Ok(()), "also if forced open");
    }
}

#[test]
fn b59_a_request_without_leases_waits_for_tickets_that_are_notified_or_old() {
    let mut table = open(&Limits::default());
    lock(&mut table, &request("held", &["a"], READ), START).expect("it is free");
    assert_eq!(lock(&mut table, &waiting("1.1", WRITE, 10), START), Err(Refusal::Conflict));
    assert_eq!(lock(&mut table, &plain("m", READ), START), Ok(()));
    let later = START + BARGING_LIMIT;
    assert_eq!(lock(&mut table, &plain("m2", READ), later), Err(Refusal::QueuedAhead));
    table.unlock_plain("m", "n1", READ, later);
    unlock(&mut table, "held", None, later);
    assert_eq!(notified(&mut table), [10]);
    assert_eq!(lock(&mut table, &plain("m3", READ), later), Err(Refusal::QueuedAhead));
    assert!(!table.waiters(later, 9, usize::MAX).is_empty());
    assert_eq!(table.sizes().1, 1, "plain requests are not queued");
}

#[test]
fn b53_a_refresh_at_a_closed_locker_extends_the_grant() {
    let mut table = closed(&Limits::default(), &["n1"]);
    let held = write("1");
    let reinstated = RefreshOutcome::Reinstated { lease: LEASE };
    assert_eq!(table.refresh(&refresh(&held, true), START, WALL), reinstated);
    let later = START + LEASE / 2;
    assert_eq!(table.refresh(&refresh(&held, true), later, WALL), reinstated);
    let last = later + (LEASE - Duration::from_nanos(1));
    assert_eq!(lock(&mut table, &write("2"), last), Err(Refusal::Conflict), "open, and still held");
    assert_eq!(lock(&mut table, &write("3"), later + LEASE), Ok(()));
}

#[test]
fn b53_a_refresh_at_an_open_locker_inserts_a_lock_that_nothing_excludes_even_if_others_wait() {
    let mut table = open(&Limits::default());
    let held = RefreshOutcome::Held { lease: LEASE };
    assert_eq!(table.wait(&waiting("2.1", WRITE, 20), START, WALL), WaitOutcome::Enqueued);
    assert_eq!(notified(&mut table), [20], "here it is free, though a quorum holds it elsewhere");
    assert_eq!(table.refresh(&refresh(&write("1"), false), START, WALL), held);
    assert_eq!(lock(&mut table, &waiting("2.2", WRITE, 20), START), Err(Refusal::Conflict));
    let other = table.refresh(&refresh(&write("3"), true), START, WALL);
    assert_eq!(other, RefreshOutcome::NotFound, "not against another grant");
    unlock(&mut table, "1", None, START);
    assert_eq!(notified(&mut table), [20]);
    let late = table.refresh(&refresh(&write("1"), true), START, WALL);
    assert_eq!(late, RefreshOutcome::NotFound, "not after its release");
}

#[test]
fn b54_a_refresh_whose_token_cannot_be_recorded_is_not_confirmed() {
    let mut table = open(&Limits::default());
    let held = write("1");
    lock(&mut table, &held, START).expect("it is free");
    let token = WALL.later_by(3 * LEASE);
    let claim = LeaseClaim { request: held, token, is_valid: true };
    let ahead = RefreshRequest { uid: "1".into(), claim: Some(claim) };
    let later = START + LEASE / 2;
    assert_eq!(table.refresh(&ahead, later, WALL), RefreshOutcome::TokenAhead);
    assert!(table.highest_token() < token);
    assert_eq!(table.grants(later, 9, 9)[0].refreshed_ms, 30_000, "nor extended");
    let confirmed = table.refresh(&ahead, later, WALL.later_by(LEASE));
    assert_eq!(confirmed, RefreshOutcome::Held { lease: LEASE });
}

#[test]
fn b66_requests_for_another_list_of_lockers_change_nothing_and_releases_run() {
    let mut table = open(&Limits::default());
    let (old, new) = (ListId { epoch: 1, hash: 7 }, ListId { epoch: 2, hash: 8 });
    let with = |request: LockRequest, list| LockRequest { list, ..request };
    table.set_list(old);
    assert_eq!(lock(&mut table, &with(write("1"), old), START), Ok(()));
    table.set_list(new);
    let before = table.highest_token();
    let late = WALL.later_by(LEASE + Duration::from_secs(1));
    let claim = LeaseClaim { request: with(write("1"), old), token: late, is_valid: true };
    let refresh = RefreshRequest { uid: "1".into(), claim: Some(claim) };
    let later = START + LEASE / 2;
    assert_eq!(table.refresh(&refresh, later, WALL), RefreshOutcome::ListDiffers);
    assert_eq!(table.highest_token(), before);
    assert_eq!(table.grants(later, 9, 9)[0].refreshed_ms, 30_000);
    for list in [old, ListId { epoch: 2, ..old }, ListId { epoch: 1, ..new }] {
        let waiter = with(waiting("2", WRITE, 10), list);
        assert_eq!(lock(&mut table, &waiter, later), Err(Refusal::ListDiffers));
        assert_eq!(table.wait(&waiter, later, WALL), WaitOutcome::Refused);
        unlock(&mut table, "2", Some(&waiter), later);
        assert!(!is_queued(&table, 10));
    }
    assert_eq!(lock(&mut table, &plain("m", WRITE), later), Err(Refusal::Conflict), "states none");
    unlock(&mut table, "1", None, later);
    assert_eq!(lock(&mut table, &with(write("3"), new), later), Ok(()));
}

#[test]
fn b65_a_locker_that_is_not_admitted_grants_extends_queues_and_reinstates_nothing() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("1"), START).expect("it is free");
    assert_eq!(lock(&mut table, &waiting("2.1", WRITE, 10), START), Err(Refusal::Conflict));
    table.set_admitted(false, START);
    for request in [write("3"), plain("m", WRITE), waiting("3", READ, 30)] {
        assert_eq!(lock(&mut table, &request, START), Err(Refusal::NotReady));
    }
    assert_eq!(table.wait(&waiting("4", READ, 40), START, WALL), WaitOutcome::Refused);
    let unknown = table.refresh(&refresh(&request("5", &["b"], WRITE), true), START, WALL);
    assert_eq!(unknown, RefreshOutcome::Closed);
    assert_eq!(table.refresh(&bare_refresh("6"), START, WALL), RefreshOutcome::Closed);
    let held = table.refresh(&refresh(&write("1"), true), START, WALL);
    assert_eq!(held, RefreshOutcome::Closed, "leases of this list have to end");
    unlock(&mut table, "1", Some(&waiting("1", WRITE, 5)), START);
    assert_eq!(table.sizes(), (0, 1), "released, and not queued");
    assert_eq!(notified(&mut table), [0; 0]);
    table.set_admitted(true, START);
    assert_eq!(notified(&mut table), [10]);
}

/// Returns the table in which the ticket 10 of a writer is in this state, and the time.
fn table_with(state: Option<TicketState>) -> (Table, Instant) {
    let (mut table, mut now) = (open(&Limits::default()), START);
    let Some(state) = state else { return (table, now) };
    lock(&mut table, &write("held"), now).expect("it is free");
    assert_eq!(lock(&mut table, &waiting("1.1", WRITE, 10), now), Err(Refusal::Conflict));
    if state == TicketState::Waiting {
        return (table, now);
    }
    unlock(&mut table, "held", None, now);
    if state == TicketState::Granted {
        assert_eq!(lock(&mut table, &waiting("1.2", WRITE, 10), now), Ok(()));
    }
    if state == TicketState::Absent {
        now = now + RESERVATION;
        table.handle_timeout(now);
    }
    notified(&mut table);
    (table, now)
}

fn state_of_10(table: &Table) -> Option<TicketState> {
    let known = table.waiters.iter().find(|(known, _)| **known == ticket(10));
    known.map(|(_, waiter)| waiter.state).or(is_queued(table, 10).then_some(TicketState::Granted))
}

#[test]
fn b58_each_event_in_each_state_of_a_ticket() {
    use TicketState::{Absent, Granted, Notified, Waiting};
    type Event = (&'static str, fn(&mut Table, Instant));
    const EVENTS: [Event; 7] = [
        ("lock", |table, now| {
            let _ = lock(table, &waiting("1.3", WRITE, 10), now);
        }),
        ("wait", |table, now| {
            let _ = table.wait(&waiting("1.2", WRITE, 10), now, WALL);
        }),
        ("release, and wait", |table, now| {
            unlock(table, "1.2", Some(&waiting("1.2", WRITE, 10)), now);
        }),
        ("release", |table, now| unlock(table, "1.2", None, now)),
        ("cancel", |table, now| table.cancel_ticket(&ticket(10), now)),
        ("end of a reservation", |table, now| table.handle_timeout(now + RESERVATION)),
        ("no contact", |table, now| table.handle_timeout(now + TICKET_TTL)),
    ];
    let (gone, n, w) = (None, Some(Notified), Some(Waiting));
    let (a, g) = (Some(Absent), Some(Granted));
    // A row for each state; a column for each event.
    for (before, after) in [
        (None, [gone, n, n, gone, gone, gone, gone]),
        (Some(Waiting), [w, w, w, w, gone, w, gone]),
        (Some(Notified), [g, n, n, n, gone, a, gone]),
        (Some(Absent), [g, n, n, a, gone, a, gone]),
        (Some(Granted), [w, w, n, gone, gone, g, gone]),
    ] {
        for ((name, event), after) in EVENTS.iter().zip(after) {
            let (mut table, now) = table_with(before);
            assert_eq!(state_of_10(&table), before);
            event(&mut table, now);
            table.check_invariants();
            assert_eq!(state_of_10(&table), after, "{before:?}: {name}");
            let is_notified = !notified(&mut table).is_empty();
            assert_eq!(is_notified, after == n && *name != "release", "{before:?}: {name}");
        }
    }
}

#[test]
fn b58_a_ticket_of_a_clock_that_is_ahead_by_less_than_a_lease_counts_for_those_that_follow() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("held"), START).expect("it is free");
    let ahead = WALL.later_by(LEASE * 9 / 10).get();
    assert_eq!(lock(&mut table, &waiting("1", WRITE, ahead), START), Err(Refusal::Conflict));
    let last_ticket = table.queue_report(None).last_ticket;
    assert_eq!(last_ticket.get(), ahead, "the next ticket is younger");
    assert_eq!(lock(&mut table, &waiting("2", WRITE, u64::MAX), START), Err(Refusal::Conflict));
    assert!(table.queue_report(None).last_ticket <= WALL.ceiling(LEASE), "not for a wrong clock");
}
