//! Invariants: properties that hold in every run, whatever its faults.
//!
//! Each invariant is a file here. It receives every event in order, inspects the nodes between
//! ticks, and once more at quiescence and at the end. It keeps its own simple state, and describes
//! a violation in one sentence.

use crate::bounds::Bounds;
use crate::event::{CallId, Event};
use crate::load::LoadTable;
use crate::lock::HoldView;
use crate::plan::{Load, Plan};
use crate::world::NodeView;

mod bounded_resources;
mod cancellation;
mod credits;
mod deadlines;
mod fairness;
mod fencing_tokens;
mod gate;
mod handler_result_arrives;
#[cfg(test)]
mod harness;
mod iam_complete_view;
mod iam_convergence;
mod iam_durability;
mod iam_rate_limits;
mod linearizability;
mod link_health;
mod lock_outcome;
mod loss_is_reported;
mod metrics_availability;
mod metrics_deadline;
mod metrics_recovery;
mod metrics_reports;
mod metrics_requests;
mod mutual_exclusion;
mod no_leaks;
mod one_connection;
mod one_handler;
mod one_outcome;
mod quorums;
mod read_response_delivered;
mod reconnects;
mod responses;
mod scrapes;
mod stream_order;
mod suspended;
mod wire;

pub use link_health::LinkHealth;

/// The context of a check.
#[derive(Debug)]
pub struct CheckContext<'a> {
    /// The plan of the run.
    pub plan: &'a Plan,
    /// The calls made so far.
    pub table: &'a LoadTable,
    /// Time limits of the run.
    pub bounds: &'a Bounds,
    /// Since when each pair of nodes is free of faults.
    pub health: &'a LinkHealth,
    /// The simulated time, in milliseconds.
    pub now_ms: u64,
}

impl CheckContext<'_> {
    /// Returns the plan of a call.
    pub fn load(&self, call: CallId) -> Option<Load> {
        self.table.get(call)
    }
}

/// Whether an invariant holds so far; the description of the violation if it does not.
pub type CheckResult = Result<(), String>;

/// A property that holds in every run.
pub trait Invariant {
    /// Returns the name of the invariant.
    fn name(&self) -> &'static str;

    /// Handles an event.
    ///
    /// # Errors
    ///
    /// A description of the violation.
    fn on_event(&mut self, _event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        Ok(())
    }

    /// Checks the holders after a tick, those whose lock is lost included.
    ///
    /// # Errors
    ///
    /// A description of the violation.
    fn on_tick(&mut self, _beliefs: &[HoldView], _context: &CheckContext<'_>) -> CheckResult {
        Ok(())
    }

    /// Checks the present state of the nodes.
    ///
    /// # Errors
    ///
    /// A description of the violation.
    fn on_view(&mut self, _views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        Ok(())
    }

    /// Returns whether the state that must converge after healing has done so. The run continues
    /// until it has, up to the bound.
    fn has_converged(&self, _context: &CheckContext<'_>) -> bool {
        true
    }

    /// Checks the nodes at quiescence: connected, drained and idle.
    ///
    /// # Errors
    ///
    /// A description of the violation.
    fn at_quiescence(&mut self, _views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        Ok(())
    }

    /// Checks after all nodes have ended.
    ///
    /// # Errors
    ///
    /// A description of the violation.
    fn at_end(&mut self, _views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        Ok(())
    }
}

/// Returns all invariants.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_outcome::OneOutcome::default()),
        Box::new(one_handler::OneHandler::default()),
        Box::new(responses::Responses::default()),
        Box::new(stream_order::StreamOrder::default()),
        Box::new(credits::Credits::default()),
        Box::new(wire::Wire::default()),
        Box::new(deadlines::Deadlines::default()),
        Box::new(read_response_delivered::ReadResponseDelivered::default()),
        Box::new(handler_result_arrives::HandlerResultArrives::default()),
        Box::new(cancellation::Cancellation::default()),
        Box::new(one_connection::OneConnection::default()),
        Box::new(no_leaks::NoLeaks),
        Box::new(reconnects::Reconnects),
        Box::new(bounded_resources::BoundedResources::default()),
        Box::new(mutual_exclusion::MutualExclusion::default()),
        Box::new(quorums::Quorums::default()),
        Box::new(gate::LockGate::default()),
        Box::new(fairness::Fairness::default()),
        Box::new(fencing_tokens::FencingTokens::default()),
        Box::new(lock_outcome::LockOutcome::default()),
        Box::new(loss_is_reported::LossIsReported::default()),
        Box::new(linearizability::Linearizability::default()),
        Box::new(iam_complete_view::IamCompleteView::default()),
        Box::new(iam_durability::IamDurability::default()),
        Box::new(iam_convergence::IamConvergence::default()),
        Box::new(iam_rate_limits::IamRateLimits::default()),
        Box::new(metrics_deadline::MetricsDeadline::default()),
        Box::new(metrics_reports::MetricsReports::default()),
        Box::new(metrics_availability::MetricsAvailability::default()),
        Box::new(metrics_requests::MetricsRequests::default()),
        Box::new(metrics_recovery::MetricsRecovery::default()),
    ]
}
