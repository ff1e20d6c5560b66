//! Decodes a report from a map only. By default serde also accepts an array, by position: a number
//! in the first position of another version's array would be decoded as the start time.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Report;

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Report {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapOnly)
    }
}

struct MapOnly;

impl<'de> Visitor<'de> for MapOnly {
    type Value = Report;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of report fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Report, A::Error> {
        Report::deserialize(MapAccessDeserializer::new(fields))
    }
}
