//! Fault points without the feature: zero-sized types and constant results, so that the compiler
//! removes the injected behaviour.

use std::task::{Context, Poll};
use std::time::Duration;

use super::FaultPoint;

/// An injector that never injects a fault.
#[derive(Debug)]
pub(crate) struct FaultInjector;

impl FaultInjector {
    #[inline(always)]
    pub(crate) const fn disabled() -> Self {
        Self
    }

    /// Returns `None`: no fault.
    #[inline(always)]
    pub(crate) const fn inject(&self, _: FaultPoint) -> Option<Duration> {
        None
    }
}

/// A delay that never delays.
#[derive(Debug)]
pub(crate) struct FaultDelay;

impl FaultDelay {
    #[inline(always)]
    pub(crate) const fn new(_: &FaultInjector, _: FaultPoint) -> Self {
        Self
    }

    /// Does nothing: no spurious wake-up is scheduled.
    #[inline(always)]
    pub(crate) const fn wake_later(&mut self, _: &mut Context<'_>) {}

    /// Returns ready at once.
    #[inline(always)]
    pub(crate) const fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_fault_points_are_zero_sized_and_never_fire() {
        assert_eq!((size_of::<FaultInjector>(), size_of::<FaultDelay>()), (0, 0));
        const { assert!(FaultInjector.inject(FaultPoint::Supersede).is_none()) };
    }
}
