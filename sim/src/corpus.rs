//! The corpus: runs that failed once, each with its cause, which every test run repeats.
//!
//! An entry is a TOML file in `sim/corpus`. It holds the plan itself, not only the seed: when the
//! swarm draws differently, the same seed makes another plan, and the failure would be forgotten.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::scenarios;

/// A run that failed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The cause, and its fix.
    pub about: String,
    /// The violated invariant.
    pub invariant: String,
    /// The plan of the run.
    pub plan: Plan,
}

/// Why a corpus or a plan cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// The file or folder cannot be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The file is neither a corpus entry nor a plan.
    #[error("{path} is neither a corpus entry nor a plan: {cause}")]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Position of the error, and the expected syntax.
        cause: Box<toml::de::Error>,
    },
    /// The entry cannot be encoded as TOML.
    #[error("{path}: cannot be written: {cause}")]
    Encode {
        /// Path of the file.
        path: PathBuf,
        /// The encoder's error.
        cause: toml::ser::Error,
    },
    /// The plan is inconsistent.
    #[error("{path}: {problem}")]
    InvalidPlan {
        /// Path of the file.
        path: PathBuf,
        /// The inconsistency.
        problem: String,
    },
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> CorpusError {
    let path = path.to_owned();
    move |cause| CorpusError::File { path, cause }
}

/// Loads all entries of a folder, in the order of their names.
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

/// Reads an entry.
///
/// # Errors
///
/// [`CorpusError`] names the file.
pub fn read(path: &Path) -> Result<Entry, CorpusError> {
    let entry: Entry = parse(path)?;
    validate(path, &entry.plan)?;
    Ok(entry)
}

/// Reads a plan from a file: a plan by itself, or that of an entry.
///
/// # Errors
///
/// [`CorpusError`] names the file.
pub fn read_plan(path: &Path) -> Result<Plan, CorpusError> {
    let plan = match parse::<Entry>(path) {
        Ok(entry) => entry.plan,
        // The error is that of parsing a plan, because the file is most likely one.
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
    scenarios::check(plan)
        .map_err(|problem| CorpusError::InvalidPlan { path: path.to_owned(), problem })
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
