//! Invalid policy documents, and their error messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use iam_bootstrap::limits::{DOCUMENT_BYTES_MAX, ENTRIES_MAX, STATEMENTS_MAX};
use iam_bootstrap::policy::{Effect, Policy, PolicyError};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Returns a document whose statement has some fields replaced; `null` removes a field.
#[expect(clippy::needless_pass_by_value, reason = "so that json! stands where it is used")]
fn with(fields: Value) -> Value {
    let mut statement = json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
    for (name, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => statement.as_object_mut().unwrap().remove(name),
            value => statement.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

fn read(document: &Value) -> Result<Policy, PolicyError> {
    Policy::parse(document.to_string().as_bytes())
}

fn error_text(document: &Value) -> String {
    read(document).unwrap_err().to_string()
}

#[test]
fn b61_invalid_document_error_names_statement_field_and_allowed_values() {
    let wrong = [
        (json!([]), "policy: must be an object with a Statement, not a list"),
        (json!({}), "Statement: is missing: must be a statement, or a list of them"),
        (json!({"Statement": []}), "Statement: must have at least one entry"),
        (json!({"Statement": 1}), "statement 1: must be an object, not a number"),
        (
            json!({"Version": "2012-10-18", "Statement": []}),
            "Version: must be \"2012-10-17\" or \"2008-10-17\", not \"2012-10-18\"",
        ),
        (
            json!({"Statements": []}),
            "policy: has no field \"Statements\": allowed are Version, Id and Statement",
        ),
        (
            with(json!({"Effect": "allow"})),
            "statement 1, Effect: must be \"Allow\" or \"Deny\", not \"allow\"",
        ),
        (
            with(json!({"Effect": null})),
            "statement 1, Effect: is missing: must be \"Allow\" or \"Deny\"",
        ),
        (
            with(json!({"Action": "GetObject", "Sid": "mine"})),
            "statement 1 (\"mine\"), Action: must be \"*\", or a service and an action such as \
             \"s3:GetObject\", \"s3:Get*\", not \"GetObject\"",
        ),
        (
            with(json!({"Action": ["s3:Get", 7]})),
            "statement 1, Action: must be a string, not a number",
        ),
        (
            with(json!({"NotAction": "*"})),
            "statement 1, Action: must not be given together with NotAction",
        ),
        (
            with(json!({"NotResource": "*"})),
            "statement 1, Resource: must not be given together with NotResource",
        ),
        (with(json!({"Resource": []})), "statement 1, Resource: must have at least one entry"),
        (
            with(json!({"Resource": null})),
            "statement 1, Resource: is missing: must be \"*\", or an ARN such as \
             \"arn:aws:s3:::bucket/*\"",
        ),
        (
            with(json!({"Resource": "bucket/*"})),
            "statement 1, Resource: must be \"*\", or an ARN such as \"arn:aws:s3:::bucket/*\", not \
             \"bucket/*\"",
        ),
        (
            with(json!({"Principal": "*"})),
            "statement 1, Principal: is not supported: a policy is for the users and groups that it \
             is attached to",
        ),
    ];
    for (document, message) in wrong {
        assert_eq!(error_text(&document), message);
    }
}

#[test]
fn b61_invalid_condition_error_names_operator_key_and_allowed_values() {
    let wrong = [
        (
            with(json!({"Resource": "arn:aws:s3:::${aws:username"})),
            "statement 1, Resource: has a malformed variable in \"arn:aws:s3:::${aws:username\": \
             allowed are ${key}, ${key, 'default'}, ${*}, ${?} and ${$}",
        ),
        (
            with(json!({"Condition": {"NumericLessThan": {"s3:max-keys": "ten"}}})),
            "statement 1, Condition, NumericLessThan, s3:max-keys: must be a number with up to 18 \
             digits before and 9 after the point, not \"ten\"",
        ),
        (
            with(json!({"Condition": {"StringLike": {"aws:CurrentTime": "2026*"}}})),
            "statement 1, Condition, StringLike, aws:CurrentTime: must not use aws:CurrentTime here: \
             it is for Date operators alone",
        ),
        (
            with(json!({"Condition": {"Null": {"s3:prefix": ["true", "false"]}}})),
            "statement 1, Condition, Null, s3:prefix: may have 1 entries, not 2",
        ),
        (
            with(json!({"Condition": {"Bool": {"s3:x": null}}})),
            "statement 1, Condition, Bool, s3:x: must be a string, a number, a boolean, or a list of \
             them, not null",
        ),
    ];
    for (document, message) in wrong {
        assert_eq!(error_text(&document), message);
    }
}

#[test]
fn b61_unknown_operator_error_lists_the_known_ones() {
    for operator in ["StringsEqual", "ForSomeValues:StringLike", "NullIfExists", "NotBool", "Date"]
    {
        let message = error_text(&with(json!({"Condition": {operator: {"s3:prefix": "a"}}})));
        assert!(message.starts_with("statement 1, Condition: must be StringEquals, "), "{message}");
        assert!(message.ends_with(&format!("not {operator:?}")), "{message}");
    }
}

#[test]
fn b61_duplicate_field_is_rejected() {
    let twice =
        br#"{"Statement": {"Effect": "Deny", "Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
    let message = Policy::parse(twice).unwrap_err().to_string();
    assert!(message.contains("field \"Effect\" is given twice"), "{message}");
}

#[test]
fn b61_variables_need_the_2012_version() {
    let mut document = with(json!({"Resource": "arn:aws:s3:::${aws:username}"}));
    assert!(read(&document).is_ok());
    let refused = "statement 1, Resource: has a variable, for which Version must be \"2012-10-17\"";
    document["Version"] = json!("2008-10-17");
    assert_eq!(error_text(&document), refused);
    document.as_object_mut().unwrap().remove("Version");
    assert_eq!(error_text(&document), refused);
}

#[test]
fn b61_documents_have_limits() {
    let statement = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let many = |count| json!({"Statement": vec![statement.clone(); count]});
    assert!(read(&many(STATEMENTS_MAX)).is_ok());
    assert_eq!(error_text(&many(STATEMENTS_MAX + 1)), "Statement: may have 200 entries, not 201");

    let actions = |count| with(json!({"Action": vec!["s3:GetObject"; count]}));
    assert!(read(&actions(ENTRIES_MAX)).is_ok());
    assert_eq!(
        error_text(&actions(ENTRIES_MAX + 1)),
        "statement 1, Action: may have 500 entries, not 501",
    );

    let resource = |bytes| {
        let padding = "a".repeat(bytes - "arn:aws:s3:::".len());
        with(json!({"Resource": format!("arn:aws:s3:::{padding}")}))
    };
    assert!(read(&resource(2_048)).is_ok());
    assert_eq!(
        error_text(&resource(2_049)),
        "statement 1, Resource: may have 2048 bytes, not 2049"
    );

    let variables = |count| {
        with(json!({"Resource": format!("arn:aws:s3:::{}", "${aws:username}".repeat(count))}))
    };
    assert!(read(&variables(8)).is_ok());
    assert_eq!(error_text(&variables(9)), "statement 1, Resource: may have 8 variables, not 9",);
}

#[test]
fn b61_size_limit_applies_to_the_source_and_to_the_canonical_form() {
    let mut bytes = with(json!({})).to_string().into_bytes();
    bytes.resize(DOCUMENT_BYTES_MAX, b' ');
    assert!(Policy::parse(&bytes).is_ok());
    bytes.push(b' ');
    let error = Policy::parse(&bytes).unwrap_err();
    assert_eq!(error, PolicyError::TooLong { bytes: DOCUMENT_BYTES_MAX + 1 });

    // The size of a document inside another item is that of its canonical form.
    let resources = vec![format!("arn:aws:s3:::{}", "a".repeat(2_000)); 11];
    let nested: Result<Policy, _> = serde_json::from_value(with(json!({"Resource": resources})));
    assert!(nested.unwrap_err().to_string().starts_with("a policy may have 20480 bytes"));
}

#[test]
fn b61_error_truncates_long_input() {
    let message = error_text(&with(json!({"Action": "\n".repeat(100)})));
    assert!(message.ends_with(&format!("not \"{}\"...", "\\n".repeat(80))), "{message}");
}

#[test]
fn b61_single_entry_is_a_list_and_values_need_no_quotes() {
    let policy = read(&json!({
        "Version": "2012-10-17",
        "Id": "",
        "Statement": {
            "Sid": "",
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": "*",
            "Condition": {"Bool": {"aws:SecureTransport": false}, "NumericGreaterThan": {"s3:x": 1.5}},
        },
    }));
    let policy = policy.unwrap();
    assert_eq!(policy.id(), None);
    assert_eq!(policy.statements()[0].sid(), None);
    assert_eq!(policy.statements()[0].effect(), Effect::Deny);
    assert_eq!(
        serde_json::to_value(&policy).unwrap(),
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Deny",
                "Action": ["s3:PutObject"],
                "Resource": ["*"],
                "Condition": {
                    "Bool": {"aws:SecureTransport": ["false"]},
                    "NumericGreaterThan": {"s3:x": ["1.5"]},
                },
            }],
        }),
    );
}

