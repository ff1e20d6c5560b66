//! Cost of the wire format: encoding and parsing of a message of each op, frames of many messages,
//! and the checksum alone.
//!
//! Checksums are enabled everywhere, as on the wire; a group of the checksum alone shows its share.
//! The state machines are measured by `machine`, sockets by `echo`.
#![expect(clippy::expect_used, reason = "a benchmark's own inputs are valid")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grid::limits::{Limits, MESSAGES_PER_LOCK, PING_INTERVAL};
use grid::proto::connection::{Connection, Request};
use grid::proto::handshake::{ConnectRequest, ConnectResponse, InstanceId};
use grid::proto::message::{Checksum, Flags, Header, Message, Op, Outgoing, parse_frame};
use grid::time::{Instant, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

/// Payload sizes, in bytes: a lock request, the echo of the other benchmarks, a page, and half a
/// frame. Larger ones would measure memory bandwidth.
const PAYLOAD_BYTES: [usize; 4] = [64, 512, 4 * 1024, 32 * 1024];

/// Payload of each message in a merged frame, in bytes: so short that the largest number of
/// messages fits one frame and the cost per message dominates.
const MERGED_PAYLOAD_BYTES: usize = 64;

/// Messages in a frame: a single one; a moderate load; the most that existing peers merge (P20);
/// and as many as are processed per acquisition of the lock.
const MERGED_MESSAGES: [u64; 4] = [1, 16, 51, MESSAGES_PER_LOCK as u64];

/// The id of a connection's millionth call, which has a typical length on the wire: five bytes.
const MUX_ID: u64 = 1_000_000;

/// The highest number of an op; the lowest is 1.
const LAST_OP: u8 = Op::Merged.number();

/// Setups that criterion keeps at a time. Each is a complete machine, so the default of thousands
/// would fill the memory; enough to amortise reading the clock.
const MACHINES_AT_A_TIME: BatchSize = BatchSize::NumIterations(16);

/// There are many benchmarks of nanoseconds each: a second is a million iterations.
const MEASUREMENT_TIME: Duration = Duration::from_secs(1);
/// Half of criterion's default: a hundred samples of the largest frame would exceed the time.
const SAMPLES: usize = 50;
const WARM_UP_TIME: Duration = Duration::from_millis(300);

const HANDLER: u8 = 200;
const START: Instant = Instant::from_nanos(1_000_000_000);
const WALL: Timestamp = Timestamp::new(1_700_000_000, 0);

criterion_group! {
    name = message;
    config = Criterion::default()
        .warm_up_time(WARM_UP_TIME)
        .measurement_time(MEASUREMENT_TIME)
        .sample_size(SAMPLES);
    targets = encode, parse, build_frame, parse_merged, checksum
}
criterion_main!(message);

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for sample in samples() {
        group.throughput(Throughput::Bytes(sample.outgoing().encoded_len() as u64));
        // Appended to an existing buffer, as the outbox does.
        let mut frame = Vec::new();
        group.bench_function(sample.id(), |bencher| {
            bencher.iter(|| {
                frame.clear();
                black_box(sample.outgoing()).encode(&mut frame);
                black_box(frame.len())
            });
        });
    }
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for sample in samples() {
        let mut bytes = Vec::new();
        sample.outgoing().encode(&mut bytes);
        let bytes = Bytes::from(bytes);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(sample.id(), |bencher| {
            bencher
                .iter(|| Message::parse(black_box(&bytes)).expect("the bytes were just encoded"));
        });
    }
}

/// Queues responses and takes the frame: the callee's part of a batch.
fn build_frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build_frame");
    let response = Ok(Bytes::from(vec![0x5a; MERGED_PAYLOAD_BYTES]));
    for messages in MERGED_MESSAGES {
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
            bencher.iter_batched(
                || connection_serving(messages),
                |mut connection| {
                    for mux_id in 1..=messages {
                        connection.respond(mux_id, &response, START);
                    }
                    let frame = next_frame(&mut connection);
                    (frame, connection)
                },
                MACHINES_AT_A_TIME,
            );
        });
    }
}

fn parse_merged(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse_frame");
    for messages in MERGED_MESSAGES {
        let frame = frame_of_requests(messages);
        // Reused for all frames, as the driver does.
        let mut parsed = Vec::new();
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
            bencher.iter(|| {
                parsed.clear();
                parse_frame(black_box(&frame), &mut parsed).expect("a machine encoded it");
                black_box(parsed.len())
            });
        });
        assert!(
            parsed.is_empty() || parsed.len() as u64 == messages,
            "one frame contains all messages"
        );
    }
}

/// The checksum function alone.
fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("xxh3");
    for length in PAYLOAD_BYTES {
        let bytes = vec![0x5a; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
            bencher.iter(|| xxh3_64(black_box(&bytes)));
        });
    }
}

/// A message to be encoded and parsed.
struct Sample {
    header: Header,
    payload: Bytes,
    /// Whether the payload's length is part of the benchmark id.
    is_sized: bool,
}

