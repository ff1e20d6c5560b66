//! The machine that this process runs on.

use std::path::PathBuf;

use super::{Sampling, Source};

/// Which drives are sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drives {
    /// Every file system that is mounted from a block device, whenever it is mounted. Each once, by
    /// its shortest mount point; read-only images excepted, which are always full.
    Mounted,
    /// Those with these directories, under these names. One that is on no block device of its own
    /// (overlay, btrfs, a network's) has no I/O to report.
    At(Vec<PathBuf>),
}

#[cfg(target_os = "linux")]
type System = super::linux::Linux;

/// A platform without a source: nothing is known.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct System;

#[cfg(not(target_os = "linux"))]
impl System {
    fn new(_: Drives) -> Self {
        Self
    }

    fn sample(&self) -> Sampling {
        Box::pin(std::future::ready(super::Sample::default()))
    }
}

/// The machine that this process runs on. Its network interfaces are those of the process's
/// network namespace.
///
/// Needs a tokio runtime. A drive that hangs keeps one thread until it answers, and costs the sample
/// only what that drive would have said.
#[derive(Debug)]
pub struct SystemSource {
    system: System,
}

impl SystemSource {
    /// The machine, and these of its drives.
    pub fn new(drives: Drives) -> Self {
        Self { system: System::new(drives) }
    }
}

impl Source for SystemSource {
    fn sample(&self) -> Sampling {
        self.system.sample()
    }
}
