//! Sequences ([P16]) and credits ([P17]) of each stream as seen on the wire, independent of the
//! machines' state.
//!
//! [P16]: grid::protocol#p16
//! [P17]: grid::protocol#p17

use grid::proto::connection::StreamSide;
use grid::proto::message::{Flags, Message, Op};

use super::Pair;
use super::operation::EndpointId;
use super::stream_model::other_side;

impl Pair {
    /// Records a message of `sender` that is about to be delivered.
    pub(super) fn record_on_wire(&mut self, sender: EndpointId, message: &Message) {
        let side = match message.header.op {
            Op::Ping if message.header.mux_id == 0 => return,
            Op::ConnectMux | Op::MuxClientMsg | Op::UnblockSrvMux | Op::Ping => StreamSide::Caller,
            Op::AckMux | Op::MuxServerMsg | Op::UnblockClMux => StreamSide::Callee,
            _ => return,
        };
        let caller = match side {
            StreamSide::Caller => sender,
            StreamSide::Callee => sender.other(),
        };
        let token = self.tokens.get(&(caller, message.header.mux_id));
        let stream = &mut self.streams[*token.expect("a stream that was opened")];
        let (capacity, peer_half) = (stream.capacity_from(side), stream.half(other_side(side)));
        let (peer_data, peer_credits) = (peer_half.wire.data, peer_half.wire.credits);
        let half = stream.half_mut(side);
        let (sequence, op) = (message.header.sequence, message.header.op);

        assert_eq!(sequence, half.wire.messages, "{op:?} in sequence (P16)");
        let is_first = matches!(op, Op::ConnectMux | Op::AckMux);
        assert_eq!(
            is_first,
            sequence == 0,
            "{op:?} opens the stream, and nothing precedes it (P15, B20)"
        );
        half.wire.messages += 1;
        match op {
            Op::MuxClientMsg | Op::MuxServerMsg => {
                half.wire.data += 1;
                let in_flight = half.wire.data - peer_credits;
                assert!(in_flight <= capacity, "{in_flight} messages without credit (P17)");
            }
            Op::UnblockSrvMux | Op::UnblockClMux => {
                half.wire.credits += 1;
                let taken = if half.is_discarding { peer_data } else { half.received };
                assert!(
                    half.wire.credits <= taken,
                    "credits are granted for received messages only (P17)"
                );
            }
            Op::ConnectMux => {
                let says_no_input = message.header.flags.contains(Flags::EOF);
                assert_eq!(says_no_input, capacity == 0, "no request side (B26)");
            }
            _ => {}
        }
    }
}
