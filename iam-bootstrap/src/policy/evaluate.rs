//! What a policy says of a request.

use super::context::{Context, Lookup, Subject};
use super::document::{Actions, Effect, Policy, Resources, Statement};
use super::pattern::Match;
use crate::limits::ACTION_BYTES_MAX;

/// What is to be judged: who wants to do what, with what, under which circumstances.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The action in lower case: case does not matter.
    action: [u8; ACTION_BYTES_MAX],
    action_bytes: Option<usize>,
    resource: &'a str,
    lookup: Lookup<'a>,
}

/// What one policy says of a request. Statements are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// This statement denies it: nothing else matters.
    Denied(usize),
    /// This statement allows it, the first of those that do, and none denies it.
    Allowed(usize),
    /// No statement matches.
    Silent,
}

impl<'a> Request<'a> {
    /// A request for this action, such as `s3:GetObject`, on this resource, such as
    /// `arn:aws:s3:::bucket/key`; on none, if it is empty.
    pub fn new(
        subject: Subject<'a>,
        action: &str,
        resource: &'a str,
        context: &'a Context<'a>,
    ) -> Self {
        let mut lower = [0; ACTION_BYTES_MAX];
        let lowered = lower.get_mut(..action.len()).map(|lower| {
            lower.copy_from_slice(action.as_bytes());
            lower.make_ascii_lowercase();
            action.len()
        });
        let lookup = Lookup { subject, context };
        Self { action: lower, action_bytes: lowered, resource, lookup }
    }

    /// The action, unless it is longer than any.
    fn action(&self) -> Option<&str> {
        str::from_utf8(self.action.get(..self.action_bytes?)?).ok()
    }
}

impl Policy {
    /// What this policy says of a request. Allocates nothing.
    pub fn evaluate(&self, request: &Request<'_>) -> Verdict {
        // What is longer than any action is one that nobody can name, so nothing can except it.
        let Some(action) = request.action() else { return Verdict::Silent };
        let mut verdict = Verdict::Silent;
        for (index, statement) in self.statements.iter().enumerate() {
            if statement.effect == Effect::Allow && verdict != Verdict::Silent {
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
            // "All but nothing in particular" must not allow anything.
            Match::Unknown => self.negated && effect == Effect::Deny,
        }
    }
}
