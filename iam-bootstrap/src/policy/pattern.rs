//! Patterns of actions, resources and condition values.
//!
//! A pattern is split at each `*` into segments. The first must match at the beginning of the text
//! and the last at its end; those between are searched from left to right, each at its earliest
//! position. The greedy search is correct: a segment has the same length wherever it matches, so an
//! earlier match leaves more text to the following segments. There is no backtracking. The cost is
//! one search per segment: text plus pattern for plain segments, at most text times segment with
//! `?` or variables.

use super::context::Lookup;
use super::error::{Problem, Quoted};
use super::key::ContextKey;
use crate::limits::{PATTERN_BYTES_MAX, PATTERN_VARIABLES_MAX};

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    source: Box<str>,
    /// At least one. Any text matches between two of them.
    segments: Box<[Segment]>,
    variables: Box<[Variable]>,
}

/// Pieces that match a fixed number of characters, once variables have values.
type Segment = Box<[Piece]>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// Any one character.
    AnyChar,
    /// The value of the variable with this index.
    Variable(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    key: ContextKey,
    default: Option<Box<str>>,
}

/// Meaning of `*` and `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wildcards {
    Yes,
    /// Ordinary characters.
    No,
}

/// Meaning of `${`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variables {
    Yes,
    /// An error: the language version has no variables, but the author meant one.
    Refused,
}

/// Case sensitivity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Ignored,
}

/// Result of matching a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    /// A variable has no value: the result is undefined.
    Unknown,
}

impl Match {
    pub(super) fn of(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }

    /// Returns whether one of several matches. `Unknown` if none does, but one is unknown.
    pub(super) fn any(matches: impl Iterator<Item = Self>) -> Self {
        let mut any = Self::No;
        for one in matches {
            match one {
                Self::Yes => return Self::Yes,
                Self::Unknown => any = Self::Unknown,
                Self::No => {}
            }
        }
        any
    }
}

/// Values of a pattern's variables, by index.
type Values<'a> = [&'a str; PATTERN_VARIABLES_MAX];

impl Pattern {
    /// Parses a pattern.
    pub(super) fn parse(
        source: &str,
        wildcards: Wildcards,
        variables: Variables,
    ) -> Result<Self, Problem> {
        if source.len() > PATTERN_BYTES_MAX {
            return Err(Problem::TooLong { bytes: source.len(), max: PATTERN_BYTES_MAX });
        }
        let mut parser = Parser { segments: vec![Vec::new()], ..Parser::default() };
        let mut rest = source;
        while let Some(c) = rest.chars().next() {
            if rest.starts_with("${") {
                if variables == Variables::Refused {
                    return Err(Problem::VariableVersion);
                }
                let malformed = || Problem::Variable { found: Quoted::new(source) };
                rest = parser.variable(&rest[2..]).ok_or_else(malformed)?;
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match (c, wildcards) {
                ('*', Wildcards::Yes) => parser.star(),
                ('?', Wildcards::Yes) => parser.push(Piece::AnyChar),
                _ => parser.text(c),
            }
        }
        parser.finish(source)
    }

    /// Returns the pattern as written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Matches the whole text.
    pub(super) fn matches<'a>(&'a self, text: &str, lookup: &Lookup<'a>) -> Match {
        match self.values(lookup) {
            Some(values) => Match::of(self.matches_with_values(text, &values)),
            None => Match::Unknown,
        }
    }

    /// Matches the whole text; false if the pattern has variables.
    pub(super) fn matches_plain(&self, text: &str) -> bool {
        self.variables.is_empty() && self.matches_with_values(text, &[""; PATTERN_VARIABLES_MAX])
    }

    /// Compares with the text; `No` if the pattern has wildcards.
    pub(super) fn equals<'a>(&'a self, text: &str, case: Case, lookup: &Lookup<'a>) -> Match {
        let [segment] = &*self.segments else { return Match::No };
        let Some(values) = self.values(lookup) else { return Match::Unknown };
        match case {
            Case::Sensitive => Match::of(self.matches_with_values(text, &values)),
            Case::Ignored => {
                let own = segment.iter().flat_map(|piece| match piece {
                    Piece::Text(own) => own.chars(),
                    Piece::AnyChar => "".chars(),
                    Piece::Variable(index) => values[*index].chars(),
                });
                let lower = own.flat_map(char::to_lowercase);
                Match::of(lower.eq(text.chars().flat_map(char::to_lowercase)))
            }
        }
    }

    /// Returns the values of the variables; `None` if one has no value.
    fn values<'a>(&'a self, lookup: &Lookup<'a>) -> Option<Values<'a>> {
        let mut values = [""; PATTERN_VARIABLES_MAX];
        for (value, variable) in values.iter_mut().zip(&self.variables) {
            *value = lookup.variable(&variable.key).or(variable.default.as_deref())?;
        }
        Some(values)
    }

    fn matches_with_values(&self, text: &str, values: &Values<'_>) -> bool {
        let (first, others) = match &*self.segments {
            [] => return false,
            [only] => return strip_segment_prefix(only, text, values) == Some(""),
            [first, others @ ..] => (first, others),
        };
        let Some(rest) = strip_segment_prefix(first, text, values) else { return false };
        let Some((last, between)) = others.split_last() else { return false };
        let Some(mut rest) = strip_segment_suffix(last, rest, values) else { return false };
        for segment in between {
            match find_segment(segment, rest, values) {
                Some(remaining) => rest = remaining,
                None => return false,
            }
        }
        true
    }
}

