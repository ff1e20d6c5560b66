//! From what was counted to what happened: samples in, a report out (B70).
//!
//! Cumulative counters become values of the interval between two samples; of everything but drives
//! the average and the maximum since the start are kept. Pure: the time of a sample is handed in.
//!
//! ```text
//! an interface     in a sample          in the next
//!   unknown ─────────► counted from ────────────► an interval's value; counted from here
//!                        ▲     │ part not read: current unknown, the next interval is longer
//!                        │     │ not in the sample any more
//!                        │     ▼
//!                 comes  └─── gone: not reported; average and maximum wait for it
//! ```
//!
//! What happened while an interface was gone, or before it was seen first, is nobody's interval.

mod growth;
mod interfaces;
mod series;

use std::collections::BTreeMap;
use std::time::Duration;

use grid::time::{Instant, Timestamp};

use self::growth::{cpu_growth, drive_growth};
use self::interfaces::Interfaces;
use self::series::Series;
use crate::limits::{DRIVES_MAX, LABEL_BYTES_MAX};
use crate::report::{
    CpuReport, DriveReport, LoadReport, MemoryReport, ModesReport, Report, Summary,
};
use crate::sample::{CpuTimes, DriveCounters, DriveSample, Load, Memory, Sample};

/// What one server's samples amount to so far.
#[derive(Debug)]
pub struct Window {
    started_at: Timestamp,
    sampled_at: Option<Timestamp>,
    last: Option<Instant>,
    interval: Option<Duration>,
    cores: Option<u32>,
    cpu: Cpu,
    loads: Gauges<6>,
    memory: Gauges<8>,
    interfaces: Interfaces,
    drives: BTreeMap<String, Drive>,
}

/// A part of the system that was read at some time.
type Seen<T> = Option<(Instant, T)>;

impl Window {
    /// Nothing sampled yet. Averages and maxima will be those since now.
    pub fn new(now: Timestamp) -> Self {
        Self {
            started_at: now,
            sampled_at: None,
            last: None,
            interval: None,
            cores: None,
            cpu: Cpu::default(),
            loads: Gauges::default(),
            memory: Gauges::default(),
            interfaces: Interfaces::default(),
            drives: BTreeMap::new(),
        }
    }

    /// Takes in a sample that was read at `now`, by either clock. Parts of it that are `None` were
    /// missed: the next time they are there, their interval is as long as that took.
    pub fn observe(&mut self, sample: &Sample, now: Instant, wall: Timestamp) {
        self.interval = self.last.map(|last| now.since(last)).filter(|since| !since.is_zero());
        self.last = Some(now);
        self.sampled_at = Some(wall);
        self.cores = sample.cores.filter(|cores| *cores > 0).or(self.cores);
        self.cpu.observe(sample.cpu, now);
        self.loads.observe(sample.load.map(|load| load_values(load, self.cores)), now);
        self.memory.observe(sample.memory.map(memory_values), now);
        self.interfaces.observe(sample.interfaces.as_ref(), now);
        self.observe_drives(sample.drives.as_ref(), now);
    }

    fn observe_drives(&mut self, drives: Option<&BTreeMap<String, DriveSample>>, now: Instant) {
        let Some(drives) = drives else {
            self.drives.values_mut().for_each(Drive::miss);
            return;
        };
        let is_there = |name: &str| drives.contains_key(name);
        self.drives.retain(|name, _| is_there(name));
        let named = drives.iter().filter(|(name, _)| name.len() <= LABEL_BYTES_MAX);
        for (name, sample) in named.take(DRIVES_MAX) {
            self.drives.entry(name.clone()).or_default().observe(sample, now);
        }
    }

    /// What is known now.
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

#[expect(clippy::cast_precision_loss, reason = "good to a microsecond for centuries")]
fn unix_seconds(time: Timestamp) -> f64 {
    time.seconds() as f64 + f64::from(time.nanos()) / 1e9
}

/// Values that were measured at one moment. Each counts for the time since the sample before it, so
/// the first one, before which there was none, counts for the average only while it is alone.
#[derive(Debug)]
struct Gauges<const N: usize> {
    seen: Option<Instant>,
    series: [Series; N],
}

impl<const N: usize> Default for Gauges<N> {
    fn default() -> Self {
        Self { seen: None, series: [Series::default(); N] }
    }
}

impl<const N: usize> Gauges<N> {
    fn observe(&mut self, values: Option<[Option<f64>; N]>, now: Instant) {
        let Some(values) = values else {
            self.series.iter_mut().for_each(Series::miss);
            return;
        };
        let since = self.seen.replace(now).map_or(Duration::ZERO, |seen| now.since(seen));
        for (series, value) in self.series.iter_mut().zip(values) {
            series.observe(value, since);
        }
    }

