//! The table of a MinIO locker, without I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::minio_wire::{MinioArgs, MinioOperation, MinioResponse};

/// Resources of one request.
const RESOURCES_MAX: usize = 1_000;

/// The grants of one locker.
#[derive(Debug, Default)]
pub struct MinioTable {
    grants: BTreeMap<String, Vec<Entry>>,
    /// The resources of each UID. A second read lock of one UID replaces the first here, and is then
    /// a second entry of its resource.
    by_uid: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone)]
struct Entry {
    uid: String,
    owner: String,
    is_writer: bool,
    refreshed_at: Instant,
}

impl MinioTable {
    /// Executes a request.
    ///
    /// # Errors
    ///
    /// The text of a panic, which MinIO reports as an error of the call.
    pub fn execute(
        &mut self,
        operation: MinioOperation,
        args: &MinioArgs,
        now: Instant,
    ) -> Result<MinioResponse, String> {
        let response = match operation {
            MinioOperation::Lock => self.lock(args, now)?,
            MinioOperation::ReadLock => self.read_lock(args, now)?,
            MinioOperation::Unlock => self.unlock(args),
            MinioOperation::ReadUnlock => self.read_unlock(args)?,
            MinioOperation::Refresh => self.refresh(args, now),
            MinioOperation::ForceUnlock => self.force_unlock(args),
        };
        self.check_invariants();
        Ok(response)
    }

    /// Removes the grants that were not refreshed for `expiry`. Returns how many there were.
    pub fn sweep(&mut self, now: Instant, expiry: Duration) -> usize {
        let is_expired = |entry: &Entry| now.saturating_duration_since(entry.refreshed_at) > expiry;
        let mut expired = Vec::new();
        for (resource, entries) in &self.grants {
            for entry in entries.iter().filter(|entry| is_expired(entry)) {
                expired.push((resource.clone(), entry.clone()));
            }
        }
        for (resource, entry) in &expired {
            self.remove(resource, &entry.uid, &entry.owner);
        }
        self.check_invariants();
        expired.len()
    }

    /// Returns the number of entries: resources of writers, and readers of resources.
    pub fn len(&self) -> usize {
        self.grants.values().map(Vec::len).sum()
    }

