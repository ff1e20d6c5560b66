//! Decoding of maps with a limit on their entries, which bounds the memory that a report of a peer
//! can use.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{DriveReport, InterfaceReport};
use crate::limits::{DRIVES_MAX, INTERFACES_MAX, LABEL_BYTES_MAX};

pub(super) fn drives<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, DriveReport>, D::Error> {
    decode(deserializer, "drives", DRIVES_MAX)
}

pub(super) fn interfaces<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, InterfaceReport>, D::Error> {
    decode(deserializer, "interfaces", INTERFACES_MAX)
}

fn decode<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    entries: &'static str,
    max: usize,
) -> Result<BTreeMap<String, T>, D::Error> {
    deserializer.deserialize_map(Bounded { entries, max, values: PhantomData })
}

struct Bounded<T> {
    entries: &'static str,
    max: usize,
    values: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {} {}", self.max, self.entries)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let Self { entries, max, .. } = self;
        let mut map = BTreeMap::new();
        for count in 0.. {
            let Some(name) = access.next_key::<String>()? else { break };
            if count >= max {
                return Err(A::Error::custom(format_args!("more than {max} {entries}")));
            }
            if name.len() > LABEL_BYTES_MAX {
                return Err(A::Error::custom(format_args!(
                    "one of the {entries} has a name that is longer than {LABEL_BYTES_MAX} bytes"
                )));
            }
            map.insert(name, access.next_value()?);
        }
        Ok(map)
    }
}
