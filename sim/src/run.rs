//! Runs a plan: injects its faults and load, waits for recovery, and checks the invariants
//! throughout.
//!
//! ```text
//!   faults and load ──► heal ──► connected, drained, idle ──► settle ──► quiet ──► stop ──► end
//!   (duration of the plan)   (within the bound of `Bounds::drain_ms`)
//! ```
//!
//! A connection that is dead but not yet detected looks open: the run waits for as long as the
//! detection may take, and the cluster must recover once more. Then every node calls every other
//! and requests each lock, and all must succeed: a cluster that only responds to pings has not
//! recovered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use grid::ConnectionStats;
use xxhash_rust::xxh3::Xxh3Default;

use crate::bounds::Bounds;
use crate::coverage::Coverage;
use crate::event::{Event, EventKind};
use crate::iam::Convergence;
use crate::invariants::{self, CheckContext, CheckResult, Invariant, LinkHealth};
use crate::plan::{Node, Plan};
use crate::software;
use crate::world::{NodeView, Software, World};

mod probe;

/// A violation of an invariant or of an expectation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error("{invariant}: {text}")]
pub struct Violation {
    /// Name of the invariant.
    pub invariant: String,
    /// Description of the violation.
    pub text: String,
}

impl Violation {
    /// Returns whether this is the same failure as another, apart from numbers: the criterion of
    /// shrinking. The name of the invariant alone is not enough: one that checks several properties
    /// could be shrunk to the failure of another property.
    pub fn is_like(&self, other: &Self) -> bool {
        self.invariant == other.invariant && leading_words(&self.text) == leading_words(&other.text)
    }
}

/// Returns the first words of a violation that hold no numbers.
fn leading_words(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.take(LEADING_WORDS).collect::<Vec<_>>().join(" ")
}

/// Enough words to distinguish failures; the circumstances follow after them.
const LEADING_WORDS: usize = 5;

/// A completed run.
#[derive(Debug)]
pub struct Run {
    /// The trace.
    pub events: Vec<Event>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// The coverage points that were reached.
    pub coverage: Coverage,
    /// Duration in simulated milliseconds.
    pub simulated_ms: u64,
    /// How soon the IAM replicas of all nodes converged; `None` without IAM, or if they did not.
    pub convergence: Option<Convergence>,
}

impl Run {
    /// Creates a run that failed before its first event.
    pub(crate) fn failed(violation: Violation) -> Self {
        let (events, coverage) = (Vec::new(), Coverage::default());
        Self { events, violation: Some(violation), coverage, simulated_ms: 0, convergence: None }
    }

    /// Returns a hash of the trace: equal if, and only if, two traces are equal byte for byte.
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        for event in &self.events {
            hash.update(format!("{event:?}\n").as_bytes());
        }
        hash.digest()
    }
}

/// The expectation of one scenario, besides the invariants.
pub type Expectation = fn(&Plan, &[Event]) -> CheckResult;

/// Runs `plan` with the [software](software::of) that it needs, and checks `expected` at its end.
pub fn run(plan: &Plan, expected: Option<Expectation>) -> Run {
    run_with(plan, &software::of(plan), expected)
}

/// Runs `plan` with custom software on every node, and checks `expected` at its end.
pub fn run_with(plan: &Plan, software: &Arc<dyn Software>, expected: Option<Expectation>) -> Run {
    let mut runner = Runner::new(plan, software);
    let mut violation = runner.run_phases(expected).err();
    let recorder = runner.world.recorder().clone();
    let (mut events, simulated_ms) = (runner.all_events(), runner.world.now_ms());
    let Runner { world, coverage, .. } = runner;
    // Destructors are code under test too: the remaining state is dropped here.
    if let Some(text) = world.end().into_iter().next() {
        violation.get_or_insert(internal_error(text));
    }
    if let Some(Violation { invariant, text }) = violation.clone() {
        recorder.record(EventKind::Violated { invariant, text });
    }
    events.append(&mut recorder.take());
    let convergence = Convergence::of(plan, &events);
    Run { events, violation, coverage, simulated_ms, convergence }
}

fn internal_error(text: String) -> Violation {
    Violation { invariant: "no_internal_error".to_owned(), text }
}

/// Ticks between two views of the nodes. Between views, invariants see events only.
const VIEW_TICKS: u64 = 16;

/// Time without new load before a recovered cluster is checked again: for sockets that are being
/// closed, and handshakes that will not be completed.
const QUIET_TIME: Duration = Duration::from_secs(7);

/// Grace period of the shutdown of all nodes.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A run in progress.
struct Runner<'a> {
    plan: &'a Plan,
    world: World,
    bounds: Bounds,
    health: LinkHealth,
    invariants: Vec<Box<dyn Invariant>>,
    coverage: Coverage,
    events: Vec<Event>,
    steps: u64,
    /// The connections and tasks of each node as they were when it was idle, since the last check
    /// for recovery began.
    idle: BTreeMap<Node, (Vec<ConnectionStats>, usize)>,
}

