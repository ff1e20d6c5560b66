//! The production replicas of users, policies and mappings: iam-bootstrap on every node, over the
//! pools of the node.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use grid::Env;
use iam_bootstrap::Iam;
use iam_bootstrap::model::UserName;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::host::{Host, Software};
use crate::iam::{RecordingPool, keys, sealed};
use crate::plan::{IamPlan, Plan};

/// Returns the software for the nodes of `plan`: iam-bootstrap, if the plan has an IAM store.
pub(super) fn software(plan: &Plan) -> Arc<dyn Software> {
    match &plan.cluster.iam {
        Some(iam) => Arc::new(IamSoftware(iam.clone())),
        None => Arc::new(()),
    }
}

struct IamSoftware(IamPlan);

impl Software for IamSoftware {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        let refresh = Duration::from_millis(u64::from(self.0.refresh_ms));
        let mut iam = Iam::builder(&host.manager, UserName::new("root")?, keys()?)
            .refresh_interval(refresh)
            .env(Env::new(host.clock.clone(), &mut StdRng::seed_from_u64(host.seed ^ 0x0069_616d)));
        for (index, store) in (0..).zip(&host.pools) {
            iam = iam.pool(RecordingPool::new(index, sealed(store)?, &host.recorder));
        }
        let iam = iam.build()?;
        iam.start();
        host.iam.set(iam);
        Ok(())
    }
}
