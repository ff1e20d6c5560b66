//! Properties of every store: it behaves like a map. And the properties of sealing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use grid::env::Env;
use iam_bootstrap::limits::{ITEM_BYTES_MAX, SEAL_BYTES};
use iam_bootstrap::store::ReadItem;
use iam_bootstrap::store::memory::{Health, Operation};
use iam_bootstrap::store::sealed::{Keys, ResealReport, RootSecretError};
use iam_bootstrap::{IamStore, ItemKind, ItemPath, MemoryStore, Sealed, StoreError};
use proptest::prelude::*;

const SECRET: &[u8] = b"correct horse battery staple";

fn path(kind: ItemKind, name: &str) -> ItemPath {
    ItemPath::new(kind, name).expect("valid name")
}

fn alice() -> ItemPath {
    path(ItemKind::User, "alice")
}

fn sealed<S: IamStore>(store: S, secret: &[u8]) -> Sealed<S> {
    Sealed::new(store, Keys::new(secret).expect("valid length"), &Env::system())
}

#[derive(Debug, Clone)]
enum Step {
    Write(ItemPath, Vec<u8>),
    Delete(ItemPath),
    Read(ItemPath),
    List(ItemKind),
    ReadAll(ItemKind),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(ItemKind::User), Just(ItemKind::Policy)];
    let named = (kind.clone(), "[a.%é/]{1,2}").prop_map(|(kind, name)| path(kind, &name));
    let path = prop_oneof![1 => Just(ItemPath::format()), 6 => named];
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (path.clone(), bytes).prop_map(|(path, bytes)| Step::Write(path, bytes)),
        2 => path.clone().prop_map(Step::Delete),
        2 => path.prop_map(Step::Read),
        1 => kind.clone().prop_map(Step::List),
        1 => kind.prop_map(Step::ReadAll),
    ]
}

/// Applies the same steps to a store and to a map, and compares the results.
async fn behaves_like_a_map(store: &dyn IamStore, steps: &[Step]) -> BTreeMap<ItemPath, Vec<u8>> {
    let mut map: BTreeMap<ItemPath, Vec<u8>> = BTreeMap::new();
    let of_kind = |map: &BTreeMap<ItemPath, Vec<u8>>, kind| {
        let items = map.iter().filter(|(path, _)| path.kind() == Some(kind));
        items.map(|(path, bytes)| (path.clone(), bytes.clone())).collect::<Vec<_>>()
    };
    for step in steps {
        match step {
            Step::Write(path, bytes) => {
                store.write(path, bytes.clone()).await.expect("written");
                map.insert(path.clone(), bytes.clone());
            }
            Step::Delete(path) => {
                let not_found = StoreError::NotFound { path: path.clone() };
                let deleted = map.remove(path).map(drop).ok_or(not_found);
                assert_eq!(store.delete(path).await, deleted);
            }
            Step::Read(path) => {
                let not_found = StoreError::NotFound { path: path.clone() };
                assert_eq!(store.read(path).await, map.get(path).cloned().ok_or(not_found));
            }
            Step::List(kind) => {
                let listing = store.list(*kind).await.expect("listed");
                let paths: Vec<_> =
                    of_kind(&map, *kind).into_iter().map(|(path, _)| path).collect();
                assert_eq!((listing.paths, listing.unrecognised_total), (paths, 0));
            }
            Step::ReadAll(kind) => {
                let items = store.read_all(*kind).await.expect("read").into_iter();
                let items: Vec<_> =
                    items.map(|ReadItem { path, bytes }| (path, bytes.expect("sound"))).collect();
                assert_eq!(items, of_kind(&map, *kind));
            }
        }
    }
    map
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("runtime").block_on(future)
}

