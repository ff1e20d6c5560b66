//! Configuration that a server reports to its peers.

use std::collections::BTreeMap;
use std::io::{self, Read};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::HashKey;
use crate::limits::{CONFIG_ITEMS_MAX, CONFIG_TEXT_BYTES_MAX};

/// The configuration of one server, as reported to its peers. Values of the environment, and of
/// secret arguments, are included as hashes only.
///
/// It is extensible: an unknown field is skipped, a missing one is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemConfig {
    /// All endpoints of the cluster, in order.
    pub endpoints: Vec<String>,
    /// Command line arguments, except those that may differ.
    pub arguments: Vec<String>,
    /// Hashes of the environment variables' values, by name.
    pub environment: BTreeMap<String, String>,
    /// Version of the program.
    pub version: String,
    /// SHA-256 of the program, in hexadecimal digits.
    pub checksum: String,
}

impl SystemConfig {
    /// Returns a collector. `hash_key` is the same on all servers of the cluster.
    pub fn collect(hash_key: &HashKey) -> ConfigCollector<'_> {
        ConfigCollector {
            hash_key,
            config: Self::default(),
            secret: Vec::new(),
            exempt: Vec::new(),
        }
    }

    /// Returns a digest that is equal exactly if the parts are equal that all servers
    /// [must](super::ConfigPart::is_required) have in common.
    pub fn required_digest(&self) -> String {
        let Self { endpoints, arguments, .. } = self.clone();
        Self { endpoints, arguments, ..Self::default() }.digest()
    }

    /// Returns a digest that is equal exactly for equal configurations.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text);
        };
        for list in [&self.endpoints, &self.arguments] {
            add(&list.len().to_string());
            list.iter().for_each(|text| add(text));
        }
        for (name, value) in &self.environment {
            add(name);
            add(value);
        }
        add(&self.version);
        add(&self.checksum);
        HEXLOWER.encode(&hash.finalize())
    }

    /// Checks the size of a configuration that a peer sent, before it is compared.
    ///
    /// # Errors
    ///
    /// What is too large, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        let counts = [self.endpoints.len(), self.arguments.len(), self.environment.len()];
        if counts.into_iter().any(|count| count > CONFIG_ITEMS_MAX) {
            return Err(format!("a configuration may have {CONFIG_ITEMS_MAX} items of a kind"));
        }
        let lists = self.endpoints.iter().chain(&self.arguments);
        let environment = self.environment.iter().flat_map(|(name, value)| [name, value]);
        let mut texts = lists.chain(environment).chain([&self.version, &self.checksum]);
        match texts.any(|text| text.len() > CONFIG_TEXT_BYTES_MAX) {
            true => Err(format!("its texts may have {CONFIG_TEXT_BYTES_MAX} bytes each")),
            false => Ok(()),
        }
    }
}

/// Collects a [`SystemConfig`]. All values are passed in; nothing is read from the process.
#[derive(Debug)]
pub struct ConfigCollector<'a> {
    hash_key: &'a HashKey,
    config: SystemConfig,
    secret: Vec<String>,
    exempt: Vec<String>,
}

impl ConfigCollector<'_> {
    /// Sets the endpoints of the cluster, in order.
    #[must_use]
    pub fn endpoints<I: IntoIterator<Item: Into<String>>>(mut self, endpoints: I) -> Self {
        self.config.endpoints = endpoints.into_iter().map(Into::into).map(shorten).collect();
        self
    }

    /// Sets options whose values are secret, such as `--secret`. Must be called before `arguments`.
    #[must_use]
    pub fn secret_options<I: IntoIterator<Item: Into<String>>>(mut self, names: I) -> Self {
        self.secret = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets options with a value, and variables, that are not compared because each server has its
    /// own. Must be called before `arguments` and `environment`.
    #[must_use]
    pub fn exempt<I: IntoIterator<Item: Into<String>>>(mut self, names: I) -> Self {
        self.exempt = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds the command line, without the program: settings that must be the same on all servers. A secret or exempt option has its value as
    /// `--name=value` or as the next argument.
    #[must_use]
    pub fn arguments<I: IntoIterator<Item: Into<String>>>(mut self, arguments: I) -> Self {
        let mut arguments = arguments.into_iter().map(Into::into);
        while let Some(argument) = arguments.next() {
            let name = argument.split_once('=').map_or(argument.as_str(), |(name, _)| name);
            let is_exempt = self.exempt.iter().any(|exempt| exempt == name);
            if !is_exempt && !self.secret.iter().any(|secret| secret == name) {
                self.config.arguments.push(shorten(argument));
                continue;
            }
            let value = match argument.split_once('=') {
                Some((_, value)) => value.to_owned(),
                None => arguments.next().unwrap_or_default(),
            };
            if !is_exempt {
                let hash = self.hash_key.hash(name, &value);
                self.config.arguments.push(format!("{name}={hash}"));
            }
        }
        self
    }

    /// Adds the environment variables whose names begin with `prefix`.
    #[must_use]
    pub fn environment<I, K, V>(mut self, prefix: &str, variables: I) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<str>,
        V: AsRef<str>,
    {
        for (name, value) in variables {
            let (name, value) = (name.as_ref(), value.as_ref());
            if name.starts_with(prefix) && !self.exempt.iter().any(|exempt| exempt == name) {
                let hash = self.hash_key.hash(name, value);
                self.config.environment.insert(shorten(name.to_owned()), hash);
            }
        }
        self
    }

    /// Sets the program's version, and its [`checksum`].
    #[must_use]
    pub fn program(mut self, version: &str, checksum: &str) -> Self {
        self.config.version = version.to_owned();
        self.config.checksum = checksum.to_owned();
        self
    }

    /// Returns the collected configuration.
    pub fn finish(self) -> SystemConfig {
        self.config
    }
}

/// Returns the SHA-256 of a program, in hexadecimal digits. Blocks.
///
/// # Errors
///
/// Errors of reading it.
pub fn checksum(mut program: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match program.read(&mut buffer)? {
            0 => return Ok(HEXLOWER.encode(&hash.finalize())),
            bytes => hash.update(buffer.get(..bytes).unwrap_or_default()),
        }
    }
}

