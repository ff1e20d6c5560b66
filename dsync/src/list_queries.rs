//! Queries every other server for its list of lockers, eight times in a lease and on each connect
//! ([B65]).
//!
//! [B65]: crate::rules#b65

use std::sync::{Arc, Weak};
use std::time::Duration;

use grid::backoff::jittered;
use grid::{CallError, CallOptions, ConnectionState, Env, StateWatch, TypedCallError};
use rand::rngs::SmallRng;

use crate::admission::Admission;
use crate::limits::Limits;
use crate::live_locks::LiveLocks;
use crate::peers::Peers;
use crate::proto::agreement::{ListHashes, NodeReport};
use crate::wire::{LOCKER_STATE, LockerStateArgs, LockerStateResponse};

/// Starts a task for each other server, and the timer of the admission. They end with the instance.
pub(crate) fn start(
    peers: &Arc<Peers>,
    admission: &Arc<Admission>,
    locks: &Arc<LiveLocks>,
    env: &Env,
) {
    for connection in peers.connections() {
        let query = Query {
            node: connection.remote().as_str().into(),
            watch: connection.watch(),
            peers: Arc::downgrade(peers),
            admission: Arc::clone(admission),
            limits: locks.limits().clone(),
            env: env.clone(),
        };
        tokio::spawn(query.run(env.fork()));
    }
    let interval = locks.limits().confirmation_interval();
    tokio::spawn(run_timer(Arc::clone(admission), Arc::downgrade(locks), env.clone(), interval));
}

/// Publishes when the admission ends by time.
async fn run_timer(
    admission: Arc<Admission>,
    locks: Weak<LiveLocks>,
    env: Env,
    interval: Duration,
) {
    while locks.strong_count() > 0 {
        let due = admission.handle_timeout();
        let wait = due.map_or(interval, |due| due.since(env.now()));
        // tokio's timers have a resolution of 1 ms.
        tokio::time::sleep(wait.clamp(Duration::from_millis(1), interval)).await;
    }
}

/// The queries of one server.
struct Query {
    node: Arc<str>,
    watch: StateWatch,
    /// Weak: a connection would keep the manager alive.
    peers: Weak<Peers>,
    admission: Arc<Admission>,
    limits: Limits,
    env: Env,
}

impl Query {
    async fn run(mut self, mut rng: SmallRng) {
        while self.peers.strong_count() > 0 {
            let pause = jittered(self.limits.confirmation_interval(), &mut rng);
            match self.watch.state() {
                ConnectionState::Shutdown => return,
                ConnectionState::Connected => self.query_once().await,
                ConnectionState::Connecting | ConnectionState::Backoff => {}
            }
            // A new connection may lead to a server that has restarted: it is queried at once.
            let _ = tokio::time::timeout(pause, self.watch.changed()).await;
        }
    }

    async fn query_once(&self) {
        let connection = |peers: Arc<Peers>| peers.connection(&self.node).cloned();
        let Some(connection) = self.peers.upgrade().and_then(connection) else { return };
        let node = &*self.node;
        let sent_at = self.env.now();
        let ListHashes { list, servers } = self.admission.hashes();
        let args = LockerStateArgs { epoch: 0, list_hash: list, servers_hash: servers };
        let options = CallOptions::default().timeout(self.limits.attempt_timeout);
        match LOCKER_STATE.call_with(&connection, &args, options).await {
            Ok(response) => self.admission.handle_report(node, report_of(&response), sent_at),
            Err(TypedCallError::Call(CallError::UnknownHandler { .. })) => {
                self.admission.handle_report(node, NodeReport::Plain, sent_at);
            }
            Err(error) => {
                tracing::debug!(target: "dsync", server = node, %error, "query of the list failed");
            }
        }
    }
}

fn report_of(response: &LockerStateResponse) -> NodeReport {
    let LockerStateResponse { list_hash, servers_hash, process, up_for_ms, .. } = *response;
    NodeReport::Hashes {
        hashes: ListHashes { list: list_hash, servers: servers_hash },
        process,
        up_for: Duration::from_millis(up_for_ms),
    }
}
