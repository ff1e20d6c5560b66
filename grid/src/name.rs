//! The name of a server: its base URL, such as `http://10.0.0.1:9000`.
//!
//! Names are compared byte by byte, here and on every other server ([P4], [P10]), so a name with two
//! possible spellings is refused instead of normalised.
//!
//! [P4]: crate::protocol#p4
//! [P10]: crate::protocol#p10

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::NAME_BYTES_MAX;

/// A server's base URL. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The reason why a text is not the name of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("server address {text:?} is malformed: {problem}")]
pub struct NameError {
    text: String,
    problem: &'static str,
}

impl Name {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns host and port as written in the URL, such as `10.0.0.1:9000` or `[::1]:9000`.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }

    /// Returns the host without brackets, and the port: the scheme's default where the URL has
    /// none.
    pub fn host_port(&self) -> (&str, u16) {
        let (host, port) = split_port(self.authority());
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let default = if self.is_secure() { 443 } else { 80 };
        (host, port.and_then(|port| port.parse().ok()).unwrap_or(default))
    }

    /// Whether the transport protects the data: `https://` or `wss://` ([P8]).
    ///
    /// [P8]: crate::protocol#p8
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https://") || self.0.starts_with("wss://")
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match problem(text) {
            Some(problem) => Err(NameError { text: excerpt(text), problem }),
            None => Ok(Self(text.into())),
        }
    }
}

fn problem(text: &str) -> Option<&'static str> {
    if text.len() > NAME_BYTES_MAX {
        return Some("it is longer than 300 bytes");
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return Some("it must be a base URL such as http://10.0.0.1:9000");
    };
    if !["http", "https", "ws", "wss"].contains(&scheme) {
        return Some("its scheme must be http, https, ws or wss");
    }
    if authority.contains(['/', '?', '#']) {
        return Some("it must end after host and port, without a path");
    }
    if authority.contains('@') {
        return Some("it must not hold a user or password");
    }
    let (host, port) = split_port(authority);
    if port
        .is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..)) || port.starts_with(['+', '0']))
    {
        return Some("its port must be a number from 1 to 65535");
    }
    host_problem(host)
}

fn host_problem(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        return Some("it has no host");
    }
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or("");
        let is_canonical =
            address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address);
        return (!is_canonical)
            .then_some("the part in brackets must be an IPv6 address in its shortest form");
    }
    if host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c)) {
        return Some("its host may hold letters, digits, '-', '_' and '.' only");
    }
    if host.contains(|c: char| c.is_ascii_uppercase()) {
        return Some("its host must be in lower case, so that all servers use the same spelling");
    }
    None
}

/// Splits `host:port` at the colon that is not inside brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let host_end = match authority.rfind(']') {
        Some(bracket) => bracket,
        None if authority.starts_with('[') => authority.len(),
        None => 0,
    };
    match authority[host_end..].find(':') {
        Some(colon) => {
            let at = host_end + colon;
            (&authority[..at], Some(&authority[at + 1..]))
        }
        None => (authority, None),
    }
}

/// Returns the part of an untrusted text that an error quotes.
fn excerpt(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b01_base_urls_are_names() {
        for (text, host, port) in [
            ("http://10.0.0.1:9000", "10.0.0.1", 9000),
            ("https://node-1.cluster", "node-1.cluster", 443),
            ("http://[::1]:9000", "::1", 9000),
            ("ws://a", "a", 80),
        ] {
            let name: Name = text.parse().expect(text);
            assert_eq!(name.host_port(), (host, port));
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn b01_a_malformed_address_is_refused_with_its_problem() {
        for (text, problem) in [
            ("", "base URL"),
            ("10.0.0.1:9000", "base URL"),
            ("ftp://a:1", "scheme"),
            ("http://", "no host"),
            ("http://:9000", "no host"),
            ("http://a:9000/", "without a path"),
            ("http://a:9000/minio", "without a path"),
            ("http://a?b", "without a path"),
            ("http://u:p@a:9000", "user"),
            ("http://a:0", "port"),
            ("http://a:65536", "port"),
            ("http://a:", "port"),
            ("http://a:+1", "port"),
            ("http://a b", "letters"),
            ("http://A", "lower case"),
            ("http://[::1", "brackets"),
            ("http://[x]:1", "brackets"),
            ("http://[::1]x:1", "brackets"),
            ("http://[0:0:0:0:0:0:0:1]:1", "shortest form"),
            ("http://[::A]:1", "shortest form"),
            ("http://a:09000", "port"),
        ] {
            let error = text.parse::<Name>().expect_err(text);
            assert!(error.to_string().contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_quotes_a_bounded_part_of_the_text() {
        let error = "x".repeat(1 << 20).parse::<Name>().expect_err("too long");
        assert!(error.to_string().len() < 500);
    }
}
