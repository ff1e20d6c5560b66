//! A closed loop: as many tasks as calls shall be under way, each calling again when it is answered.
//!
//! The same for each peer, so that what differs is theirs.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

/// Payload of each call, in bytes: large enough that bytes count, small enough that calls do.
const PAYLOAD_BYTES: usize = 512;

/// Longest time for the calls under way to come to an end. Not a measurement: it is there lest a
/// peer that lost one hangs for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of an echo, connected. A clone is another handle on the same connection.
pub(crate) trait Peer: Clone + Send + 'static {
    const NAME: &'static str;

    fn echo(&mut self, payload: Bytes) -> impl Future<Output = Bytes> + Send;
}

/// Calls for `duration`, and until what is under way then is answered.
pub(crate) async fn calls_per_second(
    peer: &impl Peer,
    in_flight: usize,
    duration: Duration,
) -> f64 {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    let begun = Instant::now();
    for caller in 0..in_flight {
        callers.spawn(call_until_over(peer.clone(), payload_of(caller), Arc::clone(&is_over)));
    }
    tokio::time::sleep(duration).await;
    is_over.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(PATIENCE, callers.join_all()).await;
    let calls: u64 = ended.expect("each call is answered").into_iter().sum();
    calls as f64 / begun.elapsed().as_secs_f64()
}

/// Another one for each caller, so that an answer to another caller's call is noticed.
fn payload_of(caller: usize) -> Bytes {
    caller.to_le_bytes().into_iter().cycle().take(PAYLOAD_BYTES).collect()
}

/// Returns how often it called: at least once. Does not read the clock, which would cost as much
/// as some of what is measured.
async fn call_until_over(mut peer: impl Peer, payload: Bytes, is_over: Arc<AtomicBool>) -> u64 {
    let mut calls = 0;
    loop {
        let answer = peer.echo(payload.clone()).await;
        assert_eq!(answer, payload, "an echo returns what it was given");
        calls += 1;
        if is_over.load(Ordering::Relaxed) {
            return calls;
        }
    }
}
