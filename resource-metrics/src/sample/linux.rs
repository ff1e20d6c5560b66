//! Linux: `/proc` through the `procfs` crate.
//!
//! Counters are read by one blocking task, as no file of `/proc` waits for a drive. Drives may
//! hang, so they are probed by their own threads (`space`).

use std::collections::BTreeMap;
use std::sync::Arc;

use procfs::{Current, CurrentSI, DiskStats, KernelStats, LoadAverage, Meminfo, ProcResult};
use tokio::sync::Semaphore;

use super::drives::Drives;
use super::mounts::{self, DeviceNumber};
use super::space::{DriveStatus, SpaceProbe};
use super::{
    CpuTimes, DriveCounters, DriveSample, InterfaceCounters, Load, Memory, Problem, Sample,
    SampleFuture,
};
use crate::limits::{DRIVES_MAX, INTERFACES_MAX, LABEL_BYTES_MAX};

/// Sector size of `/proc/diskstats`, whatever the device's sector size.
const SECTOR_BYTES: u64 = 512;

/// Source of samples from `/proc` and the drives.
#[derive(Debug)]
pub(super) struct Linux {
    drives: Arc<Drives>,
    space_probe: Arc<SpaceProbe>,
    /// One permit: if `/proc` ever hangs, it blocks only one thread.
    reading: Arc<Semaphore>,
}

/// One reading of `/proc`.
#[derive(Debug, Default)]
struct ProcReading {
    sample: Sample,
    disks: Option<BTreeMap<DeviceNumber, Disk>>,
    /// Drives to probe for their space.
    drives: Option<Vec<mounts::DriveMount>>,
}

#[derive(Debug)]
struct Disk {
    name: String,
    io: DriveCounters,
}

impl Linux {
    pub(super) fn new(drives: Drives) -> Self {
        Self {
            drives: Arc::new(drives),
            space_probe: Arc::default(),
            reading: Arc::new(Semaphore::new(1)),
        }
    }

    pub(super) fn sample(&self) -> SampleFuture {
        let drives = Arc::clone(&self.drives);
        let space_probe = Arc::clone(&self.space_probe);
        let Ok(permit) = Arc::clone(&self.reading).try_acquire_owned() else {
            let problem = problem("/proc", "the last sample is still being read");
            let sample = Sample { problems: vec![problem], ..Sample::default() };
            return Box::pin(std::future::ready(sample));
        };
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                let read = ProcReading::take(&drives);
                drop(permit);
                read
            });
            // It fails on a panic, or when the runtime shuts down.
            let ProcReading { mut sample, disks, drives } = read.await.unwrap_or_else(|error| {
                let problems = vec![problem("/proc", &error.to_string())];
                ProcReading {
                    sample: Sample { problems, ..Sample::default() },
                    ..ProcReading::default()
                }
            });
            if let Some(drives) = drives {
                let statuses = space_probe.probe(&drives).await;
                sample.drives =
                    Some(join_drives(&drives, statuses, disks.as_ref(), &mut sample.problems));
            }
            sample
        })
    }
}

fn problem(part: &str, cause: &str) -> Problem {
    Problem { part: part.to_owned(), cause: cause.to_owned() }
}

