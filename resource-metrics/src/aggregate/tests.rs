//! Each rule by an example; `tests/aggregate_model.rs` compares with a reference model.

use super::*;
use crate::sample::{InterfaceCounters, Space};

const MINUTE: Duration = Duration::from_secs(60);

/// An aggregator with one sample per minute.
struct MinuteAggregator {
    inner: Aggregator,
    now: Instant,
}

impl MinuteAggregator {
    fn new() -> Self {
        Self { inner: Aggregator::new(Timestamp::new(7, 0)), now: Instant::from_nanos(1) }
    }

    fn observe(&mut self, sample: &Sample) -> Report {
        self.now = self.now + MINUTE;
        self.inner.observe(sample, self.now, Timestamp::new(8, 0));
        self.inner.report()
    }
}

fn eth0(receive_bytes: u64) -> Sample {
    let counters = InterfaceCounters { receive_bytes, ..Default::default() };
    let interfaces = [("eth0".to_owned(), counters)].into();
    Sample { interfaces: Some(interfaces), ..Sample::default() }
}

fn received(report: &Report) -> Summary {
    report.interfaces["eth0"].receive_bytes
}

fn summary(current: f64, average: f64, maximum: f64) -> Summary {
    Summary { current: Some(current), average: Some(average), maximum: Some(maximum) }
}

#[test]
fn b70_no_value_exists_before_the_first_sample_and_no_rate_before_the_second() {
    let mut aggregator = MinuteAggregator::new();
    let report = aggregator.inner.report();
    let start_time_seconds = Some(7.0);
    assert_eq!(report, Report { start_time_seconds, ..Report::default() });
    let report = aggregator.observe(&eth0(1_000_000));
    assert_eq!(received(&report), Summary::default(), "earlier traffic belongs to no interval");
    assert_eq!((report.sample_interval_seconds, report.cpu, report.memory), (None, None, None));
    let report = aggregator.observe(&eth0(1_000_600));
    assert_eq!(received(&report), summary(10.0, 10.0, 10.0));
    assert_eq!(
        (report.sample_interval_seconds, report.sample_time_seconds),
        (Some(60.0), Some(8.0))
    );
}

#[test]
fn b70_interval_after_a_missed_reading_covers_both() {
    let mut aggregator = MinuteAggregator::new();
    aggregator.observe(&eth0(0));
    aggregator.observe(&eth0(1_200));
    let missed = aggregator.observe(&Sample::default());
    let expected = Summary { current: None, ..summary(0.0, 20.0, 20.0) };
    assert_eq!(received(&missed), expected, "present, without a value of this minute");
    let report = aggregator.observe(&eth0(1_200 + 600));
    assert_eq!(received(&report), summary(5.0, 10.0, 20.0), "600 bytes in two minutes");
}

#[test]
fn b70_an_interface_that_comes_back_continues_its_series() {
    let mut aggregator = MinuteAggregator::new();
    aggregator.observe(&eth0(0));
    aggregator.observe(&eth0(1_200));
    let none = Sample { interfaces: Some(BTreeMap::new()), ..Sample::default() };
    assert_eq!(aggregator.observe(&none).interfaces, BTreeMap::new());
    let report = aggregator.observe(&eth0(1_000_000));
    assert_eq!(received(&report), Summary { current: None, ..summary(0.0, 20.0, 20.0) });
    let report = aggregator.observe(&eth0(1_000_000));
    assert_eq!(received(&report), summary(0.0, 10.0, 20.0));
}

#[test]
fn b70_interfaces_gone_longest_are_evicted_first() {
    let mut aggregator = MinuteAggregator::new();
    aggregator.observe(&eth0(0));
    aggregator.observe(&eth0(600));
    for number in 0..=crate::limits::INTERFACES_KEPT_MAX {
        let interfaces = [(format!("veth{number}"), InterfaceCounters::default())].into();
        aggregator.observe(&Sample { interfaces: Some(interfaces), ..Sample::default() });
    }
    let report = aggregator.observe(&eth0(0));
    assert_eq!(received(&report), Summary::default(), "eth0 was evicted first");
}

#[test]
fn b70_two_samples_at_the_same_instant_yield_no_interval() {
    let mut aggregator = MinuteAggregator::new();
    aggregator.observe(&eth0(0));
    aggregator.now = aggregator.now - MINUTE;
    let report = aggregator.observe(&eth0(600));
    assert_eq!((received(&report), report.sample_interval_seconds), (Summary::default(), None));
}

