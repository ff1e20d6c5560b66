//! Shrinks a failing plan while it fails in the same way.
//!
//! Delta debugging (Zeller's ddmin) of the faults and the load, then simpler values for the rest:
//! fewer nodes, no fault points, default limits, shorter runs, smaller messages, rounder times. A
//! smaller plan is another run: calls get other numbers, messages other latencies. The criterion is
//! that the same invariant fails.

use crate::plan::{Load, Node, Plan, PlannedHandlerEnd, PlannedLockEnd};

/// Limit on the number of runs.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Maximum number of runs.
    pub runs: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { runs: 2_000 }
    }
}

/// Result of shrinking.
#[derive(Debug)]
pub struct Shrunk {
    /// The smallest plan found that fails in the same way.
    pub plan: Plan,
    /// Number of runs used.
    pub runs: u32,
    /// Whether no smaller plan fails, as opposed to an exhausted budget.
    pub is_minimal: bool,
}

/// Shrinks `plan`, which stays a plan for which `fails` returns true: it fails in the same way.
/// Calls `on_progress` after each round.
pub fn shrink(
    plan: &Plan,
    budget: Budget,
    mut fails: impl FnMut(&Plan) -> bool,
    mut on_progress: impl FnMut(&Plan, u32),
) -> Shrunk {
    let mut search = Search { best: plan.clone(), runs: 0, budget, fails: &mut fails };
    let mut before = None;
    // Until a whole round changes nothing.
    while before.as_ref() != Some(&search.best) && search.has_budget() {
        before = Some(search.best.clone());
        search.remove_parts(|plan| &mut plan.load);
        search.remove_parts(|plan| &mut plan.faults);
        search.simplify_cluster();
        search.shorten();
        search.simplify_load();
        search.round_times();
        on_progress(&search.best, search.runs);
    }
    let is_minimal = before.as_ref() == Some(&search.best);
    Shrunk { plan: search.best, runs: search.runs, is_minimal }
}

struct Search<'a> {
    best: Plan,
    runs: u32,
    budget: Budget,
    fails: &'a mut dyn FnMut(&Plan) -> bool,
}