/// Joins the probes of the drives with the counters of their devices.
fn join_drives(
    drives: &[mounts::DriveMount],
    statuses: Vec<DriveStatus>,
    disks: Option<&BTreeMap<DeviceNumber, Disk>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, DriveSample> {
    let mut samples = BTreeMap::new();
    for (drive, status) in drives.iter().zip(statuses) {
        if let Some(cause) = &status.problem {
            problems.push(problem(&drive.name, cause));
        }
        let number = drive.device.or(status.device);
        let disk = number.and_then(|number| disks?.get(&number));
        if status.space.is_none() && disk.is_none() {
            continue; // Neither space nor counters: reported as a problem only.
        }
        let device = disk.map(|disk| disk.name.clone());
        let io = disk.map(|disk| disk.io);
        samples.insert(drive.name.clone(), DriveSample { device, io, space: status.space });
    }
    samples
}

impl ProcReading {
    fn take(drives: &Drives) -> Self {
        let mut problems = Vec::new();
        let mut read = Self::default();
        if let Some(stat) = ok_or_problem("/proc/stat", KernelStats::current(), &mut problems) {
            read.sample.cpu = Some(cpu_times(&stat.total));
            read.sample.cores = u32::try_from(stat.cpu_time.len()).ok().filter(|cores| *cores > 0);
        }
        if let Some(load) = ok_or_problem("/proc/loadavg", LoadAverage::current(), &mut problems) {
            let [one, five, fifteen] = [load.one, load.five, load.fifteen].map(hundredths);
            read.sample.load = Some(Load { one, five, fifteen });
        }
        if let Some(memory) = ok_or_problem("/proc/meminfo", Meminfo::current(), &mut problems) {
            read.sample.memory = Some(memory_now(&memory));
        }
        read.sample.interfaces = ok_or_problem("/proc/net/dev", interfaces(), &mut problems);
        read.disks =
            ok_or_problem("/proc/diskstats", DiskStats::current(), &mut problems).map(disks);
        read.drives = match drives {
            Drives::Directories(paths) => Some(mounts::from_directories(paths)),
            Drives::Mounted => {
                ok_or_problem("/proc/self/mountinfo", mounts::mounted(), &mut problems)
            }
        };
        if let Some(drives) = &mut read.drives {
            drives.truncate(DRIVES_MAX);
        }
        read.sample.problems = problems;
        read
    }
}

/// Returns the value, or adds a problem.
fn ok_or_problem<T>(file: &str, read: ProcResult<T>, problems: &mut Vec<Problem>) -> Option<T> {
    read.map_err(|error| problems.push(problem(file, &error.to_string()))).ok()
}

fn cpu_times(time: &procfs::CpuTime) -> CpuTimes {
    let interrupts = time.irq.unwrap_or(0).saturating_add(time.softirq.unwrap_or(0));
    CpuTimes {
        user: time.user,
        nice: time.nice,
        system: time.system.saturating_add(interrupts),
        idle: time.idle,
        iowait: time.iowait.unwrap_or(0),
        steal: time.steal.unwrap_or(0),
    }
}

/// Rounds to the two decimals that the kernel writes, without the digits that `f32` adds.
fn hundredths(load: f32) -> f64 {
    (f64::from(load) * 100.0).round() / 100.0
}

fn memory_now(memory: &Meminfo) -> Memory {
    Memory {
        total: memory.mem_total,
        free: memory.mem_free,
        available: memory.mem_available,
        shared: memory.shmem,
        buffers: memory.buffers,
        // Reclaimable caches of directories and inodes count too.
        cache: memory.cached.saturating_add(memory.s_reclaimable.unwrap_or(0)),
    }
}

fn interfaces() -> ProcResult<BTreeMap<String, InterfaceCounters>> {
    let counters = |status: procfs::net::DeviceStatus| InterfaceCounters {
        receive_bytes: status.recv_bytes,
        receive_errors: status.recv_errs,
        transmit_bytes: status.sent_bytes,
        transmit_errors: status.sent_errs,
    };
    let all = procfs::net::dev_status()?.into_iter();
    let mut all: BTreeMap<_, _> = all
        .filter(|(name, _)| name.len() <= LABEL_BYTES_MAX)
        .map(|(name, status)| (name, counters(status)))
        .collect();
    while all.len() > INTERFACES_MAX {
        all.pop_last();
    }
    Ok(all)
}

fn disks(stats: DiskStats) -> BTreeMap<DeviceNumber, Disk> {
    let disk = |stat: procfs::DiskStat| {
        let number = (u32::try_from(stat.major).ok()?, u32::try_from(stat.minor).ok()?);
        let io = DriveCounters {
            reads: stat.reads,
            read_bytes: stat.sectors_read.saturating_mul(SECTOR_BYTES),
            read_millis: stat.time_reading,
            writes: stat.writes,
            written_bytes: stat.sectors_written.saturating_mul(SECTOR_BYTES),
            write_millis: stat.time_writing,
            busy_millis: stat.time_in_progress,
        };
        Some((number, Disk { name: stat.name, io }))
    };
    stats.0.into_iter().filter_map(disk).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[tokio::test]
    async fn b70_this_machine_has_cpu_memory_interfaces_and_a_configured_drive() {
        let directory = std::env::temp_dir();
        let name = directory.display().to_string();
        let sample = Linux::new(Drives::Directories(vec![directory])).sample().await;
        assert_eq!(sample.problems, [], "all parts are readable");
        let cpu = sample.cpu.expect("CPU times");
        assert!(cpu.user + cpu.system + cpu.idle > 0);
        assert!(sample.cores.expect("CPU cores") > 0);
        assert!(sample.load.expect("a load").fifteen >= 0.0);
        let memory = sample.memory.expect("memory");
        assert!(memory.total > memory.free && memory.available.expect("a kernel since 3.14") > 0);
        assert!(sample.interfaces.expect("a network").contains_key("lo"));
        let drives = sample.drives.expect("drives");
        let space = drives[&name].space.expect("it responds");
        assert!(space.total_bytes >= space.used_bytes && space.total_bytes > 0);
    }

    #[tokio::test]
    async fn b70_missing_drive_is_reported_as_a_problem_and_not_as_zero() {
        let linux = Linux::new(Drives::Directories(vec![PathBuf::from("/not/here")]));
        let sample = linux.sample().await;
        assert_eq!(sample.drives.expect("a list of drives"), BTreeMap::new());
        assert_eq!(sample.problems.len(), 1);
        assert_eq!(sample.problems[0].part, "/not/here");
    }

    #[tokio::test]
    async fn a_sample_in_progress_is_not_read_twice() {
        let linux = Linux::new(Drives::Directories(Vec::new()));
        let first = linux.sample();
        let second = linux.sample().await;
        assert_eq!((second.cpu, second.interfaces), (None, None));
        assert_eq!(second.problems.len(), 1);
        assert!(first.await.cpu.is_some());
        assert!(linux.sample().await.cpu.is_some(), "possible again");
    }

    #[test]
    fn loads_have_two_decimals() {
        assert_eq!([0.07_f32, 1.1, 123.45].map(hundredths), [0.07, 1.1, 123.45]);
    }
}
