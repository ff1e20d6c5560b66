//! What must hold in every run, whatever is done to the cluster.
//!
//! Each invariant is a file here. It sees every event in its order, looks at the nodes now and
//! then, and once more when everything should have recovered and when everything has ended. It
//! keeps its own simple account, and says what is wrong in a sentence.

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
mod fencing_tokens;
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

/// What an invariant may know besides what it sees.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The run.
    pub plan: &'a Plan,
    /// The calls that were asked for so far.
    pub table: &'a LoadTable,
    /// How long things may take.
    pub bounds: &'a Bounds,
    /// Since when which pair of nodes had no trouble.
    pub link_health: &'a LinkHealth,
    /// The simulated time.
    pub now_ms: u64,
}

impl Facts<'_> {
    /// The plan of a call.
    pub fn load(&self, call: CallId) -> Option<Load> {
        self.table.get(call)
    }
}

/// Whether it holds so far; a sentence if it does not.
pub type CheckResult = Result<(), String>;

/// Something that must hold.
pub trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Something happened.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn on_event(&mut self, _event: &Event, _facts: &Facts<'_>) -> CheckResult {
        Ok(())
    }

    /// A tick has passed, and these hold locks or believe so.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn on_tick(&mut self, _beliefs: &[HoldView], _facts: &Facts<'_>) -> CheckResult {
        Ok(())
    }

    /// The nodes as they look now.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn on_view(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> CheckResult {
        Ok(())
    }

    /// Whether what it waits for after all was healed is there: the run goes on until it is, or for
    /// as long as that may take.
    fn has_converged(&self, _facts: &Facts<'_>) -> bool {
        true
    }

    /// Everything has recovered: connected, drained and idle.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn at_quiescence(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> CheckResult {
        Ok(())
    }

    /// All nodes have ended.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn at_end(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> CheckResult {
        Ok(())
    }
}

/// All of them.
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
