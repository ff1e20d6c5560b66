//! The driver's user data of what is outstanding, for the driver's own checks.

use super::{Connection, StreamId, StreamSide};
use crate::proto::inbound::InboundState;
use crate::proto::outbound::OutboundState;

/// The owner of a driver's user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotOwner {
    /// The outbound call with this id.
    Call(u64),
    /// One end of a stream.
    Stream(StreamId),
}

impl<S> Connection<S> {
    /// Returns the driver's user data of all outbound calls, outbound streams and accepted inbound
    /// streams, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (SlotOwner, &S)> {
        let outbound = self.outbound.iter().map(|(mux_id, call)| {
            let owner = match call.state {
                OutboundState::Blocked { .. } | OutboundState::Sent => SlotOwner::Call(mux_id),
                OutboundState::StreamBlocked { .. } | OutboundState::Stream { .. } => {
                    SlotOwner::Stream(StreamId { side: StreamSide::Caller, mux_id })
                }
            };
            (owner, &call.slot)
        });
        let inbound = self.inbound.iter().filter_map(|(mux_id, call)| match &call.state {
            InboundState::Stream(inbound) => {
                let id = StreamId { side: StreamSide::Callee, mux_id };
                Some((SlotOwner::Stream(id), &inbound.slot))
            }
            InboundState::Running | InboundState::Blocked { .. } | InboundState::Opening { .. } => {
                None
            }
        });
        outbound.chain(inbound)
    }
}
