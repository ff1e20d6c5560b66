//! Runs a plan: does what it says, lets everything recover, and holds it all to the invariants.
//!
//! ```text
//!   trouble and load ──► heal ──► connected, drained, idle ──► settle ──► quiet ──► stop ──► end
//!   (duration of the plan)   (within the bound of `Bounds::drain_ms`)
//! ```
//!
//! A connection that died unnoticed looks open for a while: so the cluster is left alone for as
//! long as that may last, and has to recover once more. Then every node asks every other for
//! something, and must be answered, and each lock be had: a cluster that only answers pings has not
//! recovered.

use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3Default;

use crate::bounds::Bounds;
use crate::coverage::Coverage;
use crate::event::{Event, What};
use crate::iam::Same;
use crate::invariants::{self, Calm, Facts, Invariant, Verdict};
use crate::plan::Plan;
use crate::world::{Software, World};
use crate::{iam, lock, metrics};

mod probe;

/// What must hold does not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error("{invariant}: {text}")]
pub struct Violation {
    /// Which invariant.
    pub invariant: String,
    /// What was seen.
    pub text: String,
}

impl Violation {
    /// Whether this is the same failure as another, with other numbers: what shrinking goes by. The
    /// invariant alone would not do, because one that expects several things would be shrunk to a
    /// run that has nothing of what the first was about.
    pub fn is_like(&self, other: &Self) -> bool {
        self.invariant == other.invariant && skeleton(&self.text) == skeleton(&other.text)
    }
}

/// The words that a violation begins with.
fn skeleton(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.take(SKELETON_WORDS).collect::<Vec<_>>().join(" ")
}

/// As many as tell one failure from another; further on are the circumstances.
const SKELETON_WORDS: usize = 5;

/// A run that is over.
#[derive(Debug)]
pub struct Run {
    /// All that happened.
    pub events: Vec<Event>,
    /// The first thing that was wrong.
    pub violation: Option<Violation>,
    /// What was reached.
    pub coverage: Coverage,
    /// How long it took, in simulated milliseconds.
    pub simulated_ms: u64,
    /// How soon all copies of users, policies and mappings were the same; `None` if there are none,
    /// or they were not.
    pub same: Option<Same>,
}

impl Run {
    /// One that came to nothing.
    pub(crate) fn failed(violation: Violation) -> Self {
        let (events, coverage) = (Vec::new(), Coverage::default());
        Self { events, violation: Some(violation), coverage, simulated_ms: 0, same: None }
    }

    /// A number that two runs share if, and only if, their traces are the same byte for byte.
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        for event in &self.events {
            hash.update(format!("{event:?}\n").as_bytes());
        }
        hash.digest()
    }
}

/// Something that is expected of one scenario, besides the invariants.
pub type Expectation = fn(&Plan, &[Event]) -> Verdict;

/// What the nodes of `plan` run besides the load: dsync if it has locks, iam-bootstrap if it has
/// items.
pub fn software(plan: &Plan) -> Arc<dyn Software> {
    metrics::over(plan, Arc::new(vec![lock::software(plan), iam::software(plan)]))
}

/// Runs `plan` with its [`software`], and `expected` at its end.
pub fn run(plan: &Plan, expected: Option<Expectation>) -> Run {
    run_with(plan, &software(plan), expected)
}

/// Likewise, with software of a storage server's own on every node.
pub fn run_with(plan: &Plan, software: &Arc<dyn Software>, expected: Option<Expectation>) -> Run {
    let mut trial = Trial::new(plan, software);
    let mut violation = trial.whole(expected).err();
    let recorder = trial.world.recorder().clone();
    let (mut events, simulated_ms) = (trial.all_events(), trial.world.now_ms());
    let Trial { world, coverage, .. } = trial;
    // Destructors are code too, and what is left is dropped here.
    if let Some(text) = world.end().into_iter().next() {
        violation.get_or_insert(surprise(text));
    }
    if let Some(Violation { invariant, text }) = violation.clone() {
        recorder.record(What::Violated { invariant, text });
    }
    events.append(&mut recorder.take());
    let same = Same::of(plan, &events);
    Run { events, violation, coverage, simulated_ms, same }
}

fn surprise(text: String) -> Violation {
    Violation { invariant: "no_surprise".to_owned(), text }
}

/// How often the nodes are looked at, in ticks. Between two looks they only write events.
const LOOK_TICKS: u64 = 16;

