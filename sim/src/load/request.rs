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
use crate::plan::{Ending, Load, RequestPlan};
use crate::recorder::Pen;

fn question(call: CallId) -> Body {
    Body { call, end: StreamSide::Caller, number: 0 }
}

fn answer(call: CallId) -> Body {
    Body { call, end: StreamSide::Handler, number: 0 }
}

/// Makes a request and tells how it ended.
pub(super) async fn make(call: CallId, plan: RequestPlan, connection: Connection, pen: Pen) {
    let open = Open::begin(call, CallKind::Request, &Load::Request(plan.clone()), &pen);
    let handler = match (plan.ending, call % 4) {
        (Ending::Unknown, _) => UNKNOWN,
        (_, 0) => SPAWNED,
        (_, _) => IN_PLACE,
    };
    let mut request = connection.request(handler, question(call).encode(plan.bytes));
    if let Some(ms) = plan.timeout_ms {
        request = request.timeout(Duration::from_millis(u64::from(ms)));
    }
    let answered = match plan.give_up_ms {
        None => Ok(request.await),
        Some(ms) => {
            let patience = Duration::from_millis(u64::from(ms));
            tokio::time::timeout(patience, request.into_future()).await
        }
    };
    open.end(match answered {
        Err(_) => Outcome::GaveUp,
        Ok(Ok(payload)) => match answer(call).check(&payload, plan.answer_bytes) {
            Ok(()) => Outcome::Answered,
            Err(text) => Outcome::WrongAnswer { text },
        },
        Ok(Err(error)) => outcome_of(error),
    });
}

/// Serves a request as the plan says.
pub(super) async fn serve(
    table: LoadTable,
    pen: Pen,
    context: RequestContext,
    payload: Bytes,
) -> Result<Bytes, HandlerError> {
    let asked = Body::decode(&payload)?;
    let Some(Load::Request(plan)) = table.get(asked.call) else {
        return Err(format!("{asked:?} is no request").into());
    };
    question(asked.call)
        .check(&payload, plan.bytes)
        .map_err(|text| wrong_input(asked.call, text, &pen))?;
    let serving = Serving::begin(asked.call, &context, &pen);
    pause(plan.work_ms).await;
    match plan.ending {
        Ending::Well | Ending::Unknown => {
            serving.end(HandlerEnd::Returned);
            Ok(answer(asked.call).encode(plan.answer_bytes))
        }
        Ending::Error => {
            serving.end(HandlerEnd::Failed);
            Err(PLANNED_ERROR.into())
        }
        Ending::Panic => {
            serving.end(HandlerEnd::Panicked);
            planned_panic()
        }
        Ending::Never => std::future::pending().await,
    }
}
