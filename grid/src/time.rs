//! Time as the state machines see it: passed in, never read from the system.
//!
//! A [`Clock`] gives two readings. [`Instant`] is monotonic and measures durations; [`Timestamp`]
//! is the wall clock and is only sent to peers ([P22]). The simulator supplies its own clock, with
//! skew and drift; nothing else in the crate reads one.
//!
//! [P22]: crate::protocol#p22

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

/// The source of a manager's time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the monotonic clock. Never goes backwards.
    fn now(&self) -> Instant;

    /// Returns the wall clock. May be wrong and may jump.
    fn wall(&self) -> Timestamp;
}

/// A reading of the monotonic clock, in nanoseconds since an origin private to that clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// Creates the reading `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this reading; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Saturates, so that "for ever" can be written as a large duration.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

/// A reading of the wall clock: seconds since 1970 and nanoseconds within the second.
///
/// In msgpack it is an extension of type 5 with twelve bytes ([P22]); decoding also accepts msgpack's
/// own timestamp (type −1) in its three lengths.
///
/// [P22]: crate::protocol#p22
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

const NANOS_PER_SECOND: u32 = 1_000_000_000;
const EXT_TYPE: i8 = 5;
const EXT_TYPE_STANDARD: i8 = -1;

impl Timestamp {
    /// Creates a time from its parts. Nanoseconds of a second or more carry over.
    pub const fn new(seconds: i64, nanos: u32) -> Self {
        Self {
            seconds: seconds.saturating_add((nanos / NANOS_PER_SECOND) as i64),
            nanos: nanos % NANOS_PER_SECOND,
        }
    }

    /// Returns the whole seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Returns the nanoseconds within the second.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }

    /// Returns the nanoseconds since 1970.
    pub fn unix_nanos(self) -> i128 {
        i128::from(self.seconds) * i128::from(NANOS_PER_SECOND) + i128::from(self.nanos)
    }

    /// Returns the absolute distance to `other`.
    pub fn abs_diff(self, other: Self) -> Duration {
        let nanos = self.unix_nanos().abs_diff(other.unix_nanos());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanos)
    }
}

/// rmp-serde's convention: a newtype of this name holding (type, bytes) is an extension.
const EXT_STRUCT: &str = "_ExtStruct";

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&self.nanos.to_be_bytes());
        serializer.serialize_newtype_struct(EXT_STRUCT, &(EXT_TYPE, Bytes::new(&bytes)))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "_ExtStruct")]
        struct Ext((i8, ByteBuf));

        let Ext((kind, bytes)) = Ext::deserialize(deserializer)?;
        decode(kind, &bytes).ok_or_else(|| {
            de::Error::custom(format_args!(
                "extension of type {kind} with {} bytes is not a timestamp",
                bytes.len()
            ))
        })
    }
}

fn decode(kind: i8, bytes: &[u8]) -> Option<Timestamp> {
    let (seconds, nanos) = match (kind, bytes.len()) {
        (EXT_TYPE, 12) => {
            let (seconds, nanos) = bytes.split_first_chunk::<8>()?;
            (i64::from_be_bytes(*seconds), u32::from_be_bytes(nanos.try_into().ok()?))
        }
        (EXT_TYPE_STANDARD, 4) => (i64::from(u32::from_be_bytes(bytes.try_into().ok()?)), 0),
        (EXT_TYPE_STANDARD, 8) => {
            let packed = u64::from_be_bytes(bytes.try_into().ok()?);
            // 30 bits of nanoseconds above 34 bits of seconds.
            let nanos = u32::try_from(packed >> 34).ok()?;
            (i64::try_from(packed & ((1 << 34) - 1)).ok()?, nanos)
        }
        (EXT_TYPE_STANDARD, 12) => {
            let (nanos, seconds) = bytes.split_first_chunk::<4>()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanos))
        }
        _ => return None,
    };
    (nanos < NANOS_PER_SECOND).then_some(Timestamp { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_hex(hex: &str) -> Result<Timestamp, rmp_serde::decode::Error> {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
            .collect();
        rmp_serde::from_slice(&bytes)
    }

    #[test]
    fn p22_a_timestamp_is_encoded_as_extension_5() {
        let time = Timestamp::new(1_704_164_645, 678_901_234);
        let bytes = rmp_serde::to_vec_named(&time).expect("encodes");
        assert_eq!(bytes[..3], [0xc7, 12, 5]);
        assert_eq!(rmp_serde::from_slice::<Timestamp>(&bytes).expect("decodes"), time);
    }

    #[test]
    fn p22_msgpacks_own_timestamp_decodes_in_all_three_lengths() {
        assert_eq!(from_hex("d6ff65937d25").expect("32 bits"), Timestamp::new(0x6593_7d25, 0));
        assert_eq!(
            from_hex("d7ff0000000465937d25").expect("64 bits"),
            Timestamp::new(0x6593_7d25, 1)
        );
        assert_eq!(
            from_hex("c70cff000000010000000065937d25").expect("96 bits"),
            Timestamp::new(0x6593_7d25, 1)
        );
    }

    #[test]
    fn p22_malformed_timestamps_are_refused() {
        for hex in [
            "c70c06000000000000000000000000", // another type
            "c70b050000000000000000000000",   // eleven bytes
            "c70c0500000000000000003b9aca00", // a full second of nanoseconds
            "a474696d65",                     // a string
            "c70c05",                         // nothing after the header
        ] {
            assert!(from_hex(hex).is_err(), "{hex}");
        }
    }

    #[test]
    fn instants_saturate() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late + Duration::from_secs(1), Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_nanos(1).since(late), Duration::ZERO);
    }
}
