//! Requests for locks, as an application's would be.

use dsync::proto::names::Names;
use dsync::proto::quorum::Kind;
use dsync::proto::table::Ask;
use dsync::proto::token::Token;

/// So many write locks, each of another object.
pub(crate) fn asks(what: &str, count: usize) -> Vec<Ask> {
    let ask = |n: usize| Ask {
        uid: format!("{what:0>32}-{n:x}.1").into(),
        names: Names::new([format!("bucket-{}/{what}/object-{n}", n % 100)]).expect("a good name"),
        kind: Kind::Write,
        owner: "http://10.0.0.1:9000".into(),
        source: "put_object".into(),
        quorum: 3,
        proposal: Token::default(),
        place: None,
        knows_leases: true,
    };
    (0..count).map(ask).collect()
}

/// Somebody else wants the same.
pub(crate) fn rival_of(ask: Ask) -> Ask {
    Ask { uid: format!("rival of {}", ask.uid).into(), ..ask }
}
