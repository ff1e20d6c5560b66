//! Policy evaluation against a reference model. The model reads the document's JSON anew for each
//! request and follows the definition: every text is expanded to tokens, every match tried
//! exhaustively.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use iam_bootstrap::model::UtcMillis;
use iam_bootstrap::policy::{Context, Policy, PrincipalKind, Request, Subject, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

const NOW: i64 = 1_769_860_800_000;
const USERNAME: &str = "a*";

#[derive(Debug, Clone)]
struct ModelRequest {
    action: &'static str,
    resource: String,
    entries: Vec<(&'static str, String)>,
}

// ---- the model ----

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Char(char),
    AnyChar,
    AnyText,
}

impl ModelRequest {
    fn values(&self, key: &str) -> Vec<String> {
        match key.to_lowercase().as_str() {
            "aws:username" | "aws:userid" => vec![USERNAME.to_owned()],
            "aws:principaltype" => vec!["User".to_owned()],
            "aws:currenttime" | "aws:epochtime" => vec![(NOW / 1_000).to_string()],
            key => {
                let of_key = self.entries.iter().filter(|(name, _)| name.to_lowercase() == key);
                of_key.map(|(_, value)| value.clone()).collect()
            }
        }
    }

    /// Returns the pattern's tokens; `None` if a variable has no value.
    fn tokens(&self, pattern: &str, wildcards: bool) -> Option<Vec<Token>> {
        let chars: Vec<char> = pattern.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            if chars[at] == '$' && chars.get(at + 1) == Some(&'{') {
                let end = at + chars[at..].iter().position(|&c| c == '}').unwrap();
                let inside: String = chars[at + 2..end].iter().collect();
                let value = if ["*", "?", "$"].contains(&inside.as_str()) {
                    inside
                } else {
                    let mut parts = inside.split(", ");
                    let values = self.values(parts.next().unwrap());
                    let default = parts.next().map(|text| text.trim_matches('\'').to_owned());
                    if values.len() == 1 { values[0].clone() } else { default? }
                };
                tokens.extend(value.chars().map(Token::Char));
                at = end + 1;
                continue;
            }
            tokens.push(match chars[at] {
                '*' if wildcards => Token::AnyText,
                '?' if wildcards => Token::AnyChar,
                c => Token::Char(c),
            });
            at += 1;
        }
        Some(tokens)
    }

    fn like(&self, pattern: &str, text: &str) -> Option<bool> {
        let text: Vec<char> = text.chars().collect();
        self.tokens(pattern, true).map(|tokens| matches_exhaustively(&tokens, &text))
    }

    fn matches_one(&self, operator_name: &str, operand: &str, value: &str) -> Option<bool> {
        let equal = |ignore_case: bool| {
            let letters: Vec<Token> = value.chars().map(Token::Char).collect();
            let lower = |tokens: Vec<Token>| -> Vec<Token> {
                let lowered = tokens.into_iter().map(|token| match token {
                    Token::Char(c) if ignore_case => Token::Char(c.to_lowercase().next().unwrap()),
                    other => other,
                });
                lowered.collect()
            };
            self.tokens(operand, false).map(|tokens| lower(tokens) == lower(letters))
        };
        let compare = |name: &str, value: f64, operand: f64| match name {
            "Equals" => value == operand,
            "LessThan" => value < operand,
            "LessThanEquals" => value <= operand,
            "GreaterThan" => value > operand,
            "GreaterThanEquals" => value >= operand,
            other => panic!("{other}"),
        };
        match operator_name {
            "StringEquals" => equal(false),
            "StringEqualsIgnoreCase" => equal(true),
            "StringLike" => self.like(operand, value),
            "Bool" => Some(operand == value.to_lowercase() && ["true", "false"].contains(&operand)),
            "BinaryEquals" => Some([("YWI=", "ab"), ("Yg==", "b")].contains(&(operand, value))),
            "IpAddress" => Some(in_network(operand, value)),
            _ => {
                let (read, name): (fn(&str) -> Option<f64>, _) = match operator_name
                    .strip_prefix("Date")
                {
                    Some(name) => (seconds, name),
                    None => {
                        (|text| text.parse().ok(), operator_name.strip_prefix("Numeric").unwrap())
                    }
                };
                let operand = read(operand).unwrap();
                Some(read(value).is_some_and(|value| compare(name, value, operand)))
            }
        }
    }

    fn holds(&self, effect: &str, operator: &str, key: &str, operands: &[&str]) -> bool {
        let values = self.values(key);
        if operator == "Null" {
            return values.is_empty() == (operands[0] == "true");
        }
        let (set, name) = operator.split_once(':').unwrap_or(("", operator));
        let if_exists = name.ends_with("IfExists");
        let name = name.trim_end_matches("IfExists");
        let negated = name.contains("Not");
        let operator_name = name.replacen("Not", "", 1);
        if values.is_empty() {
            return if_exists || if set.is_empty() { negated } else { set == "ForAllValues" };
        }
        let mut passes = Vec::new();
        for value in &values {
            let matches =
                operands.iter().map(|operand| self.matches_one(&operator_name, operand, value));
            passes.push(matches_any(&matches.collect::<Vec<_>>(), negated, effect));
        }
        if set == "ForAllValues" || (set.is_empty() && negated) {
            !passes.contains(&false)
        } else {
            passes.contains(&true)
        }
    }

    fn applies(&self, statement: &Value) -> bool {
        let effect = statement["Effect"].as_str().unwrap();
        let (actions, not) = listed(statement, "Action");
        let action = self.action.to_lowercase();
        let matches = actions.iter().map(|pattern| self.like(&pattern.to_lowercase(), &action));
        if !matches_any(&matches.collect::<Vec<_>>(), not, effect) {
            return false;
        }
        let (resources, not) = listed(statement, "Resource");
        let matches = resources.iter().map(|pattern| self.like(pattern, &self.resource));
        if !matches_any(&matches.collect::<Vec<_>>(), not, effect) {
            return false;
        }
        let none = Map::new();
        let block = statement["Condition"].as_object().unwrap_or(&none);
        block.iter().all(|(operator, keys)| {
            keys.as_object().unwrap().iter().all(|(key, operands)| {
                let operands: Vec<_> =
                    operands.as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
                self.holds(effect, operator, key, &operands)
            })
        })
    }
}

