//! Text output of `gridwire metrics`.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use resource_metrics::report::{DriveReport, Report, Summary};
use resource_metrics::{Collection, ServerStatus};

use crate::output::printable;

/// All servers, one section each.
pub(super) struct MetricsTable<'a>(pub(super) &'a Collection);

impl fmt::Display for MetricsTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (server, status)) in self.0.servers.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(&printable(server))?;
            match status {
                ServerStatus::Up(report) => ServerSection(report).fmt(f)?,
                ServerStatus::Down(down) => write!(
                    f,
                    "  DOWN, {}: {}",
                    down.reason.as_str().replace('_', " "),
                    printable(&down.cause)
                )?,
            }
        }
        Ok(())
    }
}

struct ServerSection<'a>(&'a Report);

impl fmt::Display for ServerSection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        if let Some(time) = report.start_time_seconds.and_then(time) {
            write!(f, "  since {time}")?;
        }
        if let Some(time) = report.sample_time_seconds.and_then(time) {
            write!(f, ", sampled {time}")?;
        }
        if let Some(cores) = report.cpu.and_then(|cpu| cpu.cores) {
            write!(f, ", {cores} cores")?;
        }
        let rows = rows(report);
        if !rows.is_empty() {
            write!(f, "\n  {:<28}{:>12}{:>12}{:>12}", "", "current", "average", "maximum")?;
        }
        for Row { name, unit, summary } in rows {
            let cell = |value: Option<f64>| Cell { value, unit };
            let Summary { current, average, maximum } = summary;
            let (current, average) = (cell(current), cell(average));
            write!(f, "\n  {name:<28}{current:>12}{average:>12}{:>12}", cell(maximum))?;
        }
        if !report.drives.is_empty() {
            drives(f, report)?;
        }
        Ok(())
    }
}

struct Row<'a> {
    name: Cow<'a, str>,
    unit: Unit,
    summary: Summary,
}

fn rows(report: &Report) -> Vec<Row<'_>> {
    let row = |name: &'static str, unit, summary| Row { name: name.into(), unit, summary };
    let mut rows = Vec::new();
    if let Some(cpu) = &report.cpu {
        let modes = &cpu.modes;
        rows.extend([
            row("cpu user", Unit::Ratio, modes.user),
            row("cpu system", Unit::Ratio, modes.system),
            row("cpu iowait", Unit::Ratio, modes.iowait),
            row("cpu nice", Unit::Ratio, modes.nice),
            row("cpu steal", Unit::Ratio, modes.steal),
            row("cpu idle", Unit::Ratio, modes.idle),
        ]);
    }
    if let Some(load) = &report.load {
        rows.extend([
            row("load of 1 minute", Unit::Plain, load.one),
            row("load of 5 minutes", Unit::Plain, load.five),
            row("load of 15 minutes", Unit::Plain, load.fifteen),
        ]);
    }
    if let Some(memory) = &report.memory {
        rows.extend([
            row("memory", Unit::Bytes, memory.total),
            row("memory used", Unit::Bytes, memory.used),
            row("memory used, ratio", Unit::Ratio, memory.used_ratio),
            row("memory available", Unit::Bytes, memory.available),
            row("memory free", Unit::Bytes, memory.free),
            row("memory shared", Unit::Bytes, memory.shared),
            row("memory buffers", Unit::Bytes, memory.buffers),
            row("memory cache", Unit::Bytes, memory.cache),
        ]);
    }
    for (name, interface) in &report.interfaces {
        let name = printable(name);
        let row = |what: &str, unit, summary| {
            let name = format!("{name} {what}").into();
            Row { name, unit, summary }
        };
        rows.extend([
            row("received/s", Unit::Bytes, interface.receive_bytes),
            row("sent/s", Unit::Bytes, interface.transmit_bytes),
            row("receive errors/s", Unit::Plain, interface.receive_errors),
            row("send errors/s", Unit::Plain, interface.transmit_errors),
        ]);
    }
    rows
}

