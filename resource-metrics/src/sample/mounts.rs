//! Drives of this machine, by mount point or directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, MountInfos};
use procfs::{FromRead, ProcResult};

use crate::limits::LABEL_BYTES_MAX;

/// File systems of read-only images, which are always full.
const IMAGE_FILE_SYSTEMS: [&str; 4] = ["squashfs", "iso9660", "udf", "erofs"];

/// Major and minor number of a block device.
pub(super) type DeviceNumber = (u32, u32);

/// A directory that represents a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DriveMount {
    /// Reported name.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Block device, where it is known without accessing the drive.
    pub(super) device: Option<DeviceNumber>,
}

/// Returns the drives of these directories.
pub(super) fn from_directories(paths: &[PathBuf]) -> Vec<DriveMount> {
    let drive = |path: &PathBuf| DriveMount { name: name(path), path: path.clone(), device: None };
    let mut drives: Vec<_> = paths.iter().map(drive).filter(has_valid_name).collect();
    drives.sort_by(|a, b| a.name.cmp(&b.name));
    drives.dedup_by(|a, b| a.name == b.name);
    drives
}

/// Returns all file systems mounted from block devices, by name.
pub(super) fn mounted() -> ProcResult<Vec<DriveMount>> {
    Ok(by_device(MountInfos::from_file("/proc/self/mountinfo")?.0))
}

/// Keeps the shortest mount point of each device: the others are parts of it, or duplicates.
fn by_device(mounts: Vec<MountInfo>) -> Vec<DriveMount> {
    let mut shortest: BTreeMap<DeviceNumber, DriveMount> = BTreeMap::new();
    for mount in mounts {
        let is_image = IMAGE_FILE_SYSTEMS.contains(&mount.fs_type.as_str());
        let Some(number) = device_number(&mount.majmin).filter(|_| !is_image) else { continue };
        let path = unescape(&mount.mount_point);
        let drive = DriveMount { name: name(&path), path, device: Some(number) };
        let rank = |drive: &DriveMount| (drive.name.len(), drive.name.clone());
        let is_shorter = shortest.get(&number).is_none_or(|known| rank(&drive) < rank(known));
        if has_valid_name(&drive) && is_shorter {
            shortest.insert(number, drive);
        }
    }
    let mut drives: Vec<_> = shortest.into_values().collect();
    drives.sort_by(|a, b| a.name.cmp(&b.name));
    drives
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn has_valid_name(drive: &DriveMount) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&drive.name.len())
}

/// Parses a device number; `None` for file systems without a block device, with major number 0.
fn device_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    let number = (major.parse().ok()?, minor.parse().ok()?);
    (number.0 != 0).then_some(number)
}

/// Decodes the octal escapes of white space and backslashes in the kernel's mount points, which
/// `procfs` leaves in place.
fn unescape(path: &Path) -> PathBuf {
    let text = path.display().to_string();
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    // Backslashes last: a decoded backslash starts no escape.
    escapes.iter().fold(text, |text, (escape, plain)| text.replace(escape, plain)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drives(lines: &[&str]) -> Vec<(String, Option<DeviceNumber>)> {
        let mounts = lines.iter().map(|line| MountInfo::from_line(line).expect("a valid line"));
        let drives = by_device(mounts.collect()).into_iter();
        drives.map(|drive| (drive.name, drive.device)).collect()
    }

    #[test]
    fn b70_each_block_device_is_one_drive_by_its_shortest_mount_point() {
        let found = drives(&[
            "22 27 0:21 / /proc rw - proc proc rw",
            "31 27 8:17 /log /var/log/deep rw - xfs /dev/sdb1 rw",
            "30 27 8:17 / /data\\0401 rw - xfs /dev/sdb1 rw",
            "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
            "40 27 254:0 /b /aa rw,relatime - ext4 /dev/vda rw",
            "41 27 7:3 / /snap/core rw - squashfs /dev/loop3 rw",
            "42 27 0:50 / /data2 rw - overlay overlay rw",
        ]);
        let expected = [("/".to_owned(), Some((254, 0))), ("/data 1".to_owned(), Some((8, 17)))];
        assert_eq!(found, expected);
    }

    #[test]
    fn directories_are_listed_once_in_the_order_of_their_names() {
        let paths = ["/b", "/a", "/b", ""].map(PathBuf::from);
        let names: Vec<_> = from_directories(&paths).into_iter().map(|drive| drive.name).collect();
        assert_eq!(names, ["/a", "/b"]);
    }

    #[test]
    fn escaped_mount_points_are_decoded() {
        let path = unescape(Path::new("/a\\040b\\011c\\134040"));
        assert_eq!(path, Path::new("/a b\tc\\040"));
    }
}
