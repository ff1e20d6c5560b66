//! What `gridwire serve` runs with: flags win over the environment, which wins over the file.
//!
//! A value is kept with where it came from until it is known to be right, so that an error can say
//! what is wrong, where, and what would be allowed.

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
use self::layers::{Given, KEYS, Layers, Value};
pub(crate) use self::metrics::MetricsConfig;

/// A configuration that is known to be well-formed.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) name: Name,
    /// All other servers.
    pub(crate) peers: BTreeSet<Name>,
    /// Names that tools may take: no servers, and counted nowhere.
    pub(crate) clients: BTreeSet<Name>,
    /// The servers that grant locks.
    pub(crate) lockers: BTreeSet<Name>,
    /// How long a lock outlives a holder that nobody hears of.
    pub(crate) lock_lease: Duration,
    pub(crate) auth: Auth,
    /// What all servers know.
    pub(crate) secret: SecretBytes,
    pub(crate) metrics: MetricsConfig,
    pub(crate) iam: IamConfig,
}

/// The variables that are settings of `gridwire serve`.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    KEYS.into_iter().chain(["config"]).map(error::variable)
}

const LISTEN_ALLOWED: &str = "an address and port, such as 0.0.0.0:9000 or [::]:9000";
const NAME_ALLOWED: &str = "a base URL without a path, such as http://10.0.0.1:9000";
const PEERS_ALLOWED: &str =
    "the base URLs of all other servers, each once, such as http://10.0.0.2:9000";
const CLIENTS_ALLOWED: &str = "base URLs that tools may take as their names, each once, none of them a \
                              server's, such as http://127.0.0.1:9009";
const LEASE_ALLOWED: &str = "a duration between 100ms and 1day, such as 60s";
const LOCKERS_ALLOWED: &str =
    "at least one of the servers, which are this one and its peers, each once; all unless given";

impl ServeConfig {
    /// From the flags, this process's environment, and the file that either names.
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
                Some(given) => given.wrong(&"it lists too many", &allowed),
                None => ConfigError::Missing { key: "lockers", allowed },
            });
        }
        let lock_lease = match layers.find_optional("lock_lease") {
            Some(given) => parse_lease(given)?,
            None => LEASE,
        };
        let secret = read_secret(secret_file)?;
        let auth = Auth::shared_secret(secret.expose());
        let auth = auth.map_err(|error| secret_file.wrong(&error, &secret::allowed()))?;
        let metrics = MetricsConfig::from_layers(layers)?;
        let iam = IamConfig::from_layers(layers, &secret)?;
        Ok(Self { listen, name, peers, clients, lockers, lock_lease, auth, secret, metrics, iam })
    }
}

fn parse_listen(given: &Given) -> Result<SocketAddr, ConfigError> {
    let text = one_text(given, LISTEN_ALLOWED)?;
    text.parse().map_err(|_| given.wrong(&"it is no address with a port", LISTEN_ALLOWED))
}

fn parse_name(given: &Given) -> Result<Name, ConfigError> {
    parse_server(given, one_text(given, NAME_ALLOWED)?, NAME_ALLOWED)
}

fn parse_server(given: &Given, text: &str, allowed: &str) -> Result<Name, ConfigError> {
    let name: Name = text.parse().map_err(|error| given.wrong(&error, allowed))?;
    match name.is_secure() {
        false => Ok(name),
        true => Err(given.wrong(&format!("{name} needs TLS, which gridwire does not have"), allowed)),
    }
}

/// All servers but this one. Listing this one too, once, lets all servers share one list.
fn parse_peers(given: &Given, local: &Name) -> Result<BTreeSet<Name>, ConfigError> {
    let mut peers = parse_servers(given, PEERS_ALLOWED)?;
    peers.remove(local);
    match peers.len() < SERVERS_MAX {
        true => Ok(peers),
        false => {
            let count = peers.len();
            let allowed = format!("at most {} other servers", SERVERS_MAX - 1);
            Err(given.wrong(&format!("it lists {count} other servers"), &allowed))
        }
    }
}

/// Each once.
fn parse_servers(given: &Given, allowed: &str) -> Result<BTreeSet<Name>, ConfigError> {
    let mut names = BTreeSet::new();
    for text in given.list() {
        let name = parse_server(given, text, allowed)?;
        if !names.insert(name.clone()) {
            return Err(given.wrong(&format!("{name} is listed more than once"), allowed));
        }
    }
    Ok(names)
}

/// A tool that took the name of a server would be called as one, and taken for its loss.
fn parse_clients(
    given: &Given,
    local: &Name,
    servers: &BTreeSet<Name>,
) -> Result<BTreeSet<Name>, ConfigError> {
    let clients = parse_servers(given, CLIENTS_ALLOWED)?;
    if let Some(server) = clients.intersection(servers).next() {
        let problem = match server == local {
            true => format!("{server} is this server itself"),
            false => format!("{server} is among the peers too"),
        };
        return Err(given.wrong(&problem, CLIENTS_ALLOWED));
    }
    let count = servers.len() + clients.len();
    match count <= SERVERS_MAX {
        true => Ok(clients),
        false => {
            let problem = format!("with it there are {count} servers and clients");
            let allowed = format!("so short that there are at most {SERVERS_MAX} of both");
            Err(given.wrong(&problem, &allowed))
        }
    }
}

fn parse_lockers(
    given: &Given,
    servers: &BTreeSet<Name>,
    clients: &BTreeSet<Name>,
) -> Result<BTreeSet<Name>, ConfigError> {
    let lockers = parse_servers(given, LOCKERS_ALLOWED)?;
    let problem = match lockers.difference(servers).next() {
        Some(client) if clients.contains(client) => format!("{client} is a client"),
        Some(stranger) => format!("{stranger} is no server that is known here"),
        None if lockers.is_empty() => "it is empty".to_owned(),
        None => return Ok(lockers),
    };
    Err(given.wrong(&problem, LOCKERS_ALLOWED))
}

fn parse_lease(given: &Given) -> Result<Duration, ConfigError> {
    let text = one_text(given, LEASE_ALLOWED)?;
    let lease =
        humantime::parse_duration(text).map_err(|error| given.wrong(&error, LEASE_ALLOWED))?;
    let checked = Limits::with_lease(lease).check();
    checked.map(|()| lease).map_err(|error| given.wrong(&error, LEASE_ALLOWED))
}

fn read_secret(given: &Given) -> Result<SecretBytes, ConfigError> {
    let allowed = secret::allowed();
    let path = one_text(given, &allowed)?;
    secret::read(Path::new(path)).map_err(|problem| given.wrong(&problem, &allowed))
}

fn one_text<'a>(given: &'a Given, allowed: &str) -> Result<&'a str, ConfigError> {
    match &given.value {
        Value::Text(text) if text.is_empty() => Err(given.wrong(&"it is empty", allowed)),
        Value::Text(text) => Ok(text),
        Value::List(_) => Err(given.wrong(&"it is a list", allowed)),
    }
}

#[cfg(test)]
mod tests;