proptest! {
    #[test]
    fn b61_memory_store_behaves_like_a_map(steps in proptest::collection::vec(step(), 0..60)) {
        let store = MemoryStore::new("pool 1");
        let map = run(behaves_like_a_map(&store, &steps));
        prop_assert_eq!(store.contents(), map);
    }

    #[test]
    fn b61_sealed_store_behaves_like_a_map_and_encrypts_its_items(
        steps in proptest::collection::vec(step(), 0..60)
    ) {
        let inner = MemoryStore::new("pool 1");
        let map = run(behaves_like_a_map(&sealed(inner.clone(), SECRET), &steps));
        let kept = inner.contents();
        prop_assert_eq!(kept.len(), map.len());
        for (path, bytes) in &kept {
            prop_assert_eq!(bytes.len(), map[path].len() + SEAL_BYTES);
            prop_assert!(map[path].len() < 4 || !bytes.windows(map[path].len()).any(|w| w == map[path]));
        }
    }

    #[test]
    fn b61_altered_sealed_item_is_detected(
        plain in proptest::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(),
        flip in 1..=255u8, cut in any::<prop::sample::Index>(),
    ) {
        run(async {
            let inner = MemoryStore::new("pool 1");
            let store = sealed(inner.clone(), SECRET);
            store.write(&alice(), plain).await.expect("written");
            let bytes = inner.contents().remove(&alice()).expect("item exists");

            let mut flipped = bytes.clone();
            let at = at.index(bytes.len());
            flipped[at] ^= flip;
            inner.overwrite_raw(&alice(), flipped);
            let error = store.read(&alice()).await.expect_err("changed");
            match at {
                4 => assert!(matches!(error, StoreError::Unsupported { .. }), "{error}"),
                5..13 => assert!(matches!(error, StoreError::WrongKey { .. }), "{error}"),
                _ => assert!(matches!(error, StoreError::Corrupt { .. }), "{error}"),
            }
            inner.overwrite_raw(&alice(), &bytes[..cut.index(bytes.len())]);
            let error = store.read(&alice()).await.expect_err("cut");
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        });
    }

    #[test]
    fn b61_garbage_in_a_sealed_store_affects_only_its_item(
        garbage in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>(),
    ) {
        run(async {
            let inner = MemoryStore::new("pool 1");
            let store = sealed(inner.clone(), SECRET);
            let bob = path(ItemKind::User, "bob");
            store.write(&bob, b"a user".to_vec()).await.expect("written");
            let garbage = if head { [b"IAMS\x01".as_slice(), &garbage].concat() } else { garbage };
            inner.overwrite_raw(&alice(), garbage);
            let items = store.read_all(ItemKind::User).await.expect("other items are readable");
            assert!(items[0].bytes.as_ref().expect_err("garbage").affects_one_item());
            assert_eq!(items[1], ReadItem { path: bob, bytes: Ok(b"a user".to_vec()) });
        });
    }
}

#[cfg(unix)]
proptest! {
    // Each write waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn b61_directory_store_behaves_like_a_map_also_after_reopening(
        steps in proptest::collection::vec(step(), 0..30)
    ) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().join("pool");
        run(async {
            let store = iam_bootstrap::store::DirectoryStore::new(&root);
            store.initialise().await.expect("empty directory");
            let map = behaves_like_a_map(&store, &steps).await;
            drop(store);
            let again = iam_bootstrap::store::DirectoryStore::new(&root);
            for (path, bytes) in map {
                assert_eq!(again.read(&path).await, Ok(bytes));
            }
        });
    }
}

#[tokio::test]
async fn b61_memory_store_injects_the_configured_faults() {
    let store = MemoryStore::new("pool 1");
    store.write(&alice(), b"1".to_vec()).await.expect("store is online");

    store.set_health(Health::Offline("no route to disk".into()));
    let error = store.read(&alice()).await.expect_err("offline");
    assert_eq!(error.to_string(), "pool 1 is unavailable: no route to disk");
    assert!(error.is_transient() && !error.affects_one_item());

    store.set_health(Health::NotInitialised);
    let error = store.list(ItemKind::User).await.expect_err("not initialised");
    assert!(matches!(error, StoreError::NotInitialised { .. }) && error.is_transient(), "{error}");

    store.set_health(Health::Online);
    store.mark_corrupt(&alice());
    let items = store.read_all(ItemKind::User).await.expect("listing succeeds");
    let error = items[0].bytes.clone().expect_err("corrupt");
    assert!(error.affects_one_item() && !error.is_transient(), "{error}");
    store.write(&alice(), b"2".to_vec()).await.expect("rewritten");
    assert_eq!(store.read(&alice()).await, Ok(b"2".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn slow_memory_store_checks_its_health_after_the_delay() {
    let store = MemoryStore::new("pool 1");
    let second = std::time::Duration::from_secs(1);
    store.set_delay_hook(Some(Arc::new(move |operation| match operation {
        Operation::Read(_) => Box::pin(tokio::time::sleep(second)),
        _ => Box::pin(async {}),
    })));
    store.write(&alice(), b"1".to_vec()).await.expect("write without delay");
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.read(&alice()).await }
    });
    tokio::time::sleep(second / 2).await;
    assert!(!reading.is_finished());
    store.set_health(Health::NotInitialised);
    reading.await.expect("task did not panic").expect_err("store became uninitialised");
}

