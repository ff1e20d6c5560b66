//! Which drives of a machine are sampled.

use std::path::PathBuf;

/// Drives to sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drives {
    /// Every file system mounted from a block device, as of each sample. Each once, by its shortest
    /// mount point; except read-only images, which are always full.
    Mounted,
    /// The drives of these directories, which name them. A directory without its own block device
    /// (overlay, btrfs, network file systems) has no I/O to report.
    Directories(Vec<PathBuf>),
}
