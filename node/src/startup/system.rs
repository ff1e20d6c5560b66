//! The configuration that servers compare before they serve ([B60]): the effective settings, and
//! the variables of the environment that are not settings of `gridwire serve`.
//!
//! [B60]: iam_bootstrap::rules#b60

use std::fs::File;
use std::io;

use iam_bootstrap::system::config::checksum;
use iam_bootstrap::{HashKey, SystemConfig};
use sha2::{Digest, Sha256};

use crate::config::{self, ServeConfig};

/// Prefix of the environment variables that are compared.
const PREFIX: &str = "GRIDWIRE_";

/// Variables of tools and builds, which no server reads. They may be set in the shell that starts a
/// server, so they are not compared.
const TOOL_VARIABLES: [&str; 7] = [
    "GRIDWIRE_COMMIT",
    "GRIDWIRE_SERVER",
    "GRIDWIRE_ACCESS_KEY",
    "GRIDWIRE_ACCESS_SECRET_FILE",
    "GRIDWIRE_LOCK_RESOURCES",
    "GRIDWIRE_LOCK_TOKEN",
    "GRIDWIRE_LOCK_UID",
];

/// Collects the configuration of this process. Blocks: it reads the whole executable.
pub(crate) fn collect(config: &ServeConfig) -> io::Result<SystemConfig> {
    let hash_key = HashKey::from_shared_secret(config.secret.expose());
    let exempt = config::variables().chain(TOOL_VARIABLES.map(str::to_owned));
    let variables = std::env::vars_os().map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    });
    // A digest, because this copy is not wiped from memory.
    let root_secret = format!("{:x}", Sha256::digest(config.iam.root_secret.expose()));
    let lockers: Vec<_> = config.lockers.iter().map(ToString::to_string).collect();
    let arguments = [
        format!("--lockers={}", lockers.join(",")),
        format!("--lock-lease={}", humantime::format_duration(config.lock_lease)),
        format!("--root-user={}", config.iam.root_user),
        format!("--root-secret={root_secret}"),
    ];
    let mut servers: Vec<_> =
        config.peers.iter().chain([&config.name]).map(ToString::to_string).collect();
    servers.sort_unstable();
    let checksum = checksum(File::open(std::env::current_exe()?)?)?;
    Ok(SystemConfig::collect(&hash_key)
        .endpoints(servers)
        .secret_options(["--root-secret"])
        .exempt(exempt)
        .arguments(arguments)
        .environment(PREFIX, variables)
        .program(env!("CARGO_PKG_VERSION"), &checksum)
        .finish())
}