/// JSON that resembles a policy.
fn policy_like() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "Version",
        "Id",
        "Statement",
        "Sid",
        "Effect",
        "Action",
        "NotAction",
        "Resource",
        "Principal",
        "NotResource",
        "Condition",
        "StringLike",
        "ForAnyValue:DateEqualsIfExists",
        "Null",
        "s3:prefix",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[$]?[{]?(aws:username|[*?$]|,? ?'a'?)*[}]?".prop_map(Value::from),
        prop::sample::select(vec!["2012-10-17", "Allow", "s3:*", "*", "arn:aws:s3:::${"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone(), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn b61_parser_never_panics_on_bytes(bytes in any::<Vec<u8>>()) {
        let _ = Policy::parse(&bytes);
    }

    #[test]
    fn b61_parser_never_panics_on_json(json in policy_like(), field in "[A-Z][a-z]+", text in ".*") {
        let _ = read(&json);
        let _ = read(&with(json!({ field: json.clone() })));
        for field in ["Sid", "Action", "Resource", "NotResource", "Condition"] {
            let _ = read(&with(json!({ field: json.clone() })));
        }
        let _ = read(&with(json!({"Resource": format!("arn:aws:s3:::{text}")})));
        let _ = read(&with(json!({"Condition": {"StringLike": {"s3:prefix": text}}})));
    }

    #[test]
    fn b61_truncated_document_is_an_error(cut in 1_usize..80) {
        let whole = with(json!({})).to_string();
        prop_assert!(Policy::parse(&whole.as_bytes()[..whole.len().saturating_sub(cut)]).is_err());
    }
}

#[test]
fn b61_deeply_nested_json_is_rejected() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(matches!(Policy::parse(deep.as_bytes()), Err(PolicyError::Json { .. })));
}
