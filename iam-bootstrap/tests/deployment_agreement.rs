//! The agreement on a deployment id under arbitrary schedules: messages that are lost, late, doubled and
//! out of order, timers whenever, servers that crash at any point, also between disk and answer.
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

/// Something under way.
#[derive(Debug, Clone)]
enum Flight {
    /// To a server's own acceptor.
    Claim {
        of: usize,
        above: u64,
    },
    Claimed {
        of: usize,
        answer: PaxosResponse,
    },
    Asked {
        from: usize,
        to: usize,
        request: PaxosRequest,
    },
    Answered {
        from: usize,
        to: usize,
        request: PaxosRequest,
        answer: Result<PaxosResponse, NoResponse>,
    },
}

struct Server {
    name: Arc<str>,
    /// What is on disk.
    disk: AcceptorState,
    proposer: Proposer,
    /// Starts of the process, for seeds.
    starts: u64,
    has_told: bool,
}

struct World {
    seed: u64,
    servers: Vec<Server>,
    flights: Vec<Flight>,
    /// All ids that anybody ever took for decided.
    decided: BTreeSet<DeploymentId>,
}

fn proposer(seed: u64, me: usize, servers: usize, starts: u64) -> Proposer {
    let rng = SmallRng::seed_from_u64(seed ^ (me as u64) << 32 ^ starts << 40);
    Proposer::new(me, servers, Timing::default(), rng)
}

impl World {
    fn new(servers: usize, seed: u64) -> Self {
        let server = |me: usize| Server {
            name: format!("http://n{me}:1").into(),
            disk: AcceptorState::default(),
            proposer: proposer(seed, me, servers, 0),
            starts: 0,
            has_told: false,
        };
        let servers = (0..servers).map(server).collect();
        Self { seed, servers, flights: Vec::new(), decided: BTreeSet::new() }
    }

    /// Everything in memory is gone, and so is what others asked it. What it sent stays under way.
    fn crash(&mut self, at: usize) {
        let count = self.servers.len();
        let server = &mut self.servers[at];
        server.starts += 1;
        server.has_told = false;
        server.proposer = proposer(self.seed, at, count, server.starts);
        self.flights.retain(|flight| match flight {
            Flight::Claim { of, .. } | Flight::Claimed { of, .. } => *of != at,
            Flight::Asked { .. } | Flight::Answered { .. } => true,
        });
    }

    /// A server's timer is due. One that knows the id tells it again: it may have been lost.
    fn time_out(&mut self, at: usize) {
        match self.servers[at].proposer.poll_timeout() {
            Some((epoch, _)) => self.servers[at].proposer.handle_timeout(epoch),
            None => self.servers[at].has_told = false,
        }
        self.collect(at);
    }

    /// What a server's acceptor answers, once that is on disk.
    fn serve(
        &mut self,
        at: usize,
        ask: impl Fn(&AcceptorState, &Arc<str>) -> Transition,
    ) -> PaxosResponse {
        let server = &mut self.servers[at];
        let step = ask(&server.disk, &server.name);
        if let Some(saved) = step.save {
            server.disk = saved;
        }
        self.decided.extend(self.servers[at].disk.decided);
        step.response
    }

