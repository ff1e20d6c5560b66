//! Fencing tokens: numbers that grow with every grant of a resource (B54).
//!
//! A holder that was stopped does not know that its lock is gone; what it protects can tell by the
//! token, if it refuses one that is lower than it has seen. So a token must exceed every earlier
//! one, whoever gave it, though lockers crash and forget.
//!
//! Tokens look like microseconds since 1970, because a locker that has forgotten all can be sure of
//! its wall clock. Each locker keeps the highest that it knows; a holder's token must exceed what a
//! quorum knows, and be known to a quorum before the lock counts as taken. As any two quorums that
//! exclude each other have a locker in common, the next one is higher.
//!
//! One round of requests is enough, nearly always: the holder proposes a token together with its
//! request, from what lockers have told it of their clocks before, and each locker that grants takes
//! it if it is higher than what it knows. Where they do not, a second round writes a higher one.

use std::fmt;
use std::time::Duration;

use grid::time::{Instant, Timestamp};
use serde::{Deserialize, Serialize};

use super::keyed::Key;
use super::names::Names;
use crate::limits::{TOKEN_LEAD_MICROS, TOKEN_PLACES};

/// A fencing token. Greater is later.
///
/// A writer's token is greater than that of every earlier grant of its resources, a reader's greater
/// than that of every earlier writer. Readers that may hold together are not ordered among
/// themselves.
///
/// The assumption: between two moments at which so many lockers forget what they knew that no quorum
/// remembers, a lease passes; and what their wall clocks differ by, and what they are set back by
/// meanwhile, is less than a lease in all.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Token(u64);

impl Token {
    /// The token with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What a wall clock shows, as a token.
    pub fn of(wall: Timestamp) -> Self {
        Self(u64::try_from(wall.unix_nanos() / 1_000).unwrap_or(0))
    }

    /// So much later.
    #[must_use]
    pub fn later_by(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The next one.
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

/// The tokens that one locker knows.
///
/// Resources come and go, so there is a fixed number of places, each with the highest token of the
/// resources whose hash falls there. Sharing a place makes tokens grow faster, never slower.
#[derive(Debug)]
pub(super) struct Tokens {
    places: Box<[Token]>,
    high: Token,
    /// How far tokens may be ahead of this locker's wall clock: as far as they begin.
    lead: Duration,
    key: Key,
}

impl Tokens {
    /// Of a locker that knows nothing but that no token is further than `lead` ahead of its wall clock.
    pub(super) fn new(wall: Token, lead: Duration, key: Key) -> Self {
        let floor = wall.later_by(lead);
        Self { places: vec![floor; TOKEN_PLACES].into(), high: floor, lead, key }
    }

    fn place(&self, name: &str) -> usize {
        self.key.hash_of(name) as usize & (TOKEN_PLACES - 1)
    }

    /// The highest token of any of `names`.
    pub(super) fn known(&self, names: &Names) -> Token {
        names.iter().map(|name| self.places[self.place(name)]).max().unwrap_or_default()
    }

    /// A lock on `names` was granted, with this proposal. Returns the highest token known after that:
    /// the proposal itself, if and only if it was taken.
    pub(super) fn propose(&mut self, names: &Names, proposal: Token, wall: Token) -> Token {
        let known = self.known(names);
        // Another locker may have begun ahead of its wall clock by as much.
        let clock = self.high.max(wall.later_by(self.lead));
        let ahead = Token(clock.0.saturating_add(TOKEN_LEAD_MICROS));
        if known < proposal && proposal <= ahead {
            self.raise(names, proposal);
            return proposal;
        }
        // Not the proposal by chance: a holder takes its own for accepted.
        if known == proposal { known.next() } else { known }
    }

    /// `token` was given for `names`.
    pub(super) fn raise(&mut self, names: &Names, token: Token) {
        for name in names.iter() {
            let place = self.place(name);
            self.places[place] = self.places[place].max(token);
        }
        self.high = self.high.max(token);
    }

    /// Any token up to `floor` may have been given for any resource.
    pub(super) fn raise_all(&mut self, floor: Token) {
        for place in &mut self.places {
            *place = (*place).max(floor);
        }
        self.high = self.high.max(floor);
    }

    /// What this locker tells with each answer.
    pub(super) fn stamp(&self, wall: Token) -> Stamp {
        Stamp { high: self.high, wall }
    }

    /// The highest token that it knows.
    pub(super) fn high(&self) -> Token {
        self.high
    }
}

/// What a locker tells with each answer, so that the next proposal is high enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// The highest token that it knows.
    pub high: Token,
    /// What its wall clock shows.
    pub wall: Token,
}

/// How long a holder goes on from what one locker's wall clock showed, before it believes the next one
/// also if that is behind: so that a holder's own clock, which may run faster, does not carry tokens
/// away from the lockers' clocks.
const WALL_BELIEVED: Duration = Duration::from_secs(1);

/// A holder's idea of which token is high enough.
///
/// Tokens follow the lockers' wall clocks, and are ahead of them only where they have to be: for as long
/// after a start of all lockers as these began ahead of their clocks. When that is over, all lockers may
/// forget again.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenClock {
    high: Token,
    wall: Token,
    at: Instant,
}

