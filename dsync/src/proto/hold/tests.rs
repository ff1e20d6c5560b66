use std::collections::BTreeMap;

use super::*;
use crate::proto::token::Stamp;

const START: Instant = Instant::from_nanos(1_000_000_000);
const LEASE: Duration = crate::limits::LEASE;
const HIGH: Token = Token::new(5_000_000);
const STAMP: Stamp = Stamp { high: HIGH, wall: HIGH };

/// A hold, and what it has asked that nobody has answered.
struct Bench {
    hold: Hold,
    now: Instant,
    open: BTreeMap<CallId, (usize, Message)>,
}

fn config(lockers: usize, kind: Kind) -> Config {
    Config {
        lockers,
        names: Names::new(["a"]).expect("a good name"),
        kind,
        owner: "n1".into(),
        source: "test".into(),
        id: "lock".into(),
        deadline: None,
        waiting: Waiting::Told,
        limits: Limits::default(),
        seed: 1,
    }
}

fn granted(token: Token) -> Answer {
    Answer::Lock(Ok(Granted { token, lease: LEASE }))
}

const CONFLICT: Answer = Answer::Lock(Err(Refusal::Conflict));
const HELD: Answer = Answer::Refresh(Refreshed::Held { lease: LEASE });
const NOT_FOUND: Answer = Answer::Refresh(Refreshed::NotFound);
const FULL: Answer = Answer::Lock(Err(Refusal::Full));
const CALLED: Answer = Answer::Wait { is_called: true };

fn is_lock(message: &Message) -> bool {
    matches!(message, Message::Lock(_))
}

fn is_refresh(message: &Message) -> bool {
    matches!(message, Message::Refresh(_))
}

fn is_unlock(message: &Message) -> bool {
    matches!(message, Message::Unlock { .. })
}

fn is_wait(message: &Message) -> bool {
    matches!(message, Message::Wait(_))
}

impl Bench {
    fn new(config: Config) -> Self {
        let mut tokens = TokenClock::default();
        tokens.observe(STAMP, START);
        let hold = Hold::new(config, tokens, START);
        let mut bench = Self { hold, now: START, open: BTreeMap::new() };
        bench.collect();
        bench
    }

    /// A write lock that all of three lockers have granted at once.
    fn held() -> Self {
        let mut bench = Self::new(config(3, Kind::Write));
        bench.grant(0..3);
        assert!(bench.is_held());
        bench
    }

    fn collect(&mut self) {
        while let Some(output) = self.hold.poll_output() {
            match output {
                Output::Send { call, locker, message } => {
                    self.open.insert(call, (locker, message));
                }
                Output::Cancel { call } => drop(self.open.remove(&call)),
            }
        }
    }

    /// Lockers that have been asked such a thing and have not answered.
    fn asked(&self, is_such: impl Fn(&Message) -> bool) -> Vec<usize> {
        let such = self.open.values().filter(|(_, message)| is_such(message));
        such.map(|(locker, _)| *locker).collect()
    }

    fn call(&self, locker: usize, is_such: impl Fn(&Message) -> bool) -> CallId {
        let mut such = self.open.iter().filter(|(_, (to, asked))| *to == locker && is_such(asked));
        *such.next().expect("it was asked").0
    }

    fn answer(&mut self, locker: usize, is_such: impl Fn(&Message) -> bool, answer: Answer) {
        let call = self.call(locker, is_such);
        self.answer_call(locker, call, Ok(answer));
    }

    fn fail(&mut self, locker: usize, is_such: impl Fn(&Message) -> bool) {
        let call = self.call(locker, is_such);
        self.answer_call(locker, call, Err(Failure { may_have_run: true }));
    }

    fn answer_call(&mut self, locker: usize, call: CallId, answer: Result<Answer, Failure>) {
        let stamp = answer.is_ok().then_some(STAMP);
        self.open.remove(&call);
        self.hold.handle_answer((locker, call), answer, stamp, self.now);
        self.collect();
    }

    /// These lockers take the proposal.
    fn grant(&mut self, lockers: impl IntoIterator<Item = usize>) {
        for locker in lockers {
            let Message::Lock(ask) = &self.open[&self.call(locker, is_lock)].1 else { continue };
            let token = ask.proposal;
            self.answer(locker, is_lock, granted(token));
        }
    }

