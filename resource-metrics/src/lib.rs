//! What each server's drives, network, processors and memory do, from any server of a cluster.
//!
//! A server samples itself each minute and makes intervals of what the kernel counts: current values,
//! and, of all but drives, the average and the maximum since the start. Any server answers for all: it
//! asks the others over grid, at once and with a deadline, and says of those that do not answer that
//! they are down, and why. The answer is text that Prometheus scrapes.
//!
//! What cannot be measured is absent, and never zero.
//!
//! # An example
//!
//! ```
//! use grid::{Auth, Manager};
//! use resource_metrics::{Format, ResourceMetrics, expose};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"what all servers know")?)
//!     .build()?;
//! let metrics = ResourceMetrics::builder(&manager).build()?;
//! manager.start()?;
//! metrics.start();
//!
//! let text = expose(&metrics.collect().await?, Format::Text);
//! assert!(text.contains("resource_server_up{server=\"http://127.0.0.1:9000\"} 1"));
//! # Ok(())
//! # }
//! ```
//!
//! # A tour
//!
//! - [`sample`] reads counters, and does nothing else; tests and simulations inject theirs.
//! - [`window`] makes of samples what is reported: pure, the time is handed in.
//! - [`report`] is what travels, [`collect`] asks all servers for it.
//! - [`expose()`] writes it for scrapers.
//! - [`limits`] has every limit.
//!
//! # Across restarts and failures
//!
//! Averages and maxima are since the server's start, which is reported too; they begin anew with it.
//! Counters that begin anew, samples that are missed, and interfaces and drives that come and go are
//! accounted for ([`window`]).
#![forbid(unsafe_code)]

pub mod collect;
pub mod error;
pub mod limits;
pub mod report;
pub mod sample;
pub mod window;

mod expose;
mod metrics;
mod sampler;

pub use collect::{Answer, Collection, Down, Reason};
pub use error::{BuildError, CollectError};
pub use expose::{Format, expose};
pub use limits::Limits;
pub use metrics::{ResourceMetrics, ResourceMetricsBuilder};
pub use report::Report;
pub use sample::{Drives, Sample, Source, SystemSource};