#[tokio::test]
async fn oversized_item_is_refused_before_it_is_written() {
    let inner = MemoryStore::new("pool 1");
    let store = sealed(inner.clone(), SECRET);
    let most = ITEM_BYTES_MAX - SEAL_BYTES;
    store.write(&alice(), vec![7; most]).await.expect("largest item is accepted");
    let error = store.write(&alice(), vec![8; most + 1]).await.expect_err("too large");
    assert!(
        matches!(error, StoreError::TooLarge { bytes, max, .. } if max == most && bytes == 1 + most as u64)
    );
    assert_eq!(store.read(&alice()).await.expect("item is unchanged")[0], 7);
    let error = inner.write(&alice(), vec![8; ITEM_BYTES_MAX + 1]).await.expect_err("too large");
    assert_eq!(error.to_string(), "users/alice has 1048577 bytes, and an item may have 1048576");
}

#[tokio::test]
async fn b61_sealed_item_is_bound_to_its_path() {
    let inner = MemoryStore::new("pool 1");
    let store = sealed(inner.clone(), SECRET);
    store.write(&alice(), b"may do all".to_vec()).await.expect("written");
    let bob = path(ItemKind::User, "bob");
    inner.overwrite_raw(&bob, inner.contents()[&alice()].clone());
    let error = store.read(&bob).await.expect_err("item is bound to alice's path");
    assert!(error.to_string().contains("moved from another path"), "{error}");
    assert_eq!(store.read(&alice()).await, Ok(b"may do all".to_vec()));
}

#[tokio::test]
async fn b61_wrong_root_secret_is_distinguished_from_a_corrupt_item() {
    let inner = MemoryStore::new("pool 1");
    sealed(inner.clone(), SECRET).write(&alice(), b"1".to_vec()).await.expect("written");
    let error =
        sealed(inner.clone(), b"another secret").read(&alice()).await.expect_err("another key");
    assert!(matches!(error, StoreError::WrongKey { .. }), "{error}");
    assert!(error.to_string().contains("add the secret that it was sealed with"), "{error}");
    assert_eq!(
        Keys::new(b"short").expect_err("too short"),
        RootSecretError::TooShort { bytes: 5, min: 8 }
    );
}

#[tokio::test]
async fn b61_root_secret_rotation_loses_no_item() {
    let inner = MemoryStore::new("pool 1");
    let old = sealed(inner.clone(), SECRET);
    for kind in ItemKind::ALL {
        old.write(&path(kind, "a"), kind.prefix().into()).await.expect("written");
    }
    old.write(&ItemPath::format(), b"1".to_vec()).await.expect("written");
    inner.overwrite_raw(&path(ItemKind::User, "damaged"), "IAMS");

    let keys = || Keys::new(b"the new secret").expect("valid length");
    let both = keys().with_older(SECRET).expect("valid length");
    let mut rotating = Sealed::new(inner.clone(), both, &Env::system());
    assert_eq!(
        rotating.read(&path(ItemKind::User, "a")).await,
        Ok(b"users".to_vec()),
        "opens with the old"
    );
    let done = rotating.reseal().await.expect("store is online");
    assert_eq!((done.resealed, done.current, done.failed.len()), (8, 0, 1));
    let again = rotating.reseal().await.expect("store is online");
    assert_eq!(again, ResealReport { resealed: 0, current: 8, failed: done.failed });

    let new = Sealed::new(inner, keys(), &Env::system());
    assert_eq!(new.read(&path(ItemKind::Temporary, "a")).await, Ok(b"temporary".to_vec()));
    assert_eq!(new.read(&ItemPath::format()).await, Ok(b"1".to_vec()));
    let error = old.read(&path(ItemKind::User, "a")).await.expect_err("old secret is rejected");
    assert!(matches!(error, StoreError::WrongKey { .. }), "{error}");
}

#[tokio::test]
async fn debug_output_shows_no_secret_and_no_item() {
    let inner = MemoryStore::new("pool 1");
    inner.overwrite_raw(&alice(), "a plain item");
    let keys = Keys::new(SECRET)
        .and_then(|keys| keys.with_older(b"the elder secret"))
        .expect("valid length");
    let store = Sealed::new(inner.clone(), keys, &Env::system());
    let shown = format!("{store:?} {inner:?}");
    let secrets: [&[u8]; 3] = [SECRET, b"the elder secret", b"a plain item"];
    for secret in secrets {
        let text = str::from_utf8(secret).expect("text");
        let list = format!("{secret:?}");
        assert!(!shown.contains(text) && !shown.contains(list.trim_matches(['[', ']'])), "{shown}");
    }
    assert!(shown.contains("current"), "key ids are shown: {shown}");
}
