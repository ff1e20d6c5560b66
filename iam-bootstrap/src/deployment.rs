//! The deployment id of this server: all servers of a cluster agree on it at the first start,
//! permanently ([B63]).
//!
//! [`Deployment::builder`] configures it; [`Deployment::agree`] waits until the id is known;
//! [`DeploymentCell`] is readable from anywhere. [`proto`] decides, without any I/O; [`wire`]
//! defines the messages; a [`DeploymentStore`] persists promises. A server that belongs to another
//! deployment is refused ([`Conflict`]).
//!
//! The list of servers must be the same on every server, and must not change, until the id is
//! known. To grow a cluster, keep its old servers running: new servers adopt its id.
//!
//! ```
//! use grid::{Auth, Manager};
//! use iam_bootstrap::deployment::{Deployment, MemoryDeploymentStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cluster of one server. A larger one lists all names, and the manager serves a listener.
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"the shared secret")?)
//!     .build()?;
//! let deployment = Deployment::builder(&manager, MemoryDeploymentStore::new()).start()?;
//! manager.start()?;
//!
//! let id = deployment.agree().await?;
//! assert_eq!(deployment.cell().get(), Some(id));
//! # Ok(())
//! # }
//! ```
//!
//! [B63]: crate::rules#b63

pub mod cell;
pub mod id;
pub mod proto;
pub mod store;
pub mod wire;

mod acceptor_task;
mod agree;
mod announce;
mod builder;
mod conflict;
mod serve;

pub use agree::{AgreeError, Deployment};
pub use builder::{DeploymentBuilder, StartError};
pub use cell::{AlreadySet, DeploymentCell};
pub use conflict::Conflict;
pub use id::{DeploymentId, DeploymentIdError};
pub use proto::proposer::Timing;
pub use store::{
    DeploymentStore, DeploymentStoreError, DeploymentStoreFuture, MemoryDeploymentStore,
};
