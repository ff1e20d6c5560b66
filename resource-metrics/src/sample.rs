//! Counters and states of a machine at one moment, as read.
//!
//! Nothing is decided here. [`aggregate`](crate::aggregate) computes values over time, and
//! [`ResourceMetrics`](crate::ResourceMetrics) decides when to sample.
//!
//! [`SystemSource`] reads Linux through `procfs` and `rustix`: both are thin wrappers that return
//! the raw counters. (`sysinfo` supports more platforms, but reports only the busy part of CPU time,
//! and neither latency nor utilisation of drives.) On other platforms it compiles and reads nothing, which
//! is reported as absent values, not as zeros.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;

mod drives;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod space;
mod system;

pub use drives::Drives;
pub use system::SystemSource;

/// A sample in progress.
pub type SampleFuture = Pin<Box<dyn Future<Output = Sample> + Send>>;

/// Source of samples. Closures that return a [`Sample`] are sources: tests and simulations inject
/// them.
pub trait Source: Send + Sync + 'static {
    /// Takes one sample. A part that cannot be read is absent, and named in [`Sample::problems`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time; that sample is missed.
    fn sample(&self) -> SampleFuture;
}

impl<F: Fn() -> Sample + Send + Sync + 'static> Source for F {
    fn sample(&self) -> SampleFuture {
        Box::pin(ready(self()))
    }
}

/// One sample. A part that is `None` could not be read this time, unlike a machine without
/// interfaces or drives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// CPU time since the machine started.
    pub cpu: Option<CpuTimes>,
    /// Number of CPU cores.
    pub cores: Option<u32>,
    /// Load averages.
    pub load: Option<Load>,
    /// Memory use.
    pub memory: Option<Memory>,
    /// All network interfaces, by name.
    pub interfaces: Option<BTreeMap<String, InterfaceCounters>>,
    /// All drives, by their reported name.
    pub drives: Option<BTreeMap<String, DriveSample>>,
    /// Parts that could not be read.
    pub problems: Vec<Problem>,
}

/// A part of the system that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File of `/proc`, or drive.
    pub part: String,
    /// Description of the failure.
    pub cause: String,
}

/// CPU time since the machine started, of all cores together, in ticks. The length of a tick does
/// not matter: only ratios are reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// User mode, including virtual machines.
    pub user: u64,
    /// User mode, with lowered priority (nice).
    pub nice: u64,
    /// Kernel mode, including interrupts.
    pub system: u64,
    /// Idle.
    pub idle: u64,
    /// Idle, with outstanding disk I/O.
    pub iowait: u64,
    /// Given to other virtual machines by the hypervisor.
    pub steal: u64,
}

/// Load averages: mean numbers of processes that ran or waited to run, from the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Over one minute.
    pub one: f64,
    /// Over five minutes.
    pub five: f64,
    /// Over fifteen minutes.
    pub fifteen: f64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Total memory.
    pub total: u64,
    /// Unused memory.
    pub free: u64,
    /// Memory available without swapping, as the kernel estimates it.
    pub available: Option<u64>,
    /// Shared memory, including temporary file systems.
    pub shared: Option<u64>,
    /// Buffers of block devices.
    pub buffers: u64,
    /// Cached files.
    pub cache: u64,
}

/// Cumulative counters of a network interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Bytes received.
    pub receive_bytes: u64,
    /// Receive errors.
    pub receive_errors: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Transmit errors.
    pub transmit_errors: u64,
}

/// One drive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriveSample {
    /// Kernel name of its block device. Another device is another drive.
    pub device: Option<String>,
    /// Cumulative counters of the device.
    pub io: Option<DriveCounters>,
    /// Space on its file system.
    pub space: Option<Space>,
}

/// Cumulative counters of a block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriveCounters {
    /// Completed reads.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Total duration of the reads, including time in the queue, in milliseconds. The kernel counts
    /// this in 32 bits, which wrap around after 49 days.
    pub read_millis: u64,
    /// Completed writes.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// As `read_millis`, for writes.
    pub write_millis: u64,
    /// Milliseconds with I/O in flight; 32 bits, too.
    pub busy_millis: u64,
}

/// Space on a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Size, in bytes.
    pub total_bytes: u64,
    /// Used space, in bytes.
    pub used_bytes: u64,
    /// Space available to users other than root, in bytes.
    pub available_bytes: u64,
    /// Inodes, on a file system that has a fixed number of them.
    pub total_inodes: Option<u64>,
    /// Used inodes.
    pub used_inodes: Option<u64>,
}
