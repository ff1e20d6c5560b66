//! What of a server's configuration concerns users and their rights.

use std::path::PathBuf;

use iam_bootstrap::model::{Secret, UserName};

use super::error::ConfigError;
use super::layers::{Given, Layers};
use super::{one_text, read_secret};
use crate::secret::SecretBytes;

/// Pools of one server. All are read at once when it starts.
const POOLS_MAX: usize = 16;

/// The account that may do everything, unless told.
const ROOT_USER: &str = "root";

/// Where users are kept, and who may do everything.
#[derive(Debug)]
pub(crate) struct IamConfig {
    /// A directory for each pool; in memory if there is none.
    pub(crate) pools: Vec<PathBuf>,
    /// Whether directories that hold nothing become pools.
    pub(crate) initialise: bool,
    pub(crate) root_user: UserName,
    pub(crate) root_secret: SecretBytes,
}

const DATA_ALLOWED: &str =
    "absolute paths of directories, each once, such as /data1/iam; in memory unless given";
const INITIALISE_ALLOWED: &str = "true or false, and not true without data";
const ROOT_USER_ALLOWED: &str = "the name of the account that may do everything, such as root";
const ROOT_SECRET_ALLOWED: &str = "a readable file of 8 to 4096 bytes of text without control characters, its last newline not counted";

impl IamConfig {
    /// Whoever gives no root secret has that of the cluster.
    pub(super) fn from_layers(layers: &Layers, shared: &SecretBytes) -> Result<Self, ConfigError> {
        let pools = layers.find_optional("data").map(parse_pools).transpose()?.unwrap_or_default();
        let initialise = match layers.find_optional("initialise") {
            Some(given) => parse_initialise(given, &pools)?,
            None => false,
        };
        let root_user = match layers.find_optional("root_user") {
            Some(given) => one_text(given, ROOT_USER_ALLOWED)?.parse(),
            None => ROOT_USER.parse(),
        };
        let root_user = root_user.map_err(|error| wrong(layers, "root_user", &error))?;
        let root_secret = match layers.find_optional("root_secret_file") {
            Some(given) => parse_root_secret(given)?,
            None => shared.clone(),
        };
        Ok(Self { pools, initialise, root_user, root_secret })
    }
}

fn wrong(layers: &Layers, key: &'static str, problem: &dyn std::fmt::Display) -> ConfigError {
    match layers.find_optional(key) {
        Some(given) => given.wrong(problem, ROOT_USER_ALLOWED),
        None => ConfigError::Missing { key, allowed: ROOT_USER_ALLOWED.to_owned() },
    }
}

/// One that is not there yet may be mounted later: that is none of the configuration's.
fn parse_pools(given: &Given) -> Result<Vec<PathBuf>, ConfigError> {
    let mut pools = Vec::new();
    for text in given.list() {
        let path = PathBuf::from(text);
        let problem = match () {
            () if !path.is_absolute() => format!("{text:?} is no absolute path"),
            () if pools.contains(&path) => format!("{text} is listed more than once"),
            () => {
                pools.push(path);
                continue;
            }
        };
        return Err(given.wrong(&problem, DATA_ALLOWED));
    }
    match pools.len() {
        0 => Err(given.wrong(&"it is empty", DATA_ALLOWED)),
        1..=POOLS_MAX => Ok(pools),
        _ => Err(given.wrong(&"it lists too many", &format!("at most {POOLS_MAX} directories"))),
    }
}

fn parse_initialise(given: &Given, pools: &[PathBuf]) -> Result<bool, ConfigError> {
    let text = one_text(given, INITIALISE_ALLOWED)?;
    match text.parse() {
        Ok(true) if pools.is_empty() => Err(given.wrong(&"no data is given", INITIALISE_ALLOWED)),
        Ok(initialise) => Ok(initialise),
        Err(_) => Err(given.wrong(&"it is neither", INITIALISE_ALLOWED)),
    }
}

fn parse_root_secret(given: &Given) -> Result<SecretBytes, ConfigError> {
    let secret = read_secret(given)?;
    let text = std::str::from_utf8(secret.expose());
    let text = text.map_err(|_| given.wrong(&"it is no text", ROOT_SECRET_ALLOWED))?;
    let checked = Secret::new(text).map(drop);
    checked.map_err(|error| given.wrong(&error, ROOT_SECRET_ALLOWED))?;
    Ok(secret)
}
