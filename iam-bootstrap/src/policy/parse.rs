//! Parser of policy documents, with located errors.

use std::str::FromStr;

use data_encoding::BASE64;
use serde::de::{self, Deserialize, Deserializer};

use super::condition::{Comparison, Condition, Operands, Quantifier};
use super::document::{Actions, LanguageVersion, Policy, Resources, Statement};
use super::effect::Effect;
use super::error::{PolicyError, Problem, Quoted};
use super::json::JsonValue;
use super::key::ContextKey;
use super::operand::{DATE_ALLOWED, Decimal, Network, parse_bool, parse_date};
use super::pattern::{Case, Pattern, Variables, Wildcards};
use crate::limits::{
    ACTION_BYTES_MAX, CONDITIONS_MAX, DOCUMENT_BYTES_MAX, ENTRIES_MAX, PATTERN_BYTES_MAX,
    STATEMENTS_MAX,
};

/// Prefixes of services whose actions have no resource: statements that consist only of such
/// actions need no resource.
const WITHOUT_RESOURCES: [&str; 3] = ["admin:", "kms:", "sts:"];

const ACTION_ALLOWED: &str =
    "\"*\", or a service and an action such as \"s3:GetObject\", \"s3:Get*\"";
const RESOURCE_ALLOWED: &str = "\"*\", or an ARN such as \"arn:aws:s3:::bucket/*\"";
const KEY_ALLOWED: &str = "a condition's key, such as \"s3:prefix\"";
const OPERATOR_ALLOWED: &str = "StringEquals, StringEqualsIgnoreCase, StringLike, NumericEquals, \
     DateEquals, IpAddress (each also with Not), NumericLessThan, NumericLessThanEquals, \
     NumericGreaterThan, NumericGreaterThanEquals, DateLessThan, DateLessThanEquals, \
     DateGreaterThan, DateGreaterThanEquals, Bool, BinaryEquals (each also with IfExists, \
     ForAnyValue: and ForAllValues:), or Null";

/// A problem, and its location within the element being parsed.
struct LocatedProblem {
    place: String,
    problem: Problem,
}

impl LocatedProblem {
    /// Prepends the enclosing element to the location.
    fn nested_in(mut self, outer: &str) -> Self {
        self.place = match self.place.is_empty() {
            true => outer.into(),
            false => format!("{outer}, {}", self.place),
        };
        self
    }
}

impl From<Problem> for LocatedProblem {
    fn from(problem: Problem) -> Self {
        Self { place: String::new(), problem }
    }
}

