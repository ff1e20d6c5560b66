//! Every default and maximum of the crate, with units, and how they relate.

use std::time::Duration;

/// Longest name of a user, a group, a policy, or an access key, in bytes of UTF-8. A name becomes a
/// file's name with each byte percent-encoded at worst, and that must leave room for an ending.
pub const NAME_BYTES_MAX: usize = 80;
/// Longest name of a file on the file systems that servers use, in bytes.
const FILE_NAME_BYTES_MAX: usize = 255;
const _: () = assert!(NAME_BYTES_MAX * "%00".len() + ".tmp".len() <= FILE_NAME_BYTES_MAX);

/// Shortest secret key and shortest session token, in bytes.
pub const SECRET_BYTES_MIN: usize = 8;

/// Longest secret key and longest session token, in bytes.
pub const SECRET_BYTES_MAX: usize = 4_096;

/// Longest description of a service account, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// Members of one group.
pub const GROUP_MEMBERS_MAX: usize = 200_000;

/// Policies that are attached to one user or one group: each is looked at in each decision.
pub const ATTACHED_POLICIES_MAX: usize = 100;

/// Largest policy document, in bytes of JSON, both as it was written and in canonical form.
pub const DOCUMENT_BYTES_MAX: usize = 20_480;

/// Statements of one policy document.
pub const STATEMENTS_MAX: usize = 200;

/// Entries of one list of a statement: actions, resources, or values of one condition.
pub const ENTRIES_MAX: usize = 500;

/// Conditions of one statement. All of them must hold.
pub const CONDITIONS_MAX: usize = 100;

/// Longest action, in bytes, such as `s3:GetObject`. No pattern matches what is longer.
pub const ACTION_BYTES_MAX: usize = 128;

/// Longest pattern of a resource, and longest value of a condition, in bytes. An object's key may
/// have 1,024; variables and escapes take more room than what they stand for.
pub const PATTERN_BYTES_MAX: usize = 2_048;

/// Variables in one pattern. What they stand for is kept on the stack while it is matched.
pub const PATTERN_VARIABLES_MAX: usize = 8;

/// Characters of a wrong input that an error repeats.
pub const QUOTED_CHARS_MAX: usize = 80;

/// Findings that are listed of one snapshot. Those beyond are only counted.
pub const FINDINGS_MAX: usize = 1_000;

/// Longest path of an item, in bytes, as it is encoded.
pub const PATH_BYTES_MAX: usize = 1_024;

/// Longest encoded name in a path, in bytes: the longest file name that file systems allow. Names of
/// plain letters and digits are not lengthened by the encoding, any other byte becomes three.
pub const NAME_ENCODED_BYTES_MAX: usize = 255;

/// Largest item that a store takes or returns, in bytes. A policy has 20 KiB at most; what is larger
/// than this is no item, and is refused before memory is set aside for it.
pub const ITEM_BYTES_MAX: usize = 1024 * 1024;

/// What sealing adds to an item, in bytes: magic, version, key id, nonce, and the seal.
pub const SEAL_BYTES: usize = 4 + 1 + KEY_ID_BYTES + 24 + 16;

/// Bytes of the id that tells keys apart.
pub const KEY_ID_BYTES: usize = 8;

/// Shortest root secret, in bytes: the same as grid's shared secret, which it may be.
pub const ROOT_SECRET_BYTES_MIN: usize = 8;

/// Older keys that a sealed store may open items with.
pub const OLDER_KEYS_MAX: usize = 8;

/// Items of one kind that a store lists.
pub const LISTED_MAX: usize = 1_000_000;

/// Names that a listing tells of which are no items'. More are only counted.
pub const STRANGERS_MAX: usize = 100;

/// Items that are read with one call when all of a kind are: what is held twice for a moment, and how
/// often progress can be told.
pub const ITEMS_PER_READ: usize = 8_192;

/// Threads that one bulk read of a directory works on. More gain nothing on the page cache, and a disk
/// that seeks is not helped by them.
pub const DIRECTORY_READERS: usize = 4;

/// Items that a sealed store opens before it lets other tasks run: about a millisecond.
pub const OPENED_PER_TURN: usize = 256;

const _: () = assert!(NAME_ENCODED_BYTES_MAX < PATH_BYTES_MAX / 2);
const _: () = assert!(SEAL_BYTES < ITEM_BYTES_MAX);

/// Endpoints, arguments or variables of one server's configuration that are compared.
pub const CONFIG_ITEMS_MAX: usize = 10_000;

/// Longest of their texts, in bytes; longer ones are compared by their beginning and their hash.
pub const CONFIG_TEXT_BYTES_MAX: usize = 1_024;

/// Items of a difference that are shown; more are counted.
pub const DIFFERENCES_SHOWN_MAX: usize = 20;

/// Servers that one log line names; more are counted.
pub const NAMED_MAX: usize = 10;

/// Over how long the first questions to all peers are spread, for each peer: servers that are started
/// together do not all ask at one instant.
pub const SPREAD_PER_PEER: Duration = Duration::from_millis(20);

/// The longest that they are spread.
pub const SPREAD_MAX: Duration = Duration::from_secs(1);

/// Peers that are asked at once.
pub const ASKED_AT_ONCE: usize = 4;

/// Longest wait for a peer's configuration.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// First wait before a peer that did not answer is asked again; each is twice the one before.
pub const ASK_AGAIN_FIRST: Duration = Duration::from_millis(250);