    /// Returns whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    fn lock(&mut self, args: &MinioArgs, now: Instant) -> Result<MinioResponse, String> {
        if args.resources.len() > RESOURCES_MAX {
            return Ok(MinioResponse::failed(
                "internal error: localLocker.Lock called with more than 1000 resources",
            ));
        }
        if args.resources.iter().any(|resource| self.grants.contains_key(resource)) {
            return Ok(MinioResponse::of(MinioResponse::CONFLICT));
        }
        require_quorum(args)?;
        for resource in &args.resources {
            self.grants.insert(resource.clone(), vec![Entry::new(args, true, now)]);
        }
        self.by_uid.insert(args.uid.clone(), args.resources.clone());
        Ok(MinioResponse::of(MinioResponse::SUCCESS))
    }

    fn read_lock(&mut self, args: &MinioArgs, now: Instant) -> Result<MinioResponse, String> {
        let [resource] = args.resources.as_slice() else {
            return Ok(MinioResponse::failed(
                "internal error: localLocker.RLock called with more than one resource",
            ));
        };
        require_quorum(args)?;
        let entries = self.grants.entry(resource.clone()).or_default();
        if entries.iter().any(|entry| entry.is_writer) {
            return Ok(MinioResponse::of(MinioResponse::CONFLICT));
        }
        entries.push(Entry::new(args, false, now));
        self.by_uid.insert(args.uid.clone(), vec![resource.clone()]);
        Ok(MinioResponse::of(MinioResponse::SUCCESS))
    }

    fn unlock(&mut self, args: &MinioArgs) -> MinioResponse {
        let mut response = MinioResponse::of(MinioResponse::SUCCESS);
        for resource in &args.resources {
            match self.grants.get(resource) {
                Some(entries) if !entries.iter().all(|entry| entry.is_writer) => {
                    response = MinioResponse::failed("unlock attempted on a read locked entity");
                }
                Some(_) => self.remove(resource, &args.uid, &args.owner),
                None => {}
            }
        }
        response
    }

    fn read_unlock(&mut self, args: &MinioArgs) -> Result<MinioResponse, String> {
        let resource = args.resources.first().ok_or("index out of range [0] with length 0")?;
        if self.grants.get(resource).is_some_and(|entries| entries.iter().any(|e| e.is_writer)) {
            return Ok(MinioResponse::failed("RUnlock attempted on a write locked entity"));
        }
        self.remove(resource, &args.uid, &args.owner);
        Ok(MinioResponse::of(MinioResponse::SUCCESS))
    }

    fn refresh(&mut self, args: &MinioArgs, now: Instant) -> MinioResponse {
        let Some(resources) = self.by_uid.get(&args.uid) else {
            return MinioResponse::of(MinioResponse::NOT_FOUND);
        };
        for resource in resources {
            let entries = self.grants.get_mut(resource).into_iter().flatten();
            for entry in entries.filter(|entry| entry.uid == args.uid) {
                entry.refreshed_at = now;
            }
        }
        MinioResponse::of(MinioResponse::SUCCESS)
    }

    fn force_unlock(&mut self, args: &MinioArgs) -> MinioResponse {
        if args.uid.is_empty() {
            for resource in &args.resources {
                for entry in self.grants.get(resource).cloned().unwrap_or_default() {
                    self.remove(resource, &entry.uid, "");
                }
            }
        } else {
            for resource in self.by_uid.get(&args.uid).cloned().unwrap_or_default() {
                self.remove(&resource, &args.uid, "");
            }
        }
        MinioResponse::of(MinioResponse::SUCCESS)
    }

    /// Removes the first entry of this UID, and of this owner unless that is empty. Removing what is
    /// absent is no error.
    fn remove(&mut self, resource: &str, uid: &str, owner: &str) {
        let Some(entries) = self.grants.get_mut(resource) else { return };
        let matches =
            |entry: &Entry| entry.uid == uid && (owner.is_empty() || entry.owner == owner);
        let Some(index) = entries.iter().position(matches) else { return };
        entries.remove(index);
        if entries.is_empty() {
            self.grants.remove(resource);
        }
        if let Some(resources) = self.by_uid.get_mut(uid) {
            resources.retain(|known| known != resource);
            if resources.is_empty() {
                self.by_uid.remove(uid);
            }
        }
    }

    fn check_invariants(&self) {
        for (resource, entries) in &self.grants {
            debug_assert!(!entries.is_empty(), "{resource} has an empty list");
            let writers = entries.iter().filter(|entry| entry.is_writer).count();
            debug_assert!(writers == 0 || entries.len() == 1, "{resource}: a writer is not alone");
        }
        for (uid, resources) in &self.by_uid {
            debug_assert!(!resources.is_empty(), "{uid} has no resources");
            debug_assert!(resources.iter().all(|resource| self.grants.contains_key(resource)));
        }
    }
}

impl Entry {
    fn new(args: &MinioArgs, is_writer: bool, now: Instant) -> Self {
        let MinioArgs { uid, owner, .. } = args.clone();
        Self { uid, owner, is_writer, refreshed_at: now }
    }
}

