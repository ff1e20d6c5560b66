//! Asserts that a scenario passes, and that its expectation detects a changed plan.

use sim::plan::Plan;
use sim::run::run;
use sim::scenarios::{self, Scenario};

fn scenario(name: &str) -> &'static Scenario {
    scenarios::find(name).unwrap_or_else(|| panic!("unknown scenario {name}"))
}

/// Runs the scenario for two seeds, and one of them twice: the same seed gives the same run.
pub(crate) fn assert_passes(name: &str) {
    let scenario = scenario(name);
    let mut digests = Vec::new();
    for seed in [1, 2, 1] {
        let plan = (scenario.plan)(seed);
        assert_eq!(plan.scenario, name);
        let run = run(&plan, Some(scenario.expect));
        assert_eq!(run.violation, None, "{name}, seed {seed}");
        digests.push(run.digest());
    }
    assert_eq!(digests[0], digests[2], "{name} is not deterministic");
}

/// Runs a changed plan, and asserts that the expectation of the original fails with `violation`.
pub(crate) fn assert_violates(name: &str, violation: &str, change: impl Fn(&mut Plan)) {
    let scenario = scenario(name);
    let plan = (scenario.plan)(1);
    let mut changed = plan.clone();
    change(&mut changed);
    assert_ne!(plan, changed, "{name}: nothing was changed");
    let events = run(&changed, None).events;
    let verdict = (scenario.expect)(&plan, &events);
    let is_reported = verdict.as_ref().is_err_and(|said| said.contains(violation));
    assert!(is_reported, "{name} must report {violation:?}, and reports {verdict:?}");
}