impl Policy {
    /// Parses a document.
    ///
    /// # Errors
    ///
    /// The document is too long, not JSON, or not a policy. The error names the statement and
    /// field, and what is allowed.
    pub fn parse(document: &[u8]) -> Result<Self, PolicyError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(PolicyError::TooLong { bytes: document.len() });
        }
        policy(serde_json::from_slice(document).map_err(|error| not_json(&error))?)
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(document: &str) -> Result<Self, PolicyError> {
        Self::parse(document.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        policy(JsonValue::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn not_json(error: &serde_json::Error) -> PolicyError {
    PolicyError::Json { message: error.to_string() }
}

/// Parses a JSON document, and checks the size of its canonical form.
fn policy(document: JsonValue) -> Result<Policy, PolicyError> {
    let policy = read_policy(document).map_err(|located| PolicyError::Invalid {
        place: if located.place.is_empty() { "policy".into() } else { located.place },
        problem: located.problem,
    })?;
    let canonical = serde_json::to_vec(&policy).map_err(|error| not_json(&error))?;
    if canonical.len() > DOCUMENT_BYTES_MAX {
        return Err(PolicyError::TooLong { bytes: canonical.len() });
    }
    Ok(policy)
}

fn read_policy(document: JsonValue) -> Result<Policy, LocatedProblem> {
    let (mut version, mut id, mut statements) = (None, None, None);
    for (name, value) in read_object(document, "an object with a Statement")? {
        let place = |problem: LocatedProblem| problem.nested_in(&name);
        match name.as_str() {
            "Version" => version = Some(read_version(value).map_err(place)?),
            "Id" => id = read_label(value).map_err(place)?,
            "Statement" => statements = Some(value),
            _ => {
                let allowed = "Version, Id and Statement";
                return Err(Problem::UnknownField { found: Quoted::new(&name), allowed }.into());
            }
        }
    }
    let missing = Problem::Missing { expected: "a statement, or a list of them" };
    let statements =
        statements.ok_or_else(|| LocatedProblem::from(missing).nested_in("Statement"))?;
    let statements = read_list(statements, STATEMENTS_MAX).map_err(|w| w.nested_in("Statement"))?;
    let variables = match version {
        Some(LanguageVersion::V2012) => Variables::Yes,
        Some(LanguageVersion::V2008) | None => Variables::Refused,
    };
    let read = |(index, statement)| read_statement(statement, index + 1, variables);
    let statements = statements.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Policy { version, id, statements })
}

fn read_version(value: JsonValue) -> Result<LanguageVersion, LocatedProblem> {
    let version = read_text(value)?;
    let versions = [LanguageVersion::V2008, LanguageVersion::V2012];
    let found = versions.into_iter().find(|known| known.as_str() == version);
    found.ok_or_else(|| not_allowed(&version, LanguageVersion::ALLOWED))
}

/// Fields of a statement, not parsed yet.
#[derive(Default)]
struct Fields {
    sid: Option<Box<str>>,
    effect: Option<JsonValue>,
    action: Option<JsonValue>,
    not_action: Option<JsonValue>,
    resource: Option<JsonValue>,
    not_resource: Option<JsonValue>,
    condition: Option<JsonValue>,
}

fn read_statement(
    statement: JsonValue,
    number: usize,
    variables: Variables,
) -> Result<Statement, LocatedProblem> {
    let mut place = format!("statement {number}");
    let fields =
        read_object(statement, "an object").map_err(|problem| problem.nested_in(&place))?;
    // Parsed first, so that all other errors can name the statement by its `Sid`.
    if let Some((_, JsonValue::Text(sid))) = fields.iter().find(|(name, _)| name == "Sid")
        && !sid.is_empty()
    {
        place = format!("{place} ({})", Quoted::new(sid));
    }
    let fields = read_fields(fields);
    fields
        .and_then(|f| compile_statement(f, variables))
        .map_err(|problem| problem.nested_in(&place))
}

fn read_fields(fields: Vec<(String, JsonValue)>) -> Result<Fields, LocatedProblem> {
    let mut read = Fields::default();
    for (name, value) in fields {
        match name.as_str() {
            "Sid" => read.sid = read_label(value).map_err(|problem| problem.nested_in("Sid"))?,
            "Effect" => read.effect = Some(value),
            "Action" => read.action = Some(value),
            "NotAction" => read.not_action = Some(value),
            "Resource" => read.resource = Some(value),
            "NotResource" => read.not_resource = Some(value),
            "Condition" => read.condition = Some(value),
            "Principal" | "NotPrincipal" => {
                return Err(LocatedProblem::from(Problem::Principal).nested_in(&name));
            }
            _ => {
                let allowed = "Sid, Effect, Action, NotAction, Resource, NotResource and Condition";
                return Err(Problem::UnknownField { found: Quoted::new(&name), allowed }.into());
            }
        }
    }
    Ok(read)
}

fn compile_statement(fields: Fields, variables: Variables) -> Result<Statement, LocatedProblem> {
    let missing =
        |field, expected| LocatedProblem::from(Problem::Missing { expected }).nested_in(field);
    let Some(effect) = fields.effect else {
        return Err(missing("Effect", "\"Allow\" or \"Deny\""));
    };
    let effect = read_effect(effect).map_err(|problem| problem.nested_in("Effect"))?;

    let actions = exclusive_field("Action", fields.action, "NotAction", fields.not_action)?;
    let Some((name, negated, list)) = actions else {
        return Err(missing("Action", ACTION_ALLOWED));
    };
    let actions = read_actions(list, negated).map_err(|problem| problem.nested_in(name))?;

    let resources =
        exclusive_field("Resource", fields.resource, "NotResource", fields.not_resource)?;
    let resources = match resources {
        Some((name, negated, list)) => {
            let read = read_resources(list, negated, variables);
            Some(read.map_err(|problem| problem.nested_in(name))?)
        }
        None if needs_no_resource(&actions) => None,
        None => return Err(missing("Resource", RESOURCE_ALLOWED)),
    };

    let conditions = match fields.condition {
        Some(block) => read_conditions(block, variables).map_err(|w| w.nested_in("Condition"))?,
        None => Box::default(),
    };
    Ok(Statement { sid: fields.sid, effect, actions, resources, conditions })
}

/// Returns the one of two exclusive fields that is present: its name, whether it is the negated
/// one, and its value.
fn exclusive_field(
    name: &'static str,
    value: Option<JsonValue>,
    negated_name: &'static str,
    negated_value: Option<JsonValue>,
) -> Result<Option<(&'static str, bool, JsonValue)>, LocatedProblem> {
    match (value, negated_value) {
        (Some(_), Some(_)) => {
            Err(LocatedProblem::from(Problem::Both { other: negated_name }).nested_in(name))
        }
        (Some(value), None) => Ok(Some((name, false, value))),
        (None, Some(value)) => Ok(Some((negated_name, true, value))),
        (None, None) => Ok(None),
    }
}

fn read_effect(value: JsonValue) -> Result<Effect, LocatedProblem> {
    let effect = read_text(value)?;
    let effects = [Effect::Allow, Effect::Deny];
    let found = effects.into_iter().find(|known| known.as_str() == effect);
    found.ok_or_else(|| not_allowed(&effect, "\"Allow\" or \"Deny\""))
}

fn read_actions(value: JsonValue, negated: bool) -> Result<Actions, LocatedProblem> {
    let sources =
        read_list(value, ENTRIES_MAX)?.into_iter().map(read_text).collect::<Result<Vec<_>, _>>()?;
    let compile = |source: &String| {
        if source.len() > ACTION_BYTES_MAX {
            return Err(Problem::TooLong { bytes: source.len(), max: ACTION_BYTES_MAX }.into());
        }
        if !is_action(source) {
            return Err(not_allowed(source, ACTION_ALLOWED));
        }
        let lower = source.to_ascii_lowercase();
        Ok(Pattern::parse(&lower, Wildcards::Yes, Variables::Refused)?)
    };
    let patterns = sources.iter().map(compile).collect::<Result<_, LocatedProblem>>()?;
    let sources = sources.into_iter().map(String::into_boxed_str).collect();
    Ok(Actions { negated, sources, patterns })
}

/// Returns whether it is a valid action pattern: a service without wildcards, a colon, and a name.
fn is_action(source: &str) -> bool {
    let is_service = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '?');
    source == "*"
        || source.split_once(':').is_some_and(|(service, name)| {
            let is_empty = service.is_empty() || name.is_empty();
            !is_empty && service.chars().all(is_service) && name.chars().all(is_name)
        })
}

fn needs_no_resource(actions: &Actions) -> bool {
    let is_without = |pattern: &Pattern| {
        WITHOUT_RESOURCES.iter().any(|service| pattern.source().starts_with(service))
    };
    !actions.negated && actions.patterns.iter().all(is_without)
}

fn read_resources(
    value: JsonValue,
    negated: bool,
    variables: Variables,
) -> Result<Resources, LocatedProblem> {
    let compile = |value| {
        let source = read_text(value)?;
        // An object key may contain colons: the part after the fifth is not checked.
        let is_arn = source.starts_with("arn:") && source.matches(':').count() >= 5;
        if !is_arn && source != "*" {
            return Err(not_allowed(&source, RESOURCE_ALLOWED));
        }
        Ok(Pattern::parse(&source, Wildcards::Yes, variables)?)
    };
    let patterns = read_list(value, ENTRIES_MAX)?.into_iter().map(compile);
    Ok(Resources { negated, patterns: patterns.collect::<Result<_, LocatedProblem>>()? })
}

fn read_conditions(
    block: JsonValue,
    variables: Variables,
) -> Result<Box<[Condition]>, LocatedProblem> {
    let mut conditions = Vec::new();
    for (operator, keys) in read_object(block, "an object of operators")? {
        let place = |problem: LocatedProblem| problem.nested_in(&operator);
        let parsed = Operator::parse(&operator)
            .ok_or_else(|| LocatedProblem::from(unknown_operator(&operator)))?;
        let keys = read_object(keys, "an object of keys and values").map_err(place)?;
        if keys.is_empty() {
            return Err(place(Problem::Empty.into()));
        }
        for (key, values) in keys {
            let read = read_condition(&operator, &parsed, &key, values, variables);
            conditions.push(read.map_err(|problem| place(problem.nested_in(&key)))?);
        }
    }
    if conditions.len() > CONDITIONS_MAX {
        return Err(Problem::TooMany { count: conditions.len(), max: CONDITIONS_MAX }.into());
    }
    Ok(conditions.into())
}

fn unknown_operator(operator: &str) -> Problem {
    Problem::Value { found: Quoted::new(operator), allowed: OPERATOR_ALLOWED }
}

/// Parsed name of an operator.
struct Operator {
    operand_type: OperandType,
    quantifier: Quantifier,
    if_exists: bool,
    negated: bool,
}

#[derive(Clone, Copy)]
enum OperandType {
    TextEquals(Case),
    TextLike,
    Number(Comparison),
    Date(Comparison),
    Bool,
    Network,
    Bytes,
    Null,
}

impl Operator {
    fn parse(name: &str) -> Option<Self> {
        let (quantifier, plain) = match name.split_once(':') {
            Some(("ForAnyValue", rest)) => (Quantifier::Any, rest),
            Some(("ForAllValues", rest)) => (Quantifier::All, rest),
            Some(_) => return None,
            None => (Quantifier::None, name),
        };
        let (if_exists, plain) = match plain.strip_suffix("IfExists") {
            Some(plain) => (true, plain),
            None => (false, plain),
        };
        let (operand_type, negated) = match plain {
            "StringEquals" => (OperandType::TextEquals(Case::Sensitive), false),
            "StringNotEquals" => (OperandType::TextEquals(Case::Sensitive), true),
            "StringEqualsIgnoreCase" => (OperandType::TextEquals(Case::Ignored), false),
            "StringNotEqualsIgnoreCase" => (OperandType::TextEquals(Case::Ignored), true),
            "StringLike" => (OperandType::TextLike, false),
            "StringNotLike" => (OperandType::TextLike, true),
            "Bool" => (OperandType::Bool, false),
            "BinaryEquals" => (OperandType::Bytes, false),
            "IpAddress" => (OperandType::Network, false),
            "NotIpAddress" => (OperandType::Network, true),
            // `Null` tests only the presence of a key: neither a quantifier nor `IfExists` makes
            // sense.
            "Null" if !if_exists && quantifier == Quantifier::None => (OperandType::Null, false),
            _ => {
                let (make_type, comparison) = match plain.strip_prefix("Numeric") {
                    Some(comparison) => (OperandType::Number as fn(_) -> _, comparison),
                    None => (OperandType::Date as fn(_) -> _, plain.strip_prefix("Date")?),
                };
                let (comparison, negated) = match comparison {
                    "Equals" => (Comparison::Equal, false),
                    "NotEquals" => (Comparison::Equal, true),
                    "LessThan" => (Comparison::Less, false),
                    "LessThanEquals" => (Comparison::LessOrEqual, false),
                    "GreaterThan" => (Comparison::Greater, false),
                    "GreaterThanEquals" => (Comparison::GreaterOrEqual, false),
                    _ => return None,
                };
                (make_type(comparison), negated)
            }
        };
        Some(Self { operand_type, quantifier, if_exists, negated })
    }
}

fn read_condition(
    operator: &str,
    parsed: &Operator,
    key_source: &str,
    values: JsonValue,
    variables: Variables,
) -> Result<Condition, LocatedProblem> {
    let key = ContextKey::parse(key_source).ok_or_else(|| not_allowed(key_source, KEY_ALLOWED))?;
    check_time(&key, parsed.operand_type)?;
    let values = read_list(values, ENTRIES_MAX)?.into_iter().map(read_scalar);
    let values = values.collect::<Result<Vec<_>, _>>()?;
    Ok(Condition {
        operator: operator.into(),
        key_source: key_source.into(),
        operands: read_operands(parsed.operand_type, &values, variables)?,
        value_sources: values.into_iter().map(String::into_boxed_str).collect(),
        key,
        quantifier: parsed.quantifier,
        if_exists: parsed.if_exists,
        negated: parsed.negated,
    })
}

/// Checks that a time key is used only with operators that compare it as a number or date.
fn check_time(key: &ContextKey, operand_type: OperandType) -> Result<(), Problem> {
    match (key, operand_type) {
        (ContextKey::CurrentTime, OperandType::Date(_) | OperandType::Null)
        | (
            ContextKey::EpochTime,
            OperandType::Date(_) | OperandType::Number(_) | OperandType::Null,
        ) => Ok(()),
        (ContextKey::CurrentTime, _) => {
            Err(Problem::Time { key: "aws:CurrentTime", operators: "Date operators" })
        }
        (ContextKey::EpochTime, _) => {
            Err(Problem::Time { key: "aws:EpochTime", operators: "Date and Numeric operators" })
        }
        (
            ContextKey::Username
            | ContextKey::UserId
            | ContextKey::PrincipalType
            | ContextKey::Other(_),
            _,
        ) => Ok(()),
    }
}

fn read_operands(
    operand_type: OperandType,
    values: &[String],
    variables: Variables,
) -> Result<Operands, LocatedProblem> {
    let patterns = |wildcards| {
        let parse = |value: &String| Pattern::parse(value, wildcards, variables);
        values.iter().map(parse).collect::<Result<Box<_>, _>>()
    };
    Ok(match operand_type {
        OperandType::TextEquals(case) => Operands::TextEquals(case, patterns(Wildcards::No)?),
        OperandType::TextLike => Operands::TextLike(patterns(Wildcards::Yes)?),
        OperandType::Number(comparison) => {
            Operands::Numbers(comparison, parsed(values, Decimal::parse, Decimal::ALLOWED)?)
        }
        OperandType::Date(comparison) => {
            Operands::Dates(comparison, parsed(values, parse_date, DATE_ALLOWED)?)
        }
        OperandType::Bool => Operands::Bools(parsed(values, parse_bool, BOOL_ALLOWED)?),
        OperandType::Network => {
            Operands::Networks(parsed(values, Network::parse, Network::ALLOWED)?)
        }
        OperandType::Bytes => Operands::Bytes(parsed(values, decode, "base64")?),
        OperandType::Null => match parsed(values, parse_bool, BOOL_ALLOWED)?[..] {
            [must_be_missing] => Operands::Null(must_be_missing),
            _ => return Err(Problem::TooMany { count: values.len(), max: 1 }.into()),
        },
    })
}

const BOOL_ALLOWED: &str = "\"true\" or \"false\"";

fn decode(value: &str) -> Option<Box<[u8]>> {
    BASE64.decode(value.as_bytes()).ok().map(Vec::into_boxed_slice)
}

/// Parses all values, or fails with the first invalid one.
fn parsed<T>(
    values: &[String],
    parse: fn(&str) -> Option<T>,
    allowed: &'static str,
) -> Result<Box<[T]>, LocatedProblem> {
    values.iter().map(|value| parse(value).ok_or_else(|| not_allowed(value, allowed))).collect()
}

fn not_allowed(found: &str, allowed: &'static str) -> LocatedProblem {
    Problem::Value { found: Quoted::new(found), allowed }.into()
}

fn unexpected(node: &JsonValue, expected: &'static str) -> LocatedProblem {
    Problem::Kind { expected, found: node.kind() }.into()
}

fn read_object(
    node: JsonValue,
    expected: &'static str,
) -> Result<Vec<(String, JsonValue)>, LocatedProblem> {
    match node {
        JsonValue::Object(fields) => Ok(fields),
        other => Err(unexpected(&other, expected)),
    }
}

/// Returns the entries of a list, or a single value as a list of one. Never empty.
fn read_list(node: JsonValue, max: usize) -> Result<Vec<JsonValue>, LocatedProblem> {
    let entries = match node {
        JsonValue::List(entries) => entries,
        single => vec![single],
    };
    match entries.len() {
        0 => Err(Problem::Empty.into()),
        count if count > max => Err(Problem::TooMany { count, max }.into()),
        _ => Ok(entries),
    }
}

fn read_text(node: JsonValue) -> Result<String, LocatedProblem> {
    match node {
        JsonValue::Text(text) => Ok(text),
        other => Err(unexpected(&other, "a string")),
    }
}

/// Returns free text without effect. Tools write an empty string for none.
fn read_label(node: JsonValue) -> Result<Option<Box<str>>, LocatedProblem> {
    read_text(node).map(|text| (!text.is_empty()).then(|| text.into()))
}

/// Returns a condition's value as text: numbers and booleans may be written without quotes.
fn read_scalar(node: JsonValue) -> Result<String, LocatedProblem> {
    let text = match node {
        JsonValue::Text(text) => text,
        JsonValue::Bool(value) => value.to_string(),
        JsonValue::Number(number) => number.to_string(),
        other => {
            return Err(unexpected(&other, "a string, a number, a boolean, or a list of them"));
        }
    };
    if text.len() > PATTERN_BYTES_MAX {
        return Err(Problem::TooLong { bytes: text.len(), max: PATTERN_BYTES_MAX }.into());
    }
    Ok(text)
}
