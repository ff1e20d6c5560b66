//! A policy document: parsed, validated, and ready for evaluation.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::condition::Condition;
use super::effect::Effect;
use super::pattern::Pattern;

/// A policy: statements that allow and deny actions, for the users and groups that it is attached
/// to.
///
/// Its JSON form is canonical: a single value is written as a list, and fields have one order. Two
/// policies are equal if their canonical forms are.
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
    pub(super) version: Option<LanguageVersion>,
    pub(super) id: Option<Box<str>>,
    pub(super) statements: Box<[Statement]>,
}

/// Version of the policy language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LanguageVersion {
    /// `2008-10-17`: without variables. Also the default of a document without a version.
    V2008,
    /// `2012-10-17`: with variables.
    V2012,
}

/// One statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub(super) sid: Option<Box<str>>,
    pub(super) effect: Effect,
    pub(super) actions: Actions,
    /// `None` is valid only for actions that have no resource.
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
    /// Returns the author's id of the policy. It has no effect.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the statements, in the order of the document.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

impl Statement {
    /// Returns the author's id of the statement.
    pub fn sid(&self) -> Option<&str> {
        self.sid.as_deref()
    }

    /// Returns the effect of the statement if it matches.
    pub fn effect(&self) -> Effect {
        self.effect
    }
}

impl LanguageVersion {
    pub(super) const ALLOWED: &'static str = "\"2012-10-17\" or \"2008-10-17\"";

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::V2008 => "2008-10-17",
            Self::V2012 => "2012-10-17",
        }
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
            map.serialize_entry(name, &PatternSources(&resources.patterns))?;
        }
        if !self.conditions.is_empty() {
            map.serialize_entry("Condition", &ByOperator(&self.conditions))?;
        }
        map.end()
    }
}

/// Serializes patterns as written.
struct PatternSources<'a>(&'a [Pattern]);

impl Serialize for PatternSources<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Pattern::source))
    }
}

/// Serializes conditions by operator. Those of one operator are adjacent, as in the document.
struct ByOperator<'a>(&'a [Condition]);

impl Serialize for ByOperator<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let operators = self.0.chunk_by(|one, next| one.operator == next.operator);
        serializer.collect_map(operators.map(|same| (&same[0].operator, ByKey(same))))
    }
}

/// Serializes the conditions of one operator by key.
struct ByKey<'a>(&'a [Condition]);

impl Serialize for ByKey<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|one| (&one.key_source, &one.value_sources)))
    }
}
