//! Every default and maximum of the crate, with units and relations.

use std::time::Duration;

/// Longest name of a user, group or policy, and longest access key, in bytes of UTF-8. A name
/// becomes a file name with each byte percent-encoded at worst, which must leave room for a suffix.
pub const NAME_BYTES_MAX: usize = 80;
/// Longest file name on the file systems that servers use, in bytes.
const FILE_NAME_BYTES_MAX: usize = 255;
const _: () = assert!(NAME_BYTES_MAX * "%00".len() + ".tmp".len() <= FILE_NAME_BYTES_MAX);

/// Shortest secret key and shortest session token, in bytes.
pub const SECRET_BYTES_MIN: usize = 8;

/// Longest secret key and longest session token, in bytes.
pub const SECRET_BYTES_MAX: usize = 4_096;

/// Longest description of a service account, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// Maximum number of members of one group.
pub const GROUP_MEMBERS_MAX: usize = 200_000;

/// Maximum number of policies attached to one user or one group: each is evaluated in each
/// decision.
pub const ATTACHED_POLICIES_MAX: usize = 100;

/// Largest policy document, in bytes of JSON, both as written and in canonical form.
pub const DOCUMENT_BYTES_MAX: usize = 20_480;

/// Maximum number of statements of one policy document.
pub const STATEMENTS_MAX: usize = 200;

/// Maximum number of entries in one list of a statement: actions, resources, or values of one
/// condition.
pub const ENTRIES_MAX: usize = 500;

/// Maximum number of conditions of one statement. All of them must hold.
pub const CONDITIONS_MAX: usize = 100;

/// Longest action, in bytes, such as `s3:GetObject`. No pattern matches a longer one.
pub const ACTION_BYTES_MAX: usize = 128;

/// Longest resource pattern and longest condition value, in bytes. An object key may have 1,024;
/// variables and escapes take more room than their values.
pub const PATTERN_BYTES_MAX: usize = 2_048;

/// Maximum number of variables in one pattern. Their values are kept on the stack during matching.
pub const PATTERN_VARIABLES_MAX: usize = 8;

/// Maximum number of characters of an invalid input that an error repeats.
pub const QUOTED_CHARS_MAX: usize = 80;

/// Maximum number of findings listed for one snapshot. Further ones are only counted.
pub const FINDINGS_MAX: usize = 1_000;

/// Longest encoded path of an item, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;

/// Longest encoded name in a path, in bytes: the longest file name that file systems allow. The
/// encoding keeps plain letters and digits as one byte; any other byte becomes three.
pub const NAME_ENCODED_BYTES_MAX: usize = 255;

/// Largest item that a store takes or returns, in bytes. A policy has at most 20 KiB. A larger file
/// is not an item, and is refused before memory is allocated for it.
pub const ITEM_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that sealing adds to an item: magic, version, key id, nonce, and authentication tag.
pub const SEAL_BYTES: usize = 4 + 1 + KEY_ID_BYTES + 24 + 16;

/// Bytes of a key id.
pub const KEY_ID_BYTES: usize = 8;

/// Shortest root secret, in bytes: the same minimum as grid's shared secret, which may serve as the
/// root secret.
pub const ROOT_SECRET_BYTES_MIN: usize = 8;

/// Maximum number of older keys that a sealed store may open items with.
pub const OLDER_KEYS_MAX: usize = 8;

/// Maximum number of items of one kind that a store lists.
pub const LISTED_MAX: usize = 1_000_000;

/// Maximum number of unrecognised names that a listing contains. Further ones are only counted.
pub const UNRECOGNISED_MAX: usize = 100;

/// Items per call of a bulk read: bounds the items held twice for a moment, and sets how often
/// progress is reported.
pub const ITEMS_PER_READ: usize = 8_192;

/// Threads that one bulk read of a directory uses. More gain nothing on the page cache, and do not
/// help a disk that seeks.
pub const DIRECTORY_READERS: usize = 4;

