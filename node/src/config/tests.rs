//! Which layer wins, and what an error says. The table of wrong values is in
//! `tests/configuration.rs`, where the process is what is tested.

use std::path::PathBuf;

use super::*;

/// A file of this process, gone with the value.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("node-{}-{name}", std::process::id()));
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
        ("NODE_LISTEN", "127.0.0.1:2".to_owned()),
        ("NODE_NAME", "http://env:2".to_owned()),
        ("NODE_CONFIG", file.path()),
    ];
    let config = resolve(flags, &environment).expect("all is given");
    assert_eq!(config.listen.port(), 3, "from the flag");
    assert_eq!(config.name.as_str(), "http://env:2", "from the environment");
    let peers: Vec<_> = config.peers.iter().map(Name::as_str).collect();
    assert_eq!(peers, ["http://a:1", "http://b:1"], "from the file");
}

#[test]
fn peers_may_list_this_server_too_but_nobody_twice() {
    let secret = File::new("secret-peers", "a good secret");
    let with_peers = |peers: &str| {
        let flags = ServeArgs {
            listen: Some("127.0.0.1:1".into()),
            name: Some("http://me:1".into()),
            peers: Some(peers.into()),
            secret_file: Some(secret.path()),
            config: None,
        };
        resolve(flags, &[]).map(|config| config.peers.len())
    };
    assert_eq!(with_peers("http://me:1,http://a:1").expect("itself once"), 1);
    assert_eq!(with_peers("http://a:1, http://b:1").expect("spaces are fine"), 2);
    assert_eq!(with_peers("").expect("a server on its own"), 0);
    with_peers("http://a:1,http://a:1").expect_err("a twice");
    with_peers("http://me:1,http://me:1").expect_err("itself twice");
    with_peers("http://a:1,").expect_err("an empty name");
}
