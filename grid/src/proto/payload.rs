//! Payloads of the protocol's own messages: small maps with field names ([P12], [P13]).
//!
//! [P12]: crate::protocol#p12
//! [P13]: crate::protocol#p13

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// First words of a refusal that means "no such handler" ([P13]), as sent.
///
/// [P13]: crate::protocol#p13
pub const UNKNOWN_HANDLER: &str = "Invalid Handler for type";

/// First words of such a refusal, as accepted. MinIO peers send no more than these for an id beyond
/// their own, and say more for other ids.
pub(super) const UNKNOWN_HANDLER_PREFIX: &str = "Invalid Handler";

/// Payload of a MuxConnectError.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MuxConnectError {
    #[serde(rename = "Error", default)]
    pub(super) error: String,
}

/// Payload of a connection's Ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PingPayload {
    pub(super) t: Timestamp,
}

/// Payload of a Pong. In a stream's Pong, `t` is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PongPayload {
    #[serde(rename = "nf", default)]
    pub(super) not_found: bool,
    #[serde(rename = "e", default)]
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) t: Timestamp,
}

/// Encodes one of these payloads. No value of them makes encoding fail.
pub(super) fn encode<T: Serialize>(payload: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(payload).unwrap_or_else(|error| {
        crate::bug!("cannot encode a protocol payload: {error}");
        Vec::new()
    })
}

/// Decodes one of these payloads. Unknown keys are skipped.
pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(payload)
}

/// Decodes an error's text. Bytes that are not UTF-8 are replaced.
pub(super) fn text(payload: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(payload).into()
}
