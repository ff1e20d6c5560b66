//! The three layers that a value can come from. This module decides which value wins, not whether
//! it is valid.

use std::fmt;
use std::path::PathBuf;

use super::error::{ConfigError, Origin, variable};
use crate::cli::ServeArgs;

/// The keys, as spelled in the file. Flags and variables derive from these names.
pub(super) const KEYS: [&str; 15] = [
    "listen",
    "name",
    "peers",
    "clients",
    "lockers",
    "lock_lease",
    "secret_file",
    "metrics_token_file",
    "metrics_public",
    "metrics_interval",
    "drives",
    "data",
    "initialise",
    "root_user",
    "root_secret_file",
];

/// Keys whose value in a file may be an array.
const LIST_KEYS: [&str; 5] = ["peers", "clients", "lockers", "drives", "data"];

/// Keys whose value in a file may be a boolean.
const BOOLEAN_KEYS: [&str; 2] = ["metrics_public", "initialise"];

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SettingValue {
    Text(String),
    /// From a file only.
    List(Vec<String>),
}

/// A key, its value, and the origin of the value.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    key: &'static str,
    pub(super) value: SettingValue,
    origin: Origin,
}

impl Setting {
    /// Returns an error that this value is invalid.
    pub(super) fn invalid(&self, problem: &dyn fmt::Display, allowed: &str) -> ConfigError {
        ConfigError::Invalid {
            key: self.key,
            value: self.value.to_string(),
            origin: self.origin.clone(),
            problem: problem.to_string(),
            allowed: allowed.to_owned(),
        }
    }

    /// Returns the items of a list, or of a text with commas.
    pub(super) fn list(&self) -> Vec<&str> {
        match &self.value {
            SettingValue::Text(text) if text.trim().is_empty() => Vec::new(),
            SettingValue::Text(text) => text.split(',').map(str::trim).collect(),
            SettingValue::List(items) => items.iter().map(String::as_str).collect(),
        }
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(items) => write!(f, "{items:?}"),
        }
    }
}

/// All settings that were given, in order of precedence.
#[derive(Debug)]
pub(super) struct Layers(Vec<Setting>);

impl Layers {
    /// Reads all layers. `environment` looks up a variable.
    pub(super) fn read(
        flags: ServeArgs,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let ServeArgs { listen, name, peers, clients, lockers, lock_lease, secret_file, .. } =
            flags;
        let ServeArgs { metrics_token_file, metrics_public, metrics_interval, drives, .. } = flags;
        let cluster = [listen, name, peers, clients, lockers, lock_lease, secret_file];
        let metrics = [metrics_token_file, metrics_public, metrics_interval, drives];
        let ServeArgs { data, initialise, root_user, root_secret_file, .. } = flags;
        let iam = [data, initialise, root_user, root_secret_file];
        let config = flags.config;
        let mut given = Vec::new();
        for (key, text) in KEYS.into_iter().zip(cluster.into_iter().chain(metrics).chain(iam)) {
            given.extend(text.map(|text| text_from(key, text, Origin::Flag(key))));
        }
        for key in KEYS {
            let text = environment(&variable(key));
            given.extend(text.map(|text| text_from(key, text, Origin::Environment(key))));
        }
        let from_flag = config.map(|path| (path, Origin::Flag("config")));
        let file = from_flag.or_else(|| {
            environment(&variable("config")).map(|path| (path, Origin::Environment("config")))
        });
        if let Some((path, origin)) = file {
            given.extend(read_file(PathBuf::from(path), origin)?);
        }
        Ok(Self(given))
    }

    /// Returns the winning value of a required key.
    pub(super) fn find(&self, key: &'static str, allowed: &str) -> Result<&Setting, ConfigError> {
        let missing = || ConfigError::Missing { key, allowed: allowed.to_owned() };
        self.find_optional(key).ok_or_else(missing)
    }

    /// Returns the winning value, if any.
    pub(super) fn find_optional(&self, key: &'static str) -> Option<&Setting> {
        debug_assert!(KEYS.contains(&key), "{key} is not read");
        self.0.iter().find(|given| given.key == key)
    }
}

fn text_from(key: &'static str, text: String, origin: Origin) -> Setting {
    Setting { key, value: SettingValue::Text(text), origin }
}

/// Reads all values of a file. An unknown key is an error, since it is most likely a misspelled
/// one.
fn read_file(path: PathBuf, origin: Origin) -> Result<Vec<Setting>, ConfigError> {
    let invalid = |problem: String| ConfigError::File { path: path.clone(), origin, problem };
    let table = match std::fs::read_to_string(&path) {
        Ok(text) => text.parse::<toml::Table>().map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    let table = table.map_err(invalid)?;
    let origin = Origin::File(path);
    table.into_iter().map(|(key, value)| from_file(&key, &value, &origin)).collect()
}

fn from_file(key: &str, value: &toml::Value, origin: &Origin) -> Result<Setting, ConfigError> {
    let Some(known) = KEYS.into_iter().find(|known| *known == key) else {
        return Err(ConfigError::UnknownKey {
            key: key.to_owned(),
            value: value.to_string(),
            origin: origin.clone(),
            known: KEYS.join(", "),
        });
    };
    let value = match (known, value) {
        (_, toml::Value::String(text)) => SettingValue::Text(text.clone()),
        (key, toml::Value::Boolean(is_on)) if BOOLEAN_KEYS.contains(&key) => {
            SettingValue::Text(is_on.to_string())
        }
        (key, toml::Value::Array(items)) if LIST_KEYS.contains(&key) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            let texts: Option<Vec<_>> = texts.collect();
            SettingValue::List(texts.ok_or_else(|| type_error(known, value, origin))?)
        }
        _ => return Err(type_error(known, value, origin)),
    };
    Ok(Setting { key: known, value, origin: origin.clone() })
}

fn type_error(key: &'static str, value: &toml::Value, origin: &Origin) -> ConfigError {
    ConfigError::Invalid {
        key,
        value: value.to_string(),
        origin: origin.clone(),
        problem: format!("it has the type {}", value.type_str()),
        allowed: match key {
            "drives" | "data" => "an array of strings, such as [\"/data1\"]".to_owned(),
            key if LIST_KEYS.contains(&key) => {
                "an array of strings, such as [\"http://10.0.0.2:9000\"]".to_owned()
            }
            key if BOOLEAN_KEYS.contains(&key) => "true or false".to_owned(),
            _ => "a quoted string".to_owned(),
        },
    }
}