impl<'a> Runner<'a> {
    fn new(plan: &'a Plan, software: &Arc<dyn Software>) -> Self {
        let bounds = Bounds::of(plan);
        let skew_max = u64::try_from(bounds.limits.clock_skew_max.as_millis()).unwrap_or(u64::MAX);
        Self {
            plan,
            world: World::with_software(plan, software),
            health: LinkHealth::new(plan, skew_max),
            bounds,
            invariants: invariants::all(),
            coverage: Coverage::default(),
            events: Vec::new(),
            steps: 0,
            idle: BTreeMap::new(),
        }
    }

    fn run_phases(&mut self, expected: Option<Expectation>) -> Result<(), Violation> {
        self.inject_plan()?;
        self.world.heal();
        let healed_ms = self.world.now_ms();
        let limit = self.world.now_ms() + self.bounds.drain_ms;
        self.recover(limit)?;
        self.advance(Duration::from_millis(self.bounds.settle_ms))?;
        self.recover(limit)?;
        self.probe()?;
        self.converge(healed_ms + self.bounds.converge_ms)?;
        // No more load follows: a cluster that is idle now must stay idle.
        self.advance(QUIET_TIME)?;
        self.recover(self.world.now_ms() + self.bounds.idle_ms)?;
        self.at_quiescence()?;
        self.world.recorder().record(EventKind::Quiet);
        self.world.stop(STOP_GRACE);
        self.wait_for_shutdown(STOP_GRACE + QUIET_TIME)?;
        self.at_end()?;
        let result = expected.map_or(Ok(()), |expected| {
            let is_of_the_plan = |event: &&Event| {
                event.kind.call().is_none_or(|call| (call as usize) < self.plan.load.len())
            };
            let events: Vec<_> = self.events.iter().filter(is_of_the_plan).cloned().collect();
            expected(self.plan, &events)
        });
        let invariant = format!("scenario {}", self.plan.scenario);
        result.map_err(|text| Violation { invariant, text })
    }

    /// Injects the plan's faults and submits its load, each at its time.
    fn inject_plan(&mut self) -> Result<(), Violation> {
        let (mut faults, mut load) = (self.plan.faults.iter(), self.plan.load.iter());
        let (mut fault, mut call) = (faults.next(), load.next());
        while self.world.now_ms() < self.plan.duration_ms {
            let now_ms = self.world.now_ms();
            while let Some((_, due)) = fault.filter(|(at, _)| *at <= now_ms) {
                self.world.inject(*due);
                fault = faults.next();
            }
            while let Some((_, due)) = call.filter(|(at, _)| *at <= now_ms) {
                // A node that is off makes no call; the call keeps its number.
                let _ = self.world.submit(due.clone());
                call = load.next();
            }
            self.step()?;
        }
        // Later load is not submitted, but keeps its number.
        for (_, late) in call.into_iter().chain(load) {
            self.world.table().add(late.clone());
        }
        Ok(())
    }

    /// Waits for replicas to converge; an invariant fails if they do not.
    fn converge(&mut self, limit_ms: u64) -> Result<(), Violation> {
        let has_replicas = self.plan.cluster.iam.is_some();
        while has_replicas && !self.has_converged() && self.world.now_ms() <= limit_ms {
            self.step()?;
        }
        Ok(())
    }

    fn has_converged(&self) -> bool {
        let context = self.context();
        let mut invariants = self.invariants.iter();
        self.world.is_converged() && invariants.all(|invariant| invariant.has_converged(&context))
    }

