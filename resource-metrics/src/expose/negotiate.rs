//! Content negotiation by a scraper's `Accept` header.

/// Format of the exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus's text format, 0.0.4: the default.
    #[default]
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns the format for a scraper that sends this `Accept` header: OpenMetrics if it is
    /// requested by name and no other format is preferred.
    pub fn negotiate(accept: &str) -> Self {
        let weight_of = |matches: fn(&str) -> bool| {
            let weights = accept.split(',').filter_map(media_range);
            weights.filter(|(name, _)| matches(name)).map(|(_, weight)| weight).fold(0.0, f32::max)
        };
        let open_metrics =
            weight_of(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        let text = weight_of(|name| name.eq_ignore_ascii_case("text/plain"));
        match open_metrics > 0.0 && open_metrics >= text {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }
}

/// Returns the name and the weight of one media range; `None` for an unsupported version.
fn media_range(range: &str) -> Option<(&str, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?;
    let mut weight = 1.0;
    for part in parts {
        let (key, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "q" => weight = value.parse().ok()?,
            // The output uses only features of OpenMetrics 0.0.1, so it is valid for both versions.
            "version" if !["0.0.1", "0.0.4", "1.0.0"].contains(&value) => return None,
            _ => {}
        }
    }
    Some((name, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b71_scraper_gets_the_format_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                          version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\" ; q=0.2", Format::OpenMetrics),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.4", Format::Text),
            ("application/openmetrics-text;version=2.0.0, text/plain", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=much", Format::Text),
            ("*/*", Format::Text),
            ("text/html, image/*;;,=,", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }
}
