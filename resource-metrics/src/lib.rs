//! Utilisation of each server's drives, network, CPU and memory, from any server of a cluster.
//!
//! A server samples itself each minute and converts kernel counters into values per interval:
//! current values and, except for drives, the average and the maximum since the start. Any server
//! reports for the whole cluster: it calls the others over grid, concurrently and with a deadline.
//! A server that does not respond is reported as down, with the reason. The report is text that
//! Prometheus scrapes.
//!
//! A value that cannot be measured is absent, and never zero.
//!
//! # Example
//!
//! ```
//! use grid::{Auth, Manager};
//! use resource_metrics::{Format, ResourceMetrics, expose};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"the servers' shared secret")?)
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
//! # Overview
//!
//! - [`sample`] reads counters, and does nothing else; tests and simulations inject their own.
//! - [`aggregate`] computes a report from samples, with the time as a parameter.
//! - [`report`] is the message between servers, [`collect`] fetches it from all of them.
//! - [`expose()`] writes it for scrapers.
//! - [`limits`] has every limit.
//!
//! # Across restarts and failures
//!
//! Averages and maxima are since the server's start, which is reported too; they restart with it.
//! Counter resets, missed samples, and interfaces and drives that come and go are accounted for
//! ([`aggregate`]).
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod collect;
pub mod error;
pub mod limits;
pub mod report;
#[doc = include_str!("../RULES.md")]
pub mod rules {}
pub mod sample;

mod expose;
mod metrics;
mod sampler;

pub use collect::{Collection, Down, DownReason, ServerStatus};
pub use error::{BuildError, CollectError};
pub use expose::{Format, expose};
pub use limits::Limits;
pub use metrics::{ResourceMetrics, ResourceMetricsBuilder};
pub use report::Report;
pub use sample::{Drives, Sample, Source, SystemSource};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
