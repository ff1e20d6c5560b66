//! Directory store: damaged files, concurrent processes, and kills at any moment.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use iam_bootstrap::limits::{ITEM_BYTES_MAX, UNRECOGNISED_MAX};
use iam_bootstrap::store::DirectoryStore;
use iam_bootstrap::{IamStore, ItemKind, ItemPath, StoreError};
use tempfile::TempDir;

fn user(name: &str) -> ItemPath {
    ItemPath::new(ItemKind::User, name).expect("valid name")
}

async fn store() -> (TempDir, PathBuf, DirectoryStore) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let root = directory.path().join("pool");
    let store = DirectoryStore::new(&root);
    store.initialise().await.expect("directory is empty");
    (directory, root, store)
}

fn cause(error: StoreError) -> String {
    match error {
        StoreError::Unavailable { cause, .. } => cause.to_string(),
        error => panic!("{error}"),
    }
}

fn corrupt_cause(error: StoreError) -> String {
    match error {
        StoreError::Corrupt { cause, .. } => cause.to_string(),
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn b61_new_directory_is_not_initialised_and_a_vanished_store_is_unavailable() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let root = directory.path().join("pool");
    let store = DirectoryStore::new(&root);
    for _ in 0..2 {
        let error = store.read(&user("alice")).await.expect_err("store is not initialised");
        assert!(matches!(error, StoreError::NotInitialised { .. }), "{error}");
        fs::create_dir_all(root.join("users")).expect("partial initialisation prepared");
    }
    store.initialise().await.expect("initialisation is completed");
    store.initialise().await.expect("initialisation is idempotent");
    store.write(&user("alice"), b"1".to_vec()).await.expect("written");
    let error = store.read(&user("bob")).await.expect_err("bob does not exist");
    assert_eq!(error.to_string(), "there is no users/bob");

    fs::rename(&root, directory.path().join("elsewhere")).expect("directory renamed");
    assert_eq!(store.read(&user("alice")).await, Ok(b"1".to_vec()), "open directories stay usable");
    fs::remove_dir_all(directory.path().join("elsewhere")).expect("removed");
    for _ in 0..2 {
        let gone = cause(store.read(&user("alice")).await.expect_err("directory was removed"));
        assert!(gone.contains("removed") || gone.contains("is its disk mounted?"), "{gone}");
    }
    cause(store.list(ItemKind::User).await.expect_err("listing fails"));
    cause(store.write(&user("a"), Vec::new()).await.expect_err("write fails"));
}

#[tokio::test]
async fn directory_with_other_files_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    fs::write(directory.path().join("thesis.tex"), "years of work").expect("written");
    let store = DirectoryStore::new(directory.path());
    for result in [store.open().await, store.initialise().await] {
        let cause = cause(result.expect_err("directory is refused"));
        assert!(cause.contains("holds \"thesis.tex\", so it is not a store"), "{cause}");
    }
    let (_directory, root, first) = store_of_format("iam-store format 2\n").await;
    let error = first.open().await.expect_err("newer format is refused");
    assert!(matches!(error, StoreError::Unsupported { found: 2, max: 1, .. }), "{error}");
    fs::write(root.join(".iam-store"), b"\xff\xfe").expect("damaged");
    assert!(cause(first.open().await.expect_err("damaged")).contains("marker"));
}

async fn store_of_format(words: &str) -> (TempDir, PathBuf, DirectoryStore) {
    let (directory, root, store) = store().await;
    drop(store);
    fs::write(root.join(".iam-store"), words).expect("written");
    let store = DirectoryStore::new(&root);
    (directory, root, store)
}

#[tokio::test]
async fn directory_is_locked_by_one_process() {
    let (_directory, root, first) = store().await;
    let second = DirectoryStore::new(&root);
    let refused = cause(second.open().await.expect_err("lock is held by the first store"));
    assert!(refused.contains("another process has it open"), "{refused}");
    drop(first);
    second.open().await.expect("lock is released");
}

