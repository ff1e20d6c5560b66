//! Fault points with the feature: the injector, and the delays it causes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::FaultPoint;

/// Text in the log line of each injected fault. No server's binary may contain it.
pub const MARKER: &str = "grid buggify point";

/// Decides which faults are injected, and when.
///
/// Called from the tasks of connections, without a lock held: it must not block. For a run to be
/// replayable, it must decide from its own inputs alone, such as a seed.
pub trait Buggify: Send + Sync + 'static {
    /// Called each time `point` is reached. Returns `None` for no fault, or the duration of the
    /// fault, which may be zero. [`FaultPoint`] documents what the duration means at each point.
    fn inject(&self, point: FaultPoint) -> Option<Duration>;
}

impl FaultPoint {
    /// All fault points.
    pub const ALL: [Self; 6] = [
        Self::DelayFlush,
        Self::SpuriousWake,
        Self::FullSocket,
        Self::TinyQueue,
        Self::EarlyTimeout,
        Self::Supersede,
    ];

    /// Returns the name used in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DelayFlush => "delay-flush",
            Self::SpuriousWake => "spurious-wake",
            Self::FullSocket => "full-socket",
            Self::TinyQueue => "tiny-queue",
            Self::EarlyTimeout => "early-timeout",
            Self::Supersede => "supersede",
        }
    }
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The source of fault decisions for the `net` layer.
#[derive(Clone)]
pub(crate) struct FaultInjector {
    buggify: Option<Arc<dyn Buggify>>,
}

impl FaultInjector {
    pub(crate) const fn disabled() -> Self {
        Self { buggify: None }
    }

    pub(crate) fn new(buggify: impl Buggify) -> Self {
        Self { buggify: Some(Arc::new(buggify)) }
    }

    /// Returns the duration of the fault to inject at `point` now, if any, and logs it.
    pub(crate) fn inject(&self, point: FaultPoint) -> Option<Duration> {
        let wait = self.buggify.as_ref()?.inject(point)?;
        tracing::debug!(target: "grid::buggify", %point, ?wait, "{MARKER} fired");
        Some(wait)
    }
}

/// A place in a connection's task that is delayed whenever its fault point fires.
pub(crate) struct FaultDelay {
    injector: FaultInjector,
    point: FaultPoint,
    /// The delay in progress.
    wait: Option<Pin<Box<Sleep>>>,
}

impl FaultDelay {
    pub(crate) fn new(injector: &FaultInjector, point: FaultPoint) -> Self {
        Self { injector: injector.clone(), point, wait: None }
    }

    /// Returns ready when the task may continue. The point is not evaluated again after a completed
    /// delay, so that a point which always fires slows the task down but never stops it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.wait.is_none() {
            let Some(wait) = self.injector.inject(self.point) else { return Poll::Ready(()) };
            self.wait = Some(Box::pin(tokio::time::sleep(wait)));
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
        }
        self.wait = None;
        Poll::Ready(())
    }

    /// Schedules a spurious wake-up of the task if the point fires. Delays nothing. At most one
    /// wake-up is pending: each further one would schedule the next.
    pub(crate) fn wake_later(&mut self, cx: &mut Context<'_>) {
        if self.wait.as_mut().is_some_and(|wait| wait.as_mut().poll(cx).is_pending()) {
            return;
        }
        self.wait = self.injector.inject(self.point).map(|wait| Box::pin(tokio::time::sleep(wait)));
        if self.wait.as_mut().is_some_and(|wait| wait.as_mut().poll(cx).is_ready()) {
            self.wait = None;
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn fault_points_have_distinct_log_names() {
        let names: BTreeSet<_> = FaultPoint::ALL.iter().map(FaultPoint::to_string).collect();
        assert_eq!(names.len(), FaultPoint::ALL.len());
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    }
}
