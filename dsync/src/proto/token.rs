//! Fencing tokens: numbers that increase with every grant of a resource ([B54]).
//!
//! A paused holder does not know that its lock is gone. The store that the lock protects can detect
//! that, if it refuses any token lower than one it has seen. So a token must exceed every earlier
//! one, whichever holder got it, although lockers lose their state in crashes.
//!
//! Tokens are hybrid logical clock readings in microseconds since 1970, because a locker that has
//! lost its state still has its wall clock. Each locker keeps the highest token that it knows. A
//! holder's token must exceed those of a quorum, and be recorded by a quorum before the lock counts
//! as held. Any two quorums that exclude each other have a locker in common, so the next token is
//! higher.
//!
//! One round of requests nearly always suffices. The holder proposes a token with its request, from
//! its estimate of the lockers' clocks. Each locker that grants accepts the token if it is higher
//! than those it knows. If too few accept it, a second round writes a higher one.
//!
//! [B54]: crate::rules#b54

use std::fmt;
use std::time::Duration;

use grid::time::{Instant, Timestamp};
use serde::{Deserialize, Serialize};

use super::keyed::Key;
use super::resources::Resources;
use crate::limits::{TOKEN_LEAD_MICROS, TOKEN_ROUND_TRIP_MAX, TOKEN_SLOTS};

/// A fencing token. Later grants have greater tokens.
///
/// A writer's token is greater than that of every earlier grant of its resources, a reader's
/// greater than that of every earlier writer. Readers that may hold together are not ordered among
/// themselves.
///
/// This assumes that at least a lease passes between two moments at which so many lockers lose
/// their state that no quorum has it, and that the lockers' clock skew plus any backward clock step
/// in that time is less than a lease.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Token(u64);

impl Token {
    /// Returns the token with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns a wall clock reading as a token.
    pub fn from_wall(wall: Timestamp) -> Self {
        Self(u64::try_from(wall.unix_nanos() / 1_000).unwrap_or(0))
    }

    /// Returns the token that is later by `duration`.
    #[must_use]
    pub fn later_by(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Returns the highest token that can be correct while a locker's wall clock has this time: one is
    /// at most a lease and [`TOKEN_LEAD_MICROS`] ahead of the clock of the locker that accepted it,
    /// and clocks differ by less than another lease.
    #[must_use]
    pub(crate) fn ceiling(self, lease: Duration) -> Self {
        let clock = self.later_by(lease).later_by(lease);
        Self(clock.0.saturating_add(TOKEN_LEAD_MICROS))
    }

    /// Returns the next token.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Tokens that one locker knows.
///
/// Resources come and go, so the number of slots is fixed. Each slot has the highest token of the
/// resources whose hash falls into it. Sharing a slot makes tokens grow faster, never slower.
#[derive(Debug)]
pub(super) struct Tokens {
    token_slots: Box<[Token]>,
    highest: Token,
    /// How far tokens may be ahead of this locker's wall clock: as far as at its start, a lease.
    lead: Duration,
    key: Key,
}

/// Whether a locker has recorded a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Recorded {
    /// It has: later tokens are higher.
    Whole,
    /// The token is too far ahead of its clock: only the highest that is not is recorded.
    Clamped,
}

impl Tokens {
    /// Returns the state after a restart: every earlier token is at most `lead` ahead of `wall`.
    pub(super) fn new(wall: Token, lead: Duration, key: Key) -> Self {
        let floor = wall.later_by(lead);
        Self { token_slots: vec![floor; TOKEN_SLOTS].into(), highest: floor, lead, key }
    }

    fn slot(&self, name: &str) -> usize {
        self.key.hash_of(name) as usize & (TOKEN_SLOTS - 1)
    }

    /// Returns the highest token of any of `resources`.
    pub(super) fn known(&self, resources: &Resources) -> Token {
        resources.iter().map(|name| self.token_slots[self.slot(name)]).max().unwrap_or_default()
    }

