//! Metric families: names, help texts, and their values in a collection.

use crate::collect::{Collection, ServerStatus};
use crate::report::{
    CpuReport, DriveReport, InterfaceReport, LoadReport, MemoryReport, Report, Summary,
};

/// Metric family: all values of one name.
pub(super) struct Family<'a> {
    /// Name, without the common prefix and the unit.
    pub(super) name: String,
    pub(super) help: String,
    /// Unit, which is appended to the name.
    pub(super) unit: Option<&'static str>,
    pub(super) points: Vec<Point<'a>>,
}

/// One value with its labels.
#[derive(Debug)]
pub(super) struct Point<'a> {
    pub(super) server: &'a str,
    /// Second label, in addition to the server's.
    pub(super) label: Option<(&'static str, &'a str)>,
    pub(super) value: f64,
}

type Points<'a> = Vec<Point<'a>>;

/// Returns all families, in the order of the exposition.
pub(super) fn families(collection: &Collection) -> Vec<Family<'_>> {
    let mut families = servers(collection);
    let up = UpServers::of(collection);
    families.extend(times(&up));
    families.extend(cpu(&up));
    families.extend(load(&up));
    families.extend(memory(&up));
    families.extend(interfaces(&up));
    families.extend(drives(&up));
    families
}

fn family<'a>(
    name: &str,
    unit: Option<&'static str>,
    help: &str,
    points: Points<'a>,
) -> Family<'a> {
    Family { name: name.to_owned(), help: help.to_owned(), unit, points }
}

fn servers(collection: &Collection) -> Vec<Family<'_>> {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for (server, status) in &collection.servers {
        let value = match status {
            ServerStatus::Up(_) => 1.0,
            ServerStatus::Down(failure) => {
                let label = Some(("reason", failure.reason.as_str()));
                down.push(Point { server, label, value: 1.0 });
                0.0
            }
        };
        up.push(Point { server, label: None, value });
    }
    vec![
        family("server_up", None, "Whether the server responded in time.", up),
        family("server_down", None, "Reason why the server did not respond. Always 1.", down),
    ]
}

/// Servers that have responded, and their reports.
struct UpServers<'a>(Vec<(&'a str, &'a Report)>);

impl<'a> UpServers<'a> {
    fn of(collection: &'a Collection) -> Self {
        let report = |(server, status): (&'a String, &'a ServerStatus)| match status {
            ServerStatus::Up(report) => Some((server.as_str(), &**report)),
            ServerStatus::Down(_) => None,
        };
        Self(collection.servers.iter().filter_map(report).collect())
    }

    /// Returns one value per server.
    fn each(&self, value: impl Fn(&Report) -> Option<f64>) -> Points<'a> {
        let point = |&(server, report): &(&'a str, &'a Report)| {
            Some(Point { server, label: None, value: value(report)? })
        };
        self.0.iter().filter_map(point).collect()
    }

    /// Returns one value per entry (mode, interface or drive) of each server.
    fn labelled<T: 'a>(
        &self,
        key: &'static str,
        entries: impl Fn(&'a Report) -> Vec<(&'a str, T)>,
        value: impl Fn(&T) -> Option<f64>,
    ) -> Points<'a> {
        let mut points = Vec::new();
        for (server, report) in &self.0 {
            for (name, entry) in entries(report) {
                let label = Some((key, name));
                points.extend(value(&entry).map(|value| Point { server, label, value }));
            }
        }
        points
    }
}

fn times<'a>(up: &UpServers<'a>) -> Vec<Family<'a>> {
    let seconds = Some("seconds");
    vec![
        family(
            "start_time",
            seconds,
            "Unix time at which sampling started, from which averages and maxima are computed.",
            up.each(|report| report.start_time_seconds),
        ),
        family(
            "sample_time",
            seconds,
            "Unix time of the last sample.",
            up.each(|report| report.sample_time_seconds),
        ),
        family(
            "sample_interval",
            seconds,
            "Interval between the last two samples, to which current values belong.",
            up.each(|report| report.sample_interval_seconds),
        ),
        family("cpu_cores", None, "CPU cores.", up.each(|report| report.cpu?.cores.map(f64::from))),
    ]
}

/// A metric with a current value, an average and a maximum.
struct SummaryMetric {
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
}

impl SummaryMetric {
    /// Returns its three families.
    fn families<'a>(
        &self,
        points: impl Fn(&dyn Fn(&Summary) -> Option<f64>) -> Points<'a>,
    ) -> [Family<'a>; 3] {
        let Self { name, unit, help } = self;
        let variant = |suffix: &str, description: &str, points| {
            family(&format!("{name}{suffix}"), *unit, &format!("{help}{description}."), points)
        };
        [
            variant("", "", points(&|summary| summary.current)),
            variant("_average", ": average since the start", points(&|summary| summary.average)),
            variant("_maximum", ": maximum since the start", points(&|summary| summary.maximum)),
        ]
    }
}

fn cpu<'a>(up: &UpServers<'a>) -> Vec<Family<'a>> {
    let help = "Ratio of CPU time spent in each mode";
    let modes = |report: &'a Report| report.cpu.as_ref().map_or_else(Vec::new, modes_of);
    SummaryMetric { name: "cpu_usage", unit: Some("ratio"), help }
        .families(|value| up.labelled("mode", modes, |summary: &Summary| value(summary)))
        .into()
}

fn modes_of(cpu: &CpuReport) -> Vec<(&'static str, Summary)> {
    let modes = &cpu.modes;
    vec![
        ("idle", modes.idle),
        ("iowait", modes.iowait),
        ("nice", modes.nice),
        ("steal", modes.steal),
        ("system", modes.system),
        ("user", modes.user),
    ]
}

