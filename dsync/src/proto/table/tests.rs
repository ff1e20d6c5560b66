use super::*;

mod tickets;

const START: Instant = Instant::from_nanos(0);
const WALL: Token = Token::new(1_000_000_000);
const LEASE: Duration = crate::limits::LEASE;

fn closed(limits: &Limits, nodes: &[&str]) -> Table {
    Table::new(limits, nodes.iter().map(|node| Arc::from(*node)), START, WALL, 1)
}

/// Returns an open table: its only node has no leases to report.
fn open(limits: &Limits) -> Table {
    let mut table = closed(limits, &["n1"]);
    table.handle_report("n1", Vec::new(), Token::default(), START, WALL);
    table
}

fn request(uid: &str, resources: &[&str], kind: LockKind) -> LockRequest {
    LockRequest {
        uid: uid.into(),
        resources: Resources::new(resources).expect("valid names"),
        kind,
        owner: "n1".into(),
        source: "test".into(),
        quorum: 1,
        proposed_token: Token::default(),
        ticket: None,
        supports_leases: true,
        list: ListId::default(),
    }
}

fn write(uid: &str) -> LockRequest {
    request(uid, &["a"], LockKind::Write)
}

/// Requests a lock. Returns whether it is granted, or why not.
fn lock(table: &mut Table, request: &LockRequest, now: Instant) -> Result<(), Refusal> {
    table.lock(request, now, WALL).map(drop)
}

fn refresh(request: &LockRequest, is_valid: bool) -> RefreshRequest {
    let claim = LeaseClaim { request: request.clone(), token: Token::default(), is_valid };
    RefreshRequest { uid: Arc::clone(&request.uid), claim: Some(claim) }
}

/// Returns a refresh as holders of existing clusters send it.
fn bare_refresh(uid: &str) -> RefreshRequest {
    RefreshRequest { uid: uid.into(), claim: None }
}

fn held_lease(request: &LockRequest) -> HeldLease {
    HeldLease { request: request.clone(), token: Token::default() }
}

#[test]
fn b53_a_closed_locker_grants_nothing_until_a_lease_has_passed() {
    let mut table = closed(&Limits::default(), &["n1"]);
    let last = START + (LEASE - Duration::from_nanos(1));
    assert_eq!(lock(&mut table, &write("1"), START), Err(Refusal::Closed));
    assert_eq!(
        table.refresh(&bare_refresh("0"), START, WALL),
        RefreshOutcome::Closed,
        "it does not know"
    );
    assert_eq!(lock(&mut table, &write("2"), last), Err(Refusal::Closed));
    assert_eq!(lock(&mut table, &write("3"), START + LEASE), Ok(()));
    assert_eq!(table.refresh(&bare_refresh("0"), START + LEASE, WALL), RefreshOutcome::NotFound);
}

#[test]
fn b53_a_closed_locker_opens_when_every_node_has_reported_and_not_before() {
    let mut table = closed(&Limits::default(), &["n1", "n2"]);
    table.handle_report("n1", Vec::new(), Token::default(), START, WALL);
    table.handle_report("n1", Vec::new(), Token::default(), START, WALL);
    table.handle_report("n3", Vec::new(), Token::default(), START, WALL);
    let Gate::Closed { unreported, .. } = table.gate(START) else { panic!("n2 has not reported") };
    assert_eq!(unreported.iter().map(|node| &**node).collect::<Vec<_>>(), ["n2"]);
    table.handle_report("n2", vec![held_lease(&write("2"))], Token::default(), START, WALL);
    assert!(matches!(table.gate(START), Gate::Open));
    assert_eq!(lock(&mut table, &write("1"), START), Err(Refusal::Conflict), "n2 holds it");
}

#[test]
fn b53_a_closed_locker_reinstates_only_valid_claims() {
    let mut table = closed(&Limits::default(), &["n1"]);
    let (valid, other) = (write("1"), write("2"));
    assert_eq!(table.refresh(&refresh(&other, false), START, WALL), RefreshOutcome::Closed);
    assert_eq!(table.sizes().0, 0, "and keeps nothing of it");
    assert_eq!(
        table.refresh(&refresh(&valid, true), START, WALL),
        RefreshOutcome::Reinstated { lease: LEASE }
    );
    let again = table.refresh(&refresh(&valid, false), START, WALL);
    assert_eq!(
        again,
        RefreshOutcome::Reinstated { lease: LEASE },
        "still closed: an earlier grant to another may be lost"
    );
    table.handle_report("n1", Vec::new(), Token::default(), START, WALL);
    assert_eq!(
        table.refresh(&bare_refresh("1"), START, WALL),
        RefreshOutcome::Held { lease: LEASE }
    );
    assert_eq!(lock(&mut table, &other, START), Err(Refusal::Conflict));
}

