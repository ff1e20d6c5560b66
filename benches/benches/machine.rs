//! What the state machines cost: calls and their answers through both ends of a connection.
//!
//! Two pure machines whose frames are handed over by hand: no socket, no lock, no task, no waker.
//! What is missing here to `echo` is the shell and the kernel; what is missing to `message` is what
//! a connection remembers of each call.
#![expect(clippy::expect_used, reason = "what a benchmark makes for itself is well-formed")]

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grid::limits::Limits;
use grid::proto::connection::{Connection, Event, Outcome, Request, Slot};
use grid::proto::message::{Checksum, Message, parse_frame};
use grid::time::{Instant, Timestamp};

/// The payload of the echo benchmarks, so that theirs can be compared with these.
const PAYLOAD_BYTES: usize = 512;

/// Calls under way: alone, where nothing is merged; a usual load; and one that takes more than a
/// frame each way. The same as in `echo`.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// What a call moves the machines' clock by: a million of them a second. It must move, or no
/// deadline and no ping would ever be due.
const TIME_PER_CALL: Duration = Duration::from_micros(1);

/// The default of an application's calls.
const DEADLINE: Duration = Duration::from_secs(60);

const HANDLER: u8 = 200;
const WALL: Timestamp = Timestamp::new(1_700_000_000, 0);

criterion_group!(machine, round_trip);
criterion_main!(machine);

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine");
    for in_flight in IN_FLIGHT {
        group.throughput(Throughput::Elements(in_flight as u64));
        let id = BenchmarkId::new("call_and_answer", in_flight);
        group.bench_function(id, |bencher| {
            let mut pair = Pair::new();
            bencher.iter(|| {
                let answered = pair.round_trip(in_flight);
                assert_eq!(answered, in_flight, "each call is answered");
            });
        });
    }
}

/// Both ends of a connection.
struct Pair {
    client: Connection,
    server: Connection,
    now: Instant,
    payload: Bytes,
    /// Messages that are being handed over. One for all frames, as a driver has it.
    messages: Vec<Message>,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let open = || Connection::new(&Limits::default(), Checksum::On, now);
        let payload = vec![0x5a; PAYLOAD_BYTES].into();
        Self { client: open(), server: open(), now, payload, messages: Vec::new() }
    }

    /// Makes so many calls at once. Returns how many of them were answered with their payload.
    fn round_trip(&mut self, calls: usize) -> usize {
        for slot in 0..calls {
            self.now = self.now + TIME_PER_CALL;
            let request = Request {
                handler: HANDLER,
                subroute: None,
                payload: self.payload.clone(),
                deadline: self.now + DEADLINE,
            };
            self.client.call(Slot(slot), &request, self.now).expect("far fewer than the limit");
        }
        self.client.handle_timeout(self.now, WALL);
        self.server.handle_timeout(self.now, WALL);
        hand_over(&mut self.client, &mut self.server, &mut self.messages, self.now);
        self.serve();
        hand_over(&mut self.server, &mut self.client, &mut self.messages, self.now);
        self.count_answers()
    }

    fn serve(&mut self) {
        while let Some(event) = self.server.poll_event() {
            if let Event::Serve(incoming) = event {
                self.server.answer(incoming.mux_id, &Ok(incoming.payload), self.now);
            }
        }
    }

    fn count_answers(&mut self) -> usize {
        let mut answered = 0;
        while let Some(event) = self.client.poll_event() {
            if let Event::Ended { outcome: Outcome::Response(payload), .. } = event {
                answered += usize::from(payload.len() == PAYLOAD_BYTES);
            }
        }
        answered
    }
}

/// Everything that `from` has to say, to `to`.
fn hand_over(
    from: &mut Connection,
    to: &mut Connection,
    messages: &mut Vec<Message>,
    now: Instant,
) {
    while let Some(transmit) = from.poll_transmit(now) {
        parse_frame(&transmit.into_bytes(), messages).expect("a machine made it");
        for message in messages.drain(..) {
            to.handle_message(message, now);
        }
    }
    drop(from.take_spent());
}
