//! Difference between two configurations, item by item.

use std::collections::BTreeMap;
use std::fmt;

use super::SystemConfig;
use crate::limits::DIFFERENCES_SHOWN_MAX;

/// Section of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigPart {
    /// The endpoints of the cluster.
    Endpoints,
    /// The command line.
    Arguments,
    /// The environment.
    Environment,
    /// The program.
    Program,
}

impl ConfigPart {
    /// Returns whether servers with different items of this section cannot work together. Others may
    /// differ while a cluster is upgraded, one server at a time.
    pub fn is_required(self) -> bool {
        match self {
            Self::Endpoints | Self::Arguments => true,
            Self::Environment | Self::Program => false,
        }
    }
}

impl fmt::Display for ConfigPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoints => "endpoint",
            Self::Arguments => "argument",
            Self::Environment => "variable",
            Self::Program => "program",
        })
    }
}

/// Difference of one item. Secret values are hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only this server has the item.
    Missing(String),
    /// Both servers have the item, with different values.
    Mismatching {
        /// Name of the item.
        name: String,
        /// Value on this server.
        ours: String,
        /// Value on the other server.
        theirs: String,
    },
    /// Only the other server has the item.
    Extra(String),
}

/// Difference of another server's configuration from this server's.
///
/// `Display` prints one line for a log; `{:#}` prints a line per item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigDifference {
    /// The items that differ, with their section.
    pub items: Vec<(ConfigPart, Difference)>,
}

impl ConfigDifference {
    /// Returns whether the configurations are equal.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns whether servers with this difference can work together.
    pub fn is_compatible(&self) -> bool {
        self.items.iter().all(|(part, _)| !part.is_required())
    }
}

/// Returns the difference of `theirs` from `ours`.
pub fn difference(ours: &SystemConfig, theirs: &SystemConfig) -> ConfigDifference {
    let mut items = Vec::new();
    let mut add = |part, found: Vec<Difference>| items.extend(found.into_iter().map(|d| (part, d)));
    add(ConfigPart::Endpoints, of_lists(&ours.endpoints, &theirs.endpoints, |text| (text, "")));
    let option = |text| str::split_once(text, '=').unwrap_or((text, ""));
    add(ConfigPart::Arguments, of_lists(&ours.arguments, &theirs.arguments, option));
    add(ConfigPart::Environment, of_maps(&ours.environment, &theirs.environment));
    for (name, ours, theirs) in [
        ("version", &ours.version, &theirs.version),
        ("checksum", &ours.checksum, &theirs.checksum),
    ] {
        add(ConfigPart::Program, mismatch(name, ours, theirs).into_iter().collect());
    }
    ConfigDifference { items }
}

fn mismatch(name: &str, ours: &str, theirs: &str) -> Option<Difference> {
    let (name, ours, theirs) = (name.to_owned(), ours.to_owned(), theirs.to_owned());
    (ours != theirs).then_some(Difference::Mismatching { name, ours, theirs })
}

/// Compares two lists. Equal items cancel out; the remaining ones are paired by name. If none
/// remain but the lists differ, their order differs.
fn of_lists<'a>(
    ours: &'a [String],
    theirs: &'a [String],
    split: impl Fn(&'a str) -> (&'a str, &'a str),
) -> Vec<Difference> {
    let mut surplus: BTreeMap<&str, i64> = BTreeMap::new();
    ours.iter().for_each(|text| *surplus.entry(text).or_default() += 1);
    theirs.iter().for_each(|text| *surplus.entry(text).or_default() -= 1);
    let mut extra: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let times = |count: i64| usize::try_from(count).unwrap_or(0);
    for (text, count) in &surplus {
        extra.entry(split(text).0).or_default().extend(vec![*text; times(-count)]);
    }
    let mut found = Vec::new();
    for (text, count) in &surplus {
        for _ in 0..times(*count) {
            let (name, value) = split(text);
            match extra.get_mut(name).and_then(Vec::pop) {
                Some(other) => found.extend(mismatch(name, value, split(other).1)),
                None => found.push(Difference::Missing((*text).to_owned())),
            }
        }
    }
    found.extend(extra.into_values().flatten().map(|text| Difference::Extra(text.to_owned())));
    if found.is_empty() {
        let first = ours.iter().zip(theirs).enumerate().find(|(_, (ours, theirs))| ours != theirs);
        found.extend(first.and_then(|(place, (ours, theirs))| {
            mismatch(&format!("order, at {}", place + 1), ours, theirs)
        }));
    }
    found
}

fn of_maps(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, value) in ours {
        match theirs.get(name) {
            Some(other) => found.extend(mismatch(name, value, other)),
            None => found.push(Difference::Missing(name.clone())),
        }
    }
    let extra = theirs.keys().filter(|name| !ours.contains_key(*name));
    found.extend(extra.map(|name| Difference::Extra(name.clone())));
    found
}

