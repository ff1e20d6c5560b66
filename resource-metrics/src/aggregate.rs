//! Computes reports from samples ([B70]).
//!
//! Cumulative counters become values of the interval between two samples. Except for drives, the
//! average and the maximum since the start are kept. The time of a sample is a parameter.
//!
//! ```text
//! an interface     in a sample          in the next
//!   unknown ─────────► baseline ────────────────► value of the interval; new baseline
//!                        ▲     │ part not read: current unknown, the next interval is longer
//!                        │     │ no longer in the sample
//!                        │     ▼
//!            comes back  └─── gone: not reported; average and maximum are kept
//! ```
//!
//! Traffic while an interface was gone, or before its first sample, belongs to no interval.
//!
//! [B70]: crate::rules#b70

mod deltas;
mod interfaces;
mod series;

use std::collections::BTreeMap;
use std::time::Duration;

use grid::time::{Instant, Timestamp};

use self::deltas::{cpu_ratios, drive_delta};
use self::interfaces::Interfaces;
use self::series::{Series, check_same_time};
use crate::limits::{DRIVES_MAX, LABEL_BYTES_MAX};
use crate::report::{
    CpuReport, DriveReport, LoadReport, MemoryReport, ModesReport, Report, Summary,
};
use crate::sample::{CpuTimes, DriveCounters, DriveSample, Load, Memory, Sample};

/// State computed from one server's samples so far.
#[derive(Debug)]
pub struct Aggregator {
    started_at: Timestamp,
    sampled_at: Option<Timestamp>,
    last_sample: Option<Instant>,
    interval: Option<Duration>,
    cores: Option<u32>,
    cpu: Cpu,
    loads: Gauges<6>,
    memory: Gauges<8>,
    interfaces: Interfaces,
    drives: BTreeMap<String, DriveAggregator>,
}

/// Time and value of the last successful reading of a part.
type LastReading<T> = Option<(Instant, T)>;

