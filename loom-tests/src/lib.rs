//! Shared code of the models: a remote, its connection task, its peer, and sleepers that loom
//! schedules.
//!
//! The code under test is `grid::shared::Shared` or iam-bootstrap's `DeploymentCell`, unmodified;
//! no part of them is mocked. A thread that waits sleeps on loom's own notification until its waker
//! is called, so a lost wake-up is a deadlock, which loom reports. Empty without `--cfg grid_loom`.
#![cfg(grid_loom)]
#![allow(clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

use std::sync::Arc as StdArc;
use std::sync::Weak as StdWeak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use grid::proto::connection::{CallOutcome, Capacities, CloseReason, End};
use grid::proto::message::{Message, Op, parse_frame};
use grid::shared::{
    ClockHandle, DeferredWork, Epoch, NewCall, NewStream, Park, Shared, SharedRef, StartedCall,
    StreamHandle, Written,
};
use grid::time::{Clock, Instant, Timestamp};
use grid::{CallError, Limits, SendError};
use loom::sync::Notify;

pub mod peer;

// iam-bootstrap's deployment id is also checked unmodified. Its files are included by path, so that
// the rest of the crate, which shares nothing between threads, is not rebuilt for each planted bug.
#[path = "../../iam-bootstrap/src/deployment/cell.rs"]
pub mod cell;
#[path = "../../iam-bootstrap/src/deployment/id.rs"]
pub mod id;

/// Preemption bound of a search unless `LOOM_MAX_PREEMPTIONS` is set.
pub const PREEMPTIONS: usize = 3;

/// Searches all interleavings of `model`, and prints their number and the time taken.
#[expect(clippy::print_stderr, reason = "the number of executions is a result, not a log")]
#[expect(clippy::disallowed_methods, reason = "how long the search took, outside of the model")]
pub fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    let preemptions = *builder.preemption_bound.get_or_insert(PREEMPTIONS);
    let executions = StdArc::new(AtomicUsize::new(0));
    let counter = StdArc::clone(&executions);
    let start = std::time::Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
        assert_eq!(grid::bug::count(), 0, "a bug was reported");
    });
    let (executions, seconds) = (executions.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    eprintln!("loom: {name}: {executions} executions at {preemptions} preemptions, {seconds:.1} s");
}

/// A clock that does not advance: no model is about deadlines.
struct FrozenClock;

impl Clock for FrozenClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(1)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(1, 0)
    }
}

/// A remote that the threads of a model share. std's `Arc` around loom's: loom tracks the counts
/// of the inner one, which is the crate's own; tracking those of the models would only multiply
/// executions.
pub type Remote = StdArc<SharedRef>;

/// A payload that fills the queue of [`remote`]: no second request fits.
pub const QUEUE_FILLER: &[u8] = &[7; 150];

/// Makes a remote that is not connected, whose queue holds one message with [`QUEUE_FILLER`].
pub fn remote() -> Remote {
    let name = |url: &str| url.parse().expect("a base URL");
    let mut limits = Limits::default();
    limits.message_bytes_max = 1024;
    limits.queue_bytes_max = 200;
    limits.control_bytes_max = 1024;
    let clock = ClockHandle(StdArc::new(FrozenClock));
    let shared = Shared::new(name("http://a:1"), name("http://b:1"), limits, clock);
    StdArc::new(SharedRef::new(shared))
}

/// Makes a connected remote.
pub fn connected() -> (Remote, Epoch) {
    let remote = remote();
    let epoch = remote.attach().expect("not shut down");
    (remote, epoch)
}

/// A waiting task: sleeps until its waker is called.
#[derive(Debug)]
pub struct Sleeper {
    notify: StdArc<NotifyWaker>,
    waker: Waker,
}

#[derive(Debug)]
struct NotifyWaker(Notify);

impl Wake for NotifyWaker {
    fn wake(self: StdArc<Self>) {
        self.0.notify();
    }

    fn wake_by_ref(self: &StdArc<Self>) {
        self.0.notify();
    }
}

impl Default for Sleeper {
    fn default() -> Self {
        let notify = StdArc::new(NotifyWaker(Notify::new()));
        let waker = Waker::from(StdArc::clone(&notify));
        Self { notify, waker }
    }
}

impl Sleeper {
    /// Returns the waker of this task.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until woken; returns at once if woken since the last sleep.
    #[track_caller]
    pub fn sleep(&self) {
        self.notify.0.wait();
    }

