use super::*;

const START: Instant = Instant::from_nanos(0);
const WALL: Token = Token::new(1_000_000_000);
const LEASE: Duration = crate::limits::LEASE;

fn closed(limits: &Limits, nodes: &[&str]) -> Table {
    Table::new(limits, nodes.iter().map(|node| Arc::from(*node)), START, WALL, 1)
}

/// Nobody could hold anything of it: it is open at once.
fn open(limits: &Limits) -> Table {
    let mut table = closed(limits, &["n1"]);
    table.report("n1", Vec::new(), Token::default(), START);
    table
}

fn ask(uid: &str, names: &[&str], kind: Kind) -> Ask {
    Ask {
        uid: uid.into(),
        names: Names::new(names).expect("good names"),
        kind,
        owner: "n1".into(),
        source: "test".into(),
        quorum: 1,
        proposal: Token::default(),
        place: None,
        knows_leases: true,
    }
}

fn write(uid: &str) -> Ask {
    ask(uid, &["a"], Kind::Write)
}

/// Whether it is granted, or why not.
fn lock(table: &mut Table, ask: &Ask, now: Instant) -> Result<(), Refusal> {
    table.lock(ask, now, WALL).map(drop)
}

fn refresh(ask: &Ask, is_certain: bool) -> Refresh {
    let lesson = Lesson { ask: ask.clone(), token: Token::default(), is_certain };
    Refresh { uid: Arc::clone(&ask.uid), lesson: Some(lesson) }
}

/// As holders of existing clusters have it.
fn bare_refresh(uid: &str) -> Refresh {
    Refresh { uid: uid.into(), lesson: None }
}

fn holding(ask: &Ask) -> Holding {
    Holding { ask: ask.clone(), token: Token::default() }
}

#[test]
fn b53_a_closed_locker_grants_nothing_until_a_lease_has_passed() {
    let mut table = closed(&Limits::default(), &["n1"]);
    let last = START + (LEASE - Duration::from_nanos(1));
    assert_eq!(lock(&mut table, &write("1"), START), Err(Refusal::Closed));
    assert_eq!(table.refresh(&bare_refresh("0"), START), Refreshed::Closed, "it does not know");
    assert_eq!(lock(&mut table, &write("2"), last), Err(Refusal::Closed));
    assert_eq!(lock(&mut table, &write("3"), START + LEASE), Ok(()));
    assert_eq!(table.refresh(&bare_refresh("0"), START + LEASE), Refreshed::NotFound);
}

#[test]
fn b53_a_closed_locker_opens_when_every_node_has_reported_and_not_before() {
    let mut table = closed(&Limits::default(), &["n1", "n2"]);
    table.report("n1", Vec::new(), Token::default(), START);
    table.report("n1", Vec::new(), Token::default(), START);
    table.report("n3", Vec::new(), Token::default(), START);
    let Gate::Closed { silent, .. } = table.gate(START) else { panic!("n2 has said nothing") };
    assert_eq!(silent.iter().map(|node| &**node).collect::<Vec<_>>(), ["n2"]);
    table.report("n2", vec![holding(&write("2"))], Token::default(), START);
    assert!(matches!(table.gate(START), Gate::Open));
    assert_eq!(lock(&mut table, &write("1"), START), Err(Refusal::Conflict), "n2 holds it");
}

#[test]
fn b53_a_closed_locker_is_taught_by_who_is_certain_alone() {
    let mut table = closed(&Limits::default(), &["n1"]);
    let (certain, other) = (write("1"), write("2"));
    assert_eq!(table.refresh(&refresh(&other, false), START), Refreshed::Closed);
    assert_eq!(table.sizes().0, 0, "and keeps nothing of it");
    assert_eq!(table.refresh(&refresh(&certain, true), START), Refreshed::Taught { lease: LEASE });
    let again = table.refresh(&refresh(&certain, false), START);
    assert_eq!(again, Refreshed::Taught { lease: LEASE }, "closed still: it may not be the truth");
    table.report("n1", Vec::new(), Token::default(), START);
    assert_eq!(table.refresh(&bare_refresh("1"), START), Refreshed::Held { lease: LEASE });
    assert_eq!(lock(&mut table, &other, START), Err(Refusal::Conflict));
}

