//! Path of an item in its store: its kind and its encoded name.
//!
//! A path is also a file name and appears in logs, so a name is percent-encoded: ASCII letters,
//! digits and `-_@+=,` stand for themselves, as does `.` except in the first position; all other
//! bytes become `%` and two upper-case hexadecimal digits. The encoding is canonical: each name has
//! exactly one spelling, and any other spelling is not a path.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{NAME_ENCODED_BYTES_MAX, PATH_BYTES_MAX};

/// Kind of an item. A store has many items of each kind, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// A user.
    User,
    /// A group of users.
    Group,
    /// A service account of a user.
    ServiceAccount,
    /// A policy.
    Policy,
    /// The policies attached to a user.
    UserPolicy,
    /// The policies attached to a group.
    GroupPolicy,
    /// A temporary credential.
    Temporary,
}

impl ItemKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::User,
        Self::Group,
        Self::ServiceAccount,
        Self::Policy,
        Self::UserPolicy,
        Self::GroupPolicy,
        Self::Temporary,
    ];

    /// Returns the first part of the paths of this kind.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Group => "groups",
            Self::ServiceAccount => "service-accounts",
            Self::Policy => "policies",
            Self::UserPolicy => "user-policies",
            Self::GroupPolicy => "group-policies",
            Self::Temporary => "temporary",
        }
    }

    fn of_prefix(prefix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.prefix() == prefix)
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

/// Path of an item: `users/alice`, `format`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemPath {
    text: Arc<str>,
    kind: Option<ItemKind>,
}

/// Error of an invalid path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// An item of a kind needs a name.
    #[error("an item of {kind} needs a name, and has none")]
    NoName {
        /// Kind of the item.
        kind: ItemKind,
    },
    /// The encoded name is too long.
    #[error(
        "a name in {kind} may have {max} bytes, not {bytes}, where each but a letter or digit counts as three"
    )]
    NameTooLong {
        /// Kind of the item.
        kind: ItemKind,
        /// Length of the encoded name in bytes.
        bytes: usize,
        /// [`NAME_ENCODED_BYTES_MAX`].
        max: usize,
    },
    /// The text is not the path of an item.
    #[error("{text:?} is no item's path: {problem}")]
    Malformed {
        /// Beginning of the text.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

const FORMAT: &str = "format";
const DEPLOYMENT: &str = "deployment";

impl ItemPath {
    /// Returns the path of the item of this kind and name.
    ///
    /// # Errors
    ///
    /// [`PathError::NoName`] and [`PathError::NameTooLong`].
    pub fn new(kind: ItemKind, name: impl AsRef<str>) -> Result<Self, PathError> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(PathError::NoName { kind });
        }
        let bytes = encoded_len(name);
        if bytes > NAME_ENCODED_BYTES_MAX {
            return Err(PathError::NameTooLong { kind, bytes, max: NAME_ENCODED_BYTES_MAX });
        }
        let mut text = String::with_capacity(kind.prefix().len() + 1 + bytes);
        text.push_str(kind.prefix());
        text.push('/');
        encode(name, &mut text);
        Ok(Self { text: text.into(), kind: Some(kind) })
    }

    /// Returns the path of an item whose name the model has already checked to be short enough.
    pub(crate) fn of_name(kind: ItemKind, name: &str) -> Self {
        debug_assert!(Self::new(kind, name).is_ok(), "{name:?} is too long");
        let mut text = format!("{}/", kind.prefix());
        encode(name, &mut text);
        Self { text: text.into(), kind: Some(kind) }
    }

    /// Returns the path of the item that holds the storage format.
    pub fn format() -> Self {
        Self { text: FORMAT.into(), kind: None }
    }

    /// Returns the path of the item that holds the deployment id.
    pub fn deployment() -> Self {
        Self { text: DEPLOYMENT.into(), kind: None }
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the kind; `None` for the format and deployment items.
    pub fn kind(&self) -> Option<ItemKind> {
        self.kind
    }

    /// Returns the decoded name; `None` for the format and deployment items.
    pub fn name(&self) -> Option<String> {
        self.kind.and_then(|_| decode(self.file_name()))
    }

    /// Returns the last part of the path, encoded.
    pub(crate) fn file_name(&self) -> &str {
        self.text.rsplit_once('/').map_or(&self.text, |(_, name)| name)
    }

    /// Returns the path of the item of this kind with this encoded name.
    pub(crate) fn of_file_name(kind: ItemKind, encoded: &str) -> Result<Self, PathError> {
        let malformed = |problem| PathError::Malformed { text: excerpt(encoded), problem };
        let name = decode(encoded).ok_or_else(|| malformed("its encoding is not ours"))?;
        let path = Self::new(kind, name)?;
        match path.file_name() == encoded {
            true => Ok(path),
            false => Err(malformed("its name is spelled in another way than ours")),
        }
    }
}