    /// Polls, sleeps, and polls again until it is ready.
    #[track_caller]
    pub fn until<R>(&self, mut poll: impl FnMut(&Waker) -> Poll<R>) -> R {
        loop {
            if let Poll::Ready(ready) = poll(&self.waker) {
                return ready;
            }
            self.sleep();
        }
    }

    /// Returns whether no clone of its waker is left (B05).
    pub fn is_deregistered(&self) -> bool {
        StdArc::strong_count(&self.notify) == 2 // its own, and that of its own waker
    }
}

/// Polls until ready, as a task that awaits does.
#[track_caller]
pub fn wait<R>(poll: impl FnMut(&Waker) -> Poll<R>) -> R {
    Sleeper::default().until(poll)
}

/// A probe of whether the memory of a payload was released.
#[derive(Debug)]
pub struct MemoryProbe(StdWeak<()>);

impl MemoryProbe {
    /// Returns whether all of it was released (B05).
    pub fn is_released(&self) -> bool {
        self.0.strong_count() == 0
    }
}

struct Owner(StdArc<()>, &'static [u8]);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        debug_assert!(StdArc::strong_count(&self.0) > 0);
        self.1
    }
}

/// Makes a payload with a probe of its memory.
pub fn probed(content: &'static [u8]) -> (Bytes, MemoryProbe) {
    let count = StdArc::new(());
    let memory = MemoryProbe(StdArc::downgrade(&count));
    (Bytes::from_owner(Owner(count, content)), memory)
}

// ---- operations of an application ----

/// The call to handler 9 that [`Shared::start`] takes.
pub fn new_call(payload: Bytes) -> NewCall {
    NewCall { handler: 9, subroute: None, payload, timeout: Duration::from_secs(60) }
}

/// Starts a call whose outcome is not awaited.
pub fn start(remote: &Shared, payload: &'static [u8]) -> StartedCall {
    remote.start(new_call(Bytes::from_static(payload)), Waker::noop()).expect("connected")
}

/// Makes a call and waits for its outcome; `None` if it was not started.
pub fn request(remote: &Shared, payload: &'static [u8]) -> Option<CallOutcome> {
    let sleeper = Sleeper::default();
    let started = remote.start(new_call(Bytes::from_static(payload)), sleeper.waker()).ok()?;
    let outcome = sleeper.until(|waker| started.poll(waker));
    Some(outcome)
}

/// The stream to be opened with these capacities.
pub fn new_stream(capacities: Capacities) -> NewStream {
    NewStream { handler: 9, subroute: None, payload: None, timeout: None, capacities }
}

/// Opens a stream that the peer acknowledges, and drains its opening. Its mux id is 1 if it is the
/// first call on its connection.
pub fn opened(remote: &Remote, epoch: Epoch, capacities: Capacities) -> StreamHandle {
    let handle = Shared::open(remote, new_stream(capacities)).expect("connected");
    let written = transmit(remote, epoch).expect("open");
    assert_eq!(written[0].header.op, Op::ConnectMux);
    deliver(remote, epoch, vec![peer::ack(written[0].header.mux_id)]).expect("open");
    handle
}

/// Accepts a stream of the peer with this mux id, and drains its acknowledgement.
pub fn accepted(
    remote: &Remote,
    epoch: Epoch,
    mux_id: u64,
    capacities: Capacities,
) -> StreamHandle {
    deliver(remote, epoch, vec![peer::connect(mux_id)]).expect("open");
    let handle = Shared::accept(remote, epoch, mux_id, capacities).expect("the stream is live");
    let written = transmit(remote, epoch).expect("open");
    assert_eq!(written[0].header.op, Op::AckMux);
    handle
}

/// Sends one message, waiting for credit and queue space.
pub fn send(handle: &StreamHandle, payload: &'static [u8]) -> Result<(), SendError> {
    let mut payload = Some(Bytes::from_static(payload));
    wait(|waker| handle.poll_send(&mut payload, waker))
}

/// Returns the error of a send on a stream whose connection ended.
pub fn disconnected(remote: &Shared) -> SendError {
    SendError::Stream(CallError::Disconnected { remote: remote.remote().clone() }.into())
}