/// How long a recovered cluster is left alone before it must look recovered: for sockets that are
/// being closed, and handshakes that nobody will finish.
const SETTLE: Duration = Duration::from_secs(7);

/// How long nodes may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

struct Trial<'a> {
    plan: &'a Plan,
    world: World,
    bounds: Bounds,
    calm: Calm,
    invariants: Vec<Box<dyn Invariant>>,
    coverage: Coverage,
    events: Vec<Event>,
    steps: u64,
}

impl<'a> Trial<'a> {
    fn new(plan: &'a Plan, software: &Arc<dyn Software>) -> Self {
        let bounds = Bounds::of(plan);
        let skew_max = u64::try_from(bounds.limits.clock_skew_max.as_millis()).unwrap_or(u64::MAX);
        Self {
            plan,
            world: World::with_software(plan, software),
            calm: Calm::new(plan, skew_max),
            bounds,
            invariants: invariants::all(),
            coverage: Coverage::default(),
            events: Vec::new(),
            steps: 0,
        }
    }

    fn whole(&mut self, expected: Option<Expectation>) -> Result<(), Violation> {
        self.trouble()?;
        self.world.heal();
        let healed_ms = self.world.now_ms();
        let limit = self.world.now_ms() + self.bounds.drain_ms;
        self.recover(limit)?;
        self.pass(Duration::from_millis(self.bounds.settle_ms))?;
        self.recover(limit)?;
        self.probe()?;
        self.converge(healed_ms + self.bounds.same_ms)?;
        // Nothing is asked any more: what is idle now must stay so.
        self.pass(SETTLE)?;
        self.recover(self.world.now_ms() + self.bounds.idle_ms)?;
        self.at_quiet()?;
        self.world.recorder().record(What::Quiet);
        self.world.stop(STOP_GRACE);
        self.wait_for_the_end(STOP_GRACE + SETTLE)?;
        self.at_end()?;
        let verdict = expected.map_or(Ok(()), |expected| {
            let of_the_plan = |event: &&Event| {
                event.what.call().is_none_or(|call| (call as usize) < self.plan.load.len())
            };
            let events: Vec<_> = self.events.iter().filter(of_the_plan).cloned().collect();
            expected(self.plan, &events)
        });
        let invariant = format!("scenario {}", self.plan.scenario);
        verdict.map_err(|text| Violation { invariant, text })
    }

    /// The plan's faults and load, each at its time.
    fn trouble(&mut self) -> Result<(), Violation> {
        let (mut faults, mut load) = (self.plan.faults.iter(), self.plan.load.iter());
        let (mut fault, mut call) = (faults.next(), load.next());
        while self.world.now_ms() < self.plan.duration_ms {
            let now_ms = self.world.now_ms();
            while let Some((_, due)) = fault.filter(|(at, _)| *at <= now_ms) {
                self.world.fault(*due);
                fault = faults.next();
            }
            while let Some((_, due)) = call.filter(|(at, _)| *at <= now_ms) {
                self.world.make(due.clone());
                call = load.next();
            }
            self.step()?;
        }
        // What comes after the trouble is not made, but keeps its number.
        for (_, never) in call.into_iter().chain(load) {
            self.world.table().add(never.clone());
        }
        Ok(())
    }

    /// Copies become the same; an invariant sees if they do not.
    fn converge(&mut self, limit_ms: u64) -> Result<(), Violation> {
        let has_copies = self.plan.cluster.iam.is_some();
        while has_copies && !self.is_settled() && self.world.now_ms() <= limit_ms {
            self.step()?;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let facts = self.facts();
        let mut invariants = self.invariants.iter();
        self.world.is_same() && invariants.all(|invariant| invariant.is_settled(&facts))
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            plan: self.plan,
            table: self.world.table(),
            bounds: &self.bounds,
            calm: &self.calm,
            now_ms: self.world.now_ms(),
        }
    }

    fn recover(&mut self, limit_ms: u64) -> Result<(), Violation> {
        loop {
            let (is_connected, is_idle) = (self.world.is_connected(), self.world.is_idle());
            if is_connected && is_idle {
                return Ok(());
            }
            if self.world.now_ms() >= limit_ms {
                let text = match (is_connected, is_idle) {
                    (false, _) => "not every node is connected to every other".to_owned(),
                    (true, _) => format!(
                        "calls and handlers under way: {:?}; {}",
                        self.world.recorder().live(),
                        self.first_restless()
                    ),
                };
                return Err(Violation { invariant: "liveness".to_owned(), text });
            }
            for _ in 0..LOOK_TICKS {
                self.step()?;
            }
        }
    }

