//! Keys of conditions and variables: what a policy may ask of a request.

use std::fmt;

/// A key. Case does not matter.
///
/// What is known of the subject and the time is told by who decides, never by the request: a header
/// must not make somebody another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// The user's name; of an account, its parent's.
    Username,
    /// The same: users have no other id.
    UserId,
    /// `Account`, `User` or `AssumedRole`.
    PrincipalType,
    /// The time of the request, as a date.
    CurrentTime,
    /// The time of the request, in seconds since 1970.
    EpochTime,
    /// Whatever the request brings, in lower case.
    Other(Box<str>),
}

/// What is told by who decides. Names are in lower case.
const KNOWN: [(&str, Key); 5] = [
    ("aws:username", Key::Username),
    ("aws:userid", Key::UserId),
    ("aws:principaltype", Key::PrincipalType),
    ("aws:currenttime", Key::CurrentTime),
    ("aws:epochtime", Key::EpochTime),
];

impl Key {
    /// The key with this name, unless it has characters that no key has.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let is_allowed =
            |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}' | '$' | '\'' | ',');
        if name.is_empty() || !name.chars().all(is_allowed) {
            return None;
        }
        let lower = name.to_ascii_lowercase();
        let known = KNOWN.into_iter().find(|(known, _)| *known == lower);
        Some(known.map_or_else(|| Self::Other(lower.into()), |(_, key)| key))
    }
}

impl fmt::Display for Key {
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
