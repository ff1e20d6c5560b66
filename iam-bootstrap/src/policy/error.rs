//! What is wrong with a policy document, and where.

use std::fmt;

use crate::limits::{
    ACTION_BYTES_MAX, CONDITIONS_MAX, DOCUMENT_BYTES_MAX, ENTRIES_MAX, PATTERN_BYTES_MAX,
    PATTERN_VARIABLES_MAX, QUOTED_CHARS_MAX, STATEMENTS_MAX,
};

/// Why a document is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It has too many bytes.
    #[error("a policy may have {DOCUMENT_BYTES_MAX} bytes, not {bytes}")]
    TooLong {
        /// How many it has, as it was given or in canonical form.
        bytes: usize,
    },
    /// It is not JSON, or has a field twice.
    #[error("the policy is not valid JSON: {message}")]
    Json {
        /// What the parser says, with line and column.
        message: String,
    },
    /// It is JSON, and does not say what a policy says.
    #[error("{place}: {problem}")]
    Invalid {
        /// Statement (counted from 1, with its `Sid`) and field.
        place: String,
        /// What is wrong there, and what would be right.
        problem: Problem,
    },
}

/// What is wrong with one field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A value of another kind is needed.
    #[error("must be {expected}, not {found}")]
    Kind {
        /// What is needed.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A field that is needed is not there.
    #[error("is missing: must be {expected}")]
    Missing {
        /// What is needed.
        expected: &'static str,
    },
    /// There is no such field.
    #[error("has no field {found}: allowed are {allowed}")]
    UnknownField {
        /// Its name.
        found: Quoted,
        /// All that there are.
        allowed: &'static str,
    },
    /// A value is not one of those that are allowed.
    #[error("must be {allowed}, not {found}")]
    Value {
        /// The value.
        found: Quoted,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Two fields exclude each other.
    #[error("must not be given together with {other}")]
    Both {
        /// The other field.
        other: &'static str,
    },
    /// It says whom it is for.
    #[error("is not supported: a policy is for the users and groups that it is attached to")]
    Principal,
    /// A list is empty.
    #[error("must have at least one entry")]
    Empty,
    /// A list is too long.
    #[error("may have {max} entries, not {count}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be: [`STATEMENTS_MAX`], [`ENTRIES_MAX`] or [`CONDITIONS_MAX`].
        max: usize,
    },
    /// A pattern or value is too long.
    #[error("may have {max} bytes, not {bytes}")]
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many it may have: [`ACTION_BYTES_MAX`] or [`PATTERN_BYTES_MAX`].
        max: usize,
    },
    /// A `${` begins no variable.
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
        /// How many it has.
        count: usize,
    },
    /// A variable in a document of a version that has none.
    #[error("has a variable, for which Version must be \"2012-10-17\"")]
    VariableVersion,
    /// A time is not text.
    #[error("must not use {key} here: it is for {operators} alone")]
    Time {
        /// The key.
        key: &'static str,
        /// With which operators it may be used.
        operators: &'static str,
    },
}

const _: () = assert!(STATEMENTS_MAX > 0 && ENTRIES_MAX > 0 && CONDITIONS_MAX > 0);
const _: () = assert!(ACTION_BYTES_MAX <= PATTERN_BYTES_MAX);

/// A piece of a wrong input: escaped, and cut where it is long.
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
