//! From JSON to a policy, or to what is wrong with it.

use data_encoding::BASE64;

use super::condition::{Comparison, Condition, Operands, Quantifier};
use super::document::{Actions, Effect, Policy, Resources, Statement, Version};
use super::error::{PolicyError, Problem, Quoted};
use super::json::Node;
use super::key::Key;
use super::operand::{DATE_ALLOWED, Decimal, Network, parse_bool, parse_date};
use super::pattern::{Case, Pattern, Variables, Wildcards};
use crate::limits::{
    ACTION_BYTES_MAX, CONDITIONS_MAX, DOCUMENT_BYTES_MAX, ENTRIES_MAX, PATTERN_BYTES_MAX,
    STATEMENTS_MAX,
};

/// Services whose actions are about the cluster and not about a resource: statements that allow or
/// deny nothing else need not name one.
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

/// A problem, and where it is within what is being read.
struct Misplaced {
    place: String,
    problem: Problem,
}

impl Misplaced {
    /// The same, seen from one level further out.
    fn within(mut self, outer: &str) -> Self {
        self.place = match self.place.is_empty() {
            true => outer.into(),
            false => format!("{outer}, {}", self.place),
        };
        self
    }
}

impl From<Problem> for Misplaced {
    fn from(problem: Problem) -> Self {
        Self { place: String::new(), problem }
    }
}

/// Reads a document's bytes.
pub(super) fn document(bytes: &[u8]) -> Result<Policy, PolicyError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(PolicyError::TooLong { bytes: bytes.len() });
    }
    policy(serde_json::from_slice(bytes).map_err(|error| not_json(&error))?)
}

fn not_json(error: &serde_json::Error) -> PolicyError {
    PolicyError::Json { message: error.to_string() }
}

/// Reads a document that was JSON, in canonical form of no more than the largest size.
pub(super) fn policy(document: Node) -> Result<Policy, PolicyError> {
    let policy = read_policy(document).map_err(|wrong| PolicyError::Invalid {
        place: if wrong.place.is_empty() { "policy".into() } else { wrong.place },
        problem: wrong.problem,
    })?;
    let canonical = serde_json::to_vec(&policy).map_err(|error| not_json(&error))?;
    if canonical.len() > DOCUMENT_BYTES_MAX {
        return Err(PolicyError::TooLong { bytes: canonical.len() });
    }
    Ok(policy)
}

fn read_policy(document: Node) -> Result<Policy, Misplaced> {
    let (mut version, mut id, mut statements) = (None, None, None);
    for (name, value) in object(document, "an object with a Statement")? {
        let place = |wrong: Misplaced| wrong.within(&name);
        match name.as_str() {
            "Version" => version = Some(read_version(value).map_err(place)?),
            "Id" => id = label(value).map_err(place)?,
            "Statement" => statements = Some(value),
            _ => {
                let allowed = "Version, Id and Statement";
                return Err(Problem::UnknownField { found: Quoted::new(&name), allowed }.into());
            }
        }
    }
    let missing = Problem::Missing { expected: "a statement, or a list of them" };
    let statements = statements.ok_or_else(|| Misplaced::from(missing).within("Statement"))?;
    let statements = list(statements, STATEMENTS_MAX).map_err(|w| w.within("Statement"))?;
    let variables = match version {
        Some(Version::Second) => Variables::Yes,
        Some(Version::First) | None => Variables::Refused,
    };
    let read = |(index, statement)| read_statement(statement, index + 1, variables);
    let statements = statements.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Policy { version, id, statements })
}

fn read_version(value: Node) -> Result<Version, Misplaced> {
    let version = text(value)?;
    let versions = [Version::First, Version::Second];
    let found = versions.into_iter().find(|known| known.as_str() == version);
    found.ok_or_else(|| not_allowed(&version, Version::ALLOWED))
}

/// A statement's fields, as they are.
#[derive(Default)]
struct Fields {
    sid: Option<Box<str>>,
    effect: Option<Node>,
    action: Option<Node>,
    not_action: Option<Node>,
    resource: Option<Node>,
    not_resource: Option<Node>,
    condition: Option<Node>,
}

