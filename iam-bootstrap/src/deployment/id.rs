//! Deployment id: 128 bits, shown as a UUID.

use std::fmt;
use std::num::NonZeroU128;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The id of a deployment. Never nil.
///
/// ```
/// use iam_bootstrap::deployment::DeploymentId;
///
/// let id: DeploymentId = "6f1a2b3c-0d4e-4f50-8a6b-7c8d9e0f1a2b".parse()?;
/// assert_eq!(id.to_string(), "6f1a2b3c-0d4e-4f50-8a6b-7c8d9e0f1a2b");
/// # Ok::<(), iam_bootstrap::deployment::DeploymentIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeploymentId(NonZeroU128);

/// Error of parsing a deployment id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "deployment id {text:?} must be a UUID such as 6f1a2b3c-0d4e-4f50-8a6b-7c8d9e0f1a2b, and not nil"
)]
pub struct DeploymentIdError {
    /// Beginning of the text.
    text: String,
}

/// Maximum number of characters of an invalid text that an error quotes.
const EXCERPT_CHARS: usize = 40;

/// Positions of the hyphens in a UUID.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const TEXT_BYTES: usize = 36;

/// The version and variant bits of a UUID, and their values for a random UUID.
const FIXED_BITS: u128 = 0xf000_c000_0000_0000_0000;
const VERSION_4: NonZeroU128 = match NonZeroU128::new(0x4000_8000_0000_0000_0000) {
    Some(bits) => bits,
    None => NonZeroU128::MAX, // unreachable: the constant is not zero
};

impl DeploymentId {
    /// Makes a UUID of version 4 from 128 random bits, of which it uses 122.
    pub fn from_random(bits: u128) -> Self {
        Self(VERSION_4 | (bits & !FIXED_BITS))
    }

    /// Returns the id with these bits; `None` if they are all zero.
    pub const fn from_bits(bits: u128) -> Option<Self> {
        match NonZeroU128::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// Returns the bits, in the order of the text.
    pub const fn to_bits(self) -> u128 {
        self.0.get()
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.to_bits();
        let part = |shift: u32, digits: u32| (bits >> shift) & ((1 << (4 * digits)) - 1);
        let [a, b, c] = [part(96, 8), part(80, 4), part(64, 4)];
        let [d, e] = [part(48, 4), part(0, 12)];
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DeploymentId {
    type Err = DeploymentIdError;

    fn from_str(text: &str) -> Result<Self, DeploymentIdError> {
        parse(text)
            .ok_or_else(|| DeploymentIdError { text: text.chars().take(EXCERPT_CHARS).collect() })
    }
}

fn parse(text: &str) -> Option<DeploymentId> {
    if text.len() != TEXT_BYTES {
        return None;
    }
    let mut bits = 0;
    for (at, byte) in text.bytes().enumerate() {
        if HYPHENS.contains(&at) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        bits = bits << 4 | u128::from(char::from(byte).to_digit(16)?);
    }
    DeploymentId::from_bits(bits)
}

impl TryFrom<String> for DeploymentId {
    type Error = DeploymentIdError;

    fn try_from(text: String) -> Result<Self, DeploymentIdError> {
        text.parse()
    }
}

impl From<DeploymentId> for String {
    fn from(id: DeploymentId) -> Self {
        id.to_string()
    }
}

// loom-tests compiles this file without its tests.
#[cfg(not(grid_loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_round_trips_through_uuid_text() {
        let text = "00112233-4455-4677-8899-aabbccddeeff";
        let id: DeploymentId = text.parse().expect("valid UUID");
        assert_eq!(id.to_bits(), 0x0011_2233_4455_4677_8899_aabb_ccdd_eeff);
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        let json = serde_json::to_string(&id).expect("encodes");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<DeploymentId>(&json).expect("decodes"), id);
    }

    #[test]
    fn random_id_is_a_uuid_of_version_4() {
        for (bits, text) in [
            (0, "00000000-0000-4000-8000-000000000000"),
            (u128::MAX, "ffffffff-ffff-4fff-bfff-ffffffffffff"),
        ] {
            assert_eq!(DeploymentId::from_random(bits).to_string(), text);
        }
    }

    #[test]
    fn invalid_id_error_describes_the_expected_format() {
        for text in [
            "",
            "00000000-0000-0000-0000-000000000000",
            "00112233445546778899aabbccddeeff",
            "00112233-4455-4677-8899-aabbccddeef",
            "00112233-4455-4677-8899-aabbccddeefff",
            "00112233-4455-4677-8899+aabbccddeeff",
            "+0112233-4455-4677-8899-aabbccddeeff",
            "0011223é-4455-4677-8899-aabbccddeef",
        ] {
            assert!(text.parse::<DeploymentId>().is_err(), "{text}");
        }
        let error = "x".repeat(10_000).parse::<DeploymentId>().expect_err("too long");
        assert!(error.to_string().contains("must be a UUID"), "{error}");
        assert!(error.to_string().len() < 200);
    }
}
