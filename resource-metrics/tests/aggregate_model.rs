//! The aggregator against a model that keeps every sample and recomputes all values from them.
//!
//! The model has no running sums. It works with integers, so it has no rounding error of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use grid::time::{Instant, Timestamp};
use proptest::prelude::*;
use resource_metrics::aggregate::Aggregator;
use resource_metrics::report::{Report, Summary};
use resource_metrics::sample::{CpuTimes, InterfaceCounters, Memory, Sample};

const NAMES: [&str; 3] = ["eth0", "eth1", "veth"];

/// Changes between two samples.
#[derive(Debug, Clone)]
struct Step {
    /// Milliseconds since the last sample; sometimes none.
    millis: u64,
    /// For each interface: bytes and errors.
    traffic: [(u64, u64); 3],
    /// For each interface: whether it is present, or recreated.
    presence: [Presence; 3],
    ticks: [u64; 6],
    memory: (u64, u64),
    /// Whether the interfaces cannot be read. Likewise memory and CPU.
    interfaces_unread: bool,
    memory_unread: bool,
    cpu_unread: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Presence {
    Present,
    Absent,
    Recreated,
}

fn presence() -> impl Strategy<Value = Presence> {
    prop_oneof![
        8 => Just(Presence::Present),
        1 => Just(Presence::Absent),
        1 => Just(Presence::Recreated),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let millis = prop_oneof![1 => Just(0), 6 => 1_000_u64..120_000, 1 => 1_u64..10_000_000];
    let amount = || prop_oneof![Just(0), 0_u64..10_000, 0_u64..1_000_000_000_000];
    let traffic = proptest::array::uniform3((amount(), 0_u64..5));
    let ticks = proptest::array::uniform6(prop_oneof![Just(0), 0_u64..10_000]);
    let memory = (1_u64..1 << 40, 0_u64..1 << 40);
    let unread = || proptest::bool::weighted(0.1);
    (
        millis,
        traffic,
        proptest::array::uniform3(presence()),
        ticks,
        memory,
        unread(),
        unread(),
        unread(),
    )
        .prop_map(
            |(millis, traffic, presence, ticks, memory, interfaces, memory_unread, cpu)| Step {
                millis,
                traffic,
                presence,
                ticks,
                memory,
                interfaces_unread: interfaces,
                memory_unread,
                cpu_unread: cpu,
            },
        )
}

/// A simulated host, with counters like a kernel's.
#[derive(Default)]
struct SyntheticHost {
    millis: u64,
    counters: [InterfaceCounters; 3],
    cpu: CpuTimes,
}

impl SyntheticHost {
    fn step(&mut self, step: &Step) -> Sample {
        self.millis += step.millis;
        let mut interfaces = BTreeMap::new();
        for (index, name) in NAMES.into_iter().enumerate() {
            let counters = &mut self.counters[index];
            if step.presence[index] != Presence::Present {
                *counters = InterfaceCounters::default();
            }
            let (bytes, errors) = step.traffic[index];
            counters.receive_bytes += bytes;
            counters.transmit_errors += errors;
            if step.presence[index] != Presence::Absent {
                interfaces.insert(name.to_owned(), *counters);
            }
        }
        let [user, nice, system, idle, iowait, steal] = step.ticks;
        self.cpu.user += user;
        self.cpu.nice += nice;
        self.cpu.system += system;
        self.cpu.idle += idle;
        self.cpu.iowait += iowait;
        self.cpu.steal += steal;
        let (total, free) = step.memory;
        let memory = Memory { total, free: free.min(total), ..Memory::default() };
        Sample {
            cpu: (!step.cpu_unread).then_some(self.cpu),
            memory: (!step.memory_unread).then_some(memory),
            interfaces: (!step.interfaces_unread).then_some(interfaces),
            ..Sample::default()
        }
    }
}

/// Every sample so far, with its time in milliseconds.
type History = Vec<(u64, Sample)>;

/// Increase of a counter, and the milliseconds of the interval; `None` if unknown.
type Interval = Option<(u64, u64)>;

/// Returns the intervals of one counter of an interface, one for each sample; `None` for a sample
/// without the interface.
fn intervals(
    history: &History,
    name: &str,
    counter: fn(&InterfaceCounters) -> u64,
) -> Vec<Option<Interval>> {
    let mut all = Vec::new();
    for (index, (millis, sample)) in history.iter().enumerate() {
        let Some(interfaces) = &sample.interfaces else {
            all.push(Some(None));
            continue;
        };
        let Some(now) = interfaces.get(name) else {
            all.push(None);
            continue;
        };
        // The last earlier sample in which interfaces could be read at all.
        let before = history[..index].iter().rev().find(|(_, sample)| sample.interfaces.is_some());
        let before = before
            .and_then(|(at, sample)| Some((*at, sample.interfaces.as_ref().unwrap().get(name)?)));
        all.push(Some(before.filter(|(at, _)| at < millis).map(|(at, before)| {
            let was_reset = now.receive_bytes < before.receive_bytes
                || now.transmit_errors < before.transmit_errors;
            let before = if was_reset { 0 } else { counter(before) };
            (counter(now) - before, millis - at)
        })));
    }
    all
}

fn rate((amount, millis): (u64, u64)) -> f64 {
    amount as f64 * 1_000.0 / millis as f64
}

/// Summarizes rates.
fn summary(intervals: &[Option<Interval>]) -> Summary {
    let known: Vec<_> = intervals.iter().filter_map(|interval| interval.flatten()).collect();
    let amount: u128 = known.iter().map(|(amount, _)| u128::from(*amount)).sum();
    let millis: u128 = known.iter().map(|(_, millis)| u128::from(*millis)).sum();
    Summary {
        current: intervals.last().and_then(|interval| interval.flatten()).map(rate),
        average: (millis > 0).then(|| amount as f64 * 1_000.0 / millis as f64),
        maximum: known.iter().copied().map(rate).reduce(f64::max),
    }
}

/// Summarizes free memory, which counts for the time since the previous sample.
fn free_memory(history: &History) -> Option<Summary> {
    let known = history.iter().filter_map(|(millis, sample)| Some((*millis, sample.memory?.free)));
    let known: Vec<(u64, u64)> = known.collect();
    let (first, last) = (known.first()?, known.last()?);
    let weighted =
        known.windows(2).map(|pair| u128::from(pair[1].0 - pair[0].0) * u128::from(pair[1].1));
    let weighted: u128 = weighted.sum();
    let millis = last.0 - first.0;
    let current = history.last()?.1.memory.map(|memory| memory.free as f64);
    let maximum = known.iter().map(|(_, free)| *free).max().map(|free| free as f64);
    let average = match millis {
        0 => current.or(maximum),
        millis => Some(weighted as f64 / f64::from(u32::try_from(millis).unwrap())),
    };
    Some(Summary { current, average, maximum })
}

/// Summarizes the ratio of idle CPU time.
fn idle(history: &History) -> Option<Summary> {
    let known = history.iter().filter_map(|(millis, sample)| Some((*millis, sample.cpu?)));
    let known: Vec<(u64, CpuTimes)> = known.collect();
    let total_ticks =
        |cpu: &CpuTimes| cpu.user + cpu.nice + cpu.system + cpu.idle + cpu.iowait + cpu.steal;
    let mut ratios = Vec::new();
    for pair in known.windows(2) {
        let [(before_at, before), (at, now)] = pair else { unreachable!() };
        let all = total_ticks(now) - total_ticks(before);
        let is_known = all > 0 && at > before_at;
        ratios.push(
            is_known
                .then(|| ((now.idle - before.idle) as f64 / all as f64, (at - before_at) as f64)),
        );
    }
    known.first()?;
    let was_read = history.last()?.1.cpu.is_some();
    let time: f64 = ratios.iter().flatten().map(|(_, millis)| millis).sum();
    let sum: f64 = ratios.iter().flatten().map(|(ratio, millis)| ratio * millis).sum();
    Some(Summary {
        current: ratios.last().copied().flatten().filter(|_| was_read).map(|(ratio, _)| ratio),
        average: (time > 0.0).then(|| sum / time),
        maximum: ratios.iter().flatten().map(|(ratio, _)| *ratio).reduce(f64::max),
    })
}

fn is_close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
        (a, b) => a == b,
    }
}

