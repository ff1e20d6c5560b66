//! Every default and maximum of the crate, with units, and how they relate.

use std::time::Duration;

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
pub const SECRET_BYTES_MIN: usize = 8;

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