/// Returns the text after this segment, if the text begins with it.
fn strip_segment_prefix<'t>(
    segment: &Segment,
    text: &'t str,
    values: &Values<'_>,
) -> Option<&'t str> {
    segment.iter().try_fold(text, |rest, piece| match piece {
        Piece::Text(own) => rest.strip_prefix(&**own),
        Piece::Variable(index) => rest.strip_prefix(values[*index]),
        Piece::AnyChar => {
            let mut chars = rest.chars();
            chars.next().map(|_| chars.as_str())
        }
    })
}

/// Returns the text before this segment, if the text ends with it.
fn strip_segment_suffix<'t>(
    segment: &Segment,
    text: &'t str,
    values: &Values<'_>,
) -> Option<&'t str> {
    segment.iter().rev().try_fold(text, |rest, piece| match piece {
        Piece::Text(own) => rest.strip_suffix(&**own),
        Piece::Variable(index) => rest.strip_suffix(values[*index]),
        Piece::AnyChar => {
            let mut chars = rest.chars();
            chars.next_back().map(|_| chars.as_str())
        }
    })
}

/// Returns the text after the first occurrence of this segment.
fn find_segment<'t>(segment: &Segment, text: &'t str, values: &Values<'_>) -> Option<&'t str> {
    match &**segment {
        [] => Some(text),
        [Piece::Text(own)] => text.find(&**own).map(|at| &text[at + own.len()..]),
        _ => {
            let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.into_iter().find_map(|at| strip_segment_prefix(segment, &text[at..], values))
        }
    }
}

/// Parser state.
#[derive(Default)]
struct Parser {
    segments: Vec<Vec<Piece>>,
    /// Text of the segment's next piece.
    text: String,
    variables: Vec<Variable>,
}

impl Parser {
    fn text(&mut self, c: char) {
        self.text.push(c);
    }

    fn push(&mut self, piece: Piece) {
        self.end_text();
        if let Some(segment) = self.segments.last_mut() {
            segment.push(piece);
        }
    }

    fn star(&mut self) {
        self.end_text();
        self.segments.push(Vec::new());
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text).into();
            self.push(Piece::Text(text));
        }
    }

    /// Parses the text after `${`, and returns the rest after the variable. `None` if it is not a
    /// variable.
    fn variable<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        for escaped in ['*', '?', '$'] {
            if let Some(rest) = text.strip_prefix(escaped).and_then(|rest| rest.strip_prefix('}')) {
                self.text(escaped);
                return Some(rest);
            }
        }
        let (name, rest) = text.split_at(text.find(['}', ','])?);
        let (default, rest) = match rest.strip_prefix(',') {
            None => (None, rest.strip_prefix('}')?),
            Some(rest) => {
                let (default, rest) = rest.trim_start().strip_prefix('\'')?.split_once('\'')?;
                (Some(default.into()), rest.trim_start().strip_prefix('}')?)
            }
        };
        let key = ContextKey::parse(name.trim())?;
        self.push(Piece::Variable(self.variables.len()));
        self.variables.push(Variable { key, default });
        Some(rest)
    }

    fn finish(mut self, source: &str) -> Result<Pattern, Problem> {
        self.end_text();
        if self.variables.len() > PATTERN_VARIABLES_MAX {
            return Err(Problem::TooManyVariables { count: self.variables.len() });
        }
        for variable in &self.variables {
            let key = match variable.key {
                ContextKey::CurrentTime => "aws:CurrentTime",
                ContextKey::EpochTime => "aws:EpochTime",
                _ => continue,
            };
            return Err(Problem::Time { key, operators: "conditions" });
        }
        Ok(Pattern {
            source: source.into(),
            segments: self.segments.into_iter().map(Vec::into_boxed_slice).collect(),
            variables: self.variables.into(),
        })
    }
}