    /// Handles the proposed token of a lock that was granted on `resources`. Returns the highest
    /// token known after that: the proposal itself, if and only if it was accepted.
    pub(super) fn propose(&mut self, resources: &Resources, proposed: Token, wall: Token) -> Token {
        let known = self.known(resources);
        // Another locker may have started as far ahead of its wall clock.
        let clock = self.highest.max(wall.later_by(self.lead));
        let ahead = Token(clock.0.saturating_add(TOKEN_LEAD_MICROS)).min(self.ceiling(wall));
        if known < proposed && proposed <= ahead {
            self.record(resources, proposed);
            return proposed;
        }
        // Not the proposal itself: the holder would consider it accepted.
        if known == proposed { known.next() } else { known }
    }

    /// Returns the highest token that a peer can make this locker record.
    ///
    /// One bad value from one peer would otherwise be the highest token for good, and be passed on
    /// to all. A correct token is below it. What is already known needs no limit: this locker's own
    /// clock may have been set back.
    fn ceiling(&self, wall: Token) -> Token {
        wall.ceiling(self.lead).max(self.highest)
    }

    /// Records that a peer reports `token` as issued for `resources`, as far as it can be.
    pub(super) fn raise(&mut self, resources: &Resources, token: Token, wall: Token) -> Recorded {
        let ceiling = self.ceiling(wall);
        self.record(resources, token.min(ceiling));
        if token <= ceiling { Recorded::Whole } else { Recorded::Clamped }
    }

    fn record(&mut self, resources: &Resources, token: Token) {
        for name in resources.iter() {
            let slot = self.slot(name);
            self.token_slots[slot] = self.token_slots[slot].max(token);
        }
        self.highest = self.highest.max(token);
    }

    /// Records that a peer reports that any token up to `floor` may have been issued for any
    /// resource, as far as it can be.
    pub(super) fn raise_all(&mut self, floor: Token, wall: Token) {
        let floor = floor.min(self.ceiling(wall));
        for slot in &mut self.token_slots {
            *slot = (*slot).max(floor);
        }
        self.highest = self.highest.max(floor);
    }

    /// Returns the number of slots.
    pub(super) fn len(&self) -> usize {
        self.token_slots.len()
    }

    /// Checks that no slot is ahead of the highest token.
    pub(super) fn check_invariants(&self) {
        let (slot, highest) = (self.token_slots.iter().max(), self.highest);
        assert!(slot <= Some(&highest), "Tokens.token_slots up to {slot:?}, highest {highest}");
    }

    /// Returns the stamp sent with each response.
    pub(super) fn stamp(&self, wall: Token) -> TokenStamp {
        TokenStamp { highest: self.highest, wall }
    }

    /// Returns the highest token that this locker knows.
    pub(super) fn highest(&self) -> Token {
        self.highest
    }
}

/// Token state of a locker, sent with each response so that the next proposal is high enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenStamp {
    /// Highest token that the locker knows.
    pub highest: Token,
    /// Reading of its wall clock.
    pub wall: Token,
}

/// How long a holder extrapolates from one locker's wall clock before it accepts another reading
/// even if that is behind. This keeps a holder's fast clock from moving tokens away from the
/// lockers' clocks.
const WALL_STAMP_MAX_AGE: Duration = Duration::from_secs(1);

/// A holder's hybrid logical clock: its estimate of the next token that lockers accept.
///
/// Tokens follow the lockers' wall clocks. They are ahead of them only after all lockers have
/// restarted, until the wall clocks pass the lead that the lockers started with. After that, all
/// lockers may lose their state again.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenClock {
    highest: Token,
    wall: Token,
    observed_at: Instant,
}

impl TokenClock {
    /// Records the stamp of a locker, received now.
    pub fn observe(&mut self, stamp: TokenStamp, now: Instant) {
        self.observe_token(stamp.highest);
        let is_newer =
            stamp.wall > self.wall_at(now) || now.since(self.observed_at) > WALL_STAMP_MAX_AGE;
        if stamp.wall != Token(0) && is_newer {
            (self.wall, self.observed_at) = (stamp.wall, now);
        }
    }