fn read_statement(
    statement: Node,
    number: usize,
    variables: Variables,
) -> Result<Statement, Misplaced> {
    let mut place = format!("statement {number}");
    let fields = object(statement, "an object").map_err(|wrong| wrong.within(&place))?;
    // First of all, for all other errors to name the statement as its author does.
    if let Some((_, Node::Text(sid))) = fields.iter().find(|(name, _)| name == "Sid")
        && !sid.is_empty()
    {
        place = format!("{place} ({})", Quoted::new(sid));
    }
    let fields = read_fields(fields);
    fields.and_then(|f| compile(f, variables)).map_err(|wrong| wrong.within(&place))
}

fn read_fields(fields: Vec<(String, Node)>) -> Result<Fields, Misplaced> {
    let mut read = Fields::default();
    for (name, value) in fields {
        match name.as_str() {
            "Sid" => read.sid = label(value).map_err(|wrong| wrong.within("Sid"))?,
            "Effect" => read.effect = Some(value),
            "Action" => read.action = Some(value),
            "NotAction" => read.not_action = Some(value),
            "Resource" => read.resource = Some(value),
            "NotResource" => read.not_resource = Some(value),
            "Condition" => read.condition = Some(value),
            "Principal" | "NotPrincipal" => {
                return Err(Misplaced::from(Problem::Principal).within(&name));
            }
            _ => {
                let allowed = "Sid, Effect, Action, NotAction, Resource, NotResource and Condition";
                return Err(Problem::UnknownField { found: Quoted::new(&name), allowed }.into());
            }
        }
    }
    Ok(read)
}

fn compile(fields: Fields, variables: Variables) -> Result<Statement, Misplaced> {
    let missing = |field, expected| Misplaced::from(Problem::Missing { expected }).within(field);
    let Some(effect) = fields.effect else {
        return Err(missing("Effect", "\"Allow\" or \"Deny\""));
    };
    let effect = read_effect(effect).map_err(|wrong| wrong.within("Effect"))?;

    let actions = one_of("Action", fields.action, "NotAction", fields.not_action)?;
    let Some((name, negated, list)) = actions else {
        return Err(missing("Action", ACTION_ALLOWED));
    };
    let actions = read_actions(list, negated).map_err(|wrong| wrong.within(name))?;

    let resources = one_of("Resource", fields.resource, "NotResource", fields.not_resource)?;
    let resources = match resources {
        Some((name, negated, list)) => {
            let read = read_resources(list, negated, variables);
            Some(read.map_err(|wrong| wrong.within(name))?)
        }
        None if needs_no_resource(&actions) => None,
        None => return Err(missing("Resource", RESOURCE_ALLOWED)),
    };

    let conditions = match fields.condition {
        Some(block) => read_conditions(block, variables).map_err(|w| w.within("Condition"))?,
        None => Box::default(),
    };
    Ok(Statement { sid: fields.sid, effect, actions, resources, conditions })
}

/// The one of two fields that is there: its name, whether it is the second, its value.
fn one_of(
    name: &'static str,
    value: Option<Node>,
    negated_name: &'static str,
    negated_value: Option<Node>,
) -> Result<Option<(&'static str, bool, Node)>, Misplaced> {
    match (value, negated_value) {
        (Some(_), Some(_)) => {
            Err(Misplaced::from(Problem::Both { other: negated_name }).within(name))
        }
        (Some(value), None) => Ok(Some((name, false, value))),
        (None, Some(value)) => Ok(Some((negated_name, true, value))),
        (None, None) => Ok(None),
    }
}

fn read_effect(value: Node) -> Result<Effect, Misplaced> {
    let effect = text(value)?;
    let effects = [Effect::Allow, Effect::Deny];
    let found = effects.into_iter().find(|known| known.as_str() == effect);
    found.ok_or_else(|| not_allowed(&effect, "\"Allow\" or \"Deny\""))
}

fn read_actions(value: Node, negated: bool) -> Result<Actions, Misplaced> {
    let sources = list(value, ENTRIES_MAX)?.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
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
    let patterns = sources.iter().map(compile).collect::<Result<_, Misplaced>>()?;
    let sources = sources.into_iter().map(String::into_boxed_str).collect();
    Ok(Actions { negated, sources, patterns })
}

