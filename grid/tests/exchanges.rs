//! Canonical exchanges of two machines, each a page in `snapshots`: what PROTOCOL.md says in rules,
//! seen happening. A page that changes is a change of the protocol, or a mistake.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod exchange;
mod machine;

use std::time::Duration;

use bytes::Bytes;
use exchange::{End, Exchange, Page};
use grid::name::Name;
use grid::proto::connection::Capacities;
use grid::proto::handshake::{Acceptor, ConnectRequest, ConnectResponse, InstanceId};
use grid::proto::message::Message;
use grid::time::Timestamp;

const UNKNOWN: &str = "Invalid Handler for type: 7";

/// Holds a page against the one that was accepted.
fn check(name: &str, shows: &str, page: &Page) {
    let settings = {
        let mut settings = insta::Settings::clone_current();
        settings.set_description(shows);
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        settings
    };
    settings.bind(|| insta::assert_snapshot!(name, page.text()));
}

#[test]
fn p13_request() {
    let mut exchange = Exchange::new();
    let first = exchange.call(b"hello");
    let second = exchange.call(b"hello?");
    exchange.carry();
    exchange.answer(second, &Err("out of disk".into()));
    exchange.answer(first, &Ok(Bytes::from_static(b"world")));
    exchange.carry();
    check("request", "P13: two requests, one of which fails; answers in any order", &exchange.page);
}

#[test]
fn p13_b12_unknown_handler() {
    let mut exchange = Exchange::new();
    let request = exchange.call(b"hello");
    exchange.carry();
    exchange.refuse(request, UNKNOWN);
    exchange.carry();
    let (stream, _) = exchange.open(Capacities { input: 1, output: 1 });
    exchange.send(stream, "early");
    exchange.carry();
    exchange.refuse(stream.mux_id, UNKNOWN);
    exchange.carry();
    check("unknown_handler", "P13, B12: a request and a stream that are refused", &exchange.page);
}

#[test]
fn p14_request_given_up() {
    let mut exchange = Exchange::new();
    let unlucky = exchange.call(b"hello");
    let late = exchange.call(b"hello?");
    exchange.carry();
    exchange.give_up(unlucky);
    exchange.carry();
    exchange.answer(unlucky, &Ok(Bytes::from_static(b"unwanted")));

    exchange.page.meanwhile("an answer and a cancellation cross");
    exchange.answer(late, &Ok(Bytes::from_static(b"world")));
    exchange.give_up(late);
    exchange.carry();
    check(
        "request_given_up",
        "P14: a request given up, and one whose answer was on its way",
        &exchange.page,
    );
}

#[test]
fn p17_b21_back_pressure() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(1, 1);
    exchange.send(caller, "c1");
    exchange.send(caller, "c2");
    exchange.carry();
    exchange.receive(handler);
    exchange.carry();
    exchange.receive(handler);
    exchange.send(handler, "s1");
    exchange.send(handler, "s2");
    exchange.carry();
    exchange.receive(caller);
    exchange.carry();
    exchange.answer(handler.mux_id, &Ok(Bytes::new()));
    exchange.carry();
    exchange.receive(caller);
    exchange.carry();
    check(
        "stream_back_pressure",
        "P15 to P18: a stream with room for one message each way, from its opening to its end",
        &exchange.page,
    );
}

#[test]
fn p18_b25_stream_given_up() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(2, 2);
    exchange.send(handler, "s1");
    exchange.carry();
    exchange.page.meanwhile("a message and a cancellation cross");
    exchange.send(handler, "s2");
    exchange.give_up(caller.mux_id);
    let crossing = exchange.leave(End::B);
    exchange.carry();
    for message in crossing {
        exchange.page.message(End::B, &message);
        let now = exchange.now();
        exchange.machine(End::A).handle_message(message, now);
    }
    exchange.carry();
    exchange.send(handler, "s3");
    exchange.answer(handler.mux_id, &Ok(Bytes::new()));
    check(
        "stream_given_up",
        "P18, B25: a stream given up while a message was on its way",
        &exchange.page,
    );
}

