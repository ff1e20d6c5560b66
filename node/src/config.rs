//! The configuration of `gridwire serve`: flags override the environment, which overrides the file.
//!
//! Each value keeps its origin until it is validated, so that an error can name the value, its
//! origin and what is allowed.

mod error;
mod iam;
mod layers;
mod metrics;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use dsync::limits::{LEASE, LOCKERS_MAX, Limits};
use grid::limits::SERVERS_MAX;
use grid::{Auth, Name};

use crate::cli::ServeArgs;
use crate::secret::{self, SecretBytes};

pub(crate) use self::error::ConfigError;
pub(crate) use self::iam::IamConfig;
use self::layers::{KEYS, Layers, Setting, SettingValue};
pub(crate) use self::metrics::MetricsConfig;

/// A validated configuration.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) name: Name,
    /// All other servers.
    pub(crate) peers: BTreeSet<Name>,
    /// Names for clients, which are not servers of the cluster.
    pub(crate) clients: BTreeSet<Name>,
    /// The servers that grant locks.
    pub(crate) lockers: BTreeSet<Name>,
    /// Time after which a lock expires if its holder no longer refreshes it.
    pub(crate) lock_lease: Duration,
    pub(crate) auth: Auth,
    /// The secret that all servers share.
    pub(crate) secret: SecretBytes,
    pub(crate) metrics: MetricsConfig,
    pub(crate) iam: IamConfig,
}

/// The environment variables of `gridwire serve`.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    KEYS.into_iter().chain(["config"]).map(error::variable)
}

const LISTEN_ALLOWED: &str = "an address and port, such as 0.0.0.0:9000 or [::]:9000";
const NAME_ALLOWED: &str = "a base URL without a path, such as http://10.0.0.1:9000";
const PEERS_ALLOWED: &str =
    "the base URLs of all other servers, each once, such as http://10.0.0.2:9000";
const CLIENTS_ALLOWED: &str = "base URLs that clients use as their names, each once, none of them a \
                              server's, such as http://127.0.0.1:9009";
const LEASE_ALLOWED: &str = "a duration between 100ms and 1day, such as 60s";
const LOCKERS_ALLOWED: &str =
    "at least one of the servers, which are this one and its peers, each once; default all";

impl ServeConfig {
    /// Reads the flags, this process's environment, and the file that either names.
    pub(crate) fn from_process(flags: ServeArgs) -> Result<Self, ConfigError> {
        Self::from_layers(&Layers::read(flags, &|variable| {
            std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
        })?)
    }

    fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let listen = layers.find("listen", LISTEN_ALLOWED)?;
        let name = layers.find("name", NAME_ALLOWED)?;
        let peers = layers.find("peers", PEERS_ALLOWED)?;
        let secret_file = layers.find("secret_file", &secret::allowed())?;
        let listen = parse_listen(listen)?;
        let name = parse_name(name)?;
        let peers = parse_peers(peers, &name)?;
        let servers = peers.iter().chain([&name]).cloned().collect();
        let clients = match layers.find_optional("clients") {
            Some(given) => parse_clients(given, &name, &servers)?,
            None => BTreeSet::new(),
        };
        let lockers = match layers.find_optional("lockers") {
            Some(given) => parse_lockers(given, &servers, &clients)?,
            None => servers,
        };
        if lockers.len() > LOCKERS_MAX {
            let allowed = format!("at most {LOCKERS_MAX} of the {} servers", lockers.len());
            return Err(match layers.find_optional("lockers") {
                Some(given) => given.invalid(&"it lists too many", &allowed),
                None => ConfigError::Missing { key: "lockers", allowed },
            });
        }
        let lock_lease = match layers.find_optional("lock_lease") {
            Some(given) => parse_lease(given)?,
            None => LEASE,
        };
        let secret = read_secret(secret_file)?;
        let auth = Auth::shared_secret(secret.expose());
        let auth = auth.map_err(|error| secret_file.invalid(&error, &secret::allowed()))?;
        let metrics = MetricsConfig::from_layers(layers)?;
        let iam = IamConfig::from_layers(layers, &secret)?;
        Ok(Self { listen, name, peers, clients, lockers, lock_lease, auth, secret, metrics, iam })
    }
}

fn parse_listen(given: &Setting) -> Result<SocketAddr, ConfigError> {
    let text = single_text(given, LISTEN_ALLOWED)?;
    text.parse().map_err(|_| given.invalid(&"it is not an address with a port", LISTEN_ALLOWED))
}

