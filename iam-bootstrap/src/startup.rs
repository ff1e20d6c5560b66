//! From nothing to a ready replica: checks the format, loads the pools, catches up with the peers,
//! and starts the tasks that keep the replica consistent.

use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use tokio::sync::{mpsc, watch};

use crate::format::{self, FormatLock};
use crate::load::{self, LoadError, LoadReport, Progress};
use crate::model::UserName;
use crate::pools::Pools;
use crate::reconcile::Reconciler;
use crate::serve::PeerHandlers;
use crate::state::{IamState, Phase};
use crate::tasks::Tasks;
use crate::writer::{Writer, WriterHandle, WriterJob};

/// Interval between two sweeps of items past their retention.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);

/// The parts of a replica that is not started yet.
pub(crate) struct Startup {
    pub(crate) state: Arc<IamState>,
    pub(crate) pools: Pools,
    pub(crate) root: UserName,
    pub(crate) format_lock: Arc<dyn FormatLock>,
    pub(crate) env: Env,
    pub(crate) writer: Writer,
    pub(crate) jobs: mpsc::Receiver<WriterJob>,
    pub(crate) writer_handle: WriterHandle,
    pub(crate) reconciler: Arc<Reconciler>,
    /// Keeps the handlers of peers' requests alive for as long as the replica runs.
    pub(crate) handlers: Arc<PeerHandlers>,
    pub(crate) tasks: Tasks,
}

impl Startup {
    /// Runs until the shutdown, or until loading has failed for good.
    pub(crate) async fn run(self) {
        match self.load_all().await {
            Ok(report) => log_loaded(&report),
            Err(error) => {
                tracing::error!(target: "iam", %error, "IAM load failed");
                self.state.set_phase(Phase::Failed(error));
                return;
            }
        }
        let Self { state, writer, jobs, writer_handle, reconciler, handlers, tasks, .. } = self;
        tasks.spawn(writer.run(jobs));
        reconciler.catch_up().await;
        state.set_phase(Phase::Ready);
        reconciler.start(&tasks);
        sweep_periodically(&writer_handle).await;
        drop(handlers);
    }

    async fn load_all(&self) -> Result<LoadReport, LoadError> {
        let loading = |progress| self.state.set_phase(Phase::Loading(progress));
        if let Some(pool) = self.pools.all().first() {
            format::check(&**pool, &*self.format_lock, &self.env, loading).await?;
        }
        let progress = watch::Sender::new(Progress::default());
        let mut updates = progress.subscribe();
        let load = load::load(self.pools.all(), &self.root, &self.env, &progress);
        tokio::pin!(load);
        let loaded = loop {
            tokio::select! {
                biased;
                loaded = &mut load => break loaded?,
                changed = updates.changed() => if changed.is_ok() {
                    loading(updates.borrow_and_update().clone());
                },
            }
        };
        self.state.install(loaded.snapshot, loaded.replica);
        self.state.set_phase(Phase::CatchingUp);
        Ok(loaded.report)
    }
}

fn log_loaded(report: &LoadReport) {
    tracing::info!(
        target: "iam",
        items = report.items,
        deleted = report.deleted,
        skipped = report.skipped_total,
        pools = report.pools,
        retries = report.retries,
        took = ?report.took,
        "IAM is loaded"
    );
}

/// Queues a sweep at intervals until the writer has ended.
async fn sweep_periodically(writer: &WriterHandle) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        if writer.sweep().await.is_err() {
            return;
        }
    }
}