#[test]
fn b70_memory_and_load_are_gauges_and_cpu_time_is_reported_as_ratios() {
    let mut aggregator = MinuteAggregator::new();
    let memory = Memory { total: 100, free: 20, buffers: 5, cache: 15, ..Memory::default() };
    let load = Load { one: 3.0, five: 2.0, fifteen: 1.0 };
    let sample = Sample {
        memory: Some(memory),
        load: Some(load),
        cores: Some(2),
        cpu: Some(CpuTimes { user: 1, ..CpuTimes::default() }),
        ..Sample::default()
    };
    aggregator.observe(&sample);
    let available = Some(90);
    let cpu = Some(CpuTimes { user: 2, idle: 3, ..CpuTimes::default() });
    let memory = Some(Memory { available, ..memory });
    let report = aggregator.observe(&Sample { cpu, memory, ..sample });
    let memory = report.memory.expect("it was sampled");
    assert_eq!(memory.used, summary(10.0, 10.0, 60.0), "the first sample has no interval");
    assert_eq!(memory.used_ratio.current, Some(0.1));
    assert_eq!(memory.shared, Summary::default(), "this kernel does not report it");
    let load = report.load.expect("it was sampled");
    assert_eq!((load.one.current, load.one_per_core.current), (Some(3.0), Some(1.5)));
    let cpu = report.cpu.expect("it was sampled");
    assert_eq!(
        (cpu.cores, cpu.modes.user, cpu.modes.steal.maximum),
        (Some(2), summary(0.25, 0.25, 0.25), Some(0.0))
    );
}

fn drive(device: &str, io: DriveCounters) -> Sample {
    let space =
        Some(Space { total_bytes: 9, used_bytes: 4, available_bytes: 5, ..Default::default() });
    let sample = DriveSample { device: Some(device.to_owned()), io: Some(io), space };
    Sample { drives: Some([("/data".to_owned(), sample)].into()), ..Sample::default() }
}

#[test]
fn b70_drives_have_rates_waits_and_utilisation_of_the_last_interval() {
    let mut aggregator = MinuteAggregator::new();
    let io = DriveCounters { busy_millis: 1, ..Default::default() };
    let report = aggregator.observe(&drive("sda", io));
    let first = &report.drives["/data"];
    assert_eq!((first.busy_ratio, first.used_bytes, first.total_inodes), (None, Some(4), None));
    let io = DriveCounters {
        reads: 120,
        read_bytes: 61_440,
        read_millis: 600,
        written_bytes: 60,
        busy_millis: 30_001,
        ..Default::default()
    };
    let report = aggregator.observe(&drive("sda", io));
    let second = &report.drives["/data"];
    assert_eq!((second.reads_per_second, second.read_bytes_per_second), (Some(2.0), Some(1_024.0)));
    assert_eq!((second.read_wait_seconds, second.write_wait_seconds), (Some(0.005), None));
    assert_eq!((second.writes_per_second, second.written_bytes_per_second), (Some(0.0), Some(1.0)));
    assert_eq!(second.busy_ratio, Some(0.5));
    let io = DriveCounters { busy_millis: 90_002, ..io };
    let report = aggregator.observe(&drive("sda", io));
    assert_eq!(report.drives["/data"].busy_ratio, Some(1.0), "limited to 1");
}

#[test]
fn b70_new_device_under_the_same_name_has_a_new_baseline() {
    let mut aggregator = MinuteAggregator::new();
    aggregator.observe(&drive("sda", DriveCounters::default()));
    let io = DriveCounters { reads: 600, ..Default::default() };
    let report = aggregator.observe(&drive("sdb", io));
    assert_eq!(report.drives["/data"].reads_per_second, None);
    let report = aggregator.observe(&drive("sdb", DriveCounters { reads: 660, ..io }));
    assert_eq!(report.drives["/data"].reads_per_second, Some(1.0));
    let none = Sample { drives: Some(BTreeMap::new()), ..Sample::default() };
    assert_eq!(aggregator.observe(&none).drives, BTreeMap::new());
    let report = aggregator.observe(&drive("sdb", io));
    assert_eq!(report.drives["/data"].reads_per_second, None, "the drive was absent");
    let missed = aggregator.observe(&Sample::default());
    assert_eq!(missed.drives["/data"], DriveReport::default(), "a missed reading has no values");
}

#[test]
fn b70_drives_that_no_longer_fit_make_room() {
    let drives = |first: usize, count: usize| {
        let names = (first..first + count).map(|number| format!("drive-{number:04}"));
        let drives = names.map(|name| (name, DriveSample::default())).collect();
        Sample { drives: Some(drives), ..Sample::default() }
    };
    let mut aggregator = MinuteAggregator::new();
    aggregator.observe(&drives(DRIVES_MAX, DRIVES_MAX));
    // As many again, which sort before those.
    let report = aggregator.observe(&drives(0, 2 * DRIVES_MAX));
    assert_eq!(report.drives.len(), DRIVES_MAX);
    assert!(report.drives.contains_key("drive-0000"));
}
