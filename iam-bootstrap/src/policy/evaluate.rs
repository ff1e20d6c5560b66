//! Evaluation of a policy for a request.

use super::context::{Context, Lookup, Subject};
use super::document::{Actions, Policy, Resources, Statement};
use super::effect::Effect;
use super::pattern::Match;
use crate::limits::ACTION_BYTES_MAX;

/// A request to be evaluated: subject, action, resource, and context.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Action in lower case, as actions are case-insensitive.
    action: [u8; ACTION_BYTES_MAX],
    action_bytes: Option<usize>,
    resource: &'a str,
    lookup: Lookup<'a>,
}

/// Result of one policy for a request. Statements are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// This statement denies the request, which overrides everything else.
    Denied(usize),
    /// This statement is the first that allows the request, and none denies it.
    Allowed(usize),
    /// No statement matches.
    NoMatch,
}

impl<'a> Request<'a> {
    /// Creates a request for an action, such as `s3:GetObject`, on a resource, such as
    /// `arn:aws:s3:::bucket/key`. An empty resource means none.
    pub fn new(
        subject: Subject<'a>,
        action: &str,
        resource: &'a str,
        context: &'a Context<'a>,
    ) -> Self {
        let mut lower = [0; ACTION_BYTES_MAX];
        let action_bytes = lower.get_mut(..action.len()).map(|lower| {
            lower.copy_from_slice(action.as_bytes());
            lower.make_ascii_lowercase();
            action.len()
        });
        let lookup = Lookup { subject, context };
        Self { action: lower, action_bytes, resource, lookup }
    }

    /// Returns the action; `None` if it exceeds the maximum length.
    fn action(&self) -> Option<&str> {
        str::from_utf8(self.action.get(..self.action_bytes?)?).ok()
    }
}

impl Policy {
    /// Evaluates this policy for a request, without allocation.
    pub fn evaluate(&self, request: &Request<'_>) -> Verdict {
        // No pattern can name an action that is too long, so no `Deny` or `NotAction` could exclude
        // it.
        let Some(action) = request.action() else { return Verdict::NoMatch };
        let mut verdict = Verdict::NoMatch;
        for (index, statement) in self.statements.iter().enumerate() {
            if statement.effect == Effect::Allow && verdict != Verdict::NoMatch {
                continue;
            }
            if statement.matches(action, request) {
                match statement.effect {
                    Effect::Deny => return Verdict::Denied(index),
                    Effect::Allow => verdict = Verdict::Allowed(index),
                }
            }
        }
        verdict
    }
}

impl Statement {
    fn matches(&self, action: &str, request: &Request<'_>) -> bool {
        let lookup = &request.lookup;
        self.actions.match_action(action)
            && self.resources.as_ref().is_none_or(|r| r.match_resource(request, self.effect))
            && self.conditions.iter().all(|condition| condition.holds(self.effect, lookup))
    }
}

impl Actions {
    fn match_action(&self, action: &str) -> bool {
        let named = self.patterns.iter().any(|pattern| pattern.matches_plain(action));
        named != self.negated
    }
}

impl Resources {
    fn match_resource(&self, request: &Request<'_>, effect: Effect) -> bool {
        let patterns = self.patterns.iter();
        let matches = patterns.map(|pattern| pattern.matches(request.resource, &request.lookup));
        match Match::any(matches) {
            Match::Yes => !self.negated,
            Match::No => self.negated,
            // A negated match with an unknown value must not allow a request.
            Match::Unknown => self.negated && effect == Effect::Deny,
        }
    }
}
