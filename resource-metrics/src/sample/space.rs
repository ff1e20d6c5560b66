//! How full drives are. A drive that is broken may let a question hang for ever, so each is asked by a
//! thread of its own, which nobody waits for longer than [`SPACE_TIMEOUT`], and at most one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{major, minor, stat, statvfs};
use tokio::sync::oneshot;

use super::Space;
use super::mounts::Drive;
use crate::limits::{DRIVES_MAX, SPACE_TIMEOUT};

/// Major and minor number of a block device.
pub(super) type DeviceNumber = (u32, u32);

/// What one drive said.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) space: Option<Space>,
    pub(super) device: Option<DeviceNumber>,
    pub(super) problem: Option<String>,
}

/// Asks drives.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Drives that have not answered yet.
    asked: BTreeSet<String>,
    /// On which device a drive was when it was asked last: one that hangs cannot say it again.
    devices: BTreeMap<String, DeviceNumber>,
}

type Answer = io::Result<(Space, Option<DeviceNumber>)>;

impl Spaces {
    /// Asks all of them at once.
    pub(super) async fn ask(self: &Arc<Self>, drives: &[Drive]) -> Vec<Asked> {
        lock(&self.state).devices.retain(|name, _| drives.iter().any(|drive| drive.name == *name));
        let asking = drives.iter().map(|drive| self.ask_one(drive, SPACE_TIMEOUT, question));
        futures_util::future::join_all(asking).await
    }

    async fn ask_one(
        self: &Arc<Self>,
        drive: &Drive,
        within: Duration,
        question: impl FnOnce(&Path) -> Answer + Send + 'static,
    ) -> Asked {
        let hangs = |since: &str| Asked {
            device: lock(&self.state).devices.get(&drive.name).copied(),
            problem: Some(format!("it does not answer how full it is{since}")),
            space: None,
        };
        let answer = match self.begin(drive, question) {
            Ok(Some(answer)) => tokio::time::timeout(within, answer).await,
            Ok(None) => return hangs(" since an earlier sample"),
            Err(error) => return Asked { problem: Some(error.to_string()), ..Asked::default() },
        };
        match answer {
            Ok(Ok(Ok((space, device)))) => {
                let mut state = lock(&self.state);
                match device {
                    Some(device) => state.devices.insert(drive.name.clone(), device),
                    None => state.devices.remove(&drive.name),
                };
                Asked { space: Some(space), device, problem: None }
            }
            Ok(Ok(Err(error))) => Asked { problem: Some(error.to_string()), ..Asked::default() },
            // The thread has died, or is still waiting.
            Ok(Err(_)) | Err(_) => hangs(""),
        }
    }

    /// Begins to ask, unless the drive owes an answer.
    fn begin(
        self: &Arc<Self>,
        drive: &Drive,
        question: impl FnOnce(&Path) -> Answer + Send + 'static,
    ) -> io::Result<Option<oneshot::Receiver<Answer>>> {
        {
            let mut state = lock(&self.state);
            let is_full = state.asked.len() >= DRIVES_MAX;
            if is_full || !state.asked.insert(drive.name.clone()) {
                return Ok(None);
            }
        }
        let (answer, answered) = oneshot::channel();
        let pending = Pending { spaces: Arc::clone(self), name: drive.name.clone() };
        let path = drive.path.clone();
        // Not tokio's: a runtime that shuts down waits for those.
        std::thread::Builder::new().name("drive-space".to_owned()).spawn(move || {
            let said = question(&path);
            drop(pending);
            let _ = answer.send(said); // Nobody may wait any more.
        })?;
        Ok(Some(answered))
    }
}

/// A question under way.
struct Pending {
    spaces: Arc<Spaces>,
    name: String,
}

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.spaces.state).asked.remove(&self.name);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn question(path: &Path) -> Answer {
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

    /// Long enough for everything that should happen on one machine.
    const SOON: Duration = Duration::from_secs(20);

    fn drive() -> Drive {
        Drive { name: "/a".to_owned(), path: PathBuf::from("/a"), device: None }
    }

    #[tokio::test]
    async fn b70_a_drive_that_hangs_is_sampled_without_and_not_asked_again_before_it_answers() {
        let spaces = Arc::new(Spaces::default());
        let full = Space { total_bytes: 5, ..Space::default() };
        let good = spaces.ask_one(&drive(), SOON, move |_| Ok((full, Some((8, 1))))).await;
        assert_eq!((good.space, good.device, good.problem), (Some(full), Some((8, 1)), None));

        let (release, released) = mpsc::channel::<()>();
        let hung = spaces
            .ask_one(&drive(), Duration::ZERO, move |_| {
                released.recv().expect("the test goes on");
                Ok((Space::default(), None))
            })
            .await;
        assert_eq!((hung.space, hung.device), (None, Some((8, 1))), "it is where it was");
        let again = spaces.ask_one(&drive(), SOON, |_| panic!("asked again")).await;
        assert!(again.problem.expect("still hanging").ends_with("since an earlier sample"));

        release.send(()).expect("the thread waits");
        while !lock(&spaces.state).asked.is_empty() {
            tokio::task::yield_now().await;
        }
        let healed = spaces.ask_one(&drive(), SOON, move |_| Ok((full, None))).await;
        assert_eq!((healed.space, healed.device), (Some(full), None));
    }
}