impl Search<'_> {
    fn has_budget(&self) -> bool {
        self.runs < self.budget.runs
    }

    /// Accepts `plan` if it differs from the best one and fails in the same way.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if plan == self.best || !self.has_budget() {
            return false;
        }
        self.runs += 1;
        let was_accepted = (self.fails)(&plan);
        if was_accepted {
            self.best = plan;
        }
        was_accepted
    }

    fn try_with(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        self.try_plan(plan)
    }

    /// Removes parts of a list, large ones first (ddmin).
    fn remove_parts<T: Clone>(&mut self, list: fn(&mut Plan) -> &mut Vec<T>) {
        let mut parts = 2;
        loop {
            let length = list(&mut self.best).len();
            if length == 0 || !self.has_budget() {
                return;
            }
            parts = parts.min(length);
            let size = length.div_ceil(parts);
            let mut start = 0;
            let mut has_shrunk = false;
            while start < list(&mut self.best).len() {
                let was_removed = self.try_with(|plan| {
                    let list = list(plan);
                    let end = (start + size).min(list.len());
                    list.drain(start..end);
                });
                has_shrunk |= was_removed;
                if !was_removed {
                    start += size;
                }
            }
            if size == 1 && !has_shrunk {
                return;
            }
            parts = if has_shrunk { 2.max(parts / 2) } else { parts * 2 };
        }
    }

    fn simplify_cluster(&mut self) {
        for index in (0..self.best.cluster.fault_points.len()).rev() {
            self.try_with(|plan| drop(plan.cluster.fault_points.remove(index)));
        }
        self.try_with(|plan| plan.cluster.late.clear());
        self.try_with(|plan| plan.cluster.wrong_secret_nodes.clear());
        self.try_with(|plan| plan.cluster.limits.message_bytes_max = None);
        self.try_with(|plan| plan.cluster.limits.queue_bytes_max = None);
        self.try_with(|plan| plan.cluster.limits.frame_bytes_target = None);
        self.try_with(|plan| plan.cluster.limits.outbound_calls_max = None);
        self.try_with(|plan| plan.cluster.limits.inbound_calls_max = None);
        self.try_with(|plan| plan.cluster.limits.stream_ping_interval_ms = None);
        self.try_with(|plan| plan.cluster.limits.backoff_max_ms = None);
        self.try_with(|plan| {
            let least = plan.cluster.latency_min_ms;
            plan.cluster.latency_max_ms = least;
        });
        let flags = |plan: &Plan| plan.cluster.locks.as_ref().map_or(0, |locks| locks.flags.len());
        for index in (0..flags(&self.best)).rev() {
            self.try_with(|plan| {
                if let Some(locks) = &mut plan.cluster.locks {
                    locks.flags.remove(index);
                }
            });
        }
        while self.try_with(remove_last_node) || self.try_with(merge_last_node) {}
    }

    fn shorten(&mut self) {
        for _ in 0..8 {
            let was_accepted = self.try_with(|plan| plan.duration_ms /= 2);
            if !was_accepted {
                break;
            }
        }
        let last = |list: Option<u64>| list.unwrap_or(0);
        let load = last(self.best.load.last().map(|(at, _)| *at));
        let faults = last(self.best.faults.last().map(|(at, _)| *at));
        self.try_with(|plan| plan.duration_ms = plan.duration_ms.min(load.max(faults) + 1_000));
    }

    fn simplify_load(&mut self) {
        for index in 0..self.best.load.len() {
            for simplify in SIMPLIFICATIONS {
                self.try_with(|plan| {
                    if let Some((_, load)) = plan.load.get_mut(index) {
                        simplify(load);
                    }
                });
            }
        }
    }

    /// Moves faults and calls to rounder times, which readers compare more easily.
    fn round_times(&mut self) {
        let round = |at: u64, to: u64| at / to * to;
        for to in [1_000, 100] {
            self.try_with(|plan| {
                plan.faults.iter_mut().for_each(|(at, _)| *at = round(*at, to));
                plan.load.iter_mut().for_each(|(at, _)| *at = round(*at, to));
            });
            for index in 0..self.best.faults.len() {
                self.try_with(|plan| {
                    let at = round(plan.faults[index].0, to);
                    // Rounding must keep the order of time.
                    if index == 0 || plan.faults[index - 1].0 <= at {
                        plan.faults[index].0 = at;
                    }
                });
            }
        }
    }
}

/// Removes the last node and everything that concerns it.
fn remove_last_node(plan: &mut Plan) {
    let nodes = plan.cluster.nodes;
    if nodes <= 2 {
        return;
    }
    let removed = Node(nodes - 1);
    plan.cluster.nodes -= 1;
    plan.cluster.late.retain(|(node, _)| *node != removed);
    plan.cluster.wrong_secret_nodes.retain(|node| *node != removed);
    if let Some(locks) = &mut plan.cluster.locks {
        locks.remove_node(removed);
    }
    if let Some(metrics) = &mut plan.cluster.metrics {
        metrics.remove_node(removed);
    }
    plan.faults.retain(|(_, fault)| !fault.concerns(removed));
    plan.load.retain(|(_, load)| load.ends().0 != removed && load.ends().1 != removed);
}

/// Removes the last node, and moves its calls to the first node that can take them.
fn merge_last_node(plan: &mut Plan) {
    let removed = Node(plan.cluster.nodes - 1);
    for (_, load) in &mut plan.load {
        let (from, to) = load.ends();
        let (replacement_of_from, replacement_of_to) =
            (replacement(removed, from, to), replacement(removed, to, from));
        match load {
            Load::Request(plan) => (plan.from, plan.to) = (replacement_of_from, replacement_of_to),
            Load::Stream(plan) => (plan.from, plan.to) = (replacement_of_from, replacement_of_to),
            Load::Lock(plan) => plan.on = replacement_of_from,
            Load::Force(plan) => plan.on = replacement_of_from,
            Load::Change(plan) => plan.on = replacement_of_from,
        }
    }
    remove_last_node(plan);
}

