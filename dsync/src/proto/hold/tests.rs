use std::collections::BTreeMap;

use super::*;
use crate::proto::token::TokenStamp;
use crate::proto::waiters::QueueReport;

mod plain;
mod states;
mod tickets;

const START: Instant = Instant::from_nanos(1_000_000_000);
const LEASE: Duration = crate::limits::LEASE;
const HIGH: Token = Token::new(5_000_000);
const STAMP: TokenStamp = TokenStamp { highest: HIGH, wall: HIGH };

/// A hold, and its outstanding requests.
struct Harness {
    hold: Hold,
    now: Instant,
    in_flight: BTreeMap<RpcId, (usize, Request)>,
    /// Whether responses move what the hold sends into `in_flight`.
    is_collecting: bool,
}

fn config(lockers: usize, kind: LockKind) -> HoldConfig {
    HoldConfig {
        lockers,
        are_ours: vec![true; lockers],
        resources: Resources::new(["a"]).expect("valid names"),
        kind,
        owner: "n1".into(),
        source: "test".into(),
        list: ListId::default(),
        id: "lock".into(),
        attempt_limit: AttemptLimit::Unlimited,
        wait_mode: WaitMode::Notified,
        limits: Limits::default(),
        seed: 1,
    }
}

fn granted(token: Token) -> Response {
    Response::Lock(Ok(Granted { token, lease: LEASE }))
}

const CONFLICT: Response = Response::Lock(Err(Refusal::Conflict));
const HELD: Response = Response::Refresh(RefreshOutcome::Held { lease: LEASE });
const NOT_FOUND: Response = Response::Refresh(RefreshOutcome::NotFound);
const FULL: Response = Response::Lock(Err(Refusal::Full));
const NOTIFIED: Response = Response::Wait { is_notified: true };

fn is_lock(request: &Request) -> bool {
    matches!(request, Request::Lock(_))
}

fn is_refresh(request: &Request) -> bool {
    matches!(request, Request::Refresh(_))
}

fn is_unlock(request: &Request) -> bool {
    matches!(request, Request::Unlock { .. })
}

fn is_cancel(request: &Request) -> bool {
    matches!(request, Request::CancelTicket(_))
}

fn is_wait(request: &Request) -> bool {
    matches!(request, Request::Wait(_))
}

impl Harness {
    fn new(config: HoldConfig) -> Self {
        let mut tokens = TokenClock::default();
        tokens.observe(STAMP, START);
        let hold = Hold::new(config, tokens, START);
        let mut harness =
            Self { hold, now: START, in_flight: BTreeMap::new(), is_collecting: true };
        harness.collect();
        harness
    }

    /// Returns a write lock that all of three lockers have granted at once.
    fn held() -> Self {
        let mut harness = Self::new(config(3, LockKind::Write));
        harness.grant(0..3);
        assert!(harness.is_held());
        harness
    }

    fn collect(&mut self) {
        while let Some(output) = self.hold.poll_output() {
            match output {
                Output::Send { rpc, locker, request } => {
                    self.in_flight.insert(rpc, (locker, request));
                }
                Output::Cancel { rpc } => drop(self.in_flight.remove(&rpc)),
            }
        }
    }

    /// Returns the lockers with a matching request in flight.
    fn pending(&self, matches: impl Fn(&Request) -> bool) -> Vec<usize> {
        let matching = self.in_flight.values().filter(|(_, request)| matches(request));
        matching.map(|(locker, _)| *locker).collect()
    }

    fn rpc(&self, locker: usize, matches: impl Fn(&Request) -> bool) -> RpcId {
        let mut matching =
            self.in_flight.iter().filter(|(_, (to, pending))| *to == locker && matches(pending));
        *matching.next().expect("a matching request is in flight").0
    }

    fn respond(&mut self, locker: usize, matches: impl Fn(&Request) -> bool, response: Response) {
        let rpc = self.rpc(locker, matches);
        self.respond_to(locker, rpc, Ok(response));
    }

    fn fail(&mut self, locker: usize, matches: impl Fn(&Request) -> bool) {
        let rpc = self.rpc(locker, matches);
        self.respond_to(locker, rpc, Err(Failure { may_have_run: true }));
    }

    /// Responds as a locker of the MinIO type: without a stamp.
    fn respond_plain(
        &mut self,
        locker: usize,
        matches: impl Fn(&Request) -> bool,
        response: Response,
    ) {
        let rpc = self.rpc(locker, matches);
        self.respond_with(locker, rpc, Ok(response), (None, QueueReport::default()));
    }

