//! Runs that once failed: kept with the reason, and run first ever after.
//!
//! An entry is a TOML file in `sim/corpus`. It holds the plan itself, not only the seed: a change
//! of the swarm's draws makes another plan of the same seed, and the failure would be forgotten.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// A run that once failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What went wrong, and what was done about it.
    pub about: String,
    /// The invariant that it broke.
    pub invariant: String,
    /// The run.
    pub plan: Plan,
}

/// Why a corpus, or a plan, cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// The file or folder cannot be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} is neither a corpus entry nor a plan: {cause}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where, and what was expected.
        cause: Box<toml::de::Error>,
    },
    /// It cannot be said in TOML.
    #[error("{path}: cannot be written: {cause}")]
    Encode {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: toml::ser::Error,
    },
    /// The plan contradicts itself.
    #[error("{path}: {problem}")]
    InvalidPlan {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> CorpusError {
    let path = path.to_owned();
    move |cause| CorpusError::File { path, cause }
}

/// All entries of a folder, in the order of their names.
///
/// # Errors
///
/// [`CorpusError`] names the file.
pub fn load(folder: &Path) -> Result<Vec<(String, Entry)>, CorpusError> {
    let mut paths = Vec::new();
    for file in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = file.map_err(file_error(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        read(&path).map(|entry| (name, entry))
    };
    paths.into_iter().map(named).collect()
}

/// An entry.
///
/// # Errors
///
/// [`CorpusError`] names the file.
pub fn read(path: &Path) -> Result<Entry, CorpusError> {
    let entry: Entry = parse(path)?;
    validate(path, &entry.plan)?;
    Ok(entry)
}

/// The plan in a file: one by itself, or that of an entry.
///
/// # Errors
///
/// [`CorpusError`] names the file.
pub fn read_plan(path: &Path) -> Result<Plan, CorpusError> {
    let plan = match parse::<Entry>(path) {
        Ok(entry) => entry.plan,
        // The error that is told is that of a plan: it is what the file most likely should be.
        Err(_) => parse::<Plan>(path)?,
    };
    validate(path, &plan)?;
    Ok(plan)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, CorpusError> {
    let text = fs::read_to_string(path).map_err(file_error(path))?;
    toml::from_str(&text)
        .map_err(|cause| CorpusError::Malformed { path: path.to_owned(), cause: Box::new(cause) })
}

fn validate(path: &Path, plan: &Plan) -> Result<(), CorpusError> {
    plan.check().map_err(|problem| CorpusError::InvalidPlan { path: path.to_owned(), problem })
}

/// Writes an entry.
///
/// # Errors
///
/// [`CorpusError`] names the file.
pub fn write(path: &Path, entry: &Entry) -> Result<(), CorpusError> {
    let encode = |cause| CorpusError::Encode { path: path.to_owned(), cause };
    let text = toml::to_string(entry).map_err(encode)?;
    fs::write(path, text).map_err(file_error(path))
}
