//! Lock requests like those of an application.

use dsync::proto::names::Names;
use dsync::proto::quorum::Kind;
use dsync::proto::table::Ask;
use dsync::proto::token::Token;

/// Builds `count` requests for write locks, each of a different object.
pub(crate) fn lock_requests(label: &str, count: usize) -> Vec<Ask> {
    let request = |n: usize| Ask {
        uid: format!("{label:0>32}-{n:x}.1").into(),
        names: Names::new([format!("bucket-{}/{label}/object-{n}", n % 100)])
            .expect("a valid name"),
        kind: Kind::Write,
        owner: "http://10.0.0.1:9000".into(),
        source: "put_object".into(),
        quorum: 3,
        proposal: Token::default(),
        place: None,
        knows_leases: true,
    };
    (0..count).map(request).collect()
}

/// Builds a request of another owner for the same resources.
pub(crate) fn rival_of(request: Ask) -> Ask {
    Ask { uid: format!("rival of {}", request.uid).into(), ..request }
}
