//! What swarms and faults draw from a seed.

use rand::{Rng, RngExt};

use crate::node::Node;

/// Draws one of `choices`.
pub(crate) fn pick<T: Copy>(rng: &mut impl Rng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

/// Draws two different nodes.
pub(crate) fn two_nodes(rng: &mut impl Rng, nodes: u8) -> (Node, Node) {
    let a = rng.random_range(0..nodes);
    let b = (a + rng.random_range(1..nodes)) % nodes;
    (Node(a), Node(b))
}
