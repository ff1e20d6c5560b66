//! Both ends of single requests.

use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::{Connection, RequestContext};

use super::body::Body;
use super::{
    CallRecord, HandlerRecord, IN_PLACE, LoadTable, PLANNED_ERROR, SPAWNED, UNKNOWN, outcome_of,
    planned_panic, sleep_ms, wrong_input,
};
use crate::event::{CallId, CallKind, HandlerEnd, Outcome, StreamSide};
use crate::plan::{Load, PlannedHandlerEnd, RequestPlan};
use crate::recorder::NodeRecorder;

fn request_body(call: CallId) -> Body {
    Body { call, end: StreamSide::Caller, number: 0 }
}

fn response_body(call: CallId) -> Body {
    Body { call, end: StreamSide::Callee, number: 0 }
}

/// Makes a request and records its outcome.
pub(super) async fn perform(
    call: CallId,
    plan: RequestPlan,
    connection: Connection,
    recorder: NodeRecorder,
) {
    let record =
        CallRecord::begin(call, CallKind::Request, &Load::Request(plan.clone()), &recorder);
    let handler = match (plan.ending, call % 4) {
        (PlannedHandlerEnd::Unknown, _) => UNKNOWN,
        (_, 0) => SPAWNED,
        (_, _) => IN_PLACE,
    };
    let mut request = connection.request(handler, request_body(call).encode(plan.bytes));
    if let Some(ms) = plan.timeout_ms {
        request = request.timeout(Duration::from_millis(u64::from(ms)));
    }
    let result = match plan.cancel_after_ms {
        None => Ok(request.await),
        Some(ms) => {
            let cancel_after = Duration::from_millis(u64::from(ms));
            tokio::time::timeout(cancel_after, request.into_future()).await
        }
    };
    record.end(match result {
        Err(_) => Outcome::Cancelled,
        Ok(Ok(payload)) => match response_body(call).check(&payload, plan.response_bytes) {
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
    let body = Body::decode(&payload)?;
    let Some(Load::Request(plan)) = table.get(body.call) else {
        return Err(format!("{body:?} is no request").into());
    };
    request_body(body.call)
        .check(&payload, plan.bytes)
        .map_err(|text| wrong_input(body.call, text, &recorder))?;
    let record = HandlerRecord::begin(body.call, &context, &recorder);
    sleep_ms(plan.work_ms).await;
    match plan.ending {
        PlannedHandlerEnd::Success | PlannedHandlerEnd::Unknown => {
            record.end(HandlerEnd::Returned);
            Ok(response_body(body.call).encode(plan.response_bytes))
        }
        PlannedHandlerEnd::Error => {
            record.end(HandlerEnd::Failed);
            Err(PLANNED_ERROR.into())
        }
        PlannedHandlerEnd::Panic => {
            record.end(HandlerEnd::Panicked);
            planned_panic()
        }
        PlannedHandlerEnd::Never => std::future::pending().await,
    }
}