/// Returns whether one of several matches; if negated, whether none does. An unknown match never
/// allows.
fn matches_any(matches: &[Option<bool>], negated: bool, effect: &str) -> bool {
    if matches.contains(&Some(true)) {
        !negated
    } else if matches.contains(&None) {
        negated && effect == "Deny"
    } else {
        negated
    }
}

fn listed<'a>(statement: &'a Value, name: &str) -> (Vec<&'a str>, bool) {
    let (value, not) = match &statement[name] {
        Value::Null => (&statement[format!("Not{name}")], true),
        value => (value, false),
    };
    match value {
        Value::String(one) => (vec![one], not),
        many => (many.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect(), not),
    }
}

/// Fills a table of which prefix of the pattern matches which prefix of the text.
fn matches_exhaustively(tokens: &[Token], text: &[char]) -> bool {
    let mut matches = vec![vec![false; text.len() + 1]; tokens.len() + 1];
    matches[0][0] = true;
    for t in 1..=tokens.len() {
        for c in 0..=text.len() {
            matches[t][c] = match tokens[t - 1] {
                Token::AnyText => matches[t - 1][c] || (c > 0 && matches[t][c - 1]),
                Token::AnyChar => c > 0 && matches[t - 1][c - 1],
                Token::Char(own) => c > 0 && own == text[c - 1] && matches[t - 1][c - 1],
            };
        }
    }
    matches[tokens.len()][text.len()]
}

fn in_network(network: &str, address: &str) -> bool {
    let bits = |text: &str| -> Option<String> {
        let parts: Vec<u8> = text.split('.').map_while(|part| part.parse().ok()).collect();
        let is_address = parts.len() == 4 && text.matches('.').count() == 3;
        is_address.then(|| parts.iter().map(|part| format!("{part:08b}")).collect())
    };
    let (own, prefix) = network.split_once('/').unwrap_or((network, "32"));
    let prefix: usize = prefix.parse().unwrap();
    bits(address).is_some_and(|address| address[..prefix] == bits(own).unwrap()[..prefix])
}

