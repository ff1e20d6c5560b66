//! Where a server keeps what it has promised about the deployment: some bytes, in whatever store.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::proto::acceptor::State;
use crate::limits::DEPLOYMENT_STATE_BYTES_MAX;

/// What a store does, under way.
pub type Pending<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, DeploymentStoreError>> + Send + 'a>>;

/// Keeps some bytes for one server. They are this server's own: no two may share them.
pub trait DeploymentStore: Send + Sync + 'static {
    /// What was saved last; `None` if nothing ever was. A store that does not *know* that must fail: a
    /// server that takes its promises for never made can break them.
    ///
    /// # Errors
    ///
    /// [`DeploymentStoreError`].
    fn load(&self) -> Pending<'_, Option<Vec<u8>>>;

    /// Replaces it: wholly, and for good once this returns. What failed, or was dropped, is either as it
    /// was or as it was to become, and does not take effect after a later one has begun.
    ///
    /// # Errors
    ///
    /// [`DeploymentStoreError`].
    fn save(&self, state: Vec<u8>) -> Pending<'_, ()>;
}

/// Why a store did not load or save.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentStoreError {
    /// It cannot be used now. Worth trying again.
    #[error("the deployment's store is unavailable: {cause}")]
    Unavailable {
        /// What failed.
        cause: Arc<str>,
    },
    /// What it holds is not what was saved. Trying again does not help, nor does beginning anew: this
    /// server may have promised something.
    #[error(
        "what is kept of the deployment is corrupt: {cause}; restore it, or delete it while the other servers run"
    )]
    Corrupt {
        /// How that is known.
        cause: Arc<str>,
    },
}

/// A store for tests and for what needs no other: it forgets with the process.
#[derive(Debug, Default)]
pub struct MemoryDeploymentStore(Mutex<Option<Vec<u8>>>);

impl MemoryDeploymentStore {
    /// A store that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl DeploymentStore for MemoryDeploymentStore {
    fn load(&self) -> Pending<'_, Option<Vec<u8>>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async { Ok(state) })
    }

    fn save(&self, state: Vec<u8>) -> Pending<'_, ()> {
        Box::pin(async {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
            Ok(())
        })
    }
}

impl<S: DeploymentStore + ?Sized> DeploymentStore for Arc<S> {
    fn load(&self) -> Pending<'_, Option<Vec<u8>>> {
        (**self).load()
    }

    fn save(&self, state: Vec<u8>) -> Pending<'_, ()> {
        (**self).save(state)
    }
}

/// The format of what is kept. A newer one is not read: what it says could be missed.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    #[serde(flatten)]
    state: State,
}

/// A state as it is kept: JSON, which an operator can read.
pub(crate) fn encode(state: &State) -> Result<Vec<u8>, DeploymentStoreError> {
    let saved = Saved { version: VERSION, state: state.clone() };
    serde_json::to_vec(&saved)
        .map_err(|error| DeploymentStoreError::Unavailable { cause: error.to_string().into() })
}

/// And back.
pub(crate) fn decode(bytes: &[u8]) -> Result<State, DeploymentStoreError> {
    let corrupt = |cause: String| DeploymentStoreError::Corrupt { cause: cause.into() };
    if bytes.len() > DEPLOYMENT_STATE_BYTES_MAX {
        let (len, max) = (bytes.len(), DEPLOYMENT_STATE_BYTES_MAX);
        return Err(corrupt(format!("it has {len} bytes, and can have {max} at most")));
    }
    let saved: Saved = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    if saved.version != VERSION {
        let found = saved.version;
        return Err(corrupt(format!(
            "it is in format {found}, and this version knows format {VERSION}"
        )));
    }
    Ok(saved.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::id::DeploymentId;
    use crate::deployment::proto::{Ballot, Vote};

    fn state() -> State {
        let ballot = |round| Ballot { round, node: "http://a:1".into() };
        let vote = Vote { ballot: ballot(3), id: DeploymentId::from_random(7) };
        State { promised: ballot(4), accepted: Some(vote), decided: None }
    }

    #[test]
    fn what_is_kept_is_read_back_and_is_what_earlier_versions_wrote() {
        let text = r#"{"version":1,"promised":{"round":4,"node":"http://a:1"},"accepted":{"ballot":{"round":3,"node":"http://a:1"},"id":"00000000-0000-4000-8000-000000000007"},"decided":null}"#;
        assert_eq!(
            encode(&state()).map(|bytes| String::from_utf8(bytes).unwrap()),
            Ok(text.into())
        );
        assert_eq!(decode(text.as_bytes()), Ok(state()));
        assert_eq!(decode(br#"{"version":1,"more":[1]}"#), Ok(State::default()));
    }

    #[test]
    fn the_longest_state_is_within_the_limit() {
        let node: Arc<str> = "\\".repeat(grid::limits::NAME_BYTES_MAX).into();
        let ballot = Ballot { round: u64::MAX, node };
        let vote = Vote { ballot: ballot.clone(), id: DeploymentId::from_random(u128::MAX) };
        let state = State { decided: Some(vote.id), promised: ballot, accepted: Some(vote) };
        let bytes = encode(&state).expect("it can be encoded");
        assert_eq!(decode(&bytes), Ok(state));
    }

    #[test]
    fn what_was_not_written_so_is_corrupt_and_never_taken_for_nothing() {
        let whole = encode(&state()).expect("it can be encoded");
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
