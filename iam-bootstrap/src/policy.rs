//! Policies: what may be done, in the JSON language that operators of storage know.
//!
//! A [`Policy`] is read once, and every pattern and value of it with it: what is wrong is said then,
//! by statement and field, and not when a request comes. [`Policy::evaluate`] then allocates nothing.
//!
//! What a document may say:
//!
//! - `Version` (`2012-10-17`, or `2008-10-17` without variables), `Id`, `Statement` (one, or a list);
//! - of a statement: `Sid`, `Effect`, `Action` or `NotAction`, `Resource` or `NotResource`,
//!   `Condition`. No `Principal`: it speaks of whom it is attached to.
//! - `*` for any characters and `?` for any one, in actions, resources, and values of `StringLike`;
//! - variables such as `${aws:username}`, `${s3:prefix, 'default'}`, and `${*}`, `${?}`, `${$}` for
//!   these characters themselves, in resources and in values of string operators. What a variable
//!   stands for is plain text: a `*` in it is a star.
//!
//! Where the language leaves something open, the answer that gives less is taken:
//!
//! - a variable without a value stands for nothing that could be named, and a statement that allows
//!   everything *but* what it names then allows nothing;
//! - a request about no resource (an empty one) is matched by `*` alone;
//! - a misspelt or doubled field is an error, not ignored.

mod condition;
mod context;
mod document;
mod error;
mod evaluate;
mod json;
mod key;
mod operand;
mod parse;
mod pattern;

pub use context::{Context, PrincipalKind, Subject};
pub use document::{Effect, Policy, Statement};
pub use error::{PolicyError, Problem, Quoted};
pub use evaluate::{Request, Verdict};