    /// Records the stamp in the response to a request that was sent at `sent_at`, received now. The
    /// next request will take about as long: its token is to reach the locker on time.
    pub fn observe_response(&mut self, stamp: TokenStamp, sent_at: Instant, now: Instant) {
        let round_trip = now.since(sent_at).min(TOKEN_ROUND_TRIP_MAX);
        let wall = match stamp.wall {
            Token(0) => Token(0),
            wall => wall.later_by(round_trip),
        };
        self.observe(TokenStamp { wall, ..stamp }, now);
    }

    /// Records an issued token.
    pub fn observe_token(&mut self, token: Token) {
        self.highest = self.highest.max(token);
    }

    /// Returns a token to propose: higher than all that were observed or proposed, if there were
    /// any.
    pub fn propose(&mut self, now: Instant) -> Token {
        let proposed = match self.now(now) {
            Token(0) => return Token(0), // Without an estimate any proposal would be rejected.
            latest => latest.next(),
        };
        self.highest = proposed;
        proposed
    }

    /// Returns the highest token observed or proposed.
    pub fn latest(&self) -> Token {
        self.highest
    }

    /// Returns an upper bound of the tokens issued up to now, as far as is known.
    pub fn now(&self, now: Instant) -> Token {
        self.highest.max(self.wall_at(now))
    }