#[tokio::test]
async fn files_and_directories_are_accessible_only_to_their_owner() {
    let (_directory, root, store) = store().await;
    store.write(&user("alice"), b"1".to_vec()).await.expect("written");
    let mode =
        |path: &str| fs::metadata(root.join(path)).expect("exists").permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("users"), mode("users/alice")), (0o700, 0o700, 0o600));
}

#[tokio::test]
async fn b61_damaged_file_affects_only_its_item() {
    let (directory, root, store) = store().await;
    let users = root.join("users");
    store.write(&user("sound"), b"1".to_vec()).await.expect("written");
    let outside = directory.path().join("outside");
    fs::write(&outside, "not ours").expect("written");
    symlink(&outside, users.join("link")).expect("linked");
    fs::create_dir(users.join("directory")).expect("created");
    assert!(Command::new("mkfifo").arg(users.join("pipe")).status().expect("runs").success());
    let large = fs::File::create(users.join("large")).expect("created");
    large.set_len(1 << 50).or_else(|_| large.set_len(1 << 40)).expect("sparse");

    assert_eq!(
        corrupt_cause(store.read(&user("link")).await.expect_err("a link")),
        "it is a symbolic link, not a regular file"
    );
    assert!(
        corrupt_cause(store.read(&user("directory")).await.expect_err("temporary directory"))
            .contains("not a regular file")
    );
    assert!(
        corrupt_cause(store.read(&user("pipe")).await.expect_err("a pipe"))
            .contains("not a regular file")
    );
    let error = store.read(&user("large")).await.expect_err("refused by its size");
    assert!(matches!(error, StoreError::TooLarge { max: ITEM_BYTES_MAX, .. }), "{error}");

    let items = store.read_all(ItemKind::User).await.expect("listing succeeds");
    let sound: Vec<_> = items.iter().filter(|item| item.bytes.is_ok()).collect();
    assert_eq!((items.len(), sound.len(), sound[0].path.as_str()), (5, 1, "users/sound"));

    store.write(&user("link"), b"2".to_vec()).await.expect("link is replaced by a file");
    assert_eq!(fs::read_to_string(&outside).expect("exists"), "not ours");
    assert_eq!(store.read(&user("link")).await, Ok(b"2".to_vec()));
}

#[tokio::test]
async fn kind_directory_that_is_a_symbolic_link_is_not_followed() {
    let (directory, root, store) = store().await;
    drop(store);
    fs::remove_dir(root.join("users")).expect("empty");
    symlink(directory.path(), root.join("users")).expect("linked");
    let cause =
        cause(DirectoryStore::new(&root).open().await.expect_err("symbolic link is refused"));
    assert!(cause.contains("its directory users"), "{cause}");
}

#[tokio::test]
async fn unrecognised_names_are_listed_up_to_a_limit() {
    let (_directory, root, store) = store().await;
    store.write(&user("alice"), b"1".to_vec()).await.expect("written");
    for index in 0..UNRECOGNISED_MAX {
        fs::write(root.join("users").join(format!("~{index}")), "").expect("written");
    }
    fs::write(root.join("users/%41"), "").expect("non-canonical name written");
    let listing = store.list(ItemKind::User).await.expect("listed");
    assert_eq!(listing.paths, [user("alice")]);
    assert_eq!(
        (listing.unrecognised.len(), listing.unrecognised_total),
        (UNRECOGNISED_MAX, UNRECOGNISED_MAX + 1)
    );
}

