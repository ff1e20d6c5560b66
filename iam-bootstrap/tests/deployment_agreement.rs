//! Agreement on a deployment id under arbitrary schedules: messages lost, delayed, duplicated and
//! reordered, timers at any time, and crashes at any point, also between the disk write and the
//! response.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use iam_bootstrap::deployment::proto::acceptor::{AcceptorState, Transition};
use iam_bootstrap::deployment::proto::proposer::{NoResponse, Output, Proposer};
use iam_bootstrap::deployment::proto::{PaxosRequest, PaxosResponse};
use iam_bootstrap::deployment::{DeploymentId, Timing};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// A message in flight.
#[derive(Debug, Clone)]
enum Message {
    /// Request to a server's own acceptor.
    Claim {
        of: usize,
        above: u64,
    },
    Claimed {
        of: usize,
        response: PaxosResponse,
    },
    Request {
        from: usize,
        to: usize,
        request: PaxosRequest,
    },
    Response {
        from: usize,
        to: usize,
        request: PaxosRequest,
        response: Result<PaxosResponse, NoResponse>,
    },
}

struct Server {
    name: Arc<str>,
    /// State on disk.
    disk: AcceptorState,
    proposer: Proposer,
    /// Starts of the process, for seeds.
    starts: u64,
    has_announced: bool,
}

struct World {
    seed: u64,
    servers: Vec<Server>,
    in_flight: Vec<Message>,
    /// All ids that any server ever considered decided.
    decided: BTreeSet<DeploymentId>,
}

fn proposer(seed: u64, index: usize, servers: usize, starts: u64) -> Proposer {
    let rng = SmallRng::seed_from_u64(seed ^ (index as u64) << 32 ^ starts << 40);
    Proposer::new(index, servers, Timing::default(), rng)
}

impl World {
    fn new(servers: usize, seed: u64) -> Self {
        let server = |index: usize| Server {
            name: format!("http://n{index}:1").into(),
            disk: AcceptorState::default(),
            proposer: proposer(seed, index, servers, 0),
            starts: 0,
            has_announced: false,
        };
        let servers = (0..servers).map(server).collect();
        Self { seed, servers, in_flight: Vec::new(), decided: BTreeSet::new() }
    }

    /// Loses everything in memory, with the requests to its own acceptor. Messages that it sent
    /// stay in flight.
    fn crash(&mut self, at: usize) {
        let count = self.servers.len();
        let server = &mut self.servers[at];
        server.starts += 1;
        server.has_announced = false;
        server.proposer = proposer(self.seed, at, count, server.starts);
        self.in_flight.retain(|message| match message {
            Message::Claim { of, .. } | Message::Claimed { of, .. } => *of != at,
            Message::Request { .. } | Message::Response { .. } => true,
        });
    }

    /// Fires a server's timer. A server that knows the id announces it again: the announcement may
    /// have been lost.
    fn time_out(&mut self, at: usize) {
        match self.servers[at].proposer.poll_timeout() {
            Some((epoch, _)) => self.servers[at].proposer.handle_timeout(epoch),
            None => self.servers[at].has_announced = false,
        }
        self.collect(at);
    }

    /// Returns the response of a server's acceptor, once its state is on disk.
    fn serve(
        &mut self,
        at: usize,
        handle: impl Fn(&AcceptorState, &Arc<str>) -> Transition,
    ) -> PaxosResponse {
        let server = &mut self.servers[at];
        let transition = handle(&server.disk, &server.name);
        if let Some(saved) = transition.save {
            server.disk = saved;
        }
        self.decided.extend(self.servers[at].disk.decided);
        transition.response
    }

    /// Delivers a message. A server that crashes has saved its state and does not respond.
    fn deliver(&mut self, message: Message, crashes: bool) {
        match message {
            Message::Claim { of, above } => {
                let response = self.serve(of, |state, name| state.claim(name, above));
                self.in_flight.push(Message::Claimed { of, response });
                self.crash_if(crashes, of);
            }
            Message::Claimed { of, response } => {
                self.servers[of].proposer.handle_claim(Ok(response));
                self.collect(of);
                self.crash_if(crashes, of);
            }
            Message::Request { from, to, request } => {
                let response = self.serve(to, |state, _| state.handle(&request));
                self.crash_if(crashes, to);
                if !crashes {
                    let response = Ok(response);
                    self.in_flight.push(Message::Response {
                        from: to,
                        to: from,
                        request,
                        response,
                    });
                }
            }
            Message::Response { from, to, request, response } => {
                self.servers[to].proposer.handle_response(from, &request, &response);
                self.collect(to);
                self.crash_if(crashes, to);
            }
        }
    }

    fn crash_if(&mut self, crashes: bool, at: usize) {
        if crashes {
            self.crash(at);
        }
    }

    /// Sends the messages that a server's proposer requests.
    fn collect(&mut self, at: usize) {
        while let Some(output) = self.servers[at].proposer.poll_output() {
            self.in_flight.push(match output {
                Output::Claim { above } => Message::Claim { of: at, above },
                Output::Send { to, request } => Message::Request { from: at, to, request },
            });
        }
        let Some(id) = self.servers[at].proposer.decided() else { return };
        self.decided.insert(id);
        if !self.servers[at].has_announced {
            self.servers[at].has_announced = true;
            for to in 0..self.servers.len() {
                let request = PaxosRequest::Learn { id };
                self.in_flight.push(Message::Request { from: at, to, request });
            }
        }
    }

    /// Loses a message. If noticed, the sender of a request sees that there is no response.
    fn lose(&mut self, index: usize, is_noticed: bool) {
        let lost = self.in_flight.swap_remove(index);
        if let (Message::Request { from, to, request }, true) = (lost, is_noticed) {
            let response = Err(NoResponse);
            self.in_flight.push(Message::Response { from: to, to: from, request, response });
        }
    }

