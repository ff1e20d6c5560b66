//! Which deployment this server belongs to: an id that all its servers agree on at the first start, for
//! ever (B63).
//!
//! [`Deployment::builder`] begins; [`Deployment::agree`] waits until the id is known; [`DeploymentCell`] is
//! read from anywhere. [`proto`] decides, without any I/O, [`wire`] says what travels, a
//! [`DeploymentStore`] keeps what was promised. A server that belongs to another deployment is refused
//! ([`Conflict`]).
//!
//! The list of servers must be the same everywhere, and stay so, until the id is known. A cluster that
//! grows does so while its old servers run: new ones adopt its id.
//!
//! ```
//! use grid::{Auth, Manager};
//! use iam_bootstrap::deployment::{Deployment, MemoryDeploymentStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cluster of one server: with more, all their names are given, and the manager serves a listener.
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"what all servers know")?)
//!     .build()?;
//! let deployment = Deployment::builder(&manager, MemoryDeploymentStore::new()).start()?;
//! manager.start()?;
//!
//! let id = deployment.agree().await?;
//! assert_eq!(deployment.cell().get(), Some(id));
//! # Ok(())
//! # }
//! ```

pub mod cell;
pub mod id;
pub mod proto;
pub mod store;
pub mod wire;

mod agree;
mod builder;
mod conflict;
mod keeper;
mod serve;
mod tell;

pub use agree::{AgreeError, Deployment};
pub use builder::{DeploymentBuilder, StartError};
pub use cell::{AlreadySet, DeploymentCell};
pub use conflict::Conflict;
pub use id::{DeploymentId, DeploymentIdError};
pub use proto::proposer::Timing;
pub use store::{DeploymentStore, DeploymentStoreError, MemoryDeploymentStore, Pending};
