//! Lock requests like those of an application.

use dsync::proto::quorum::{ListId, LockKind};
use dsync::proto::resources::Resources;
use dsync::proto::table::LockRequest;
use dsync::proto::token::Token;

/// Builds `count` requests for write locks, each of a different object.
pub(crate) fn lock_requests(label: &str, count: usize) -> Vec<LockRequest> {
    let request = |n: usize| LockRequest {
        uid: format!("{label:0>32}-{n:x}.1").into(),
        resources: Resources::new([format!("bucket-{}/{label}/object-{n}", n % 100)])
            .expect("a valid name"),
        kind: LockKind::Write,
        owner: "http://10.0.0.1:9000".into(),
        source: "put_object".into(),
        quorum: 3,
        proposed_token: Token::default(),
        ticket: None,
        supports_leases: true,
        list: ListId::default(),
    };
    (0..count).map(request).collect()
}

/// Builds a request of another owner for the same resources.
pub(crate) fn conflicting_request(request: LockRequest) -> LockRequest {
    LockRequest { uid: format!("conflict with {}", request.uid).into(), ..request }
}
