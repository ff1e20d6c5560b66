//! Single requests: both ends.

use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::{Connection, RequestContext};

use super::body::Body;
use super::{
    IN_PLACE, LoadTable, Open, PLANNED_ERROR, SPAWNED, Serving, UNKNOWN, outcome_of, pause,
    planned_panic, wrong_input,
};
use crate::event::{CallId, CallKind, HandlerEnd, Outcome, StreamSide};
use crate::plan::{HandlerEnding, Load, RequestPlan};
use crate::recorder::NodeRecorder;

fn question(call: CallId) -> Body {
    Body { call, end: StreamSide::Caller, number: 0 }
}

fn answer(call: CallId) -> Body {
    Body { call, end: StreamSide::Callee, number: 0 }
}

/// Makes a request and tells how it ended.
pub(super) async fn make(
    call: CallId,
    plan: RequestPlan,
    connection: Connection,
    recorder: NodeRecorder,
) {
    let open = Open::begin(call, CallKind::Request, &Load::Request(plan.clone()), &recorder);
    let handler = match (plan.ending, call % 4) {
        (HandlerEnding::Unknown, _) => UNKNOWN,
        (_, 0) => SPAWNED,
        (_, _) => IN_PLACE,
    };
    let mut request = connection.request(handler, question(call).encode(plan.bytes));
    if let Some(ms) = plan.timeout_ms {
        request = request.timeout(Duration::from_millis(u64::from(ms)));
    }
    let answered = match plan.cancel_after_ms {
        None => Ok(request.await),
        Some(ms) => {
            let patience = Duration::from_millis(u64::from(ms));
            tokio::time::timeout(patience, request.into_future()).await
        }
    };
    open.end(match answered {
        Err(_) => Outcome::Cancelled,
        Ok(Ok(payload)) => match answer(call).check(&payload, plan.response_bytes) {
            Ok(()) => Outcome::Completed,
            Err(text) => Outcome::WrongResponse { text },
        },
        Ok(Err(error)) => outcome_of(error),
    });
}

/// Serves a request as the plan says.
pub(super) async fn serve(
    table: LoadTable,
    recorder: NodeRecorder,
    context: RequestContext,
    payload: Bytes,
) -> Result<Bytes, HandlerError> {
    let asked = Body::decode(&payload)?;
    let Some(Load::Request(plan)) = table.get(asked.call) else {
        return Err(format!("{asked:?} is no request").into());
    };
    question(asked.call)
        .check(&payload, plan.bytes)
        .map_err(|text| wrong_input(asked.call, text, &recorder))?;
    let serving = Serving::begin(asked.call, &context, &recorder);
    pause(plan.work_ms).await;
    match plan.ending {
        HandlerEnding::Success | HandlerEnding::Unknown => {
            serving.end(HandlerEnd::Returned);
            Ok(answer(asked.call).encode(plan.response_bytes))
        }
        HandlerEnding::Error => {
            serving.end(HandlerEnd::Failed);
            Err(PLANNED_ERROR.into())
        }
        HandlerEnding::Panic => {
            serving.end(HandlerEnd::Panicked);
            planned_panic()
        }
        HandlerEnding::Never => std::future::pending().await,
    }
}
