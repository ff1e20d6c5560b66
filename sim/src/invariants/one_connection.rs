//! [B02]: two nodes have one connection between them, the same at both ends, and no socket of any
//! other remains.
//!
//! [B02]: crate::rules#b02

use std::collections::{BTreeMap, BTreeSet};

use grid::buggify::FaultPoint;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, SocketId};
use crate::plan::Node;
use crate::world::NodeView;

/// Sockets that a node has dialed to another: the one in use or being tried, and those that take up
/// to a second to close (`Limits::close_timeout`), while the backoff grows from 100 ms.
const DIALED_MAX: usize = 4;
/// Sockets that it has accepted from another: as many, and a dead one that is not detected yet.
const ACCEPTED_MAX: usize = DIALED_MAX + 1;

/// Sockets that an injected fault keeps open after the node has abandoned them: one for each
/// attempt in that time, with backoffs that start at 100 ms and double.
const ABANDONED_MAX: usize = 6;

/// Tracks the open sockets.
#[derive(Debug, Default)]
pub(super) struct OneConnection {
    /// Open sockets, by their node and the node at the other end.
    open: BTreeMap<(Node, Node), BTreeSet<SocketId>>,
}

impl Invariant for OneConnection {
    fn name(&self) -> &'static str {
        "one_connection"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        match (&event.kind, event.node) {
            (EventKind::SocketOpened { socket, remote, dialed }, Some(node)) => {
                let open = self.open.entry((node, *remote)).or_default();
                open.insert(*socket);
                let max = if *dialed { DIALED_MAX } else { ACCEPTED_MAX };
                let fault_points = &context.plan.cluster.fault_points;
                let abandons =
                    fault_points.iter().any(|(name, _)| name == FaultPoint::Supersede.name());
                let max = if abandons { max + ABANDONED_MAX } else { max };
                if open.len() > max {
                    return Err(format!("{node} has {open:?} open to {remote}, of {max} at most"));
                }
            }
            (EventKind::SocketClosed { socket }, Some(node)) => {
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

    fn at_quiescence(&mut self, views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        let ends = |a: Node, b: Node| self.open.get(&(a, b)).cloned().unwrap_or_default();
        for a in views.iter().map(|view| view.node) {
            for b in views.iter().map(|view| view.node).filter(|b| a < *b) {
                let (here, there) = (ends(a, b), ends(b, a));
                if here != there || here.len() != 1 {
                    return Err(format!(
                        "{a} and {b} are connected by {here:?} at one end, {there:?} at the other"
                    ));
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        match views.iter().find(|view| view.sockets > 0) {
            None => Ok(()),
            Some(view) => Err(format!("{} left {} sockets open", view.node, view.sockets)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates, views};
    use super::*;

    fn opened(socket: SocketId, remote: Node, dialed: bool) -> EventKind {
        EventKind::SocketOpened { socket, remote, dialed }
    }

    #[test]
    fn b02_both_ends_have_the_same_single_connection_at_quiescence() {
        let mut harness = Harness::new(OneConnection::default(), vec![]);
        let views = views();
        assert_violates(harness.at_quiescence(&views), "node-0 and node-1 are connected by {}");
        harness.feed([(1, CALLER, opened(1, CALLEE, true)), (1, CALLEE, opened(1, CALLER, false))]);
        assert_eq!(harness.at_quiescence(&views), Ok(()));
        harness.feed([(2, CALLEE, opened(2, CALLER, false))]);
        assert_violates(harness.at_quiescence(&views), "node-0 and node-1 are connected by {1}");
        harness.feed([(3, CALLEE, EventKind::SocketClosed { socket: 1 })]);
        assert_violates(harness.at_quiescence(&views), "{2} at the other");
    }

    #[test]
    fn number_of_sockets_between_two_nodes_is_bounded() {
        for (dialed, max) in [(true, DIALED_MAX), (false, ACCEPTED_MAX)] {
            let mut harness = Harness::new(OneConnection::default(), vec![]);
            let max = max as SocketId;
            harness.feed((1..=max).map(|socket| (1, CALLER, opened(socket, CALLEE, dialed))));
            assert_violates(harness.at(2, CALLER, opened(max + 1, CALLEE, dialed)), "node-0 has");
        }
    }

    #[test]
    fn no_socket_is_open_at_the_end() {
        let mut harness = Harness::new(OneConnection::default(), vec![]);
        let mut views = views();
        assert_violates(harness.at_end(&views), "node-0 left 1 sockets open");
        views.iter_mut().for_each(|view| view.sockets = 0);
        assert_eq!(harness.at_end(&views), Ok(()));
    }
}
