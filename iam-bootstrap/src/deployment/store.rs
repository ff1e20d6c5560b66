//! Persistence of this server's acceptor state, as a byte string in any store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use grid::sync::Mutex;
use serde::{Deserialize, Serialize};

use super::proto::acceptor::AcceptorState;
use crate::limits::DEPLOYMENT_STATE_BYTES_MAX;

/// Future of a store operation.
pub type DeploymentStoreFuture<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, DeploymentStoreError>> + Send + 'a>>;

/// Keeps a byte string for one server. No two servers may share it.
pub trait DeploymentStore: Send + Sync + 'static {
    /// Returns the last saved bytes; `None` if nothing was ever saved. A store that does not *know*
    /// that must fail: a server that forgets its promises can break them.
    ///
    /// # Errors
    ///
    /// [`DeploymentStoreError`].
    fn load(&self) -> DeploymentStoreFuture<'_, Option<Vec<u8>>>;

    /// Replaces the bytes atomically; durable once this returns. A save that failed or was dropped
    /// has either happened or not, and does not take effect after a later one has begun.
    ///
    /// # Errors
    ///
    /// [`DeploymentStoreError`].
    fn save(&self, state: Vec<u8>) -> DeploymentStoreFuture<'_, ()>;
}

/// Error of loading or saving.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentStoreError {
    /// The store cannot be used now. Retry later.
    #[error("the deployment's store is unavailable: {cause}")]
    Unavailable {
        /// Cause of the failure.
        cause: Arc<str>,
    },
    /// The content is not what was saved. Neither a retry nor a fresh start helps: this server may
    /// have made promises.
    #[error(
        "the stored deployment state is corrupt: {cause}; restore it, or delete it while the other servers run"
    )]
    Corrupt {
        /// Reason why it is considered corrupt.
        cause: Arc<str>,
    },
}

/// A store in memory, for tests and for uses without persistence.
#[derive(Debug, Default)]
pub struct MemoryDeploymentStore(Mutex<Option<Vec<u8>>>);

impl MemoryDeploymentStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl DeploymentStore for MemoryDeploymentStore {
    fn load(&self) -> DeploymentStoreFuture<'_, Option<Vec<u8>>> {
        let state = self.0.lock().clone();
        Box::pin(async { Ok(state) })
    }

    fn save(&self, state: Vec<u8>) -> DeploymentStoreFuture<'_, ()> {
        Box::pin(async {
            *self.0.lock() = Some(state);
            Ok(())
        })
    }
}

impl<S: DeploymentStore + ?Sized> DeploymentStore for Arc<S> {
    fn load(&self) -> DeploymentStoreFuture<'_, Option<Vec<u8>>> {
        (**self).load()
    }

    fn save(&self, state: Vec<u8>) -> DeploymentStoreFuture<'_, ()> {
        (**self).save(state)
    }
}

/// Format of the stored state. A newer one is refused: parts of it could be missed.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct PersistedState {
    version: u32,
    #[serde(flatten)]
    state: AcceptorState,
}

/// Encodes a state as JSON, which an operator can read.
pub(crate) fn encode(state: &AcceptorState) -> Result<Vec<u8>, DeploymentStoreError> {
    let saved = PersistedState { version: VERSION, state: state.clone() };
    serde_json::to_vec(&saved)
        .map_err(|error| DeploymentStoreError::Unavailable { cause: error.to_string().into() })
}

/// Decodes a state from JSON.
pub(crate) fn decode(bytes: &[u8]) -> Result<AcceptorState, DeploymentStoreError> {
    let corrupt = |cause: String| DeploymentStoreError::Corrupt { cause: cause.into() };
    if bytes.len() > DEPLOYMENT_STATE_BYTES_MAX {
        let (len, max) = (bytes.len(), DEPLOYMENT_STATE_BYTES_MAX);
        return Err(corrupt(format!("it has {len} bytes, and the maximum is {max}")));
    }
    let saved: PersistedState =
        serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    if saved.version != VERSION {
        let record_conflict = saved.version;
        return Err(corrupt(format!(
            "it is in format {record_conflict}, and this version knows format {VERSION}"
        )));
    }
    Ok(saved.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::id::DeploymentId;
    use crate::deployment::proto::{Ballot, Vote};

    fn state() -> AcceptorState {
        let ballot = |round| Ballot { round, node: "http://a:1".into() };
        let vote = Vote { ballot: ballot(3), id: DeploymentId::from_random(7) };
        AcceptorState { promised: ballot(4), accepted: Some(vote), decided: None }
    }

    #[test]
    fn stored_state_round_trips_and_keeps_its_format() {
        let text = r#"{"version":1,"promised":{"round":4,"node":"http://a:1"},"accepted":{"ballot":{"round":3,"node":"http://a:1"},"id":"00000000-0000-4000-8000-000000000007"},"decided":null}"#;
        assert_eq!(
            encode(&state()).map(|bytes| String::from_utf8(bytes).unwrap()),
            Ok(text.into())
        );
        assert_eq!(decode(text.as_bytes()), Ok(state()));
        assert_eq!(decode(br#"{"version":1,"more":[1]}"#), Ok(AcceptorState::default()));
    }

    #[test]
    fn longest_state_is_within_the_limit() {
        let node: Arc<str> = "\\".repeat(grid::limits::NAME_BYTES_MAX).into();
        let ballot = Ballot { round: u64::MAX, node };
        let vote = Vote { ballot: ballot.clone(), id: DeploymentId::from_random(u128::MAX) };
        let state =
            AcceptorState { decided: Some(vote.id), promised: ballot, accepted: Some(vote) };
        let bytes = encode(&state).expect("encodes");
        assert_eq!(decode(&bytes), Ok(state));
    }

    #[test]
    fn malformed_state_is_corrupt_and_never_treated_as_empty() {
        let whole = encode(&state()).expect("encodes");
        for length in 0..whole.len() {
            let decoded = decode(&whole[..length]);
            assert!(matches!(decoded, Err(DeploymentStoreError::Corrupt { .. })), "{length}");
        }
        let newer = decode(br#"{"version":2}"#).expect_err("a newer format");
        assert!(newer.to_string().contains("format 2"), "{newer}");
        let long = decode(&vec![b' '; DEPLOYMENT_STATE_BYTES_MAX + 1]).expect_err("too long");
        assert!(long.to_string().contains("4096"), "{long}");
    }
}
