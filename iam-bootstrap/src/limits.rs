//! Every default and maximum of the crate, with units, and how they relate.

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
