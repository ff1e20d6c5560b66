//! A policy document: read, checked, and ready to be evaluated.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::condition::Condition;
use super::error::PolicyError;
use super::json::Node;
use super::parse;
use super::pattern::Pattern;

/// A policy: what may be done and what not, for whomever it is attached to.
///
/// Its JSON form is canonical: lists are always lists, fields have one order. Two policies are equal
/// if they say the same in the same words and order.
///
/// ```
/// use iam_bootstrap::policy::Policy;
///
/// let policy = Policy::parse(
///     br#"{
///         "Version": "2012-10-17",
///         "Statement": {
///             "Effect": "Allow",
///             "Action": ["s3:GetObject", "s3:PutObject"],
///             "Resource": "arn:aws:s3:::home/${aws:username}/*"
///         }
///     }"#,
/// )?;
/// assert_eq!(policy.statements().len(), 1);
///
/// let misspelt = br#"{"Statement": {"Sid": "mine", "Efect": "Allow", "Action": "*"}}"#;
/// assert_eq!(
///     Policy::parse(misspelt).unwrap_err().to_string(),
///     "statement 1 (\"mine\"): has no field \"Efect\": allowed are Sid, Effect, Action, NotAction, \
///      Resource, NotResource and Condition",
/// );
/// # Ok::<(), iam_bootstrap::policy::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) version: Option<Version>,
    pub(super) id: Option<Box<str>>,
    pub(super) statements: Box<[Statement]>,
}

/// Which language a document is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `2008-10-17`: has no variables. So is a document that does not say.
    First,
    /// `2012-10-17`
    Second,
}

/// What a statement does if it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It allows, unless another one denies.
    Allow,
    /// It denies, whatever others say.
    Deny,
}

/// One statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub(super) sid: Option<Box<str>>,
    pub(super) effect: Effect,
    pub(super) actions: Actions,
    /// Of actions that are about no resource, it may say nothing.
    pub(super) resources: Option<Resources>,
    pub(super) conditions: Box<[Condition]>,
}

/// `Action` or `NotAction`. Patterns are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Actions {
    pub(super) negated: bool,
    pub(super) sources: Box<[Box<str>]>,
    pub(super) patterns: Box<[Pattern]>,
}

/// `Resource` or `NotResource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) negated: bool,
    pub(super) patterns: Box<[Pattern]>,
}

impl Policy {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// It is too long, no JSON, or no policy: which statement and field is wrong, and what is allowed.
    pub fn parse(document: &[u8]) -> Result<Self, PolicyError> {
        parse::document(document)
    }

    /// What its author calls it. Has no meaning here.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its statements, in the order in which they were written.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

impl Statement {
    /// What its author calls it.
    pub fn sid(&self) -> Option<&str> {
        self.sid.as_deref()
    }

    /// What it does if it matches.
    pub fn effect(&self) -> Effect {
        self.effect
    }
}

impl Version {
    pub(super) const ALLOWED: &'static str = "\"2012-10-17\" or \"2008-10-17\"";

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::First => "2008-10-17",
            Self::Second => "2012-10-17",
        }
    }
}

impl Effect {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Policy {
    type Err = PolicyError;

    fn from_str(document: &str) -> Result<Self, PolicyError> {
        Self::parse(document.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse::policy(Node::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(version) = self.version {
            map.serialize_entry("Version", version.as_str())?;
        }
        if let Some(id) = &self.id {
            map.serialize_entry("Id", id)?;
        }
        map.serialize_entry("Statement", &self.statements)?;
        map.end()
    }
}

impl Serialize for Statement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(sid) = &self.sid {
            map.serialize_entry("Sid", sid)?;
        }
        map.serialize_entry("Effect", self.effect.as_str())?;
        let name = if self.actions.negated { "NotAction" } else { "Action" };
        map.serialize_entry(name, &self.actions.sources)?;
        if let Some(resources) = &self.resources {
            let name = if resources.negated { "NotResource" } else { "Resource" };
            map.serialize_entry(name, &Sources(&resources.patterns))?;
        }
        if !self.conditions.is_empty() {
            map.serialize_entry("Condition", &Conditions(&self.conditions))?;
        }
        map.end()
    }
}

/// Patterns, as they were written.
struct Sources<'a>(&'a [Pattern]);

impl Serialize for Sources<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Pattern::source))
    }
}

/// Conditions by operator. Those of one operator are next to each other, as they were read.
struct Conditions<'a>(&'a [Condition]);

impl Serialize for Conditions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let operators = self.0.chunk_by(|one, next| one.operator == next.operator);
        serializer.collect_map(operators.map(|same| (&same[0].operator, Keys(same))))
    }
}

/// Conditions with one operator, by key.
struct Keys<'a>(&'a [Condition]);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|one| (&one.key_source, &one.value_sources)))
    }
}
