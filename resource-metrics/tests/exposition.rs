//! Exposition for scrapers, as snapshots that were reviewed by hand (`tests/snapshots`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use grid::time::{Instant, Timestamp};
use resource_metrics::aggregate::Aggregator;
use resource_metrics::report::{DriveReport, Report};
use resource_metrics::sample::{
    CpuTimes, DriveCounters, DriveSample, InterfaceCounters, Load, Memory, Sample, Space,
};
use resource_metrics::{Collection, Down, DownReason, Format, ServerStatus, expose};

/// Returns a sample after this many minutes of constant load.
fn sample(minutes: u64) -> Sample {
    let counters = InterfaceCounters {
        receive_bytes: 6_000 * minutes * minutes,
        receive_errors: 0,
        transmit_bytes: 90_000 * minutes,
        transmit_errors: 3 * minutes,
    };
    let io = DriveCounters {
        reads: 600 * minutes,
        read_bytes: 600 * 4_096 * minutes,
        read_millis: 1_200 * minutes,
        writes: 0,
        written_bytes: 0,
        write_millis: 0,
        busy_millis: 15_000 * minutes,
    };
    let space = Space {
        total_bytes: 4_000_000_000_000,
        used_bytes: 1_000_000_000_000,
        available_bytes: 2_900_000_000_000,
        total_inodes: Some(1_000_000),
        used_inodes: Some(1_234),
    };
    let drive = DriveSample { device: Some("sdb".to_owned()), io: Some(io), space: Some(space) };
    Sample {
        cpu: Some(CpuTimes {
            user: 30 * minutes,
            nice: 0,
            system: 10 * minutes,
            idle: 50 * minutes,
            iowait: 10 * minutes,
            steal: 0,
        }),
        cores: Some(4),
        load: Some(Load { one: 1.5, five: 1.0, fifteen: 0.5 }),
        memory: Some(Memory {
            total: 1 << 34,
            free: 1 << 32,
            available: Some(1 << 33),
            shared: Some(1 << 20),
            buffers: 1 << 21,
            cache: 1 << 31,
        }),
        interfaces: Some([("eth0".to_owned(), counters)].into()),
        drives: Some([("/data1".to_owned(), drive)].into()),
        problems: Vec::new(),
    }
}

fn report() -> Report {
    let mut aggregator = Aggregator::new(Timestamp::new(1_700_000_000, 500_000_000));
    for minute in 0..3 {
        let now = Instant::from_nanos(0) + Duration::from_secs(60 * minute);
        let wall = Timestamp::new(1_700_000_001 + i64::try_from(60 * minute).unwrap(), 0);
        aggregator.observe(&sample(minute), now, wall);
    }
    aggregator.report()
}

fn collection() -> Arc<Collection> {
    let down = Down { reason: DownReason::NotConnected, cause: "not connected to it".to_owned() };
    // As a platform without a source reports.
    let start_time_seconds = Some(1_700_000_100.0);
    let without_source = Report { start_time_seconds, ..Report::default() };
    let servers = [
        ("http://10.0.0.1:9000".to_owned(), ServerStatus::Up(Box::new(report()))),
        ("http://10.0.0.2:9000".to_owned(), ServerStatus::Down(down)),
        ("http://10.0.0.3:9000".to_owned(), ServerStatus::Up(Box::new(without_source))),
    ];
    Arc::new(Collection { servers: servers.into() })
}

#[test]
fn b71_text_format_is_openmetrics_without_units_and_eof() {
    insta::assert_snapshot!("openmetrics", expose(&collection(), Format::OpenMetrics));
    let text = expose(&collection(), Format::Text);
    assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
    let open_metrics = expose(&collection(), Format::OpenMetrics);
    let is_in_both = |line: &&str| !line.starts_with("# UNIT") && *line != "# EOF";
    let expected: Vec<_> = open_metrics.lines().filter(is_in_both).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn b71_label_values_of_peers_cannot_forge_metrics() {
    let malicious = "a\"} 1\nresource_server_up{server=\"b\\";
    let drive =
        DriveReport { used_bytes: Some(1), busy_ratio: Some(f64::NAN), ..Default::default() };
    let report = Report { drives: [(malicious.to_owned(), drive)].into(), ..Report::default() };
    let servers = [("s".to_owned(), ServerStatus::Up(Box::new(report)))];
    let text = expose(&Arc::new(Collection { servers: servers.into() }), Format::Text);
    let used: Vec<_> = text.lines().filter(|line| line.contains("drive_used")).collect();
    assert_eq!(
        used[2..],
        [
            r#"resource_drive_used_bytes{server="s",drive="a\"} 1\nresource_server_up{server=\"b\\"} 1"#
        ]
    );
    assert!(!text.contains("busy"), "a family with only NaN is absent: {text}");
}

/// Writes the file that `.ci/metrics` passes to promtool.
#[test]
fn b71_exposition_is_written_to_a_file_for_promtool() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(directory.join("exposition.prom"), expose(&collection(), Format::Text)).unwrap();
}
