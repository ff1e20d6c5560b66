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
    /// Returns the rule that the name violates.
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
    SurroundingSpace,
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
        NameProblem::SurroundingSpace
    } else {
        return Ok(());
    };
    Err(NameError { what, problem })
}

fn is_printable(c: char) -> bool {
    !c.is_control()
}

/// Excludes the separators of the `Authorization` header of a signed request.
fn is_access_key_char(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, ',' | '/' | '=')
}

const PRINTABLE_ALLOWED: &str = "all characters but control characters are allowed";
const ACCESS_KEY_ALLOWED: &str = "printable ASCII but space, ',', '/' and '=' is allowed";

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
            /// The violated rule, with the allowed characters or length.
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

        // Allows map lookups by `&str`: equality, order and hash are those of the text.
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
    UserName, "a user's name", is_printable, PRINTABLE_ALLOWED
}
name! {
    /// A group's name.
    GroupName, "a group's name", is_printable, PRINTABLE_ALLOWED
}
name! {
    /// A policy's name.
    PolicyName, "a policy's name", is_printable, PRINTABLE_ALLOWED
}
name! {
    /// Access key id of a service account or a temporary credential: the public counterpart of its
    /// secret.
    AccessKey, "an access key", is_access_key_char, ACCESS_KEY_ALLOWED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b61_name_is_short_printable_text() {
        let longest = "n".repeat(NAME_BYTES_MAX);
        for valid in ["a", "Zoë", "a b", "..", "a/b", longest.as_str()] {
            assert_eq!(UserName::new(valid).unwrap().as_str(), valid);
        }
        let invalid = [
            ("", "a group's name must not be empty"),
            (&format!("{longest}n"), "a group's name may have 80 bytes, not 81"),
            (" a", "a group's name must not begin or end with a space"),
            (
                "a\nb",
                "a group's name must not contain '\\n': all characters but control characters are \
                 allowed",
            ),
        ];
        for (name, message) in invalid {
            assert_eq!(GroupName::new(name).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn b61_access_key_excludes_separators_of_the_signature_header() {
        assert!(AccessKey::new("AKIA-0_9.x").is_ok());
        for invalid in ["a/b", "a=b", "a,b", "a b", "ä"] {
            let error = AccessKey::new(invalid).unwrap_err();
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
