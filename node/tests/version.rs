//! What `gridwire --version` prints: the version, the git commit and the build profile.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use support::run;

#[test]
fn version_shows_commit_and_build_profile() {
    let output = run(&["--version"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let start = concat!("gridwire ", env!("CARGO_PKG_VERSION"), " (");
    let build = output.stdout.trim_end().strip_prefix(start).expect("name and version come first");
    let build = build.strip_suffix(')').expect("the build stands in parentheses");
    let (commit, profile) = build.split_once(", ").expect("commit and profile");
    assert!(["debug", "release"].contains(&profile), "{output:?}");
    match option_env!("GRIDWIRE_COMMIT").map(str::trim).filter(|commit| !commit.is_empty()) {
        Some(given) => assert_eq!(commit, given, "the override wins"),
        None => assert!(is_unknown_or_commit(commit), "{output:?}"),
    }
}

/// Whether it is `unknown`, which builds outside of git show, or a short commit id.
fn is_unknown_or_commit(text: &str) -> bool {
    let id = text.strip_suffix("-dirty").unwrap_or(text);
    let is_id = id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    text == "unknown" || is_id
}
