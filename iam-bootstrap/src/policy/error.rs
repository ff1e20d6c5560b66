//! Errors of policy documents, with their location.

use std::fmt;

use crate::limits::{
    ACTION_BYTES_MAX, CONDITIONS_MAX, DOCUMENT_BYTES_MAX, ENTRIES_MAX, PATTERN_BYTES_MAX,
    PATTERN_VARIABLES_MAX, QUOTED_CHARS_MAX, STATEMENTS_MAX,
};

/// Error of parsing a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The document is too long.
    #[error("a policy may have {DOCUMENT_BYTES_MAX} bytes, not {bytes}")]
    TooLong {
        /// Length in bytes, as given or in canonical form.
        bytes: usize,
    },
    /// The document is not JSON, or has a duplicate field.
    #[error("the policy is not valid JSON: {message}")]
    Json {
        /// Message of the JSON parser, with line and column.
        message: String,
    },
    /// The document is JSON, but not a valid policy.
    #[error("{place}: {problem}")]
    Invalid {
        /// Statement (counted from 1, with its `Sid`) and field.
        place: String,
        /// The problem, and what is allowed.
        problem: Problem,
    },
}

/// Problem of one field, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The value has the wrong JSON type.
    #[error("must be {expected}, not {found}")]
    Kind {
        /// Expected type.
        expected: &'static str,
        /// Type of the value.
        found: &'static str,
    },
    /// A required field is missing.
    #[error("is missing: must be {expected}")]
    Missing {
        /// Expected value.
        expected: &'static str,
    },
    /// The field is unknown.
    #[error("has no field {found}: allowed are {allowed}")]
    UnknownField {
        /// Name of the field.
        found: Quoted,
        /// All known fields.
        allowed: &'static str,
    },
    /// The value is not one of the allowed ones.
    #[error("must be {allowed}, not {found}")]
    Value {
        /// The value.
        found: Quoted,
        /// The allowed values.
        allowed: &'static str,
    },
    /// Two fields exclude each other.
    #[error("must not be given together with {other}")]
    Both {
        /// The other field.
        other: &'static str,
    },
    /// The statement has a principal, which is not supported.
    #[error("is not supported: a policy is for the users and groups that it is attached to")]
    Principal,
    /// A list is empty.
    #[error("must have at least one entry")]
    Empty,
    /// A list is too long.
    #[error("may have {max} entries, not {count}")]
    TooMany {
        /// Number of entries.
        count: usize,
        /// Allowed number of entries: [`STATEMENTS_MAX`], [`ENTRIES_MAX`] or [`CONDITIONS_MAX`].
        max: usize,
    },
    /// A pattern or value is too long.
    #[error("may have {max} bytes, not {bytes}")]
    TooLong {
        /// Length in bytes.
        bytes: usize,
        /// Allowed length: [`ACTION_BYTES_MAX`] or [`PATTERN_BYTES_MAX`].
        max: usize,
    },
    /// A `${` is not followed by a valid variable.
    #[error(
        "has a malformed variable in {found}: allowed are ${{key}}, ${{key, 'default'}}, ${{*}}, \
         ${{?}} and ${{$}}"
    )]
    Variable {
        /// The pattern.
        found: Quoted,
    },
    /// A pattern has too many variables.
    #[error("may have {PATTERN_VARIABLES_MAX} variables, not {count}")]
    TooManyVariables {
        /// Number of variables.
        count: usize,
    },
    /// The document has a variable, but its language version does not support variables.
    #[error("has a variable, for which Version must be \"2012-10-17\"")]
    VariableVersion,
    /// A time is used where text is required.
    #[error("must not use {key} here: it is for {operators} alone")]
    Time {
        /// The key.
        key: &'static str,
        /// Operators that the key may be used with.
        operators: &'static str,
    },
}

const _: () = assert!(STATEMENTS_MAX > 0 && ENTRIES_MAX > 0 && CONDITIONS_MAX > 0);
const _: () = assert!(ACTION_BYTES_MAX <= PATTERN_BYTES_MAX);

/// A part of an invalid input: escaped, and truncated if it is long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(Box<str>);

impl Quoted {
    pub(super) fn new(text: &str) -> Self {
        let quoted = match text.char_indices().nth(QUOTED_CHARS_MAX) {
            Some((end, _)) => format!("{:?}...", &text[..end]),
            None => format!("{text:?}"),
        };
        Self(quoted.into())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
