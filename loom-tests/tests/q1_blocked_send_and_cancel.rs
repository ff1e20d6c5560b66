//! A send blocked on a full queue × cancel of that call × a writer that does not run (B06, B11).
//!
//! Guards against this failure of grids in the field: a caller that waits for room in the queue
//! cannot be cancelled while nothing is written, holds up those behind it, or leaves its message in
//! the line and has it sent after all.
#![cfg(grid_loom)]

use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use grid::proto::connection::{Outcome, StreamEnd};
use grid::proto::message::Op;
use grid::shared::Shared;
use loom::thread;
use loom_tests::{
    FILLING, ONE_EACH, Task, call, check, connected, of_call, opened, peer, request, start, stream,
    transmit, transmit_all, wait, watched,
};

/// The number of the call that fills the queue.
const FILLER: u64 = 1;

#[test]
fn q1_b06_b11_a_blocked_call_is_given_up_while_nothing_is_written() {
    check("1 blocked calls given up, no writer", || {
        let (remote, epoch) = connected();
        let filler = start(&remote, FILLING);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let remote = remote.clone();
                thread::spawn(move || {
                    let (payload, memory) = watched(FILLING);
                    let started = remote.start(call(payload), Waker::noop()).expect("connected");
                    remote.give_up(&started);
                    drop(started);
                    memory
                })
            })
            .collect();
        for caller in callers {
            assert!(caller.join().expect("it ends").is_released());
        }
        let stats = remote.stats();
        assert_eq!((stats.live_calls, stats.blocked_messages), (1, 0));
        let written = transmit_all(&remote, epoch).expect("open");
        assert_eq!(written.len(), 1, "the other side never hears of them: {written:?}");
        remote.give_up(&filler);
    });
}

#[test]
fn q1_b06_b11_a_blocked_call_is_given_up_while_room_appears_and_another_waits_behind_it() {
    check("1 blocked call given up, room appears", || {
        let (remote, epoch) = connected();
        let _filler = start(&remote, FILLING);
        let given_up = start(&remote, FILLING);
        let caller = {
            let remote = remote.clone();
            thread::spawn(move || remote.give_up(&given_up))
        };
        let behind = {
            let remote = remote.clone();
            thread::spawn(move || request(&remote, FILLING))
        };
        let mut task = Task::new(&remote, epoch);
        let answered_last = |written: &[_]| of_call(written, 3) == [Op::Request];
        task.run_until(peer::answering, answered_last).expect("open");
        caller.join().expect("it returns");
        let outcome = behind.join().expect("it is answered");
        assert_eq!(outcome, Some(Outcome::Response(Bytes::from_static(b"answer"))));

        task.written.extend(transmit_all(&remote, epoch).expect("open"));
        let told = of_call(&task.written, 2);
        // Answered before it was given up; or told twice, in this order; or never heard of.
        let allowed: [&[Op]; 3] = [&[], &[Op::Request], &[Op::Request, Op::DisconnectServerMux]];
        assert!(allowed.contains(&&*told), "{told:?}");
        assert_eq!(of_call(&task.written, FILLER), [Op::Request]);
        assert_eq!(remote.stats().blocked_messages, 0);
    });
}

#[test]
fn q1_b06_b11_a_blocked_message_of_a_stream_is_taken_back_while_room_appears() {
    check("1 blocked message taken back", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, ONE_EACH);
        let _filler = start(&remote, FILLING);
        let sender = thread::spawn(move || {
            let (payload, memory) = watched(FILLING);
            let mut payload = Some(payload);
            let _ = handle.poll_send(&mut payload, Waker::noop());
            handle.cancel_send();
            handle.finish();
            drop(payload);
            (handle, memory)
        });
        let mut written = transmit(&remote, epoch).expect("open");
        written.extend(transmit(&remote, epoch).expect("open"));
        let (handle, memory) = sender.join().expect("it returns");
        written.extend(transmit_all(&remote, epoch).expect("open"));
        assert!(memory.is_released());
        assert_eq!(remote.stats().blocked_messages, 0);

        let told: Vec<_> = written.iter().filter(|message| message.header.mux_id == 1).collect();
        // The message before the end of the input, or no message; no gap in the sequence. The end
        // takes a credit, and there was one only.
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].header.op, Op::MuxClientMsg);
        assert_eq!(told[0].header.sequence, 1);
        drop(handle);
    });
}

#[test]
fn q1_b06_b11_whoever_waits_for_a_blocked_opening_learns_that_it_was_given_up() {
    check("1 blocked opening given up, room appears", || {
        let (remote, epoch) = connected();
        let _filler = start(&remote, FILLING);
        let (payload, memory) = watched(FILLING);
        let mut new = stream(ONE_EACH);
        new.payload = Some(payload);
        let handle = Arc::new(Shared::open(&remote, new).expect("connected"));
        let opener = {
            let handle = handle.clone();
            thread::spawn(move || wait(|waker| handle.poll_open(waker)))
        };
        let canceller = {
            let handle = handle.clone();
            thread::spawn(move || handle.give_up())
        };
        let mut written = transmit(&remote, epoch).expect("open");
        written.extend(transmit(&remote, epoch).expect("open"));
        assert_eq!(opener.join().expect("it is told"), Err(StreamEnd::Cancelled));
        canceller.join().expect("it returns");
        written.extend(transmit_all(&remote, epoch).expect("open"));
        let told = of_call(&written, 2);
        let allowed: [&[Op]; 2] = [&[], &[Op::ConnectMux, Op::DisconnectServerMux]];
        assert!(allowed.contains(&&*told), "{told:?}");
        assert!(memory.is_released());
        assert_eq!(remote.stats().blocked_messages, 0);
    });
}
