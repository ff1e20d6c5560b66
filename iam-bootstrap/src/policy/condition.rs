//! Conditions: one operator, one key, and the policy's values, compared with those of the request.
//!
//! A request may have several values for a key, and so may the policy. The meaning of a negation
//! over several values depends on the operator; [`Condition::holds`] is the one place that defines
//! it.

use std::net::IpAddr;

use super::context::{Lookup, Value};
use super::effect::Effect;
use super::key::ContextKey;
use super::operand::{Decimal, Network, parse_bool, parse_date};
use super::pattern::{Case, Match, Pattern};
use crate::time::UtcMillis;

/// An operator and its operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// Operator as written: `ForAnyValue:StringLikeIfExists`.
    pub(super) operator: Box<str>,
    /// Key as written.
    pub(super) key_source: Box<str>,
    /// Values as written.
    pub(super) value_sources: Box<[Box<str>]>,
    pub(super) key: ContextKey,
    pub(super) quantifier: Quantifier,
    pub(super) if_exists: bool,
    pub(super) negated: bool,
    pub(super) operands: Operands,
}

/// How many of a request's values must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    /// No quantifier: one of them; all, if the operator is negated.
    None,
    /// `ForAnyValue:`
    Any,
    /// `ForAllValues:`
    All,
}

/// The kind of comparison, and the policy's values, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operands {
    TextEquals(Case, Box<[Pattern]>),
    TextLike(Box<[Pattern]>),
    Numbers(Comparison, Box<[Decimal]>),
    Dates(Comparison, Box<[UtcMillis]>),
    Bools(Box<[bool]>),
    Networks(Box<[Network]>),
    Bytes(Box<[Box<[u8]>]>),
    /// Whether the key must be absent.
    Null(bool),
}

/// Required relation of the request's value to the policy's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn test<T: Ord>(self, value: &T, operand: &T) -> bool {
        match self {
            Self::Equal => value == operand,
            Self::Less => value < operand,
            Self::LessOrEqual => value <= operand,
            Self::Greater => value > operand,
            Self::GreaterOrEqual => value >= operand,
        }
    }
}

impl Condition {
    /// Returns whether the condition holds for a request, in a statement with this effect.
    ///
    /// Without a quantifier, a key that the request does not have matches nothing: a positive
    /// operator fails, a negated one holds.
    pub(super) fn holds(&self, effect: Effect, lookup: &Lookup<'_>) -> bool {
        let mut values = lookup.values(&self.key);
        let is_missing = values.clone().next().is_none();
        if let Operands::Null(must_be_missing) = self.operands {
            return is_missing == must_be_missing;
        }
        if is_missing {
            return self.if_exists
                || match self.quantifier {
                    Quantifier::None => self.negated,
                    Quantifier::Any => false,
                    Quantifier::All => true,
                };
        }
        let passes = |value| match self.matches(value, lookup) {
            Match::Yes => !self.negated,
            Match::No => self.negated,
            // A negated match with an unknown value must not allow a request.
            Match::Unknown => self.negated && effect == Effect::Deny,
        };
        match (self.quantifier, self.negated) {
            (Quantifier::Any, _) | (Quantifier::None, false) => values.any(passes),
            (Quantifier::All, _) | (Quantifier::None, true) => values.all(passes),
        }
    }

    /// Returns whether one of the policy's values matches this one. A malformed value, such as a
    /// number with letters, matches nothing.
    fn matches(&self, value: Value<'_>, lookup: &Lookup<'_>) -> Match {
        match (&self.operands, value) {
            (Operands::TextEquals(case, patterns), Value::Text(text)) => {
                Match::any(patterns.iter().map(|pattern| pattern.equals(text, *case, lookup)))
            }
            (Operands::TextLike(patterns), Value::Text(text)) => {
                Match::any(patterns.iter().map(|pattern| pattern.matches(text, lookup)))
            }
            (Operands::Numbers(comparison, numbers), value) => {
                let number = match value {
                    Value::Text(text) => Decimal::parse(text),
                    Value::Time(time) => Some(Decimal::of_time(time)),
                };
                compare(*comparison, number, numbers)
            }
            (Operands::Dates(comparison, dates), value) => {
                let date = match value {
                    Value::Text(text) => parse_date(text),
                    Value::Time(time) => Some(time),
                };
                compare(*comparison, date, dates)
            }
            (Operands::Bools(bools), Value::Text(text)) => {
                compare(Comparison::Equal, parse_bool(text), bools)
            }
            (Operands::Networks(networks), Value::Text(text)) => {
                let address: Option<IpAddr> = text.parse().ok();
                let is_in = |address| networks.iter().any(|network| network.contains(address));
                Match::of(address.is_some_and(is_in))
            }
            (Operands::Bytes(all), Value::Text(text)) => {
                Match::of(all.iter().any(|bytes| **bytes == *text.as_bytes()))
            }
            (Operands::Null(_), _)
            | (
                Operands::TextEquals(..)
                | Operands::TextLike(_)
                | Operands::Bools(_)
                | Operands::Networks(_)
                | Operands::Bytes(_),
                Value::Time(_),
            ) => Match::No, // rejected when the document was parsed
        }
    }
}

fn compare<T: Ord>(comparison: Comparison, value: Option<T>, operands: &[T]) -> Match {
    let matches = |value| operands.iter().any(|operand| comparison.test(&value, operand));
    Match::of(value.is_some_and(matches))
}
