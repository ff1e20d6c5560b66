//! Which drives there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, MountInfos};
use procfs::{FromRead, ProcResult};

use super::space::DeviceNumber;
use crate::limits::LABEL_BYTES_MAX;

/// Images that are full by nature: how full they are is no news.
const IMAGES: [&str; 4] = ["squashfs", "iso9660", "udf", "erofs"];

/// A directory that stands for a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drive {
    /// The name that it is reported under.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The block device, where it is known without asking the drive.
    pub(super) device: Option<DeviceNumber>,
}

/// The drives with these directories.
pub(super) fn at(paths: &[PathBuf]) -> Vec<Drive> {
    let drive = |path: &PathBuf| Drive { name: name(path), path: path.clone(), device: None };
    let mut drives: Vec<_> = paths.iter().map(drive).filter(has_name).collect();
    drives.sort_by(|a, b| a.name.cmp(&b.name));
    drives.dedup_by(|a, b| a.name == b.name);
    drives
}

/// All file systems that are mounted from block devices, in the order of their names.
pub(super) fn mounted() -> ProcResult<Vec<Drive>> {
    Ok(of(MountInfos::from_file("/proc/self/mountinfo")?.0))
}

/// Of the mount points of one device the shortest: the others are parts of it, or the same again.
fn of(mounts: Vec<MountInfo>) -> Vec<Drive> {
    let mut by_device: BTreeMap<DeviceNumber, Drive> = BTreeMap::new();
    for mount in mounts {
        let is_image = IMAGES.contains(&mount.fs_type.as_str());
        let Some(number) = device_number(&mount.majmin).filter(|_| !is_image) else { continue };
        let path = unescape(&mount.mount_point);
        let drive = Drive { name: name(&path), path, device: Some(number) };
        let rank = |drive: &Drive| (drive.name.len(), drive.name.clone());
        let is_shorter = by_device.get(&number).is_none_or(|known| rank(&drive) < rank(known));
        if has_name(&drive) && is_shorter {
            by_device.insert(number, drive);
        }
    }
    let mut drives: Vec<_> = by_device.into_values().collect();
    drives.sort_by(|a, b| a.name.cmp(&b.name));
    drives
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn has_name(drive: &Drive) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&drive.name.len())
}

/// `None` for file systems without a block device: their major number is 0.
fn device_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    let number = (major.parse().ok()?, minor.parse().ok()?);
    (number.0 != 0).then_some(number)
}

/// The kernel writes white space and backslashes of a path as octal numbers, and `procfs` leaves
/// them.
fn unescape(path: &Path) -> PathBuf {
    let text = path.display().to_string();
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    // Backslashes last: what they make is no escape.
    escapes.iter().fold(text, |text, (escape, plain)| text.replace(escape, plain)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drives(lines: &[&str]) -> Vec<(String, Option<DeviceNumber>)> {
        let mounts = lines.iter().map(|line| MountInfo::from_line(line).expect("a good line"));
        let drives = of(mounts.collect()).into_iter();
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
        let names: Vec<_> = at(&paths).into_iter().map(|drive| drive.name).collect();
        assert_eq!(names, ["/a", "/b"]);
    }

    #[test]
    fn escaped_mount_points_are_as_they_were() {
        let path = unescape(Path::new("/a\\040b\\011c\\134040"));
        assert_eq!(path, Path::new("/a b\tc\\040"));
    }
}
