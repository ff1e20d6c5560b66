//! How long it takes to read 100,000 users from a directory, as they are and sealed.
//!
//! The files are in the page cache: what is measured is the work, not the disk.
#![expect(clippy::expect_used, reason = "what a benchmark makes for itself is well-formed")]

use std::fs;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use iam_bootstrap::store::DirectoryStore;
use iam_bootstrap::store::sealed::Keys;
use iam_bootstrap::{IamStore, ItemPath, Kind, MemoryStore, Sealed};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

const USERS: usize = 100_000;
/// A user with a status, a hashed secret and some groups.
const USER_BYTES: usize = 300;

fn sealed<S: IamStore>(store: S) -> Sealed<S> {
    let keys = Keys::new(b"what all servers know").expect("long enough");
    Sealed::new(store, keys, StdRng::seed_from_u64(1))
}

/// Makes the files in the store's layout, all at once: writing them one by one would wait for the disk
/// as often.
fn fill(runtime: &Runtime, root: &Path) {
    let store = DirectoryStore::new(root);
    runtime.block_on(store.initialise()).expect("an empty directory");
    let within = MemoryStore::new("made");
    let made = sealed(within.clone());
    for user in 0..USERS {
        let path = ItemPath::new(Kind::User, format!("user-{user:06}")).expect("a name");
        runtime.block_on(made.write(&path, vec![b'x'; USER_BYTES])).expect("kept");
    }
    for (path, bytes) in within.contents() {
        fs::write(root.join(path.as_str()), bytes).expect("written");
    }
}

fn load(runtime: &Runtime, store: &dyn IamStore) {
    let items = runtime.block_on(store.read_all(Kind::User)).expect("read");
    assert!(items.len() == USERS && items.iter().all(|item| item.bytes.is_ok()));
}

fn benchmarks(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    fill(&runtime, directory.path());
    let plain = DirectoryStore::new(directory.path());
    let mut group = criterion.benchmark_group("iam_store");
    group.sample_size(10);
    group.bench_function("100,000 users", |bencher| bencher.iter(|| load(&runtime, &plain)));
    let sealed = sealed(plain.clone());
    let name = "100,000 users, sealed";
    group.bench_function(name, |bencher| bencher.iter(|| load(&runtime, &sealed)));
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
