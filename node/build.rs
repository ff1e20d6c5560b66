//! Provides the git commit and the build profile that `gridwire --version` shows.
//!
//! `GRIDWIRE_COMMIT` overrides the commit, for builds from an archive or in a container. Without it
//! and outside of git the commit is `unknown`: a build never fails because of this script.

use std::env;
use std::path::Path;
use std::process::Command;

/// Inputs of the binary, relative to this package. With uncommitted edits the commit is `-dirty`.
const SOURCES: [&str; 14] = [
    "build.rs",
    "Cargo.toml",
    "src",
    "../Cargo.lock",
    "../Cargo.toml",
    "../dsync/Cargo.toml",
    "../dsync/src",
    "../grid/Cargo.toml",
    "../grid/src",
    "../iam-bootstrap/Cargo.toml",
    "../iam-bootstrap/src",
    "../resource-metrics/Cargo.toml",
    "../resource-metrics/src",
    "../rust-toolchain.toml",
];

fn main() {
    println!("cargo:rerun-if-env-changed=GRIDWIRE_COMMIT");
    rerun_if_changed(&SOURCES);
    let given = env::var("GRIDWIRE_COMMIT").ok().filter(|commit| !commit.trim().is_empty());
    let commit = given.or_else(commit_of_worktree);
    let commit = commit.as_deref().map_or("unknown", str::trim);
    let profile = env::var("PROFILE").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo:rustc-env=GRIDWIRE_BUILD_COMMIT={commit}");
    println!("cargo:rustc-env=GRIDWIRE_BUILD_PROFILE={profile}");
}

/// Returns the short commit id, with `-dirty` if a source differs from it.
///
/// `None` without git, and where git does not track this file: an archive that was unpacked inside
/// of another repository must not show that repository's commit.
fn commit_of_worktree() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    rerun_when_head_moves();
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let status = [&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..]].concat();
    let suffix = if git(&status)?.is_empty() { "" } else { "-dirty" };
    Some(format!("{commit}{suffix}"))
}

/// The reflog changes with each commit and checkout; `HEAD` and its branch, where there is no
/// reflog.
fn rerun_when_head_moves() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            rerun_if_changed(&[&path]);
        }
    }
}

/// Cargo treats a missing path as changed.
fn rerun_if_changed(paths: &[&str]) {
    for path in paths.iter().filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
}

/// Runs git in this package's directory. `None` if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).env("GIT_OPTIONAL_LOCKS", "0").output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned())
}