/// Shortens a text to the length that peers accept: a longer one to its beginning and hash.
fn shorten(text: String) -> String {
    if text.len() <= CONFIG_TEXT_BYTES_MAX {
        return text;
    }
    let hash = HEXLOWER.encode(&Sha256::digest(&text));
    let mut beginning = CONFIG_TEXT_BYTES_MAX / 2;
    while !text.is_char_boundary(beginning) {
        debug_assert!(beginning > 0, "every text has a character boundary at 0");
        beginning -= 1;
    }
    format!("{}… sha256:{hash}", text.get(..beginning).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b60_secrets_are_collected_as_hashes_and_exempt_values_are_omitted() {
        let hash_key = HashKey::from_shared_secret(b"what all servers know");
        let collect = |arguments: &[&str]| {
            SystemConfig::collect(&hash_key)
                .endpoints(["http://a:1", "http://b:1"])
                .secret_options(["--secret"])
                .exempt(["--listen", "NODE_HOME"])
                .arguments(arguments.iter().copied())
                .environment(
                    "NODE_",
                    [("NODE_KEY", "hunter2"), ("NODE_HOME", "/home"), ("PATH", "/bin")],
                )
                .program("1.0", "abc")
                .finish()
        };
        let config = collect(&["serve", "--listen", ":1", "--secret", "hunter2", "--dir=/d"]);
        assert_eq!(config, collect(&["serve", "--listen=:2", "--secret=hunter2", "--dir=/d"]));
        assert_ne!(config, collect(&["serve", "--secret=hunter3", "--dir=/d"]));
        assert_eq!(config.arguments.len(), 3);
        assert_eq!(config.environment.keys().collect::<Vec<_>>(), ["NODE_KEY"]);
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.check(), Ok(()));
        let long = collect(&["é".repeat(2_000).as_str()]);
        assert_eq!(long.check(), Ok(()));
        assert_ne!(long, collect(&["é".repeat(2_001).as_str()]));
    }

    #[test]
    fn b60_configuration_of_a_newer_or_older_server_is_decoded() {
        #[derive(Serialize)]
        struct Newer {
            version: &'static str,
            region: &'static str,
        }
        let bytes = rmp_serde::to_vec_named(&Newer { version: "2.0", region: "x" });
        let config: SystemConfig =
            rmp_serde::from_slice(&bytes.expect("encodes")).expect("decodes");
        assert_eq!(config, SystemConfig { version: "2.0".to_owned(), ..SystemConfig::default() });
    }

    #[test]
    fn b60_digests_differ_if_configurations_do() {
        let of = |endpoints: &[&str], arguments: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            let (endpoints, arguments) = (texts(endpoints), texts(arguments));
            SystemConfig { endpoints, arguments, ..SystemConfig::default() }.digest()
        };
        assert_eq!(of(&["a"], &["b"]), of(&["a"], &["b"]));
        assert_ne!(of(&["a"], &["b"]), of(&["a", "b"], &[]));
        assert_ne!(of(&["ab"], &[]), of(&["a", "b"], &[]));
        let sum = checksum(&b"abc"[..]).expect("reads");
        assert!(sum.starts_with("ba7816bf8f01cfea414140de5dae2223"), "{sum}");
    }
}
