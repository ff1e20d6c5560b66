//! Resource metrics in a plan: how the nodes sample, and which node is scraped at which time.

use serde::{Deserialize, Serialize};

use super::{Node, WAIT_MS_MAX};

/// How the nodes collect resource metrics, and the scrapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsPlan {
    /// Time between two samples, in milliseconds.
    pub interval_ms: u32,
    /// Deadline of a collection from all nodes, in milliseconds.
    pub deadline_ms: u32,
    /// How long a collection may be reused for other scrapes, in milliseconds.
    pub ttl_ms: u32,
    /// Nodes on which a sample takes long, and its duration in milliseconds.
    pub slow: Vec<(Node, u32)>,
    /// Times of scrapes and the scraped nodes, in order. A scrape's number is its index here.
    pub scrapes: Vec<(u64, Node)>,
}

/// The shortest interval that `resource-metrics` accepts.
const INTERVAL_MS_MIN: u32 = 1_000;

impl MetricsPlan {
    pub(super) fn check(&self, nodes: u8) -> Result<(), String> {
        let Self { interval_ms, deadline_ms, ttl_ms, slow, scrapes } = self;
        if !(INTERVAL_MS_MIN..=WAIT_MS_MAX).contains(interval_ms) {
            return Err(format!("interval_ms must be {INTERVAL_MS_MIN} to {WAIT_MS_MAX}"));
        }
        let deadline_ms_max = WAIT_MS_MAX / 2;
        if !(1..=deadline_ms_max).contains(deadline_ms) || *ttl_ms > WAIT_MS_MAX {
            return Err(format!(
                "deadline_ms must be 1 to {deadline_ms_max}, and ttl_ms at most {WAIT_MS_MAX}"
            ));
        }
        if !scrapes.is_sorted_by_key(|(at, _)| *at) {
            return Err("scrapes must be in order of time".to_owned());
        }
        let mut named = slow.iter().map(|(node, _)| node).chain(scrapes.iter().map(|(_, on)| on));
        match named.find(|node| node.0 >= nodes) {
            Some(node) => Err(format!("there is no {node}")),
            None => Ok(()),
        }
    }

    /// Removes a node and everything that concerns it.
    pub(crate) fn remove_node(&mut self, removed: Node) {
        self.slow.retain(|(node, _)| *node != removed);
        self.scrapes.retain(|(_, on)| *on != removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> MetricsPlan {
        let scrapes = vec![(10, Node(1)), (20, Node(0))];
        let slow = vec![(Node(1), 100)];
        MetricsPlan { interval_ms: 1_000, deadline_ms: 500, ttl_ms: 1_000, slow, scrapes }
    }

    #[test]
    fn invalid_metrics_plan_is_refused() {
        type Change = fn(&mut MetricsPlan);
        assert_eq!(metrics().check(2), Ok(()));
        let cases: [(Change, &str); 6] = [
            (|plan| plan.interval_ms = 10, "interval_ms"),
            (|plan| plan.deadline_ms = 0, "deadline_ms"),
            (|plan| plan.ttl_ms = u32::MAX, "ttl_ms"),
            (|plan| plan.scrapes.reverse(), "in order"),
            (|plan| plan.scrapes[1].1 = Node(2), "there is no node-2"),
            (|plan| plan.slow[0].0 = Node(3), "there is no node-3"),
        ];
        for (change, expected) in cases {
            let mut plan = metrics();
            change(&mut plan);
            let error = plan.check(2).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn plan_without_its_last_node_is_valid() {
        let mut plan = metrics();
        plan.remove_node(Node(1));
        assert_eq!(plan.check(1), Ok(()));
        assert_eq!((plan.scrapes.len(), plan.slow.len()), (1, 0));
    }
}
