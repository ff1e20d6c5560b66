//! Every state and every request, as a table.

use std::fmt::Write as _;

use super::*;

fn ballot(round: u64, node: &str) -> Ballot {
    Ballot { round, node: node.into() }
}

fn id(bits: u128) -> DeploymentId {
    DeploymentId::from_bits(bits).expect("not nil")
}

fn vote(round: u64, node: &str, bits: u128) -> Vote {
    Vote { ballot: ballot(round, node), id: id(bits) }
}

fn states() -> [(&'static str, AcceptorState); 4] {
    let promised = AcceptorState { promised: ballot(2, "b"), ..AcceptorState::default() };
    let accepted = AcceptorState { accepted: Some(vote(2, "b", 1)), ..promised.clone() };
    let decided = AcceptorState { decided: Some(id(7)), ..promised.clone() };
    let fresh = AcceptorState::default();
    [("fresh", fresh), ("promised", promised), ("accepted", accepted), ("decided", decided)]
}

fn requests() -> Vec<PaxosRequest> {
    let prepare = |round, node| PaxosRequest::Prepare { ballot: ballot(round, node) };
    let accept = |round, node, bits| PaxosRequest::Accept(vote(round, node, bits));
    vec![
        prepare(0, "a"),
        prepare(1, "z"),
        prepare(2, "b"),
        prepare(3, "a"),
        prepare(BALLOT_LEAD_MAX + 3, "a"),
        accept(2, "a", 2),
        accept(2, "b", 1),
        accept(3, "a", 2),
        PaxosRequest::Learn { id: id(7) },
        PaxosRequest::Learn { id: id(8) },
    ]
}

fn show_ballot(ballot: &Ballot) -> String {
    match ballot.round {
        0 => "0".to_owned(),
        round if round > BALLOT_LEAD_MAX => "far".to_owned(),
        round => format!("{round}{}", ballot.node),
    }
}

fn show_vote(vote: Option<&Vote>) -> String {
    vote.map_or("none".to_owned(), |vote| {
        format!("id {} in {}", vote.id.to_bits(), show_ballot(&vote.ballot))
    })
}

fn show_request(request: &PaxosRequest) -> String {
    match request {
        PaxosRequest::Prepare { ballot } => format!("prepare {}", show_ballot(ballot)),
        PaxosRequest::Accept(vote) => format!("accept {}", show_vote(Some(vote))),
        PaxosRequest::Learn { id } => format!("learn id {}", id.to_bits()),
    }
}

fn show_transition(Transition { save, response }: &Transition) -> String {
    let response = match response {
        PaxosResponse::Promised { accepted, .. } => {
            format!("promised, accepted {}", show_vote(accepted.as_ref()))
        }
        PaxosResponse::Accepted => "accepted".to_owned(),
        PaxosResponse::Refused { promised } => format!("refused: {}", show_ballot(promised)),
        PaxosResponse::Decided { id } => format!("decided id {}", id.to_bits()),
        PaxosResponse::Conflict { ours } => format!("conflict with id {}", ours.to_bits()),
    };
    let Some(next) = save else { return response };
    let decided = next.decided.map_or("none".to_owned(), |id| format!("id {}", id.to_bits()));
    format!(
        "{response}; saves promised {}, accepted {}, decided {decided}",
        show_ballot(&next.promised),
        show_vote(next.accepted.as_ref())
    )
}

#[test]
fn b63_every_acceptor_state_and_request() {
    let mut table = String::new();
    for (name, state) in states() {
        for above in [0, 9] {
            let transition = show_transition(&state.claim(&"b".into(), above));
            let event = format!("claim above {above}");
            writeln!(table, "{name:<8} | {event:<18} | {transition}").expect("text");
        }
        for request in requests() {
            let transition = show_transition(&state.handle(&request));
            let event = show_request(&request);
            writeln!(table, "{name:<8} | {event:<18} | {transition}").expect("text");
        }
    }
    insta::assert_snapshot!(table);
}
