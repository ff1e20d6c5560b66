//! Every state of a hold, and every event: what follows, as one snapshot.

use std::fmt::Write as _;

use super::*;

/// Timeout of the acquisition.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The locker that events come from. The others keep theirs outstanding.
const LOCKER: usize = 2;

fn new() -> Harness {
    let attempt_limit = AttemptLimit::Timeout(TIMEOUT);
    Harness::new(HoldConfig { attempt_limit, ..config(3, LockKind::Write) })
}

fn after(harness: Harness, change: impl FnOnce(&mut Harness)) -> Harness {
    let mut harness = harness;
    change(&mut harness);
    harness.collect();
    harness
}

/// Two lockers refuse: the attempt fails.
fn refused(response: Response) -> Harness {
    after(new(), |harness| {
        harness.respond(0, is_lock, response);
        harness.respond(1, is_lock, response);
    })
}

fn held() -> Harness {
    after(new(), |harness| harness.grant([0, 1]))
}

fn released() -> Harness {
    after(held(), |harness| harness.hold.release(harness.now))
}

fn revoked() -> Harness {
    after(held(), |harness| {
        let uid = Arc::clone(harness.hold.uid());
        harness.hold.handle_revoked(0, &uid, harness.now);
    })
}

/// Returns each state, by what led to it.
fn states() -> Vec<(&'static str, Harness)> {
    let higher = HIGH.later_by(LEASE);
    let fencing = || {
        after(new(), |harness| {
            harness.respond(0, is_lock, granted(higher));
            harness.respond(1, is_lock, granted(higher));
        })
    };
    vec![
        ("voting", new()),
        ("voting, one vote", after(new(), |harness| harness.grant([0]))),
        ("fencing", fencing()),
        (
            "fencing, one confirmed",
            after(fencing(), |harness| {
                harness.respond(0, is_refresh, HELD);
            }),
        ),
        ("waiting for notifications", refused(CONFLICT)),
        (
            "waiting, one notified",
            after(refused(CONFLICT), |harness| {
                harness.respond(0, is_wait, NOTIFIED);
            }),
        ),
        ("waiting to retry", refused(FULL)),
        ("held", held()),
        ("held, all votes", after(held(), |harness| harness.grant([LOCKER]))),
        (
            "held, refreshing",
            after(held(), |harness| {
                harness.grant([LOCKER]);
                harness.advance(Limits::default().refresh_interval);
            }),
        ),
        ("unlocked", released()),
        (
            "unlocked, confirmed by two",
            after(released(), |harness| {
                harness.respond(0, is_unlock, Response::Released);
                harness.respond(1, is_unlock, Response::Released);
            }),
        ),
        ("revoked, guard not dropped", revoked()),
        ("revoked, guard dropped", after(revoked(), |harness| harness.hold.release(harness.now))),
        (
            "expired, guard not dropped",
            after(held(), |harness| {
                harness.hold.expire(harness.now);
            }),
        ),
        (
            "finished",
            after(released(), |harness| {
                for locker in 0..3 {
                    harness.respond(locker, is_unlock, Response::Released);
                }
            }),
        ),
    ]
}

/// Responds to the outstanding RPC of [`LOCKER`]: to its wait request if the response is to one, else
/// to the request of the attempt or the release; or to an RPC that is not outstanding.
fn deliver(harness: &mut Harness, response: Result<Response, Failure>) {
    let state = &harness.hold.lockers[LOCKER];
    let release = state.pending_release.as_ref().and_then(|release| release.rpc);
    let cancel = state.ticket_cancel.map(|cancel| cancel.rpc);
    let other = state.rpc.map(|rpc| rpc.id).or(release).or(cancel);
    let rpc = match response {
        Ok(Response::Wait { .. }) => state.wait_rpc.or(other),
        _ => other.or(state.wait_rpc),
    };
    harness.respond_to(LOCKER, rpc.unwrap_or(RpcId(u64::MAX)), response);
}