impl TokenClock {
    /// A locker has told this, now.
    pub fn observe(&mut self, stamp: Stamp, now: Instant) {
        self.observe_token(stamp.high);
        let is_news = stamp.wall > self.wall_at(now) || now.since(self.at) > WALL_BELIEVED;
        if stamp.wall != Token(0) && is_news {
            (self.wall, self.at) = (stamp.wall, now);
        }
    }

    /// This token was given.
    pub fn observe_token(&mut self, token: Token) {
        self.high = self.high.max(token);
    }

    /// A token to propose: higher than all that were observed or proposed, if there were any.
    pub fn propose(&mut self, now: Instant) -> Token {
        let proposal = match self.now(now) {
            Token(0) => return Token(0), // A guess would only be refused.
            latest => latest.next(),
        };
        self.high = proposal;
        proposal
    }

    /// The highest that was observed or proposed.
    pub fn latest(&self) -> Token {
        self.high
    }

    /// No token was given up to now that is higher, as far as is known.
    pub fn now(&self, now: Instant) -> Token {
        self.high.max(self.wall_at(now))
    }

    fn wall_at(&self, now: Instant) -> Token {
        match self.wall {
            Token(0) => Token(0),
            wall => wall.later_by(now.since(self.at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn names(name: &str) -> Names {
        Names::new([name]).expect("a name")
    }

    #[test]
    fn b54_a_proposal_is_taken_only_above_what_is_known_and_not_far_ahead_of_the_clock() {
        let wall = Token(1_000_000_000);
        let mut tokens = Tokens::new(Token(5_000), Duration::ZERO, Key::new(1));
        let (a, b) = (names("a"), names("b"));
        assert_eq!(tokens.propose(&a, Token(5_000), wall), Token(5_001), "known is not enough");
        assert_eq!(tokens.propose(&a, Token(5_001), wall), Token(5_001));
        assert_eq!(tokens.propose(&a, Token(5_001), wall), Token(5_002), "and never twice");
        assert_eq!(tokens.known(&b), Token(5_000), "another resource is not concerned");
        let ahead = Token(wall.get() + TOKEN_LEAD_MICROS);
        assert_eq!(tokens.propose(&a, ahead.next(), wall), Token(5_001), "too far ahead");
        assert_eq!(tokens.propose(&a, ahead, wall), ahead);
    }

    #[test]
    fn b54_what_was_written_back_is_known_for_all_names_of_the_lock() {
        let mut tokens = Tokens::new(Token(10), Duration::ZERO, Key::new(2));
        let both = Names::new(["x", "y"]).expect("names");
        tokens.raise(&both, Token(50));
        assert_eq!((tokens.known(&names("x")), tokens.known(&names("y"))), (Token(50), Token(50)));
        tokens.raise(&both, Token(20));
        assert_eq!(tokens.known(&both), Token(50), "never lower");
        assert_eq!(tokens.stamp(Token(7)), Stamp { high: Token(50), wall: Token(7) });
        tokens.raise_all(Token(60));
        assert_eq!(tokens.known(&names("z")), Token(60));
    }

    #[test]
    fn b54_one_round_is_enough_after_a_pause_too() {
        let (wall, lead) = (Token(1_000_000_000), Duration::from_secs(60));
        let (mut tokens, mut clock) = (Tokens::new(wall, lead, Key::new(1)), TokenClock::default());
        let start = Instant::from_nanos(1_000_000_000);
        clock.observe(tokens.stamp(wall), start);
        for pause in [1, 2, 30, 600, 86_400].map(Duration::from_secs) {
            let proposal = clock.propose(start + pause);
            assert_eq!(tokens.propose(&names("a"), proposal, wall.later_by(pause)), proposal);
        }
    }

    #[test]
    fn a_token_clock_follows_the_lockers_and_never_proposes_twice() {
        let mut clock = TokenClock::default();
        let second = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let stamp = |high, wall| Stamp { high: Token(high), wall: Token(wall) };
        assert_eq!(clock.propose(second(1)), Token(0), "nothing is known");
        clock.observe(stamp(1, 5_000_000), second(1));
        assert_eq!(clock.now(second(2)), Token(6_000_000));
        let first = clock.propose(second(2));
        assert!(clock.propose(second(2)) > first);
        clock.observe(stamp(1, 1), second(2));
        assert!(clock.now(second(2)) > first, "an old stamp changes nothing");
        clock.observe(stamp(9_000_000, 7_000_000), second(3));
        assert_eq!(clock.now(second(4)), Token(9_000_000), "what is ahead waits for the clock");
        assert_eq!(clock.now(second(6)), Token(10_000_000));
    }

    #[test]
    fn b54_a_holder_whose_clock_runs_fast_does_not_carry_tokens_away() {
        let mut clock = TokenClock::default();
        let mut now = Instant::from_nanos(1);
        let mut wall = Token(1_000_000_000);
        for _ in 0..1_000 {
            clock.observe(Stamp { high: clock.now(now), wall }, now);
            // By its own clock ten seconds pass while nine do.
            now = now + Duration::from_secs(10);
            wall = wall.later_by(Duration::from_secs(9));
            let ahead = clock.propose(now).0.saturating_sub(wall.0);
            assert!(ahead <= 1_000_001, "{ahead} microseconds ahead");
        }
    }

    proptest! {
        #[test]
        fn b54_all_may_forget_again_a_lease_later_with_clocks_that_were_set_back(
            lives in vec((60_001..400_000_u64, 0..59_000_u64, vec(0..400_000_u64, 0..30)), 1..8),
        ) {
            let lease = Duration::from_secs(60);
            let ms = |ms: u64| Token(ms * 1_000);
            let (a, mut last) = (names("a"), Token(0));
            let mut wall_began: u64 = 1_000_000_000;
            let mut now = Instant::from_nanos(1_000_000_000);
            for (long, back, mut grants) in lives {
                // Nobody knows anything any more: one locker stands for all of them.
                let mut tokens = Tokens::new(ms(wall_began), lease, Key::new(1));
                let (mut clock, began) = (TokenClock::default(), now);
                clock.observe(tokens.stamp(ms(wall_began)), now);
                grants.sort_unstable();
                for at in grants.into_iter().filter(|at| *at < long) {
                    now = began + Duration::from_millis(at);
                    let wall = ms(wall_began + at);
                    let proposal = clock.propose(now);
                    prop_assert_eq!(tokens.propose(&a, proposal, wall), proposal);
                    clock.observe(tokens.stamp(wall), now);
                    prop_assert!(proposal > last, "{} after {}", proposal, last);
                    last = proposal;
                }
                now = began + Duration::from_millis(long);
                wall_began = wall_began + long - back;
            }
        }
    }

    /// One round of requests about tokens, of which any may be lost, and their answers too.
    #[derive(Debug, Clone)]
    struct Round {
        /// How far the holder's idea of the clocks is off.
        guess: i64,
        asked: Vec<Fate>,
        told: Vec<Fate>,
        pause: u64,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fate {
        Arrives,
        AnswerIsLost,
        IsLost,
    }

    const LOCKERS: usize = 5;

    fn rounds() -> impl Strategy<Value = Vec<Round>> {
        let fate = prop_oneof![
            4 => Just(Fate::Arrives), 1 => Just(Fate::AnswerIsLost), 1 => Just(Fate::IsLost)
        ];
        let fates = || vec(fate.clone(), LOCKERS);
        let round = (-3..4_i64, fates(), fates(), 0..3_u64);
        vec(
            round.prop_map(|(guess, asked, told, pause)| Round { guess, asked, told, pause }),
            1..40,
        )
    }

    proptest! {
        #[test]
        fn b54_each_token_is_greater_than_all_before_whatever_is_lost(rounds in rounds()) {
            let mut wall = Token(1_000_000);
            let lead = Duration::from_micros;
            let mut lockers: Vec<_> =
                (0..LOCKERS as u64).map(|n| Tokens::new(wall, lead(n), Key::new(n))).collect();
            let (a, quorum) = (names("a"), LOCKERS / 2 + 1);
            let mut last = Token::default();
            for Round { guess, asked, told, pause } in rounds {
                wall = wall.later_by(Duration::from_micros(pause));
                let proposal = Token(last.0.max(wall.0).saturating_add_signed(guess));
                let mut answers = Vec::new();
                for (tokens, fate) in lockers.iter_mut().zip(&asked) {
                    if *fate != Fate::IsLost {
                        let known = tokens.propose(&a, proposal, wall);
                        answers.extend((*fate == Fate::Arrives).then_some(known));
                    }
                }
                if answers.len() < quorum {
                    continue;
                }
                let took = answers.iter().filter(|token| **token == proposal).count();
                let highest = answers.into_iter().max().unwrap_or_default();
                let token = if took >= quorum { proposal } else { highest.max(proposal).next() };
                if took < quorum {
                    let mut known = 0;
                    for (tokens, fate) in lockers.iter_mut().zip(&told) {
                        if *fate != Fate::IsLost {
                            tokens.raise(&a, token);
                            known += usize::from(*fate == Fate::Arrives);
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