    /// Time passes, and the hold is asked whenever it wants to be.
    fn pass(&mut self, time: Duration) {
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

    fn until(&self) -> Instant {
        match self.hold.status(self.now) {
            Status::Held { until, .. } => until,
            other => panic!("it is not held: {other:?}"),
        }
    }
}

#[test]
fn b50_what_may_be_granted_late_is_released_until_that_is_confirmed() {
    let mut bench = Bench::new(config(3, Kind::Write));
    let late = bench.call(0, is_lock);
    bench.answer(1, is_lock, CONFLICT);
    bench.answer(2, is_lock, CONFLICT);
    assert_eq!(bench.asked(is_unlock), [0], "who refused has nothing to release");
    let Message::Unlock { uid, .. } = &bench.open[&bench.call(0, is_unlock)].1 else { panic!() };
    assert_eq!(**uid, *"lock.1");
    bench.answer_call(0, late, Ok(granted(HIGH)));
    assert!(!bench.is_held(), "it comes too late");
    bench.fail(0, is_unlock);
    assert!(bench.asked(is_unlock).is_empty(), "not at once");
    bench.pass(Limits::default().retry_max);
    assert_eq!(bench.asked(is_unlock), [0], "again");
    bench.hold.let_go(bench.now);
    bench.collect();
    assert!(!bench.hold.is_over());
    bench.answer(0, is_unlock, Answer::Released);
    for locker in bench.asked(is_unlock) {
        bench.answer(locker, is_unlock, Answer::Released);
    }
    assert!(bench.hold.is_over() && bench.hold.is_released());
}

#[test]
fn b56_a_release_that_nobody_confirms_is_tried_for_a_lease_and_no_longer() {
    let mut bench = Bench::held();
    bench.hold.let_go(bench.now);
    bench.collect();
    let mut tries = 0;
    while !bench.hold.is_over() {
        assert!(bench.now.since(START) <= LEASE);
        for locker in bench.asked(is_unlock) {
            tries += 1;
            bench.fail(locker, is_unlock);
        }
        let pause = bench.hold.poll_timeout().expect("it goes on").since(bench.now);
        bench.pass(pause);
    }
    assert_eq!(bench.now, START + LEASE);
    assert!((3 * 12..3 * 25).contains(&tries), "{tries}: often, but no storm");
}

#[test]
fn b55_a_locker_that_owes_a_release_is_not_asked_again() {
    let mut bench = Bench::new(config(3, Kind::Write));
    bench.answer(1, is_lock, CONFLICT);
    bench.answer(2, is_lock, CONFLICT);
    for attempt in 2..6 {
        bench.pass(Limits::default().retry_max);
        assert_eq!(bench.asked(is_lock), [1, 2], "attempt {attempt}");
        bench.answer(1, is_lock, CONFLICT);
        assert_eq!(bench.asked(is_unlock), [0, 2], "two are too few without the second");
        bench.answer(2, is_unlock, Answer::Released);
    }
    bench.answer(0, is_unlock, Answer::Released);
    bench.pass(Limits::default().retry_max);
    assert_eq!(bench.asked(is_lock), [0, 1, 2]);
}

#[test]
fn b55_a_slow_locker_does_not_delay_a_lock_that_has_its_quorum() {
    let mut bench = Bench::new(config(3, Kind::Write));
    bench.grant([0, 2]);
    assert!(bench.is_held());
    assert_eq!(bench.asked(is_lock), [1], "its answer is welcome still");
}

#[test]
fn b52_a_vote_counts_from_when_it_was_asked_for() {
    let certainty = Limits::default().certainty(LEASE);
    let mut bench = Bench::new(config(1, Kind::Write));
    bench.pass(Duration::from_secs(3));
    bench.grant([0]);
    assert_eq!(bench.until(), START + certainty, "not from when it was granted");
    bench.pass(Limits::default().refresh_interval);
    assert_eq!(bench.asked(is_refresh), [0]);
    let sent = bench.hold.seats[0].call.expect("it is under way").sent;
    bench.pass(Duration::from_secs(2));
    bench.answer(0, is_refresh, HELD);
    assert!(sent + Duration::from_secs(2) <= bench.now);
    assert_eq!(bench.until(), sent + certainty);
}

#[test]
fn b52_silence_ends_a_lock_and_no_late_answer_brings_it_back() {
    for lockers in [1, 3] {
        let mut bench = Bench::new(config(lockers, Kind::Write));
        bench.grant(0..lockers);
        let until = bench.until();
        bench.pass(Limits::default().refresh_interval);
        let late: Vec<_> = (0..lockers).map(|locker| bench.call(locker, is_refresh)).collect();
        assert_eq!(bench.hold.status(until), Status::Ended(End::Expired), "by the clock alone");
        // Nobody asks the hold anything until then: its process was stopped.
        bench.now = until;
        for (locker, call) in late.into_iter().enumerate() {
            bench.answer_call(locker, call, Ok(HELD));
            assert_eq!(bench.hold.status(bench.now), Status::Ended(End::Expired));
        }
        assert!(bench.asked(is_unlock).is_empty(), "its holder may not have seen it yet");
        bench.hold.let_go(bench.now);
        bench.collect();
        assert_eq!(bench.asked(is_unlock), (0..lockers).collect::<Vec<_>>());
    }
}

#[test]
fn b52_a_lock_is_held_as_long_as_a_quorum_is_certain() {
    let mut bench = Bench::held();
    for _ in 0..20 {
        bench.pass(Limits::default().refresh_interval);
        bench.fail(0, is_refresh);
        bench.answer(1, is_refresh, HELD);
        bench.answer(2, is_refresh, HELD);
        assert!(bench.is_held());
    }
    bench.pass(LEASE);
    assert_eq!(bench.hold.status(bench.now), Status::Ended(End::Expired));
}

#[test]
fn b56_a_lock_that_too_few_know_is_revoked() {
    let mut bench = Bench::held();
    bench.pass(Limits::default().refresh_interval);
    bench.answer(0, is_refresh, NOT_FOUND);
    assert!(bench.is_held(), "two are enough");
    bench.answer(1, is_refresh, NOT_FOUND);
    assert_eq!(bench.hold.status(bench.now), Status::Ended(End::Revoked));
    assert!(bench.asked(is_unlock).is_empty(), "its holder may not have seen it yet");
    bench.hold.let_go(bench.now);
    bench.collect();
    assert_eq!(bench.asked(is_unlock), [0, 1, 2]);
    bench.hold.let_go(bench.now);
    bench.collect();
    assert_eq!(bench.asked(is_unlock), [0, 1, 2], "each is asked once");
}

#[test]
fn b56_what_was_lost_and_is_never_let_go_lapses() {
    let mut bench = Bench::held();
    let uid = Arc::clone(bench.hold.uid());
    bench.hold.handle_revoked(0, &uid, bench.now);
    bench.hold.handle_revoked(1, &uid, bench.now);
    assert_eq!(bench.hold.status(bench.now), Status::Ended(End::Revoked));
    bench.pass(LEASE - Duration::from_millis(1));
    assert!(!bench.hold.is_over() && !bench.hold.is_released());
    bench.pass(Duration::from_millis(1));
    assert!(bench.hold.is_over() && bench.hold.is_released());
    assert!(bench.asked(is_unlock).is_empty(), "no lease of it stands any more");
}

#[test]
fn b56_a_lock_is_revoked_as_soon_as_lockers_tell_so() {
    let mut bench = Bench::held();
    let uid = Arc::clone(bench.hold.uid());
    bench.hold.handle_revoked(0, "another.1", bench.now);
    bench.hold.handle_revoked(1, "another.1", bench.now);
    bench.hold.handle_revoked(2, &uid, bench.now);
    assert!(bench.is_held(), "one of three is not enough");
    bench.hold.handle_revoked(1, &uid, bench.now);
    assert_eq!(bench.hold.status(bench.now), Status::Ended(End::Revoked));
}

#[test]
fn b53_what_was_asked_before_a_recall_does_not_count() {
    let mut bench = Bench::new(config(1, Kind::Write));
    let early = bench.call(0, is_lock);
    assert_eq!(bench.hold.recall(0, bench.now), None, "nothing is counted on yet");
    bench.collect();
    bench.answer_call(0, early, Ok(granted(HIGH)));
    assert!(!bench.is_held());
    assert_eq!(bench.asked(is_unlock), [0], "it may have been granted");
}

#[test]
fn b53_a_recall_tells_what_is_counted_on_and_a_refresh_of_before_extends_nothing() {
    let mut bench = Bench::held();
    let until = bench.until();
    bench.pass(Limits::default().refresh_interval);
    let early = [0, 1].map(|locker| bench.call(locker, is_refresh));
    for locker in [0, 1] {
        let holding = bench.hold.recall(locker, bench.now).expect("it is certain");
        assert_eq!(*holding.ask.uid, **bench.hold.uid());
        let Status::Held { token, .. } = bench.hold.status(bench.now) else { panic!("it is") };
        assert_eq!(holding.token, token);
    }
    bench.collect();
    for (locker, call) in early.into_iter().enumerate() {
        bench.answer_call(locker, call, Ok(HELD));
    }
    bench.answer(2, is_refresh, HELD);
    assert_eq!(bench.until(), until, "one new vote of three");
    assert_eq!(bench.hold.recall(0, until), None, "what is not certain is not told");
}

#[test]
fn b53_who_was_not_certain_all_along_does_not_count_on_what_it_taught() {
    let taught = Answer::Refresh(Refreshed::Taught { lease: LEASE });
    for is_certain in [true, false] {
        let mut bench = Bench::held();
        bench.pass(Limits::default().refresh_interval);
        let votes = bench.hold.seats.iter_mut();
        let until = bench.now + Duration::from_secs(if is_certain { 2 } else { 1 });
        votes.take(2).for_each(|seat| seat.vote = Vote::Granted { until, token: HIGH });
        bench.answer(2, is_refresh, HELD);
        // The other two were certain when they were asked; one of them answers afterwards.
        bench.now = bench.now + Duration::from_secs(1);
        bench.hold.seats[1].vote = Vote::Granted { until: bench.now + LEASE, token: HIGH };
        bench.answer(0, is_refresh, taught);
        let until = bench.hold.seats[0].certain_until().expect("it has voted once");
        assert_eq!(until > bench.now + LEASE / 2, is_certain);
    }
}

#[test]
fn b54_a_token_that_lockers_did_not_take_is_made_higher_and_known_to_a_quorum_first() {
    let mut bench = Bench::new(config(3, Kind::Write));
    let highest = Token::new(9_000_000);
    bench.answer(0, is_lock, granted(Token::new(8_000_000)));
    bench.answer(1, is_lock, granted(highest));
    assert!(!bench.is_held());
    assert_eq!((bench.asked(is_refresh), bench.hold.tries().second_rounds), (vec![0, 1], 1));
    bench.answer(0, is_refresh, HELD);
    assert!(!bench.is_held(), "one of three knows it");
    bench.answer(2, is_lock, granted(Token::new(1)));
    assert_eq!(bench.asked(is_refresh), [1, 2], "who grants late is told too");
    bench.answer(2, is_refresh, HELD);
    let Status::Held { token, .. } = bench.hold.status(bench.now) else { panic!("it is held") };
    assert!(token > highest);
}

#[test]
fn b55_waits_grow_with_jitter_within_bounds() {
    let limits = Limits::default();
    let mut all = Vec::new();
    for seed in 0..20 {
        let config = Config { seed, waiting: Waiting::Polling, ..config(1, Kind::Write) };
        let mut bench = Bench::new(config);
        let waits = (0..60_u32).map(|attempt| {
            bench.answer(0, is_lock, CONFLICT);
            let wait = bench.hold.poll_timeout().expect("it tries again").since(bench.now);
            bench.pass(wait);
            let most = (limits.retry_first + limits.retry_step * attempt).min(limits.retry_max);
            assert!((most / 2..=most).contains(&wait), "attempt {attempt}: {wait:?}");
            wait
        });
        all.push(waits.collect::<Vec<_>>());
    }
    let last = |waits: &Vec<Duration>| waits[59];
    assert!(all.iter().all(|waits| last(waits) > waits[0] * 4));
    let mut lasts: Vec<_> = all.iter().map(last).collect();
    lasts.sort();
    lasts.dedup();
    assert!(lasts.len() > 15, "no two wait for as long: {lasts:?}");
}

#[test]
fn b55_a_waiter_that_is_called_by_enough_tries_at_once() {
    let mut bench = Bench::new(config(3, Kind::Write));
    for locker in 0..3 {
        let refusal = if locker == 0 { granted(HIGH.next()) } else { CONFLICT };
        bench.answer(locker, is_lock, refusal);
    }
    assert_eq!(bench.asked(is_wait), [1, 2], "the first one has nobody in the way");
    bench.answer(1, is_wait, CALLED);
    assert!(bench.asked(is_lock).is_empty(), "the first one has not confirmed the release");
    bench.answer(0, is_unlock, Answer::Released);
    assert_eq!(bench.asked(is_lock), [0, 1, 2]);
    assert!(bench.asked(is_wait).is_empty(), "it waits no more while it tries");
    let Message::Lock(ask) = &bench.open[&bench.call(0, is_lock)].1 else { panic!() };
    assert_eq!(*ask.place.as_ref().expect("it has waited").id, *"lock");
}

#[test]
fn b55_where_lockers_do_not_tell_they_are_asked_now_and_then() {
    let mut bench = Bench::new(config(1, Kind::Write));
    // As lockers of existing clusters answer: without a stamp.
    let call = bench.call(0, is_lock);
    bench.hold.handle_answer((0, call), Ok(CONFLICT), None, bench.now);
    bench.open.clear();
    bench.collect();
    assert!(bench.asked(is_wait).is_empty());
    bench.pass(Limits::default().retry_first);
    assert_eq!(bench.asked(is_lock), [0]);
}

#[test]
fn b57_who_is_refused_by_a_locker_with_too_much_to_do_waits_longer_after_each_attempt() {
    let limits = Limits::default();
    let mut bench = Bench::new(config(1, Kind::Write));
    for attempt in 0..60_u32 {
        bench.answer(0, is_lock, FULL);
        assert!(bench.open.is_empty(), "it is asked for nothing more, nor to tell");
        let wait = bench.hold.poll_timeout().expect("it tries again").since(bench.now);
        let most = (limits.retry_first + limits.retry_step * attempt).min(limits.retry_max);
        assert!((most / 2..=most).contains(&wait), "attempt {attempt}: {wait:?}");
        bench.pass(wait);
        assert_eq!(bench.asked(is_lock), [0]);
    }
}

#[test]
fn b57_a_holder_whose_refresh_is_refused_asks_again_later() {
    let limits = Limits::default();
    let mut bench = Bench::held();
    let until = bench.until();
    bench.pass(limits.refresh_interval);
    for locker in bench.asked(is_refresh) {
        let call = bench.call(locker, is_refresh);
        bench.answer_call(locker, call, Err(Failure { may_have_run: false }));
    }
    assert!(bench.open.is_empty() && bench.is_held() && bench.until() == until);
    bench.pass(limits.refresh_interval / 5);
    assert_eq!(bench.asked(is_refresh), [0, 1, 2]);
}

#[test]
fn a_lock_that_is_not_got_in_time_ends_at_its_deadline_and_releases_what_it_may_have() {
    for is_refused in [false, true] {
        let deadline = Some(START + Duration::from_secs(2));
        let mut bench = Bench::new(Config { deadline, ..config(1, Kind::Write) });
        if is_refused {
            bench.answer(0, is_lock, CONFLICT);
        }
        bench.pass(Duration::from_millis(1_999));
        assert_eq!(bench.hold.status(bench.now), Status::Trying);
        assert!(bench.hold.poll_timeout() <= deadline);
        bench.pass(Duration::from_millis(1));
        assert_eq!(bench.hold.status(bench.now), Status::Ended(End::TimedOut));
        let tries = bench.hold.tries();
        assert_eq!((tries.in_conflict > 0, tries.unreachable > 0), (is_refused, !is_refused));
        assert!(bench.asked(|message| is_lock(message) || is_wait(message)).is_empty());
        assert_eq!(bench.asked(is_unlock).is_empty(), is_refused);
    }
}