#[test]
fn b53_all_valid_claims_are_reinstated_even_if_they_exclude_each_other() {
    let mut table = closed(&Limits::default(), &["n1", "n2"]);
    // One holder was suspended together with its clock: only the store can detect which.
    table.handle_report("n1", vec![held_lease(&write("1"))], Token::default(), START, WALL);
    table.refresh(&refresh(&request("2", &["a", "b"], LockKind::Read), true), START, WALL);
    table.handle_report("n2", vec![held_lease(&write("3"))], Token::default(), START, WALL);
    let uids = |table: &mut Table| -> Vec<_> {
        table.grants(START, 9, 9).into_iter().map(|grant| grant.uid).collect()
    };
    assert_eq!(uids(&mut table), ["1", "2", "3"]);
    assert!(matches!(table.gate(START), Gate::Open));
    let (writer, reader) = (write("4"), request("5", &["a"], LockKind::Read));
    for uid in ["1", "3"] {
        assert_eq!(lock(&mut table, &writer, START), Err(Refusal::Conflict));
        assert_eq!(lock(&mut table, &reader, START), Err(Refusal::Conflict), "a writer is left");
        assert_eq!(
            table.refresh(&bare_refresh(uid), START, WALL),
            RefreshOutcome::Held { lease: LEASE }
        );
        assert_eq!(table.unlock(&uid.into(), None, START, WALL), UnlockOutcome::Released);
    }
    assert_eq!(lock(&mut table, &write("6"), START), Err(Refusal::Conflict), "a reader is left");
    assert_eq!(lock(&mut table, &reader, START), Ok(()));
    for uid in ["2", "5"] {
        assert_eq!(table.unlock(&uid.into(), None, START, WALL), UnlockOutcome::Released);
    }
    assert_eq!(lock(&mut table, &writer, START), Ok(()));
}

#[test]
fn b53_reported_leases_are_kept_beyond_the_limit() {
    let mut table = closed(&Limits { grants_max: 1, ..Limits::default() }, &["n1"]);
    let held = [write("1"), request("2", &["b"], LockKind::Write)];
    table.handle_report("n1", held.iter().map(held_lease).collect(), Token::default(), START, WALL);
    assert!(matches!(table.gate(START), Gate::Open));
    let other = request("3", &["b"], LockKind::Write);
    assert_eq!(lock(&mut table, &other, START), Err(Refusal::Conflict), "its holder relies on it");
}

#[test]
fn b53_a_lease_released_meanwhile_is_not_reinstated_by_a_report() {
    let mut table = closed(&Limits::default(), &["n1"]);
    assert_eq!(table.unlock(&"1".into(), None, START, WALL), UnlockOutcome::NotFound);
    table.handle_report("n1", vec![held_lease(&write("1"))], Token::default(), START, WALL);
    assert_eq!(lock(&mut table, &write("2"), START), Ok(()));
}

#[test]
fn b54_tokens_of_a_report_are_known_afterwards() {
    let mut table = closed(&Limits::default(), &["n1"]);
    let (highest, higher) = (WALL.later_by(LEASE * 3 / 2), WALL.later_by(2 * LEASE));
    let held = HeldLease { request: write("1"), token: higher };
    table.handle_report("n1", vec![held], highest, START, WALL);
    let other =
        table.lock(&request("2", &["b"], LockKind::Write), START, WALL).expect("it is free");
    assert!(other.token >= highest);
    table.unlock(&"1".into(), None, START, WALL);
    assert!(table.lock(&write("3"), START, WALL).expect("it is free").token >= higher);
}

#[test]
fn b54_tokens_after_a_restart_without_reports_exceed_those_before() {
    let limits = Limits::default();
    // Holders' clocks have run on since tokens began a lease ahead of the wall clock.
    let proposed_token = WALL.later_by(LEASE + Duration::from_millis(1));
    let asked = LockRequest { proposed_token, ..write("1") };
    let before = open(&limits).lock(&asked, START, WALL).expect("it is free").token;
    assert_eq!(before, proposed_token);
    // All lockers have restarted, and lost their state.
    let (now, wall) = (START + Duration::from_secs(1), WALL.later_by(Duration::from_secs(1)));
    let mut table = Table::new(&limits, ["n1".into()], now, wall, 1);
    table.handle_report("n1", Vec::new(), Token::default(), now, wall);
    assert!(table.lock(&write("2"), now, wall).expect("it is free").token >= before);
}