#[test]
fn b53_all_who_are_certain_are_believed_also_where_they_exclude_each_other() {
    let mut table = closed(&Limits::default(), &["n1", "n2"]);
    // One of them was suspended together with its clock: nobody but the store can know which.
    table.report("n1", vec![holding(&write("1"))], Token::default(), START);
    table.refresh(&refresh(&ask("2", &["a", "b"], Kind::Read), true), START);
    table.report("n2", vec![holding(&write("3"))], Token::default(), START);
    let uids = |table: &mut Table| -> Vec<_> {
        table.grants(START, 9, 9).into_iter().map(|grant| grant.uid).collect()
    };
    assert_eq!(uids(&mut table), ["1", "2", "3"]);
    assert!(matches!(table.gate(START), Gate::Open));
    let (writer, reader) = (write("4"), ask("5", &["a"], Kind::Read));
    for uid in ["1", "3"] {
        assert_eq!(lock(&mut table, &writer, START), Err(Refusal::Conflict));
        assert_eq!(lock(&mut table, &reader, START), Err(Refusal::Conflict), "a writer is left");
        assert_eq!(table.refresh(&bare_refresh(uid), START), Refreshed::Held { lease: LEASE });
        assert!(table.unlock(&uid.into(), START));
    }
    assert_eq!(lock(&mut table, &write("6"), START), Err(Refusal::Conflict), "a reader is left");
    assert_eq!(lock(&mut table, &reader, START), Ok(()));
    assert!(table.unlock(&"2".into(), START) && table.unlock(&"5".into(), START));
    assert_eq!(lock(&mut table, &writer, START), Ok(()));
}

#[test]
fn b53_what_is_reported_is_kept_though_there_is_no_room() {
    let mut table = closed(&Limits { grants_max: 1, ..Limits::default() }, &["n1"]);
    let held = [write("1"), ask("2", &["b"], Kind::Write)];
    table.report("n1", held.iter().map(holding).collect(), Token::default(), START);
    assert!(matches!(table.gate(START), Gate::Open));
    let other = ask("3", &["b"], Kind::Write);
    assert_eq!(lock(&mut table, &other, START), Err(Refusal::Conflict), "its holder counts on it");
}

#[test]
fn b53_what_was_released_meanwhile_is_not_learnt_from_a_report() {
    let mut table = closed(&Limits::default(), &["n1"]);
    assert!(!table.unlock(&"1".into(), START));
    table.report("n1", vec![holding(&write("1"))], Token::default(), START);
    assert_eq!(lock(&mut table, &write("2"), START), Ok(()));
}

#[test]
fn b54_what_a_report_says_of_tokens_is_known_afterwards() {
    let mut table = closed(&Limits::default(), &["n1"]);
    let (high, higher) = (WALL.later_by(2 * LEASE), WALL.later_by(3 * LEASE));
    let held = Holding { ask: write("1"), token: higher };
    table.report("n1", vec![held], high, START);
    let other = table.lock(&ask("2", &["b"], Kind::Write), START, WALL).expect("it is free");
    assert!(other.token >= high);
    table.unlock(&"1".into(), START);
    assert!(table.lock(&write("3"), START, WALL).expect("it is free").token >= higher);
}

#[test]
fn b54_a_locker_that_nobody_tells_of_tokens_begins_above_those_of_before() {
    let limits = Limits::default();
    // Holders' clocks have run on since tokens began a lease ahead of the wall clock.
    let proposal = WALL.later_by(LEASE + Duration::from_millis(1));
    let asked = Ask { proposal, ..write("1") };
    let before = open(&limits).lock(&asked, START, WALL).expect("it is free").token;
    assert_eq!(before, proposal);
    // All have restarted, and none knows anything.
    let (now, wall) = (START + Duration::from_secs(1), WALL.later_by(Duration::from_secs(1)));
    let mut table = Table::new(&limits, ["n1".into()], now, wall, 1);
    table.report("n1", Vec::new(), Token::default(), now);
    assert!(table.lock(&write("2"), now, wall).expect("it is free").token >= before);
}

