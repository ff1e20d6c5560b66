//! What every node serves: two handlers to try the grid with.

use std::time::Duration;

use grid::{HandlerId, Manager, RegisterError, Route, SingleHandler};
use serde::{Deserialize, Serialize};

/// Answers with what it was sent.
pub(crate) const ECHO: HandlerId = HandlerId::new(200);

/// Answers after a while: for trying deadlines and cancellation.
pub(crate) const SLEEP: SingleHandler<SleepRequest, SleepAnswer> =
    SingleHandler::new(HandlerId::new(201), "Sleep");

/// How long [`SLEEP`] sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SleepRequest {
    pub(crate) ms: u32,
}

/// How long it has slept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SleepAnswer {
    pub(crate) slept_ms: u32,
}

/// Registers both.
pub(crate) fn register(manager: &Manager) -> Result<(), RegisterError> {
    manager.register(Route::new(ECHO).name("Echo"), |_context, payload| async { Ok(payload) })?;
    SLEEP.register(manager, |_context, request: SleepRequest| async move {
        tokio::time::sleep(Duration::from_millis(request.ms.into())).await;
        Ok(SleepAnswer { slept_ms: request.ms })
    })
}