impl FromStr for ItemPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let malformed = |problem| PathError::Malformed { text: excerpt(text), problem };
        if text.len() > PATH_BYTES_MAX {
            return Err(malformed("it is longer than 1,024 bytes"));
        }
        match text.split_once('/') {
            None if text == FORMAT => Ok(Self::format()),
            None if text == DEPLOYMENT => Ok(Self::deployment()),
            None => Err(malformed("it must be a kind, a slash and a name")),
            Some((prefix, name)) => match ItemKind::of_prefix(prefix) {
                Some(kind) => Self::of_file_name(kind, name),
                None => Err(malformed("there is no such kind of items")),
            },
        }
    }
}

impl fmt::Display for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_plain(byte: u8, is_first: bool) -> bool {
    match byte {
        b'-' | b'_' | b'@' | b'+' | b'=' | b',' => true,
        b'.' => !is_first,
        _ => byte.is_ascii_alphanumeric(),
    }
}

fn encoded_len(name: &str) -> usize {
    let bytes = name.bytes().enumerate();
    bytes.map(|(index, byte)| if is_plain(byte, index == 0) { 1 } else { 3 }).sum()
}

fn encode(name: &str, into: &mut String) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    for (index, byte) in name.bytes().enumerate() {
        if is_plain(byte, index == 0) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(DIGITS[usize::from(byte >> 4)]));
            into.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high << 4 | low).ok()?);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn b61_every_name_round_trips_through_its_one_path(name in "\\PC{1,28}", kind in 0..7usize) {
            let kind = ItemKind::ALL[kind];
            let path = match ItemPath::new(kind, &name) {
                Ok(path) => path,
                Err(PathError::NameTooLong { bytes, .. }) => {
                    prop_assert!(bytes > 255);
                    return Ok(());
                }
                Err(error) => panic!("{error}"),
            };
            prop_assert_eq!(path.name(), Some(name));
            prop_assert_eq!(path.kind(), Some(kind));
            prop_assert_eq!(path.as_str().parse::<ItemPath>(), Ok(path.clone()));
            let file = path.file_name();
            prop_assert!(!file.contains('/') && !file.starts_with('.') && file.is_ascii());
        }

        #[test]
        fn b61_text_is_a_canonical_path_or_an_error(text in "(users|format|policies)?/?[a%.0-9A-F/]{0,12}") {
            if let Ok(path) = text.parse::<ItemPath>() {
                prop_assert_eq!(path.as_str(), text);
            }
        }
    }

    #[test]
    fn names_with_special_file_system_characters_are_encoded() {
        let path =
            |name: &str| ItemPath::new(ItemKind::User, name).expect("valid name").to_string();
        assert_eq!(path("alice@example.com"), "users/alice@example.com");
        assert_eq!(path(".."), "users/%2E.");
        assert_eq!(path("a/b"), "users/a%2Fb");
        assert_eq!(path("100%"), "users/100%25");
        assert_eq!(path("zoë\0"), "users/zo%C3%AB%00");
        assert_eq!(ItemPath::format().to_string(), "format");
        assert_eq!("deployment".parse(), Ok(ItemPath::deployment()));
    }

    #[test]
    fn invalid_path_error_names_the_reason() {
        let wrong = |text: &str| text.parse::<ItemPath>().expect_err("invalid path").to_string();
        assert_eq!(
            wrong("users/%41"),
            "\"%41\" is no item's path: its name is spelled in another way than ours"
        );
        assert!(wrong("users/%zz").contains("its encoding is not ours"));
        assert!(wrong("users/..").contains("spelled in another way"));
        assert!(wrong("drives/a").contains("no such kind"));
        assert!(wrong("users").contains("a kind, a slash and a name"));
        assert!(wrong(&"x".repeat(2_000)).contains("longer than 1,024 bytes"));
        assert_eq!(wrong("users/"), "an item of users needs a name, and has none");
        let long = ItemPath::new(ItemKind::User, "é".repeat(43)).expect_err("258 bytes");
        assert!(long.to_string().contains("may have 255 bytes, not 258"), "{long}");
    }
}
