//! What of a server's configuration concerns its metrics.

use std::path::{Path, PathBuf};
use std::time::Duration;

use resource_metrics::Drives;
use resource_metrics::limits::{
    DRIVES_MAX, LABEL_BYTES_MAX, SAMPLE_INTERVAL, SAMPLE_INTERVAL_MAX, SAMPLE_INTERVAL_MIN,
};

use super::error::ConfigError;
use super::layers::{Given, Layers};
use super::one_text;
use crate::metrics_access::{self, Access};

/// What is sampled, how often, and who may read it.
#[derive(Debug, Clone)]
pub(crate) struct MetricsConfig {
    pub(crate) access: Access,
    pub(crate) interval: Duration,
    pub(crate) drives: Drives,
}

const PUBLIC_ALLOWED: &str = "true or false, and not true beside a metrics_token_file";
const INTERVAL_ALLOWED: &str =
    "a duration between 1s and 1day, such as 60s, which it is unless given";
const DRIVES_ALLOWED: &str =
    "absolute paths of directories, each once, such as /data1; every mounted drive unless given";

impl MetricsConfig {
    pub(super) fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let interval = match layers.find_optional("metrics_interval") {
            Some(given) => parse_interval(given)?,
            None => SAMPLE_INTERVAL,
        };
        let drives = match layers.find_optional("drives") {
            Some(given) => Drives::At(parse_drives(given)?),
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
            Err(public.wrong(&"a metrics_token_file is given too", PUBLIC_ALLOWED))
        }
        (Some(given), _) => {
            let allowed = metrics_access::allowed();
            let token = metrics_access::read(Path::new(one_text(given, &allowed)?));
            let token = token.map_err(|problem| given.wrong(&problem, &allowed))?;
            Ok(Access::token(&token))
        }
        (None, _) if is_public => Ok(Access::Public),
        (None, _) => Ok(Access::Closed),
    }
}

fn parse_switch(given: &Given) -> Result<bool, ConfigError> {
    let text = one_text(given, PUBLIC_ALLOWED)?;
    text.parse().map_err(|_| given.wrong(&"it is neither", PUBLIC_ALLOWED))
}

fn parse_interval(given: &Given) -> Result<Duration, ConfigError> {
    let text = one_text(given, INTERVAL_ALLOWED)?;
    let interval =
        humantime::parse_duration(text).map_err(|error| given.wrong(&error, INTERVAL_ALLOWED))?;
    match (SAMPLE_INTERVAL_MIN..=SAMPLE_INTERVAL_MAX).contains(&interval) {
        true => Ok(interval),
        false => Err(given.wrong(&"it is out of bounds", INTERVAL_ALLOWED)),
    }
}

/// One that is not there yet may be mounted later, and is a problem until then, but none of the
/// configuration.
fn parse_drives(given: &Given) -> Result<Vec<PathBuf>, ConfigError> {
    let mut drives = Vec::new();
    for text in given.list() {
        let path = PathBuf::from(text);
        let problem = match () {
            () if !path.is_absolute() => format!("{text:?} is no absolute path"),
            () if text.len() > LABEL_BYTES_MAX => {
                format!("a path is longer than {LABEL_BYTES_MAX} bytes")
            }
            () if drives.contains(&path) => format!("{text} is listed more than once"),
            () => {
                drives.push(path);
                continue;
            }
        };
        return Err(given.wrong(&problem, DRIVES_ALLOWED));
    }
    match drives.len() <= DRIVES_MAX {
        true => Ok(drives),
        false => Err(given.wrong(&"it lists too many", &format!("at most {DRIVES_MAX} paths"))),
    }
}
