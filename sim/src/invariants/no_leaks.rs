//! [B05]: ended calls and connections leave nothing behind: no call, no task, no queued byte.
//! [B05]: crate::rules#b05

use super::{CheckContext, CheckResult, Invariant};
use crate::world::NodeView;

/// Checks nodes at quiescence and at the end.
#[derive(Debug)]
pub(super) struct NoLeaks;

/// Tasks of an idle node for each remote: its connection task, and the one that records the trace.
const TASKS_PER_REMOTE: usize = 2;

/// Tasks beyond one for each remote: one that changes the replica, one that removes old tombstones.
const TASKS_OF_IAM: usize = 2;

impl Invariant for NoLeaks {
    fn name(&self) -> &'static str {
        "no_leaks"
    }

    fn at_quiescence(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        // A locker has a task that runs its timers, that of MinIO one that sweeps. A server of ours
        // compares its list with each other's, in a task for each and one for all. Of metrics, one
        // task samples, and one waits for the end.
        let locks = context.plan.cluster.locks.as_ref();
        let metrics = context.plan.cluster.metrics.as_ref().map_or(0, |_| 2);
        for view in views {
            if let Some(stats) = view.connections.iter().find(|stats| !stats.is_quiescent()) {
                return Err(format!("{} is not quiescent: {stats:?}", view.node));
            }
            if view.unauthenticated > 0 {
                return Err(format!(
                    "{} has {} unauthenticated connections",
                    view.node, view.unauthenticated
                ));
            }
            let is_locker = locks.is_some_and(|locks| locks.lockers.contains(&view.node));
            let remotes = views.len() - 1;
            let is_ours = locks.is_some_and(|locks| {
                // Those of other software have no lockers.
                !locks.lockers.is_empty() && !locks.minio.contains(&view.node)
            });
            let queries = if is_ours { remotes + 1 } else { 0 };
            let iam = context.plan.cluster.iam.as_ref().map_or(0, |_| remotes + TASKS_OF_IAM);
            let expected =
                TASKS_PER_REMOTE * remotes + usize::from(is_locker) + queries + iam + metrics;
            // A verified server goes on querying peers that have not responded yet, for a time: in a
            // task for each and one for all.
            let has_flags = locks.is_some_and(|locks| !locks.flags.is_empty());
            let verifying = if has_flags && is_ours { remotes + 1 } else { 0 };
            if !(expected..=expected + verifying).contains(&view.tasks) {
                return Err(format!(
                    "{} has {} tasks at quiescence instead of {expected}",
                    view.node, view.tasks
                ));
            }
        }
        Ok(())
    }

    fn at_end(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        // The test double of MinIO ends its sweeps only at the next one.
        let locks = context.plan.cluster.locks.as_ref();
        let is_minio = |node| locks.is_some_and(|locks| locks.minio.contains(&node));
        match views.iter().find(|view| view.tasks > 0 && !is_minio(view.node)) {
            None => Ok(()),
            Some(view) => Err(format!("{} left {} tasks behind", view.node, view.tasks)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Harness, assert_violates, views};
    use super::*;

    type Change = fn(&mut NodeView);

    #[test]
    fn b05_idle_node_has_nothing_but_its_connections() {
        let mut harness = Harness::new(NoLeaks, vec![]);
        assert_eq!(harness.at_quiescence(&views()), Ok(()));
        let left: [(Change, &str); 7] = [
            (|view| view.connections[0].live_outbound_calls = 1, "node-1 is not quiescent"),
            (|view| view.connections[0].live_inbound_calls = 1, "node-1 is not quiescent"),
            (|view| view.connections[0].live_handler_tasks = 1, "node-1 is not quiescent"),
            (|view| view.connections[0].queued_bytes = 1, "node-1 is not quiescent"),
            (|view| view.connections[0].blocked_messages = 1, "node-1 is not quiescent"),
            (|view| view.unauthenticated = 1, "node-1 has 1 unauthenticated connections"),
            (|view| view.tasks += 1, "node-1 has 3 tasks"),
        ];
        for (leave, names) in left {
            let mut views = views();
            leave(&mut views[1]);
            assert_violates(harness.at_quiescence(&views), names);
        }
    }

    #[test]
    fn b05_no_task_outlives_its_manager() {
        let mut harness = Harness::new(NoLeaks, vec![]);
        let mut views = views();
        assert_violates(harness.at_end(&views), "node-0 left 2 tasks behind");
        views.iter_mut().for_each(|view| view.tasks = 0);
        assert_eq!(harness.at_end(&views), Ok(()));
    }
}
