//! The locker of this server: a table behind a lock, and those who wait to be told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use grid::time::{Clock, Instant};
use tokio::sync::{Notify, oneshot};

use crate::error::LockerError;
use crate::limits::{LISTED_BYTES_MAX, LISTED_MAX, Limits, WAIT_POLL};
use crate::locker::{Answering, Locker, Stamped};
use crate::proto::hold::{Answer, Message};
use crate::proto::table::{Ask, Counts, Forced, Gate, Holding, Refusal, Table};
use crate::proto::token::{Stamp, Token};
use crate::proto::waiters::Place;
use crate::wire::LockerListing;

/// The locker of this server. Cheap to clone.
#[derive(Clone)]
pub struct LocalLocker {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// How many wait for the lock of `state`, or have it.
    callers: AtomicUsize,
    callers_max: usize,
    /// There is something to do earlier than was thought.
    earlier: Notify,
    overloaded: AtomicUsize,
}

struct State {
    table: Table,
    /// Those who wait to be told, and which of their questions it is that waits.
    told: BTreeMap<Arc<str>, (u64, oneshot::Sender<()>)>,
    questions: u64,
    /// When somebody looks at the table next.
    awake_at: Option<Instant>,
}

impl std::fmt::Debug for LocalLocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLocker").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl LocalLocker {
    /// The locker of the server `name`, which has just started; `nodes` may hold locks. The seed keys
    /// its tables.
    pub fn new<I>(name: &str, nodes: I, limits: &Limits, clock: Arc<dyn Clock>, seed: u64) -> Self
    where
        I: IntoIterator<Item = Arc<str>>,
    {
        let (now, wall) = (clock.now(), Token::of(clock.wall()));
        let table = Table::new(limits, nodes, now, wall, seed);
        let state = State { table, told: BTreeMap::new(), questions: 0, awake_at: None };
        let inner = Inner {
            name: name.into(),
            clock,
            state: Mutex::new(state),
            callers: AtomicUsize::new(0),
            callers_max: limits.table_callers_max,
            earlier: Notify::new(),
            overloaded: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Does one thing to the table, and tells those who can go on after it.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] if too many wait to do something to it (B57).
    fn with<R>(&self, act: impl FnOnce(&mut State, Instant, Token) -> R) -> Result<R, Overloaded> {
        let inner = &self.inner;
        let _place = inner.enter()?;
        let (now, wall) = (inner.clock.now(), Token::of(inner.clock.wall()));
        let (result, called, is_earlier) = {
            let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut state, now, wall);
            let called = state.called();
            let due = state.table.poll_timeout();
            let is_earlier = due.is_some_and(|due| state.awake_at.is_none_or(|at| due < at));
            (result, called, is_earlier)
        };
        // Without the lock: whoever is woken may come back at once.
        for waiter in called {
            let _ = waiter.send(());
        }
        if is_earlier {
            inner.earlier.notify_one();
        }
        Ok(result)
    }

    /// Answers all but waiters, who have to wait for it.
    fn answer(&self, message: &Message) -> Result<(Answer, Stamp), Overloaded> {
        self.with(|state, now, wall| {
            let table = &mut state.table;
            let answer = match message {
                Message::Lock(ask) => Answer::Lock(table.lock(ask, now, wall)),
                Message::Refresh(refresh) => Answer::Refresh(table.refresh(refresh, now)),
                Message::Unlock { uid, .. } => {
                    table.unlock(uid, now);
                    Answer::Released
                }
                Message::Wait(_) => Answer::Wait { is_called: false },
            };
            (answer, table.stamp(wall))
        })
    }

    /// Waits until it is worth trying `ask` again, for a while. Returns whether it is.
    async fn wait(&self, ask: Ask) -> bool {
        let Some(place) = ask.place.clone() else { return false };
        let joined = self.with(|state, now, _| {
            let (sender, receiver) = oneshot::channel();
            state.questions += 1;
            let question = state.questions;
            // Before it joins: it may be called at once.
            state.told.insert(Arc::clone(&place.id), (question, sender));
            let has_joined = state.table.wait(&ask, now);
            if !has_joined {
                state.told.remove(&place.id);
            }
            has_joined.then_some((question, receiver))
        });
        let Ok(Some((question, receiver))) = joined else { return false };
        let mut waiting = Waiting { locker: self.clone(), place, question, is_called: false };
        waiting.is_called = matches!(tokio::time::timeout(WAIT_POLL, receiver).await, Ok(Ok(())));
        waiting.is_called
    }

    /// Answers a question, waiters' too.
    pub(crate) async fn serve(&self, message: Message) -> Result<Stamped, Overloaded> {
        if let Message::Wait(ask) = message {
            let is_called = self.wait(ask).await;
            let stamp = self.stamp();
            return Ok(Stamped { answer: Answer::Wait { is_called }, stamp: Some(stamp) });
        }
        let (answer, stamp) = self.answer(&message)?;
        Ok(Stamped { answer, stamp: Some(stamp) })
    }

    /// What it tells of tokens.
    pub(crate) fn stamp(&self) -> Stamp {
        let inner = &self.inner;
        let wall = Token::of(inner.clock.wall());
        inner.state.lock().unwrap_or_else(PoisonError::into_inner).table.stamp(wall)
    }

    /// The highest token that it knows.
    pub(crate) fn high(&self) -> Token {
        let state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.table.high()
    }

    /// Forces grants open. Returns their ids, and who holds them.
    pub(crate) fn force(&self, what: &Forced) -> Vec<(Arc<str>, Arc<str>)> {
        self.with(|state, now, _| state.table.force_unlock(what, now)).unwrap_or_default()
    }

    /// A node has said what it holds (B53).
    pub(crate) fn report(&self, node: &str, holdings: Vec<Holding>, high: Token) {
        let reported = self.with(|state, now, _| state.table.report(node, holdings, high, now));
        if reported.is_err() {
            // The node is asked again, or the lease ends.
            tracing::debug!(target: "dsync", node, "too busy to learn what a node holds");
        }
    }

    /// Whom it waits for before it grants, and for how long at most; `None` if it grants.
    pub fn waits_for(&self) -> Option<(Vec<Arc<str>>, Duration)> {
        let now = self.inner.clock.now();
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.table.gate(now) {
            Gate::Open => None,
            Gate::Closed { until, silent } => {
                Some((silent.iter().cloned().collect(), until.since(now)))
            }
        }
    }

    /// What it has done so far; grants that stand; waiters; callers refused because there were too
    /// many.
    pub fn counts(&self) -> (Counts, usize, usize, usize) {
        let now = self.inner.clock.now();
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.table.handle_timeout(now);
        let (grants, waiters) = state.table.sizes();
        (state.table.counts(), grants, waiters, self.inner.overloaded.load(Ordering::Relaxed))
    }

    fn listing(&self) -> LockerListing {
        let listing = self.with(|state, now, _| {
            let table = &mut state.table;
            let is_open = matches!(table.gate(now), Gate::Open);
            let (grants_total, waiters_total) = table.sizes();
            LockerListing {
                grants: table.grants(now, LISTED_MAX, LISTED_BYTES_MAX),
                waiters: table.waiters(now, LISTED_MAX, LISTED_BYTES_MAX),
                grants_total: grants_total as u64,
                waiters_total: waiters_total as u64,
                is_open,
            }
        });
        listing.unwrap_or_default()
    }

    /// Tells those whose time has come, until the locker is gone. One task of it is enough.
    pub(crate) async fn keep_time(self) {
        let weak = Arc::downgrade(&self.inner);
        drop(self);
        while let Some(locker) = upgrade(&weak) {
            let Ok(due) = locker.with(|state, now, _| {
                state.table.handle_timeout(now);
                state.awake_at = state.table.poll_timeout();
                state.awake_at.map(|at| at.since(now))
            }) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            // A timer counts whole milliseconds, and may be early by one.
            let pause = due.unwrap_or(IDLE).clamp(Duration::from_millis(1), IDLE);
            let inner = Arc::clone(&locker.inner);
            drop(locker);
            tokio::select! {
                biased;
                () = inner.earlier.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// How often a locker looks that has nothing to do: so long its task may outlive it.
const IDLE: Duration = Duration::from_secs(1);

fn upgrade(weak: &Weak<Inner>) -> Option<LocalLocker> {
    weak.upgrade().map(|inner| LocalLocker { inner })
}

/// Too many wait for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overloaded;

/// A caller that waits for the table, or has it.
struct InTheTable<'a>(&'a AtomicUsize);

impl Drop for InTheTable<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn enter(&self) -> Result<InTheTable<'_>, Overloaded> {
        let place = InTheTable(&self.callers);
        if self.callers.fetch_add(1, Ordering::Relaxed) >= self.callers_max {
            self.overloaded.fetch_add(1, Ordering::Relaxed);
            return Err(Overloaded);
        }
        Ok(place)
    }
}

