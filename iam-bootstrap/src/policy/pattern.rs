//! Patterns of actions, resources and condition values.
//!
//! A pattern is cut at each `*` into segments. The first is where the text begins and the last where
//! it ends; those between are found from left to right, each as early as it can be. That is never
//! wrong: a segment takes as many characters wherever it is, so who ends earlier leaves more to those
//! that follow. Nothing is tried twice, whatever the pattern: the time is that of looking for each
//! segment once (text plus pattern where segments are plain; with `?` or variables within them, at
//! most text times segment).

use super::context::Lookup;
use super::error::{Problem, Quoted};
use super::key::Key;
use crate::limits::{PATTERN_BYTES_MAX, PATTERN_VARIABLES_MAX};

/// What text is matched with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    source: Box<str>,
    /// At least one. What lies between two of them is any text.
    segments: Box<[Segment]>,
    variables: Box<[Variable]>,
}

/// What takes a fixed number of characters, once variables have values.
type Segment = Box<[Piece]>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// Any one character.
    One,
    /// The value of the variable with this index.
    Variable(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    key: Key,
    default: Option<Box<str>>,
}

/// What `*` and `?` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wildcards {
    Yes,
    /// Characters as all others.
    No,
}

/// What `${` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variables {
    Yes,
    /// An error: the document's version has none, but who wrote it meant one.
    Refused,
}

/// Whether case matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Ignored,
}

/// What a pattern says of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    /// A variable has no value: the pattern says nothing.
    Unknown,
}

impl Match {
    pub(super) fn of(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }

    /// Whether one of several matches. What is not known might have.
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
    /// The pattern that is written so.
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
                ('?', Wildcards::Yes) => parser.push(Piece::One),
                _ => parser.text(c),
            }
        }
        parser.finish(source)
    }

    /// As it was written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches all of this text.
    pub(super) fn matches<'a>(&'a self, text: &str, lookup: &Lookup<'a>) -> Match {
        match self.values(lookup) {
            Some(values) => Match::of(self.covers(text, &values)),
            None => Match::Unknown,
        }
    }

    /// Whether it matches all of this text, if it has no variables.
    pub(super) fn matches_plain(&self, text: &str) -> bool {
        self.variables.is_empty() && self.covers(text, &[""; PATTERN_VARIABLES_MAX])
    }

    /// Whether it is this text, if it has no wildcards.
    pub(super) fn equals<'a>(&'a self, text: &str, case: Case, lookup: &Lookup<'a>) -> Match {
        let [segment] = &*self.segments else { return Match::No };
        let Some(values) = self.values(lookup) else { return Match::Unknown };
        match case {
            Case::Sensitive => Match::of(self.covers(text, &values)),
            Case::Ignored => {
                let own = segment.iter().flat_map(|piece| match piece {
                    Piece::Text(own) => own.chars(),
                    Piece::One => "".chars(),
                    Piece::Variable(index) => values[*index].chars(),
                });
                let lower = own.flat_map(char::to_lowercase);
                Match::of(lower.eq(text.chars().flat_map(char::to_lowercase)))
            }
        }
    }

    /// What its variables stand for, unless one has no value.
    fn values<'a>(&'a self, lookup: &Lookup<'a>) -> Option<Values<'a>> {
        let mut values = [""; PATTERN_VARIABLES_MAX];
        for (value, variable) in values.iter_mut().zip(&self.variables) {
            *value = lookup.variable(&variable.key).or(variable.default.as_deref())?;
        }
        Some(values)
    }

    fn covers(&self, text: &str, values: &Values<'_>) -> bool {
        let (first, others) = match &*self.segments {
            [] => return false,
            [only] => return after(only, text, values) == Some(""),
            [first, others @ ..] => (first, others),
        };
        let Some(rest) = after(first, text, values) else { return false };
        let Some((last, between)) = others.split_last() else { return false };
        let Some(mut rest) = before(last, rest, values) else { return false };
        for segment in between {
            match behind(segment, rest, values) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        true
    }
}

/// What follows this segment, if the text begins with it.
fn after<'t>(segment: &Segment, text: &'t str, values: &Values<'_>) -> Option<&'t str> {
    segment.iter().try_fold(text, |rest, piece| match piece {
        Piece::Text(own) => rest.strip_prefix(&**own),
        Piece::Variable(index) => rest.strip_prefix(values[*index]),
        Piece::One => {
            let mut chars = rest.chars();
            chars.next().map(|_| chars.as_str())
        }
    })
}

/// What precedes this segment, if the text ends with it.
fn before<'t>(segment: &Segment, text: &'t str, values: &Values<'_>) -> Option<&'t str> {
    segment.iter().rev().try_fold(text, |rest, piece| match piece {
        Piece::Text(own) => rest.strip_suffix(&**own),
        Piece::Variable(index) => rest.strip_suffix(values[*index]),
        Piece::One => {
            let mut chars = rest.chars();
            chars.next_back().map(|_| chars.as_str())
        }
    })
}

/// What follows the first place where this segment is.
fn behind<'t>(segment: &Segment, text: &'t str, values: &Values<'_>) -> Option<&'t str> {
    match &**segment {
        [] => Some(text),
        [Piece::Text(own)] => text.find(&**own).map(|at| &text[at + own.len()..]),
        _ => {
            let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.into_iter().find_map(|at| after(segment, &text[at..], values))
        }
    }
}

/// A pattern that is being read.
#[derive(Default)]
struct Parser {
    segments: Vec<Vec<Piece>>,
    /// What belongs to the segment's next piece.
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

    /// Reads what follows `${`, and returns what follows that. `None` if it is no variable.
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
        let key = Key::parse(name.trim())?;
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
                Key::CurrentTime => "aws:CurrentTime",
                Key::EpochTime => "aws:EpochTime",
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