    fn respond_to(&mut self, locker: usize, rpc: RpcId, response: Result<Response, Failure>) {
        let stamp = response.is_ok().then_some(STAMP);
        self.respond_with(locker, rpc, response, (stamp, QueueReport::default()));
    }

    fn respond_with(
        &mut self,
        locker: usize,
        rpc: RpcId,
        response: Result<Response, Failure>,
        report: (Option<TokenStamp>, QueueReport),
    ) {
        self.in_flight.remove(&rpc);
        self.hold.handle_response((locker, rpc), response, report, self.now);
        if self.is_collecting {
            self.collect();
        }
    }

    /// Responds with grants of these lockers, which accept the proposed token.
    fn grant(&mut self, lockers: impl IntoIterator<Item = usize>) {
        for locker in lockers {
            let Request::Lock(request) = &self.in_flight[&self.rpc(locker, is_lock)].1 else {
                continue;
            };
            let token = request.proposed_token;
            self.respond(locker, is_lock, granted(token));
        }
    }

    /// Advances the clock, and fires the timers of the hold.
    fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.hold.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.hold.handle_timeout(self.now);
            self.collect();
        }
        self.now = until;
    }

    fn is_held(&self) -> bool {
        matches!(self.hold.status(self.now), Status::Held { .. })
    }

    fn valid_until(&self) -> Instant {
        match self.hold.status(self.now) {
            Status::Held { until, .. } => until,
            other => panic!("not held: {other:?}"),
        }
    }
}

#[test]
fn b50_a_grant_that_may_come_late_is_released_until_that_is_confirmed() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    let late = harness.rpc(0, is_lock);
    harness.respond(1, is_lock, CONFLICT);
    harness.respond(2, is_lock, CONFLICT);
    assert_eq!(harness.pending(is_unlock), [0], "a locker that refused has nothing to release");
    let Request::Unlock { uid, .. } = &harness.in_flight[&harness.rpc(0, is_unlock)].1 else {
        panic!()
    };
    assert_eq!(**uid, *"lock.1");
    harness.respond_to(0, late, Ok(granted(HIGH)));
    assert!(!harness.is_held(), "too late");
    harness.fail(0, is_unlock);
    assert!(harness.pending(is_unlock).is_empty(), "not at once");
    harness.advance(Limits::default().retry_max);
    assert_eq!(harness.pending(is_unlock), [0], "again");
    harness.hold.release(harness.now);
    harness.collect();
    assert!(!harness.hold.is_finished());
    harness.respond(0, is_unlock, Response::Released);
    for locker in harness.pending(is_unlock) {
        harness.respond(locker, is_unlock, Response::Released);
    }
    for locker in harness.pending(is_cancel) {
        harness.respond(locker, is_cancel, Response::Released);
    }
    assert!(harness.hold.is_finished() && harness.hold.is_released());
}

#[test]
fn b56_an_unconfirmed_release_is_retried_for_a_lease_and_no_longer() {
    let mut harness = Harness::held();
    harness.hold.release(harness.now);
    harness.collect();
    let mut attempts = 0;
    while !harness.hold.is_finished() {
        assert!(harness.now.since(START) <= LEASE);
        for locker in harness.pending(is_unlock) {
            attempts += 1;
            harness.fail(locker, is_unlock);
        }
        let pause = harness.hold.poll_timeout().expect("a retry").since(harness.now);
        harness.advance(pause);
    }
    assert_eq!(harness.now, START + LEASE);
    assert!((3 * 12..3 * 25).contains(&attempts), "{attempts} attempts");
}

#[test]
fn b55_a_locker_with_a_pending_release_gets_no_other_request() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    harness.respond(1, is_lock, CONFLICT);
    harness.respond(2, is_lock, CONFLICT);
    for attempt in 2..6 {
        harness.advance(Limits::default().retry_max);
        assert_eq!(harness.pending(is_lock), [1, 2], "attempt {attempt}");
        harness.respond(1, is_lock, CONFLICT);
        assert_eq!(harness.pending(is_unlock), [0, 2], "attempt {attempt}");
        harness.respond(2, is_unlock, Response::Released);
    }
    harness.respond(0, is_unlock, Response::Released);
    harness.advance(Limits::default().retry_max);
    assert_eq!(harness.pending(is_lock), [0, 1, 2]);
}

