//! Resources of a lock: a validated, sorted set of names.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use crate::error::ResourcesError;
use crate::limits::{RESOURCE_NAME_BYTES_MAX, RESOURCES_MAX};

/// Resources of one lock: sorted, without duplicates. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Resources(Arc<[Arc<str>]>);

impl Resources {
    /// Returns the set of these names, in any order. Duplicates count once.
    ///
    /// # Errors
    ///
    /// [`ResourcesError`] if there are none or too many, or one is empty or too long.
    pub fn new<I>(resources: I) -> Result<Self, ResourcesError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut sorted: BTreeSet<Arc<str>> = BTreeSet::new();
        for (index, name) in resources.into_iter().enumerate() {
            let name = name.as_ref();
            match name.len() {
                _ if index >= RESOURCES_MAX => {
                    return Err(ResourcesError::TooMany { count: index + 1, max: RESOURCES_MAX });
                }
                0 => return Err(ResourcesError::EmptyName),
                bytes if bytes > RESOURCE_NAME_BYTES_MAX => {
                    return Err(ResourcesError::TooLong { bytes, max: RESOURCE_NAME_BYTES_MAX });
                }
                _ => drop(sorted.insert(Arc::from(name))),
            }
        }
        if sorted.is_empty() {
            return Err(ResourcesError::NoResources);
        }
        Ok(Self(sorted.into_iter().collect()))
    }

    /// Iterates over the names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    /// Returns whether the set has this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }

    /// Returns the total length of the names.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|name| name.len()).sum()
    }

    /// Returns the names as owned strings.
    pub(crate) fn to_vec(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Resources {
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
    fn names_are_sorted_and_without_duplicates() {
        let resources = Resources::new(["b", "a", "b", "c"]).expect("valid names");
        assert_eq!(resources.to_vec(), ["a", "b", "c"]);
        assert_eq!(resources, Resources::new(["c", "b", "a"]).expect("the same"));
        assert!(resources.contains("b") && !resources.contains("d"));
        assert_eq!(resources.to_string(), "a and 2 more");
    }

    #[test]
    fn invalid_names_are_reported() {
        let none: [&str; 0] = [];
        assert_eq!(Resources::new(none), Err(ResourcesError::NoResources));
        assert_eq!(Resources::new(["a", ""]), Err(ResourcesError::EmptyName));
        let long = "x".repeat(RESOURCE_NAME_BYTES_MAX + 1);
        assert_eq!(
            Resources::new([long]),
            Err(ResourcesError::TooLong {
                bytes: RESOURCE_NAME_BYTES_MAX + 1,
                max: RESOURCE_NAME_BYTES_MAX
            })
        );
        let many: Vec<_> = (0..=RESOURCES_MAX).map(|n| n.to_string()).collect();
        assert_eq!(
            Resources::new(&many),
            Err(ResourcesError::TooMany { count: RESOURCES_MAX + 1, max: RESOURCES_MAX })
        );
        Resources::new(&many[1..]).expect("within the limit");
    }
}
