//! The first two messages of a connection: the dialer's Connect and the acceptor's ConnectResponse
//! ([P4], [P10], [P11]).
//!
//! Pure: it encodes, parses and checks. `net` does the rest: sockets, timeouts and
//! the preceding HTTP upgrade.
//!
//! [P4]: crate::protocol#p4
//! [P10]: crate::protocol#p10
//! [P11]: crate::protocol#p11

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::message::{Checksum, Header, Message, Op, Outgoing, ParseError};
use crate::limits::{NAME_BYTES_MAX, REASON_BYTES_MAX};
use crate::name::Name;
use crate::time::Timestamp;

/// The id of a manager instance: drawn at random when the manager is built, so that a peer can
/// distinguish the same process from a restarted one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(#[serde(with = "serde_bytes")] [u8; 16]);

impl InstanceId {
    /// Creates an id from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The one of two servers that opens the connection between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialer {
    /// This server.
    Local,
    /// The other server.
    Remote,
}

impl Dialer {
    /// Decides the dial direction; both ends reach the same result ([P4]).
    ///
    /// [P4]: crate::protocol#p4
    pub fn between(local: &Name, remote: &Name) -> Self {
        let (local, remote) = (local.as_str(), remote.as_str());
        let outward = xxh3_64(format!("{local}{remote}").as_bytes());
        let inward = xxh3_64(format!("{remote}{local}").as_bytes());
        match outward.cmp(&inward).then_with(|| local.cmp(remote)) {
            std::cmp::Ordering::Less => Self::Local,
            _ => Self::Remote,
        }
    }
}

/// Payload of Connect: the dialer introduces itself ([P10]).
///
/// [P10]: crate::protocol#p10
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectRequest {
    /// Instance of the dialing manager.
    #[serde(rename = "ID")]
    pub id: InstanceId,
    /// Name of the dialer.
    #[serde(rename = "Host")]
    pub host: String,
    /// Wall clock of the dialer.
    #[serde(rename = "Time")]
    pub time: Timestamp,
    /// Proof that the dialer is a member of the cluster.
    #[serde(rename = "Token")]
    pub token: String,
}

/// Payload of ConnectResponse: acceptance or rejection ([P11]).
///
/// [P11]: crate::protocol#p11
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectResponse {
    /// Instance of the accepting manager.
    #[serde(rename = "ID")]
    pub id: InstanceId,
    /// Whether the connection is accepted.
    #[serde(rename = "Accepted")]
    pub accepted: bool,
    /// Reason of a rejection; empty if accepted.
    #[serde(rename = "RejectedReason", default)]
    pub rejected_reason: String,
}

/// The reason why a message is not the one that a handshake expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The bytes are not a message.
    #[error("malformed message: {0}")]
    Parse(#[from] ParseError),
    /// The message has another op.
    #[error("expected op {expected:?}, got {got:?}")]
    UnexpectedOp {
        /// The expected op.
        expected: Op,
        /// The received op.
        got: Op,
    },
    /// The payload does not decode.
    #[error("malformed {op:?}: {cause}")]
    Payload {
        /// The op of the message.
        op: Op,
        /// The decoder's error.
        cause: String,
    },
    /// The payload could not be encoded.
    #[error("cannot encode {op:?}: {cause}")]
    Encode {
        /// The op of the message.
        op: Op,
        /// The encoder's error.
        cause: String,
    },
}

impl ConnectRequest {
    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Encode`], which no known input causes.
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        encode(Op::Connect, self)
    }

    /// Parses a received message.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] for anything but a Connect.
    pub fn parse(frame: &Bytes) -> Result<Self, HandshakeError> {
        parse(Op::Connect, frame)
    }
}

impl ConnectResponse {
    /// Creates the response that accepts the connection.
    pub fn accepted(id: InstanceId) -> Self {
        Self { id, accepted: true, rejected_reason: String::new() }
    }

    /// Creates the response that rejects the connection, with the reason that the dialer logs.
    pub fn rejected(id: InstanceId, reason: impl Into<String>) -> Self {
        Self { id, accepted: false, rejected_reason: reason.into() }
    }

    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Encode`], which no known input causes.
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        encode(Op::ConnectResponse, self)
    }

    /// Parses a received message. The reason is cut to [`REASON_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] for anything but a ConnectResponse.
    pub fn parse(frame: &Bytes) -> Result<Self, HandshakeError> {
        let mut response: Self = parse(Op::ConnectResponse, frame)?;
        let cut = response.rejected_reason.floor_char_boundary(REASON_BYTES_MAX);
        response.rejected_reason.truncate(cut);
        Ok(response)
    }
}

