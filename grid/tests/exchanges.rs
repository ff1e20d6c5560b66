//! Canonical exchanges of two machines, each a sequence diagram in `snapshots`: the rules of
//! PROTOCOL.md in action. A diagram that changes is a change of the protocol, or a mistake.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod exchange;
mod machine;

use std::time::Duration;

use bytes::Bytes;
use exchange::{Diagram, Endpoint, Exchange};
use grid::name::Name;
use grid::proto::connection::Capacities;
use grid::proto::handshake::{Acceptor, ConnectRequest, ConnectResponse, InstanceId};
use grid::proto::message::Message;
use grid::time::Timestamp;

const UNKNOWN: &str = "Invalid Handler for type: 7";

/// Compares a diagram with the accepted one.
fn assert_diagram(name: &str, description: &str, diagram: &Diagram) {
    let settings = {
        let mut settings = insta::Settings::clone_current();
        settings.set_description(description);
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        settings
    };
    settings.bind(|| insta::assert_snapshot!(name, diagram.text()));
}

#[test]
fn p13_request() {
    let mut exchange = Exchange::new();
    let first = exchange.call(b"hello");
    let second = exchange.call(b"hello?");
    exchange.deliver_all();
    exchange.respond(second, &Err("out of disk".into()));
    exchange.respond(first, &Ok(Bytes::from_static(b"world")));
    exchange.deliver_all();
    assert_diagram(
        "request",
        "P13: two requests, one of which fails; responses in any order",
        &exchange.diagram,
    );
}

#[test]
fn p13_b12_unknown_handler() {
    let mut exchange = Exchange::new();
    let request = exchange.call(b"hello");
    exchange.deliver_all();
    exchange.refuse(request, UNKNOWN);
    exchange.deliver_all();
    let (stream, _) = exchange.open(Capacities { input: 1, output: 1 });
    exchange.send(stream, "early");
    exchange.deliver_all();
    exchange.refuse(stream.mux_id, UNKNOWN);
    exchange.deliver_all();
    assert_diagram(
        "unknown_handler",
        "P13, B12: a request and a stream that are refused",
        &exchange.diagram,
    );
}

#[test]
fn p14_request_cancelled() {
    let mut exchange = Exchange::new();
    let cancelled = exchange.call(b"hello");
    let late = exchange.call(b"hello?");
    exchange.deliver_all();
    exchange.cancel(cancelled);
    exchange.deliver_all();
    exchange.respond(cancelled, &Ok(Bytes::from_static(b"unwanted")));

    exchange.diagram.divider("a response and a cancellation cross");
    exchange.respond(late, &Ok(Bytes::from_static(b"world")));
    exchange.cancel(late);
    exchange.deliver_all();
    assert_diagram(
        "request_cancelled",
        "P14: a cancelled request, and one whose response was on its way",
        &exchange.diagram,
    );
}

#[test]
fn p17_b21_back_pressure() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(1, 1);
    exchange.send(caller, "c1");
    exchange.send(caller, "c2");
    exchange.deliver_all();
    exchange.receive(handler);
    exchange.deliver_all();
    exchange.receive(handler);
    exchange.send(handler, "s1");
    exchange.send(handler, "s2");
    exchange.deliver_all();
    exchange.receive(caller);
    exchange.deliver_all();
    exchange.respond(handler.mux_id, &Ok(Bytes::new()));
    exchange.deliver_all();
    exchange.receive(caller);
    exchange.deliver_all();
    assert_diagram(
        "stream_back_pressure",
        "P15 to P18: a stream with one credit each way, from its opening to its end",
        &exchange.diagram,
    );
}

#[test]
fn p18_b25_stream_cancelled() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(2, 2);
    exchange.send(handler, "s1");
    exchange.deliver_all();
    exchange.diagram.divider("a message and a cancellation cross");
    exchange.send(handler, "s2");
    exchange.cancel(caller.mux_id);
    let crossing = exchange.transmit(Endpoint::B);
    exchange.deliver_all();
    for message in crossing {
        exchange.diagram.message(Endpoint::B, &message);
        let now = exchange.now();
        exchange.machine(Endpoint::A).handle_message(message, now);
    }
    exchange.deliver_all();
    exchange.send(handler, "s3");
    exchange.respond(handler.mux_id, &Ok(Bytes::new()));
    assert_diagram(
        "stream_cancelled",
        "P18, B25: a stream that is cancelled while a message is on its way",
        &exchange.diagram,
    );
}

#[test]
fn p18_b25_half_close() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(2, 2);
    exchange.send(caller, "last");
    exchange.finish(caller);
    exchange.deliver_all();
    exchange.receive(handler);
    exchange.receive(handler);
    exchange.deliver_all();
    exchange.send(handler, "s1");
    exchange.deliver_all();
    exchange.receive(caller);
    exchange.deliver_all();
    exchange.send(handler, "s2");
    exchange.respond(handler.mux_id, &Ok(Bytes::new()));
    exchange.deliver_all();
    assert_diagram(
        "stream_half_close",
        "P18, B25: the caller finishes sending and goes on receiving",
        &exchange.diagram,
    );
}

