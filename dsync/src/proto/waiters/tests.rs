use super::*;

const START: Instant = Instant::from_nanos(0);
const RESERVATION: Duration = crate::limits::RESERVATION;
const READ: LockKind = LockKind::Read;
const WRITE: LockKind = LockKind::Write;

fn waiters() -> Waiters {
    Waiters::new(&Limits { waiters_max: 4, ..Limits::default() }, Key::new(1))
}

fn resources(resources: &[&str]) -> Resources {
    Resources::new(resources).expect("valid names")
}

fn ticket(time: u64) -> Ticket {
    Ticket { time: Token::new(time), id: format!("w{time}").into() }
}

fn contact(
    waiters: &mut Waiters,
    time: u64,
    wanted: &[&str],
    kind: LockKind,
    now: Instant,
) -> bool {
    let origin = (&"node".into(), &"test".into());
    let request = (&resources(wanted), kind);
    waiters.contact(&ticket(time), request, origin, now, Token::new(1_000)) == WaitOutcome::Enqueued
}

/// Returns the tickets that a change of the resource `a` lets notify.
fn notifications(waiters: &mut Waiters, now: Instant, is_free: impl Fn(&str) -> bool) -> Vec<u64> {
    waiters.notify(&resources(&["a"]), |name, _| is_free(name), now);
    std::iter::from_fn(|| waiters.poll_notification()).map(|ticket| ticket.time.get()).collect()
}

fn blocks(waiters: &Waiters, kind: LockKind, time: Option<u64>, now: Instant) -> bool {
    let own = time.map(ticket);
    let position = own.as_ref().map_or(Position::Youngest, Position::Ticket);
    waiters.is_blocked((&resources(&["a"]), kind), position, now)
}

fn blocks_plain(waiters: &Waiters, kind: LockKind, now: Instant) -> bool {
    waiters.is_blocked((&resources(&["a"]), kind), Position::Plain, now)
}

fn state(waiters: &Waiters, time: u64) -> Option<TicketState> {
    waiters.by_ticket.get(&ticket(time)).map(|waiter| waiter.state)
}

#[test]
fn b58_the_oldest_writer_is_notified_alone_and_only_once() {
    let mut waiters = waiters();
    for time in [3, 1, 2] {
        assert!(contact(&mut waiters, time, &["a"], WRITE, START));
    }
    assert_eq!(notifications(&mut waiters, START, |_| true), [1]);
    assert_eq!(notifications(&mut waiters, START, |_| true), [0; 0], "only once");
    assert!(blocks(&waiters, READ, None, START) && blocks_plain(&waiters, READ, START));
    assert!(!blocks(&waiters, WRITE, Some(1), START), "not itself");
    assert!(blocks(&waiters, WRITE, Some(2), START));
}

#[test]
fn b58_readers_are_notified_together_up_to_the_first_writer_in_the_order_of_tickets() {
    let mut waiters = waiters();
    for (time, kind) in [(4, READ), (3, WRITE), (2, READ), (1, READ)] {
        contact(&mut waiters, time, &["a"], kind, START);
    }
    assert_eq!(
        notifications(&mut waiters, START, |_| true),
        [1, 2],
        "the fourth is behind a writer"
    );
    assert!(!blocks(&waiters, READ, Some(2), START), "readers do not block each other");
    assert!(blocks(&waiters, READ, Some(4), START) && blocks(&waiters, WRITE, Some(3), START));
    for time in [1, 2] {
        waiters.remove(&ticket(time));
    }
    assert_eq!(notifications(&mut waiters, START, |_| true), [3]);
}

#[test]
fn b58_an_older_waiter_blocks_from_its_first_contact_also_while_it_waits_for_another_resource() {
    let mut waiters = waiters();
    contact(&mut waiters, 1, &["a", "b"], WRITE, START);
    contact(&mut waiters, 2, &["a"], WRITE, START);
    assert_eq!(notifications(&mut waiters, START, |name| name != "b"), [0; 0]);
    assert!(blocks(&waiters, READ, Some(2), START) && blocks(&waiters, READ, None, START));
    assert!(!blocks(&waiters, READ, Some(0), START), "an older one passes");
}

