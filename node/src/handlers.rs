//! What every node serves: two handlers and two streams to try the grid with, and to measure it.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use grid::{HandlerId, Manager, RegisterError, Route, SingleHandler};
use serde::{Deserialize, Serialize};

/// Answers with what it was sent.
pub(crate) const ECHO: HandlerId = HandlerId::new(200);

/// Answers after a while: for trying deadlines and cancellation.
pub(crate) const SLEEP: SingleHandler<SleepRequest, SleepAnswer> =
    SingleHandler::new(HandlerId::new(201), "Sleep");

/// Sends every message of a stream back. 202 and 203 are the demo's.
pub(crate) const ECHO_STREAM: HandlerId = HandlerId::new(204);

/// Takes the messages of a stream, and says at their end how many there were: [`Counted`].
pub(crate) const STREAM_SINK: HandlerId = HandlerId::new(205);

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

/// What [`STREAM_SINK`] took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Counted {
    /// Both numbers, big-endian. By hand, because the messages that are counted are raw bytes, and a
    /// stream is raw or typed both ways.
    fn to_wire(self) -> Bytes {
        let mut wire = BytesMut::with_capacity(size_of::<Self>());
        wire.put_u64(self.messages);
        wire.put_u64(self.bytes);
        wire.freeze()
    }

    /// `None` if that is something else.
    pub(crate) fn from_wire(mut wire: &[u8]) -> Option<Self> {
        let counted = Self { messages: wire.try_get_u64().ok()?, bytes: wire.try_get_u64().ok()? };
        wire.is_empty().then_some(counted)
    }
}

/// Registers all.
pub(crate) fn register(manager: &Manager) -> Result<(), RegisterError> {
    manager.register(Route::new(ECHO).name("Echo"), |_context, payload| async { Ok(payload) })?;
    SLEEP.register(manager, |_context, request: SleepRequest| async move {
        tokio::time::sleep(Duration::from_millis(request.ms.into())).await;
        Ok(SleepAnswer { slept_ms: request.ms })
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
        let mut counted = Counted::default();
        while let Some(message) = input.next().await {
            counted.messages += 1;
            counted.bytes += message?.len() as u64;
        }
        Ok(output.send(counted.to_wire()).await?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_travels_and_nothing_else_is_taken_for_it() {
        let counted = Counted { messages: 3, bytes: 1_536 };
        assert_eq!(Counted::from_wire(&counted.to_wire()), Some(counted));
        assert_eq!(Counted::from_wire(&counted.to_wire()[1..]), None);
        assert_eq!(Counted::from_wire(&[0; 17]), None);
    }
}
