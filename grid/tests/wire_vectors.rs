//! The bytes of the protocol, checked against `vectors.json` in both directions.
//!
//! Each vector was recorded from a MinIO peer. Parsing it gives its fields, and encoding its
//! fields gives its bytes. Where the machine of a connection sends or receives such a message, it
//! is driven to exactly these bytes. A vector that is in the file but not listed here makes every
//! test fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{
    CallOutcome, Connection, End, Event, Incoming, Request, Respond, Slot,
};
use grid::proto::handshake::{ConnectRequest, ConnectResponse, InstanceId};
use grid::proto::message::{Checksum, Flags, Header, Message, Op, Outgoing, parse_frame};
use grid::proto::subroute::SubrouteId;
use grid::time::{Instant, Timestamp};
use serde_json::Value;

/// 2024-01-02T03:04:05.678901234Z, the time in every vector that has one.
const WALL: Timestamp = Timestamp::new(1_704_164_645, 678_901_234);

const NAMES: [&str; 22] = [
    "connect",
    "connect-response-accepted",
    "connect-response-rejected",
    "ping-connection",
    "pong-connection",
    "request",
    "request-subroute",
    "request-widths",
    "response-ok",
    "response-error",
    "response-zero",
    "response-nil",
    "mux-connect-error-request",
    "connect-mux",
    "mux-client-msg",
    "mux-client-eof",
    "disconnect-server-mux",
    "ack-mux",
    "unblock-cl-mux",
    "mux-server-msg",
    "mux-server-error",
    "merged-2",
];

struct Vector {
    name: String,
    bytes: Bytes,
    fields: Value,
}

impl Vector {
    fn number(&self, field: &str) -> u64 {
        self.fields[field].as_u64().unwrap_or_else(|| panic!("{}: no number {field}", self.name))
    }

    fn text(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap_or_else(|| panic!("{}: no text {field}", self.name))
    }

    /// Returns the header that the fields describe, with all flags of the wire.
    fn header(&self) -> Header {
        let byte = |field| u8::try_from(self.number(field)).expect("fits a byte");
        let word = |field| u32::try_from(self.number(field)).expect("fits 32 bits");
        Header {
            mux_id: self.number("MuxID"),
            sequence: word("Seq"),
            deadline_ms: word("DeadlineMS"),
            handler: byte("Handler"),
            op: Op::from_number(byte("Op")),
            flags: Flags::from_bits(byte("Flags")),
        }
    }

    fn subroute(&self) -> Option<SubrouteId> {
        let text = self.fields.get("Subroute")?.as_str().expect("a text");
        Some(SubrouteId::new(self.header().handler, text))
    }

    fn checksum(&self) -> Checksum {
        match self.header().flags.contains(Flags::CRC) {
            true => Checksum::On,
            false => Checksum::Off,
        }
    }

    /// Returns the whole messages inside a merged one.
    fn inner(&self) -> Option<Vec<Bytes>> {
        let inner = self.fields.get("InnerHex")?.as_array().expect("a list");
        Some(inner.iter().map(|hex| unhex(hex.as_str().expect("a text"))).collect())
    }
}