/// Whether it can name an action: a service without wildcards, a colon, and a name.
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
    value: Node,
    negated: bool,
    variables: Variables,
) -> Result<Resources, Misplaced> {
    let compile = |value| {
        let source = text(value)?;
        // A key may have colons: what comes after the fifth is the service's business.
        let is_arn = source.starts_with("arn:") && source.matches(':').count() >= 5;
        if !is_arn && source != "*" {
            return Err(not_allowed(&source, RESOURCE_ALLOWED));
        }
        Ok(Pattern::parse(&source, Wildcards::Yes, variables)?)
    };
    let patterns = list(value, ENTRIES_MAX)?.into_iter().map(compile);
    Ok(Resources { negated, patterns: patterns.collect::<Result<_, Misplaced>>()? })
}

fn read_conditions(block: Node, variables: Variables) -> Result<Box<[Condition]>, Misplaced> {
    let mut conditions = Vec::new();
    for (operator, keys) in object(block, "an object of operators")? {
        let place = |wrong: Misplaced| wrong.within(&operator);
        let parsed = Operator::parse(&operator)
            .ok_or_else(|| Misplaced::from(unknown_operator(&operator)))?;
        let keys = object(keys, "an object of keys and values").map_err(place)?;
        if keys.is_empty() {
            return Err(place(Problem::Empty.into()));
        }
        for (key, values) in keys {
            let read = read_condition(&operator, &parsed, &key, values, variables);
            conditions.push(read.map_err(|wrong| place(wrong.within(&key)))?);
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

/// What an operator's name says.
struct Operator {
    test: Test,
    quantifier: Quantifier,
    if_exists: bool,
    negated: bool,
}

#[derive(Clone, Copy)]
enum Test {
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
        let (test, negated) = match plain {
            "StringEquals" => (Test::TextEquals(Case::Sensitive), false),
            "StringNotEquals" => (Test::TextEquals(Case::Sensitive), true),
            "StringEqualsIgnoreCase" => (Test::TextEquals(Case::Ignored), false),
            "StringNotEqualsIgnoreCase" => (Test::TextEquals(Case::Ignored), true),
            "StringLike" => (Test::TextLike, false),
            "StringNotLike" => (Test::TextLike, true),
            "Bool" => (Test::Bool, false),
            "BinaryEquals" => (Test::Bytes, false),
            "IpAddress" => (Test::Network, false),
            "NotIpAddress" => (Test::Network, true),
            // Asks whether there is a value at all: neither which nor "if" there is one.
            "Null" if !if_exists && quantifier == Quantifier::None => (Test::Null, false),
            _ => {
                let (test, comparison) = match plain.strip_prefix("Numeric") {
                    Some(comparison) => (Test::Number as fn(_) -> _, comparison),
                    None => (Test::Date as fn(_) -> _, plain.strip_prefix("Date")?),
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
                (test(comparison), negated)
            }
        };
        Some(Self { test, quantifier, if_exists, negated })
    }
}

fn read_condition(
    operator: &str,
    parsed: &Operator,
    key_source: &str,
    values: Node,
    variables: Variables,
) -> Result<Condition, Misplaced> {
    let key = Key::parse(key_source).ok_or_else(|| not_allowed(key_source, KEY_ALLOWED))?;
    check_time(&key, parsed.test)?;
    let values = list(values, ENTRIES_MAX)?.into_iter().map(scalar);
    let values = values.collect::<Result<Vec<_>, _>>()?;
    Ok(Condition {
        operator: operator.into(),
        key_source: key_source.into(),
        operands: read_operands(parsed.test, &values, variables)?,
        value_sources: values.into_iter().map(String::into_boxed_str).collect(),
        key,
        quantifier: parsed.quantifier,
        if_exists: parsed.if_exists,
        negated: parsed.negated,
    })
}

/// The time is a number, not a text: it is compared as that.
fn check_time(key: &Key, test: Test) -> Result<(), Problem> {
    match (key, test) {
        (Key::CurrentTime, Test::Date(_) | Test::Null)
        | (Key::EpochTime, Test::Date(_) | Test::Number(_) | Test::Null) => Ok(()),
        (Key::CurrentTime, _) => {
            Err(Problem::Time { key: "aws:CurrentTime", operators: "Date operators" })
        }
        (Key::EpochTime, _) => {
            Err(Problem::Time { key: "aws:EpochTime", operators: "Date and Numeric operators" })
        }
        (Key::Username | Key::UserId | Key::PrincipalType | Key::Other(_), _) => Ok(()),
    }
}

fn read_operands(
    test: Test,
    values: &[String],
    variables: Variables,
) -> Result<Operands, Misplaced> {
    let patterns = |wildcards| {
        let parse = |value: &String| Pattern::parse(value, wildcards, variables);
        values.iter().map(parse).collect::<Result<Box<_>, _>>()
    };
    Ok(match test {
        Test::TextEquals(case) => Operands::TextEquals(case, patterns(Wildcards::No)?),
        Test::TextLike => Operands::TextLike(patterns(Wildcards::Yes)?),
        Test::Number(comparison) => {
            Operands::Numbers(comparison, parsed(values, Decimal::parse, Decimal::ALLOWED)?)
        }
        Test::Date(comparison) => {
            Operands::Dates(comparison, parsed(values, parse_date, DATE_ALLOWED)?)
        }
        Test::Bool => Operands::Bools(parsed(values, parse_bool, BOOL_ALLOWED)?),
        Test::Network => Operands::Networks(parsed(values, Network::parse, Network::ALLOWED)?),
        Test::Bytes => Operands::Bytes(parsed(values, decode, "base64")?),
        Test::Null => match parsed(values, parse_bool, BOOL_ALLOWED)?[..] {
            [must_be_missing] => Operands::Null(must_be_missing),
            _ => return Err(Problem::TooMany { count: values.len(), max: 1 }.into()),
        },
    })
}

const BOOL_ALLOWED: &str = "\"true\" or \"false\"";

fn decode(value: &str) -> Option<Box<[u8]>> {
    BASE64.decode(value.as_bytes()).ok().map(Vec::into_boxed_slice)
}

/// All values, or the first that is none.
fn parsed<T>(
    values: &[String],
    parse: fn(&str) -> Option<T>,
    allowed: &'static str,
) -> Result<Box<[T]>, Misplaced> {
    values.iter().map(|value| parse(value).ok_or_else(|| not_allowed(value, allowed))).collect()
}

fn not_allowed(found: &str, allowed: &'static str) -> Misplaced {
    Problem::Value { found: Quoted::new(found), allowed }.into()
}

fn unexpected(node: &Node, expected: &'static str) -> Misplaced {
    Problem::Kind { expected, found: node.kind() }.into()
}

fn object(node: Node, expected: &'static str) -> Result<Vec<(String, Node)>, Misplaced> {
    match node {
        Node::Object(fields) => Ok(fields),
        other => Err(unexpected(&other, expected)),
    }
}

/// A list, or what stands for one with a single entry. It has at least one.
fn list(node: Node, max: usize) -> Result<Vec<Node>, Misplaced> {
    let entries = match node {
        Node::List(entries) => entries,
        single => vec![single],
    };
    match entries.len() {
        0 => Err(Problem::Empty.into()),
        count if count > max => Err(Problem::TooMany { count, max }.into()),
        _ => Ok(entries),
    }
}

fn text(node: Node) -> Result<String, Misplaced> {
    match node {
        Node::Text(text) => Ok(text),
        other => Err(unexpected(&other, "a string")),
    }
}

/// Text that means nothing here. Tools write an empty one for none.
fn label(node: Node) -> Result<Option<Box<str>>, Misplaced> {
    text(node).map(|text| (!text.is_empty()).then(|| text.into()))
}

/// A condition's value: numbers and booleans may be written without quotes.
fn scalar(node: Node) -> Result<String, Misplaced> {
    let text = match node {
        Node::Text(text) => text,
        Node::Bool(value) => value.to_string(),
        Node::Number(number) => number.to_string(),
        other => {
            return Err(unexpected(&other, "a string, a number, a boolean, or a list of them"));
        }
    };
    if text.len() > PATTERN_BYTES_MAX {
        return Err(Problem::TooLong { bytes: text.len(), max: PATTERN_BYTES_MAX }.into());
    }
    Ok(text)
}
