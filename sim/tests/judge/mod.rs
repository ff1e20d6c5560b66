//! Whether a scenario holds, and whether it would fail if what it shows did not happen.

use sim::plan::Plan;
use sim::run::run;
use sim::scenarios::{self, Scenario};

fn scenario(name: &str) -> &'static Scenario {
    scenarios::find(name).unwrap_or_else(|| panic!("there is no scenario {name}"))
}

/// At two seeds, one of them twice: the same seed is the same run.
pub(crate) fn holds(name: &str) {
    let scenario = scenario(name);
    let mut digests = Vec::new();
    for seed in [1, 2, 1] {
        let plan = (scenario.plan)(seed);
        assert_eq!(plan.scenario, name);
        let run = run(&plan, Some(scenario.expect));
        assert_eq!(run.violation, None, "{name}, seed {seed}");
        digests.push(run.digest());
    }
    assert_eq!(digests[0], digests[2], "{name} is not the same twice");
}

/// A run of what `change` makes of the plan is not what the plan's scenario expects: `complaint`.
pub(crate) fn bites(name: &str, complaint: &str, change: impl Fn(&mut Plan)) {
    let scenario = scenario(name);
    let plan = (scenario.plan)(1);
    let mut changed = plan.clone();
    change(&mut changed);
    assert_ne!(plan, changed, "{name}: nothing was changed");
    let events = run(&changed, None).events;
    let verdict = (scenario.expect)(&plan, &events);
    let is_seen = verdict.as_ref().is_err_and(|said| said.contains(complaint));
    assert!(is_seen, "{name} must complain that something {complaint}, and says: {verdict:?}");
}
