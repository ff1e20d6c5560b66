//! The settings for metrics.

use std::path::{Path, PathBuf};
use std::time::Duration;

use resource_metrics::Drives;
use resource_metrics::limits::{
    DRIVES_MAX, LABEL_BYTES_MAX, SAMPLE_INTERVAL, SAMPLE_INTERVAL_MAX, SAMPLE_INTERVAL_MIN,
};

use super::error::ConfigError;
use super::layers::{Layers, Setting};
use super::single_text;
use crate::metrics_access::{self, Access};

/// Sampled drives, sampling interval, and read access.
#[derive(Debug, Clone)]
pub(crate) struct MetricsConfig {
    pub(crate) access: Access,
    pub(crate) interval: Duration,
    pub(crate) drives: Drives,
}

const PUBLIC_ALLOWED: &str = "true or false, and not true together with a metrics_token_file";
const INTERVAL_ALLOWED: &str = "a duration between 1s and 1day, such as 60s, the default";
const DRIVES_ALLOWED: &str =
    "absolute paths of directories, each once, such as /data1; default every mounted drive";

impl MetricsConfig {
    pub(super) fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let interval = match layers.find_optional("metrics_interval") {
            Some(given) => parse_interval(given)?,
            None => SAMPLE_INTERVAL,
        };
        let drives = match layers.find_optional("drives") {
            Some(given) => Drives::Directories(parse_drives(given)?),
            None => Drives::Mounted,
        };
        Ok(Self { access: access(layers)?, interval, drives })
    }
}

fn access(layers: &Layers) -> Result<Access, ConfigError> {
    let public = layers.find_optional("metrics_public");
    let is_public = public.map(parse_switch).transpose()?.unwrap_or(false);
    match (layers.find_optional("metrics_token_file"), public) {
        (Some(_), Some(public)) if is_public => {
            Err(public.invalid(&"a metrics_token_file is given too", PUBLIC_ALLOWED))
        }
        (Some(given), _) => {
            let allowed = metrics_access::allowed();
            let token = metrics_access::read(Path::new(single_text(given, &allowed)?));
            let token = token.map_err(|problem| given.invalid(&problem, &allowed))?;
            Ok(Access::token(&token))
        }
        (None, _) if is_public => Ok(Access::Public),
        (None, _) => Ok(Access::Forbidden),
    }
}

fn parse_switch(given: &Setting) -> Result<bool, ConfigError> {
    let text = single_text(given, PUBLIC_ALLOWED)?;
    text.parse().map_err(|_| given.invalid(&"it is neither true nor false", PUBLIC_ALLOWED))
}

fn parse_interval(given: &Setting) -> Result<Duration, ConfigError> {
    let text = single_text(given, INTERVAL_ALLOWED)?;
    let interval =
        humantime::parse_duration(text).map_err(|error| given.invalid(&error, INTERVAL_ALLOWED))?;
    match (SAMPLE_INTERVAL_MIN..=SAMPLE_INTERVAL_MAX).contains(&interval) {
        true => Ok(interval),
        false => Err(given.invalid(&"it is out of range", INTERVAL_ALLOWED)),
    }
}

/// A missing directory is not an error here: its drive may be mounted later, and is reported until
/// then.
fn parse_drives(given: &Setting) -> Result<Vec<PathBuf>, ConfigError> {
    let mut drives = Vec::new();
    for text in given.list() {
        let path = PathBuf::from(text);
        let problem = match () {
            () if !path.is_absolute() => format!("{text:?} is not an absolute path"),
            () if text.len() > LABEL_BYTES_MAX => {
                format!("a path is longer than {LABEL_BYTES_MAX} bytes")
            }
            () if drives.contains(&path) => format!("{text} is listed more than once"),
            () => {
                drives.push(path);
                continue;
            }
        };
        return Err(given.invalid(&problem, DRIVES_ALLOWED));
    }
    match drives.len() <= DRIVES_MAX {
        true => Ok(drives),
        false => Err(given.invalid(&"it lists too many", &format!("at most {DRIVES_MAX} paths"))),
    }
}
