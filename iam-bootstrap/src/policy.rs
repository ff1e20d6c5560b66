//! Access policies in the JSON language of S3 and AWS IAM.
//!
//! A [`Policy`] is parsed once, with all its patterns and values: errors are reported then, by
//! statement and field, and not when a request arrives. [`Policy::evaluate`] then allocates
//! nothing.
//!
//! Supported elements of a document:
//!
//! - `Version` (`2012-10-17`, or `2008-10-17` without variables), `Id`, `Statement` (one, or a
//!   list);
//! - of a statement: `Sid`, `Effect`, `Action` or `NotAction`, `Resource` or `NotResource`,
//!   `Condition`. No `Principal`: a policy applies to the users and groups that it is attached to.
//! - `*` for any characters and `?` for any one character, in actions, resources, and values of
//!   `StringLike`;
//! - variables such as `${aws:username}`, `${s3:prefix, 'default'}`, and `${*}`, `${?}`, `${$}` for
//!   these characters themselves, in resources and in values of string operators. The value of a
//!   variable is plain text: a `*` in it is a literal star.
//!
//! Where the language is ambiguous, the more restrictive reading applies:
//!
//! - a variable without a value matches nothing, and a statement that allows everything *except*
//!   such a match then allows nothing;
//! - a request without a resource (an empty one) is matched by `*` alone;
//! - a misspelt or duplicate field is an error, not ignored.

mod condition;
mod context;
mod document;
mod effect;
mod error;
mod evaluate;
mod json;
mod key;
mod operand;
mod parse;
mod pattern;

pub use context::{Context, PrincipalKind, Subject};
pub use document::{Policy, Statement};
pub use effect::Effect;
pub use error::{PolicyError, Problem, Quoted};
pub use evaluate::{Request, Verdict};