fn encode<T: Serialize>(op: Op, payload: &T) -> Result<Vec<u8>, HandshakeError> {
    let payload = rmp_serde::to_vec_named(payload)
        .map_err(|error| HandshakeError::Encode { op, cause: error.to_string() })?;
    let message = Outgoing {
        header: Header::new(0, op),
        payload: &payload,
        subroute: None,
        checksum: Checksum::Off, // P10, P12: a handshake message never has one
    };
    let mut bytes = Vec::with_capacity(message.encoded_len());
    message.encode(&mut bytes);
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(expected: Op, frame: &Bytes) -> Result<T, HandshakeError> {
    let message = Message::parse(frame)?;
    let got = message.header.op;
    if got != expected {
        return Err(HandshakeError::UnexpectedOp { expected, got });
    }
    rmp_serde::from_slice(&message.payload)
        .map_err(|error| HandshakeError::Payload { op: expected, cause: error.to_string() })
}

/// The reason for refusing a dial. Its text is sent to the dialer ([B02], [P11]).
///
/// [B02]: crate::rules#b02
/// [P11]: crate::protocol#p11
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The first message was not a Connect.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The dialer is not a server of this cluster.
    #[error("unknown incoming host: {host:?} is not a server of this cluster")]
    UnknownHost {
        /// The name that the dialer gave.
        host: String,
    },
    /// The clocks differ too much.
    #[error(
        "time difference too large: the clocks of {host} and {local} differ by {skew:?}, {max:?} are allowed"
    )]
    ClockSkew {
        /// Name of the dialer.
        host: Name,
        /// Name of this server.
        local: Name,
        /// Difference of the clocks.
        skew: Duration,
        /// Allowed difference.
        max: Duration,
    },
    /// The token was not accepted.
    #[error("auth token: {reason}")]
    Token {
        /// The error of the application's check.
        reason: String,
    },
    /// The dialer meant another server.
    #[error("wrong host: {dialed:?} was dialled, but this is {local}")]
    WrongHost {
        /// The host named in the upgrade request.
        dialed: String,
        /// Name of this server.
        local: Name,
    },
    /// The connection must be opened from this side.
    #[error("wrong direction: {local} dials {host}, not the other way round")]
    WrongDirection {
        /// Name of the dialer.
        host: Name,
        /// Name of this server.
        local: Name,
    },
    /// Too many connections of this host wait to be admitted.
    #[error("too many connections from {host} at once")]
    TooMany {
        /// Name of the dialer.
        host: Name,
    },
    /// The manager was not started yet.
    #[error("this server is not ready yet")]
    NotReady,
    /// The manager is shutting down.
    #[error("this server is shutting down")]
    Shutdown,
}

/// The acceptor's side of the handshake: the facts that a dial is checked against.
pub struct Acceptor<'a> {
    /// Name of this server.
    pub local: &'a Name,
    /// Lookup of a host among the cluster's remotes.
    pub find_remote: &'a dyn Fn(&str) -> Option<Name>,
    /// The application's check of a token.
    pub check_token: &'a dyn Fn(&str) -> Result<(), String>,
    /// Wall clock of this server.
    pub now: Timestamp,
    /// Largest allowed difference of the clocks.
    pub clock_skew_max: Duration,
    /// The host that the dialer named in its upgrade request, if known.
    pub dialed_host: Option<&'a str>,
}