fn require_quorum(args: &MinioArgs) -> Result<(), String> {
    let text = "runtime error: invalid memory address or nil pointer dereference";
    args.quorum.map(|_| ()).ok_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::now;
    use super::*;
    use MinioOperation::{ForceUnlock, Lock, ReadLock, ReadUnlock, Refresh, Unlock};

    const MINUTE: Duration = Duration::from_secs(60);

    fn args(uid: &str, resources: &[&str]) -> MinioArgs {
        MinioArgs {
            uid: uid.to_owned(),
            resources: resources.iter().map(|&resource| resource.to_owned()).collect(),
            owner: "host:9000".to_owned(),
            source: String::new(),
            quorum: Some(2),
        }
    }

    fn code(table: &mut MinioTable, operation: MinioOperation, args: &MinioArgs) -> u8 {
        table.execute(operation, args, now()).expect("no panic").code
    }

    #[test]
    fn writer_takes_all_or_nothing_and_a_released_uid_is_granted_again() {
        let mut table = MinioTable::default();
        assert_eq!(code(&mut table, Lock, &args("1", &["a", "b"])), 0);
        assert_eq!(code(&mut table, Lock, &args("1", &["a", "b"])), 1, "not re-entrant");
        assert_eq!(code(&mut table, Lock, &args("2", &["c", "b"])), 1);
        assert_eq!(code(&mut table, ReadLock, &args("3", &["a"])), 1);
        assert_eq!(table.len(), 2);
        assert_eq!(code(&mut table, Unlock, &args("2", &["a", "b"])), 0, "no such grant");
        assert_eq!(table.len(), 2);
        assert_eq!(code(&mut table, Unlock, &args("1", &["a", "b"])), 0);
        assert!(table.is_empty());
        assert_eq!(code(&mut table, Lock, &args("1", &["a"])), 0, "no tombstone");
    }

    #[test]
    fn readers_share_one_resource_and_the_kinds_of_release_differ() {
        let mut table = MinioTable::default();
        for uid in ["1", "2"] {
            assert_eq!(code(&mut table, ReadLock, &args(uid, &["a"])), 0);
        }
        assert_eq!(code(&mut table, ReadLock, &args("3", &["a", "b"])), 4, "one resource only");
        assert_eq!(code(&mut table, Lock, &args("3", &["a"])), 1);
        assert_eq!(code(&mut table, Unlock, &args("1", &["a"])), 4, "it is read-locked");
        assert_eq!(code(&mut table, ReadUnlock, &args("1", &["a"])), 0);
        let other = MinioArgs { owner: "other:9000".to_owned(), ..args("2", &["a"]) };
        assert_eq!(code(&mut table, ReadUnlock, &other), 0, "the owner differs");
        assert_eq!(table.len(), 1);
        let unowned = MinioArgs { owner: String::new(), ..args("2", &["a"]) };
        assert_eq!(code(&mut table, ReadUnlock, &unowned), 0);
        assert!(table.is_empty());
        assert_eq!(code(&mut table, Lock, &args("3", &["a"])), 0);
        assert_eq!(code(&mut table, ReadUnlock, &args("3", &["a"])), 4, "it is write-locked");
    }

    #[test]
    fn grant_that_is_not_refreshed_is_swept() {
        let mut table = MinioTable::default();
        let now = now();
        for uid in ["1", "2"] {
            table.execute(ReadLock, &args(uid, &["a"]), now).expect("no panic");
        }
        let by_uid = MinioArgs { uid: "1".to_owned(), ..MinioArgs::default() };
        let refreshed = table.execute(Refresh, &by_uid, now + MINUTE).expect("no panic");
        assert_eq!(refreshed.code, 0);
        assert_eq!(table.sweep(now + MINUTE, MINUTE), 0, "not older than a minute");
        assert_eq!(table.sweep(now + MINUTE + MINUTE / 60, MINUTE), 1);
        assert_eq!(code(&mut table, Refresh, &args("2", &["a"])), 3);
        assert_eq!(code(&mut table, Refresh, &args("1", &[])), 0);
    }

    #[test]
    fn force_unlock_is_by_uid_or_by_resource() {
        let mut table = MinioTable::default();
        assert_eq!(code(&mut table, Lock, &args("1", &["a", "b"])), 0);
        assert_eq!(code(&mut table, Lock, &args("2", &["c"])), 0);
        assert_eq!(code(&mut table, ForceUnlock, &args("1", &[])), 0);
        assert_eq!(table.len(), 1);
        assert_eq!(code(&mut table, ForceUnlock, &args("", &["c", "absent"])), 0);
        assert!(table.is_empty());
    }

    #[test]
    fn missing_quorum_or_resource_is_a_panic() {
        let mut table = MinioTable::default();
        let without = MinioArgs { quorum: None, ..args("1", &["a"]) };
        for operation in [Lock, ReadLock] {
            table.execute(operation, &without, now()).expect_err("nil pointer");
        }
        table.execute(ReadUnlock, &args("1", &[]), now()).expect_err("out of range");
        assert!(table.is_empty());
    }
}