#[test]
fn b50_what_was_released_before_it_arrives_is_not_granted() {
    let mut table = open(&Limits::default());
    assert!(!table.unlock(&"1".into(), START), "there is nothing yet");
    assert_eq!(lock(&mut table, &write("1"), START), Err(Refusal::Over));
    assert_eq!(table.refresh(&refresh(&write("1"), true), START), Refreshed::NotFound);
    assert_eq!(lock(&mut table, &write("2"), START), Ok(()), "others are not concerned");
    assert_eq!(lock(&mut table, &write("2"), START), Err(Refusal::Over), "an attempt asks once");
}

#[test]
fn b52_a_grant_ends_a_lease_after_its_last_refresh() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("1"), START).expect("it is free");
    let later = START + LEASE / 2;
    assert_eq!(table.refresh(&bare_refresh("1"), later), Refreshed::Held { lease: LEASE });
    let last = later + (LEASE - Duration::from_nanos(1));
    assert_eq!(lock(&mut table, &write("2"), last), Err(Refusal::Conflict));
    assert_eq!(lock(&mut table, &write("3"), later + LEASE), Ok(()));
    assert_eq!(table.refresh(&refresh(&write("1"), false), later + LEASE), Refreshed::NotFound);
    assert_eq!(table.counts().expired, 1);
}

#[test]
fn b56_what_was_forced_open_excludes_others_until_its_holder_lets_go() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("1"), START).expect("it is free");
    let forced = table.force_unlock(&Forced::Resource("a".to_owned()), START);
    assert_eq!(forced, [("1".into(), "n1".into())]);
    assert!(table.force_unlock(&Forced::Uid("1".to_owned()), START).is_empty(), "it is already");
    assert_eq!(lock(&mut table, &write("2"), START), Err(Refusal::Conflict));
    assert_eq!(table.refresh(&refresh(&write("1"), true), START), Refreshed::NotFound);
    assert!(table.unlock(&"1".into(), START));
    assert_eq!(lock(&mut table, &write("3"), START), Ok(()));
}

#[test]
fn b56_what_was_forced_open_and_is_never_released_ends_with_its_lease_for_ever() {
    let mut table = open(&Limits::default());
    lock(&mut table, &write("1"), START).expect("it is free");
    let later = START + LEASE / 2;
    assert_eq!(table.force_unlock(&Forced::Uid("1".to_owned()), later).len(), 1);
    assert_eq!(lock(&mut table, &write("2"), later), Err(Refusal::Conflict));
    let end = START + LEASE;
    assert_eq!(table.refresh(&refresh(&write("1"), true), end), Refreshed::NotFound);
    assert_eq!(lock(&mut table, &write("3"), end), Ok(()));
}

#[test]
fn b56_a_holder_that_knows_nothing_of_leases_is_out_at_once() {
    let mut table = open(&Limits::default());
    let old = Ask { knows_leases: false, ..write("1") };
    lock(&mut table, &old, START).expect("it is free");
    assert_eq!(table.force_unlock(&Forced::Uid("1".to_owned()), START).len(), 1);
    assert_eq!(table.refresh(&bare_refresh("1"), START), Refreshed::NotFound);
    assert_eq!(lock(&mut table, &old, START), Err(Refusal::Over));
    assert_eq!(lock(&mut table, &write("2"), START), Ok(()));
}

#[test]
fn a_full_locker_refuses_and_has_room_again_after_a_release() {
    let mut table = open(&Limits { grants_max: 1, ..Limits::default() });
    lock(&mut table, &write("1"), START).expect("it is free");
    let other = ask("2", &["b"], Kind::Write);
    assert_eq!(lock(&mut table, &other, START), Err(Refusal::Full));
    assert_eq!(table.refresh(&refresh(&other, true), START), Refreshed::NotFound);
    table.unlock(&"1".into(), START);
    assert_eq!(lock(&mut table, &other, START), Ok(()));
}

#[test]
fn entries_of_released_grants_do_not_pile_up() {
    let mut table = open(&Limits::default());
    for uid in 0..10_000 {
        let uid = uid.to_string();
        lock(&mut table, &write(&uid), START).expect("it is free");
        table.unlock(&uid.into(), START);
    }
    assert!(table.ends.len() < 100, "{}", table.ends.len());
    let left = (table.grants.len(), table.by_uid.len(), table.holders.len(), table.names_bytes);
    assert_eq!(left, (0, 0, 0, 0));
}
