//! Network interfaces, which may come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use grid::time::Instant;

use super::LastReading;
use super::deltas::interface_delta;
use super::series::{Series, check_same_time};
use crate::limits::{INTERFACES_KEPT_MAX, INTERFACES_MAX, LABEL_BYTES_MAX};
use crate::report::InterfaceReport;
use crate::sample::InterfaceCounters;

/// Interfaces that are present, and those that are gone and may come back.
#[derive(Debug, Default)]
pub(super) struct Interfaces(BTreeMap<String, Interface>);

#[derive(Debug, Default)]
struct Interface {
    /// Time of the first sample without it.
    gone_since: Option<Instant>,
    last_reading: LastReading<InterfaceCounters>,
    /// One series for each field of the counters, in their order.
    series: [Series; 4],
}

impl Interfaces {
    /// Adds a sample; `None` if the interfaces could not be read.
    pub(super) fn observe(
        &mut self,
        sample: Option<&BTreeMap<String, InterfaceCounters>>,
        now: Instant,
    ) {
        let Some(sample) = sample else {
            let all = self.0.values_mut().flat_map(|interface| &mut interface.series);
            all.for_each(Series::record_missing);
            return;
        };
        let valid = sample.iter().filter(|(name, _)| name.len() <= LABEL_BYTES_MAX);
        let sample: BTreeMap<&String, &InterfaceCounters> = valid.take(INTERFACES_MAX).collect();
        for (name, interface) in &mut self.0 {
            if !sample.contains_key(name) {
                interface.mark_gone(now);
            }
        }
        for (name, counters) in sample {
            self.0.entry(name.clone()).or_default().observe(counters, now);
        }
        self.evict();
    }

    /// Evicts the interfaces that have been gone longest, if there are too many.
    fn evict(&mut self) {
        let Some(excess) = self.0.len().checked_sub(INTERFACES_KEPT_MAX).filter(|n| *n > 0) else {
            return;
        };
        let gone_since = |(name, interface): (&String, &Interface)| {
            interface.gone_since.map(|time| (time, name.clone()))
        };
        let mut gone: Vec<_> = self.0.iter().filter_map(gone_since).collect();
        gone.sort_unstable();
        for (_, name) in gone.into_iter().take(excess) {
            self.0.remove(&name);
        }
        debug_assert!(self.0.len() <= INTERFACES_KEPT_MAX, "present interfaces are never evicted");
    }

    /// Reports the interfaces that are present.
    pub(super) fn report(&self) -> BTreeMap<String, InterfaceReport> {
        let present = self.0.iter().filter(|(_, interface)| interface.gone_since.is_none());
        present.map(|(name, interface)| (name.clone(), interface.report())).collect()
    }

    /// Checks the numbers of interfaces, and that each is either present or gone.
    pub(super) fn check_invariants(&self) {
        let (kept, max) = (self.0.len(), INTERFACES_KEPT_MAX);
        assert!(kept <= max, "interfaces: {kept} are kept, and the maximum is {max}");
        let present = self.0.values().filter(|interface| interface.gone_since.is_none()).count();
        let max = INTERFACES_MAX;
        assert!(present <= max, "interfaces: {present} are present, and the maximum is {max}");
        for (name, interface) in &self.0 {
            interface.check_invariants(name);
        }
    }
}

impl Interface {
    fn mark_gone(&mut self, now: Instant) {
        if self.gone_since.is_none() {
            self.gone_since = Some(now);
            self.last_reading = None;
            self.series.iter_mut().for_each(Series::record_missing);
        }
    }

    fn observe(&mut self, counters: &InterfaceCounters, now: Instant) {
        self.gone_since = None;
        let before = self.last_reading.replace((now, *counters));
        let interval = before.map(|(last_at, before)| (now.since(last_at), before));
        let Some((elapsed, before)) = interval.filter(|(elapsed, _)| !elapsed.is_zero()) else {
            self.series.iter_mut().for_each(Series::record_missing);
            return;
        };
        let rates = rates(&interface_delta(counters, &before), elapsed);
        for (series, rate) in self.series.iter_mut().zip(rates) {
            series.observe(Some(rate), elapsed);
        }
    }

    fn check_invariants(&self, name: &str) {
        let bytes = name.len();
        assert!(bytes <= LABEL_BYTES_MAX, "interface {name}: its name has {bytes} bytes");
        check_same_time(&self.series, name);
        let Self { gone_since, last_reading, .. } = self;
        assert_eq!(
            gone_since.is_none(),
            last_reading.is_some(),
            "interface {name}: gone_since {gone_since:?}, last_reading {last_reading:?}"
        );
        let has_current = self.series.iter().any(|series| series.summary().current.is_some());
        let is_current_and_gone = has_current && gone_since.is_some();
        assert!(
            !is_current_and_gone,
            "interface {name}: a current value, gone_since {gone_since:?}"
        );
    }

    fn report(&self) -> InterfaceReport {
        let [receive_bytes, receive_errors, transmit_bytes, transmit_errors] =
            self.series.each_ref().map(Series::summary);
        InterfaceReport { receive_bytes, receive_errors, transmit_bytes, transmit_errors }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an interface transfers less than 8 PiB in an interval"
)]
fn rates(delta: &InterfaceCounters, elapsed: Duration) -> [f64; 4] {
    let InterfaceCounters { receive_bytes, receive_errors, transmit_bytes, transmit_errors } =
        *delta;
    [receive_bytes, receive_errors, transmit_bytes, transmit_errors]
        .map(|count| count as f64 / elapsed.as_secs_f64())
}