    fn wall_at(&self, now: Instant) -> Token {
        match self.wall {
            Token(0) => Token(0),
            wall => wall.later_by(now.since(self.observed_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn resources(name: &str) -> Resources {
        Resources::new([name]).expect("a valid name")
    }

    #[test]
    fn b54_a_proposal_is_accepted_only_above_the_known_token_and_near_the_clock() {
        let wall = Token(1_000_000_000);
        let mut tokens = Tokens::new(Token(5_000), Duration::ZERO, Key::new(1));
        let (a, b) = (resources("a"), resources("b"));
        assert_eq!(
            tokens.propose(&a, Token(5_000), wall),
            Token(5_001),
            "equal to the known token"
        );
        assert_eq!(tokens.propose(&a, Token(5_001), wall), Token(5_001));
        assert_eq!(tokens.propose(&a, Token(5_001), wall), Token(5_002), "already used");
        assert_eq!(tokens.known(&b), Token(5_000), "another resource is unaffected");
        let ahead = Token(wall.get() + TOKEN_LEAD_MICROS);
        assert_eq!(tokens.propose(&a, ahead.next(), wall), Token(5_001), "too far ahead");
        assert_eq!(tokens.propose(&a, ahead, wall), ahead);
    }

    #[test]
    fn b54_a_written_back_token_is_known_for_all_resources_of_the_lock() {
        let mut tokens = Tokens::new(Token(10), Duration::ZERO, Key::new(2));
        let both = Resources::new(["x", "y"]).expect("valid names");
        let wall = Token(7);
        assert_eq!(tokens.raise(&both, Token(50), wall), Recorded::Whole);
        assert_eq!(
            (tokens.known(&resources("x")), tokens.known(&resources("y"))),
            (Token(50), Token(50))
        );
        assert_eq!(tokens.raise(&both, Token(20), wall), Recorded::Whole);
        assert_eq!(tokens.known(&both), Token(50), "never lower");
        assert_eq!(tokens.stamp(wall), TokenStamp { highest: Token(50), wall });
        tokens.raise_all(Token(60), wall);
        assert_eq!(tokens.known(&resources("z")), Token(60));
    }

    #[test]
    fn b54_a_bad_token_of_a_peer_is_clamped_by_each_path_and_does_not_saturate_tokens() {
        let (wall, lead) = (Token(1_000_000_000), Duration::from_secs(60));
        let (a, bad) = (resources("a"), Token(u64::MAX));
        let ceiling = Token(wall.later_by(2 * lead).0 + TOKEN_LEAD_MICROS);
        let paths: [fn(&mut Tokens, &Resources, Token, Token); 3] = [
            |tokens, a, bad, wall| assert_eq!(tokens.raise(a, bad, wall), Recorded::Clamped),
            |tokens, _, bad, wall| tokens.raise_all(bad, wall),
            |tokens, a, bad, wall| {
                // As often as it likes, a second further each time.
                for _ in 0..1_000 {
                    let ahead = Token(tokens.highest().0.saturating_add(TOKEN_LEAD_MICROS));
                    let _ = (tokens.propose(a, ahead, wall), tokens.propose(a, bad, wall));
                }
            },
        ];
        for path in paths {
            let mut tokens = Tokens::new(wall, lead, Key::new(1));
            path(&mut tokens, &a, bad, wall);
            assert!(tokens.highest() <= ceiling, "{} beyond {ceiling}", tokens.highest());
            // The clocks reach it, and one round suffices again.
            let mut clock = TokenClock::default();
            let (start, later) = (Instant::from_nanos(1), wall.later_by(3 * lead));
            clock.observe(tokens.stamp(later), start);
            let proposed = clock.propose(start);
            assert_eq!(tokens.propose(&a, proposed, later), proposed);
        }
        // A correct token of a locker whose clock is almost a lease ahead is recorded.
        let mut tokens = Tokens::new(wall, lead, Key::new(1));
        let ahead = wall.later_by(lead + Duration::from_secs(59));
        assert_eq!(tokens.raise(&a, ahead, wall), Recorded::Whole);
        assert_eq!(tokens.known(&a), ahead);
    }

    #[test]
    fn b54_one_round_suffices_after_a_pause_too() {
        let (wall, lead) = (Token(1_000_000_000), Duration::from_secs(60));
        let (mut tokens, mut clock) = (Tokens::new(wall, lead, Key::new(1)), TokenClock::default());
        let start = Instant::from_nanos(1_000_000_000);
        clock.observe(tokens.stamp(wall), start);
        for pause in [1, 2, 30, 600, 86_400].map(Duration::from_secs) {
            let proposed = clock.propose(start + pause);
            assert_eq!(tokens.propose(&resources("a"), proposed, wall.later_by(pause)), proposed);
        }
    }

    #[test]
    fn a_token_clock_follows_the_lockers_and_never_proposes_twice() {
        let mut clock = TokenClock::default();
        let second = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let stamp = |highest, wall| TokenStamp { highest: Token(highest), wall: Token(wall) };
        assert_eq!(clock.propose(second(1)), Token(0), "nothing is known");
        clock.observe(stamp(1, 5_000_000), second(1));
        assert_eq!(clock.now(second(2)), Token(6_000_000));
        let first = clock.propose(second(2));
        assert!(clock.propose(second(2)) > first);
        clock.observe(stamp(1, 1), second(2));
        assert!(clock.now(second(2)) > first, "an old stamp changes nothing");
        clock.observe(stamp(9_000_000, 7_000_000), second(3));
        assert_eq!(
            clock.now(second(4)),
            Token(9_000_000),
            "the clock has not passed the highest token"
        );
        assert_eq!(clock.now(second(6)), Token(10_000_000));
    }

    #[test]
    fn b54_a_fast_holder_clock_does_not_move_tokens_away_from_the_lockers_clocks() {
        let mut clock = TokenClock::default();
        let mut now = Instant::from_nanos(1);
        let mut wall = Token(1_000_000_000);
        for _ in 0..1_000 {
            clock.observe(TokenStamp { highest: clock.now(now), wall }, now);
            // Ten seconds by its own clock while nine pass.
            now = now + Duration::from_secs(10);
            wall = wall.later_by(Duration::from_secs(9));
            let ahead = clock.propose(now).0.saturating_sub(wall.0);
            assert!(ahead <= 1_000_001, "{ahead} microseconds ahead");
        }
    }

    proptest! {
        #[test]
        fn b54_tokens_grow_when_all_lockers_restart_a_lease_later_with_clocks_set_back(
            runs in vec((60_001..400_000_u64, 0..59_000_u64, vec(0..400_000_u64, 0..30)), 1..8),
        ) {
            let lease = Duration::from_secs(60);
            let ms = |ms: u64| Token(ms * 1_000);
            let (a, mut last) = (resources("a"), Token(0));
            let mut wall_began: u64 = 1_000_000_000;
            let mut now = Instant::from_nanos(1_000_000_000);
            for (duration, set_back, mut grants) in runs {
                // All lockers have lost their state: one represents all of them.
                let mut tokens = Tokens::new(ms(wall_began), lease, Key::new(1));
                let (mut clock, began) = (TokenClock::default(), now);
                clock.observe(tokens.stamp(ms(wall_began)), now);
                grants.sort_unstable();
                for at in grants.into_iter().filter(|at| *at < duration) {
                    now = began + Duration::from_millis(at);
                    let wall = ms(wall_began + at);
                    let proposed = clock.propose(now);
                    prop_assert_eq!(tokens.propose(&a, proposed, wall), proposed);
                    clock.observe(tokens.stamp(wall), now);
                    prop_assert!(proposed > last, "{} after {}", proposed, last);
                    last = proposed;
                }
                now = began + Duration::from_millis(duration);
                wall_began = wall_began + duration - set_back;
            }
        }
    }

    /// One acquisition: proposals, and write-backs if needed. Any message may be lost.
    #[derive(Debug, Clone)]
    struct Round {
        /// Error of the holder's estimate of the clocks.
        clock_error: i64,
        proposals: Vec<Delivery>,
        write_backs: Vec<Delivery>,
        pause: u64,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Delivery {
        Delivered,
        ResponseLost,
        RequestLost,
    }

    const LOCKERS: usize = 5;

    fn rounds() -> impl Strategy<Value = Vec<Round>> {
        let delivery = prop_oneof![
            4 => Just(Delivery::Delivered),
            1 => Just(Delivery::ResponseLost),
            1 => Just(Delivery::RequestLost)
        ];
        let deliveries = || vec(delivery.clone(), LOCKERS);
        let round = (-3..4_i64, deliveries(), deliveries(), 0..3_u64);
        vec(
            round.prop_map(|(clock_error, proposals, write_backs, pause)| Round {
                clock_error,
                proposals,
                write_backs,
                pause,
            }),
            1..40,
        )
    }

    proptest! {
        #[test]
        fn b54_each_token_is_greater_than_all_before_under_message_loss(rounds in rounds()) {
            let mut wall = Token(1_000_000);
            let lead = Duration::from_micros;
            let mut lockers: Vec<_> =
                (0..LOCKERS as u64).map(|n| Tokens::new(wall, lead(n), Key::new(n))).collect();
            let (a, quorum) = (resources("a"), LOCKERS / 2 + 1);
            let mut last = Token::default();
            for Round { clock_error, proposals, write_backs, pause } in rounds {
                wall = wall.later_by(Duration::from_micros(pause));
                let proposed = Token(last.0.max(wall.0).saturating_add_signed(clock_error));
                let mut responses = Vec::new();
                for (tokens, delivery) in lockers.iter_mut().zip(&proposals) {
                    if *delivery != Delivery::RequestLost {
                        let known = tokens.propose(&a, proposed, wall);
                        responses.extend((*delivery == Delivery::Delivered).then_some(known));
                    }
                }
                if responses.len() < quorum {
                    continue;
                }
                let accepted = responses.iter().filter(|token| **token == proposed).count();
                let highest = responses.into_iter().max().unwrap_or_default();
                let token = if accepted >= quorum { proposed } else { highest.max(proposed).next() };
                if accepted < quorum {
                    let mut known = 0;
                    for (tokens, delivery) in lockers.iter_mut().zip(&write_backs) {
                        if *delivery != Delivery::RequestLost {
                            prop_assert_eq!(tokens.raise(&a, token, wall), Recorded::Whole);
                            known += usize::from(*delivery == Delivery::Delivered);
                        }
                    }
                    if known < quorum {
                        continue;
                    }
                }
                prop_assert!(token > last, "{token} after {last}");
                last = token;
            }
        }
    }
}