/// Receives the rest of a stream: its messages, and the error that ended it, if any.
pub fn receive_all(handle: &StreamHandle) -> (Vec<Bytes>, Option<End>) {
    let sleeper = Sleeper::default();
    let mut received = Vec::new();
    loop {
        match sleeper.until(|waker| handle.poll_receive(waker)) {
            Some(Ok(payload)) => received.push(payload),
            Some(Err(end)) => return (received, Some(end)),
            None => return (received, None),
        }
    }
}

// ---- operations of the connection task ----

/// Handles messages as one frame, and runs the deferred work as the task does. Returns the number
/// of inbound requests.
///
/// # Errors
///
/// The reason why the connection is closed. Nothing was handled then.
pub fn deliver(
    remote: &Shared,
    epoch: Epoch,
    mut messages: Vec<Message>,
) -> Result<usize, CloseReason> {
    let mut work = DeferredWork::default();
    let received = remote.receive(epoch, &mut messages, 20, &mut work);
    work.wake();
    received.map(|_| work.incoming.len())
}

/// Returns the messages of the next frame; none if nothing is queued.
///
/// # Errors
///
/// The reason why the connection is closed.
pub fn transmit(remote: &Shared, epoch: Epoch) -> Result<Vec<Message>, CloseReason> {
    let mut messages = Vec::new();
    if let Some(frame) = remote.next_transmit(epoch)? {
        parse_frame(&frame.into_bytes(), &mut messages).expect("a frame of ours parses");
    }
    Ok(messages)
}

/// Returns everything queued.
///
/// # Errors
///
/// The reason why the connection is closed.
pub fn transmit_all(remote: &Shared, epoch: Epoch) -> Result<Vec<Message>, CloseReason> {
    let mut written = Vec::new();
    loop {
        let frame = transmit(remote, epoch)?;
        if frame.is_empty() {
            return Ok(written);
        }
        written.extend(frame);
    }
}

/// The task of an open connection, together with its peer.
///
/// Each turn is that of `net::driver`: handle the messages received, write the queued ones, sleep.
/// The peer reacts to written messages in time for the next turn.
#[derive(Debug)]
pub struct Task {
    remote: Remote,
    epoch: Epoch,
    /// All messages written so far.
    pub written: Vec<Message>,
}

impl Task {
    /// Makes the task of this connection.
    pub fn new(remote: &Remote, epoch: Epoch) -> Self {
        Self { remote: StdArc::clone(remote), epoch, written: Vec::new() }
    }

    /// Runs until the connection is closed, and returns the reason.
    pub fn run(&mut self, peer: impl FnMut(&Message) -> Vec<Message>) -> CloseReason {
        match self.run_until(peer, |_| false) {
            Ok(()) => CloseReason::Peer,
            Err(reason) => reason,
        }
    }

    /// Runs until `is_enough` returns true for the written messages, and the peer's reactions to
    /// them are handled.
    ///
    /// # Errors
    ///
    /// The reason why the connection is closed, if that comes first.
    pub fn run_until(
        &mut self,
        mut peer: impl FnMut(&Message) -> Vec<Message>,
        is_enough: impl Fn(&[Message]) -> bool,
    ) -> Result<(), CloseReason> {
        let sleeper = Sleeper::default();
        loop {
            let frame = transmit(&self.remote, self.epoch)?;
            let reaction: Vec<Message> = frame.iter().flat_map(&mut peer).collect();
            let has_written = !frame.is_empty();
            self.written.extend(frame);
            if !reaction.is_empty() {
                deliver(&self.remote, self.epoch, reaction)?;
            }
            if is_enough(&self.written) {
                return Ok(());
            }
            let is_asleep = !has_written
                && self.remote.park(self.epoch, Written::All, sleeper.waker())? != Park::Ready;
            if is_asleep {
                sleeper.sleep();
            }
        }
    }
}

/// Asserts that nothing is in flight and nothing leaked (B05).
pub fn assert_quiescent(remote: &Shared) {
    let stats = remote.stats();
    assert!(stats.is_quiescent(), "{stats:?}");
}

/// Returns the ops of one call among the written messages.
pub fn ops_of_call(written: &[Message], mux_id: u64) -> Vec<Op> {
    let own = written.iter().filter(|message| message.header.mux_id == mux_id);
    own.map(|message| message.header.op).collect()
}

/// Credit for one message in each direction.
pub const ONE_CREDIT_EACH_WAY: Capacities = Capacities { input: 1, output: 1 };
