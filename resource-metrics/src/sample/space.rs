//! Space on drives. A broken drive may block a system call forever, so each is probed by its own
//! thread, one at a time, which the sampler waits for no longer than [`SPACE_TIMEOUT`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use grid::sync::Mutex;
use rustix::fs::{major, minor, stat, statvfs};
use tokio::sync::oneshot;

use super::Space;
use super::mounts::{DeviceNumber, DriveMount};
use crate::limits::{DRIVES_MAX, SPACE_TIMEOUT};

/// Result of one drive's probe.
#[derive(Debug, Default)]
pub(super) struct DriveStatus {
    pub(super) space: Option<Space>,
    pub(super) device: Option<DeviceNumber>,
    pub(super) problem: Option<String>,
}

/// Probes drives for their space.
#[derive(Debug, Default)]
pub(super) struct SpaceProbe {
    state: Mutex<ProbeState>,
}

#[derive(Debug, Default)]
struct ProbeState {
    /// Drives with a probe in flight.
    pending: BTreeSet<String>,
    /// Device of each drive at its last probe: a drive that hangs cannot report it again.
    last_devices: BTreeMap<String, DeviceNumber>,
}

type ProbeResult = io::Result<(Space, Option<DeviceNumber>)>;

impl SpaceProbe {
    /// Probes all drives concurrently.
    pub(super) async fn probe(self: &Arc<Self>, drives: &[DriveMount]) -> Vec<DriveStatus> {
        self.state
            .lock()
            .last_devices
            .retain(|name, _| drives.iter().any(|drive| drive.name == *name));
        let probes = drives.iter().map(|drive| self.probe_one(drive, SPACE_TIMEOUT, read_space));
        futures_util::future::join_all(probes).await
    }

    async fn probe_one(
        self: &Arc<Self>,
        drive: &DriveMount,
        timeout: Duration,
        read: impl FnOnce(&Path) -> ProbeResult + Send + 'static,
    ) -> DriveStatus {
        let hung_status = |since: &str| DriveStatus {
            device: self.state.lock().last_devices.get(&drive.name).copied(),
            problem: Some(format!("statvfs does not return{since}")),
            space: None,
        };
        let result = match self.start(drive, read) {
            Ok(Some(response)) => tokio::time::timeout(timeout, response).await,
            Ok(None) => return hung_status(" since an earlier sample"),
            Err(error) => {
                return DriveStatus { problem: Some(error.to_string()), ..DriveStatus::default() };
            }
        };
        match result {
            Ok(Ok(Ok((space, device)))) => {
                let mut state = self.state.lock();
                match device {
                    Some(device) => state.last_devices.insert(drive.name.clone(), device),
                    None => state.last_devices.remove(&drive.name),
                };
                DriveStatus { space: Some(space), device, problem: None }
            }
            Ok(Ok(Err(error))) => {
                DriveStatus { problem: Some(error.to_string()), ..DriveStatus::default() }
            }
            // The thread has panicked, or is still blocked.
            Ok(Err(_)) | Err(_) => hung_status(""),
        }
    }

    /// Starts a probe, unless one of the drive is still in flight.
    fn start(
        self: &Arc<Self>,
        drive: &DriveMount,
        read: impl FnOnce(&Path) -> ProbeResult + Send + 'static,
    ) -> io::Result<Option<oneshot::Receiver<ProbeResult>>> {
        {
            let mut state = self.state.lock();
            let is_full = state.pending.len() >= DRIVES_MAX;
            if is_full || !state.pending.insert(drive.name.clone()) {
                return Ok(None);
            }
        }
        let (sender, receiver) = oneshot::channel();
        let guard = ProbeGuard { space_probe: Arc::clone(self), name: drive.name.clone() };
        let path = drive.path.clone();
        // Not a thread of tokio: a runtime that shuts down waits for those.
        std::thread::Builder::new().name("drive-space".to_owned()).spawn(move || {
            let result = read(&path);
            drop(guard);
            let _ = sender.send(result); // The sampler may have timed out.
        })?;
        Ok(Some(receiver))
    }
}

/// A probe in flight.
struct ProbeGuard {
    space_probe: Arc<SpaceProbe>,
    name: String,
}

impl Drop for ProbeGuard {
    fn drop(&mut self) {
        self.space_probe.state.lock().pending.remove(&self.name);
    }
}

fn read_space(path: &Path) -> ProbeResult {
    let device = stat(path)?.st_dev;
    let device = (major(device), minor(device));
    let space = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    let has_inodes = space.f_files > 0;
    let space = Space {
        total_bytes: bytes(space.f_blocks),
        used_bytes: bytes(space.f_blocks.saturating_sub(space.f_bfree)),
        available_bytes: bytes(space.f_bavail),
        total_inodes: has_inodes.then_some(space.f_files),
        used_inodes: has_inodes.then(|| space.f_files.saturating_sub(space.f_ffree)),
    };
    Ok((space, (device.0 != 0).then_some(device)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc;

    use super::*;

    /// Timeout of everything that should happen quickly on one machine.
    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    fn drive() -> DriveMount {
        DriveMount { name: "/a".to_owned(), path: PathBuf::from("/a"), device: None }
    }

    #[tokio::test]
    async fn b70_a_hanging_drive_has_no_space_and_is_not_probed_again_before_it_responds() {
        let space_probe = Arc::new(SpaceProbe::default());
        let full = Space { total_bytes: 5, ..Space::default() };
        let good =
            space_probe.probe_one(&drive(), TEST_TIMEOUT, move |_| Ok((full, Some((8, 1))))).await;
        assert_eq!((good.space, good.device, good.problem), (Some(full), Some((8, 1)), None));

        let (release, released) = mpsc::channel::<()>();
        let hung = space_probe
            .probe_one(&drive(), Duration::ZERO, move |_| {
                released.recv().expect("the test is running");
                Ok((Space::default(), None))
            })
            .await;
        assert_eq!((hung.space, hung.device), (None, Some((8, 1))), "the last known device");
        let again = space_probe.probe_one(&drive(), TEST_TIMEOUT, |_| panic!("probed again")).await;
        assert!(again.problem.expect("still hanging").ends_with("since an earlier sample"));

        release.send(()).expect("the thread waits");
        while !space_probe.state.lock().pending.is_empty() {
            tokio::task::yield_now().await;
        }
        let healed = space_probe.probe_one(&drive(), TEST_TIMEOUT, move |_| Ok((full, None))).await;
        assert_eq!((healed.space, healed.device), (Some(full), None));
    }
}
