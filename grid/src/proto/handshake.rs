//! The first two messages of a connection: who calls, and whether it is taken (P4, P10, P11).
//!
//! Pure: it encodes, parses and judges. Sockets, time limits and the HTTP upgrade before it are
//! `net`'s business.

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

/// A manager's instance: drawn at random when it is built, so that a peer can tell the same process
/// from a restarted one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(#[serde(with = "serde_bytes")] [u8; 16]);

impl InstanceId {
    /// An id of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which of two servers opens the connection between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialler {
    /// This one.
    Local,
    /// The other one.
    Remote,
}

impl Dialler {
    /// Decides it, alike on both ends (P4).
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

/// What the dialler says of itself (P10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectRequest {
    /// The dialling manager's instance.
    #[serde(rename = "ID")]
    pub id: InstanceId,
    /// The dialler's own name.
    #[serde(rename = "Host")]
    pub host: String,
    /// The dialler's wall clock.
    #[serde(rename = "Time")]
    pub time: Timestamp,
    /// Proof that the dialler belongs here.
    #[serde(rename = "Token")]
    pub token: String,
}

/// What the acceptor answers (P11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectResponse {
    /// The accepting manager's instance.
    #[serde(rename = "ID")]
    pub id: InstanceId,
    /// Whether the connection stands.
    #[serde(rename = "Accepted")]
    pub accepted: bool,
    /// Why not.
    #[serde(rename = "RejectedReason", default)]
    pub rejected_reason: String,
}

/// Why a message is not the one that a handshake expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It is no message.
    #[error("malformed message: {0}")]
    Parse(#[from] ParseError),
    /// It is another one.
    #[error("expected op {expected:?}, got {got:?}")]
    UnexpectedOp {
        /// What should have come.
        expected: Op,
        /// What came.
        got: Op,
    },
    /// Its payload does not decode.
    #[error("malformed {op:?}: {cause}")]
    Payload {
        /// The message.
        op: Op,
        /// What the decoder said.
        cause: String,
    },
    /// Its payload could not be encoded.
    #[error("cannot encode {op:?}: {cause}")]
    Encode {
        /// The message.
        op: Op,
        /// What the encoder said.
        cause: String,
    },
}

impl ConnectRequest {
    /// The message's bytes.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Encode`], which no known input causes.
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        encode(Op::Connect, self)
    }

    /// Reads a received message.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] for anything but a Connect.
    pub fn parse(frame: &Bytes) -> Result<Self, HandshakeError> {
        parse(Op::Connect, frame)
    }
}

impl ConnectResponse {
    /// The answer that takes the connection.
    pub fn accepted(id: InstanceId) -> Self {
        Self { id, accepted: true, rejected_reason: String::new() }
    }

    /// The answer that does not, with the reason that the dialler will log.
    pub fn rejected(id: InstanceId, reason: impl Into<String>) -> Self {
        Self { id, accepted: false, rejected_reason: reason.into() }
    }

    /// The message's bytes.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Encode`], which no known input causes.
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        encode(Op::ConnectResponse, self)
    }

    /// Reads a received message. A reason of any length is cut to [`REASON_BYTES_MAX`].
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
        checksum: Checksum::Off, // P10, P12: never one in a handshake
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

/// Why a dial is refused, in the words that the dialler receives (B02, P11).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The first message was not a Connect.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The dialler is not one of this cluster's servers.
    #[error("unknown incoming host: {host:?} is not a server of this cluster")]
    UnknownHost {
        /// The name it gave.
        host: String,
    },
    /// The clocks are too far apart.
    #[error(
        "time difference too large: the clocks of {host} and {local} differ by {skew:?}, {max:?} are allowed"
    )]
    ClockSkew {
        /// The dialler.
        host: Name,
        /// This server.
        local: Name,
        /// By how much.
        skew: Duration,
        /// How much is allowed.
        max: Duration,
    },
    /// The token was not accepted.
    #[error("auth token: {reason}")]
    Token {
        /// What the application's check said.
        reason: String,
    },
    /// Another server was meant.
    #[error("wrong host: {dialled:?} was dialled, but this is {local}")]
    WrongHost {
        /// The host that the upgrade request names.
        dialled: String,
        /// This server.
        local: Name,
    },
    /// The connection must be opened from this side.
    #[error("wrong direction: {local} dials {host}, not the other way round")]
    WrongDirection {
        /// The dialler.
        host: Name,
        /// This server.
        local: Name,
    },
    /// Too many connections of this host wait to be taken.
    #[error("too many connections from {host} at once")]
    TooMany {
        /// The dialler.
        host: Name,
    },
    /// The manager was not started yet.
    #[error("this server is not ready yet")]
    NotReady,
    /// The manager is shutting down.
    #[error("this server is shutting down")]
    Shutdown,
}

/// What an acceptor holds a dial against.
pub struct Acceptor<'a> {
    /// This server.
    pub local: &'a Name,
    /// Whether a host is one of the cluster's remotes, and its name if so.
    pub find_remote: &'a dyn Fn(&str) -> Option<Name>,
    /// The application's judgement of a token.
    pub check_token: &'a dyn Fn(&str) -> Result<(), String>,
    /// The wall clock.
    pub now: Timestamp,
    /// Largest difference of the clocks.
    pub clock_skew_max: Duration,
    /// The host that the dialler asked for in its upgrade request, where it is known.
    pub dialled: Option<&'a str>,
}