#[test]
fn b50_a_request_that_arrives_after_its_release_is_not_granted() {
    let mut table = open(&Limits::default());
    assert_eq!(
        table.unlock(&"1".into(), None, START, WALL),
        UnlockOutcome::NotFound,
        "no grant yet"
    );
    assert_eq!(lock(&mut table, &write("1"), START), Err(Refusal::AttemptEnded));
    assert_eq!(table.refresh(&refresh(&write("1"), true), START, WALL), RefreshOutcome::NotFound);
    assert_eq!(lock(&mut table, &write("2"), START), Ok(()), "others are unaffected");
    assert_eq!(
        lock(&mut table, &write("2"), START),
        Err(Refusal::AttemptEnded),
        "an attempt is sent once"
    );
}

#[test]
fn b52_a_grant_ends_a_lease_after_its_last_refresh() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("1"), START).expect("it is free");
    let later = START + LEASE / 2;
    assert_eq!(
        table.refresh(&bare_refresh("1"), later, WALL),
        RefreshOutcome::Held { lease: LEASE }
    );
    let last = later + (LEASE - Duration::from_nanos(1));
    assert_eq!(lock(&mut table, &write("2"), last), Err(Refusal::Conflict));
    assert_eq!(lock(&mut table, &write("3"), later + LEASE), Ok(()));
    assert_eq!(
        table.refresh(&refresh(&write("1"), false), later + LEASE, WALL),
        RefreshOutcome::NotFound
    );
    assert_eq!(table.counts().expired, 1);
}

#[test]
fn b56_a_lock_forced_open_excludes_others_until_its_holder_releases_it() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("1"), START).expect("it is free");
    let forced = table.force_unlock(&ForceTarget::Resource("a".to_owned()), START);
    assert_eq!(forced, [("1".into(), "n1".into())]);
    assert!(
        table.force_unlock(&ForceTarget::Uid("1".to_owned()), START).is_empty(),
        "already revoked"
    );
    assert_eq!(lock(&mut table, &write("2"), START), Err(Refusal::Conflict));
    assert_eq!(table.refresh(&refresh(&write("1"), true), START, WALL), RefreshOutcome::NotFound);
    assert_eq!(table.unlock(&"1".into(), None, START, WALL), UnlockOutcome::Released);
    assert_eq!(lock(&mut table, &write("3"), START), Ok(()));
}

#[test]
fn b56_a_lock_forced_open_and_never_released_ends_with_its_lease() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("1"), START).expect("it is free");
    let later = START + LEASE / 2;
    assert_eq!(table.force_unlock(&ForceTarget::Uid("1".to_owned()), later).len(), 1);
    assert_eq!(lock(&mut table, &write("2"), later), Err(Refusal::Conflict));
    let end = START + LEASE;
    assert_eq!(table.refresh(&refresh(&write("1"), true), end, WALL), RefreshOutcome::NotFound);
    assert_eq!(lock(&mut table, &write("3"), end), Ok(()));
}

#[test]
fn b56_a_lock_of_a_holder_without_leases_ends_at_once_when_forced_open() {
    let mut table = open(&Limits::default());
    let old = LockRequest { supports_leases: false, ..write("1") };
    lock(&mut table, &old, START).expect("it is free");
    assert_eq!(table.force_unlock(&ForceTarget::Uid("1".to_owned()), START).len(), 1);
    assert_eq!(table.refresh(&bare_refresh("1"), START, WALL), RefreshOutcome::NotFound);
    assert_eq!(lock(&mut table, &write("2"), START), Ok(()));
    assert_eq!(lock(&mut table, &old, START), Err(Refusal::Conflict), "the new one holds it");
}

#[test]
fn a_full_locker_refuses_and_has_room_again_after_a_release() {
    let mut table = open(&Limits { grants_max: 1, ..Limits::default() });
    lock(&mut table, &write("1"), START).expect("it is free");
    let other = request("2", &["b"], LockKind::Write);
    assert_eq!(lock(&mut table, &other, START), Err(Refusal::Full));
    assert_eq!(table.refresh(&refresh(&other, true), START, WALL), RefreshOutcome::NotFound);
    table.unlock(&"1".into(), None, START, WALL);
    assert_eq!(lock(&mut table, &other, START), Ok(()));
}

#[test]
fn entries_of_released_grants_do_not_pile_up() {
    let mut table = open(&Limits::default());
    for uid in 0..10_000 {
        let uid = uid.to_string();
        lock(&mut table, &write(&uid), START).expect("it is free");
        table.unlock(&uid.into(), None, START, WALL);
    }
    assert!(table.expiries.len() < 100, "{}", table.expiries.len());
    let left = (table.grants.len(), table.by_uid.len(), table.holders.len(), table.resource_bytes);
    assert_eq!(left, (0, 0, 0, 0));
}
