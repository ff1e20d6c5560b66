//! Every phase and every event, as a table: server 0 of three, in its attempt of round 3.

use std::fmt::Write as _;
use std::sync::Arc;

use rand::SeedableRng;

use super::*;

type Response = Result<PaxosResponse, NoResponse>;

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: Arc::from("a") }
}

fn id(bits: u128) -> DeploymentId {
    DeploymentId::from_bits(bits).expect("not nil")
}

fn promised(round: u64, accepted: Option<Vote>) -> Response {
    Ok(PaxosResponse::Promised { ballot: ballot(round), accepted })
}

fn prepare(round: u64) -> PaxosRequest {
    PaxosRequest::Prepare { ballot: ballot(round) }
}

fn time_out(proposer: &mut Proposer) {
    let (epoch, _) = proposer.poll_timeout().expect("not decided");
    proposer.handle_timeout(epoch);
}

fn drain(proposer: &mut Proposer) -> Vec<Output> {
    std::iter::from_fn(|| proposer.poll_output()).collect()
}

const PHASES: [&str; 5] = ["waiting", "claiming", "preparing", "accepting", "decided"];

/// Leads a proposer to this phase.
fn in_phase(phase: &str) -> Proposer {
    let mut proposer = Proposer::new(0, 3, Timing::default(), SmallRng::seed_from_u64(7));
    let position = PHASES.iter().position(|known| *known == phase).expect("a phase");
    let steps: [fn(&mut Proposer); 4] = [
        time_out,
        |proposer| proposer.handle_claim(promised(3, None)),
        |proposer| proposer.handle_response(1, &prepare(3), &promised(3, None)),
        |proposer| proposer.decide(id(7)),
    ];
    for step in &steps[..position] {
        step(&mut proposer);
        drain(&mut proposer);
    }
    proposer
}

type Event = (&'static str, fn(&mut Proposer));

/// The request of the current phase; of the first, where there is none.
fn current(proposer: &Proposer) -> PaxosRequest {
    match &proposer.phase {
        ProposerPhase::Accepting { vote, .. } => PaxosRequest::Accept(vote.clone()),
        _ => prepare(3),
    }
}

fn respond(proposer: &mut Proposer, from: usize, response: &Response) {
    let request = current(proposer);
    proposer.handle_response(from, &request, response);
}

fn events() -> Vec<Event> {
    vec![
        ("timeout", |proposer| {
            let epoch = proposer.epoch;
            proposer.handle_timeout(epoch);
        }),
        ("timeout of an earlier phase", |proposer| {
            let epoch = proposer.epoch;
            proposer.handle_timeout(epoch.wrapping_sub(1));
        }),
        ("claim: promised in 4", |proposer| proposer.handle_claim(promised(4, None))),
        ("claim: promised in 2", |proposer| proposer.handle_claim(promised(2, None))),
        ("claim: no response", |proposer| proposer.handle_claim(Err(NoResponse))),
        ("claim: decided", |proposer| {
            proposer.handle_claim(Ok(PaxosResponse::Decided { id: id(9) }));
        }),
        ("1: promised", |proposer| respond(proposer, 1, &promised(3, None))),
        ("1: promised, accepted id 5", |proposer| {
            let accepted = Some(Vote { ballot: ballot(2), id: id(5) });
            respond(proposer, 1, &promised(3, accepted));
        }),
        ("1: promised in 2", |proposer| {
            proposer.handle_response(1, &prepare(2), &promised(2, None));
        }),
        ("1: accepted", |proposer| respond(proposer, 1, &Ok(PaxosResponse::Accepted))),
        ("1 and 2: accepted", |proposer| {
            for from in [1, 2] {
                respond(proposer, from, &Ok(PaxosResponse::Accepted));
            }
        }),
        ("1: refused for 8", |proposer| {
            respond(proposer, 1, &Ok(PaxosResponse::Refused { promised: ballot(8) }));
        }),
        ("1 and 2: no response", |proposer| {
            for from in [1, 2] {
                respond(proposer, from, &Err(NoResponse));
            }
        }),
        ("1: decided", |proposer| {
            respond(proposer, 1, &Ok(PaxosResponse::Decided { id: id(9) }));
        }),
        ("1: conflict", |proposer| {
            respond(proposer, 1, &Ok(PaxosResponse::Conflict { ours: id(9) }));
        }),
    ]
}

fn show_id(proposer: &Proposer, id: DeploymentId) -> String {
    match id == proposer.proposed_id {
        true => "own id".to_owned(),
        false => format!("id {}", id.to_bits()),
    }
}

fn show_phase(proposer: &Proposer) -> String {
    let count = |quorum: &QuorumCount| {
        format!("granted {:?}, rejected {:?}", quorum.granted, quorum.rejected)
    };
    match &proposer.phase {
        ProposerPhase::Waiting { .. } => "waiting".to_owned(),
        ProposerPhase::Claiming => "claiming".to_owned(),
        ProposerPhase::Preparing { ballot, quorum, highest } => {
            let highest = highest.as_ref().map(|vote| show_id(proposer, vote.id));
            let highest = highest.unwrap_or_else(|| "none".to_owned());
            format!("preparing {}: {}, highest {highest}", ballot.round, count(quorum))
        }
        ProposerPhase::Accepting { vote, quorum } => {
            let id = show_id(proposer, vote.id);
            format!("accepting {id} in {}: {}", vote.ballot.round, count(quorum))
        }
        ProposerPhase::Decided { id } => format!("decided {}", show_id(proposer, *id)),
    }
}

fn show_outputs(proposer: &mut Proposer) -> String {
    let outputs = drain(proposer).into_iter().map(|output| match output {
        Output::Claim { above } => format!("claim above {above}"),
        Output::Send { to, request } => match request {
            PaxosRequest::Prepare { ballot } => format!("prepare {} to {to}", ballot.round),
            PaxosRequest::Accept(vote) => {
                format!("accept {} to {to}", show_id(proposer, vote.id))
            }
            PaxosRequest::Learn { .. } => "learn".to_owned(),
        },
    });
    let outputs: Vec<_> = outputs.collect();
    if outputs.is_empty() { String::new() } else { format!("; {}", outputs.join(", ")) }
}

#[test]
fn b63_every_proposer_phase_and_event() {
    let mut table = String::new();
    for phase in PHASES {
        for (event, apply) in events() {
            let mut proposer = in_phase(phase);
            apply(&mut proposer);
            let (after, outputs) = (show_phase(&proposer), show_outputs(&mut proposer));
            writeln!(table, "{phase:<9} | {event:<27} | {after}{outputs}").expect("text");
        }
    }
    insta::assert_snapshot!(table);
}