impl Acceptor<'_> {
    /// Judges a first message, in the order of P11.
    ///
    /// # Errors
    ///
    /// [`Refusal`], whose text is for the answer.
    pub fn judge(&self, frame: &Bytes) -> Result<(Name, ConnectRequest), Refusal> {
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
        if let Some(dialled) = self.dialled.filter(|dialled| !self.is_local(dialled)) {
            let cut = dialled.floor_char_boundary(NAME_BYTES_MAX);
            return Err(Refusal::WrongHost { dialled: dialled[..cut].to_owned(), local });
        }
        if Dialler::between(&local, &host) == Dialler::Local {
            return Err(Refusal::WrongDirection { host, local });
        }
        Ok((host, request))
    }

    /// Whether a host of an upgrade request is this server: the default port may be left out.
    fn is_local(&self, dialled: &str) -> bool {
        let scheme = if self.local.is_secure() { "https" } else { "http" };
        format!("{scheme}://{}", dialled.to_ascii_lowercase())
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

    fn dialler_and_acceptor() -> (Name, Name) {
        let (a, b) = (name("http://127.0.0.1:9001"), name("http://127.0.0.1:9002"));
        match Dialler::between(&a, &b) {
            Dialler::Local => (a, b),
            Dialler::Remote => (b, a),
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

    /// Judges at 1,000 s, with the token "secret", knowing both names.
    fn judge(
        local: &Name,
        dialled: Option<&str>,
        frame: Vec<u8>,
    ) -> Result<(Name, ConnectRequest), Refusal> {
        let (a, b) = dialler_and_acceptor();
        Acceptor {
            local,
            find_remote: &|host| [&a, &b].into_iter().find(|name| name.as_str() == host).cloned(),
            check_token: &|token| if token == "secret" { Ok(()) } else { Err("bad token".into()) },
            now: Timestamp::new(1_000, 0),
            clock_skew_max: Duration::from_secs(300),
            dialled,
        }
        .judge(&Bytes::from(frame))
    }

    fn refusal(local: &Name, request: &ConnectRequest) -> String {
        judge(local, None, request.encode().expect("encodes"))
            .expect_err("the dial must be refused")
            .to_string()
    }

    #[test]
    fn p04_both_ends_decide_alike_who_dials() {
        for port in 9000..9100 {
            let (a, b) = (name("http://10.0.0.1:9000"), name(&format!("http://10.0.0.2:{port}")));
            assert_ne!(Dialler::between(&a, &b), Dialler::between(&b, &a));
        }
    }

    #[test]
    fn b02_a_good_dial_is_accepted() {
        let (dialler, acceptor) = dialler_and_acceptor();
        let request = request(&dialler);
        let frame = request.encode().expect("encodes");
        let dialled = Some(acceptor.authority());
        assert_eq!(judge(&acceptor, dialled, frame), Ok((dialler, request)));
    }

    #[test]
    fn b02_each_bad_dial_is_refused_with_its_reason() {
        let (dialler, acceptor) = dialler_and_acceptor();
        let good = request(&dialler);

        let unknown = ConnectRequest { host: "http://10.9.9.9:1".into(), ..good.clone() };
        assert!(refusal(&acceptor, &unknown).starts_with("unknown incoming host"));

        let late = ConnectRequest { time: Timestamp::new(1_301, 0), ..good.clone() };
        assert!(refusal(&acceptor, &late).contains("differ by 301s"));

        let forged = ConnectRequest { token: "guess".into(), ..good.clone() };
        assert_eq!(refusal(&acceptor, &forged), "auth token: bad token");

        assert!(refusal(&dialler, &request(&acceptor)).starts_with("wrong direction"));

        let frame = good.encode().expect("encodes");
        let other = judge(&acceptor, Some("127.0.0.1:9999"), frame).expect_err("another host");
        assert!(other.to_string().starts_with("wrong host"));

        let response = ConnectResponse::accepted(good.id).encode().expect("encodes");
        let other = judge(&acceptor, None, response).expect_err("another op");
        assert_eq!(other.to_string(), "expected op Connect, got ConnectResponse");

        let garbage = judge(&acceptor, None, vec![0xff; 40]).expect_err("garbage");
        assert!(garbage.to_string().starts_with("malformed message"));
    }

    #[test]
    fn p11_reasons_are_checked_in_order() {
        let (_, acceptor) = dialler_and_acceptor();
        // Everything is wrong with this one; the host is what is told.
        let all_wrong = ConnectRequest {
            id: InstanceId::default(),
            host: "nobody".into(),
            time: Timestamp::new(0, 0),
            token: String::new(),
        };
        assert!(refusal(&acceptor, &all_wrong).starts_with("unknown incoming host"));
    }

    #[test]
    fn p11_unknown_keys_are_skipped() {
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
    fn a_reason_of_any_length_is_cut() {
        let long = ConnectResponse::rejected(InstanceId::default(), "ä".repeat(10_000));
        let frame = Bytes::from(long.encode().expect("encodes"));
        let parsed = ConnectResponse::parse(&frame).expect("parses");
        assert!(parsed.rejected_reason.len() <= REASON_BYTES_MAX);
    }
}