/// Items that a sealed store opens before it yields to other tasks: about a millisecond.
pub const OPENED_PER_YIELD: usize = 256;

const _: () = assert!(NAME_ENCODED_BYTES_MAX < PATH_BYTES_MAX / 2);
const _: () = assert!(SEAL_BYTES < ITEM_BYTES_MAX);

/// Maximum number of endpoints, arguments or variables of one server's configuration that are
/// compared.
pub const CONFIG_ITEMS_MAX: usize = 10_000;

/// Longest configuration text, in bytes; longer ones are compared by their beginning and their
/// hash.
pub const CONFIG_TEXT_BYTES_MAX: usize = 1_024;

/// Maximum number of items of a difference that are shown; further ones are counted.
pub const DIFFERENCES_SHOWN_MAX: usize = 20;

/// Maximum number of servers named in one log line; further ones are counted.
pub const NAMED_MAX: usize = 10;

/// Spread of the first verification requests, per peer: servers that are started together do not
/// all send at one instant.
pub const SPREAD_PER_PEER: Duration = Duration::from_millis(20);

/// Longest spread of the first verification requests.
pub const SPREAD_MAX: Duration = Duration::from_secs(1);

/// Maximum number of verification requests in flight.
pub const VERIFY_CONCURRENCY_MAX: usize = 4;

/// Timeout of a request for a peer's configuration.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// First wait before a peer that did not respond is queried again; the wait doubles each time.
pub const VERIFY_RETRY_FIRST: Duration = Duration::from_millis(250);

/// Longest such wait.
pub const VERIFY_RETRY_MAX: Duration = Duration::from_secs(1);

/// Wait before a peer that differs is queried again: an operator has to restart it first.
pub const VERIFY_DIFFERING_RETRY: Duration = Duration::from_secs(3);

/// Failed attempts after which unreachable peers are logged, and again after as many more ([B60]).
///
/// [B60]: crate::rules#b60
pub const ATTEMPTS_PER_REPORT: u32 = 20;

/// Time for which differences are gathered before they are reported: peers with the same difference
/// are named in one line.
pub const REPORT_DELAY: Duration = Duration::from_millis(500);

/// Time for which a verified server continues to query peers that have not responded, so that a
/// difference is reported on both sides.
pub const VERIFY_LINGER: Duration = Duration::from_secs(30);

const _: () = assert!(REPORT_DELAY.as_millis() < VERIFY_LINGER.as_millis());

/// Longest header of a record, in bytes.
pub const RECORD_HEADER_BYTES_MAX: usize = 64;

/// Maximum number of items that a server keeps, tombstones included.
pub const ITEMS_MAX: usize = 1_000_000;

/// Maximum by which the time of a change may be ahead of a server's own clock. Beyond it, the clock
/// that made the change is wrong; accepting it would pull all later versions of the item into the
/// future.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(3_600);

/// Time for which the tombstone of a deletion is kept. A server that was away for longer may bring
/// back items that were deleted meanwhile: empty its pools before it joins again.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(180 * 86_400);

/// Time for which an expired temporary credential is kept, so that servers whose clocks differ by
/// less agree.
pub const EXPIRED_RETENTION: Duration = Duration::from_secs(86_400);

/// First wait before a pool is retried ([B61]).
///
/// [B61]: crate::rules#b61
pub const RETRY_FIRST: Duration = Duration::from_millis(250);

/// Longest wait before a pool is retried, and wait before a failed reconciliation is repeated.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// Interval between two log lines about a resource that is still unavailable ([B61]).
///
/// [B61]: crate::rules#b61
pub const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Timeout of one store operation.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval between two attempts to take the lock of a directory store.
pub const STORE_LOCK_RETRY: Duration = Duration::from_millis(10);

