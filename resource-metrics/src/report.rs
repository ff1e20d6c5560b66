//! A server's report as a message: msgpack maps whose fields are all optional, so that servers of
//! different versions are compatible. An absent field is unknown; no field is zero unless measured.
//!
//! Received reports are bounded ([`limits`](crate::limits)): a report with more drives or
//! interfaces, or longer names, is refused. So is an array, whose values could be assigned to
//! the wrong fields.

mod bounded;
mod map_only;

use std::collections::BTreeMap;

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

/// Fetches a server's latest report.
pub const GET_RESOURCE_METRICS: SingleHandler<ReportRequest, Report> =
    SingleHandler::new(HandlerId::new(44), "GetResourceMetrics");

/// Request for a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportRequest {}

/// Report of one server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")] // `map_only` calls the derived code.
pub struct Report {
    /// Start of sampling, in seconds since the Unix epoch by the server's clock: averages and
    /// maxima are since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time_seconds: Option<f64>,
    /// Time of the last sample, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_time_seconds: Option<f64>,
    /// Time between the last two samples, to which the current values belong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_interval_seconds: Option<f64>,
    /// CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuReport>,
    /// Load averages.
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
    /// Value of the last interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<f64>,
    /// Average since the start, weighted by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
    /// Maximum of any interval since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
}

/// CPU cores and their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuReport {
    /// Number of CPU cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Time per mode.
    pub modes: ModesReport,
}

/// Ratios of the CPU time of all cores, from 0 to 1; their sum is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModesReport {
    /// User mode.
    pub user: Summary,
    /// User mode, with lowered priority (nice).
    pub nice: Summary,
    /// Kernel mode, including interrupts.
    pub system: Summary,
    /// Idle.
    pub idle: Summary,
    /// Idle, with outstanding disk I/O.
    pub iowait: Summary,
    /// Given to other virtual machines by the hypervisor.
    pub steal: Summary,
}

/// Load averages: mean numbers of processes that ran or waited to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadReport {
    /// Over one minute.
    pub one: Summary,
    /// Over five minutes.
    pub five: Summary,
    /// Over fifteen minutes.
    pub fifteen: Summary,
    /// Over one minute, per CPU core.
    pub one_per_core: Summary,
    /// Over five minutes, per CPU core.
    pub five_per_core: Summary,
    /// Over fifteen minutes, per CPU core.
    pub fifteen_per_core: Summary,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryReport {
    /// Total memory.
    pub total: Summary,
    /// Memory that is not available.
    pub used: Summary,
    /// Unused memory.
    pub free: Summary,
    /// Memory available without swapping.
    pub available: Summary,
    /// Shared memory, including temporary file systems.
    pub shared: Summary,
    /// Buffers of block devices.
    pub buffers: Summary,
    /// Cached files.
    pub cache: Summary,
    /// Ratio of used memory, from 0 to 1.
    pub used_ratio: Summary,
}

/// A network interface: rates per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceReport {
    /// Bytes received.
    pub receive_bytes: Summary,
    /// Receive errors.
    pub receive_errors: Summary,
    /// Bytes sent.
    pub transmit_bytes: Summary,
    /// Transmit errors.
    pub transmit_errors: Summary,
}

/// A drive: I/O of the last interval, and space.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveReport {
    /// Reads per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads_per_second: Option<f64>,
    /// Writes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes_per_second: Option<f64>,
    /// Bytes read per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<f64>,
    /// Bytes written per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_bytes_per_second: Option<f64>,
    /// Average duration of a read, including its time in the queue; unknown without reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_wait_seconds: Option<f64>,
    /// Average duration of a write, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_wait_seconds: Option<f64>,
    /// Ratio of the interval with I/O in flight, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_ratio: Option<f64>,
    /// Size of the file system, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Used space, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Space available to users other than root, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Inodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_inodes: Option<u64>,
    /// Used inodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_inodes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::limits::{DRIVES_MAX, LABEL_BYTES_MAX};

    fn round_trip<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, String> {
        let bytes = rmp_serde::to_vec_named(value).expect("encodes");
        rmp_serde::from_slice(&bytes).map_err(|error| error.to_string())
    }

    fn with_drives(names: impl IntoIterator<Item = String>) -> Report {
        let drives = names.into_iter().map(|name| (name, DriveReport::default())).collect();
        Report { drives, ..Report::default() }
    }

    #[test]
    fn b71_reports_of_other_versions_are_accepted() {
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
        let report: Report = round_trip(&newer).expect("unknown fields are skipped");
        assert_eq!(report.sample_interval_seconds, Some(1.5));
        assert_eq!(report.cpu.expect("the known part").cores, Some(3));
        let older: Report =
            round_trip(&BTreeMap::<String, u8>::new()).expect("all fields are optional");
        assert_eq!(older, Report::default());
        let existing = [BTreeMap::from([("Description", BTreeMap::<String, u8>::new())])];
        round_trip::<Report>(&existing)
            .expect_err("existing clusters respond with an array of maps");
    }

    #[test]
    fn b71_report_encoded_as_an_array_is_rejected() {
        let whole = Report { start_time_seconds: Some(1.0), ..Report::default() };
        assert_eq!(round_trip::<Report>(&whole).as_ref(), Ok(&whole), "as it is sent");
        // The start, the last sample and its interval: any number fits.
        let arrays: [&[f64]; 3] = [&[], &[1.0], &[1.0, 2.0, 3.0]];
        for array in arrays {
            let error = round_trip::<Report>(&array).expect_err("no field is named");
            assert!(error.contains("a map of report fields"), "{error}");
        }
    }

    #[test]
    fn b71_received_reports_are_bounded() {
        let most = with_drives((0..DRIVES_MAX).map(|number| number.to_string()));
        assert_eq!(round_trip::<Report>(&most).expect("as many as allowed"), most);
        let more = with_drives((0..=DRIVES_MAX).map(|number| number.to_string()));
        let error = round_trip::<Report>(&more).expect_err("one too many");
        assert!(error.contains("more than 256 drives"), "{error}");
        let longest = with_drives(["a".repeat(LABEL_BYTES_MAX)]);
        assert_eq!(round_trip::<Report>(&longest).expect("as long as allowed"), longest);
        let longer = with_drives(["a".repeat(LABEL_BYTES_MAX + 1)]);
        let error = round_trip::<Report>(&longer).expect_err("too long");
        assert!(error.contains("longer than 1024 bytes"), "{error}");
    }

    #[test]
    fn b71_a_repeated_drive_counts_each_time() {
        // A msgpack map may repeat keys: counting unique keys would not bound the work.
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
