//! Lockers of the MinIO type at a holder, and the tokens of locks that they take part in.

use super::*;

const TIMEOUT: Duration = crate::limits::ATTEMPT_TIMEOUT;

/// Returns a lock of lockers that have not responded to this process yet.
fn unknown(lockers: usize, kind: LockKind) -> Harness {
    Harness::new(HoldConfig { are_ours: Vec::new(), ..config(lockers, kind) })
}

/// Returns a lock that two plain lockers have refused, and whose third request is outstanding.
fn refused_by_two() -> Harness {
    let mut harness = unknown(3, LockKind::Write);
    harness.respond_plain(1, is_lock, CONFLICT);
    harness.respond_plain(2, is_lock, CONFLICT);
    harness
}

fn token(harness: &Harness) -> Option<Token> {
    match harness.hold.status(harness.now) {
        Status::Held { token, .. } => token,
        other => panic!("not held: {other:?}"),
    }
}

#[test]
fn b59_a_release_follows_the_response_of_a_plain_locker_to_the_lock_request() {
    let mut harness = refused_by_two();
    assert_eq!(harness.pending(is_lock), [0], "not cancelled");
    assert!(harness.pending(is_unlock).is_empty(), "it would overtake the lock request");
    harness.respond_plain(0, is_lock, granted(Token::default()));
    assert_eq!(harness.pending(is_unlock), [0]);
    harness.respond_plain(0, is_unlock, Response::Released);
    harness.advance(Limits::default().retry_max);
    assert_eq!(harness.pending(is_lock), [0, 1, 2], "it takes part in the next attempt");

    let mut harness = refused_by_two();
    harness.respond_plain(0, is_lock, CONFLICT);
    assert!(harness.pending(is_unlock).is_empty(), "it has granted nothing");
}

#[test]
fn b59_a_failed_lock_request_at_a_plain_locker_is_released_at_once_and_again_later() {
    for fails_before_the_attempt in [true, false] {
        let mut harness = match fails_before_the_attempt {
            true => unknown(3, LockKind::Write),
            false => refused_by_two(),
        };
        harness.fail(0, is_lock);
        if fails_before_the_attempt {
            harness.respond_plain(1, is_lock, CONFLICT);
            harness.respond_plain(2, is_lock, CONFLICT);
        }
        let began = harness.now;
        assert_eq!(harness.pending(is_unlock).first(), Some(&0));
        harness.hold.release(harness.now);
        harness.collect();
        harness.respond_plain(0, is_unlock, Response::Released);
        assert!(!harness.pending(is_unlock).contains(&0));
        harness.advance(TIMEOUT - Duration::from_millis(1));
        assert!(!harness.pending(is_unlock).contains(&0), "not yet");
        harness.advance(Duration::from_millis(1));
        assert!(harness.pending(is_unlock).contains(&0), "again, whatever it confirmed");
        assert_eq!(harness.now.since(began), TIMEOUT);
        harness.respond_plain(0, is_unlock, Response::Released);
        harness.advance(TIMEOUT);
        assert!(!harness.pending(is_unlock).contains(&0), "twice is enough");
    }
}

#[test]
fn b59_a_lock_without_a_quorum_of_lockers_that_know_its_token_has_none() {
    let mut harness = unknown(3, LockKind::Write);
    harness.respond_plain(0, is_lock, granted(Token::default()));
    harness.respond_plain(1, is_lock, granted(Token::default()));
    assert_eq!(token(&harness), None, "two plain lockers");

    let mut harness = unknown(3, LockKind::Write);
    harness.grant([0]);
    harness.respond_plain(1, is_lock, granted(Token::default()));
    assert_eq!(token(&harness), None, "one of this crate, one plain");
    harness.grant([2]);
    assert_eq!(token(&harness), None, "the token of a held lock never changes");

    let mut harness = unknown(3, LockKind::Write);
    harness.grant([0, 1]);
    assert!(token(&harness).is_some());
}

#[test]
fn b59_a_refresh_that_a_plain_locker_confirms_is_not_known_there() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    let higher = HIGH.later_by(LEASE);
    harness.respond(0, is_lock, granted(higher));
    harness.respond(1, is_lock, granted(higher));
    harness.respond(0, is_refresh, HELD);
    harness.respond_plain(1, is_refresh, HELD);
    assert!(!harness.is_held(), "only one of three knows the token");
    harness.respond(2, is_lock, granted(higher));
    harness.respond(2, is_refresh, HELD);
    assert!(token(&harness) > Some(higher));
}