#[test]
fn b55_a_slow_locker_does_not_delay_a_lock_that_has_its_quorum() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    harness.grant([0, 2]);
    assert!(harness.is_held());
    assert_eq!(harness.pending(is_lock), [1], "its response is still useful");
}

#[test]
fn b52_a_vote_counts_from_when_its_request_was_sent() {
    let validity_period = Limits::default().validity_period(LEASE);
    let mut harness = Harness::new(config(1, LockKind::Write));
    harness.advance(Duration::from_secs(3));
    harness.grant([0]);
    assert_eq!(harness.valid_until(), START + validity_period, "not from when it was granted");
    harness.advance(Limits::default().refresh_interval);
    assert_eq!(harness.pending(is_refresh), [0]);
    let sent = harness.hold.lockers[0].rpc.expect("it is in flight").sent_at;
    harness.advance(Duration::from_secs(2));
    harness.respond(0, is_refresh, HELD);
    assert!(sent + Duration::from_secs(2) <= harness.now);
    assert_eq!(harness.valid_until(), sent + validity_period);
}

#[test]
fn b52_a_lock_without_responses_expires_and_no_late_response_revives_it() {
    for lockers in [1, 3] {
        let mut harness = Harness::new(config(lockers, LockKind::Write));
        harness.grant(0..lockers);
        let until = harness.valid_until();
        harness.advance(Limits::default().refresh_interval);
        let late: Vec<_> = (0..lockers).map(|locker| harness.rpc(locker, is_refresh)).collect();
        assert_eq!(
            harness.hold.status(until),
            Status::Ended(EndReason::Expired),
            "by the clock alone"
        );
        // No method of the hold runs until then: its process was stopped.
        harness.now = until;
        for (locker, rpc) in late.into_iter().enumerate() {
            harness.respond_to(locker, rpc, Ok(HELD));
            assert_eq!(harness.hold.status(harness.now), Status::Ended(EndReason::Expired));
        }
        assert!(harness.pending(is_unlock).is_empty(), "the holder may not have noticed the loss");
        harness.hold.release(harness.now);
        harness.collect();
        assert_eq!(harness.pending(is_unlock), (0..lockers).collect::<Vec<_>>());
    }
}

#[test]
fn b52_a_lock_is_held_as_long_as_a_quorum_of_votes_is_valid() {
    let mut harness = Harness::held();
    for _ in 0..20 {
        harness.advance(Limits::default().refresh_interval);
        harness.fail(0, is_refresh);
        harness.respond(1, is_refresh, HELD);
        harness.respond(2, is_refresh, HELD);
        assert!(harness.is_held());
    }
    harness.advance(LEASE);
    assert_eq!(harness.hold.status(harness.now), Status::Ended(EndReason::Expired));
}

#[test]
fn b56_a_lock_without_a_quorum_of_grants_is_revoked() {
    let mut harness = Harness::held();
    harness.advance(Limits::default().refresh_interval);
    harness.respond(0, is_refresh, NOT_FOUND);
    assert!(harness.is_held(), "two are enough");
    harness.respond(1, is_refresh, NOT_FOUND);
    assert_eq!(harness.hold.status(harness.now), Status::Ended(EndReason::Revoked));
    assert!(harness.pending(is_unlock).is_empty(), "the holder may not have noticed the loss");
    harness.hold.release(harness.now);
    harness.collect();
    assert_eq!(harness.pending(is_unlock), [0, 1, 2]);
    harness.hold.release(harness.now);
    harness.collect();
    assert_eq!(harness.pending(is_unlock), [0, 1, 2], "once each");
}

#[test]
fn b56_a_lost_lock_that_is_never_released_expires() {
    let mut harness = Harness::held();
    let uid = Arc::clone(harness.hold.uid());
    harness.hold.handle_revoked(0, &uid, harness.now);
    harness.hold.handle_revoked(1, &uid, harness.now);
    assert_eq!(harness.hold.status(harness.now), Status::Ended(EndReason::Revoked));
    harness.advance(LEASE - Duration::from_millis(1));
    assert!(!harness.hold.is_finished() && !harness.hold.is_released());
    harness.advance(Duration::from_millis(1));
    assert!(harness.hold.is_finished() && harness.hold.is_released());
    assert!(harness.pending(is_unlock).is_empty(), "all its leases have expired");
}

