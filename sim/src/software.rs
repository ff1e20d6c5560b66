//! The production software of a run's nodes, as its plan asks for it.

use std::sync::Arc;

use crate::host::Software;
use crate::metrics;
use crate::plan::Plan;

mod iam;
mod locks;
mod minio;

/// Returns the software for the nodes of `plan`: dsync if it has locks, iam-bootstrap if it has an
/// IAM store, resource metrics if it has scrapes.
pub fn of(plan: &Plan) -> Arc<dyn Software> {
    metrics::with_metrics(plan, Arc::new(vec![locks::software(plan), iam::software(plan)]))
}
