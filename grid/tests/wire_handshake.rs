//! Properties of every handshake: its messages and timestamps survive a round trip, and of two
//! servers exactly one dials.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use grid::name::Name;
use grid::proto::handshake::{ConnectRequest, ConnectResponse, Dialer, InstanceId};
use grid::time::Timestamp;
use proptest::prelude::{Strategy, any};
use proptest::{prop_assert, prop_assert_eq, proptest};

fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos))
}

proptest! {
    #[test]
    fn p10_every_connect_survives_a_round_trip(
        id in any::<[u8; 16]>(),
        host in any::<String>(),
        token in any::<String>(),
        time in any_timestamp(),
    ) {
        let request = ConnectRequest { id: InstanceId::from_bytes(id), host, time, token };
        let bytes = Bytes::from(request.encode().expect("encodes"));
        prop_assert_eq!(ConnectRequest::parse(&bytes), Ok(request));
        prop_assert!(ConnectResponse::parse(&bytes).is_err(), "another op");
    }

    #[test]
    fn p11_every_connect_response_survives_a_round_trip(
        id in any::<[u8; 16]>(),
        accepted in any::<bool>(),
        rejected_reason in any::<String>(),
    ) {
        let id = InstanceId::from_bytes(id);
        let response = ConnectResponse { id, accepted, rejected_reason };
        let bytes = Bytes::from(response.encode().expect("encodes"));
        prop_assert_eq!(ConnectResponse::parse(&bytes), Ok(response));
        prop_assert!(ConnectRequest::parse(&bytes).is_err(), "another op");
    }

    #[test]
    fn p22_every_timestamp_survives_a_round_trip_in_fifteen_bytes(time in any_timestamp()) {
        let bytes = rmp_serde::to_vec_named(&time).expect("encodes");
        prop_assert_eq!(&bytes[..3], &[0xc7, 12, 5]);
        prop_assert_eq!(bytes.len(), 15);
        prop_assert_eq!(rmp_serde::from_slice::<Timestamp>(&bytes).expect("decodes"), time);
    }

    #[test]
    fn p04_exactly_one_of_two_servers_dials(
        a in "https?://[a-z0-9.-]{1,20}:[1-9][0-9]{3}",
        b in "https?://[a-z0-9.-]{1,20}:[1-9][0-9]{3}",
    ) {
        let (a, b): (Name, Name) = (a.parse().expect("a name"), b.parse().expect("a name"));
        if a != b {
            prop_assert!(Dialer::between(&a, &b) != Dialer::between(&b, &a));
        }
    }
}

#[test]
fn p04_the_example_of_protocol_md_holds() {
    let name = |text: &str| text.parse::<Name>().expect("a name");
    let (a, b) = (name("http://127.0.0.1:9001"), name("http://127.0.0.1:9002"));
    let hash = |text: String| xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    assert_eq!(hash(format!("{a}{b}")), 0x6207_1f0f_cfb0_5e23);
    assert_eq!(hash(format!("{b}{a}")), 0x7c99_7449_02f7_cb50);
    assert_eq!(Dialer::between(&a, &b), Dialer::Local);
    assert_eq!(Dialer::between(&b, &a), Dialer::Remote);
}