    fn first_restless(&self) -> String {
        let views = self.world.views();
        let mut connections = views.iter().flat_map(|view| &view.connections);
        let restless = connections.find(|stats| !stats.is_quiescent());
        restless.map_or_else(|| "all connections at rest".to_owned(), |stats| format!("{stats:?}"))
    }

    fn pass(&mut self, duration: Duration) -> Result<(), Violation> {
        let until = self.world.now_ms() + u64::try_from(duration.as_millis()).unwrap_or(0);
        while self.world.now_ms() < until {
            self.step()?;
        }
        Ok(())
    }

    fn wait_for_the_end(&mut self, limit: Duration) -> Result<(), Violation> {
        let until = self.world.now_ms() + u64::try_from(limit.as_millis()).unwrap_or(0);
        let is_over =
            |world: &World| world.views().iter().all(|view| view.tasks == 0 && view.sockets == 0);
        while self.world.now_ms() < until && !is_over(&self.world) {
            self.pass(Duration::from_millis(100))?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.world.step();
        self.steps += 1;
        if let Some(text) = self.world.surprises().into_iter().next() {
            return Err(surprise(text));
        }
        let fresh = self.world.recorder().take();
        let first = self.events.len();
        self.events.extend(fresh);
        for index in first..self.events.len() {
            self.calm.see(&self.events[index]);
            let event = &self.events[index];
            let load = event.what.call().and_then(|call| self.world.table().get(call));
            // Probes reach nothing that is rare.
            if event.what.call().is_none_or(|call| (call as usize) < self.plan.load.len()) {
                self.coverage.see(event, load.as_ref());
            }
            let facts = Facts {
                plan: self.plan,
                table: self.world.table(),
                bounds: &self.bounds,
                calm: &self.calm,
                now_ms: event.at_ms,
            };
            check(&mut self.invariants, |invariant| invariant.see(event, &facts))?;
        }
        let beliefs = self.world.beliefs();
        self.ask(|invariant, facts| invariant.tick(&beliefs, facts))?;
        if self.steps.is_multiple_of(LOOK_TICKS) {
            let views = self.world.views();
            self.coverage.look(&views);
            self.ask(|invariant, facts| invariant.look(&views, facts))?;
        }
        Ok(())
    }

    fn at_quiet(&mut self) -> Result<(), Violation> {
        let views = self.world.views();
        self.ask(|invariant, facts| invariant.at_quiet(&views, facts))
    }

    fn at_end(&mut self) -> Result<(), Violation> {
        let views = self.world.views();
        self.ask(|invariant, facts| invariant.at_end(&views, facts))
    }

    fn ask(
        &mut self,
        mut question: impl FnMut(&mut dyn Invariant, &Facts<'_>) -> Verdict,
    ) -> Result<(), Violation> {
        let facts = Facts {
            plan: self.plan,
            table: self.world.table(),
            bounds: &self.bounds,
            calm: &self.calm,
            now_ms: self.world.now_ms(),
        };
        check(&mut self.invariants, |invariant| question(invariant, &facts))
    }

    fn all_events(&mut self) -> Vec<Event> {
        self.events.append(&mut self.world.recorder().take());
        std::mem::take(&mut self.events)
    }
}

fn check(
    invariants: &mut [Box<dyn Invariant>],
    mut question: impl FnMut(&mut dyn Invariant) -> Verdict,
) -> Result<(), Violation> {
    for invariant in invariants {
        if let Err(text) = question(invariant.as_mut()) {
            return Err(Violation { invariant: invariant.name().to_owned(), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_with_other_numbers_and_another_with_other_words() {
        let violation = |text: &str| Violation {
            invariant: "scenario half_open_peer".to_owned(),
            text: text.to_owned(),
        };
        let first = violation("node-1 must stay connected to node-2: lost at 17 ms");
        assert!(violation("node-0 must stay connected to node-3: lost at 4 ms").is_like(&first));
        assert!(!violation("the plan lacks a fault").is_like(&first));
        let elsewhere = Violation { invariant: "answers".to_owned(), ..first.clone() };
        assert!(!elsewhere.is_like(&first));
    }
}
