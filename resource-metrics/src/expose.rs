//! Writes a collection for Prometheus: in its text format, or OpenMetrics.
//!
//! All metrics are gauges, since reports have values of intervals and no counters. The two formats
//! differ only in the lines that OpenMetrics adds: `# UNIT`, and `# EOF` at the end.

mod families;
mod negotiate;

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelKey, EncodeLabelSet, EncodeLabelValue,
    GaugeValueEncoder, LabelSetEncoder, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use self::families::{Family, Point, families};
use crate::collect::Collection;

pub use self::negotiate::Format;

/// Prefix of each metric's name.
const PREFIX: &str = "resource";

/// Returns the text of a collection for a scraper.
///
/// Names and texts of other servers are escaped; a value that is not finite is omitted.
pub fn expose(collection: &Arc<Collection>, format: Format) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Exposition(Arc::clone(collection))));
    let mut text = String::new();
    // Writing to a string cannot fail, and neither can encoding the values.
    let written = prometheus_client::encoding::text::encode(&mut text, &registry);
    debug_assert!(written.is_ok(), "{written:?}");
    match format {
        Format::OpenMetrics => text,
        Format::Text => strip_openmetrics_lines(&text),
    }
}

/// Removes the lines that only OpenMetrics has. Label values contain no line breaks, so no sample
/// line is removed.
fn strip_openmetrics_lines(text: &str) -> String {
    let is_common = |line: &&str| !line.starts_with("# UNIT ") && *line != "# EOF\n";
    text.split_inclusive('\n').filter(is_common).collect()
}

#[derive(Debug)]
struct Exposition(Arc<Collection>);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in families(&self.0) {
            encode_family(&mut encoder, &family)?;
        }
        Ok(())
    }
}

/// Writes a family, unless it has no values.
fn encode_family(encoder: &mut DescriptorEncoder<'_>, family: &Family<'_>) -> fmt::Result {
    let mut points = family.points.iter().filter(|point| point.value.is_finite()).peekable();
    if points.peek().is_none() {
        return Ok(());
    }
    let unit = family.unit.map(|unit| Unit::Other(unit.to_owned()));
    let mut metric =
        encoder.encode_descriptor(&family.name, &family.help, unit.as_ref(), MetricType::Gauge)?;
    for point in points {
        metric.encode_family(&Labels(point))?.encode_gauge(&Value(point.value))?;
    }
    Ok(())
}

/// A value, written as an integer where it is one: easier to read, and shorter.
#[derive(Debug)]
struct Value(f64);

impl EncodeGaugeValue for Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be an integer in range")]
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
        match self.0.fract() == 0.0 && self.0.abs() <= EXACT_INTEGER_MAX {
            true => EncodeGaugeValue::encode(&(self.0 as i64), encoder),
            false => EncodeGaugeValue::encode(&self.0, encoder),
        }
    }
}

#[derive(Debug)]
struct Labels<'a>(&'a Point<'a>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let server = ("server", self.0.server);
        for (key, value) in [Some(server), self.0.label].into_iter().flatten() {
            let mut label = encoder.encode_label();
            let mut encoded = label.encode_label_key()?;
            EncodeLabelKey::encode(&key, &mut encoded)?;
            let mut encoded = encoded.encode_label_value()?;
            Escaped(value).encode(&mut encoded)?;
            encoded.finish()?;
        }
        Ok(())
    }
}

/// A label value, escaped. `prometheus-client` 0.24 writes label values verbatim: a name with a
/// quotation mark in it would corrupt the whole text, or forge metrics.
#[derive(Debug)]
struct Escaped<'a>(&'a str);

impl EncodeLabelValue for Escaped<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        // Most values need no escaping, so they are written in one call.
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            let (plain, special) = match part.char_indices().next_back() {
                Some((at, '\\')) => (&part[..at], "\\\\"),
                Some((at, '"')) => (&part[..at], "\\\""),
                Some((at, '\n')) => (&part[..at], "\\n"),
                _ => (part, ""),
            };
            encoder.write_str(plain)?;
            encoder.write_str(special)?;
        }
        Ok(())
    }
}