/// Attempts to take the lock of a directory store before it counts as open elsewhere: a second in
/// all. A child process inherits the descriptor of the lock for a moment, between fork and exec,
/// and so holds the lock of a store that its parent has just closed.
pub const STORE_LOCK_ATTEMPTS: u32 = 100;
const _: () = assert!(
    STORE_LOCK_RETRY.as_millis() * (STORE_LOCK_ATTEMPTS as u128) < STORE_TIMEOUT.as_millis()
);

/// Items parsed before the load yields to other tasks: about a millisecond.
pub const PARSED_PER_YIELD: usize = 256;

/// Maximum number of damaged items that one load logs and lists. Further ones are only counted.
pub const SKIPPED_REPORTED_MAX: usize = 100;

/// Maximum number of queued changes; further ones are refused at once.
pub const CHANGES_QUEUED_MAX: usize = 1_024;

/// Maximum number of broadcasts of changes in flight.
pub const BROADCASTS_MAX: usize = 256;

/// Timeout of the broadcast of a change to a peer ([B62]).
///
/// [B62]: crate::rules#b62
pub const BROADCAST_TIMEOUT: Duration = Duration::from_secs(5);

/// Default time between two reconciliations with each peer, when no other event triggers one.
/// Random between half and all of it, so that servers do not all reconcile at once ([B62]).
///
/// [B62]: crate::rules#b62
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(120);

/// Shortest time between two reconciliations with one peer, however often it reconnects.
pub const RECONCILE_SPACING: Duration = Duration::from_secs(1);

/// Timeout of one request of a reconciliation.
pub const RECONCILE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a server reconciles with its peers before it is ready.
pub const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Versions per response of a reconciliation.
pub const VERSIONS_PER_RESPONSE: usize = 5_000;

/// Maximum number of records per request.
pub const RECORDS_PER_RESPONSE: usize = 512;
/// Approximate size of the records in one response, in bytes.
pub const RECORDS_BYTES_MAX: usize = 1024 * 1024;

/// Concurrent writes when many records arrive: their waits for the disk overlap.
pub const CONCURRENT_WRITES_MAX: usize = 64;

const _: () = assert!(ITEM_BYTES_MAX + RECORDS_BYTES_MAX < 16 * 1024 * 1024);

/// Timeout of one attempt to agree on a deployment id: reaching a majority of the servers and
/// receiving their responses, each of which waits for a disk.
pub const AGREE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// First wait after a failed attempt. It doubles with each further one, and is jittered: servers
/// that start together must not keep outbidding each other.
pub const AGREE_RETRY_FIRST: Duration = Duration::from_millis(100);

/// Longest wait between two attempts.
pub const AGREE_RETRY_MAX: Duration = Duration::from_secs(5);

/// Attempts to agree between two log lines.
pub const AGREE_ATTEMPTS_PER_LOG: u32 = 4;

/// Spread of the first attempts of servers that start together, per server: usually one of them has
/// decided before the next begins.
pub const AGREE_SPREAD_PER_SERVER: Duration = Duration::from_millis(10);

/// Maximum by which the round of a ballot may exceed the promised one. Rounds grow by one with each
/// attempt; a faulty server must not exhaust them.
pub const BALLOT_LEAD_MAX: u64 = 1 << 32;

/// Maximum number of queued requests to this server's acceptor, each of which waits for the disk;
/// further ones are refused.
pub const DEPLOYMENT_QUEUE_MAX: usize = 1_024;

/// Wait between two attempts to load the deployment state from an unavailable store.
pub const DEPLOYMENT_LOAD_RETRY: Duration = Duration::from_secs(1);

/// Load attempts between two log lines.
pub const DEPLOYMENT_LOAD_ATTEMPTS_PER_LOG: u32 = 5;

/// Largest stored deployment state, in bytes; a longer one was not written by this crate. Holds
/// three ballots with the longest server names, and three ids.
pub const DEPLOYMENT_STATE_BYTES_MAX: usize = 4_096;

const _: () = assert!(DEPLOYMENT_STATE_BYTES_MAX > 3 * (2 * grid::limits::NAME_BYTES_MAX + 100));
