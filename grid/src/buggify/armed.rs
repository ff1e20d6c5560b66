//! The points with the feature: who is asked, and waits that hold something up.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::Point;

/// What the log says of each point that is struck, and what no server's binary may contain.
pub const MARKER: &str = "grid buggify point";

/// Decides what rare things happen, and when.
///
/// Asked from the tasks of connections, without a lock: it must not block. To replay a run it
/// decides by what it was handed, such as a seed, and by nothing else.
pub trait Buggify: Send + Sync + 'static {
    /// Asked each time that `point` is passed: `None` for nothing out of the ordinary, or how long
    /// it takes, which may be zero (see [`Point`] for what that means at each).
    fn strike(&self, point: Point) -> Option<Duration>;
}

impl Point {
    /// All points.
    pub const ALL: [Self; 6] = [
        Self::DelayFlush,
        Self::SpuriousWake,
        Self::FullSocket,
        Self::TinyQueue,
        Self::EarlyTimeout,
        Self::Supersede,
    ];

    /// The name that it has in logs.
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

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whom the shell asks at its points.
#[derive(Clone)]
pub(crate) struct Rare {
    buggify: Option<Arc<dyn Buggify>>,
}

impl Rare {
    pub(crate) const fn never() -> Self {
        Self { buggify: None }
    }

    pub(crate) fn new(buggify: impl Buggify) -> Self {
        Self { buggify: Some(Arc::new(buggify)) }
    }

    /// Whether something rare happens at `point` now, and how long it takes.
    pub(crate) fn strike(&self, point: Point) -> Option<Duration> {
        let wait = self.buggify.as_ref()?.strike(point)?;
        tracing::debug!(target: "grid::buggify", %point, ?wait, "{MARKER} struck");
        Some(wait)
    }
}

/// A place in a connection's task that is held up whenever its point is struck.
pub(crate) struct Hold {
    rare: Rare,
    point: Point,
    /// What holds it up now.
    wait: Option<Pin<Box<Sleep>>>,
}

impl Hold {
    pub(crate) fn new(rare: &Rare, point: Point) -> Self {
        Self { rare: rare.clone(), point, wait: None }
    }

    /// Whether to go on. Who has waited goes on without asking again, so that a point that is always
    /// struck makes everything slow but stops nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.wait.is_none() {
            let Some(wait) = self.rare.strike(self.point) else { return Poll::Ready(()) };
            self.wait = Some(Box::pin(tokio::time::sleep(wait)));
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
        }
        self.wait = None;
        Poll::Ready(())
    }

    /// Wakes the task for nothing if the point is struck, at the end of the wait. Holds nothing up.
    /// There is one such wake-up at a time: more would each bring forth the next.
    pub(crate) fn wake_later(&mut self, cx: &mut Context<'_>) {
        if self.wait.as_mut().is_some_and(|wait| wait.as_mut().poll(cx).is_pending()) {
            return;
        }
        self.wait = self.rare.strike(self.point).map(|wait| Box::pin(tokio::time::sleep(wait)));
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
    fn each_point_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Point::ALL.iter().map(Point::to_string).collect();
        assert_eq!(names.len(), Point::ALL.len());
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    }
}
