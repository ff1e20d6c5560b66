//! What one server has to say, as it travels: msgpack maps whose fields may all be absent, so that
//! servers of different ages understand each other. What is absent is not known; nothing is zero that
//! was not measured.
//!
//! What is received is bounded ([`limits`](crate::limits)): a report with more drives or interfaces,
//! or longer names, is no report. Nor is an array, whose values would pass for others of this version.

mod bounded;
mod named;

use std::collections::BTreeMap;

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

/// Asks a server for its latest report.
pub const GET_RESOURCE_METRICS: SingleHandler<ReportRequest, Report> =
    SingleHandler::new(HandlerId::new(44), "GetResourceMetrics");

/// Asks for a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportRequest {}

/// What one server has to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")] // `named` calls what is derived.
pub struct Report {
    /// When it began to sample, in seconds since 1970 by its own clock: averages and maxima are those
    /// since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time_seconds: Option<f64>,
    /// When it sampled last, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_time_seconds: Option<f64>,
    /// The time between the last two samples, which the current values are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_interval_seconds: Option<f64>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuReport>,
    /// How many want to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadReport>,
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryReport>,
    /// Network interfaces, by name.
    #[serde(deserialize_with = "bounded::interfaces")]
    pub interfaces: BTreeMap<String, InterfaceReport>,
    /// Drives, by name.
    #[serde(deserialize_with = "bounded::drives")]
    pub drives: BTreeMap<String, DriveReport>,
}

/// One value over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Of the last interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<f64>,
    /// Since the start, weighted by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
    /// Of any interval since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
}

/// Processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuReport {
    /// How many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// What their time went into.
    pub modes: ModesReport,
}

/// Parts of all processors' time, from 0 to 1; together 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModesReport {
    /// In processes.
    pub user: Summary,
    /// In processes that were made nice.
    pub nice: Summary,
    /// In the kernel, its interrupts included.
    pub system: Summary,
    /// Idle.
    pub idle: Summary,
    /// Idle, while something waited for a drive.
    pub iowait: Summary,
    /// Given to other guests by a hypervisor.
    pub steal: Summary,
}

/// How many processes ran or waited to, on average of so many minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadReport {
    /// Of one minute.
    pub one: Summary,
    /// Of five.
    pub five: Summary,
    /// Of fifteen.
    pub fifteen: Summary,
    /// Of one minute, for each processor.
    pub one_per_core: Summary,
    /// Of five.
    pub five_per_core: Summary,
    /// Of fifteen.
    pub fifteen_per_core: Summary,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryReport {
    /// All.
    pub total: Summary,
    /// What is not available.
    pub used: Summary,
    /// Used by nobody at all.
    pub free: Summary,
    /// What could be had without swapping.
    pub available: Summary,
    /// Shared, temporary file systems included.
    pub shared: Summary,
    /// Buffers of block devices.
    pub buffers: Summary,
    /// Cached files.
    pub cache: Summary,
    /// The part that is used, from 0 to 1.
    pub used_ratio: Summary,
}

/// A network interface, for each second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceReport {
    /// Bytes received.
    pub receive_bytes: Summary,
    /// Receptions that failed.
    pub receive_errors: Summary,
    /// Bytes sent.
    pub transmit_bytes: Summary,
    /// Transmissions that failed.
    pub transmit_errors: Summary,
}

/// A drive in the last interval, and how full it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveReport {
    /// Reads a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads_per_second: Option<f64>,
    /// Writes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes_per_second: Option<f64>,
    /// Bytes read a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<f64>,
    /// Bytes written a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_bytes_per_second: Option<f64>,
    /// How long a read took on average, its time in the queue included; unknown if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_wait_seconds: Option<f64>,
    /// How long a write took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_wait_seconds: Option<f64>,
    /// The part of the interval in which something was under way, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_ratio: Option<f64>,
    /// The file system's size, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Used, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// What others than root may still use, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Inodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_inodes: Option<u64>,
    /// Inodes that are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_inodes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::limits::{DRIVES_MAX, LABEL_BYTES_MAX};

    fn through<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, String> {
        let bytes = rmp_serde::to_vec_named(value).expect("encodes");
        rmp_serde::from_slice(&bytes).map_err(|error| error.to_string())
    }

    fn with_drives(names: impl IntoIterator<Item = String>) -> Report {
        let drives = names.into_iter().map(|name| (name, DriveReport::default())).collect();
        Report { drives, ..Report::default() }
    }

    #[test]
    fn b71_servers_of_other_ages_are_understood() {
        #[derive(Serialize)]
        struct Newer {
            gpu: Vec<u8>,
            sample_interval_seconds: f64,
            cpu: NewerCpu,
        }
        #[derive(Serialize)]
        struct NewerCpu {
            cores: u32,
            kind: &'static str,
        }
        let newer = Newer {
            gpu: vec![1, 2],
            sample_interval_seconds: 1.5,
            cpu: NewerCpu { cores: 3, kind: "quantum" },
        };
        let report: Report = through(&newer).expect("what is not known is skipped");
        assert_eq!(report.sample_interval_seconds, Some(1.5));
        assert_eq!(report.cpu.expect("the part that is known").cores, Some(3));
        let older: Report = through(&BTreeMap::<String, u8>::new()).expect("all may be absent");
        assert_eq!(older, Report::default());
        let existing = [BTreeMap::from([("Description", BTreeMap::<String, u8>::new())])];
        through::<Report>(&existing).expect_err("existing clusters answer with an array of maps");
    }

    #[test]
    fn b71_a_bare_array_of_fields_is_no_report() {
        let whole = Report { start_time_seconds: Some(1.0), ..Report::default() };
        assert_eq!(through::<Report>(&whole).as_ref(), Ok(&whole), "as it is sent");
        // The start, the last sample and its interval, each of which a number may be.
        let arrays: [&[f64]; 3] = [&[], &[1.0], &[1.0, 2.0, 3.0]];
        for array in arrays {
            let error = through::<Report>(&array).expect_err("no field is named");
            assert!(error.contains("a map of what a server reports"), "{error}");
        }
    }

    #[test]
    fn b71_what_is_received_is_bounded() {
        let most = with_drives((0..DRIVES_MAX).map(|number| number.to_string()));
        assert_eq!(through::<Report>(&most).expect("as many as allowed"), most);
        let more = with_drives((0..=DRIVES_MAX).map(|number| number.to_string()));
        let error = through::<Report>(&more).expect_err("one too many");
        assert!(error.contains("more than 256 drives"), "{error}");
        let longest = with_drives(["a".repeat(LABEL_BYTES_MAX)]);
        assert_eq!(through::<Report>(&longest).expect("as long as allowed"), longest);
        let longer = with_drives(["a".repeat(LABEL_BYTES_MAX + 1)]);
        let error = through::<Report>(&longer).expect_err("too long");
        assert!(error.contains("longer than 1024 bytes"), "{error}");
    }

    #[test]
    fn b71_a_drive_that_is_listed_again_and_again_counts_each_time() {
        // A map of msgpack may repeat keys, and so keep a reader busy without end.
        let mut bytes = vec![0x81, 0xa6];
        bytes.extend(b"drives");
        bytes.extend([0xde, 0x01, 0x01]); // 257 entries
        for _ in 0..257 {
            bytes.extend([0xa1, b'a', 0x80]);
        }
        let error = rmp_serde::from_slice::<Report>(&bytes).expect_err("257 times a");
        assert!(error.to_string().contains("more than 256 drives"), "{error}");
    }
}
