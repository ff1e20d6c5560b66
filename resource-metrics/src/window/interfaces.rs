//! Interfaces that come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use grid::time::Instant;

use super::Seen;
use super::growth::interface_growth;
use super::series::Series;
use crate::limits::{INTERFACES_KEPT_MAX, INTERFACES_MAX, LABEL_BYTES_MAX};
use crate::report::InterfaceReport;
use crate::sample::InterfaceCounters;

/// All that are there, and those that were and may come back.
#[derive(Debug, Default)]
pub(super) struct Interfaces(BTreeMap<String, Interface>);

#[derive(Debug, Default)]
struct Interface {
    /// When it was missing first.
    gone: Option<Instant>,
    seen: Seen<InterfaceCounters>,
    /// As the fields of the counters are.
    series: [Series; 4],
}

impl Interfaces {
    /// `None` if they could not be read.
    pub(super) fn observe(
        &mut self,
        sample: Option<&BTreeMap<String, InterfaceCounters>>,
        now: Instant,
    ) {
        let Some(sample) = sample else {
            let all = self.0.values_mut().flat_map(|interface| &mut interface.series);
            all.for_each(Series::miss);
            return;
        };
        let named = sample.iter().filter(|(name, _)| name.len() <= LABEL_BYTES_MAX);
        let sample: BTreeMap<&String, &InterfaceCounters> = named.take(INTERFACES_MAX).collect();
        for (name, interface) in &mut self.0 {
            if !sample.contains_key(name) {
                interface.go(now);
            }
        }
        for (name, counters) in sample {
            self.0.entry(name.clone()).or_default().observe(counters, now);
        }
        self.forget();
    }

    /// Those that went first, if there are too many.
    fn forget(&mut self) {
        let Some(excess) = self.0.len().checked_sub(INTERFACES_KEPT_MAX).filter(|n| *n > 0) else {
            return;
        };
        let gone = |(name, interface): (&String, &Interface)| {
            interface.gone.map(|gone| (gone, name.clone()))
        };
        let mut gone: Vec<_> = self.0.iter().filter_map(gone).collect();
        gone.sort_unstable();
        for (_, name) in gone.into_iter().take(excess) {
            self.0.remove(&name);
        }
        debug_assert!(self.0.len() <= INTERFACES_KEPT_MAX, "those that are there are fewer");
    }

    /// Those that are there.
    pub(super) fn report(&self) -> BTreeMap<String, InterfaceReport> {
        let present = self.0.iter().filter(|(_, interface)| interface.gone.is_none());
        present.map(|(name, interface)| (name.clone(), interface.report())).collect()
    }
}

impl Interface {
    fn go(&mut self, now: Instant) {
        if self.gone.is_none() {
            self.gone = Some(now);
            self.seen = None;
            self.series.iter_mut().for_each(Series::miss);
        }
    }

    fn observe(&mut self, counters: &InterfaceCounters, now: Instant) {
        self.gone = None;
        let before = self.seen.replace((now, *counters));
        let interval = before.map(|(seen, before)| (now.since(seen), before));
        let Some((since, before)) = interval.filter(|(since, _)| !since.is_zero()) else {
            self.series.iter_mut().for_each(Series::miss);
            return;
        };
        let rates = rates(&interface_growth(counters, &before), since);
        for (series, rate) in self.series.iter_mut().zip(rates) {
            series.observe(Some(rate), since);
        }
    }

    fn report(&self) -> InterfaceReport {
        let [receive_bytes, receive_errors, transmit_bytes, transmit_errors] =
            self.series.each_ref().map(Series::summary);
        InterfaceReport { receive_bytes, receive_errors, transmit_bytes, transmit_errors }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no interface moves 8 PiB in an interval")]
fn rates(growth: &InterfaceCounters, since: Duration) -> [f64; 4] {
    let InterfaceCounters { receive_bytes, receive_errors, transmit_bytes, transmit_errors } =
        *growth;
    [receive_bytes, receive_errors, transmit_bytes, transmit_errors]
        .map(|count| count as f64 / since.as_secs_f64())
}