#[test]
fn p18_b25_half_close() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(2, 2);
    exchange.send(caller, "last");
    exchange.finish(caller);
    exchange.carry();
    exchange.receive(handler);
    exchange.receive(handler);
    exchange.carry();
    exchange.send(handler, "s1");
    exchange.carry();
    exchange.receive(caller);
    exchange.carry();
    exchange.send(handler, "s2");
    exchange.answer(handler.mux_id, &Ok(Bytes::new()));
    exchange.carry();
    check(
        "stream_half_close",
        "P18, B25: the caller is done and goes on receiving",
        &exchange.page,
    );
}

#[test]
fn b05_b23_connection_lost() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(1, 2);
    exchange.send(handler, "s1");
    exchange.send(caller, "c1");
    exchange.carry();
    exchange.send(handler, "s2");
    exchange.send(caller, "c2");
    exchange.cut();
    check(
        "connection_lost",
        "B05, B23: a connection ends in mid-stream; what had arrived is still received",
        &exchange.page,
    );
}

#[test]
fn p18_b24_error_without_credit() {
    let mut exchange = Exchange::new();
    let (_, handler) = exchange.open_and_accept(0, 1);
    exchange.send(handler, "s1");
    exchange.answer(handler.mux_id, &Err("out of disk".into()));
    exchange.carry();
    let (_, handler) = exchange.open_and_accept(0, 1);
    exchange.answer(handler.mux_id, &Err("out of disk".into()));
    exchange.carry();
    check(
        "stream_error",
        "P18, B24: an error behind a message that nobody took, and one that has credit",
        &exchange.page,
    );
}

#[test]
fn b07_stream_ping() {
    let mut exchange = Exchange::new();
    let (caller, handler) = exchange.open_and_accept(1, 1);
    exchange.pass(15);
    exchange.send(caller, "c1");
    exchange.carry();
    exchange.receive(handler);
    exchange.carry();
    exchange.pass(15);
    check(
        "stream_ping",
        "P12, P16, P18, B07: the connection's pings each 10 s, the stream's each 15 s",
        &exchange.page,
    );
}

// ---- the handshake ----

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// What `request` says is dialled to `local`, whose clock stands at 1,000 s.
fn dial(page: &mut Page, what: &str, local: &Name, request: &ConnectRequest) {
    page.meanwhile(what);
    let frame = Bytes::from(request.encode().expect("encodes"));
    page.message(End::A, &Message::parse(&frame).expect("a message"));
    let servers = ["http://127.0.0.1:9001", "http://127.0.0.1:9002"].map(name);
    let acceptor = Acceptor {
        local,
        find_remote: &|host| servers.iter().find(|name| name.as_str() == host).cloned(),
        check_token: &|token| if token == "secret" { Ok(()) } else { Err("not accepted".into()) },
        now: Timestamp::new(1_000, 0),
        clock_skew_max: Duration::from_secs(300),
        dialled: None,
    };
    let id = InstanceId::from_bytes([0xbb; 16]);
    let answer = match acceptor.judge(&frame) {
        Ok((host, _)) => {
            page.note(End::B, &format!("takes the connection of {host}"));
            ConnectResponse::accepted(id)
        }
        Err(refusal) => {
            page.note(End::B, "refuses, and will close the socket");
            ConnectResponse::rejected(id, refusal.to_string())
        }
    };
    let frame = Bytes::from(answer.encode().expect("encodes"));
    page.message(End::B, &Message::parse(&frame).expect("a message"));
    let answer = ConnectResponse::parse(&frame).expect("an answer");
    page.note(End::A, if answer.accepted { "is accepted" } else { "is refused" });
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
    let stranger = ConnectRequest { host: "http://10.9.9.9:1".into(), ..good.clone() };
    let late = ConnectRequest { time: Timestamp::new(1_301, 0), ..good.clone() };
    let forged = ConnectRequest { token: "guess".into(), ..good.clone() };
    let turned = ConnectRequest { host: b.to_string(), ..good.clone() };
    let mut page = Page::new();
    dial(&mut page, "a stranger dials 9002", &b, &stranger);
    dial(&mut page, "9001 dials 9002, five minutes and a second ahead", &b, &late);
    dial(&mut page, "9001 dials 9002 with another token", &b, &forged);
    dial(&mut page, "9002 dials 9001, which should dial", &a, &turned);
    dial(&mut page, "9001 dials 9002", &b, &good);
    check(
        "dial",
        "P10, P11, B02: dials that are refused, with reasons, and one that is not",
        &page,
    );
}
