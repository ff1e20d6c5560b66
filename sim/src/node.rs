//! The nodes of a cluster, and their names.

use std::fmt;

use grid::Name;
use serde::{Deserialize, Serialize};

/// A node of the cluster, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Node(pub u8);

impl Node {
    /// Returns its number as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("node-{}", self.0))
    }
}

/// The port that all nodes listen on.
pub(crate) const PORT: u16 = 9000;

/// Returns the base URL of a node.
pub fn url(node: Node) -> String {
    format!("http://{node}:{PORT}")
}

/// Returns the node with this base URL.
pub(crate) fn node_of(name: &Name) -> Node {
    let (host, _) = name.host_port();
    let number = host.strip_prefix("node-").and_then(|number| number.parse().ok());
    Node(number.unwrap_or(u8::MAX))
}