fn drives(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let columns = [
        "used",
        "of",
        "inodes",
        "of",
        "reads/s",
        "read/s",
        "wait",
        "writes/s",
        "written/s",
        "wait",
        "busy",
    ];
    write!(f, "\n  {:<20}", "")?;
    for column in columns {
        write!(f, "{column:>11}")?;
    }
    for (name, drive) in &report.drives {
        write!(f, "\n  {:<20}", printable(name))?;
        for cell in cells(drive) {
            write!(f, "{cell:>11}")?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "three digits are displayed")]
fn cells(drive: &DriveReport) -> [Cell; 11] {
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    [
        Cell { value: whole(drive.used_bytes), unit: Unit::Bytes },
        Cell { value: whole(drive.total_bytes), unit: Unit::Bytes },
        Cell { value: whole(drive.used_inodes), unit: Unit::Count },
        Cell { value: whole(drive.total_inodes), unit: Unit::Count },
        Cell { value: drive.reads_per_second, unit: Unit::Plain },
        Cell { value: drive.read_bytes_per_second, unit: Unit::Bytes },
        Cell { value: drive.read_wait_seconds, unit: Unit::Seconds },
        Cell { value: drive.writes_per_second, unit: Unit::Plain },
        Cell { value: drive.written_bytes_per_second, unit: Unit::Bytes },
        Cell { value: drive.write_wait_seconds, unit: Unit::Seconds },
        Cell { value: drive.busy_ratio, unit: Unit::Ratio },
    ]
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Plain,
    Count,
    Ratio,
    Bytes,
    Seconds,
}

/// A value, or a dash without one.
struct Cell {
    value: Option<f64>,
    unit: Unit,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.value else { return f.pad("-") };
        f.pad(&match self.unit {
            Unit::Plain => format!("{value:.2}"),
            Unit::Count => format!("{value:.0}"),
            Unit::Ratio => format!("{:.1} %", value * 100.0),
            Unit::Bytes => bytes(value),
            Unit::Seconds => format!("{:.2} ms", value * 1_000.0),
        })
    }
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = value;
    let mut unit = 0;
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0} B"),
        unit => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Formats as RFC 3339; `None` outside of its range.
fn time(seconds: f64) -> Option<String> {
    const YEAR_9999: f64 = 253_402_300_799.0;
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|_| seconds <= YEAR_9999)?;
    Some(humantime::format_rfc3339_seconds(UNIX_EPOCH + duration).to_string())
}

#[cfg(test)]
mod tests {
    use resource_metrics::report::{CpuReport, InterfaceReport};
    use resource_metrics::{Down, DownReason};

    use super::*;

    #[test]
    fn table_has_dashes_for_missing_values_and_no_control_characters() {
        let summary = |current| Summary { current, average: Some(0.25), maximum: Some(1.0) };
        let mut cpu = CpuReport { cores: Some(4), ..CpuReport::default() };
        cpu.modes.user = summary(Some(0.5));
        let interface = InterfaceReport { receive_bytes: summary(None), ..Default::default() };
        let drive = DriveReport {
            used_bytes: Some(1_500 << 20),
            read_wait_seconds: Some(0.001_5),
            ..DriveReport::default()
        };
        let report = Report {
            start_time_seconds: Some(1_700_000_000.0),
            cpu: Some(cpu),
            interfaces: [("e\u{1b}".to_owned(), interface)].into(),
            drives: [("/data1".to_owned(), drive)].into(),
            ..Report::default()
        };
        let down =
            Down { reason: DownReason::NotConnected, cause: "can't reach \"b\"\t".to_owned() };
        let servers = [
            ("http://a:1".to_owned(), ServerStatus::Up(Box::new(report))),
            ("http://b:1".to_owned(), ServerStatus::Down(down)),
        ];
        let table = MetricsTable(&Collection { servers: servers.into() }).to_string();
        let lines: Vec<_> = table.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "http://a:1  since 2023-11-14T22:13:20Z, 4 cores");
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["current", "average", "maximum"]
        );
        assert_eq!(lines[2], "  cpu user                          50.0 %      25.0 %     100.0 %");
        assert_eq!(lines[8], "  e\\u{1b} received/s                     -         0 B         1 B");
        let drive: Vec<_> = lines[13].split_whitespace().collect();
        assert_eq!(drive[..6], ["/data1", "1.5", "GiB", "-", "-", "-"], "{table}");
        assert!(lines[13].contains("1.50 ms"), "{table}");
        assert_eq!(lines[15], "http://b:1  DOWN, not connected: can't reach \"b\"\\t");
    }

    #[test]
    fn bytes_have_a_suitable_unit() {
        let shown = [0.0, 1_023.0, 1_024.0, 1_536.0 * 1_024.0, 1e18].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "888.2 PiB"]);
    }
}
