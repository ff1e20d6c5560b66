//! What a machine counts, at one moment: cumulative counters and states, as they were read.
//!
//! Nothing is decided here. What the numbers mean over time is [`window`](crate::window)'s business;
//! when samples are taken, [`ResourceMetrics`](crate::ResourceMetrics)'s.
//!
//! [`SystemSource`] reads Linux through `procfs` and `rustix`: both are thin, and give the counters
//! themselves. (`sysinfo` knows more platforms, but of processor time only the busy part, and of drives
//! neither waits nor utilisation.) On other platforms it compiles and reads nothing, which is
//! reported as nothing, not as zeros.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod space;
mod system;

pub use system::{Drives, SystemSource};

/// A sample that is being taken.
pub type Sampling = Pin<Box<dyn Future<Output = Sample> + Send>>;

/// Where samples come from. Closures that return a [`Sample`] are sources: tests and simulations
/// inject them.
pub trait Source: Send + Sync + 'static {
    /// Takes one sample. What cannot be read is left out and named in [`Sample::problems`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time; that sample is missed.
    fn sample(&self) -> Sampling;
}

impl<F: Fn() -> Sample + Send + Sync + 'static> Source for F {
    fn sample(&self) -> Sampling {
        Box::pin(ready(self()))
    }
}

/// What was read. A part that is `None` could not be read this time: that is not the same as having
/// no interfaces or no drives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Processor time since the machine started.
    pub cpu: Option<CpuTimes>,
    /// How many processors share the load.
    pub cores: Option<u32>,
    /// How many want to run.
    pub load: Option<Load>,
    /// Memory now.
    pub memory: Option<Memory>,
    /// All network interfaces, by name.
    pub interfaces: Option<BTreeMap<String, InterfaceCounters>>,
    /// All drives, by the name that they are reported under.
    pub drives: Option<BTreeMap<String, DriveSample>>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// A part of the system that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which: a file of `/proc`, or a drive.
    pub part: String,
    /// Why.
    pub cause: String,
}

/// Processor time since the machine started, of all processors together, in ticks. How long a tick
/// is does not matter: only parts of the whole are reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In processes, guests of a hypervisor among them.
    pub user: u64,
    /// In processes that were made nice.
    pub nice: u64,
    /// In the kernel, its interrupts included.
    pub system: u64,
    /// Idle.
    pub idle: u64,
    /// Idle, while something waited for a drive.
    pub iowait: u64,
    /// Given to other guests by the hypervisor under this one.
    pub steal: u64,
}

/// How many processes ran or waited to, on average of the last minutes, as the kernel tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Of the last minute.
    pub one: f64,
    /// Of the last five minutes.
    pub five: f64,
    /// Of the last fifteen minutes.
    pub fifteen: f64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All.
    pub total: u64,
    /// Used by nobody at all.
    pub free: u64,
    /// What could be had without swapping, as the kernel estimates it.
    pub available: Option<u64>,
    /// Shared, temporary file systems included.
    pub shared: Option<u64>,
    /// Buffers of block devices.
    pub buffers: u64,
    /// Cached files.
    pub cache: u64,
}

/// What has passed an interface since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Bytes received.
    pub receive_bytes: u64,
    /// Receptions that failed.
    pub receive_errors: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Transmissions that failed.
    pub transmit_errors: u64,
}

/// One drive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriveSample {
    /// The block device under it, as the kernel calls it. Another one is another drive.
    pub device: Option<String>,
    /// What the device has done since it appeared.
    pub io: Option<DriveCounters>,
    /// How full its file system is.
    pub space: Option<Space>,
}

/// What a block device has done since it appeared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriveCounters {
    /// Reads that are done.
    pub reads: u64,
    /// Bytes that they read.
    pub read_bytes: u64,
    /// For how long they took, waiting in the queue included, added up; in milliseconds. The kernel
    /// counts this with 32 bits, and begins at zero again after 49 days.
    pub read_millis: u64,
    /// Writes that are done.
    pub writes: u64,
    /// Bytes that they wrote.
    pub written_bytes: u64,
    /// As `read_millis`, for writes.
    pub write_millis: u64,
    /// Milliseconds with at least one of them under way; 32 bits, too.
    pub busy_millis: u64,
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size, in bytes.
    pub total_bytes: u64,
    /// Used, in bytes.
    pub used_bytes: u64,
    /// What others than root may still use, in bytes.
    pub available_bytes: u64,
    /// Inodes, on a file system that has a fixed number of them.
    pub total_inodes: Option<u64>,
    /// Those of them that are used.
    pub used_inodes: Option<u64>,
}