impl State {
    /// Those who are to be told now.
    fn called(&mut self) -> Vec<oneshot::Sender<()>> {
        let mut called = Vec::new();
        while let Some(place) = self.table.poll_called() {
            called.extend(self.told.remove(&place.id).map(|(_, sender)| sender));
        }
        called
    }
}

/// A waiter that waits to be told. Dropped when its question is taken back.
struct Waiting {
    locker: LocalLocker,
    place: Place,
    question: u64,
    is_called: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_called {
            return;
        }
        let left = self.locker.with(|state, now, _| {
            // Unless it has asked again meanwhile.
            if state.told.get(&self.place.id).is_some_and(|(latest, _)| *latest == self.question) {
                state.told.remove(&self.place.id);
                state.table.leave(&self.place, now);
            }
        });
        if left.is_err() {
            tracing::debug!(target: "dsync", "too busy to forget a waiter: its time will end");
        }
    }
}

impl Locker for LocalLocker {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn ask(&self, message: Message, limit: Duration) -> Answering<Stamped> {
        let locker = self.clone();
        Box::pin(async move {
            let is_lock = matches!(message, Message::Lock(_));
            match tokio::time::timeout(limit, locker.serve(message)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(Overloaded)) if is_lock => {
                    Ok(Stamped { answer: Answer::Lock(Err(Refusal::Full)), stamp: None })
                }
                Ok(Err(Overloaded)) => {
                    Err(LockerError { may_have_run: false, text: "overloaded".to_owned() })
                }
                Err(_) => Err(LockerError { may_have_run: true, text: "too slow".to_owned() }),
            }
        })
    }

    fn list(&self, _limit: Duration) -> Answering<LockerListing> {
        let listing = self.listing();
        Box::pin(async move { Ok(listing) })
    }

    fn force_unlock(&self, what: &Forced, _limit: Duration) -> Answering<usize> {
        let forced = self.force(what).len();
        Box::pin(async move { Ok(forced) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::clock::LeaseClock;
    use crate::proto::names::Names;
    use crate::proto::quorum::Kind;

    /// Long enough for whatever does not hang.
    const SOON: Duration = Duration::from_secs(10);

    fn lock_of(uid: &str) -> Message {
        let names = Names::new(["a"]).expect("a good name");
        Message::Lock(Ask {
            uid: uid.into(),
            names,
            kind: Kind::Read,
            owner: "n".into(),
            source: "test".into(),
            quorum: 1,
            proposal: Token::default(),
            place: None,
            knows_leases: true,
        })
    }

    fn open_for(table_callers_max: usize) -> LocalLocker {
        let limits = Limits { table_callers_max, ..Limits::default() };
        let locker = LocalLocker::new("n", ["n".into()], &limits, Arc::new(LeaseClock::new()), 1);
        locker.report("n", Vec::new(), Token::default());
        locker
    }

    /// Asks it as the driver of a lock does, from a thread of its own, as it may have to wait.
    fn ask(locker: &LocalLocker, message: Message) -> thread::JoinHandle<Result<Answer, bool>> {
        let answering = locker.ask(message, SOON);
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let answer = runtime.expect("a runtime").block_on(answering);
            answer.map(|stamped| stamped.answer).map_err(|error| error.may_have_run)
        })
    }

    fn wait_until(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            thread::yield_now();
        }
    }

    #[test]
    fn b57_when_too_many_wait_for_the_table_the_next_is_refused_without_waiting() {
        let locker = open_for(2);
        let occupied = locker.inner.state.lock().expect("nobody panics");
        let waiting = ["1", "2"].map(|uid| ask(&locker, lock_of(uid)));
        wait_until(|| locker.inner.callers.load(Ordering::Relaxed) == 2);

        let (sender, receiver) = sync_channel(2);
        let asker = locker.clone();
        thread::spawn(move || {
            let release = Message::Unlock { uid: "0".into(), names: None, kind: Kind::Read };
            for message in [lock_of("3"), release] {
                let _ = sender.send(ask(&asker, message).join().expect("no panic"));
            }
        });
        // The table is still occupied: who waited for it would not be answered.
        let refused = receiver.recv_timeout(SOON).expect("it does not wait");
        assert_eq!(refused, Ok(Answer::Lock(Err(Refusal::Full))));
        let refused = receiver.recv_timeout(SOON).expect("it does not wait");
        assert_eq!(refused, Err(false), "what was refused has certainly not been done");

        drop(occupied);
        for waiter in waiting {
            let answer = waiter.join().expect("no panic");
            assert!(matches!(answer, Ok(Answer::Lock(Ok(_)))), "{answer:?}");
        }
        let answer = ask(&locker, lock_of("3")).join().expect("no panic");
        assert!(matches!(answer, Ok(Answer::Lock(Ok(_)))), "there is room again: {answer:?}");
        let (_, grants, _, overloaded) = locker.counts();
        assert_eq!((grants, overloaded), (3, 2));
    }
}