impl Aggregator {
    /// Creates an aggregator without samples. Averages and maxima will be since `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            started_at: now,
            sampled_at: None,
            last_sample: None,
            interval: None,
            cores: None,
            cpu: Cpu::default(),
            loads: Gauges::default(),
            memory: Gauges::default(),
            interfaces: Interfaces::default(),
            drives: BTreeMap::new(),
        }
    }

    /// Adds a sample that was read at `now`, by both clocks. Parts that are `None` were missed:
    /// their next interval extends to the next reading.
    pub fn observe(&mut self, sample: &Sample, now: Instant, wall: Timestamp) {
        self.interval = self
            .last_sample
            .map(|last_sample| now.since(last_sample))
            .filter(|interval| !interval.is_zero());
        self.last_sample = Some(now);
        self.sampled_at = Some(wall);
        self.cores = sample.cores.filter(|cores| *cores > 0).or(self.cores);
        self.cpu.observe(sample.cpu, now);
        self.loads.observe(sample.load.map(|load| load_values(load, self.cores)), now);
        self.memory.observe(sample.memory.map(memory_values), now);
        self.interfaces.observe(sample.interfaces.as_ref(), now);
        self.observe_drives(sample.drives.as_ref(), now);
        // As much work as the sample itself: nothing here grows with their number.
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn observe_drives(&mut self, drives: Option<&BTreeMap<String, DriveSample>>, now: Instant) {
        let Some(drives) = drives else {
            self.drives.values_mut().for_each(DriveAggregator::record_missing);
            return;
        };
        let valid = drives.iter().filter(|(name, _)| name.len() <= LABEL_BYTES_MAX);
        let drives: BTreeMap<&String, &DriveSample> = valid.take(DRIVES_MAX).collect();
        self.drives.retain(|name, _| drives.contains_key(name));
        for (name, sample) in drives {
            self.drives.entry(name.clone()).or_default().observe(sample, now);
        }
    }

    /// Checks that the parts agree: numbers of interfaces and drives with their limits, averages
    /// with maxima, times of values that are read together. Debug builds call it themselves.
    ///
    /// # Panics
    ///
    /// If one of these does not hold. The message names the field and both values.
    pub fn check_invariants(&self) {
        let Self { sampled_at, last_sample, interval, .. } = self;
        assert_eq!(
            sampled_at.is_some(),
            last_sample.is_some(),
            "sampled_at is {sampled_at:?}, and last_sample {last_sample:?}"
        );
        assert_ne!(*interval, Some(Duration::ZERO), "interval, which is None if no time passed");
        assert_ne!(self.cores, Some(0), "cores, which is None if it is not known");
        self.cpu.check_invariants();
        self.loads.check_invariants("loads");
        self.memory.check_invariants("memory");
        self.interfaces.check_invariants();
        let drives = self.drives.len();
        assert!(drives <= DRIVES_MAX, "drives: {drives}, and the maximum is {DRIVES_MAX}");
    }

    /// Returns the report of the samples so far.
    pub fn report(&self) -> Report {
        Report {
            start_time_seconds: Some(unix_seconds(self.started_at)),
            sample_time_seconds: self.sampled_at.map(unix_seconds),
            sample_interval_seconds: self.interval.map(|interval| interval.as_secs_f64()),
            cpu: self.cpu.report(self.cores),
            load: self.loads.summaries().map(load_report),
            memory: self.memory.summaries().map(memory_report),
            interfaces: self.interfaces.report(),
            drives: self
                .drives
                .iter()
                .map(|(name, drive)| (name.clone(), drive.report()))
                .collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "precise to a microsecond for centuries")]
fn unix_seconds(time: Timestamp) -> f64 {
    time.seconds() as f64 + f64::from(time.nanos()) / 1e9
}

/// Values measured at one moment. Each counts for the time since the previous sample, so the first
/// one counts for the average only while it is alone.
#[derive(Debug)]
struct Gauges<const N: usize> {
    last_at: Option<Instant>,
    series: [Series; N],
}

impl<const N: usize> Default for Gauges<N> {
    fn default() -> Self {
        Self { last_at: None, series: [Series::default(); N] }
    }
}

impl<const N: usize> Gauges<N> {
    fn observe(&mut self, values: Option<[Option<f64>; N]>, now: Instant) {
        let Some(values) = values else {
            self.series.iter_mut().for_each(Series::record_missing);
            return;
        };
        let last_at = self.last_at.replace(now);
        let elapsed = last_at.map_or(Duration::ZERO, |last_at| now.since(last_at));
        for (series, value) in self.series.iter_mut().zip(values) {
            series.observe(value, elapsed);
        }
    }

    fn check_invariants(&self, name: &str) {
        let last_at = self.last_at;
        for series in &self.series {
            series.check_invariants(name);
            let is_early = last_at.is_none() && *series != Series::default();
            assert!(!is_early, "{name}: {series:?}, and last_at is {last_at:?}");
        }
    }

    /// Returns `None` before the first sample.
    fn summaries(&self) -> Option<[Summary; N]> {
        self.last_at.map(|_| self.series.each_ref().map(Series::summary))
    }
}

fn load_values(load: Load, cores: Option<u32>) -> [Option<f64>; 6] {
    let per_core = |load: f64| cores.map(|cores| load / f64::from(cores));
    let Load { one, five, fifteen } = load;
    [Some(one), Some(five), Some(fifteen), per_core(one), per_core(five), per_core(fifteen)]
}

fn load_report(summaries: [Summary; 6]) -> LoadReport {
    let [one, five, fifteen, one_per_core, five_per_core, fifteen_per_core] = summaries;
    LoadReport { one, five, fifteen, one_per_core, five_per_core, fifteen_per_core }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB, which is more than memory has")]
fn memory_values(memory: Memory) -> [Option<f64>; 8] {
    let Memory { total, free, available, shared, buffers, cache } = memory;
    // Kernels before 3.14 have no MemAvailable.
    let unused = available.unwrap_or_else(|| free.saturating_add(buffers).saturating_add(cache));
    let used = total.saturating_sub(unused);
    let ratio = (total > 0).then(|| used as f64 / total as f64);
    let known =
        [Some(total), Some(used), Some(free), available, shared, Some(buffers), Some(cache)];
    let [total, used, free, available, shared, buffers, cache] =
        known.map(|bytes| bytes.map(|bytes| bytes as f64));
    [total, used, free, available, shared, buffers, cache, ratio]
}

fn memory_report(summaries: [Summary; 8]) -> MemoryReport {
    let [total, used, free, available, shared, buffers, cache, used_ratio] = summaries;
    MemoryReport { total, used, free, available, shared, buffers, cache, used_ratio }
}

/// CPU time per mode, as ratios.
#[derive(Debug, Default)]
struct Cpu {
    last_reading: LastReading<CpuTimes>,
    modes: [Series; 6],
}

impl Cpu {
    fn observe(&mut self, times: Option<CpuTimes>, now: Instant) {
        let interval = times.and_then(|times| {
            let (last_at, before) = self.last_reading.replace((now, times))?;
            Some((cpu_ratios(&times, &before)?, now.since(last_at)))
        });
        let Some((ratios, elapsed)) = interval.filter(|(_, elapsed)| !elapsed.is_zero()) else {
            self.modes.iter_mut().for_each(Series::record_missing);
            return;
        };
        for (series, ratio) in self.modes.iter_mut().zip(ratios) {
            series.observe(Some(ratio), elapsed);
        }
    }

    fn check_invariants(&self) {
        check_same_time(&self.modes, "cpu");
        let current = self.modes.iter().filter_map(|mode| mode.summary().current);
        let total: f64 = current.sum();
        assert!(total <= 1.0 + 1e-9, "cpu: the current ratios add up to {total}");
    }

    fn report(&self, cores: Option<u32>) -> Option<CpuReport> {
        self.last_reading.as_ref()?;
        let [user, nice, system, idle, iowait, steal] = self.modes.each_ref().map(Series::summary);
        let modes = ModesReport { user, nice, system, idle, iowait, steal };
        Some(CpuReport { cores, modes })
    }
}

/// A drive that is present. Only its last interval is kept.
#[derive(Debug, Default)]
struct DriveAggregator {
    device: Option<String>,
    last_reading: LastReading<DriveCounters>,
    report: DriveReport,
}

impl DriveAggregator {
    fn observe(&mut self, sample: &DriveSample, now: Instant) {
        if self.device != sample.device {
            // Another device under the same name has its own counters.
            self.device.clone_from(&sample.device);
            self.last_reading = None;
        }
        let interval = sample.io.and_then(|io| {
            let (last_at, before) = self.last_reading.replace((now, io))?;
            let elapsed = now.since(last_at);
            (!elapsed.is_zero()).then(|| (drive_delta(&io, &before), elapsed))
        });
        self.report = match interval {
            Some((delta, elapsed)) => io_report(&delta, elapsed),
            None => DriveReport::default(),
        };
        if let Some(space) = &sample.space {
            self.report.total_bytes = Some(space.total_bytes);
            self.report.used_bytes = Some(space.used_bytes);
            self.report.available_bytes = Some(space.available_bytes);
            self.report.total_inodes = space.total_inodes;
            self.report.used_inodes = space.used_inodes;
        }
    }

    /// Records that no drive could be read.
    fn record_missing(&mut self) {
        self.report = DriveReport::default();
    }

    fn report(&self) -> DriveReport {
        self.report.clone()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a drive transfers less than 8 PiB in an interval")]
fn io_report(delta: &DriveCounters, elapsed: Duration) -> DriveReport {
    let seconds = elapsed.as_secs_f64();
    let rate = |count: u64| Some(count as f64 / seconds);
    // Without operations there is no latency.
    let wait =
        |millis: u64, count: u64| (count > 0).then(|| millis as f64 / 1_000.0 / count as f64);
    DriveReport {
        reads_per_second: rate(delta.reads),
        writes_per_second: rate(delta.writes),
        read_bytes_per_second: rate(delta.read_bytes),
        written_bytes_per_second: rate(delta.written_bytes),
        read_wait_seconds: wait(delta.read_millis, delta.reads),
        write_wait_seconds: wait(delta.write_millis, delta.writes),
        // The two clocks are not read at the same instant.
        busy_ratio: Some((delta.busy_millis as f64 / 1_000.0 / seconds).min(1.0)),
        ..DriveReport::default()
    }
}

#[cfg(test)]
mod tests;
