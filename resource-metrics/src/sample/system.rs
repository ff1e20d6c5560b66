//! Samples of the machine that this process runs on.

use super::drives::Drives;
use super::{SampleFuture, Source};

#[cfg(target_os = "linux")]
type System = super::linux::Linux;

/// A platform without a source: all values are absent.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct System;

#[cfg(not(target_os = "linux"))]
impl System {
    fn new(_: Drives) -> Self {
        Self
    }

    fn sample(&self) -> SampleFuture {
        Box::pin(std::future::ready(super::Sample::default()))
    }
}

/// Source of samples of this machine. Its network interfaces are those of the process's network
/// namespace.
///
/// Needs a tokio runtime. A drive that hangs blocks one thread until it responds, and costs the
/// sample only its space.
#[derive(Debug)]
pub struct SystemSource {
    system: System,
}

impl SystemSource {
    /// Creates a source for this machine and these drives.
    pub fn new(drives: Drives) -> Self {
        Self { system: System::new(drives) }
    }
}

impl Source for SystemSource {
    fn sample(&self) -> SampleFuture {
        self.system.sample()
    }
}
