//! Both ends of streams, each sending and receiving at its own pace.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::{
    Connection, RequestContext, SendError, StreamError, StreamOutput, StreamReceiver, StreamSender,
};

use super::body::Body;
use super::{
    CallRecord, HandlerRecord, LoadTable, PLANNED_ERROR, UNKNOWN, outcome_of, planned_panic,
    sleep_ms, stream_handler, wrong_input,
};
use crate::event::{CallId, CallKind, EventKind, HandlerEnd, Outcome, StreamSide};
use crate::plan::{CAPACITIES, Load, PlannedHandlerEnd, StreamPlan};
use crate::recorder::NodeRecorder;

fn opening_body(call: CallId) -> Body {
    Body { call, end: StreamSide::Caller, number: 0 }
}

/// Opens a stream, sends and receives as the plan says, and records its outcome.
pub(super) async fn perform(
    call: CallId,
    plan: StreamPlan,
    connection: Connection,
    recorder: NodeRecorder,
) {
    let record = CallRecord::begin(call, CallKind::Stream, &Load::Stream(plan.clone()), &recorder);
    let cancel_after = plan.cancel_after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
    // Boxed, so that the stream is dropped explicitly, below.
    let mut using = Box::pin(use_stream(call, plan, connection, recorder));
    let outcome = match cancel_after {
        None => using.as_mut().await,
        Some(cancel_after) => match tokio::time::timeout(cancel_after, using.as_mut()).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Cancelled,
        },
    };
    // The end is recorded before the drop, whose effects are events too.
    record.end(outcome);
    drop(using);
}

async fn use_stream(
    call: CallId,
    plan: StreamPlan,
    connection: Connection,
    recorder: NodeRecorder,
) -> Outcome {
    let (input, output) = CAPACITIES[usize::from(plan.capacities) % CAPACITIES.len()];
    let handler = match plan.ending {
        PlannedHandlerEnd::Unknown => UNKNOWN,
        _ => stream_handler(plan.capacities % CAPACITIES.len() as u8),
    };
    let mut opened = connection
        .stream(handler, opening_body(call).encode(plan.bytes))
        .input_capacity(input)
        .output_capacity(output);
    if let Some(ms) = plan.timeout_ms {
        opened = opened.timeout(Duration::from_millis(u64::from(ms)));
    }
    let (sender, receiver) = match opened.await {
        Ok(stream) => stream.split(),
        Err(error) => return stream_outcome(error),
    };
    recorder.record(EventKind::StreamOpened { call });
    let sending = send_up(call, &plan, sender, &recorder);
    let receiving = receive_down(call, &plan, receiver, &recorder);
    let (_, outcome) = tokio::join!(sending, receiving);
    outcome
}

/// Sends the caller's messages. The receiving half records how the stream ends.
async fn send_up(
    call: CallId,
    plan: &StreamPlan,
    mut sender: StreamSender,
    recorder: &NodeRecorder,
) {
    for number in 1..=plan.up {
        sleep_ms(plan.up_pace_ms).await;
        let body = Body { call, end: StreamSide::Caller, number };
        match send_recorded(sender.send(body.encode(plan.bytes)), body, recorder).await {
            Ok(()) => recorder.record(EventKind::Sent { call, end: StreamSide::Caller, number }),
            // The receiver records how it ended; this half is kept until then.
            Err(SendError::Stream(_) | SendError::Finished) => break,
            Err(error) => {
                grid::bug!("a planned message was refused: {error}");
                break;
            }
        }
    }
    // The receiver records this result too.
    let _ = sender.finish().await;
}

/// Sends, and records if the send is blocked.
async fn send_recorded<T>(
    sending: impl Future<Output = T>,
    body: Body,
    recorder: &NodeRecorder,
) -> T {
    let Body { call, end, number } = body;
    let mut sending = pin!(sending);
    let mut was_blocked = false;
    poll_fn(|cx| {
        let polled = sending.as_mut().poll(cx);
        if polled.is_pending() && !was_blocked {
            was_blocked = true;
            recorder.record(EventKind::SendBlocked { call, end, number });
        }
        polled
    })
    .await
}