#[test]
fn b56_a_lock_is_revoked_as_soon_as_enough_lockers_notify() {
    let mut harness = Harness::held();
    let uid = Arc::clone(harness.hold.uid());
    harness.hold.handle_revoked(0, "another.1", harness.now);
    harness.hold.handle_revoked(1, "another.1", harness.now);
    harness.hold.handle_revoked(2, &uid, harness.now);
    assert!(harness.is_held(), "one of three is not enough");
    harness.hold.handle_revoked(1, &uid, harness.now);
    assert_eq!(harness.hold.status(harness.now), Status::Ended(EndReason::Revoked));
}

#[test]
fn b53_a_request_from_before_a_lease_query_does_not_count() {
    let mut harness = Harness::new(config(1, LockKind::Write));
    let early = harness.rpc(0, is_lock);
    assert_eq!(harness.hold.void_outstanding(0, harness.now), None, "no vote yet");
    harness.collect();
    harness.respond_to(0, early, Ok(granted(HIGH)));
    assert!(!harness.is_held());
    assert_eq!(harness.pending(is_unlock), [0], "it may have been granted");
}

#[test]
fn b53_a_lease_query_reports_valid_votes_and_voids_earlier_refreshes() {
    let mut harness = Harness::held();
    let until = harness.valid_until();
    harness.advance(Limits::default().refresh_interval);
    let early = [0, 1].map(|locker| harness.rpc(locker, is_refresh));
    for locker in [0, 1] {
        let held_lease = harness.hold.void_outstanding(locker, harness.now).expect("a valid vote");
        assert_eq!(*held_lease.request.uid, **harness.hold.uid());
        let Status::Held { token, .. } = harness.hold.status(harness.now) else { panic!("held") };
        assert_eq!(Some(held_lease.token), token);
    }
    harness.collect();
    for (locker, rpc) in early.into_iter().enumerate() {
        harness.respond_to(locker, rpc, Ok(HELD));
    }
    harness.respond(2, is_refresh, HELD);
    assert_eq!(harness.valid_until(), until, "one new vote of three");
    assert_eq!(harness.hold.void_outstanding(0, until), None, "an expired vote is not reported");
}

#[test]
fn b53_a_reinstated_vote_counts_only_if_it_was_valid_until_the_response() {
    let reinstated = Response::Refresh(RefreshOutcome::Reinstated { lease: LEASE });
    for is_valid in [true, false] {
        let mut harness = Harness::held();
        harness.advance(Limits::default().refresh_interval);
        let votes = harness.hold.lockers.iter_mut();
        let until = harness.now + Duration::from_secs(if is_valid { 2 } else { 1 });
        votes
            .take(2)
            .for_each(|state| state.vote = Vote::Granted { until, token: HIGH, wall: HIGH });
        harness.respond(2, is_refresh, HELD);
        // The other two votes were valid when the requests were sent; one response comes later.
        harness.now = harness.now + Duration::from_secs(1);
        harness.hold.lockers[1].vote =
            Vote::Granted { until: harness.now + LEASE, token: HIGH, wall: HIGH };
        harness.respond(0, is_refresh, reinstated);
        let until = harness.hold.lockers[0].valid_until().expect("it has voted");
        assert_eq!(until > harness.now + LEASE / 2, is_valid);
    }
}

#[test]
fn b54_a_rejected_token_is_replaced_by_a_higher_one_that_a_quorum_records() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    let highest = Token::new(9_000_000);
    harness.respond(0, is_lock, granted(Token::new(8_000_000)));
    harness.respond(1, is_lock, granted(highest));
    assert!(!harness.is_held());
    assert_eq!((harness.pending(is_refresh), harness.hold.stats().second_rounds), (vec![0, 1], 1));
    harness.respond(0, is_refresh, HELD);
    assert!(!harness.is_held(), "only one of three has recorded it");
    harness.respond(2, is_lock, granted(Token::new(1)));
    assert_eq!(harness.pending(is_refresh), [1, 2], "a locker that grants late gets it too");
    harness.respond(2, is_refresh, HELD);
    let Status::Held { token, .. } = harness.hold.status(harness.now) else { panic!("held") };
    assert!(token > Some(highest));
}