#[test]
fn b05_b23_connection_lost() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(1, 2);
    exchange.send(handler, "s1");
    exchange.send(caller, "c1");
    exchange.deliver_all();
    exchange.send(handler, "s2");
    exchange.send(caller, "c2");
    exchange.cut();
    assert_diagram(
        "connection_lost",
        "B05, B23: a connection ends in mid-stream; messages that had arrived are still received",
        &exchange.diagram,
    );
}

#[test]
fn p18_b24_error_without_credit() {
    let mut exchange = Exchange::new();
    let (_, handler) = exchange.open_and_accept(0, 1);
    exchange.send(handler, "s1");
    exchange.respond(handler.mux_id, &Err("out of disk".into()));
    exchange.deliver_all();
    let (_, handler) = exchange.open_and_accept(0, 1);
    exchange.respond(handler.mux_id, &Err("out of disk".into()));
    exchange.deliver_all();
    assert_diagram(
        "stream_error",
        "P18, B24: an error after a message that is not received yet, and one that has credit",
        &exchange.diagram,
    );
}

#[test]
fn b07_stream_ping() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(1, 1);
    exchange.advance_clock(15);
    exchange.send(caller, "c1");
    exchange.deliver_all();
    exchange.receive(handler);
    exchange.deliver_all();
    exchange.advance_clock(15);
    assert_diagram(
        "stream_ping",
        "P12, P16, P18, B07: the connection's pings each 10 s, the stream's each 15 s",
        &exchange.diagram,
    );
}

// ---- the handshake ----

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// Dials `local`, whose clock shows 1,000 s, with `request`.
fn dial(diagram: &mut Diagram, title: &str, local: &Name, request: &ConnectRequest) {
    diagram.divider(title);
    let frame = Bytes::from(request.encode().expect("encodes"));
    diagram.message(Endpoint::A, &Message::parse(&frame).expect("a message"));
    let servers = ["http://127.0.0.1:9001", "http://127.0.0.1:9002"].map(name);
    let acceptor = Acceptor {
        local,
        find_remote: &|host| servers.iter().find(|name| name.as_str() == host).cloned(),
        check_token: &|token| if token == "secret" { Ok(()) } else { Err("not accepted".into()) },
        now: Timestamp::new(1_000, 0),
        clock_skew_max: Duration::from_secs(300),
        dialed_host: None,
    };
    let id = InstanceId::from_bytes([0xbb; 16]);
    let response = match acceptor.check(&frame) {
        Ok((host, _)) => {
            diagram.note(Endpoint::B, &format!("accepts the connection from {host}"));
            ConnectResponse::accepted(id)
        }
        Err(refusal) => {
            diagram.note(Endpoint::B, "refuses, and closes the socket");
            ConnectResponse::rejected(id, refusal.to_string())
        }
    };
    let frame = Bytes::from(response.encode().expect("encodes"));
    diagram.message(Endpoint::B, &Message::parse(&frame).expect("a message"));
    let response = ConnectResponse::parse(&frame).expect("a response");
    diagram.note(Endpoint::A, if response.accepted { "is accepted" } else { "is refused" });
}

#[test]
fn p11_b02_dial() {
    let (a, b) = (name("http://127.0.0.1:9001"), name("http://127.0.0.1:9002"));
    let good = ConnectRequest {
        id: InstanceId::from_bytes([0xaa; 16]),
        host: a.to_string(),
        time: Timestamp::new(1_000, 0),
        token: "secret".into(),
    };
    let unknown_host = ConnectRequest { host: "http://10.9.9.9:1".into(), ..good.clone() };
    let late = ConnectRequest { time: Timestamp::new(1_301, 0), ..good.clone() };
    let forged = ConnectRequest { token: "guess".into(), ..good.clone() };
    let wrong_direction = ConnectRequest { host: b.to_string(), ..good.clone() };
    let mut diagram = Diagram::new();
    dial(&mut diagram, "an unknown host dials 9002", &b, &unknown_host);
    dial(&mut diagram, "9001 dials 9002, five minutes and a second ahead", &b, &late);
    dial(&mut diagram, "9001 dials 9002 with another token", &b, &forged);
    dial(&mut diagram, "9002 dials 9001, in the wrong direction", &a, &wrong_direction);
    dial(&mut diagram, "9001 dials 9002", &b, &good);
    assert_diagram(
        "dial",
        "P10, P11, B02: refused dials with their reasons, and one that is accepted",
        &diagram,
    );
}