#[tokio::test]
async fn leftovers_of_interrupted_writes_are_removed_on_open() {
    let (_directory, root, store) = store().await;
    drop(store);
    for leftover in [".tmp-0", "users/.tmp-17", "policies/.tmp-1"] {
        fs::write(root.join(leftover), "half a").expect("written");
    }
    let store = DirectoryStore::new(&root);
    store.write(&user("alice"), b"1".to_vec()).await.expect("temporary name is free");
    let is_leftover =
        |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".tmp-");
    for directory in ["", "users", "policies"] {
        let mut entries = fs::read_dir(root.join(directory)).expect("exists");
        assert!(
            !entries.any(|entry| is_leftover(entry.expect("directory entry"))),
            "in {directory:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_leave_the_item_of_one_of_them() {
    let (_directory, _root, store) = store().await;
    let mut writing = Vec::new();
    for writer in 0..8u8 {
        let store = store.clone();
        writing.push(tokio::spawn(async move {
            for _ in 0..5 {
                store.write(&user("alice"), vec![writer; 10_000]).await.expect("written");
                let read = store.read(&user("alice")).await.expect("item is always readable");
                assert!(read.len() == 10_000 && read.iter().all(|byte| *byte == read[0]));
            }
        }));
    }
    for writer in writing {
        writer.await.expect("task did not panic");
    }
}

/// Environment variable with the child's start generation and directory; unset in the parent.
const CHILD: &str = "IAM_BOOTSTRAP_CRASH_CHILD";
const ITEMS: u64 = 5;
/// A generation fills its item, which is larger than one write of the kernel.
const WORDS: usize = 5_000;

fn content(generation: u64) -> Vec<u8> {
    generation.to_le_bytes().repeat(WORDS)
}

/// Returns the generation of an item, and checks that it is complete.
fn generation(bytes: &[u8]) -> u64 {
    assert!(bytes.len() == 8 * WORDS, "partial item: {} bytes", bytes.len());
    let generation = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    assert!(bytes == content(generation), "item mixes two generations");
    generation
}

/// Returns whether a generation deletes its item: every seventh does.
fn is_deletion(generation: u64) -> bool {
    generation % 7 == 6
}

/// The child process that the next test kills; does nothing as a test.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how the parent instructs its child")]
async fn crash_child() {
    let Ok(instruction) = std::env::var(CHILD) else { return };
    let (first, root) = instruction.split_once(' ').expect("generation and directory");
    let store = DirectoryStore::new(root);
    let mut out = std::io::stdout();
    for generation in first.parse::<u64>().expect("number").. {
        let item = user(&(generation % ITEMS).to_string());
        match is_deletion(generation) {
            true => match store.delete(&item).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            false => store.write(&item, content(generation)).await.expect("written"),
        }
        writeln!(out, "\ndone {generation}").expect("parent reads stdout");
        out.flush().expect("parent reads stdout");
    }
}

/// Lets a child write until it has acknowledged `count` writes, kills it, and returns the last
/// acknowledged generation.
fn write_and_be_killed(root: &Path, first: u64, count: usize, spins: u32) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().expect("path of the test binary"))
        .args(["crash_child", "--exact", "--nocapture"])
        .env(CHILD, format!("{first} {}", root.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut done = Vec::new();
    let parse =
        |line: std::io::Result<String>| line.ok()?.strip_prefix("done ")?.parse::<u64>().ok();
    while done.len() < count {
        done.extend(parse(lines.next().expect("child writes until it is killed")));
    }
    for _ in 0..spins {
        std::hint::spin_loop();
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("child exits");
    done.extend(lines.filter_map(parse));
    done.into_iter().max()
}

#[tokio::test]
async fn b61_kill_during_a_write_leaves_each_item_old_or_new_and_loses_no_acknowledged_write() {
    let (_directory, root, store) = store().await;
    drop(store);
    let mut expected: BTreeMap<u64, Option<u64>> = (0..ITEMS).map(|item| (item, None)).collect();
    let mut next = 0;
    for round in 0..40u32 {
        let count = 1 + round as usize % 9;
        let acknowledged =
            write_and_be_killed(&root, next, count, round * 4_000).expect("an acknowledged write");
        for generation in next..=acknowledged {
            expected.insert(generation % ITEMS, (!is_deletion(generation)).then_some(generation));
        }
        next = acknowledged + 1; // Its write may be complete, partial or not begun.
        let store = DirectoryStore::new(&root);
        for (item, was) in &mut expected {
            let is = match store.read(&user(&item.to_string())).await {
                Ok(bytes) => Some(generation(&bytes)),
                Err(StoreError::NotFound { .. }) => None,
                Err(error) => panic!("round {round}: {error}"),
            };
            let may_be = (!is_deletion(next)).then_some(next);
            let is_new = next % ITEMS == *item && is == may_be;
            assert!(is == *was || is_new, "round {round}: {item} is {is:?}, and was {was:?}");
            *was = is;
        }
    }
    assert!(next > 40, "each round wrote an item");
}