#[test]
fn b55_retry_delays_grow_with_jitter_within_bounds() {
    let limits = Limits::default();
    let mut all = Vec::new();
    for seed in 0..20 {
        let config =
            HoldConfig { seed, wait_mode: WaitMode::Polling, ..config(1, LockKind::Write) };
        let mut harness = Harness::new(config);
        let waits = (0..60_u32).map(|attempt| {
            harness.respond(0, is_lock, CONFLICT);
            let wait = harness.hold.poll_timeout().expect("a retry").since(harness.now);
            harness.advance(wait);
            let most = (limits.retry_first + limits.retry_step * attempt).min(limits.retry_max);
            assert!((most / 2..=most).contains(&wait), "attempt {attempt}: {wait:?}");
            wait
        });
        all.push(waits.collect::<Vec<_>>());
    }
    let last = |waits: &Vec<Duration>| waits[59];
    assert!(all.iter().all(|waits| last(waits) > waits[0] * 4));
    let mut distinct: Vec<_> = all.iter().map(last).collect();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 15, "nearly all delays differ: {distinct:?}");
}

#[test]
fn b55_a_waiter_notified_by_enough_lockers_retries_at_once() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    for locker in 0..3 {
        let response = if locker == 0 { granted(HIGH.next()) } else { CONFLICT };
        harness.respond(locker, is_lock, response);
    }
    assert_eq!(harness.pending(is_wait), [0, 1, 2]);
    harness.respond(1, is_wait, NOTIFIED);
    harness.respond(0, is_wait, NOTIFIED);
    assert!(harness.pending(is_lock).is_empty(), "the first one has not confirmed the release");
    harness.respond(0, is_unlock, Response::Released);
    assert_eq!(harness.pending(is_lock), [0, 1, 2]);
    assert_eq!(harness.pending(is_wait), [2], "the third one still notifies if this fails");
    let Request::Lock(request) = &harness.in_flight[&harness.rpc(0, is_lock)].1 else { panic!() };
    assert_eq!(*request.ticket.as_ref().expect("it has waited").id, *"lock");
}

#[test]
fn b55_lockers_without_notifications_are_polled() {
    let unknown = HoldConfig { are_ours: Vec::new(), ..config(1, LockKind::Write) };
    let mut harness = Harness::new(unknown);
    harness.respond_plain(0, is_lock, CONFLICT);
    assert!(harness.pending(is_wait).is_empty());
    harness.advance(Limits::default().retry_first);
    assert_eq!(harness.pending(is_lock), [0]);
}

#[test]
fn b57_retry_delays_grow_after_refusals_by_an_overloaded_locker() {
    let limits = Limits::default();
    let mut harness = Harness::new(config(1, LockKind::Write));
    for attempt in 0..60_u32 {
        harness.respond(0, is_lock, FULL);
        assert!(harness.in_flight.is_empty(), "no other request, nor a wait");
        let wait = harness.hold.poll_timeout().expect("a retry").since(harness.now);
        let most = (limits.retry_first + limits.retry_step * attempt).min(limits.retry_max);
        assert!((most / 2..=most).contains(&wait), "attempt {attempt}: {wait:?}");
        harness.advance(wait);
        assert_eq!(harness.pending(is_lock), [0]);
    }
}

#[test]
fn b57_a_refused_refresh_is_retried_later() {
    let limits = Limits::default();
    let mut harness = Harness::held();
    let until = harness.valid_until();
    harness.advance(limits.refresh_interval);
    for locker in harness.pending(is_refresh) {
        let rpc = harness.rpc(locker, is_refresh);
        harness.respond_to(locker, rpc, Err(Failure { may_have_run: false }));
    }
    assert!(harness.in_flight.is_empty() && harness.is_held() && harness.valid_until() == until);
    harness.advance(limits.refresh_interval / 5);
    assert_eq!(harness.pending(is_refresh), [0, 1, 2]);
}

#[test]
fn a_lock_ends_at_its_deadline_and_releases_possible_grants() {
    for is_refused in [false, true] {
        let timeout = Duration::from_secs(2);
        let attempt_limit = AttemptLimit::Timeout(timeout);
        let mut harness = Harness::new(HoldConfig { attempt_limit, ..config(1, LockKind::Write) });
        if is_refused {
            harness.respond(0, is_lock, CONFLICT);
        }
        harness.advance(Duration::from_millis(1_999));
        assert_eq!(harness.hold.status(harness.now), Status::Acquiring);
        assert!(harness.hold.poll_timeout() <= Some(START + timeout));
        harness.advance(Duration::from_millis(1));
        assert_eq!(harness.hold.status(harness.now), Status::Ended(EndReason::TimedOut));
        let stats = harness.hold.stats();
        assert_eq!((stats.in_conflict > 0, stats.not_waited_for > 0), (is_refused, !is_refused));
        assert!(harness.pending(|request| is_lock(request) || is_wait(request)).is_empty());
        assert_eq!(harness.pending(is_unlock).is_empty(), is_refused);
    }
}
