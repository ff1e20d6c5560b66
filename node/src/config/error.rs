//! Errors of the configuration. Each names the key, the value, its origin, and what is allowed.

use std::fmt;
use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(
        "{key} is missing: use {}, {}, or {key} in a configuration file; it must be {allowed}",
        flag(key),
        variable(key)
    )]
    Missing { key: &'static str, allowed: String },
    #[error("{key} = {value} ({origin}) is invalid: {problem}; it must be {allowed}")]
    Invalid { key: &'static str, value: String, origin: Origin, problem: String, allowed: String },
    #[error("{key} = {value} ({origin}) is invalid: unknown key; the known keys are {known}")]
    UnknownKey { key: String, value: String, origin: Origin, known: String },
    #[error("config = {path:?} ({origin}) is invalid: {problem}; it must be a readable TOML file")]
    File { path: PathBuf, origin: Origin, problem: String },
}

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line: the key's flag.
    Flag(&'static str),
    /// The environment: the key's variable.
    Environment(&'static str),
    /// The configuration file.
    File(PathBuf),
}

/// Returns a key's flag.
fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// Returns a key's environment variable.
pub(super) fn variable(key: &str) -> String {
    format!("GRIDWIRE_{}", key.to_uppercase())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "from {}", flag(key)),
            Self::Environment(key) => write!(f, "from {}", variable(key)),
            Self::File(path) => write!(f, "from {}", path.display()),
        }
    }
}