/// Returns the node that replaces `end` in a call with `other` if `end` is removed.
fn replacement(removed: Node, end: Node, other: Node) -> Node {
    match (end == removed, other) {
        (false, _) => end,
        (true, Node(0)) => Node(1),
        (true, _) => Node(0),
    }
}

/// A change that simplifies one value of a call.
type Simplification = fn(&mut Load);

const SIMPLIFICATIONS: [Simplification; 9] = [
    |load| match load {
        Load::Request(plan) => (plan.bytes, plan.response_bytes) = (16, 16),
        Load::Stream(plan) => plan.bytes = 16,
        Load::Lock(plan) => plan.store_ms = 0,
        Load::Force(_) | Load::Change(_) => {}
    },
    |load| match load {
        Load::Request(plan) => plan.work_ms = 0,
        Load::Stream(plan) => (plan.up_pace_ms, plan.down_pace_ms) = (0, 0),
        Load::Lock(plan) => plan.pace_ms = 0,
        Load::Force(_) | Load::Change(_) => {}
    },
    |load| match load {
        Load::Request(plan) => plan.ending = PlannedHandlerEnd::Success,
        Load::Stream(plan) => plan.ending = PlannedHandlerEnd::Success,
        Load::Lock(plan) => plan.ending = PlannedLockEnd::Unlock,
        Load::Force(_) | Load::Change(_) => {}
    },
    |load| match load {
        Load::Request(plan) => plan.timeout_ms = None,
        Load::Stream(plan) => plan.timeout_ms = None,
        Load::Lock(plan) => plan.cancel_after_ms = None,
        Load::Force(_) | Load::Change(_) => {}
    },
    |load| {
        if let Load::Request(plan) = load {
            plan.cancel_after_ms = None;
        }
    },
    |load| {
        if let Load::Stream(plan) = load {
            plan.up /= 2;
        }
    },
    |load| {
        if let Load::Stream(plan) = load {
            plan.down /= 2;
        }
    },
    |load| {
        if let Load::Stream(plan) = load {
            plan.receive_pace_ms = Some(0);
        }
    },
    |load| {
        if let Load::Lock(plan) = load {
            plan.resources.truncate(1);
        }
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Cut;
    use crate::plan::Fault;
    use crate::swarm;

    #[test]
    fn only_operations_that_the_failure_needs_remain() {
        let mut plan = swarm::plan(3, Some(5));
        let (a, b) = (Node(1), Node(0));
        plan.faults.push((34_000, Fault::Cut(Cut { a, b })));
        let needs = |plan: &Plan| {
            let cut = plan.faults.iter().any(|(_, fault)| *fault == Fault::Cut(Cut { a, b }));
            let from_one = plan.load.iter().filter(|(_, load)| load.ends().0 == a).count();
            cut && from_one >= 2
        };
        assert!(needs(&plan), "the plan fails before it is shrunk");
        let mut steps = 0;
        let shrunk = shrink(&plan, Budget::default(), |plan| needs(plan), |_, _| steps += 1);
        assert!(shrunk.is_minimal);
        assert!(steps > 0);
        let Plan { faults, load, cluster, .. } = &shrunk.plan;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(load.len(), 2, "{load:?}");
        assert_eq!(cluster.nodes, 2);
        assert_eq!(cluster.fault_points, []);
        assert_eq!(faults[0].0 % 1_000, 0, "a round time");
    }

    #[test]
    fn effort_is_bounded() {
        let plan = swarm::plan(3, Some(5));
        let shrunk = shrink(&plan, Budget { runs: 7 }, |_| false, |_, _| {});
        assert_eq!((shrunk.runs, shrunk.is_minimal), (7, true));
        assert_eq!(shrunk.plan, plan);
    }
}
