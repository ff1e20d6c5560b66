//! Context of a request: everything besides action and resource.

use std::borrow::Cow;

use super::key::ContextKey;
use crate::time::UtcMillis;

/// Input of conditions and variables: the time, and the keys of the request.
///
/// Keys such as `s3:prefix` and `aws:SourceIp` are case-insensitive. The keys of the subject
/// (`aws:username`, `aws:userid`, `aws:PrincipalType`) and of the time (`aws:CurrentTime`,
/// `aws:EpochTime`) are set by the evaluation; values set here under their names are ignored.
///
/// ```
/// use iam_bootstrap::model::UtcMillis;
/// use iam_bootstrap::policy::Context;
///
/// let context = Context::new(UtcMillis::new(1_763_000_000_000))
///     .with("s3:prefix", "home/alice/")
///     .with("aws:SourceIp", "10.1.2.3");
/// assert_eq!(context.values("S3:Prefix").collect::<Vec<_>>(), ["home/alice/"]);
/// ```
#[derive(Debug, Clone)]
pub struct Context<'a> {
    now: UtcMillis,
    // A request has about a dozen: a linear search is faster than hashing.
    entries: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Context<'a> {
    /// Creates the context of a request at this time, without keys.
    pub fn new(now: UtcMillis) -> Self {
        Self { now, entries: Vec::new() }
    }

    /// Adds a value of this key.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> Self {
        self.insert(key, value);
        self
    }

    /// Adds a value of this key.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        self.entries.push((key.into(), value.into()));
    }

    /// Returns the time of the request.
    pub fn now(&self) -> UtcMillis {
        self.now
    }

    /// Returns all values of this key, in the order in which they were added.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> + Clone {
        let matches_key = move |name: &str| name.eq_ignore_ascii_case(key);
        self.entries.iter().filter(move |(name, _)| matches_key(name)).map(|(_, value)| &**value)
    }
}

/// Attributes of the principal, for conditions and variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The user's name; for a service account or temporary credential, its parent's.
    pub username: &'a str,
    /// Kind of the keys used.
    pub kind: PrincipalKind,
}

/// Kind of the keys that sign a request: `aws:PrincipalType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    /// Keys of the root account, or of an account that acts for it: `Account`.
    Root,
    /// Keys of a user: `User`.
    User,
    /// Keys of a service account or a temporary credential: `AssumedRole`.
    Derived,
}

impl PrincipalKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Root => "Account",
            Self::User => "User",
            Self::Derived => "AssumedRole",
        }
    }
}

/// One value that a request has for a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Time(UtcMillis),
}

/// Sources of the values of keys: the subject, the clock, and then the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) context: &'a Context<'a>,
}

impl<'a> Lookup<'a> {
    /// Returns all values of a key; none if the key is unknown.
    pub(super) fn values(&self, key: &'a ContextKey) -> impl Iterator<Item = Value<'a>> + Clone {
        let (one, name) = match key {
            ContextKey::Username | ContextKey::UserId => {
                (Some(Value::Text(self.subject.username)), None)
            }
            ContextKey::PrincipalType => (Some(Value::Text(self.subject.kind.as_str())), None),
            ContextKey::CurrentTime | ContextKey::EpochTime => {
                (Some(Value::Time(self.context.now)), None)
            }
            ContextKey::Other(name) => (None, Some(&**name)),
        };
        let context = self.context;
        let many = name.into_iter().flat_map(move |name| context.values(name)).map(Value::Text);
        one.into_iter().chain(many)
    }

    /// Returns the value of a variable; `None` if the key has no value, or several.
    pub(super) fn variable(&self, key: &'a ContextKey) -> Option<&'a str> {
        let mut values = self.values(key);
        match (values.next(), values.next()) {
            (Some(Value::Text(value)), None) => Some(value),
            _ => None,
        }
    }
}
