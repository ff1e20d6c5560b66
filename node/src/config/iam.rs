//! The settings for IAM.

use std::path::PathBuf;

use iam_bootstrap::model::{Secret, UserName};

use super::error::ConfigError;
use super::layers::{Layers, Setting};
use super::{read_secret, single_text};
use crate::secret::SecretBytes;

/// Maximum number of pools of one server. All are read concurrently at startup.
const POOLS_MAX: usize = 16;

/// Default name of the root account.
const ROOT_USER: &str = "root";

/// The pools and the root account.
#[derive(Debug)]
pub(crate) struct IamConfig {
    /// A directory for each pool; in memory if empty.
    pub(crate) pools: Vec<PathBuf>,
    /// Whether empty or missing directories become pools.
    pub(crate) initialise: bool,
    pub(crate) root_user: UserName,
    pub(crate) root_secret: SecretBytes,
}

const DATA_ALLOWED: &str =
    "absolute paths of directories, each once, such as /data1/iam; default in memory";
const INITIALISE_ALLOWED: &str = "true or false, and not true without data";
const ROOT_USER_ALLOWED: &str = "the name of the root account, such as root";
const ROOT_SECRET_ALLOWED: &str = "a readable file of 8 to 4096 bytes of text without control \
                                   characters, not counting a final newline";

impl IamConfig {
    /// The root secret defaults to the `shared` secret of the cluster.
    pub(super) fn from_layers(layers: &Layers, shared: &SecretBytes) -> Result<Self, ConfigError> {
        let pools = layers.find_optional("data").map(parse_pools).transpose()?.unwrap_or_default();
        let initialise = match layers.find_optional("initialise") {
            Some(given) => parse_initialise(given, &pools)?,
            None => false,
        };
        let root_user = match layers.find_optional("root_user") {
            Some(given) => single_text(given, ROOT_USER_ALLOWED)?.parse(),
            None => ROOT_USER.parse(),
        };
        let root_user = root_user.map_err(|error| invalid_root_user(layers, &error))?;
        let root_secret = match layers.find_optional("root_secret_file") {
            Some(given) => parse_root_secret(given)?,
            None => shared.clone(),
        };
        Ok(Self { pools, initialise, root_user, root_secret })
    }
}

fn invalid_root_user(layers: &Layers, problem: &dyn std::fmt::Display) -> ConfigError {
    let key = "root_user";
    match layers.find_optional(key) {
        Some(given) => given.invalid(problem, ROOT_USER_ALLOWED),
        None => ConfigError::Missing { key, allowed: ROOT_USER_ALLOWED.to_owned() },
    }
}

/// A missing directory is not an error here: its disk may be mounted later.
fn parse_pools(given: &Setting) -> Result<Vec<PathBuf>, ConfigError> {
    let mut pools = Vec::new();
    for text in given.list() {
        let path = PathBuf::from(text);
        let problem = match () {
            () if !path.is_absolute() => format!("{text:?} is not an absolute path"),
            () if pools.contains(&path) => format!("{text} is listed more than once"),
            () => {
                pools.push(path);
                continue;
            }
        };
        return Err(given.invalid(&problem, DATA_ALLOWED));
    }
    match pools.len() {
        0 => Err(given.invalid(&"it is empty", DATA_ALLOWED)),
        1..=POOLS_MAX => Ok(pools),
        _ => Err(given.invalid(&"it lists too many", &format!("at most {POOLS_MAX} directories"))),
    }
}

fn parse_initialise(given: &Setting, pools: &[PathBuf]) -> Result<bool, ConfigError> {
    let text = single_text(given, INITIALISE_ALLOWED)?;
    match text.parse() {
        Ok(true) if pools.is_empty() => Err(given.invalid(&"no data is given", INITIALISE_ALLOWED)),
        Ok(initialise) => Ok(initialise),
        Err(_) => Err(given.invalid(&"it is neither true nor false", INITIALISE_ALLOWED)),
    }
}

fn parse_root_secret(given: &Setting) -> Result<SecretBytes, ConfigError> {
    let secret = read_secret(given)?;
    let text = std::str::from_utf8(secret.expose());
    let text = text.map_err(|_| given.invalid(&"it is not UTF-8 text", ROOT_SECRET_ALLOWED))?;
    let checked = Secret::new(text).map(drop);
    checked.map_err(|error| given.invalid(&error, ROOT_SECRET_ALLOWED))?;
    Ok(secret)
}