    /// `None` before the first sample.
    fn summaries(&self) -> Option<[Summary; N]> {
        self.seen.map(|_| self.series.each_ref().map(Series::summary))
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
    // Kernels before 3.14 estimate nothing.
    let unused = available.unwrap_or_else(|| free.saturating_add(buffers).saturating_add(cache));
    let used = total.saturating_sub(unused);
    let ratio = (total > 0).then(|| used as f64 / total as f64);
    let whole =
        [Some(total), Some(used), Some(free), available, shared, Some(buffers), Some(cache)];
    let [total, used, free, available, shared, buffers, cache] =
        whole.map(|bytes| bytes.map(|bytes| bytes as f64));
    [total, used, free, available, shared, buffers, cache, ratio]
}

fn memory_report(summaries: [Summary; 8]) -> MemoryReport {
    let [total, used, free, available, shared, buffers, cache, used_ratio] = summaries;
    MemoryReport { total, used, free, available, shared, buffers, cache, used_ratio }
}

/// Processor time, as parts of the whole.
#[derive(Debug, Default)]
struct Cpu {
    seen: Seen<CpuTimes>,
    modes: [Series; 6],
}

impl Cpu {
    fn observe(&mut self, times: Option<CpuTimes>, now: Instant) {
        let interval = times.and_then(|times| {
            let (seen, before) = self.seen.replace((now, times))?;
            Some((cpu_growth(&times, &before)?, now.since(seen)))
        });
        let Some((ratios, since)) = interval.filter(|(_, since)| !since.is_zero()) else {
            self.modes.iter_mut().for_each(Series::miss);
            return;
        };
        for (series, ratio) in self.modes.iter_mut().zip(ratios) {
            series.observe(Some(ratio), since);
        }
    }

    fn report(&self, cores: Option<u32>) -> Option<CpuReport> {
        self.seen.as_ref()?;
        let [user, nice, system, idle, iowait, steal] = self.modes.each_ref().map(Series::summary);
        let modes = ModesReport { user, nice, system, idle, iowait, steal };
        Some(CpuReport { cores, modes })
    }
}

/// A drive that is there. Of it only the last interval is known.
#[derive(Debug, Default)]
struct Drive {
    device: Option<String>,
    seen: Seen<DriveCounters>,
    report: DriveReport,
}

impl Drive {
    fn observe(&mut self, sample: &DriveSample, now: Instant) {
        if self.device != sample.device {
            // Another device under the same name has counters of its own.
            self.device.clone_from(&sample.device);
            self.seen = None;
        }
        let interval = sample.io.and_then(|io| {
            let (seen, before) = self.seen.replace((now, io))?;
            let since = now.since(seen);
            (!since.is_zero()).then(|| (drive_growth(&io, &before), since))
        });
        self.report = match interval {
            Some((growth, since)) => io_report(&growth, since),
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

    /// No drive could be read.
    fn miss(&mut self) {
        self.report = DriveReport::default();
    }

    fn report(&self) -> DriveReport {
        self.report.clone()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what a drive does in an interval is less than 8 PiB"
)]
fn io_report(growth: &DriveCounters, since: Duration) -> DriveReport {
    let seconds = since.as_secs_f64();
    let rate = |count: u64| Some(count as f64 / seconds);
    // How long nothing waited is no number.
    let wait =
        |millis: u64, count: u64| (count > 0).then(|| millis as f64 / 1_000.0 / count as f64);
    DriveReport {
        reads_per_second: rate(growth.reads),
        writes_per_second: rate(growth.writes),
        read_bytes_per_second: rate(growth.read_bytes),
        written_bytes_per_second: rate(growth.written_bytes),
        read_wait_seconds: wait(growth.read_millis, growth.reads),
        write_wait_seconds: wait(growth.write_millis, growth.writes),
        // The two clocks are not read at once.
        busy_ratio: Some((growth.busy_millis as f64 / 1_000.0 / seconds).min(1.0)),
        ..DriveReport::default()
    }
}

#[cfg(test)]
mod tests;
