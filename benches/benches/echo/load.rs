//! A closed-loop load: one task per concurrent call, each of which repeats its call on the
//! response.
//!
//! The same for each library, so that any difference is due to the library.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

/// Payload of each call, in bytes: the cost per byte and the cost per call both matter.
const PAYLOAD_BYTES: usize = 512;

/// Timeout for the outstanding calls at the end. Not a measurement: without it a lost call would
/// hang the benchmark.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// A connected client of an echo server. A clone is another handle to the same connection.
pub(crate) trait EchoClient: Clone + Send + 'static {
    const NAME: &'static str;

    fn echo(&mut self, payload: Bytes) -> impl Future<Output = Bytes> + Send;
}

/// Makes calls for `duration`, then waits for the outstanding responses. Returns calls per second.
pub(crate) async fn calls_per_second(
    client: &impl EchoClient,
    in_flight: usize,
    duration: Duration,
) -> f64 {
    let is_stopped = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    let start = Instant::now();
    for caller in 0..in_flight {
        callers.spawn(call_until_stopped(
            client.clone(),
            payload_of(caller),
            Arc::clone(&is_stopped),
        ));
    }
    tokio::time::sleep(duration).await;
    is_stopped.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(END_TIMEOUT, callers.join_all()).await;
    let calls: u64 = ended.expect("each call receives a response").into_iter().sum();
    calls as f64 / start.elapsed().as_secs_f64()
}

/// Builds a payload that is unique to the caller, so that a mixed-up response is detected.
fn payload_of(caller: usize) -> Bytes {
    caller.to_le_bytes().into_iter().cycle().take(PAYLOAD_BYTES).collect()
}

/// Repeats the call until `is_stopped`, at least once, and returns the number of calls. Does not
/// read the clock, whose cost would be part of the measurement.
async fn call_until_stopped(
    mut client: impl EchoClient,
    payload: Bytes,
    is_stopped: Arc<AtomicBool>,
) -> u64 {
    let mut calls = 0;
    loop {
        let response = client.echo(payload.clone()).await;
        assert_eq!(response, payload, "an echo returns its payload");
        calls += 1;
        if is_stopped.load(Ordering::Relaxed) {
            return calls;
        }
    }
}