fn unhex(hex: &str) -> Bytes {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads all vectors; fails if the file has others than listed here.
fn vectors() -> Vec<Vector> {
    let file: Value = serde_json::from_str(include_str!("vectors.json")).expect("JSON");
    let vectors: Vec<_> = file
        .as_array()
        .expect("a list of vectors")
        .iter()
        .map(|vector| Vector {
            name: vector["name"].as_str().expect("a name").to_owned(),
            bytes: unhex(vector["hex"].as_str().expect("bytes")),
            fields: vector["fields"].clone(),
        })
        .collect();
    let names: Vec<_> = vectors.iter().map(|vector| vector.name.as_str()).collect();
    assert_eq!(names, NAMES, "the file and the list of covered vectors differ");
    vectors
}

fn vector(name: &str) -> Vector {
    vectors()
        .into_iter()
        .find(|vector| vector.name == name)
        .unwrap_or_else(|| panic!("no vector {name}"))
}

fn encoded(message: &Outgoing<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert_eq!(bytes.len(), message.encoded_len(), "the announced length is exact");
    bytes
}

#[test]
fn p05_p08_every_vector_parses_to_its_fields() {
    for vector in vectors() {
        let name = &vector.name;
        let mut messages = Vec::new();
        parse_frame(&vector.bytes, &mut messages).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(inner) = vector.inner() {
            let inner: Vec<_> =
                inner.iter().map(|bytes| Message::parse(bytes).expect("a message")).collect();
            assert_eq!(messages, inner, "{name}");
            assert_eq!(messages.len() as u64, vector.number("Seq"), "{name}");
            assert!(Message::parse(&vector.bytes).is_err(), "{name}: not a bare message");
            continue;
        }
        let message = Message::parse(&vector.bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(messages, std::slice::from_ref(&message), "{name}: bare in a frame");
        assert_eq!(message.header, vector.header(), "{name}");
        assert_eq!(format!("{:?}", message.header.op), vector.text("OpName"), "{name}");
        assert_eq!(message.payload, unhex(vector.text("PayloadHex")), "{name}");
        let is_absent = vector.fields["PayloadNilAfterParse"].as_bool().expect("a bool");
        assert_eq!(message.present_payload().is_none(), is_absent, "{name}: absent or empty");
        assert_eq!(message.subroute, vector.subroute(), "{name}");
        if let Some(subroute) = message.subroute {
            assert_eq!(hex(subroute.as_bytes()), vector.text("SubrouteHex"), "{name}");
        }
    }
}

#[test]
fn p05_p08_the_fields_of_every_vector_encode_to_its_bytes() {
    for vector in vectors() {
        let mut bytes = encoded(&Outgoing {
            header: vector.header(),
            payload: &unhex(vector.text("PayloadHex")),
            subroute: vector.subroute().as_ref(),
            checksum: vector.checksum(),
        });
        for inner in vector.inner().unwrap_or_default() {
            bytes.extend_from_slice(&[0xc4, u8::try_from(inner.len()).expect("short")]);
            bytes.extend_from_slice(&inner);
        }
        assert_eq!(hex(&bytes), hex(&vector.bytes), "{}", vector.name);
    }
}

#[test]
fn p06_the_names_of_the_flags_are_those_of_the_vectors() {
    for vector in vectors() {
        let ours = format!("{:?}", vector.header().flags).replace(", ", ",");
        let theirs = vector.text("FlagNames").replace("ERR", "ERROR").replace("SUB", "SUBROUTE");
        assert_eq!(ours, theirs, "{}", vector.name);
    }
}

#[test]
fn p10_connect_holds_its_fields_in_both_directions() {
    let vector = vector("connect");
    let request = ConnectRequest {
        id: instance_id(&vector),
        host: vector.text("Host").to_owned(),
        time: WALL,
        token: vector.text("Token").to_owned(),
    };
    assert_eq!(ConnectRequest::parse(&vector.bytes), Ok(request.clone()));
    assert_eq!(hex(&request.encode().expect("encodes")), hex(&vector.bytes));
}

#[test]
fn p11_connect_response_holds_its_fields_in_both_directions() {
    let accepted = vector("connect-response-accepted");
    let rejected = vector("connect-response-rejected");
    let reason = rejected.text("RejectedReason");
    for (vector, response) in [
        (&accepted, ConnectResponse::accepted(instance_id(&accepted))),
        (&rejected, ConnectResponse::rejected(instance_id(&rejected), reason)),
    ] {
        assert_eq!(ConnectResponse::parse(&vector.bytes), Ok(response.clone()));
        assert_eq!(hex(&response.encode().expect("encodes")), hex(&vector.bytes));
    }
}

fn instance_id(vector: &Vector) -> InstanceId {
    let bytes = unhex(vector.text("ID"));
    InstanceId::from_bytes(bytes[..].try_into().expect("16 bytes"))
}

// ---- the machine of a connection, driven to the bytes of the vectors ----

const START: Instant = Instant::from_nanos(1_000_000_000);

fn connection() -> Connection {
    Connection::new(&Limits::default(), Checksum::On, START)
}

fn receive(connection: &mut Connection, frame: &Bytes) {
    let mut messages = Vec::new();
    parse_frame(frame, &mut messages).expect("a frame of the vectors");
    for message in messages {
        connection.handle_message(message, START);
    }
}

fn call(connection: &mut Connection, handler: u8, subroute: Option<&str>, payload: &[u8]) -> u64 {
    let request = Request {
        handler,
        subroute: subroute.map(|text| SubrouteId::new(handler, text)),
        payload: Bytes::copy_from_slice(payload),
        deadline: START + Duration::from_secs(5),
    };
    connection.call(Slot(77), &request, START).expect("the call starts")
}

/// Makes a connection with one live call whose id is `mux_id`; everything so far is written.
fn connection_with_call(mux_id: u64) -> Connection {
    let mut connection = connection();
    for _ in 1..mux_id {
        let before = call(&mut connection, 78, None, b"hello");
        connection.cancel(before);
    }
    assert_eq!(call(&mut connection, 78, None, b"hello"), mux_id, "ids grow by one");
    while connection.poll_transmit(START).is_some() {}
    connection
}

fn transmitted(connection: &mut Connection) -> String {
    let transmit = connection.poll_transmit(START).expect("something was queued");
    assert_eq!(connection.poll_transmit(START), None, "one frame");
    hex(&transmit.into_bytes())
}

/// Delivers a call to `connection`; its request must be the only event.
fn receive_request(connection: &mut Connection, request: &Bytes) -> Incoming {
    receive(connection, request);
    match (connection.poll_event(), connection.poll_event()) {
        (Some(Event::Incoming(incoming)), None) => incoming,
        other => panic!("{other:?} instead of one request"),
    }
}

fn ended(outcome: CallOutcome) -> Option<Event> {
    Some(Event::CallEnded { slot: Slot(77), outcome })
}

/// Encodes a request for [`serve`] where the vectors have a response but not its request.
fn request(mux_id: u64, handler: u8, deadline_ms: u32) -> Bytes {
    let flags = Flags::EOF;
    let header = Header { handler, deadline_ms, flags, ..Header::new(mux_id, Op::Request) };
    let checksum = Checksum::On;
    encoded(&Outgoing { header, payload: b"", subroute: None, checksum }).into()
}

#[test]
fn p12_pings_and_pongs_of_a_connection_match_the_vectors() {
    let (ping, pong) = (vector("ping-connection"), vector("pong-connection"));
    let mut connection = connection();

    let due = connection.poll_timeout().expect("a ping will be due");
    assert_eq!(due, START + Duration::from_secs(10));
    connection.handle_timeout(due, WALL);
    assert_eq!(transmitted(&mut connection), hex(&ping.bytes));

    receive(&mut connection, &ping.bytes);
    assert_eq!(transmitted(&mut connection), hex(&pong.bytes));

    assert_eq!(connection.ping_round_trip(), None);
    let message = Message::parse(&pong.bytes).expect("a pong");
    connection.handle_message(message, due + Duration::from_millis(3));
    assert_eq!(connection.ping_round_trip(), Some(Duration::from_millis(3)));
    assert_eq!(connection.poll_event(), None);
}

#[test]
fn p13_a_request_is_sent_and_received_like_the_vector() {
    let vector = vector("request");
    let mut caller = connection();
    call(&mut caller, 78, None, b"hello");
    assert_eq!(transmitted(&mut caller), hex(&vector.bytes));

    let incoming = receive_request(&mut connection(), &vector.bytes);
    assert_eq!((incoming.mux_id, incoming.handler), (1, 78));
    assert_eq!(&incoming.payload[..], b"hello");
    assert_eq!(incoming.subroute, None);
    assert_eq!(incoming.deadline, Some(START + Duration::from_secs(5)));
}

#[test]
fn p19_a_request_to_a_subroute_is_sent_and_received_like_the_vector() {
    let vector = vector("request-subroute");
    let mut caller = connection_with_call(4);
    assert_eq!(call(&mut caller, 78, Some("drive1"), b"hello"), 5);
    assert_eq!(transmitted(&mut caller), hex(&vector.bytes));

    let incoming = receive_request(&mut connection(), &vector.bytes);
    assert_eq!(incoming.subroute, Some(SubrouteId::new(78, "drive1")));
}

#[test]
fn p05_a_request_with_the_widest_fields_is_served() {
    let vector = vector("request-widths");
    let incoming = receive_request(&mut connection(), &vector.bytes);
    assert_eq!(incoming.mux_id, 0xfedc_ba98_7654_3210);
    assert_eq!(incoming.deadline, Some(START + Duration::from_millis(u64::from(u32::MAX))));
}

#[test]
fn p13_responses_are_sent_and_received_like_the_vectors() {
    for (name, response) in [
        ("response-ok", Ok(Bytes::from_static(b"world"))),
        ("response-error", Err("remote says no".into())),
        ("response-zero", Ok(Bytes::new())),
    ] {
        let vector = vector(name);
        let mut server = connection();
        receive_request(&mut server, &request(1, 78, 5_000));
        let respond = server.respond(1, &response, START);
        assert_eq!(respond, Respond::Accepted, "{name}");
        assert_eq!(transmitted(&mut server), hex(&vector.bytes), "{name}");

        let mut caller = connection_with_call(1);
        receive(&mut caller, &vector.bytes);
        let outcome = response.map_err(|error| End::RemoteError(error.message().into()));
        assert_eq!(caller.poll_event(), ended(outcome), "{name}");
    }
}

#[test]
fn p14_an_absent_response_is_received_as_an_empty_one() {
    let mut caller = connection_with_call(1);
    receive(&mut caller, &vector("response-nil").bytes);
    assert_eq!(caller.poll_event(), ended(Ok(Bytes::new())));
}

#[test]
fn p13_an_unknown_handler_is_refused_like_the_vector() {
    let vector = vector("mux-connect-error-request");
    let reason = vector.text("Error");

    let mut server = connection();
    receive_request(&mut server, &request(9, 65, 5_000));
    server.refuse(9, reason);
    assert_eq!(transmitted(&mut server), hex(&vector.bytes));

    let mut caller = connection_with_call(9);
    receive(&mut caller, &vector.bytes);
    assert_eq!(caller.poll_event(), ended(Err(End::UnknownHandler(reason.into()))));
}

#[test]
fn p14_a_cancellation_like_the_vector_ends_the_inbound_call() {
    let mut server = connection();
    receive_request(&mut server, &request(20, 78, 5_000));
    receive(&mut server, &vector("disconnect-server-mux").bytes);
    assert_eq!(server.poll_event(), Some(Event::Cancel { mux_id: 20 }));
    let respond = server.respond(20, &Ok(Bytes::new()), START);
    assert_eq!(respond, Respond::CallEnded, "the call was cancelled");
    assert_eq!(server.poll_transmit(START), None);
}

#[test]
fn p20_a_request_and_a_response_are_merged_like_the_vector() {
    let vector = vector("merged-2");
    let mut connection = connection();
    receive_request(&mut connection, &request(1, 78, 0));
    call(&mut connection, 78, None, b"hello");
    connection.respond(1, &Ok(Bytes::from_static(b"world")), START);
    assert_eq!(transmitted(&mut connection), hex(&vector.bytes));

    // Received: the request is served, and the response ends the call with the same mux id.
    receive(&mut connection, &vector.bytes);
    let served = connection.poll_event();
    assert!(matches!(served, Some(Event::Incoming(Incoming { mux_id: 1, .. }))), "{served:?}");
    let responded = Ok(Bytes::from_static(b"world"));
    assert_eq!(connection.poll_event(), ended(responded));
}

#[test]
fn p15_p18_stream_messages_of_the_vectors_end_no_connection_and_no_call() {
    let streams = ["connect-mux", "mux-client-msg", "mux-client-eof", "ack-mux", "unblock-cl-mux"];
    for name in streams.into_iter().chain(["mux-server-msg", "mux-server-error"]) {
        let mut connection = connection_with_call(1);
        receive(&mut connection, &vector(name).bytes);
        receive(&mut connection, &vector("response-ok").bytes);
        let events: Vec<_> = std::iter::from_fn(|| connection.poll_event()).collect();
        assert!(!events.iter().any(|event| matches!(event, Event::Closed(_))), "{name}");
        let responded = ended(Ok(Bytes::from_static(b"world")));
        assert_eq!(events.into_iter().next_back(), responded, "{name}");
    }
}