async fn receive_down(
    call: CallId,
    plan: &StreamPlan,
    mut receiver: StreamReceiver,
    recorder: &NodeRecorder,
) -> Outcome {
    let Some(receive_pace_ms) = plan.receive_pace_ms else {
        return std::future::pending().await; // until it is cancelled
    };
    let mut number = 0;
    loop {
        sleep_ms(receive_pace_ms).await;
        match receiver.next().await {
            Some(Ok(payload)) => {
                number += 1;
                let body = Body { call, end: StreamSide::Callee, number };
                if let Err(text) = body.check(&payload, plan.bytes) {
                    return Outcome::WrongResponse { text };
                }
                recorder.record(EventKind::Received { call, end: StreamSide::Caller, number });
            }
            Some(Err(error)) => {
                recorder.record(EventKind::InputEnded {
                    call,
                    end: StreamSide::Caller,
                    clean: false,
                });
                return stream_outcome(error);
            }
            None => {
                recorder.record(EventKind::InputEnded {
                    call,
                    end: StreamSide::Caller,
                    clean: true,
                });
                return Outcome::Completed;
            }
        }
    }
}

fn stream_outcome(error: StreamError) -> Outcome {
    match error {
        StreamError::Call(error) => outcome_of(error),
        error => Outcome::StreamFailed { text: error.to_string() },
    }
}

/// Serves a stream as the plan says.
pub(super) async fn serve(
    table: LoadTable,
    recorder: NodeRecorder,
    context: RequestContext,
    payload: Option<Bytes>,
    halves: (StreamReceiver, StreamOutput),
) -> Result<(), HandlerError> {
    let payload = payload.ok_or("a stream without the payload that opens it")?;
    let body = Body::decode(&payload)?;
    let call = body.call;
    let Some(Load::Stream(plan)) = table.get(call) else {
        return Err(format!("{body:?} is no stream").into());
    };
    opening_body(call)
        .check(&payload, plan.bytes)
        .map_err(|text| wrong_input(call, text, &recorder))?;
    // The halves are dropped with the handler, before its end is recorded.
    let (input, output) = halves;
    let record = HandlerRecord::begin(call, &context, &recorder);
    let sending = send_down(call, &plan, output, &recorder);
    let result = match plan.ending {
        PlannedHandlerEnd::Never => {
            let receiving = receive_up(call, &plan, input, &recorder);
            let _ = tokio::join!(sending, receiving);
            std::future::pending::<()>().await;
            Ok(())
        }
        // A failing handler does not wait for its input.
        PlannedHandlerEnd::Error | PlannedHandlerEnd::Panic => sending.await,
        PlannedHandlerEnd::Success | PlannedHandlerEnd::Unknown => {
            let receiving = receive_up(call, &plan, input, &recorder);
            let (sent, received) = tokio::join!(sending, receiving);
            sent.and(received)
        }
    };
    match (plan.ending, result) {
        (_, Err(error)) => {
            record.end(HandlerEnd::Failed);
            Err(error)
        }
        (PlannedHandlerEnd::Error, Ok(())) => {
            record.end(HandlerEnd::Failed);
            Err(PLANNED_ERROR.into())
        }
        (PlannedHandlerEnd::Panic, Ok(())) => {
            record.end(HandlerEnd::Panicked);
            planned_panic()
        }
        (
            PlannedHandlerEnd::Success | PlannedHandlerEnd::Never | PlannedHandlerEnd::Unknown,
            Ok(()),
        ) => {
            record.end(HandlerEnd::Returned);
            Ok(())
        }
    }
}

async fn send_down(
    call: CallId,
    plan: &StreamPlan,
    mut output: StreamOutput,
    recorder: &NodeRecorder,
) -> Result<(), HandlerError> {
    for number in 1..=plan.down {
        sleep_ms(plan.down_pace_ms).await;
        let body = Body { call, end: StreamSide::Callee, number };
        send_recorded(output.send(body.encode(plan.bytes)), body, recorder).await?;
        recorder.record(EventKind::Sent { call, end: StreamSide::Callee, number });
    }
    Ok(())
}

async fn receive_up(
    call: CallId,
    plan: &StreamPlan,
    mut input: StreamReceiver,
    recorder: &NodeRecorder,
) -> Result<(), HandlerError> {
    let mut number = 0;
    while let Some(message) = input.next().await {
        let payload = match message {
            Ok(payload) => payload,
            Err(error) => {
                recorder.record(EventKind::InputEnded {
                    call,
                    end: StreamSide::Callee,
                    clean: false,
                });
                return Err(error.into());
            }
        };
        number += 1;
        let body = Body { call, end: StreamSide::Caller, number };
        body.check(&payload, plan.bytes).map_err(|text| wrong_input(call, text, recorder))?;
        recorder.record(EventKind::Received { call, end: StreamSide::Callee, number });
        sleep_ms(plan.down_pace_ms).await;
    }
    recorder.record(EventKind::InputEnded { call, end: StreamSide::Callee, clean: true });
    Ok(())
}
