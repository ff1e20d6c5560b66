//! Many runs on several threads, with results in the order of their completion.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use grid::sync::Mutex;

use crate::plan::Plan;
use crate::run::{self, Run, Violation};
use crate::scenarios;

/// A run to perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Name in results.
    pub name: String,
    /// Seed of the plan, if it was drawn from one.
    pub seed: u64,
    /// The plan.
    pub plan: Plan,
}

/// A finished job.
#[derive(Debug)]
pub struct FinishedJob {
    /// The job.
    pub job: Job,
    /// The completed run.
    pub run: Run,
}

/// Runs a plan to its end, and checks the expectation of its scenario.
pub fn run_plan(plan: &Plan) -> Run {
    let expected = scenarios::find(&plan.scenario).map(|scenario| scenario.expect);
    let run = AssertUnwindSafe(|| run::run(plan, expected));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let invariant = "no_internal_error".to_owned();
        let text = format!("the simulation itself panicked: {text}");
        Run::failed(Violation { invariant, text })
    })
}

/// Runs `jobs` on `threads` threads, in their order. Calls `done` with each, in the order in which
/// they finish; it returns whether to continue.
pub fn sweep(
    jobs: impl Iterator<Item = Job> + Send,
    threads: usize,
    mut done: impl FnMut(FinishedJob) -> bool,
) {
    let jobs = Mutex::new(jobs);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::sync_channel(threads.max(1));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                while !stop.load(Ordering::Relaxed) {
                    let next = jobs.lock().next();
                    let Some(job) = next else { return };
                    let run = run_plan(&job.plan);
                    if sender.send(FinishedJob { job, run }).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for result in receiver {
            if !done(result) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}