fn parse_name(given: &Setting) -> Result<Name, ConfigError> {
    parse_server(given, single_text(given, NAME_ALLOWED)?, NAME_ALLOWED)
}

fn parse_server(given: &Setting, text: &str, allowed: &str) -> Result<Name, ConfigError> {
    let name: Name = text.parse().map_err(|error| given.invalid(&error, allowed))?;
    match name.is_secure() {
        false => Ok(name),
        true => {
            Err(given.invalid(&format!("{name} needs TLS, which gridwire does not have"), allowed))
        }
    }
}

/// Returns all servers but this one. The list may contain this one once, so that all servers can
/// share one list.
fn parse_peers(given: &Setting, local: &Name) -> Result<BTreeSet<Name>, ConfigError> {
    let mut peers = parse_servers(given, PEERS_ALLOWED)?;
    peers.remove(local);
    match peers.len() < SERVERS_MAX {
        true => Ok(peers),
        false => {
            let count = peers.len();
            let allowed = format!("at most {} other servers", SERVERS_MAX - 1);
            Err(given.invalid(&format!("it lists {count} other servers"), &allowed))
        }
    }
}

/// Parses a list of names, each listed once.
fn parse_servers(given: &Setting, allowed: &str) -> Result<BTreeSet<Name>, ConfigError> {
    let mut names = BTreeSet::new();
    for text in given.list() {
        let name = parse_server(given, text, allowed)?;
        if !names.insert(name.clone()) {
            return Err(given.invalid(&format!("{name} is listed more than once"), allowed));
        }
    }
    Ok(names)
}

/// Client names must not be server names: a tool under a server's name would receive that server's
/// calls, and its exit would look like the server's failure.
fn parse_clients(
    given: &Setting,
    local: &Name,
    servers: &BTreeSet<Name>,
) -> Result<BTreeSet<Name>, ConfigError> {
    let clients = parse_servers(given, CLIENTS_ALLOWED)?;
    if let Some(server) = clients.intersection(servers).next() {
        let problem = match server == local {
            true => format!("{server} is this server itself"),
            false => format!("{server} is among the peers too"),
        };
        return Err(given.invalid(&problem, CLIENTS_ALLOWED));
    }
    let count = servers.len() + clients.len();
    match count <= SERVERS_MAX {
        true => Ok(clients),
        false => {
            let problem = format!("there are {count} servers and clients in total");
            let allowed = format!("a list with at most {SERVERS_MAX} servers and clients in total");
            Err(given.invalid(&problem, &allowed))
        }
    }
}

fn parse_lockers(
    given: &Setting,
    servers: &BTreeSet<Name>,
    clients: &BTreeSet<Name>,
) -> Result<BTreeSet<Name>, ConfigError> {
    let lockers = parse_servers(given, LOCKERS_ALLOWED)?;
    let problem = match lockers.difference(servers).next() {
        Some(client) if clients.contains(client) => format!("{client} is a client"),
        Some(unknown) => format!("{unknown} is not a server of this cluster"),
        None if lockers.is_empty() => "it is empty".to_owned(),
        None => return Ok(lockers),
    };
    Err(given.invalid(&problem, LOCKERS_ALLOWED))
}

fn parse_lease(given: &Setting) -> Result<Duration, ConfigError> {
    let text = single_text(given, LEASE_ALLOWED)?;
    let lease =
        humantime::parse_duration(text).map_err(|error| given.invalid(&error, LEASE_ALLOWED))?;
    let checked = Limits::with_lease(lease).check();
    checked.map(|()| lease).map_err(|error| given.invalid(&error, LEASE_ALLOWED))
}

fn read_secret(given: &Setting) -> Result<SecretBytes, ConfigError> {
    let allowed = secret::allowed();
    let path = single_text(given, &allowed)?;
    secret::read(Path::new(path)).map_err(|problem| given.invalid(&problem, &allowed))
}

fn single_text<'a>(given: &'a Setting, allowed: &str) -> Result<&'a str, ConfigError> {
    match &given.value {
        SettingValue::Text(text) if text.is_empty() => Err(given.invalid(&"it is empty", allowed)),
        SettingValue::Text(text) => Ok(text),
        SettingValue::List(_) => Err(given.invalid(&"it is a list", allowed)),
    }
}

#[cfg(test)]
mod tests;
