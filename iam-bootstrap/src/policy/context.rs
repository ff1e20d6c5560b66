//! What is known of a request besides action and resource.

use std::borrow::Cow;

use super::key::Key;
use crate::model::UtcMillis;

/// What conditions and variables are asked about: the time, and what the request brings.
///
/// Keys such as `s3:prefix` and `aws:SourceIp` are told apart without regard to case. Those of the
/// subject (`aws:username`, `aws:userid`, `aws:PrincipalType`) and of the time (`aws:CurrentTime`,
/// `aws:EpochTime`) are known to who decides; what is set here under their names is not looked at.
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
    // A request has a dozen: looking through them is faster than hashing.
    entries: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Context<'a> {
    /// A request at this time that brings nothing.
    pub fn new(now: UtcMillis) -> Self {
        Self { now, entries: Vec::new() }
    }

    /// One more value of this key.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> Self {
        self.insert(key, value);
        self
    }

    /// Adds a value to those of this key.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        self.entries.push((key.into(), value.into()));
    }

    /// The time of the request.
    pub fn now(&self) -> UtcMillis {
        self.now
    }

    /// All values of this key, in the order in which they were added.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> + Clone {
        let is_asked = move |name: &str| name.eq_ignore_ascii_case(key);
        self.entries.iter().filter(move |(name, _)| is_asked(name)).map(|(_, value)| &**value)
    }
}

/// Who asks, as policies see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The user's name; of a service account or temporary credential, its parent's.
    pub username: &'a str,
    /// What kind of keys are used.
    pub kind: PrincipalKind,
}

/// What kind of keys a request is signed with: `aws:PrincipalType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    /// The root account's, or those of an account that acts for it: `Account`.
    Root,
    /// A user's own: `User`.
    User,
    /// Those of a service account or a temporary credential: `AssumedRole`.
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

/// Where values of keys come from: the subject, the clock, and then the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) context: &'a Context<'a>,
}

impl<'a> Lookup<'a> {
    /// All values of a key. There are none if it is not known.
    pub(super) fn values(&self, key: &'a Key) -> impl Iterator<Item = Value<'a>> + Clone {
        let (one, name) = match key {
            Key::Username | Key::UserId => (Some(Value::Text(self.subject.username)), None),
            Key::PrincipalType => (Some(Value::Text(self.subject.kind.as_str())), None),
            Key::CurrentTime | Key::EpochTime => (Some(Value::Time(self.context.now)), None),
            Key::Other(name) => (None, Some(&**name)),
        };
        let context = self.context;
        let many = name.into_iter().flat_map(move |name| context.values(name)).map(Value::Text);
        one.into_iter().chain(many)
    }

    /// What a variable stands for: the one value that is known. Of several none is *the* value.
    pub(super) fn variable(&self, key: &'a Key) -> Option<&'a str> {
        let mut values = self.values(key);
        match (values.next(), values.next()) {
            (Some(Value::Text(value)), None) => Some(value),
            _ => None,
        }
    }
}