type Event = (&'static str, Box<dyn Fn(&mut Harness)>);

fn events() -> Vec<Event> {
    let response =
        |name, response| -> Event { (name, Box::new(move |harness| deliver(harness, response))) };
    let own = |name, apply: fn(&mut Hold, Instant)| -> Event {
        (name, Box::new(move |harness| apply(&mut harness.hold, harness.now)))
    };
    let refreshed = |outcome| Ok(Response::Refresh(outcome));
    vec![
        response("granted", Ok(granted(HIGH.next()))),
        response("granted, higher token", Ok(granted(HIGH.later_by(LEASE)))),
        response("refused: conflict", Ok(CONFLICT)),
        response("refused: closed", Ok(Response::Lock(Err(Refusal::Closed)))),
        response("refused: attempt ended", Ok(Response::Lock(Err(Refusal::AttemptEnded)))),
        response("refused: full", Ok(FULL)),
        response("refresh: held", Ok(HELD)),
        response("refresh: reinstated", refreshed(RefreshOutcome::Reinstated { lease: LEASE })),
        response("refresh: closed", refreshed(RefreshOutcome::Closed)),
        response("refresh: not found", Ok(NOT_FOUND)),
        response("release confirmed", Ok(Response::Released)),
        response("notified", Ok(NOTIFIED)),
        response("not notified", Ok(Response::Wait { is_notified: false })),
        response("failed, may have run", Err(Failure { may_have_run: true })),
        response("failed, has not run", Err(Failure { may_have_run: false })),
        own("forced open", |hold, now| {
            let uid = Arc::clone(hold.uid());
            hold.handle_revoked(LOCKER, &uid, now);
        }),
        own("forced open, another attempt", |hold, now| hold.handle_revoked(LOCKER, "other", now)),
        own("lease query", |hold, now| drop(hold.void_outstanding(LOCKER, now))),
        own("next timer", |hold, now| hold.handle_timeout(hold.poll_timeout().unwrap_or(now))),
        own("deadline", |hold, now| hold.handle_timeout(now + TIMEOUT)),
        own("end of the lease", |hold, now| hold.handle_timeout(now + LEASE)),
        own("released by its holder", Hold::release),
        own("expiry was seen", Hold::expire),
    ]
}

/// Describes a hold: its phase, and the lockers that vote (v), have an RPC outstanding (r), have a
/// release pending (p), will notify (w), or have a cancellation of the ticket outstanding (c).
fn describe(hold: &Hold) -> String {
    let phase = match hold.phase {
        Phase::Voting { .. } => "Voting".to_owned(),
        Phase::Fencing { .. } => "Fencing".to_owned(),
        Phase::Waiting { is_notified: false, .. } => "Waiting".to_owned(),
        Phase::Waiting { is_notified: true, .. } => "Waiting(notified)".to_owned(),
        Phase::Held { .. } => "Held".to_owned(),
        Phase::Ended(_) if hold.is_finished() => "Finished".to_owned(),
        Phase::Ended(end) => format!("Ended({end:?})"),
    };
    let count = |letter, holds: &dyn Fn(&LockerState) -> bool| {
        let count = hold.lockers.iter().filter(|state| holds(state)).count();
        if count == 0 { String::new() } else { format!(" {count}{letter}") }
    };
    let votes = count('v', &|state| state.vote != Vote::None);
    let rpcs = count('r', &|state| state.rpc.is_some());
    let pending = count('p', &|state| state.pending_release.is_some());
    let waits = count('w', &|state| state.wait_rpc.is_some());
    let cancels = count('c', &|state| state.ticket_cancel.is_some());
    format!("{phase}{votes}{rpcs}{pending}{waits}{cancels}")
}

/// Describes the actions of a hold.
fn actions(hold: &mut Hold) -> String {
    let mut actions = String::new();
    while let Some(output) = hold.poll_output() {
        let (name, locker) = match output {
            Output::Send { request: Request::Lock(_), locker, .. } => ("lock", Some(locker)),
            Output::Send { request: Request::Refresh(_), locker, .. } => ("refresh", Some(locker)),
            Output::Send { request: Request::Unlock { .. }, locker, .. } => {
                ("unlock", Some(locker))
            }
            Output::Send { request: Request::Wait(_), locker, .. } => ("wait", Some(locker)),
            Output::Send { request: Request::CancelTicket(_), locker, .. } => {
                ("cancel_ticket", Some(locker))
            }
            Output::Send { request: Request::PlainUnlock { .. }, .. } => {
                ("of a MinIO holder", None)
            }
            Output::Cancel { .. } => ("cancel", None),
        };
        let locker = locker.map(|locker| locker.to_string()).unwrap_or_default();
        let _ = write!(actions, " {name}{locker}");
    }
    actions
}

#[test]
fn b50_every_state_handles_every_event() {
    let mut table = String::new();
    let (states, events) = (states().len(), events());
    for index in 0..states {
        let (name, harness) = self::states().swap_remove(index);
        let before = describe(&harness.hold);
        let _ = writeln!(table, "{name}: {before}");
        for (event, apply) in &events {
            let mut harness = self::states().swap_remove(index).1;
            // Events collect what the hold sends: here it is wanted.
            harness.is_collecting = false;
            apply(&mut harness);
            let sent = actions(&mut harness.hold);
            let after = describe(&harness.hold);
            let after = if after == before { "-" } else { &after };
            let _ = writeln!(table, "  {event:<30}{after:<26}{sent}");
        }
    }
    let table: Vec<_> = table.lines().map(str::trim_end).collect();
    insta::assert_snapshot!("hold_states_and_events", table.join("\n"));
}
