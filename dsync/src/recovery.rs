//! A locker that has started asks every node which of its grants it counts on, and grants when all
//! have answered (B53).

use std::sync::{Arc, Weak};
use std::time::Duration;

use grid::{CallOptions, Connection};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::dsync::{Dsync, Inner};
use crate::limits::{RECOVERY_RETRY, RECOVERY_TIMEOUT};
use crate::local::LocalLocker;
use crate::proto::table::Holding;
use crate::proto::token::Token;
use crate::server;
use crate::wire::{HOLDINGS, HoldingsAnswer, HoldingsArgs};

/// Asks all nodes, each in a task of its own, until they have answered or the locker grants.
pub(crate) fn start(dsync: &Dsync, own: &LocalLocker) {
    let inner = &dsync.inner;
    ask_oneself(inner, own);
    for connection in dsync.manager.connections() {
        let (own, rng) = (own.clone(), inner.fork_rng());
        tokio::spawn(ask(connection, own, Arc::downgrade(inner), rng));
    }
    tokio::spawn(tell(own.clone(), Arc::downgrade(inner)));
}

/// This server may hold locks of its own locker. It has just started: it does not.
fn ask_oneself(inner: &Inner, own: &LocalLocker) {
    let locker = inner.locker_index(&inner.owner);
    let mut learnt = Learnt::default();
    let mut after = 0;
    loop {
        let answer = server::holdings(inner, locker, after);
        after = answer.next;
        learnt.add(answer);
        if after == 0 {
            break;
        }
    }
    own.report(&inner.owner, learnt.holdings, learnt.high);
}

#[derive(Debug, Default)]
struct Learnt {
    holdings: Vec<Holding>,
    high: Token,
}

impl Learnt {
    fn add(&mut self, answer: HoldingsAnswer) {
        self.high = self.high.max(answer.high);
        for args in answer.holdings {
            match args.to_holding() {
                Ok(holding) => self.holdings.push(holding),
                Err(error) => {
                    tracing::warn!(target: "dsync", uid = args.uid, error, "a node holds what nobody can");
                }
            }
        }
    }
}

async fn ask(connection: Connection, own: LocalLocker, inner: Weak<Inner>, mut rng: SmallRng) {
    // A locker that is gone needs to know nothing.
    while inner.strong_count() > 0 && own.waits_for().is_some() {
        let connected = tokio::time::timeout(RECOVERY_TIMEOUT, connection.wait_connected()).await;
        if let Ok(Ok(())) = connected {
            match ask_once(&connection).await {
                Ok(learnt) => {
                    let node = connection.remote().as_str();
                    return own.report(node, learnt.holdings, learnt.high);
                }
                Err(error) => tracing::debug!(
                    target: "dsync", node = %connection.remote(), %error, "a node did not say what it holds"
                ),
            }
        }
        let pause = RECOVERY_RETRY.mul_f64(rng.random_range(0.5..1.0));
        tokio::time::sleep(pause).await;
    }
}

/// All parts of what a node holds. Each time from the beginning: what it was asked in vain does not
/// count any more.
async fn ask_once(connection: &Connection) -> Result<Learnt, grid::TypedCallError> {
    let mut learnt = Learnt::default();
    let mut after = 0;
    loop {
        let (args, options) =
            (HoldingsArgs { after }, CallOptions::default().timeout(RECOVERY_TIMEOUT));
        let answer = HOLDINGS.call_with(connection, &args, options).await?;
        let next = answer.next;
        learnt.add(answer);
        if next <= after {
            return Ok(learnt);
        }
        after = next;
    }
}

/// How often it is logged that a locker does not grant yet.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Tells operators why locks are not granted.
async fn tell(own: LocalLocker, inner: Weak<Inner>) {
    tokio::time::sleep(TELL_EVERY / 5).await;
    while let Some((nodes, left)) = own.waits_for().filter(|_| inner.strong_count() > 0) {
        tracing::info!(
            target: "dsync", ?nodes, at_most = ?left,
            "this locker has restarted and grants nothing before these nodes have said what they hold"
        );
        tokio::time::sleep(TELL_EVERY.min(left)).await;
    }
}