    fn step(&mut self, action: Action, which: u16) {
        let (server, which) = (usize::from(which) % self.servers.len(), usize::from(which));
        let count = self.in_flight.len();
        match (action, which.checked_rem(count)) {
            (Action::Crash, _) => self.crash(server),
            (Action::TimeOut, _) => self.time_out(server),
            (Action::Begin, _) => self.begin(server),
            (_, None) => {}
            (Action::Deliver, Some(index)) => {
                let message = self.in_flight.swap_remove(index);
                self.deliver(message, false);
            }
            (Action::DeliverNewest, Some(_)) => {
                let message = self.in_flight.swap_remove(count - 1);
                self.deliver(message, false);
            }
            (Action::Double, Some(index)) => {
                let message = self.in_flight[index].clone(); // the original stays in flight
                self.deliver(message, false);
            }
            (Action::Lose, Some(index)) => self.lose(index, false),
            (Action::Fail, Some(index)) => self.lose(index, true),
            (Action::DeliverAndCrash, Some(index)) => {
                let message = self.in_flight.swap_remove(index);
                self.deliver(message, true);
            }
        }
        assert!(self.decided.len() <= 1, "two ids were decided: {:?}", self.decided);
    }

    /// Fires the timer of a server that waits between attempts.
    fn begin(&mut self, at: usize) {
        if self.servers[at].proposer.is_waiting() {
            self.time_out(at);
        }
    }

    fn is_done(&self) -> bool {
        self.servers.iter().all(|server| server.disk.decided.is_some())
    }

    /// From now on no message is lost, and timers fire only when no message is in flight.
    fn run_fairly(&mut self) {
        let mut turns = 0;
        while !self.is_done() {
            while !self.in_flight.is_empty() {
                let message = self.in_flight.remove(0);
                self.deliver(message, false);
            }
            let next = turns % self.servers.len();
            self.time_out(next);
            turns += 1;
            assert!(turns < 50 * self.servers.len(), "not decided under a fair schedule");
            assert!(self.decided.len() <= 1, "two ids were decided: {:?}", self.decided);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Deliver,
    DeliverNewest,
    /// Deliver a copy; the original is delivered later.
    Double,
    Lose,
    /// Lose a request; its sender sees that there is no response.
    Fail,
    DeliverAndCrash,
    Crash,
    TimeOut,
    /// A timer that ends no attempt.
    Begin,
}

const ACTIONS: [Action; 9] = [
    Action::Deliver,
    Action::DeliverNewest,
    Action::Double,
    Action::Lose,
    Action::Fail,
    Action::DeliverAndCrash,
    Action::Crash,
    Action::TimeOut,
    Action::Begin,
];

/// Actions with the server or message that each applies to. The weights differ between schedules:
/// some never lose a message, some do little else.
fn schedule() -> impl Strategy<Value = Vec<(Action, u16)>> {
    let weights = prop::array::uniform9(prop::sample::select(vec![0_u32, 1, 4, 16]));
    weights.prop_flat_map(|weights| {
        let weighed = weights.iter().map(|weight| (*weight).max(1)).zip(ACTIONS);
        let actions = weighed.map(|(weight, action)| (weight, Just(action).boxed())).collect();
        vec((prop::strategy::Union::new_weighted(actions), any::<u16>()), 0..300)
    })
}

/// Mostly enough servers for different majorities.
fn servers() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 1..=2_usize, 6 => 3..=5_usize]
}

/// A schedule is short and fast, and failures need a rare one.
fn many() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    ProptestConfig { cases: default.cases.max(3_000), ..default }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn b63_no_schedule_decides_two_ids_and_a_fair_one_decides(
        servers in servers(), seed in any::<u64>(), schedule in schedule(),
    ) {
        let mut world = World::new(servers, seed);
        for (action, which) in schedule {
            world.step(action, which);
        }
        world.run_fairly();
        prop_assert_eq!(world.decided.len(), 1);
    }

    #[test]
    fn b63_decision_needs_a_majority(
        servers in servers(), seed in any::<u64>(), schedule in schedule(),
    ) {
        let mut world = World::new(servers, seed);
        let live = servers / 2;
        for (action, which) in schedule {
            if live == 0 {
                break;
            }
            world.step(action, which);
            let is_live = |message: &Message| match message {
                Message::Claim { of, .. } | Message::Claimed { of, .. } => *of < live,
                Message::Request { from, to, .. } | Message::Response { from, to, .. } => {
                    *from < live && *to < live
                }
            };
            world.in_flight.retain(is_live);
        }
        prop_assert!(world.decided.is_empty(), "{:?}", world.decided);
        world.run_fairly();
        prop_assert_eq!(world.decided.len(), 1);
    }
}

#[test]
fn b63_single_server_decides() {
    let mut world = World::new(1, 7);
    world.time_out(0);
    while let Some(message) = world.in_flight.pop() {
        world.deliver(message, false);
    }
    assert!(world.is_done());
}

#[test]
fn b63_duplicate_response_counts_once() {
    let mut world = World::new(5, 7);
    world.time_out(0);
    let claim = world.in_flight.remove(0);
    world.deliver(claim, false);
    let claimed = world.in_flight.remove(0);
    world.deliver(claimed, false);
    let request = world.in_flight.remove(0);
    world.deliver(request, false);
    let duplicate = world.in_flight.pop().expect("request has a response");
    world.in_flight.clear();
    for _ in 0..5 {
        world.deliver(duplicate.clone(), false);
    }
    assert!(world.in_flight.is_empty(), "only two of five have promised: {:?}", world.in_flight);
}