/// The longest such wait.
pub const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Wait before a peer that differs is asked again: somebody has to restart it first.
pub const ASK_DIFFERING_AGAIN: Duration = Duration::from_secs(3);

/// Tries in vain after which it is logged who cannot be reached, and again after as many more (B60).
pub const TRIES_PER_REPORT: u32 = 20;

/// How long differences are gathered before they are reported: peers that differ in the same are named
/// in one line.
pub const REPORT_DELAY: Duration = Duration::from_millis(500);

/// How long a server that has been verified goes on to ask those that have not answered, so that a
/// difference is reported on both sides.
pub const LINGER: Duration = Duration::from_secs(30);

const _: () = assert!(REPORT_DELAY.as_millis() < LINGER.as_millis());

/// Longest header of a record, in bytes.
pub const RECORD_HEADER_BYTES_MAX: usize = 64;

/// Items that a server keeps, marks of deleted ones included.
pub const ITEMS_MAX: usize = 1_000_000;

/// How far a change's time may be ahead of a server's own clock. Beyond, the clock that made it is
/// wrong; a change that is taken carries all later ones of its item with it.
pub const CLOCK_LEAD_MAX: Duration = Duration::from_secs(3_600);

/// How long the mark of a deletion is kept. A server that was away for longer may bring back what was
/// deleted meanwhile: empty its pools before it joins again.
pub const DELETION_KEPT: Duration = Duration::from_secs(180 * 86_400);

/// How long an expired temporary credential is kept, so that clocks which differ by less agree.
pub const EXPIRED_KEPT: Duration = Duration::from_secs(86_400);

/// First wait before a pool is tried again (B61).
pub const RETRY_FIRST: Duration = Duration::from_millis(250);

/// The longest such wait, and that before a peer is asked again.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often it is logged that something is still waited for (B61).
pub const TELL_EVERY: Duration = Duration::from_secs(5);

/// Longest wait for one answer of a store.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Items that are parsed before other tasks get a turn: about a millisecond.
pub const PARSED_PER_TURN: usize = 256;

/// Damaged items that are logged and listed of one loading. More are only counted.
pub const SKIPPED_TOLD_MAX: usize = 100;

/// Changes that wait to be made; further ones are refused at once.
pub const CHANGES_QUEUED_MAX: usize = 1_024;

/// Changes that peers are being told of at once.
pub const TELLING_MAX: usize = 256;

/// Longest wait for a peer to say that it took a change (B62).
pub const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two comparisons with each peer, unless told, when nothing else asks for one. Half of
/// it to all of it, by chance, so that servers do not all compare at once (B62).
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(120);

/// Shortest time between two comparisons with one peer, however often it reconnects.
pub const COMPARE_SPACING: Duration = Duration::from_secs(1);

/// Longest wait for one answer of a comparison.
pub const COMPARE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a server compares with its peers before it is ready.
pub const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Versions in one answer of a comparison.
pub const VERSIONS_PER_ANSWER: usize = 5_000;

/// Records that are asked for at once, and about how many bytes of them one answer has.
pub const RECORDS_PER_ANSWER: usize = 512;
/// See [`RECORDS_PER_ANSWER`].
pub const RECORDS_BYTES_MAX: usize = 1024 * 1024;

/// Records that are written at once when many arrive: so many waits for a disk overlap.
pub const WRITES_AT_ONCE: usize = 64;

const _: () = assert!(ITEM_BYTES_MAX + RECORDS_BYTES_MAX < 16 * 1024 * 1024);

/// Longest time for one attempt to agree on a deployment id: to reach a majority of the servers and to
/// have their answers, each of which waits for a disk.
pub const AGREE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// First wait after an attempt that failed. It doubles with each further one, and is jittered: servers
/// that start together must not go on outbidding each other.
pub const AGREE_RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait between two attempts.
pub const AGREE_RETRY_MAX: Duration = Duration::from_secs(5);

/// How many attempts to agree are between two lines in the log.
pub const AGREE_ATTEMPTS_PER_LOG: u32 = 4;

/// Over how much time the first attempts of servers that start together are spread, for each server:
/// mostly one of them has decided before the next begins.
pub const AGREE_SPREAD_PER_SERVER: Duration = Duration::from_millis(10);

/// How far a ballot's round may be ahead of what a server has promised. Rounds grow by one with an
/// attempt; a server that has lost its mind must not use them all up.
pub const BALLOT_LEAD_MAX: u64 = 1 << 32;

/// Questions that may wait for this server's answer, each of which waits for the disk; more are refused.
pub const DEPLOYMENT_QUEUE_MAX: usize = 1_024;

/// Time between two tries to load what is kept of the deployment, when the store cannot be used.
pub const DEPLOYMENT_LOAD_RETRY: Duration = Duration::from_secs(1);

/// How many of these tries are between two lines in the log.
pub const DEPLOYMENT_LOAD_TRIES_PER_LOG: u32 = 5;

/// Most bytes that are kept of a deployment; what is longer was not written by this crate. Three ballots
/// with the longest names that servers have, and three ids.
pub const DEPLOYMENT_STATE_BYTES_MAX: usize = 4_096;

const _: () = assert!(DEPLOYMENT_STATE_BYTES_MAX > 3 * (2 * grid::limits::NAME_BYTES_MAX + 100));
