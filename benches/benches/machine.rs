//! Cost of the state machines: calls and their responses through both ends of a connection.
//!
//! Two pure machines exchange frames in memory: no socket, no lock, no task, no waker. `echo` adds
//! the I/O shell and the kernel; `message` leaves out the state of each call.
#![expect(clippy::expect_used, reason = "a benchmark's own inputs are valid")]

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grid::limits::Limits;
use grid::proto::connection::{Connection, Event, Request, Slot};
use grid::proto::message::{Checksum, Message, parse_frame};
use grid::time::{Instant, Timestamp};

/// Payload of each call, in bytes: that of the echo benchmark, for comparison.
const PAYLOAD_BYTES: usize = 512;

/// Calls in flight: a single one, where nothing is merged; a usual load; and one that needs more
/// than a frame in each direction. The same as in `echo`.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Clock advance per call: a million calls per second. Above zero, so that deadlines and pings come
/// due.
const TIME_PER_CALL: Duration = Duration::from_micros(1);

/// The default deadline of an application's calls.
const DEADLINE: Duration = Duration::from_secs(60);

const HANDLER: u8 = 200;
const WALL: Timestamp = Timestamp::new(1_700_000_000, 0);

criterion_group!(machine, round_trip);
criterion_main!(machine);

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine");
    for in_flight in IN_FLIGHT {
        group.throughput(Throughput::Elements(in_flight as u64));
        let id = BenchmarkId::new("call_and_response", in_flight);
        group.bench_function(id, |bencher| {
            let mut pair = Pair::new();
            bencher.iter(|| {
                let responses = pair.round_trip(in_flight);
                assert_eq!(responses, in_flight, "each call receives a response");
            });
        });
    }
}

/// Both ends of a connection.
struct Pair {
    caller: Connection,
    callee: Connection,
    now: Instant,
    payload: Bytes,
    /// Buffer for parsed messages, reused for all frames as a driver does.
    messages: Vec<Message>,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let open = || Connection::new(&Limits::default(), Checksum::On, now);
        let payload = vec![0x5a; PAYLOAD_BYTES].into();
        Self { caller: open(), callee: open(), now, payload, messages: Vec::new() }
    }

    /// Makes `calls` concurrent calls. Returns how many received a response with their payload.
    fn round_trip(&mut self, calls: usize) -> usize {
        for slot in 0..calls {
            self.now = self.now + TIME_PER_CALL;
            let request = Request {
                handler: HANDLER,
                subroute: None,
                payload: self.payload.clone(),
                deadline: self.now + DEADLINE,
            };
            self.caller.call(Slot(slot), &request, self.now).expect("below the limit");
        }
        self.caller.handle_timeout(self.now, WALL);
        self.callee.handle_timeout(self.now, WALL);
        transfer(&mut self.caller, &mut self.callee, &mut self.messages, self.now);
        self.serve();
        transfer(&mut self.callee, &mut self.caller, &mut self.messages, self.now);
        self.count_responses()
    }

    fn serve(&mut self) {
        while let Some(event) = self.callee.poll_event() {
            if let Event::Incoming(incoming) = event {
                self.callee.respond(incoming.mux_id, &Ok(incoming.payload), self.now);
            }
        }
    }

    fn count_responses(&mut self) -> usize {
        let mut responses = 0;
        while let Some(event) = self.caller.poll_event() {
            if let Event::CallEnded { outcome: Ok(payload), .. } = event {
                responses += usize::from(payload.len() == PAYLOAD_BYTES);
            }
        }
        responses
    }
}

/// Transfers all queued messages of `from` to `to`.
fn transfer(from: &mut Connection, to: &mut Connection, messages: &mut Vec<Message>, now: Instant) {
    while let Some(transmit) = from.poll_transmit(now) {
        parse_frame(&transmit.into_bytes(), messages).expect("a machine encoded it");
        for message in messages.drain(..) {
            to.handle_message(message, now);
        }
    }
    drop(from.take_retired_payloads());
}