    /// Brings something to where it is going. A server that crashes has saved and does not answer.
    fn deliver(&mut self, flight: Flight, crashes: bool) {
        match flight {
            Flight::Claim { of, above } => {
                let answer = self.serve(of, |state, name| state.claim(name, above));
                self.flights.push(Flight::Claimed { of, answer });
                self.crash_if(crashes, of);
            }
            Flight::Claimed { of, answer } => {
                self.servers[of].proposer.handle_claim(Ok(answer));
                self.collect(of);
                self.crash_if(crashes, of);
            }
            Flight::Asked { from, to, request } => {
                let answer = self.serve(to, |state, _| state.handle(&request));
                self.crash_if(crashes, to);
                if !crashes {
                    let answer = Ok(answer);
                    self.flights.push(Flight::Answered { from: to, to: from, request, answer });
                }
            }
            Flight::Answered { from, to, request, answer } => {
                self.servers[to].proposer.handle_response(from, &request, &answer);
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

    /// Sends what a server wants sent.
    fn collect(&mut self, at: usize) {
        while let Some(output) = self.servers[at].proposer.poll_output() {
            self.flights.push(match output {
                Output::Claim { above } => Flight::Claim { of: at, above },
                Output::Send { to, request } => Flight::Asked { from: at, to, request },
            });
        }
        let Some(id) = self.servers[at].proposer.decided() else { return };
        self.decided.insert(id);
        if !self.servers[at].has_told {
            self.servers[at].has_told = true;
            for to in 0..self.servers.len() {
                let request = PaxosRequest::Learn { id };
                self.flights.push(Flight::Asked { from: at, to, request });
            }
        }
    }

    /// Loses something: nobody hears of it, or who asked hears that there is no answer.
    fn lose(&mut self, index: usize, is_noticed: bool) {
        let lost = self.flights.swap_remove(index);
        if let (Flight::Asked { from, to, request }, true) = (lost, is_noticed) {
            let answer = Err(NoResponse);
            self.flights.push(Flight::Answered { from: to, to: from, request, answer });
        }
    }

    fn step(&mut self, action: Action, which: u16) {
        let (server, which) = (usize::from(which) % self.servers.len(), usize::from(which));
        let count = self.flights.len();
        match (action, which.checked_rem(count)) {
            (Action::Crash, _) => self.crash(server),
            (Action::TimeOut, _) => self.time_out(server),
            (Action::Begin, _) => self.begin(server),
            (_, None) => {}
            (Action::Deliver, Some(index)) => {
                let flight = self.flights.swap_remove(index);
                self.deliver(flight, false);
            }
            (Action::DeliverNewest, Some(_)) => {
                let flight = self.flights.swap_remove(count - 1);
                self.deliver(flight, false);
            }
            (Action::Double, Some(index)) => {
                let flight = self.flights[index].clone(); // it stays under way
                self.deliver(flight, false);
            }
            (Action::Lose, Some(index)) => self.lose(index, false),
            (Action::Fail, Some(index)) => self.lose(index, true),
            (Action::DeliverAndCrash, Some(index)) => {
                let flight = self.flights.swap_remove(index);
                self.deliver(flight, true);
            }
        }
        assert!(self.decided.len() <= 1, "two ids were decided: {:?}", self.decided);
    }

    /// Time passes for a server that waits for nothing else.
    fn begin(&mut self, at: usize) {
        if self.servers[at].proposer.is_waiting() {
            self.time_out(at);
        }
    }

    fn is_done(&self) -> bool {
        self.servers.iter().all(|server| server.disk.decided.is_some())
    }

    /// From now on nothing is lost, and timers are due when nothing else happens.
    fn settle(&mut self) {
        let mut turns = 0;
        while !self.is_done() {
            while !self.flights.is_empty() {
                let flight = self.flights.remove(0);
                self.deliver(flight, false);
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
    /// Deliver, and again some time.
    Double,
    Lose,
    /// Lose, and whoever asked learns that there is no answer.
    Fail,
    DeliverAndCrash,
    Crash,
    TimeOut,
    /// A time-out that ends no attempt.
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

/// What happens, to whom. How often which action is taken differs from schedule to schedule: some never
/// lose anything, some do little else.
fn schedule() -> impl Strategy<Value = Vec<(Action, u16)>> {
    let weights = prop::array::uniform9(prop::sample::select(vec![0_u32, 1, 4, 16]));
    weights.prop_flat_map(|weights| {
        let weighed = weights.iter().map(|weight| (*weight).max(1)).zip(ACTIONS);
        let actions = weighed.map(|(weight, action)| (weight, Just(action).boxed())).collect();
        vec((prop::strategy::Union::new_weighted(actions), any::<u16>()), 0..300)
    })
}

/// Mostly enough for different majorities.
fn servers() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 1..=2_usize, 6 => 3..=5_usize]
}

/// A schedule is short and quick, and what goes wrong needs a rare one.
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
        world.settle();
        prop_assert_eq!(world.decided.len(), 1);
    }

    #[test]
    fn b63_without_a_majority_nothing_is_decided_and_with_one_it_is(
        servers in servers(), seed in any::<u64>(), schedule in schedule(),
    ) {
        let mut world = World::new(servers, seed);
        let live = servers / 2;
        for (action, which) in schedule {
            if live == 0 {
                break;
            }
            world.step(action, which);
            let is_live = |flight: &Flight| match flight {
                Flight::Claim { of, .. } | Flight::Claimed { of, .. } => *of < live,
                Flight::Asked { from, to, .. } | Flight::Answered { from, to, .. } => {
                    *from < live && *to < live
                }
            };
            world.flights.retain(is_live);
        }
        prop_assert!(world.decided.is_empty(), "{:?}", world.decided);
        world.settle();
        prop_assert_eq!(world.decided.len(), 1);
    }
}

#[test]
fn b63_one_server_alone_decides_alone() {
    let mut world = World::new(1, 7);
    world.time_out(0);
    while let Some(flight) = world.flights.pop() {
        world.deliver(flight, false);
    }
    assert!(world.is_done());
}

#[test]
fn b63_an_answer_that_comes_twice_is_no_majority() {
    let mut world = World::new(5, 7);
    world.time_out(0);
    let claim = world.flights.remove(0);
    world.deliver(claim, false);
    let claimed = world.flights.remove(0);
    world.deliver(claimed, false);
    let asked = world.flights.remove(0);
    world.deliver(asked, false);
    let answered = world.flights.pop().expect("it was answered");
    world.flights.clear();
    for _ in 0..5 {
        world.deliver(answered.clone(), false);
    }
    assert!(world.flights.is_empty(), "two of five have promised: {:?}", world.flights);
}