fn load<'a>(up: &UpServers<'a>) -> Vec<Family<'a>> {
    let absolute =
        |load: &LoadReport| vec![("1", load.one), ("5", load.five), ("15", load.fifteen)];
    let per_core = |load: &LoadReport| {
        vec![("1", load.one_per_core), ("5", load.five_per_core), ("15", load.fifteen_per_core)]
    };
    type Loads = fn(&LoadReport) -> Vec<(&'static str, Summary)>;
    let kinds: [(&str, &str, Loads); 2] = [
        ("load", "Load average, by averaging period in minutes", absolute),
        ("load_per_core", "Load average per CPU core", per_core),
    ];
    let mut families = Vec::new();
    for (name, help, loads) in kinds {
        let loads = |report: &'a Report| report.load.as_ref().map_or_else(Vec::new, loads);
        families.extend(
            SummaryMetric { name, unit: None, help }.families(|value| {
                up.labelled("minutes", loads, |summary: &Summary| value(summary))
            }),
        );
    }
    families
}

fn memory<'a>(up: &UpServers<'a>) -> Vec<Family<'a>> {
    type Field = fn(&MemoryReport) -> &Summary;
    let bytes = Some("bytes");
    let fields: [(&str, Option<&str>, &str, Field); 8] = [
        ("memory_total", bytes, "Total memory", |memory| &memory.total),
        ("memory_used", bytes, "Used memory: total minus available", |memory| &memory.used),
        ("memory_free", bytes, "Free memory", |memory| &memory.free),
        ("memory_available", bytes, "Memory available without swapping", |memory| {
            &memory.available
        }),
        ("memory_shared", bytes, "Shared memory", |memory| &memory.shared),
        ("memory_buffers", bytes, "Buffers of block devices", |memory| &memory.buffers),
        ("memory_cache", bytes, "Page cache and reclaimable slab", |memory| &memory.cache),
        ("memory_used", Some("ratio"), "Ratio of used memory", |m| &m.used_ratio),
    ];
    let mut families = Vec::new();
    for (name, unit, help, field) in fields {
        families.extend(SummaryMetric { name, unit, help }.families(|value| {
            up.each(|report| report.memory.as_ref().and_then(|memory| value(field(memory))))
        }));
    }
    families
}

fn interfaces<'a>(up: &UpServers<'a>) -> Vec<Family<'a>> {
    type Field = fn(&InterfaceReport) -> &Summary;
    let (bytes, errors) = (Some("bytes_per_second"), Some("errors_per_second"));
    let fields: [(&str, Option<&str>, &str, Field); 4] = [
        ("interface_receive", bytes, "Bytes received", |interface| &interface.receive_bytes),
        ("interface_receive", errors, "Receive errors", |interface| &interface.receive_errors),
        ("interface_transmit", bytes, "Bytes sent", |interface| &interface.transmit_bytes),
        ("interface_transmit", errors, "Transmit errors", |interface| &interface.transmit_errors),
    ];
    let all = |report: &'a Report| -> Vec<(&'a str, &'a InterfaceReport)> {
        report.interfaces.iter().map(|(name, interface)| (name.as_str(), interface)).collect()
    };
    let mut families = Vec::new();
    for (name, unit, help, field) in fields {
        families.extend(
            SummaryMetric { name, unit, help }.families(|value| {
                up.labelled("interface", all, |interface| value(field(interface)))
            }),
        );
    }
    families
}

fn drives<'a>(up: &UpServers<'a>) -> Vec<Family<'a>> {
    let all = |report: &'a Report| -> Vec<(&'a str, &'a DriveReport)> {
        report.drives.iter().map(|(name, drive)| (name.as_str(), drive)).collect()
    };
    let fields = DRIVE_FIELDS.iter();
    let to_family = |&(name, unit, help, field): &DriveField| {
        family(name, unit, help, up.labelled("drive", all, |drive| field(drive)))
    };
    fields.map(to_family).collect()
}

type DriveField =
    (&'static str, Option<&'static str>, &'static str, fn(&DriveReport) -> Option<f64>);

const DRIVE_FIELDS: [DriveField; 12] = [
    ("drive", Some("reads_per_second"), "Completed reads.", |drive| drive.reads_per_second),
    ("drive", Some("writes_per_second"), "Completed writes.", |drive| drive.writes_per_second),
    ("drive_read", Some("bytes_per_second"), "Bytes read.", |drive| drive.read_bytes_per_second),
    ("drive_written", Some("bytes_per_second"), "Bytes written.", |drive| {
        drive.written_bytes_per_second
    }),
    (
        "drive_read_wait",
        Some("seconds"),
        "Average read latency, including time in the queue.",
        |drive| drive.read_wait_seconds,
    ),
    (
        "drive_write_wait",
        Some("seconds"),
        "Average write latency, including time in the queue.",
        |drive| drive.write_wait_seconds,
    ),
    ("drive_busy", Some("ratio"), "Utilisation: ratio of time with I/O in flight.", |drive| {
        drive.busy_ratio
    }),
    ("drive_total", Some("bytes"), "Size of the file system.", |drive| to_f64(drive.total_bytes)),
    ("drive_used", Some("bytes"), "Used bytes.", |drive| to_f64(drive.used_bytes)),
    ("drive_available", Some("bytes"), "Bytes available to unprivileged users.", |drive| {
        to_f64(drive.available_bytes)
    }),
    ("drive_total", Some("inodes"), "Total inodes.", |drive| to_f64(drive.total_inodes)),
    ("drive_used", Some("inodes"), "Used inodes.", |drive| to_f64(drive.used_inodes)),
];

#[expect(clippy::cast_precision_loss, reason = "Prometheus stores an f64 too")]
fn to_f64(number: Option<u64>) -> Option<f64> {
    number.map(|number| number as f64)
}