#[test]
fn b59_a_request_without_tickets_passes_waiters_that_are_not_notified_for_a_second() {
    let mut waiters = waiters();
    contact(&mut waiters, 1, &["a", "b"], WRITE, START);
    let limit = START + BARGING_LIMIT;
    let before = START + (BARGING_LIMIT - Duration::from_nanos(1));
    assert!(!blocks_plain(&waiters, READ, START) && !blocks_plain(&waiters, WRITE, before));
    assert!(blocks_plain(&waiters, READ, limit));
    assert_eq!(notifications(&mut waiters, before, |_| true), [1]);
    assert!(blocks_plain(&waiters, READ, before), "it is reserved");
}

#[test]
fn b58_a_waiter_that_misses_its_notification_blocks_nothing_until_its_next_contact() {
    let mut waiters = waiters();
    contact(&mut waiters, 1, &["a"], WRITE, START);
    contact(&mut waiters, 2, &["a"], WRITE, START);
    assert_eq!(notifications(&mut waiters, START, |_| true), [1]);
    let end = START + RESERVATION;
    assert_eq!(waiters.poll_timeout(), Some(end));
    assert_eq!(waiters.expire_one(end), Some(resources(&["a"])));
    assert_eq!(waiters.expire_one(end), None);
    assert_eq!(state(&waiters, 1), Some(TicketState::Absent));
    assert!(!blocks(&waiters, WRITE, Some(2), end) && !blocks_plain(&waiters, WRITE, end));
    assert_eq!(notifications(&mut waiters, end, |_| true), [2]);
    // It keeps its position.
    assert!(contact(&mut waiters, 1, &["a"], WRITE, end));
    assert!(blocks(&waiters, WRITE, Some(2), end));
    assert_eq!(notifications(&mut waiters, end, |_| true), [1]);
}

#[test]
fn b58_each_miss_doubles_the_next_reservation_up_to_the_life_of_the_ticket() {
    let mut waiters = waiters();
    let mut now = START;
    let mut reservations = Vec::new();
    for _ in 0..6 {
        contact(&mut waiters, 1, &["a"], WRITE, now);
        assert_eq!(notifications(&mut waiters, now, |_| true), [1]);
        let end = waiters.poll_timeout().expect("it is reserved");
        reservations.push(end.since(now).as_millis());
        // A contact starts the reservation again: its attempt is on the way.
        now = now + Duration::from_millis(100);
        contact(&mut waiters, 1, &["a"], WRITE, now);
        assert_eq!(notifications(&mut waiters, now, |_| true), [1]);
        let renewed = waiters.poll_timeout().expect("it is reserved");
        assert_eq!(renewed, end + Duration::from_millis(100));
        now = renewed;
        assert_eq!(waiters.expire_one(now), Some(resources(&["a"])));
    }
    assert_eq!(reservations, [500, 1_000, 2_000, 4_000, 8_000, 15_000]);
}

#[test]
fn b58_a_ticket_ends_without_contact_and_each_contact_renews_it() {
    let mut waiters = waiters();
    contact(&mut waiters, 1, &["a"], WRITE, START);
    let later = START + TICKET_TTL / 3;
    contact(&mut waiters, 1, &["a"], WRITE, later);
    assert_eq!(waiters.poll_timeout(), Some(later + TICKET_TTL));
    assert_eq!(waiters.expire_one(START + TICKET_TTL), None);
    assert_eq!(waiters.expire_one(later + TICKET_TTL), Some(resources(&["a"])));
    assert_eq!(state(&waiters, 1), None);
}

#[test]
fn b58_a_granted_ticket_keeps_its_position_and_blocks_nothing() {
    let mut waiters = waiters();
    contact(&mut waiters, 1, &["a"], READ, START);
    contact(&mut waiters, 2, &["a"], WRITE, START);
    assert_eq!(waiters.set_granted(&ticket(1)), Some(resources(&["a"])));
    assert!(!blocks(&waiters, WRITE, Some(2), START));
    assert_eq!(waiters.len(), 1, "it does not count as waiting");
    waiters.remove_granted(&ticket(2));
    assert_eq!(state(&waiters, 2), Some(TicketState::Waiting), "it is not granted");
    contact(&mut waiters, 1, &["a"], READ, START);
    assert!(blocks(&waiters, WRITE, Some(2), START));
    assert_eq!(waiters.set_granted(&ticket(1)), Some(resources(&["a"])));
    waiters.remove_granted(&ticket(1));
    assert_eq!(state(&waiters, 1), None);
}

