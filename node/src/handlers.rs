//! Handlers of every server for diagnostics and benchmarks: two calls and two streams.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use grid::{HandlerId, Manager, RegisterError, Route, SingleHandler};
use serde::{Deserialize, Serialize};

/// Responds with the request's payload.
pub(crate) const ECHO: HandlerId = HandlerId::new(200);

/// Responds after a delay, to test deadlines and cancellation.
pub(crate) const SLEEP: SingleHandler<SleepRequest, SleepResponse> =
    SingleHandler::new(HandlerId::new(201), "Sleep");

/// Echoes every message of a stream. Ids 202 and 203 are used by the demo.
pub(crate) const ECHO_STREAM: HandlerId = HandlerId::new(204);

/// Consumes the messages of a stream, and responds at its end with their number: [`SinkCount`].
pub(crate) const STREAM_SINK: HandlerId = HandlerId::new(205);

/// Delay of the response of [`SLEEP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SleepRequest {
    pub(crate) ms: u32,
}

/// Delay after which [`SLEEP`] has responded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SleepResponse {
    pub(crate) slept_ms: u32,
}

/// The messages that [`STREAM_SINK`] has consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SinkCount {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl SinkCount {
    /// Encodes both numbers, big-endian. Not with serde: the messages of this stream are raw bytes,
    /// and a stream is raw or typed in both directions.
    fn to_wire(self) -> Bytes {
        let mut wire = BytesMut::with_capacity(size_of::<Self>());
        wire.put_u64(self.messages);
        wire.put_u64(self.bytes);
        wire.freeze()
    }

    /// Returns `None` for anything but an encoded count.
    pub(crate) fn from_wire(mut wire: &[u8]) -> Option<Self> {
        let count = Self { messages: wire.try_get_u64().ok()?, bytes: wire.try_get_u64().ok()? };
        wire.is_empty().then_some(count)
    }
}

/// Registers all handlers.
pub(crate) fn register(manager: &Manager) -> Result<(), RegisterError> {
    manager.register(Route::new(ECHO).name("Echo"), |_context, payload| async { Ok(payload) })?;
    SLEEP.register(manager, |_context, request: SleepRequest| async move {
        tokio::time::sleep(Duration::from_millis(request.ms.into())).await;
        Ok(SleepResponse { slept_ms: request.ms })
    })?;
    let echo = Route::new(ECHO_STREAM).name("EchoStream");
    manager.register_stream(echo, |_context, _payload, mut input, mut output| async move {
        while let Some(message) = input.next().await {
            output.send(message?).await?;
        }
        Ok(())
    })?;
    let sink = Route::new(STREAM_SINK).name("StreamSink");
    manager.register_stream(sink, |_context, _payload, mut input, mut output| async move {
        let mut count = SinkCount::default();
        while let Some(message) = input.next().await {
            count.messages += 1;
            count.bytes += message?.len() as u64;
        }
        Ok(output.send(count.to_wire()).await?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sink_count_round_trips_and_other_bytes_are_rejected() {
        let count = SinkCount { messages: 3, bytes: 1_536 };
        assert_eq!(SinkCount::from_wire(&count.to_wire()), Some(count));
        assert_eq!(SinkCount::from_wire(&count.to_wire()[1..]), None);
        assert_eq!(SinkCount::from_wire(&[0; 17]), None);
    }
}
