//! The points without the feature: types without a size and answers that are constants, so that the
//! compiler leaves out whatever would have happened.

use std::task::{Context, Poll};
use std::time::Duration;

use super::Point;

/// Nobody to ask.
#[derive(Debug)]
pub(crate) struct Rare;

impl Rare {
    #[inline(always)]
    pub(crate) const fn never() -> Self {
        Self
    }

    /// Nothing rare happens.
    #[inline(always)]
    pub(crate) const fn strike(&self, _: Point) -> Option<Duration> {
        None
    }
}

/// A place where nothing is held up.
#[derive(Debug)]
pub(crate) struct Hold;

impl Hold {
    #[inline(always)]
    pub(crate) const fn new(_: &Rare, _: Point) -> Self {
        Self
    }

    /// Sleeps well.
    #[inline(always)]
    pub(crate) const fn wake_later(&mut self, _: &mut Context<'_>) {}

    /// Go on.
    #[inline(always)]
    pub(crate) const fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_the_points_take_no_room_and_never_strike() {
        assert_eq!((size_of::<Rare>(), size_of::<Hold>()), (0, 0));
        const { assert!(Rare.strike(Point::Supersede).is_none()) };
    }
}