#[test]
fn b59_a_read_lock_of_several_resources_fails_at_once_if_plain_lockers_exclude_it() {
    let several = Resources::new(["a", "b"]).expect("valid names");
    for (kind, is_unsupported) in [(LockKind::Read, true), (LockKind::Write, false)] {
        let config = HoldConfig { resources: several.clone(), ..config(3, kind) };
        let mut harness = Harness::new(HoldConfig { are_ours: Vec::new(), ..config });
        harness.respond_plain(0, is_lock, FULL);
        assert_eq!(harness.hold.status(harness.now), Status::Acquiring, "two are a quorum");
        harness.respond_plain(1, is_lock, FULL);
        let status = harness.hold.status(harness.now);
        assert_eq!(status == Status::Ended(EndReason::PlainLockers), is_unsupported, "{status:?}");
        assert_eq!(harness.hold.plain_lockers(), 2);
    }
}

#[test]
fn b59_an_unconfirmed_release_at_a_plain_locker_is_retried_for_two_leases() {
    let mut harness = unknown(1, LockKind::Write);
    harness.respond_plain(0, is_lock, granted(Token::default()));
    harness.hold.release(harness.now);
    harness.collect();
    while !harness.hold.is_finished() {
        for locker in harness.pending(is_unlock) {
            harness.fail(locker, is_unlock);
        }
        let pause = harness.hold.poll_timeout().expect("a retry").since(harness.now);
        harness.advance(pause);
    }
    assert_eq!(harness.now, START + 2 * LEASE);
    let report = harness.hold.unlock_report();
    assert_eq!((report.confirmed, report.expired, report.is_confirmed()), (0, 1, false));
}

#[test]
fn b68_a_token_that_lags_the_clock_of_a_granting_locker_gets_a_second_round() {
    for (lag_ms, lags) in [(99, false), (101, true)] {
        let mut harness = Harness::new(config(1, LockKind::Write));
        let Request::Lock(request) = &harness.in_flight[&harness.rpc(0, is_lock)].1 else {
            panic!("a lock request");
        };
        let proposed = request.proposed_token;
        let wall = proposed.later_by(Duration::from_millis(lag_ms));
        let report = (Some(TokenStamp { highest: HIGH, wall }), QueueReport::default());
        harness.respond_with(0, harness.rpc(0, is_lock), Ok(granted(proposed)), report);
        assert_eq!(harness.is_held(), !lags, "{lag_ms} ms behind");
        if lags {
            harness.respond(0, is_refresh, HELD);
            assert!(token(&harness) > Some(wall));
        }
    }
}

#[test]
fn b68_a_proposal_without_an_estimate_is_never_accepted() {
    let mut hold = Hold::new(config(1, LockKind::Write), TokenClock::default(), START);
    let Some(Output::Send { rpc, request: Request::Lock(request), .. }) = hold.poll_output() else {
        panic!("a lock request");
    };
    assert_eq!(request.proposed_token, Token::default());
    // Its clock is not ahead of the proposal either.
    let stamp = TokenStamp { highest: Token::default(), wall: Token::new(1) };
    let report = (Some(stamp), QueueReport::default());
    hold.handle_response((0, rpc), Ok(granted(Token::default())), report, START);
    assert_eq!(hold.status(START), Status::Acquiring, "it has the token of no grant");
    assert_eq!(hold.stats().second_rounds, 1);
}

#[test]
fn b59_a_plain_locker_is_not_waited_for_to_decide_the_time_of_a_ticket() {
    let mut harness = unknown(3, LockKind::Write);
    let rpc = harness.rpc(0, is_lock);
    harness.respond_to(0, rpc, Err(Failure { may_have_run: false }));
    harness.respond_plain(1, is_lock, CONFLICT);
    assert!(matches!(harness.hold.phase, Phase::Voting { .. }), "the third may know a ticket");
    // A late response to a request that is no longer outstanding shows that it is plain.
    let nothing = (None, QueueReport::default());
    harness.respond_with(2, RpcId(u64::MAX), Ok(Response::Released), nothing);
    assert!(matches!(harness.hold.phase, Phase::Waiting { .. }));
}

#[test]
fn b68_a_locker_whose_clock_is_far_ahead_does_not_decide_the_token() {
    let mut harness = Harness::new(config(3, LockKind::Write));
    let ahead = HIGH.later_by(10 * LEASE);
    for (locker, wall) in [(0, ahead), (1, HIGH), (2, HIGH)] {
        let report = (Some(TokenStamp { highest: wall, wall }), QueueReport::default());
        // The first two know a higher token than the proposed one.
        let known = granted(if locker == 2 { HIGH } else { wall.next() });
        harness.respond_with(locker, harness.rpc(locker, is_lock), Ok(known), report);
    }
    let Request::Refresh(refresh) = &harness.in_flight[&harness.rpc(1, is_refresh)].1 else {
        panic!("a refresh");
    };
    let written = refresh.claim.as_ref().expect("it has a token").token;
    assert!(written > HIGH && written <= HIGH.ceiling(LEASE), "{written}");
    for locker in 1..3 {
        harness.respond(locker, is_refresh, HELD);
    }
    assert_eq!(token(&harness), Some(written));
}