    fn context(&self) -> CheckContext<'_> {
        CheckContext {
            plan: self.plan,
            table: self.world.table(),
            bounds: &self.bounds,
            health: &self.health,
            now_ms: self.world.now_ms(),
        }
    }

    fn recover(&mut self, limit_ms: u64) -> Result<(), Violation> {
        self.idle.clear();
        loop {
            let (is_connected, is_idle) = (self.world.is_connected(), self.is_idle());
            if is_connected && is_idle {
                return Ok(());
            }
            if self.world.now_ms() >= limit_ms {
                let text = match (is_connected, is_idle) {
                    (false, _) => "some nodes are not connected".to_owned(),
                    (true, _) => format!(
                        "calls and handlers in flight: {:?}; {}",
                        self.world.recorder().outstanding(),
                        self.first_busy_connection()
                    ),
                };
                return Err(Violation { invariant: "liveness".to_owned(), text });
            }
            for _ in 0..VIEW_TICKS {
                self.step()?;
            }
        }
    }

    /// Returns whether all nodes are idle. Servers with locks query each other all the time, so that
    /// with many of them one is always in use: there, each was idle at some time.
    fn is_idle(&mut self) -> bool {
        if self.plan.cluster.locks.is_none() {
            return self.world.is_idle();
        }
        let views = self.world.views();
        for view in views.iter().filter(|view| is_quiescent(view)) {
            self.idle.insert(view.node, (view.connections.clone(), view.tasks));
        }
        self.world.recorder().outstanding() == (0, 0)
            && views.iter().all(|view| self.idle.contains_key(&view.node))
    }

    fn first_busy_connection(&self) -> String {
        let views = self.world.views();
        let busy_nodes = views.iter().filter(|view| !self.idle.contains_key(&view.node));
        let mut connections = busy_nodes.flat_map(|view| &view.connections);
        let busy = connections.find(|stats| !stats.is_quiescent());
        busy.map_or_else(|| "all connections are idle".to_owned(), |stats| format!("{stats:?}"))
    }

    fn advance(&mut self, duration: Duration) -> Result<(), Violation> {
        let until = self.world.now_ms() + u64::try_from(duration.as_millis()).unwrap_or(0);
        while self.world.now_ms() < until {
            self.step()?;
        }
        Ok(())
    }

    fn wait_for_shutdown(&mut self, limit: Duration) -> Result<(), Violation> {
        let until = self.world.now_ms() + u64::try_from(limit.as_millis()).unwrap_or(0);
        let has_stopped =
            |world: &World| world.views().iter().all(|view| view.tasks == 0 && view.sockets == 0);
        while self.world.now_ms() < until && !has_stopped(&self.world) {
            self.advance(Duration::from_millis(100))?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.world.step();
        self.steps += 1;
        if let Some(text) = self.world.internal_errors().into_iter().next() {
            return Err(internal_error(text));
        }
        let new = self.world.recorder().take();
        let first = self.events.len();
        self.events.extend(new);
        for index in first..self.events.len() {
            self.health.on_event(&self.events[index]);
            let event = &self.events[index];
            let load = event.kind.call().and_then(|call| self.world.table().get(call));
            // Probes do not count for coverage.
            if event.kind.call().is_none_or(|call| (call as usize) < self.plan.load.len()) {
                self.coverage.on_event(event, load.as_ref());
            }
            let context = CheckContext {
                plan: self.plan,
                table: self.world.table(),
                bounds: &self.bounds,
                health: &self.health,
                now_ms: event.at_ms,
            };
            check_all(&mut self.invariants, |invariant| invariant.on_event(event, &context))?;
        }
        let hold_views = self.world.hold_views();
        self.check(|invariant, context| invariant.on_tick(&hold_views, context))?;
        if self.steps.is_multiple_of(VIEW_TICKS) {
            let views = self.world.views();
            self.coverage.on_view(&views);
            self.check(|invariant, context| invariant.on_view(&views, context))?;
        }
        Ok(())
    }

    fn at_quiescence(&mut self) -> Result<(), Violation> {
        let mut views = self.world.views();
        for view in &mut views {
            if let Some((connections, tasks)) = self.idle.get(&view.node) {
                (view.connections, view.tasks) = (connections.clone(), *tasks);
            }
        }
        self.check(|invariant, context| invariant.at_quiescence(&views, context))
    }

    fn at_end(&mut self) -> Result<(), Violation> {
        let views = self.world.views();
        self.check(|invariant, context| invariant.at_end(&views, context))
    }

    fn check(
        &mut self,
        mut check: impl FnMut(&mut dyn Invariant, &CheckContext<'_>) -> CheckResult,
    ) -> Result<(), Violation> {
        let context = CheckContext {
            plan: self.plan,
            table: self.world.table(),
            bounds: &self.bounds,
            health: &self.health,
            now_ms: self.world.now_ms(),
        };
        check_all(&mut self.invariants, |invariant| check(invariant, &context))
    }

    fn all_events(&mut self) -> Vec<Event> {
        self.events.append(&mut self.world.recorder().take());
        std::mem::take(&mut self.events)
    }
}

/// Returns whether no connection of a node is in use.
fn is_quiescent(view: &NodeView) -> bool {
    view.unauthenticated == 0 && view.connections.iter().all(ConnectionStats::is_quiescent)
}

fn check_all(
    invariants: &mut [Box<dyn Invariant>],
    mut check: impl FnMut(&mut dyn Invariant) -> CheckResult,
) -> Result<(), Violation> {
    for invariant in invariants {
        if let Err(text) = check(invariant.as_mut()) {
            return Err(Violation { invariant: invariant.name().to_owned(), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_alike_if_they_differ_in_numbers_only() {
        let violation = |text: &str| Violation {
            invariant: "scenario half_open_peer".to_owned(),
            text: text.to_owned(),
        };
        let first = violation("node-1 must stay connected to node-2: lost at 17 ms");
        assert!(violation("node-0 must stay connected to node-3: lost at 4 ms").is_like(&first));
        assert!(!violation("the plan lacks a fault").is_like(&first));
        let elsewhere = Violation { invariant: "responses".to_owned(), ..first.clone() };
        assert!(!elsewhere.is_like(&first));
    }
}
