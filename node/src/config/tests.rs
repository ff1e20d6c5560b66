//! Which layer wins, and the defaults. The table of invalid values is in `tests/configuration.rs`,
//! which tests the process.

use std::path::PathBuf;

use resource_metrics::Drives;

use super::*;
use crate::metrics_access::Access;

/// A temporary file, removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gridwire-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("the temporary directory is writable");
        Self(path)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn resolve(flags: ServeArgs, environment: &[(&str, String)]) -> Result<ServeConfig, ConfigError> {
    ServeConfig::from_layers(&Layers::read(flags, &|variable| {
        environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| value.clone())
    })?)
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let secret = File::new("secret", "a good secret\n");
    let toml = format!(
        "listen = '127.0.0.1:1'\nname = 'http://file:1'\npeers = ['http://a:1', 'http://b:1']\n\
         secret_file = '{}'\n",
        secret.path()
    );
    let file = File::new("layers.toml", &toml);
    let flags = ServeArgs { listen: Some("127.0.0.1:3".into()), ..ServeArgs::default() };
    let environment = [
        ("GRIDWIRE_LISTEN", "127.0.0.1:2".to_owned()),
        ("GRIDWIRE_NAME", "http://env:2".to_owned()),
        ("GRIDWIRE_CONFIG", file.path()),
    ];
    let config = resolve(flags, &environment).expect("every required key is set");
    assert_eq!(config.listen.port(), 3, "from the flag");
    assert_eq!(config.name.as_str(), "http://env:2", "from the environment");
    let peers: Vec<_> = config.peers.iter().map(Name::as_str).collect();
    assert_eq!(peers, ["http://a:1", "http://b:1"], "from the file");
}

#[test]
fn peers_may_list_this_server_but_no_name_twice() {
    let secret = File::new("secret-peers", "a good secret");
    let with_peers = |peers: &str| {
        let flags = ServeArgs {
            listen: Some("127.0.0.1:1".into()),
            name: Some("http://me:1".into()),
            peers: Some(peers.into()),
            secret_file: Some(secret.path()),
            ..ServeArgs::default()
        };
        resolve(flags, &[]).map(|config| config.peers.len())
    };
    assert_eq!(with_peers("http://me:1,http://a:1").expect("itself once"), 1);
    assert_eq!(with_peers("http://a:1, http://b:1").expect("spaces are fine"), 2);
    assert_eq!(with_peers("").expect("a single server"), 0);
    with_peers("http://a:1,http://a:1").expect_err("a twice");
    with_peers("http://me:1,http://me:1").expect_err("itself twice");
    with_peers("http://a:1,").expect_err("an empty name");
}

/// The clients and lockers of a server `me` with the peers `a` and `b`.
fn members(rest: &str) -> Result<[Vec<String>; 2], ConfigError> {
    let secret = File::new(&format!("secret-{}", rest.len()), "a good secret");
    let toml = format!(
        "listen = '127.0.0.1:1'\nname = 'http://me:1'\npeers = ['http://a:1', 'http://b:1']\n\
         secret_file = '{}'\n{rest}",
        secret.path()
    );
    let file = File::new(&format!("members-{}.toml", rest.len()), &toml);
    let config = resolve(ServeArgs::default(), &[("GRIDWIRE_CONFIG", file.path())])?;
    assert_eq!(config.peers.len(), 2, "neither changes the peers");
    Ok([config.clients, config.lockers].map(|names| names.iter().map(Name::to_string).collect()))
}

#[test]
fn no_clients_and_all_servers_are_lockers_by_default() {
    let [clients, lockers] = members("").expect("both are optional");
    assert_eq!(clients, [""; 0]);
    assert_eq!(lockers, ["http://a:1", "http://b:1", "http://me:1"]);
    let given = "clients = ['http://g:1']\nlockers = 'http://me:1,http://a:1'";
    let [clients, lockers] = members(given).expect("both are valid");
    assert_eq!(clients, ["http://g:1"]);
    assert_eq!(lockers, ["http://a:1", "http://me:1"]);
    members("clients = []").expect("an empty list is valid");
}

/// The metrics settings of a server `me` with these additional lines.
fn metrics(rest: &str) -> Result<MetricsConfig, ConfigError> {
    let secret = File::new("secret-metrics", "a good secret");
    let toml = format!(
        "listen = '127.0.0.1:1'\nname = 'http://me:1'\npeers = []\nsecret_file = '{}'\n{rest}",
        secret.path()
    );
    let file = File::new("metrics.toml", &toml);
    Ok(resolve(ServeArgs::default(), &[("GRIDWIRE_CONFIG", file.path())])?.metrics)
}

#[test]
fn b71_metrics_are_forbidden_and_all_mounted_drives_are_sampled_by_default() {
    let defaults = metrics("").expect("all are optional");
    assert_eq!((defaults.access, defaults.drives), (Access::Forbidden, Drives::Mounted));
    assert_eq!(defaults.interval, Duration::from_secs(60));
    let given = "metrics_public = true\ndrives = ['/a', '/b']\nmetrics_interval = '5s'";
    let given = metrics(given).expect("all are valid");
    let drives = ["/a", "/b"].map(PathBuf::from).into();
    assert_eq!((given.access, given.drives), (Access::Public, Drives::Directories(drives)));
    assert_eq!(given.interval, Duration::from_secs(5));
    assert_eq!(metrics("drives = ''").expect("none").drives, Drives::Directories(Vec::new()));
    assert_eq!(metrics("metrics_public = false").expect("not").access, Access::Forbidden);
    let token = File::new("token", "0123456789abcdef\n");
    let with_token = format!("metrics_token_file = '{}'\n", token.path());
    let access = metrics(&with_token).expect("a good token").access;
    assert_eq!(access, Access::token("0123456789abcdef"));
    metrics(&format!("{with_token}metrics_public = true")).expect_err("public and not");
}
