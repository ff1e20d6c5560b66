//! Stored form of an item: its version, and its content or a tombstone.
//!
//! Servers keep replicas of the same items and change them independently, also during a partition.
//! Of two records of one item the one with the later [`Version`] wins, in whatever order they
//! arrive, so all replicas converge ([B62]). A deletion is a record too, a tombstone, and wins over
//! earlier versions; otherwise a server that missed it would bring the item back.
//!
//! ```text
//!   iam1 1763712345678901 9c56cc51b374c3ba item\n      {"name":"alice", …}
//!        │                │                └ or "deleted", with no content
//!        │                └ hash of the server's name, 16 hexadecimal digits
//!        └ microseconds since the Unix epoch
//! ```
//!
//! [B62]: crate::rules#b62

use std::fmt;

use zeroize::Zeroizing;

use crate::limits::RECORD_HEADER_BYTES_MAX;
use crate::store::{ItemPath, StoreError};

/// Time and server of a change. The later of two versions wins; changes in the same microsecond are
/// ordered by the hash of the server's name.
///
/// The time is the server's wall clock, but always later than every version that the server has
/// seen: a change that causally follows another has a later version, whatever the clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Microseconds since the Unix epoch.
    pub micros: u64,
    /// Hash of the name of the server that made the change.
    pub node: u64,
}

/// Versioned content of an item.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Version of the change.
    pub version: Version,
    /// Content after the change.
    pub content: Content,
}

/// Content of a record.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// The item as JSON. It may hold secrets.
    Item(Zeroizing<Vec<u8>>),
    /// A tombstone: the item was deleted.
    Deleted,
}

const MAGIC: &str = "iam1";
const ITEM: &str = "item";
const DELETED: &str = "deleted";

impl Record {
    /// Returns whether the record is a tombstone.
    pub fn is_deletion(&self) -> bool {
        self.content == Content::Deleted
    }

    /// Encodes the record.
    pub fn encode(&self) -> Vec<u8> {
        let (what, body) = match &self.content {
            Content::Item(body) => (ITEM, body.as_slice()),
            Content::Deleted => (DELETED, [].as_slice()),
        };
        let header = format!("{MAGIC} {} {what}\n", self.version);
        debug_assert!(header.len() <= RECORD_HEADER_BYTES_MAX);
        let mut bytes = Vec::with_capacity(header.len() + body.len());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Decodes a record.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the bytes are not a record, [`StoreError::Unsupported`] if a
    /// newer version wrote it.
    pub fn decode(path: &ItemPath, bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |cause: &str| StoreError::Corrupt { path: path.clone(), cause: cause.into() };
        let beginning = bytes.get(..RECORD_HEADER_BYTES_MAX).unwrap_or(bytes);
        let end = beginning.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| corrupt("it has no header"))?;
        let (header, body) = bytes.split_at(end);
        let body = body.get(1..).unwrap_or_default();
        let header = std::str::from_utf8(header).map_err(|_| corrupt("its header is not UTF-8"))?;
        let (magic, rest) = header.split_once(' ').unwrap_or((header, ""));
        if magic != MAGIC {
            return Err(unknown_magic(path, magic));
        }
        let (version, what) =
            rest.rsplit_once(' ').ok_or_else(|| corrupt("its header is incomplete"))?;
        let version = parse_version(version).ok_or_else(|| corrupt("it has no version"))?;
        let content = match what {
            ITEM => Content::Item(Zeroizing::new(body.to_vec())),
            DELETED if body.is_empty() => Content::Deleted,
            DELETED => return Err(corrupt("it is a tombstone with content")),
            _ => return Err(corrupt("it is neither an item nor a tombstone")),
        };
        Ok(Self { version, content })
    }
}

/// Error for an unknown magic: a later format, or not a record.
fn unknown_magic(path: &ItemPath, magic: &str) -> StoreError {
    match magic.strip_prefix("iam").map(str::parse::<u32>) {
        Some(Ok(found)) if found > 1 => {
            StoreError::Unsupported { what: path.as_str().into(), found, max: 1 }
        }
        _ => StoreError::Corrupt { path: path.clone(), cause: "it is not a record".into() },
    }
}

/// Omits the item: it may hold secrets.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_deletion() { DELETED } else { ITEM };
        write!(f, "Record({} {what})", self.version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x}", self.micros, self.node)
    }
}

/// Parses a version in its canonical form.
fn parse_version(text: &str) -> Option<Version> {
    let (micros, node) = text.split_once(' ')?;
    let version =
        Version { micros: micros.parse().ok()?, node: u64::from_str_radix(node, 16).ok()? };
    (version.to_string() == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::ItemKind;

    fn path() -> ItemPath {
        ItemPath::new(ItemKind::User, "alice").expect("valid name")
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let body = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
        (any::<u64>(), any::<u64>(), body).prop_map(|(micros, node, body)| Record {
            version: Version { micros, node },
            content: body.map_or(Content::Deleted, |body| Content::Item(Zeroizing::new(body))),
        })
    }

    proptest! {
        #[test]
        fn b62_record_round_trips_through_bytes(record in any_record()) {
            prop_assert_eq!(Record::decode(&path(), &record.encode()), Ok(record));
        }

        #[test]
        fn b61_bytes_that_are_not_a_record_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Record::decode(&path(), &bytes).is_err());
        }

        #[test]
        fn b61_record_with_truncated_or_altered_header_is_rejected(record in any_record(), at in 0..40_usize, byte in any::<u8>()) {
            let mut bytes = record.encode();
            let end = bytes.iter().position(|byte| *byte == b'\n').expect("header line");
            prop_assert!(Record::decode(&path(), &bytes[..at.min(end)]).is_err());
            let at = at.min(end);
            bytes[at] = byte;
            if let Ok(other) = Record::decode(&path(), &bytes) {
                prop_assert_eq!(other.encode(), bytes, "encoding is canonical");
            }
        }
    }

    #[test]
    fn record_format_is_human_readable() {
        let version = Version { micros: 1_763_712_345_678_901, node: 0xba };
        let content = Content::Item(Zeroizing::new(b"{}".to_vec()));
        let record = Record { version, content };
        assert_eq!(record.encode(), b"iam1 1763712345678901 00000000000000ba item\n{}");
        let deletion = Record { version, content: Content::Deleted };
        assert_eq!(deletion.encode(), b"iam1 1763712345678901 00000000000000ba deleted\n");
        assert_eq!(format!("{record:?}"), "Record(1763712345678901 00000000000000ba item)");
    }

    #[test]
    fn record_of_a_later_format_asks_for_an_upgrade() {
        let error =
            Record::decode(&path(), b"iam2 whatever\n").expect_err("later format is refused");
        assert_eq!(
            error.to_string(),
            "users/alice was written in format 2, and this version knows up to 1: upgrade"
        );
    }

    #[test]
    fn b62_later_version_wins_and_server_hash_breaks_ties() {
        let version = |micros, node| Version { micros, node };
        assert!(version(2, 0) > version(1, 9));
        assert!(version(1, 2) > version(1, 1));
    }
}
