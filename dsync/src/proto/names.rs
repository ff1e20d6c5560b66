//! What a lock is on: one or several resources, in their canonical order.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::limits::{RESOURCE_BYTES_MAX, RESOURCES_MAX};

/// Why a set of names cannot be locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// There is none.
    #[error("a lock needs at least one resource")]
    None,
    /// One is empty.
    #[error("a resource's name must not be empty")]
    Empty,
    /// One is too long.
    #[error("a resource's name may have {RESOURCE_BYTES_MAX} bytes, not {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// There are too many.
    #[error("a lock may take {RESOURCES_MAX} resources, not {count}")]
    TooMany {
        /// How many there are, at least.
        count: usize,
    },
}

/// The resources of one lock: sorted, each once. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Names(Arc<[Arc<str>]>);

impl Names {
    /// The resources with these names. The order does not matter, and doubles count once.
    ///
    /// # Errors
    ///
    /// [`NamesError`] if there are none or too many, or one is empty or too long.
    pub fn new<I>(names: I) -> Result<Self, NamesError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut sorted: BTreeSet<Arc<str>> = BTreeSet::new();
        for (index, name) in names.into_iter().enumerate() {
            let name = name.as_ref();
            match name.len() {
                _ if index >= RESOURCES_MAX => {
                    return Err(NamesError::TooMany { count: index + 1 });
                }
                0 => return Err(NamesError::Empty),
                bytes if bytes > RESOURCE_BYTES_MAX => return Err(NamesError::TooLong { bytes }),
                _ => drop(sorted.insert(Arc::from(name))),
            }
        }
        if sorted.is_empty() {
            return Err(NamesError::None);
        }
        Ok(Self(sorted.into_iter().collect()))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    /// Whether this one is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|name| name.len()).sum()
    }

    /// As texts of their own.
    pub(crate) fn to_vec(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, more) = (self.0.first(), self.0.len() - 1);
        f.write_str(first.map_or("", |name| name))?;
        if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_each_is_there_once() {
        let names = Names::new(["b", "a", "b", "c"]).expect("good names");
        assert_eq!(names.to_vec(), ["a", "b", "c"]);
        assert_eq!(names, Names::new(["c", "b", "a"]).expect("the same"));
        assert!(names.contains("b") && !names.contains("d"));
        assert_eq!(names.to_string(), "a and 2 more");
    }

    #[test]
    fn what_cannot_be_locked_is_told() {
        let none: [&str; 0] = [];
        assert_eq!(Names::new(none), Err(NamesError::None));
        assert_eq!(Names::new(["a", ""]), Err(NamesError::Empty));
        let long = "x".repeat(RESOURCE_BYTES_MAX + 1);
        assert_eq!(Names::new([long]), Err(NamesError::TooLong { bytes: RESOURCE_BYTES_MAX + 1 }));
        let many: Vec<_> = (0..=RESOURCES_MAX).map(|n| n.to_string()).collect();
        assert_eq!(Names::new(&many), Err(NamesError::TooMany { count: RESOURCES_MAX + 1 }));
        Names::new(&many[1..]).expect("as many as are allowed");
    }
}
