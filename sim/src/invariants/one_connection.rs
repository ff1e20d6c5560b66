//! B02: between two nodes that agree there is one connection, the same at both ends, and no socket
//! is left of any other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Invariant, Verdict};
use crate::event::{Event, SocketId, What};
use crate::plan::Node;
use crate::world::NodeView;

/// Sockets that a node dials to another at once.
const DIALLED_MAX: usize = 1;
/// Sockets that it accepts of another at once.
const ACCEPTED_MAX: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OneConnection {
    /// Open ends, by their node and the one at the other end.
    open: BTreeMap<(Node, Node), BTreeSet<SocketId>>,
}

impl Invariant for OneConnection {
    fn name(&self) -> &'static str {
        "one_connection"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        match (&event.what, event.node) {
            (What::SocketOpened { socket, remote, dialled }, Some(node)) => {
                let open = self.open.entry((node, *remote)).or_default();
                open.insert(*socket);
                let max = if *dialled { DIALLED_MAX } else { ACCEPTED_MAX };
                if open.len() > max {
                    return Err(format!("{node} has {open:?} open to {remote}, of {max} at most"));
                }
            }
            (What::SocketClosed { socket }, Some(node)) => {
                for ((at, _), sockets) in &mut self.open {
                    if *at == node {
                        sockets.remove(socket);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn at_quiet(&mut self, views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        let ends = |a: Node, b: Node| self.open.get(&(a, b)).cloned().unwrap_or_default();
        for a in views.iter().map(|view| view.node) {
            for b in views.iter().map(|view| view.node).filter(|b| a < *b) {
                let (here, there) = (ends(a, b), ends(b, a));
                if here != there || here.len() != 1 {
                    return Err(format!(
                        "{a} and {b} are connected by {here:?} on one end and {there:?} on the other"
                    ));
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        match views.iter().find(|view| view.sockets > 0) {
            None => Ok(()),
            Some(view) => Err(format!("{} left {} sockets open", view.node, view.sockets)),
        }
    }
}