impl Acceptor<'_> {
    /// Checks a first message, in the order of [P11].
    ///
    /// # Errors
    ///
    /// [`Refusal`], whose text goes into the response.
    ///
    /// [P11]: crate::protocol#p11
    pub fn check(&self, frame: &Bytes) -> Result<(Name, ConnectRequest), Refusal> {
        let request = ConnectRequest::parse(frame)?;
        let Some(host) = (self.find_remote)(&request.host) else {
            let cut = request.host.floor_char_boundary(NAME_BYTES_MAX);
            return Err(Refusal::UnknownHost { host: request.host[..cut].to_owned() });
        };
        let local = self.local.clone();
        let skew = self.now.abs_diff(request.time);
        if skew > self.clock_skew_max {
            return Err(Refusal::ClockSkew { host, local, skew, max: self.clock_skew_max });
        }
        (self.check_token)(&request.token).map_err(|reason| Refusal::Token { reason })?;
        if let Some(dialed) = self.dialed_host.filter(|dialed| !self.is_local(dialed)) {
            let cut = dialed.floor_char_boundary(NAME_BYTES_MAX);
            return Err(Refusal::WrongHost { dialed: dialed[..cut].to_owned(), local });
        }
        if Dialer::between(&local, &host) == Dialer::Local {
            return Err(Refusal::WrongDirection { host, local });
        }
        Ok((host, request))
    }

    /// Whether a host of an upgrade request is this server. The default port may be omitted.
    fn is_local(&self, dialed: &str) -> bool {
        let scheme = if self.local.is_secure() { "https" } else { "http" };
        format!("{scheme}://{}", dialed.to_ascii_lowercase())
            .parse::<Name>()
            .is_ok_and(|name| name.host_port() == self.local.host_port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    fn dialer_and_acceptor() -> (Name, Name) {
        let (a, b) = (name("http://127.0.0.1:9001"), name("http://127.0.0.1:9002"));
        match Dialer::between(&a, &b) {
            Dialer::Local => (a, b),
            Dialer::Remote => (b, a),
        }
    }

    fn request(host: &Name) -> ConnectRequest {
        ConnectRequest {
            id: InstanceId::from_bytes([7; 16]),
            host: host.to_string(),
            time: Timestamp::new(1_000, 0),
            token: "secret".into(),
        }
    }

    /// Checks at 1,000 s, with the token "secret" and both names known.
    fn check(
        local: &Name,
        dialed: Option<&str>,
        frame: Vec<u8>,
    ) -> Result<(Name, ConnectRequest), Refusal> {
        let (a, b) = dialer_and_acceptor();
        Acceptor {
            local,
            find_remote: &|host| [&a, &b].into_iter().find(|name| name.as_str() == host).cloned(),
            check_token: &|token| if token == "secret" { Ok(()) } else { Err("bad token".into()) },
            now: Timestamp::new(1_000, 0),
            clock_skew_max: Duration::from_secs(300),
            dialed_host: dialed,
        }
        .check(&Bytes::from(frame))
    }

    fn refusal(local: &Name, request: &ConnectRequest) -> String {
        check(local, None, request.encode().expect("encodes"))
            .expect_err("the dial must be refused")
            .to_string()
    }

    #[test]
    fn p04_both_ends_decide_the_same_dial_direction() {
        for port in 9000..9100 {
            let (a, b) = (name("http://10.0.0.1:9000"), name(&format!("http://10.0.0.2:{port}")));
            assert_ne!(Dialer::between(&a, &b), Dialer::between(&b, &a));
        }
    }

    #[test]
    fn b02_a_valid_dial_is_accepted() {
        let (dialer, acceptor) = dialer_and_acceptor();
        let request = request(&dialer);
        let frame = request.encode().expect("encodes");
        let dialed = Some(acceptor.authority());
        assert_eq!(check(&acceptor, dialed, frame), Ok((dialer, request)));
    }

    #[test]
    fn b02_each_invalid_dial_is_refused_with_its_reason() {
        let (dialer, acceptor) = dialer_and_acceptor();
        let good = request(&dialer);

        let unknown = ConnectRequest { host: "http://10.9.9.9:1".into(), ..good.clone() };
        assert!(refusal(&acceptor, &unknown).starts_with("unknown incoming host"));

        let late = ConnectRequest { time: Timestamp::new(1_301, 0), ..good.clone() };
        assert!(refusal(&acceptor, &late).contains("differ by 301s"));

        let forged = ConnectRequest { token: "guess".into(), ..good.clone() };
        assert_eq!(refusal(&acceptor, &forged), "auth token: bad token");

        assert!(refusal(&dialer, &request(&acceptor)).starts_with("wrong direction"));

        let frame = good.encode().expect("encodes");
        let other = check(&acceptor, Some("127.0.0.1:9999"), frame).expect_err("another host");
        assert!(other.to_string().starts_with("wrong host"));

        let response = ConnectResponse::accepted(good.id).encode().expect("encodes");
        let other = check(&acceptor, None, response).expect_err("another op");
        assert_eq!(other.to_string(), "expected op Connect, got ConnectResponse");

        let garbage = check(&acceptor, None, vec![0xff; 40]).expect_err("garbage");
        assert!(garbage.to_string().starts_with("malformed message"));
    }

    #[test]
    fn p11_checks_run_in_the_documented_order() {
        let (_, acceptor) = dialer_and_acceptor();
        // Every field of this one is wrong; the host is the reported reason.
        let all_wrong = ConnectRequest {
            id: InstanceId::default(),
            host: "nowhere".into(),
            time: Timestamp::new(0, 0),
            token: String::new(),
        };
        assert!(refusal(&acceptor, &all_wrong).starts_with("unknown incoming host"));
    }

    #[test]
    fn p11_unknown_keys_are_ignored() {
        let mut payload = vec![0x84];
        for (key, value) in
            [("ID", &[0xc4, 16][..]), ("Accepted", &[0xc3]), ("New", &[0x93, 1, 2, 3])]
        {
            rmp::encode::write_str(&mut payload, key).expect("a Vec takes it");
            payload.extend_from_slice(value);
            if key == "ID" {
                payload.extend_from_slice(&[1; 16]);
            }
        }
        rmp::encode::write_str(&mut payload, "RejectedReason").expect("a Vec takes it");
        rmp::encode::write_str(&mut payload, "").expect("a Vec takes it");
        let response: ConnectResponse = rmp_serde::from_slice(&payload).expect("skips");
        assert!(response.accepted);
    }

    #[test]
    fn a_long_rejection_reason_is_truncated() {
        let long = ConnectResponse::rejected(InstanceId::default(), "ä".repeat(10_000));
        let frame = Bytes::from(long.encode().expect("encodes"));
        let parsed = ConnectResponse::parse(&frame).expect("parses");
        assert!(parsed.rejected_reason.len() <= REASON_BYTES_MAX);
    }
}
