//! The faults that a run injects: one file for each kind.
//!
//! Everything that a run must know of a kind is in its file: its serialised form, the nodes that it
//! affects, how it is applied to a cluster and healed, how a swarm draws it, how a report shows it,
//! and what it disturbs. `FaultKind` requires all of these, so that a kind that lacks one does not
//! compile. [`Fault`] only dispatches. The rest of the simulation knows faults by their
//! [`Effect`]s.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

pub(crate) mod bounce;
pub(crate) mod cut;
pub(crate) mod cut_one_way;
mod drawing;
pub(crate) mod drift;
mod effect;
pub(crate) mod hold;
pub(crate) mod pause;
pub(crate) mod pool_down;
mod pool_up;
pub(crate) mod power_loss;
mod repair;
mod restart;
mod resume;
pub(crate) mod skew;
pub(crate) mod slow;
mod target;

pub(crate) use drawing::{Drawing, FaultClass};
pub use drift::DRIFT_PPM_MAX;
pub use effect::{ClockWhilePaused, Effect, SpanChange};
pub use target::Outage;
pub(crate) use target::Target;

/// What a run must know of a kind of fault.
pub(crate) trait FaultKind: fmt::Debug + fmt::Display {
    /// Returns the name of the kind in traces, coverage points and reports. It is the tag of the
    /// serialised form, too.
    fn name(&self) -> &'static str;

    /// Returns the nodes that the fault affects, or whose link it affects. Shrinking removes a
    /// fault together with any of its nodes.
    fn nodes(&self) -> Vec<Node>;

    /// Checks its values, apart from the nodes.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be injected.
    fn check(&self) -> Result<(), String>;

    /// Applies the fault to a cluster.
    fn apply(&self, target: &mut dyn Target);

    /// Ends all faults of this kind.
    fn heal(target: &mut dyn Target)
    where
        Self: Sized;

    /// Returns what it disturbs: invariants and time bounds account for that.
    fn effect(&self) -> Effect;

    /// Returns which periods begin and end with it in a report.
    fn span(&self) -> SpanChange;

    /// Returns the classes of faults in which swarms draw it. A fault that ends another is drawn
    /// together with that one, and has none.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the swarms' lists"))]
    fn classes() -> &'static [FaultClass]
    where
        Self: Sized;
}

/// Defines [`Fault`] and its dispatch from the list of kinds. A macro, because a kind that is in
/// the enum must be in all lists.
macro_rules! faults {
    ($($module:ident::$kind:ident),+ $(,)?) => {
        $(pub use $module::$kind;)+

        /// A fault that a run injects. It lasts until another fault ends it, or until all are
        /// healed.
        #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "fault", rename_all = "snake_case")]
        pub enum Fault {
            $(
                #[doc = concat!("See [`", stringify!($kind), "`].")]
                $kind($kind),
            )+
        }

        $(
            impl From<$kind> for Fault {
                fn from(fault: $kind) -> Self {
                    Self::$kind(fault)
                }
            }
        )+

        impl Fault {
            fn as_kind(&self) -> &dyn FaultKind {
                match self {
                    $(Self::$kind(fault) => fault,)+
                }
            }

            /// Ends all faults, in the order of the list of kinds.
            pub(crate) fn heal_all(target: &mut dyn Target) {
                $($kind::heal(target);)+
            }

            /// Number of kinds.
            #[cfg(test)]
            pub(crate) const KINDS: usize = [$(stringify!($kind)),+].len();

            /// Returns the classes of all kinds.
            #[cfg(test)]
            pub(crate) fn all_classes() -> Vec<FaultClass> {
                [$($kind::classes()),+].concat()
            }
        }
    };
}

// In the order in which they are healed: processes resume before their links are repaired, so that
// segments which were held for a paused process arrive; nodes start last, with correct clocks.
faults![
    pause::Pause,
    resume::Resume,
    cut::Cut,
    cut_one_way::CutOneWay,
    hold::Hold,
    slow::Slow,
    repair::Repair,
    pool_down::PoolDown,
    pool_up::PoolUp,
    skew::Skew,
    drift::Drift,
    bounce::Bounce,
    power_loss::PowerLoss,
    restart::Restart,
];

impl Fault {
    /// Returns the name of its kind.
    pub fn kind(&self) -> &'static str {
        self.as_kind().name()
    }

    /// Returns whether it affects this node or one of its links.
    pub fn concerns(&self, which: Node) -> bool {
        self.as_kind().nodes().contains(&which)
    }

    /// Returns what it disturbs.
    pub fn effect(&self) -> Effect {
        self.as_kind().effect()
    }

    /// Returns which periods begin and end with it in a report.
    pub fn span(&self) -> SpanChange {
        self.as_kind().span()
    }

    /// Checks that it can be injected into a cluster of `nodes` nodes.
    pub(crate) fn check(&self, nodes: u8) -> Result<(), String> {
        self.as_kind().check()?;
        match self.as_kind().nodes().into_iter().find(|node| node.0 >= nodes) {
            Some(absent) => Err(format!("a fault concerns {absent}, which does not exist")),
            None => Ok(()),
        }
    }

    /// Applies it to a cluster.
    pub(crate) fn apply(&self, target: &mut dyn Target) {
        self.as_kind().apply(target);
    }
}

// As the kind, without the variant around it: traces show and hash this form.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_kind(), f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_kind(), f)
    }
}

#[cfg(test)]
mod tests;
