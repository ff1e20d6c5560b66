//! Keys of conditions and variables.

use std::fmt;

/// A case-insensitive key.
///
/// Keys of the subject and the time are set by the evaluation, never by the request: a header must
/// not change the identity of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContextKey {
    /// The user's name; for an account, its parent's.
    Username,
    /// Same as `Username`: users have no other id.
    UserId,
    /// `Account`, `User` or `AssumedRole`.
    PrincipalType,
    /// The time of the request, as a date.
    CurrentTime,
    /// The time of the request, in seconds since the Unix epoch.
    EpochTime,
    /// A key set by the request, in lower case.
    Other(Box<str>),
}

/// Keys set by the evaluation. Names are in lower case.
const EVALUATION_KEYS: [(&str, ContextKey); 5] = [
    ("aws:username", ContextKey::Username),
    ("aws:userid", ContextKey::UserId),
    ("aws:principaltype", ContextKey::PrincipalType),
    ("aws:currenttime", ContextKey::CurrentTime),
    ("aws:epochtime", ContextKey::EpochTime),
];

impl ContextKey {
    /// Parses a key; `None` if it has invalid characters.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let is_allowed =
            |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}' | '$' | '\'' | ',');
        if name.is_empty() || !name.chars().all(is_allowed) {
            return None;
        }
        let lower = name.to_ascii_lowercase();
        let known = EVALUATION_KEYS.into_iter().find(|(known, _)| *known == lower);
        Some(known.map_or_else(|| Self::Other(lower.into()), |(_, key)| key))
    }
}

impl fmt::Display for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Username => "aws:username",
            Self::UserId => "aws:userid",
            Self::PrincipalType => "aws:PrincipalType",
            Self::CurrentTime => "aws:CurrentTime",
            Self::EpochTime => "aws:EpochTime",
            Self::Other(name) => name,
        })
    }
}
