//! Wake-ups of the shared state: which waker is woken, and when.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};

use bytes::Bytes;
use grid::Limits;
use grid::proto::connection::CloseReason;
use grid::proto::message::{Flags, Header, Message, Op};
use grid::shared::{ClockHandle, DeferredWork, Epoch, Output, Shared};
use grid::time::{Clock, Instant, Timestamp};

struct FrozenClock;

impl Clock for FrozenClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(1)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(1, 0)
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A connected remote whose queue holds two messages of the largest size, and one request of it.
fn one_inbound_call() -> (Shared, Epoch) {
    let name = |url: &str| url.parse().expect("a base URL");
    let mut limits = Limits::default();
    limits.message_bytes_max = 16 << 10;
    limits.queue_bytes_max = 32 << 10;
    let clock = ClockHandle(Arc::new(FrozenClock));
    let shared = Shared::new(name("http://a:1"), name("http://b:1"), limits, clock);
    let epoch = shared.attach().expect("not shut down");
    for mux_id in 1..=3 {
        let header = Header { flags: Flags::EOF, handler: 9, ..Header::new(mux_id, Op::Request) };
        let message = Message { header, payload: Bytes::new(), subroute: None };
        let mut work = DeferredWork::default();
        let output = shared.receive(epoch, &mut vec![message], 20, &mut work);
        assert_eq!(output, Ok(Output::Empty));
        assert_eq!(work.incoming.len(), 1);
    }
    (shared, epoch)
}

/// Responds to all three calls; the third response finds the queue full.
fn respond_to_all(shared: &Shared, epoch: Epoch) {
    for mux_id in 1..=3 {
        shared.respond(epoch, &[(mux_id, Ok(vec![0; 15 << 10].into()))]);
    }
    assert_eq!(shared.stats().blocked_messages, 1);
}

#[test]
fn b11_a_waiter_for_the_end_of_a_call_is_woken_after_its_queued_response_left() {
    let (shared, epoch) = one_inbound_call();
    let (wakes, waker) = Wakes::new();
    let mut key = None;
    assert!(shared.poll_cancelled(epoch, 3, &mut key, &waker).is_pending());
    respond_to_all(&shared, epoch);
    assert!(shared.is_live(epoch, 3));
    assert_eq!(wakes.count(), 0);

    shared.next_transmit(epoch).expect("it is open").expect("a frame");
    assert_eq!(wakes.count(), 1);
    assert!(shared.poll_cancelled(epoch, 3, &mut key, &waker).is_ready());
}

#[test]
fn b11_a_waiter_for_the_end_of_a_call_is_woken_when_its_blocked_response_is_cancelled() {
    let (shared, epoch) = one_inbound_call();
    let (wakes, waker) = Wakes::new();
    let mut key = None;
    assert!(shared.poll_cancelled(epoch, 3, &mut key, &waker).is_pending());
    respond_to_all(&shared, epoch);

    let cancel = Message {
        header: Header::new(3, Op::DisconnectServerMux),
        payload: Bytes::new(),
        subroute: None,
    };
    let mut work = DeferredWork::default();
    let output = shared.receive(epoch, &mut vec![cancel], 20, &mut work);
    assert_eq!(output, Ok(Output::Queued));
    work.wake();
    assert_eq!(wakes.count(), 1);
    assert_eq!(shared.stats().blocked_messages, 0);
}

#[test]
fn a_deregistered_waiter_is_not_woken_and_affects_no_other() {
    let (shared, epoch) = one_inbound_call();
    let ((gone, gone_waker), (stays, stays_waker)) = (Wakes::new(), Wakes::new());
    let (mut gone_key, mut stays_key) = (None, None);
    assert!(shared.poll_cancelled(epoch, 1, &mut gone_key, &gone_waker).is_pending());
    assert!(shared.poll_cancelled(epoch, 1, &mut stays_key, &stays_waker).is_pending());
    shared.deregister(epoch, 1, gone_key.expect("it waits"));
    shared.detach(epoch, CloseReason::Peer);
    assert_eq!((gone.count(), stays.count()), (0, 1));
    assert_eq!(Arc::strong_count(&gone), 2, "only the test's own");
}

#[test]
fn b03_calls_with_the_epoch_of_an_earlier_connection_do_nothing() {
    let (shared, first) = one_inbound_call();
    let second = shared.attach().expect("not shut down");
    shared.respond(first, &[(1, Ok(Bytes::new()))]);
    shared.detach(first, CloseReason::Peer);
    assert_eq!(shared.next_transmit(first), Err(CloseReason::Superseded));
    assert_eq!(shared.next_transmit(second), Ok(None));
    assert_eq!(shared.poll_cancelled(first, 1, &mut None, Waker::noop()), Poll::Ready(()));
    assert_eq!(shared.stats().connections, 2);
}

#[test]
fn b03_a_watcher_deregistered_after_a_change_removes_no_other_watcher() {
    let (shared, epoch) = one_inbound_call();
    let (_, version) = shared.connection_state();
    let mut early = None;
    assert!(shared.poll_changed(version, &mut early, Waker::noop()).is_pending());
    shared.detach(epoch, CloseReason::Peer); // empties the table of watchers
    let (_, later) = shared.connection_state();
    let (wakes, waker) = Wakes::new();
    let mut late = None;
    assert!(shared.poll_changed(later, &mut late, &waker).is_pending());
    assert_eq!(early, late, "the key is reused");
    shared.deregister_watcher(version, early.expect("it is registered"));
    shared.attach().expect("not shut down");
    assert_eq!(wakes.count(), 1);
}