impl Sample {
    fn outgoing(&self) -> Outgoing<'_> {
        let Self { header, payload, .. } = self;
        Outgoing { header: *header, payload, subroute: None, checksum: Checksum::On }
    }

    fn id(&self) -> BenchmarkId {
        let op = format!("{:?}", self.header.op);
        match self.is_sized {
            true => BenchmarkId::new(op, self.payload.len()),
            false => BenchmarkId::from_parameter(op),
        }
    }
}

/// Payload of a message, by op.
enum SamplePayload {
    /// The application's payload, of any length.
    Application,
    /// The protocol's payload, of about constant length.
    Protocol(Bytes),
    /// Other messages: measured in groups of their own.
    Messages,
}

/// Builds a message of each op, and one of each length for ops with an application payload.
fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for op in (1..=LAST_OP).map(Op::from_number) {
        let header = header(op);
        match payload_for(op) {
            SamplePayload::Messages => {}
            SamplePayload::Protocol(payload) => {
                samples.push(Sample { header, payload, is_sized: false });
            }
            SamplePayload::Application => samples.extend(PAYLOAD_BYTES.map(|length| {
                let payload = vec![0x5a; length].into();
                Sample { header, payload, is_sized: true }
            })),
        }
    }
    samples
}

/// Returns the payload of an op. Without a wildcard, so that a new op fails to compile.
fn payload_for(op: Op) -> SamplePayload {
    match op {
        Op::ConnectMux | Op::MuxClientMsg | Op::MuxServerMsg | Op::Request | Op::Response => {
            SamplePayload::Application
        }
        Op::Connect => SamplePayload::Protocol(connect()),
        Op::ConnectResponse => SamplePayload::Protocol(connect_response()),
        Op::Ping => SamplePayload::Protocol(ping().payload),
        Op::Pong => SamplePayload::Protocol(pong()),
        Op::MuxConnectError => SamplePayload::Protocol(refusal()),
        Op::DisconnectClientMux => SamplePayload::Protocol(Bytes::from_static(b"context canceled")),
        Op::DisconnectServerMux
        | Op::UnblockSrvMux
        | Op::UnblockClMux
        | Op::AckMux
        | Op::Disconnect => SamplePayload::Protocol(Bytes::new()),
        Op::Merged | Op::Unknown(_) => SamplePayload::Messages,
    }
}

fn header(op: Op) -> Header {
    let header = Header::new(MUX_ID, op);
    match op {
        Op::Request | Op::ConnectMux => {
            Header { handler: HANDLER, deadline_ms: 60_000, flags: Flags::EOF, ..header }
        }
        _ => header,
    }
}

fn connect() -> Bytes {
    let connect = ConnectRequest {
        id: InstanceId::from_bytes([9; 16]),
        host: "http://server-17.storage.example:9000".to_owned(),
        time: WALL,
        token: "a".repeat(200), // about as long as a token with a signature is
    };
    payload_of(connect.encode().expect("the fields are short"))
}

fn connect_response() -> Bytes {
    let response = ConnectResponse::accepted(InstanceId::from_bytes([8; 16]));
    payload_of(response.encode().expect("the fields are short"))
}

fn payload_of(message: Vec<u8>) -> Bytes {
    Message::parse(&message.into()).expect("the bytes were just encoded").payload
}

/// Takes the ping of an idle machine.
fn ping() -> Message {
    let mut connection = open();
    connection.handle_timeout(START + PING_INTERVAL, WALL);
    next_message(&mut connection)
}

fn pong() -> Bytes {
    let mut connection = open();
    connection.handle_message(ping(), START);
    next_message(&mut connection).payload
}

fn refusal() -> Bytes {
    let mut connection = connection_serving(1);
    connection.refuse(1, "overloaded: 65536 calls are served already");
    next_message(&mut connection).payload
}

fn open() -> Connection {
    Connection::new(&Limits::default(), Checksum::On, START)
}

/// Builds a machine with `calls` inbound calls, whose ids begin at 1.
fn connection_serving(calls: u64) -> Connection {
    let mut connection = open();
    for mux_id in 1..=calls {
        let header = Header { handler: HANDLER, ..Header::new(mux_id, Op::Request) };
        let message = Message { header, payload: Bytes::new(), subroute: None };
        connection.handle_message(message, START);
    }
    connection
}

/// Builds a frame of `calls` requests.
fn frame_of_requests(calls: u64) -> Bytes {
    let mut connection = Connection::<()>::new(&Limits::default(), Checksum::On, START);
    let request = Request {
        handler: HANDLER,
        subroute: None,
        payload: Bytes::from(vec![0x5a; MERGED_PAYLOAD_BYTES]),
        deadline: START + Duration::from_secs(60),
    };
    for _ in 0..calls {
        connection.call((), &request, START).expect("below the limit");
    }
    next_frame(&mut connection)
}

fn next_message(connection: &mut Connection) -> Message {
    Message::parse(&next_frame(connection)).expect("a machine encoded it")
}

fn next_frame<S>(connection: &mut Connection<S>) -> Bytes {
    connection.poll_transmit(START).expect("a message is queued").into_bytes()
}
