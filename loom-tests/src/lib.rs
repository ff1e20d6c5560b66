//! The words in which the models are told: a remote, its task, its peer, and sleepers that loom sees.
//!
//! The subject is `grid::shared::Shared` as it ships, or iam-bootstrap's `DeploymentCell`; nothing here
//! stands in for them. Whoever waits in a model sleeps on loom's own notification until its waker is
//! called, so that a lost wake-up is a deadlock, which loom reports. Empty without `--cfg grid_loom`.
#![cfg(grid_loom)]
#![allow(clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

use std::sync::Arc as StdArc;
use std::sync::Weak as StdWeak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use grid::Limits;
use grid::proto::connection::{Capacities, CloseReason, Outcome, StreamEnd};
use grid::proto::message::{Message, Op, parse_frame};
use grid::shared::{
    ClockHandle, Epoch, NewCall, NewStream, Park, Shared, SharedRef, StartedCall, StreamHandle,
    Work, Written,
};
use grid::time::{Clock, Instant, Timestamp};
use loom::sync::Notify;

pub mod peer;

// The deployment's id is checked as it ships as well: its files themselves, so that the rest of
// iam-bootstrap, which is not about threads, is not built with every planted bug.
#[path = "../../iam-bootstrap/src/deployment/cell.rs"]
pub mod cell;
#[path = "../../iam-bootstrap/src/deployment/id.rs"]
pub mod id;

/// Preemptions that a model is searched with unless `LOOM_MAX_PREEMPTIONS` says otherwise.
pub const PREEMPTIONS: usize = 3;

/// Searches all interleavings of `model`, and prints how many there were and how long it took.
#[expect(clippy::print_stderr, reason = "the number of executions is a result, not a log")]
#[expect(clippy::disallowed_methods, reason = "how long the search took, outside of the model")]
pub fn check(question: &str, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    let preemptions = *builder.preemption_bound.get_or_insert(PREEMPTIONS);
    let executions = StdArc::new(AtomicUsize::new(0));
    let counter = StdArc::clone(&executions);
    let start = std::time::Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
        assert_eq!(grid::bug::count(), 0, "what should never happen did");
    });
    let (executions, seconds) = (executions.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    eprintln!(
        "loom: {question}: {executions} executions at {preemptions} preemptions, {seconds:.1} s"
    );
}

/// Time stands still: no model is about deadlines.
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::from_nanos(1)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(1, 0)
    }
}

/// How a model's threads share a remote. std's `Arc` around loom's: loom watches the counts of the
/// inner one, which is the crate's own; those of the models would only multiply the executions.
pub type Remote = StdArc<SharedRef>;

/// A payload that fills the queue of [`remote`]: no second request has room beside it.
pub const FILLING: &[u8] = &[7; 150];

/// A remote that is not connected, whose queue has room for one message with [`FILLING`].
pub fn remote() -> Remote {
    let name = |url: &str| url.parse().expect("a base URL");
    let mut limits = Limits::default();
    limits.message_bytes_max = 1024;
    limits.queue_bytes_max = 200;
    limits.control_bytes_max = 1024;
    let clock = ClockHandle(StdArc::new(Still));
    let shared = Shared::new(name("http://a:1"), name("http://b:1"), limits, clock);
    StdArc::new(SharedRef::new(shared))
}

/// Likewise, connected.
pub fn connected() -> (Remote, Epoch) {
    let remote = remote();
    let epoch = remote.attach().expect("not shut down");
    (remote, epoch)
}

/// Whoever waits: sleeps until its waker is called.
#[derive(Debug)]
pub struct Sleeper {
    bell: StdArc<Bell>,
    waker: Waker,
}

#[derive(Debug)]
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: StdArc<Self>) {
        self.0.notify();
    }

    fn wake_by_ref(self: &StdArc<Self>) {
        self.0.notify();
    }
}

impl Default for Sleeper {
    fn default() -> Self {
        let bell = StdArc::new(Bell(Notify::new()));
        let waker = Waker::from(StdArc::clone(&bell));
        Self { bell, waker }
    }
}