#[track_caller]
fn check_summary(name: &str, real: &Summary, model: &Summary) -> Result<(), TestCaseError> {
    let is_same = is_close(real.current, model.current)
        && is_close(real.average, model.average)
        && is_close(real.maximum, model.maximum);
    prop_assert!(is_same, "{name}: {real:?} should be {model:?}");
    Ok(())
}

fn check(report: &Report, history: &History) -> Result<(), TestCaseError> {
    for name in NAMES {
        let bytes = intervals(history, name, |counters| counters.receive_bytes);
        let errors = intervals(history, name, |counters| counters.transmit_errors);
        // It is present if it was in the last sample with readable interfaces.
        let read = history.iter().rev().find_map(|(_, sample)| sample.interfaces.as_ref());
        let is_present = read.is_some_and(|interfaces| interfaces.contains_key(name));
        prop_assert_eq!(
            report.interfaces.contains_key(name),
            is_present,
            "whether {} is present",
            name
        );
        if let Some(interface) = report.interfaces.get(name) {
            check_summary(name, &interface.receive_bytes, &summary(&bytes))?;
            check_summary(name, &interface.transmit_errors, &summary(&errors))?;
            check_summary(
                name,
                &interface.receive_errors,
                &Summary {
                    current: summary(&bytes).current.map(|_| 0.0),
                    average: summary(&bytes).average.map(|_| 0.0),
                    maximum: summary(&bytes).maximum.map(|_| 0.0),
                },
            )?;
        }
    }
    prop_assert_eq!(report.memory.is_some(), free_memory(history).is_some());
    if let Some(memory) = &report.memory {
        check_summary("free memory", &memory.free, &free_memory(history).unwrap())?;
    }
    prop_assert_eq!(report.cpu.is_some(), idle(history).is_some());
    if let Some(cpu) = &report.cpu {
        check_summary("idle", &cpu.modes.idle, &idle(history).unwrap())?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn b70_an_aggregator_matches_the_model_after_every_sample(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut host = SyntheticHost::default();
        let mut aggregator = Aggregator::new(Timestamp::new(1, 0));
        let mut history = History::new();
        for step in &steps {
            let sample = host.step(step);
            let now = Instant::from_nanos(0) + Duration::from_millis(host.millis);
            aggregator.observe(&sample, now, Timestamp::new(2, 0));
            history.push((host.millis, sample));
            check(&aggregator.report(), &history)?;
        }
    }
}
