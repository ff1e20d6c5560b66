//! A pool that records the items that it persists and removes.

use iam_bootstrap::record::Record;
use iam_bootstrap::store::{self, ItemKind, Listing, StoreFuture};
use iam_bootstrap::store::{IamStore, ItemPath, MemoryStore, Sealed};

use super::items;
use crate::event::{EventKind, IamEvent, ItemRecord, RecordVersion};
use crate::recorder::NodeRecorder;

/// One pool of one incarnation of a node.
pub(crate) struct RecordingPool {
    index: u8,
    store: Sealed<MemoryStore>,
    recorder: NodeRecorder,
}

impl RecordingPool {
    pub(crate) fn new(index: u8, store: Sealed<MemoryStore>, recorder: &NodeRecorder) -> Self {
        Self { index, store, recorder: recorder.clone() }
    }
}

impl IamStore for RecordingPool {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn read<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, Vec<u8>> {
        self.store.read(path)
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let record = Record::decode(path, &bytes).ok();
            self.store.write(path, bytes).await?;
            if let (Some(item), Some(record)) = (items::number(path), record) {
                let version = version(record.version);
                let record = ItemRecord { item, version, value: items::value(&record) };
                self.recorder
                    .record(EventKind::Iam(IamEvent::Persisted { pool: self.index, record }));
            }
            Ok(())
        })
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.store.delete(path).await?;
            if let Some(item) = items::number(path) {
                self.recorder.record(EventKind::Iam(IamEvent::Removed { item }));
            }
            Ok(())
        })
    }

    fn list(&self, kind: ItemKind) -> StoreFuture<'_, Listing> {
        self.store.list(kind)
    }

    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> StoreFuture<'a, Vec<store::ReadItem>> {
        self.store.read_many(paths)
    }
}

/// Returns a version as events hold it.
pub(crate) fn version(version: iam_bootstrap::record::Version) -> RecordVersion {
    RecordVersion { micros: version.micros, server: version.node }
}