fn seconds(text: &str) -> Option<f64> {
    match text {
        "2026-01-31" => Some(1_769_817_600.0),
        "2026-01-31T12:00:00Z" => Some(1_769_860_800.0),
        "2026-01-31T14:00:00+01:00" => Some(1_769_864_400.0),
        other => other.parse().ok(),
    }
}

fn model(document: &Value, request: &ModelRequest) -> Verdict {
    let statements = document["Statement"].as_array().unwrap();
    let find = |effect: &str| {
        statements.iter().position(|one| one["Effect"] == effect && request.applies(one))
    };
    match (find("Deny"), find("Allow")) {
        (Some(index), _) => Verdict::Denied(index),
        (None, Some(index)) => Verdict::Allowed(index),
        (None, None) => Verdict::NoMatch,
    }
}

// ---- related documents and requests ----

const ACTIONS: [&str; 8] = [
    "*",
    "s3:*",
    "s3:Get*",
    "S3:getobject",
    "s3:Put?bject",
    "s3:*Object",
    "admin:*",
    "s3:ListBucket",
];
const REQUESTED: [&str; 5] = ["s3:GetObject", "S3:PUTOBJECT", "s3:ListBucket", "admin:Info", "s3:"];
const TEXTS: [&str; 14] = [
    "a",
    "b",
    "A",
    "ab",
    "*",
    "a*",
    "?",
    "a?b",
    "${aws:username}",
    "${x:text}",
    "${X:TEXT, 'ab'}",
    "${*}",
    "a${x:many}",
    "${aws:PrincipalType}",
];

fn pattern() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "a",
        "b",
        "ä",
        "/",
        "*",
        "?",
        "**",
        "*a",
        "?b*",
        "ab",
        "${aws:username}",
        "${*}",
        "${?}",
        "${$}",
        "${x:text}",
        "${x:many, 'b'}",
    ]);
    vec(piece, 0..7).prop_map(|pieces| format!("arn:aws:s3:::{}", pieces.concat()))
}

fn resources() -> impl Strategy<Value = Vec<String>> {
    vec(prop_oneof![1 => Just("*".to_owned()), 6 => pattern()], 1..4)
}

/// An operator without quantifier and suffix, with a suitable key and values.
fn operator_and_operands() -> impl Strategy<Value = (String, &'static str, Vec<&'static str>)> {
    let text = select(vec![
        "StringEquals",
        "StringNotEquals",
        "StringEqualsIgnoreCase",
        "StringNotEqualsIgnoreCase",
        "StringLike",
        "StringNotLike",
    ]);
    let comparison = select(vec![
        "Equals",
        "NotEquals",
        "LessThan",
        "LessThanEquals",
        "GreaterThan",
        "GreaterThanEquals",
    ]);
    let keys = vec!["x:text", "X:Many", "x:none", "aws:username", "aws:PrincipalType"];
    let some = |values: &'static [&'static str]| subsequence(values, 1..=values.len().min(3));
    let network = &["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "10.1.0.0/15"];
    let dates = &["2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T14:00:00+01:00", "1769860799"];
    prop_oneof![
        6 => (text.prop_map(str::to_owned), select(keys), some(&TEXTS)),
        2 => (comparison.clone().prop_map(|c| format!("Numeric{c}")),
              select(vec!["x:number", "x:text", "x:none"]), some(&["1", "2", "-3", "2.50"])),
        2 => (comparison.prop_map(|c| format!("Date{c}")),
              select(vec!["aws:CurrentTime", "aws:EpochTime", "x:date"]), some(dates)),
        1 => (Just("Bool".to_owned()), select(vec!["x:bool", "x:none"]), some(&["true", "false"])),
        1 => (Just("BinaryEquals".to_owned()), Just("x:text"), some(&["YWI=", "Yg=="])),
        2 => (select(vec!["IpAddress", "NotIpAddress"]).prop_map(str::to_owned),
              select(vec!["aws:SourceIp", "x:none"]), some(network)),
    ]
}