#[test]
fn b58_as_many_are_notified_at_once_as_the_limit_and_further_ones_follow_one_for_one() {
    let limits = Limits { waiters_max: 10_000, ..Limits::default() };
    let mut waiters = Waiters::new(&limits, Key::new(1));
    let count = 2 * WAITERS_NOTIFIED_MAX as u64;
    for time in 0..count {
        contact(&mut waiters, time, &["a"], READ, START);
    }
    let first = notifications(&mut waiters, START, |_| true);
    assert_eq!(first, (0..count / 2).collect::<Vec<_>>());
    assert_eq!(notifications(&mut waiters, START, |_| true), [0; 0]);
    waiters.set_granted(&ticket(7));
    assert_eq!(notifications(&mut waiters, START, |_| true), [count / 2], "after a grant");
    contact(&mut waiters, 8, &["a"], READ, START);
    assert_eq!(notifications(&mut waiters, START, |_| true), [8], "it is still the oldest");
    let end = START + RESERVATION;
    waiters.expire_one(end);
    assert_eq!(notifications(&mut waiters, end, |_| true), [count / 2 + 1], "after a miss");
}

#[test]
fn b58_waiters_are_bounded_and_removing_them_frees_all_state() {
    let mut waiters = waiters();
    for time in 1..=4 {
        assert!(contact(&mut waiters, time, &["a", "b"], WRITE, START));
    }
    assert!(!contact(&mut waiters, 5, &["a"], WRITE, START));
    assert!(!waiters.report(Some(&ticket(5))).is_queued);
    assert!(contact(&mut waiters, 4, &["a", "b"], WRITE, START), "a known waiter may renew");
    assert!(waiters.report(Some(&ticket(4))).is_queued);
    for time in 1..=4 {
        assert!(waiters.remove(&ticket(time)).is_some());
    }
    let sizes = (waiters.len(), waiters.queues.len(), waiters.timers.len(), waiters.bytes);
    assert_eq!(sizes, (0, 0, 0, 0));
    assert_eq!(waiters.report(None).last_ticket, Token::new(4), "also of those that have ended");
}

#[test]
fn b58_the_memory_of_waiters_is_bounded_with_the_names_that_they_wait_for() {
    use crate::limits::{RESOURCE_NAME_BYTES_MAX, RESOURCES_MAX};
    let mut waiters = Waiters::new(&Limits::default(), Key::new(1));
    let name = |n: usize| format!("{n:0RESOURCE_NAME_BYTES_MAX$}");
    let longest = Resources::new((0..RESOURCES_MAX).map(name)).expect("valid names");
    let origin = (&"node".into(), &"test".into());
    let mut queued = 0;
    for time in 0..500 {
        let request = (&longest, WRITE);
        let outcome = waiters.contact(&ticket(time), request, origin, START, Token::new(1_000));
        queued += usize::from(outcome == WaitOutcome::Enqueued);
    }
    assert!(waiters.bytes <= WAITER_BYTES_MAX && waiters.bytes >= queued * longest.bytes());
    assert_eq!(queued, waiters.len());
    assert_eq!(queued, WAITER_BYTES_MAX / (waiters.bytes / queued), "as many as fit");
}

#[test]
fn b58_a_ticket_from_a_wrong_clock_does_not_advance_those_that_follow_beyond_its_limit() {
    let mut waiters = waiters();
    contact(&mut waiters, u64::MAX, &["a"], WRITE, START);
    assert_eq!(waiters.report(None).last_ticket, Token::new(1_000));
    contact(&mut waiters, 7, &["a"], WRITE, START);
    assert_eq!(waiters.report(None).last_ticket, Token::new(1_000), "never lower");
}
