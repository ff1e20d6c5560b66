//! A send blocked on a full queue, its cancellation, and a writer that does not run (B06, B11).
//!
//! Guards against a failure seen in production: a caller that waits for queue space cannot be
//! cancelled while nothing is written, holds up the calls queued after it, or leaves its message in
//! the queue and has it sent after all.
#![cfg(grid_loom)]

use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use grid::proto::connection::End;
use grid::proto::message::Op;
use grid::shared::Shared;
use loom::thread;
use loom_tests::{
    ONE_CREDIT_EACH_WAY, QUEUE_FILLER, Task, check, connected, new_call, new_stream, opened,
    ops_of_call, peer, probed, request, start, transmit, transmit_all, wait,
};

/// The mux id of the call that fills the queue.
const FILLER_MUX_ID: u64 = 1;

#[test]
fn q1_b06_b11_a_blocked_call_can_be_cancelled_while_nothing_is_written() {
    check("1 blocked calls cancelled, no writer", || {
        let (remote, epoch) = connected();
        let filler = start(&remote, QUEUE_FILLER);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let remote = remote.clone();
                thread::spawn(move || {
                    let (payload, memory) = probed(QUEUE_FILLER);
                    let started =
                        remote.start(new_call(payload), Waker::noop()).expect("connected");
                    remote.cancel(&started);
                    drop(started);
                    memory
                })
            })
            .collect();
        for caller in callers {
            assert!(caller.join().expect("no panic").is_released());
        }
        let stats = remote.stats();
        assert_eq!((stats.live_outbound_calls, stats.blocked_messages), (1, 0));
        let written = transmit_all(&remote, epoch).expect("open");
        assert_eq!(written.len(), 1, "the peer never receives them: {written:?}");
        remote.cancel(&filler);
    });
}

#[test]
fn q1_b06_b11_a_blocked_call_can_be_cancelled_while_queue_space_frees_up_for_the_next_call() {
    check("1 blocked call cancelled, queue space frees up", || {
        let (remote, epoch) = connected();
        let _filler = start(&remote, QUEUE_FILLER);
        let cancelled = start(&remote, QUEUE_FILLER);
        let caller = {
            let remote = remote.clone();
            thread::spawn(move || remote.cancel(&cancelled))
        };
        let behind = {
            let remote = remote.clone();
            thread::spawn(move || request(&remote, QUEUE_FILLER))
        };
        let mut task = Task::new(&remote, epoch);
        let third_is_sent = |written: &[_]| ops_of_call(written, 3) == [Op::Request];
        task.run_until(peer::responding, third_is_sent).expect("open");
        caller.join().expect("no panic");
        let outcome = behind.join().expect("no panic");
        assert_eq!(outcome, Some(Ok(Bytes::from_static(b"response"))));

        task.written.extend(transmit_all(&remote, epoch).expect("open"));
        let sent = ops_of_call(&task.written, 2);
        // A response before the cancellation; or a request and a cancellation, in this order; or
        // nothing.
        let allowed: [&[Op]; 3] = [&[], &[Op::Request], &[Op::Request, Op::DisconnectServerMux]];
        assert!(allowed.contains(&&*sent), "{sent:?}");
        assert_eq!(ops_of_call(&task.written, FILLER_MUX_ID), [Op::Request]);
        assert_eq!(remote.stats().blocked_messages, 0);
    });
}

#[test]
fn q1_b06_b11_a_blocked_message_of_a_stream_can_be_cancelled_while_queue_space_frees_up() {
    check("1 blocked message cancelled", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, ONE_CREDIT_EACH_WAY);
        let _filler = start(&remote, QUEUE_FILLER);
        let sender = thread::spawn(move || {
            let (payload, memory) = probed(QUEUE_FILLER);
            let mut payload = Some(payload);
            let _ = handle.poll_send(&mut payload, Waker::noop());
            handle.cancel_send();
            handle.finish();
            drop(payload);
            (handle, memory)
        });
        let mut written = transmit(&remote, epoch).expect("open");
        written.extend(transmit(&remote, epoch).expect("open"));
        let (handle, memory) = sender.join().expect("no panic");
        written.extend(transmit_all(&remote, epoch).expect("open"));
        assert!(memory.is_released());
        assert_eq!(remote.stats().blocked_messages, 0);

        let sent: Vec<_> = written.iter().filter(|message| message.header.mux_id == 1).collect();
        // The message before the end of the input, or no message; no gap in the sequence. The end
        // takes a credit, and there was only one.
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0].header.op, Op::MuxClientMsg);
        assert_eq!(sent[0].header.sequence, 1);
        drop(handle);
    });
}

#[test]
fn q1_b06_b11_a_waiter_for_a_blocked_opening_is_notified_of_its_cancellation() {
    check("1 blocked opening cancelled, queue space frees up", || {
        let (remote, epoch) = connected();
        let _filler = start(&remote, QUEUE_FILLER);
        let (payload, memory) = probed(QUEUE_FILLER);
        let mut new = new_stream(ONE_CREDIT_EACH_WAY);
        new.payload = Some(payload);
        let handle = Arc::new(Shared::open(&remote, new).expect("connected"));
        let opener = {
            let handle = handle.clone();
            thread::spawn(move || wait(|waker| handle.poll_open(waker)))
        };
        let canceller = {
            let handle = handle.clone();
            thread::spawn(move || handle.cancel())
        };
        let mut written = transmit(&remote, epoch).expect("open");
        written.extend(transmit(&remote, epoch).expect("open"));
        assert_eq!(opener.join().expect("it is notified"), Err(End::Cancelled));
        canceller.join().expect("no panic");
        written.extend(transmit_all(&remote, epoch).expect("open"));
        let sent = ops_of_call(&written, 2);
        let allowed: [&[Op]; 2] = [&[], &[Op::ConnectMux, Op::DisconnectServerMux]];
        assert!(allowed.contains(&&*sent), "{sent:?}");
        assert!(memory.is_released());
        assert_eq!(remote.stats().blocked_messages, 0);
    });
}
