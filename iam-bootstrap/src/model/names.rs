//! Names of users, groups and policies, and access keys: short text that can be logged, typed, and
//! used as a storage key.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// Error of an invalid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct NameError {
    what: &'static str,
    problem: NameProblem,
}

impl NameError {
    /// Returns what is wrong with the name.
    pub fn problem(&self) -> &NameProblem {
        &self.problem
    }
}

/// Problem of an invalid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// The name is empty.
    #[error("must not be empty")]
    Empty,
    /// The name is too long.
    #[error("may have {NAME_BYTES_MAX} bytes, not {bytes}")]
    TooLong {
        /// Length of the name in bytes.
        bytes: usize,
    },
    /// The name begins or ends with a space, which is easily overlooked.
    #[error("must not begin or end with a space")]
    Surrounded,
    /// The name has a character that is not allowed.
    #[error("must not contain {found:?}: {allowed}")]
    Character {
        /// The character.
        found: char,
        /// Description of the allowed characters.
        allowed: &'static str,
    },
}

/// Checks the rules that all names share; `allows` adds the allowed characters.
fn check(
    name: &str,
    what: &'static str,
    allows: fn(char) -> bool,
    allowed: &'static str,
) -> Result<(), NameError> {
    let problem = if name.is_empty() {
        NameProblem::Empty
    } else if name.len() > NAME_BYTES_MAX {
        NameProblem::TooLong { bytes: name.len() }
    } else if let Some(found) = name.chars().find(|&c| !allows(c)) {
        NameProblem::Character { found, allowed }
    } else if name.trim() != name {
        NameProblem::Surrounded
    } else {
        return Ok(());
    };
    Err(NameError { what, problem })
}

fn is_printable(c: char) -> bool {
    !c.is_control()
}

/// An access key appears between a comma and a slash in the header that signs a request.
fn is_for_access_keys(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, ',' | '/' | '=')
}

const PRINTABLE: &str = "all characters but control characters are allowed";
const FOR_ACCESS_KEYS: &str = "printable ASCII but space, ',', '/' and '=' is allowed";

/// Defines four types that differ only in name, so that one cannot be mistaken for another.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allows:path, $allowed:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Creates a name.
            ///
            /// # Errors
            ///
            /// What is wrong with it, and what is allowed.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check(name, $what, $allows, $allowed)?;
                Ok(Self(name.into()))
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().into()
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        // Maps are searched by plain text: equality, order and hash are those of the text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// A user's name, which is also the user's access key.
    UserName, "a user's name", is_printable, PRINTABLE
}
name! {
    /// A group's name.
    GroupName, "a group's name", is_printable, PRINTABLE
}
name! {
    /// A policy's name.
    PolicyName, "a policy's name", is_printable, PRINTABLE
}
name! {
    /// Public half of the keys of a service account or a temporary credential.
    AccessKey, "an access key", is_for_access_keys, FOR_ACCESS_KEYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b61_name_is_short_printable_text() {
        let longest = "n".repeat(NAME_BYTES_MAX);
        for good in ["a", "Zoë", "a b", "..", "a/b", longest.as_str()] {
            assert_eq!(UserName::new(good).unwrap().as_str(), good);
        }
        let wrong = [
            ("", "a group's name must not be empty"),
            (&format!("{longest}n"), "a group's name may have 80 bytes, not 81"),
            (" a", "a group's name must not begin or end with a space"),
            (
                "a\nb",
                "a group's name must not contain '\\n': all characters but control characters are \
                 allowed",
            ),
        ];
        for (name, message) in wrong {
            assert_eq!(GroupName::new(name).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn b61_access_key_excludes_separators_of_the_signature_header() {
        assert!(AccessKey::new("AKIA-0_9.x").is_ok());
        for wrong in ["a/b", "a=b", "a,b", "a b", "ä"] {
            let error = AccessKey::new(wrong).unwrap_err();
            assert!(matches!(error.problem(), NameProblem::Character { .. }), "{error}");
        }
    }

    #[test]
    fn b61_stored_name_is_validated_on_read() {
        let name: PolicyName = serde_json::from_str(r#""readonly""#).unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), r#""readonly""#);
        assert!(serde_json::from_str::<PolicyName>(r#""a\u0000b""#).is_err());
    }
}
