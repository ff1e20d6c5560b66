//! What must hold in every run, whatever is done to the cluster.
//!
//! Each invariant is a file here. It sees every event in its order, looks at the nodes now and then,
//! and once more when everything should have recovered and when everything has ended. It keeps its
//! own simple account, and says what is wrong in a sentence.

use crate::bounds::Bounds;
use crate::event::{CallId, Event};
use crate::load::LoadTable;
use crate::lock::HoldView;
use crate::plan::{Load, Plan};
use crate::world::NodeView;

mod answers;
#[cfg(test)]
mod bench;
mod bounded;
mod calm;
mod cancellation;
mod credits;
mod deadlines;
mod delivered;
mod exclusion;
mod iam_calm;
mod iam_kept;
mod iam_same;
mod iam_whole;
mod lock_outcome;
mod metrics_answers;
mod metrics_deadline;
mod metrics_recovery;
mod metrics_reports;
mod metrics_requests;
mod nothing_left;
mod one_connection;
mod one_handler;
mod one_outcome;
mod quorums;
mod reconnects;
mod register;
mod scrapes;
mod served;
mod stream_order;
mod suspended;
mod tokens;
mod told;
mod wire;

pub use calm::Calm;

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
    pub calm: &'a Calm,
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
pub type Verdict = Result<(), String>;

/// Something that must hold.
pub trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Something happened.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn see(&mut self, _event: &Event, _facts: &Facts<'_>) -> Verdict {
        Ok(())
    }

    /// A tick has passed, and these hold locks or believe so.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn tick(&mut self, _beliefs: &[HoldView], _facts: &Facts<'_>) -> Verdict {
        Ok(())
    }

    /// The nodes as they look now.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn look(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        Ok(())
    }

    /// Whether what it waits for after all was healed is there: the run goes on until it is, or for as
    /// long as that may take.
    fn is_settled(&self, _facts: &Facts<'_>) -> bool {
        true
    }

    /// Everything has recovered: connected, drained and idle.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn at_quiet(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        Ok(())
    }

    /// All nodes have ended.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn at_end(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        Ok(())
    }
}

/// All of them.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_outcome::OneOutcome::default()),
        Box::new(one_handler::OneHandler::default()),
        Box::new(answers::Answers::default()),
        Box::new(stream_order::StreamOrder::default()),
        Box::new(credits::Credits::default()),
        Box::new(wire::Wire::default()),
        Box::new(deadlines::Deadlines::default()),
        Box::new(delivered::Delivered::default()),
        Box::new(served::Served::default()),
        Box::new(cancellation::Cancellation::default()),
        Box::new(one_connection::OneConnection::default()),
        Box::new(nothing_left::NothingLeft),
        Box::new(reconnects::Reconnects),
        Box::new(bounded::Bounded::default()),
        Box::new(exclusion::Exclusion::default()),
        Box::new(quorums::Quorums::default()),
        Box::new(tokens::Tokens::default()),
        Box::new(lock_outcome::LockOutcome::default()),
        Box::new(told::Told::default()),
        Box::new(register::Register::default()),
        Box::new(iam_whole::IamWhole::default()),
        Box::new(iam_kept::IamKept::default()),
        Box::new(iam_same::IamSame::default()),
        Box::new(iam_calm::IamCalm::default()),
        Box::new(metrics_deadline::MetricsDeadline::default()),
        Box::new(metrics_reports::MetricsReports::default()),
        Box::new(metrics_answers::MetricsAnswers::default()),
        Box::new(metrics_requests::MetricsRequests::default()),
        Box::new(metrics_recovery::MetricsRecovery::default()),
    ]
}
