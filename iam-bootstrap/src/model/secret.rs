//! Sensitive text: secret keys and session tokens.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};

/// A secret key or a session token. `Debug` does not show it, and there is no `Display`. It is
/// wiped from memory when dropped. Comparison takes constant time for texts of the same length. It
/// *is* part of an item's JSON: that must be encrypted for storage and transport.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<str>>);

/// Error of an invalid secret. Does not contain the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The secret is too short or too long.
    #[error("a secret must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, not {bytes}")]
    Length {
        /// Length of the text in bytes.
        bytes: usize,
    },
    /// The secret has a control character.
    #[error("a secret must not contain control characters")]
    Control,
}

impl Secret {
    /// Creates a secret.
    ///
    /// # Errors
    ///
    /// The text is too short or too long, or has a control character.
    pub fn new(secret: &str) -> Result<Self, SecretError> {
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(SecretError::Length { bytes: secret.len() });
        }
        if secret.chars().any(char::is_control) {
            return Err(SecretError::Control);
        }
        Ok(Self(Zeroizing::new(secret.into())))
    }

    /// Returns the text, for computing a signature.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SecretVisitor)
    }
}

/// Visits the text in place: a copy made by serde would not be wiped. (If the text has escapes,
/// serde_json has to make one.)
struct SecretVisitor;

impl serde::de::Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }

    fn visit_str<E: serde::de::Error>(self, secret: &str) -> Result<Secret, E> {
        Secret::new(secret).map_err(E::custom)
    }

    fn visit_string<E: serde::de::Error>(self, secret: String) -> Result<Secret, E> {
        self.visit_str(&Zeroizing::new(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b61_secret_never_appears_in_debug_or_errors() {
        let secret = Secret::new("correct horse").unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(..) Some(Secret(..))");
        let errors = [
            Secret::new("horse").unwrap_err().to_string(),
            Secret::new("correct\nhorse").unwrap_err().to_string(),
            serde_json::from_str::<Secret>(r#""horse""#).unwrap_err().to_string(),
            serde_json::from_str::<Secret>(r#""correct\nhorse""#).unwrap_err().to_string(),
        ];
        assert!(errors.iter().all(|error| !error.contains("horse")), "{errors:?}");
    }

    #[test]
    fn b61_secrets_are_equal_if_their_texts_are() {
        let secret = Secret::new("correct horse").unwrap();
        assert_eq!(secret, Secret::new("correct horse").unwrap());
        assert_ne!(secret, Secret::new("correct house").unwrap());
        assert_ne!(secret, Secret::new("correct horses").unwrap());
    }
}
