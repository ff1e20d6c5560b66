//! Maps that stop at a limit while they are read, so that a sender cannot decide how much memory a
//! receiver uses.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{DriveReport, InterfaceReport};
use crate::limits::{DRIVES_MAX, INTERFACES_MAX, LABEL_BYTES_MAX};

pub(super) fn drives<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, DriveReport>, D::Error> {
    read(deserializer, "drives", DRIVES_MAX)
}

pub(super) fn interfaces<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, InterfaceReport>, D::Error> {
    read(deserializer, "interfaces", INTERFACES_MAX)
}

fn read<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    what: &'static str,
    max: usize,
) -> Result<BTreeMap<String, T>, D::Error> {
    deserializer.deserialize_map(Bounded { what, max, values: PhantomData })
}

struct Bounded<T> {
    what: &'static str,
    max: usize,
    values: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {} {}", self.max, self.what)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let Self { what, max, .. } = self;
        let mut map = BTreeMap::new();
        for read in 0.. {
            let Some(name) = access.next_key::<String>()? else { break };
            if read >= max {
                return Err(A::Error::custom(format_args!("more than {max} {what}")));
            }
            if name.len() > LABEL_BYTES_MAX {
                return Err(A::Error::custom(format_args!(
                    "one of the {what} has a name that is longer than {LABEL_BYTES_MAX} bytes"
                )));
            }
            map.insert(name, access.next_value()?);
        }
        Ok(map)
    }
}