impl Sleeper {
    /// Whom to wake.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until woken; at once, if that happened since it slept last.
    #[track_caller]
    pub fn sleep(&self) {
        self.bell.0.wait();
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

    /// Whether nobody holds its waker any more (B05).
    pub fn is_forgotten(&self) -> bool {
        StdArc::strong_count(&self.bell) == 2 // its own, and its own waker's
    }
}

/// Waits for something once, as a task that awaits it does.
#[track_caller]
pub fn wait<R>(poll: impl FnMut(&Waker) -> Poll<R>) -> R {
    Sleeper::default().until(poll)
}

/// Memory of a payload that tells when it was released.
#[derive(Debug)]
pub struct Memory(StdWeak<()>);

impl Memory {
    /// Whether all of it was released (B05).
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

/// A payload whose memory can be watched.
pub fn watched(content: &'static [u8]) -> (Bytes, Memory) {
    let count = StdArc::new(());
    let memory = Memory(StdArc::downgrade(&count));
    (Bytes::from_owner(Owner(count, content)), memory)
}

// ---- what a user of the crate does ----

/// A call to be made.
pub fn call(payload: Bytes) -> NewCall {
    NewCall { handler: 9, subroute: None, payload, timeout: Duration::from_secs(60) }
}

/// Starts a call that nobody waits for.
pub fn start(remote: &Shared, payload: &'static [u8]) -> StartedCall {
    remote.start(call(Bytes::from_static(payload)), Waker::noop()).expect("connected")
}

/// Makes a call and waits for what becomes of it; `None` if it was not made.
pub fn request(remote: &Shared, payload: &'static [u8]) -> Option<Outcome> {
    let sleeper = Sleeper::default();
    let started = remote.start(call(Bytes::from_static(payload)), sleeper.waker()).ok()?;
    let outcome = sleeper.until(|waker| started.poll(waker));
    Some(outcome)
}

/// A stream to be opened.
pub fn stream(capacities: Capacities) -> NewStream {
    NewStream { handler: 9, subroute: None, payload: None, timeout: None, capacities }
}

/// A stream of this side that the peer has acknowledged, and whose opening has left. Its number is 1
/// if it is the first call on its connection.
pub fn opened(remote: &Remote, epoch: Epoch, capacities: Capacities) -> StreamHandle {
    let handle = Shared::open(remote, stream(capacities)).expect("connected");
    let written = transmit(remote, epoch).expect("open");
    assert_eq!(written[0].header.op, Op::ConnectMux);
    deliver(remote, epoch, vec![peer::ack(written[0].header.mux_id)]).expect("open");
    handle
}

/// A stream of the peer's with this number that was accepted, and whose acknowledgement has left.
pub fn accepted(
    remote: &Remote,
    epoch: Epoch,
    mux_id: u64,
    capacities: Capacities,
) -> StreamHandle {
    deliver(remote, epoch, vec![peer::connect(mux_id)]).expect("open");
    let handle = Shared::accept(remote, epoch, mux_id, capacities).expect("wanted");
    let written = transmit(remote, epoch).expect("open");
    assert_eq!(written[0].header.op, Op::AckMux);
    handle
}

/// Sends one message, waiting for credit and room.
pub fn send(
    handle: &StreamHandle,
    payload: &'static [u8],
) -> Result<(), grid::shared::SendFailure> {
    let mut payload = Some(Bytes::from_static(payload));
    wait(|waker| handle.poll_send(&mut payload, waker))
}

/// Receives until there is nothing more: the messages, and how that came about.
pub fn receive_all(handle: &StreamHandle) -> (Vec<Bytes>, Option<StreamEnd>) {
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

// ---- what the connection's task does ----

/// Takes in messages as one frame, and hands out what came of it as the task does. Returns the
/// requests to be served.
///
/// # Errors
///
/// Why the connection is over. Nothing was taken in then.
pub fn deliver(
    remote: &Shared,
    epoch: Epoch,
    mut messages: Vec<Message>,
) -> Result<usize, CloseReason> {
    let mut work = Work::default();
    let received = remote.receive(epoch, &mut messages, 20, &mut work);
    work.wake();
    received.map(|_| work.incoming.len())
}

/// The messages of the next frame; none if nothing waits to be written.
///
/// # Errors
///
/// Why the connection is over.
pub fn transmit(remote: &Shared, epoch: Epoch) -> Result<Vec<Message>, CloseReason> {
    let mut messages = Vec::new();
    if let Some(frame) = remote.next_transmit(epoch)? {
        parse_frame(&frame.into_bytes(), &mut messages).expect("a frame of ours parses");
    }
    Ok(messages)
}

/// Everything that waits to be written.
///
/// # Errors
///
/// Why the connection is over.
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

/// The task of an open connection, with a peer on the other side.
///
/// In turns, as `net::driver`: take in what came, write what there is, sleep. The peer's reaction to
/// what was written is there to be read in the next turn.
#[derive(Debug)]
pub struct Task {
    remote: Remote,
    epoch: Epoch,
    /// Everything that was written so far.
    pub written: Vec<Message>,
}

impl Task {
    /// The task of this connection.
    pub fn new(remote: &Remote, epoch: Epoch) -> Self {
        Self { remote: StdArc::clone(remote), epoch, written: Vec::new() }
    }

    /// Runs until the connection is over, and says why.
    pub fn run(&mut self, peer: impl FnMut(&Message) -> Vec<Message>) -> CloseReason {
        match self.run_until(peer, |_| false) {
            Ok(()) => CloseReason::Peer,
            Err(reason) => reason,
        }
    }

    /// Runs until what was written is enough, and what the peer made of it was taken in.
    ///
    /// # Errors
    ///
    /// Why the connection is over, if that comes first.
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

/// Asserts that nothing is under way and nothing was left behind (B05).
pub fn assert_quiescent(remote: &Shared) {
    let stats = remote.stats();
    assert!(stats.is_quiescent(), "{stats:?}");
}

/// The messages about one call, of those that were written.
pub fn of_call(written: &[Message], mux_id: u64) -> Vec<Op> {
    let own = written.iter().filter(|message| message.header.mux_id == mux_id);
    own.map(|message| message.header.op).collect()
}

/// One message under way in each direction.
pub const ONE_EACH: Capacities = Capacities { input: 1, output: 1 };