fn condition() -> impl Strategy<Value = (String, &'static str, Vec<&'static str>)> {
    let around =
        (select(vec!["", "", "ForAnyValue:", "ForAllValues:"]), select(vec!["", "IfExists"]));
    let operator =
        (around, operator_and_operands()).prop_map(|((before, behind), (name, key, operands))| {
            (format!("{before}{name}{behind}"), key, operands)
        });
    let null = (select(vec!["x:text", "x:none", "aws:username"]), select(vec!["true", "false"]));
    prop_oneof![
        8 => operator,
        1 => null.prop_map(|(key, is_null)| ("Null".to_owned(), key, vec![is_null])),
    ]
}

fn statement() -> impl Strategy<Value = Value> {
    let actions = subsequence(&ACTIONS[..], 1..4);
    let negations = (prop::bool::weighted(0.15), prop::bool::weighted(0.2));
    let parts =
        (prop::bool::weighted(0.3), actions, resources(), vec(condition(), 0..3), negations);
    parts.prop_map(|(deny, actions, resources, conditions, (not_action, not_resource))| {
        let mut block = Map::new();
        for (operator, key, operands) in conditions {
            let keys = block.entry(operator).or_insert_with(|| json!({}));
            keys[key] = json!(operands);
        }
        json!({
            "Effect": if deny { "Deny" } else { "Allow" },
            if not_action { "NotAction" } else { "Action" }: actions,
            if not_resource { "NotResource" } else { "Resource" }: resources,
            "Condition": block,
        })
    })
}

fn document() -> impl Strategy<Value = Value> {
    vec(statement(), 1..4).prop_map(|all| json!({"Version": "2012-10-17", "Statement": all}))
}

fn request() -> impl Strategy<Value = ModelRequest> {
    let resource = vec(select(vec!["a", "b", "ä", "/", "*", "?", "$", "ab"]), 0..8);
    let resource = prop_oneof![
        8 => resource.prop_map(|pieces| format!("arn:aws:s3:::{}", pieces.concat())),
        1 => Just(String::new()),
    ];
    let text = || select(vec!["a", "b", "A", "ab", "aXb", "a*", "User", "2", ""]);
    let entry = prop_oneof![
        2 => (Just("x:text"), text()),
        2 => (Just("x:many"), text()),
        1 => (Just("x:number"), select(vec!["1", "2", "2.5", "-4", "many"])),
        1 => (Just("X:Date"), select(vec!["2026-01-31", "1769860800", "later"])),
        1 => (Just("x:bool"), select(vec!["true", "FALSE", "1"])),
        2 => (Just("aws:sourceip"), select(vec!["10.1.2.3", "10.0.9.9", "11.0.0.1", "here"])),
        1 => (Just("aws:username"), Just("root")),
    ];
    let entry = entry.prop_map(|(key, value)| (key, value.to_owned()));
    (select(&REQUESTED[..]), resource, vec(entry, 0..6))
        .prop_map(|(action, resource, entries)| ModelRequest { action, resource, entries })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn b61_policy_evaluation_matches_the_model(document in document(), requests in vec(request(), 8)) {
        let policy = Policy::parse(document.to_string().as_bytes()).unwrap();
        for model_request in requests {
            let mut context = Context::new(UtcMillis::new(NOW));
            for (key, value) in &model_request.entries {
                context.insert(*key, value.as_str());
            }
            let subject = Subject { username: USERNAME, kind: PrincipalKind::User };
            let action = model_request.action;
            let request = Request::new(subject, action, &model_request.resource, &context);
            let expected = model(&document, &model_request);
            prop_assert_eq!(policy.evaluate(&request), expected, "{:?}", model_request);
        }
    }

    #[test]
    fn b61_policy_round_trips_through_json(document in document()) {
        let policy = Policy::parse(document.to_string().as_bytes()).unwrap();
        let written = serde_json::to_vec(&policy).unwrap();
        let read = Policy::parse(&written).unwrap();
        prop_assert_eq!(&read, &policy);
        prop_assert_eq!(serde_json::to_vec(&read).unwrap(), written);
    }
}