impl fmt::Display for ConfigDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no difference");
        }
        let separator = if f.alternate() { "\n" } else { "; " };
        for (index, (part, item)) in self.items.iter().take(DIFFERENCES_SHOWN_MAX).enumerate() {
            if index > 0 {
                f.write_str(separator)?;
            }
            write!(f, "{part} {item}")?;
        }
        match self.items.len().saturating_sub(DIFFERENCES_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "{separator}and {more} more"),
        }
    }
}

/// Text of another server is escaped: it must not forge log lines.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "{} is missing there", name.escape_debug()),
            Self::Extra(name) => write!(f, "{} is only there", name.escape_debug()),
            Self::Mismatching { name, ours, theirs } => {
                let (ours, theirs) = (shown(ours), shown(theirs));
                write!(f, "{} is {ours} here and {theirs} there", name.escape_debug())
            }
        }
    }
}

fn shown(value: &str) -> String {
    if value.is_empty() { "empty".to_owned() } else { value.escape_debug().to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::HashKey;
    use super::*;

    fn config(endpoints: &[&str], arguments: &[&str], vars: &[(&str, &str)]) -> SystemConfig {
        SystemConfig::collect(&HashKey::from_shared_secret(b"what all servers know"))
            .endpoints(endpoints.iter().copied())
            .arguments(arguments.iter().copied())
            .environment("NODE_", vars.iter().copied())
            .program("1.4.0", "e3b0c442")
            .finish()
    }

    #[test]
    fn b60_difference_names_missing_mismatching_and_extra_items() {
        let ours = config(
            &["http://10.0.0.1:9000", "http://10.0.0.2:9000"],
            &["serve", "--drives=4", "--fast"],
            &[("NODE_KEY", "hunter2"), ("NODE_REGION", "east"), ("NODE_ZONE", "1")],
        );
        let mut theirs = config(
            &["http://10.0.0.1:9000", "http://10.0.0.3:9000"],
            &["serve", "--drives=8", "--verbose\nINFO forged line"],
            &[("NODE_KEY", "hunter3"), ("NODE_REGION", "east"), ("NODE_TIER", "cold")],
        );
        theirs.version = "1.3.9".to_owned();
        insta::assert_snapshot!(format!("{:#}", difference(&ours, &theirs)), @r"
        endpoint http://10.0.0.2:9000 is missing there
        endpoint http://10.0.0.3:9000 is only there
        argument --drives is 4 here and 8 there
        argument --fast is missing there
        argument --verbose\nINFO forged line is only there
        variable NODE_KEY is 3efefccef9e332b9cfa04731 here and e68f1fc5a01f7227f30be87d there
        variable NODE_ZONE is missing there
        variable NODE_TIER is only there
        program version is 1.4.0 here and 1.3.9 there
        ");
    }

    #[test]
    fn b60_builds_and_environments_are_compatible_and_endpoints_and_settings_are_not() {
        let ours = config(&["a", "b"], &["--lease=1s"], &[("NODE_ZONE", "1")]);
        let environment = config(&["a", "b"], &["--lease=1s"], &[("NODE_ZONE", "2")]);
        let program = SystemConfig { checksum: "other".to_owned(), ..ours.clone() };
        for theirs in [&environment, &program] {
            let found = difference(&ours, theirs);
            assert!(!found.is_empty() && found.is_compatible(), "{found}");
            assert_eq!(ours.required_digest(), theirs.required_digest());
        }
        let endpoints = config(&["a", "c"], &["--lease=1s"], &[("NODE_ZONE", "1")]);
        let setting = config(&["a", "b"], &["--lease=2s"], &[("NODE_ZONE", "1")]);
        for theirs in [&endpoints, &setting] {
            assert!(!difference(&ours, theirs).is_compatible());
            assert_ne!(ours.required_digest(), theirs.required_digest());
        }
    }

    #[test]
    fn b60_endpoint_order_is_compared_and_long_differences_are_truncated() {
        let (ours, theirs) =
            (config(&["a", "b", "c"], &[], &[]), config(&["a", "c", "b"], &[], &[]));
        let shown = difference(&ours, &theirs).to_string();
        assert_eq!(shown, "endpoint order, at 2 is b here and c there");
        let many: Vec<_> = (0..50).map(|index| index.to_string()).collect();
        let many = SystemConfig { endpoints: many, ..theirs };
        let shown = difference(&ours, &many).to_string();
        assert!(shown.ends_with("; and 33 more"), "{shown}");
    }

    proptest! {
        #[test]
        fn b60_difference_is_empty_exactly_for_equal_configurations(
            lists in proptest::collection::vec(proptest::collection::vec("[ab](=[01])?", 0..4), 4),
            names in proptest::collection::vec(proptest::collection::btree_map("[ab]", "[01]", 0..3), 2),
        ) {
            let of = |index: usize| SystemConfig {
                endpoints: lists[index].clone(),
                arguments: lists[index + 2].clone(),
                environment: names[index].clone(),
                ..SystemConfig::default()
            };
            let (ours, theirs) = (of(0), of(1));
            prop_assert_eq!(difference(&ours, &theirs).is_empty(), ours == theirs);
            prop_assert_eq!(ours.digest() == theirs.digest(), ours == theirs);
            prop_assert!(difference(&ours, &ours).is_empty());
        }
    }
}
