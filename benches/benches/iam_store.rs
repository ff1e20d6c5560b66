//! Time to load 100,000 users from a directory: to read their files, to unseal them, and until a
//! server is ready to evaluate requests.
//!
//! The files are in the page cache: the CPU cost is measured, not the disk.
#![expect(clippy::expect_used, reason = "a benchmark's own inputs are valid")]

use std::fs;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use grid::env::Env;
use grid::{Auth, Manager};
use iam_bootstrap::model::{Secret, User, UserName};
use iam_bootstrap::record::{Content, Record, Version};
use iam_bootstrap::store::DirectoryStore;
use iam_bootstrap::store::sealed::Keys;
use iam_bootstrap::{Iam, IamStore, ItemKind, ItemPath, MemoryStore, Sealed};
use tokio::runtime::Runtime;

const USERS: usize = 100_000;

fn keys() -> Keys {
    Keys::new(b"the cluster's secret").expect("long enough")
}

fn sealed<S: IamStore>(store: S) -> Sealed<S> {
    Sealed::new(store, keys(), &Env::system())
}

/// Encodes a user as a server stores it.
fn record(name: &str) -> Vec<u8> {
    let secret = Secret::new(&format!("the secret of {name}")).expect("long enough");
    let user = User::new(UserName::new(name).expect("a name"), secret);
    let body = serde_json::to_vec(&user).expect("a map");
    let version = Version { micros: 1_763_000_000_000_000, node: 1 };
    Record { version, content: Content::Item(body.into()) }.encode()
}

/// Writes the files directly in the layout of the store, because the store would call fsync for
/// each.
fn fill(runtime: &Runtime, root: &Path) {
    let store = DirectoryStore::new(root);
    runtime.block_on(store.initialise()).expect("an empty directory");
    let memory = MemoryStore::new("memory");
    let sealing = sealed(memory.clone());
    for user in 0..USERS {
        let name = format!("user-{user:06}");
        let path = ItemPath::new(ItemKind::User, &name).expect("a name");
        runtime.block_on(sealing.write(&path, record(&name))).expect("stored");
    }
    for (path, bytes) in memory.contents() {
        fs::write(root.join(path.as_str()), bytes).expect("written");
    }
}

fn read(runtime: &Runtime, store: &dyn IamStore) {
    let items = runtime.block_on(store.read_all(ItemKind::User)).expect("read");
    assert!(items.len() == USERS && items.iter().all(|item| item.bytes.is_ok()));
}

/// Starts a server's IAM and waits until it is ready.
fn load(runtime: &Runtime, store: Sealed<DirectoryStore>) {
    const URL: &str = "http://127.0.0.1:1";
    let manager = Manager::builder(URL)
        .servers([URL])
        .auth(Auth::shared_secret(b"the cluster's secret").expect("long enough"))
        .build()
        .expect("a valid configuration");
    let iam = Iam::builder(&manager, UserName::new("root").expect("a name"), keys())
        .pool(store)
        .build()
        .expect("a pool");
    runtime.block_on(async {
        iam.start();
        iam.ready().await.expect("loaded");
    });
    assert_eq!(iam.snapshot().expect("ready").len(), USERS);
}

fn benchmarks(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    fill(&runtime, directory.path());
    let plain = DirectoryStore::new(directory.path());
    let mut group = criterion.benchmark_group("iam_store");
    group.sample_size(10);
    group.bench_function("100,000 users", |bencher| bencher.iter(|| read(&runtime, &plain)));
    let unsealing = sealed(plain.clone());
    let name = "100,000 users, sealed";
    group.bench_function(name, |bencher| bencher.iter(|| read(&runtime, &unsealing)));
    let name = "100,000 users, until ready";
    group.bench_function(name, |bencher| {
        bencher.iter(|| load(&runtime, sealed(plain.clone())));
    });
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
