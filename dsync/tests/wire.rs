//! Wire format: the bytes that MinIO peers send and expect, and responses to invalid arguments.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cluster::{Cluster, TIMEOUT, eventually, within};
use dsync::wire::{self, LockArgs, LockResponse};
use dsync::{DRWMutex, Dsync, Limits, LockOptions, Token};
use grid::{Auth, HandlerId, LOCK_GRID_PATH, Manager, Route};
use proptest::prelude::*;
use proptest::{collection, option};
use tokio::net::TcpListener;

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("encodable")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
    rmp_serde::from_slice(bytes).unwrap_or_else(|error| panic!("{bytes:02x?}: {error}"))
}

fn args(uid: &str) -> LockArgs {
    LockArgs { uid: uid.to_owned(), ..LockArgs::default() }
}

// ---- bytes ----

/// Bytes as written by MinIO's generated msgpack code.
const ARGS: &[u8] = b"\x85\xa3UID\xa2u1\xa9Resources\x92\xa1a\xa3b/c\xa5Owner\xa1n\xa6Source\xa1s\
                      \xa6Quorum\x03";
const RESPONSE: &[u8] = b"\x82\xa4Code\x01\xa3Err\xa5taken";

#[test]
fn arguments_and_responses_without_extension_keys_match_minio_byte_for_byte() {
    let lock = LockArgs {
        uid: "u1".to_owned(),
        resources: vec!["a".to_owned(), "b/c".to_owned()],
        owner: "n".to_owned(),
        source: "s".to_owned(),
        quorum: Some(3),
        ..LockArgs::default()
    };
    assert_eq!(encode(&lock), ARGS);
    assert_eq!(decode::<LockArgs>(ARGS), lock);
    let response = LockResponse { code: 1, error: "taken".to_owned(), ..LockResponse::default() };
    assert_eq!(encode(&response), RESPONSE);
    assert_eq!(decode::<LockResponse>(RESPONSE), response);
}

#[test]
fn keys_that_minio_omits_or_sets_to_nil_are_accepted() {
    let unlock = b"\x85\xa3UID\xa2u1\xa9Resources\xc0\xa5Owner\xa0\xa6Source\xa0\xa6Quorum\xc0";
    assert_eq!(decode::<LockArgs>(unlock), args("u1"));
    let sent = b"\x85\xa3UID\xa2u1\xa9Resources\x90\xa5Owner\xa0\xa6Source\xa0\xa6Quorum\xc0";
    assert_eq!(encode(&args("u1")), sent, "an array in the other direction");
    assert_eq!(decode::<LockArgs>(b"\x81\xa3UID\xa2u1"), args("u1"));
    assert_eq!(decode::<LockArgs>(b"\x80"), LockArgs::default());
    assert_eq!(decode::<LockResponse>(b"\x80"), LockResponse::default());
}

#[test]
fn numbers_are_accepted_in_every_form_and_unknown_keys_are_skipped() {
    for three in [&b"\x03"[..], b"\xcc\x03", b"\xcd\x00\x03", b"\xd0\x03", b"\xd1\x00\x03"] {
        let args: LockArgs = decode(&[b"\x81\xa6Quorum", three].concat());
        assert_eq!(args.quorum, Some(3));
        let response: LockResponse = decode(&[b"\x82\xa4Code", three, b"\xa4Wall", three].concat());
        assert_eq!((response.code, response.wall), (3, Token::new(3)));
    }
    let negative: LockArgs = decode(b"\x81\xa6Quorum\xff");
    assert_eq!(negative.quorum, Some(-1));
    // A map, an array, a float and bytes that a later version may add.
    let more =
        b"\x85\xa1A\x81\xa1x\x92\x01\xc3\xa1B\xcb\0\0\0\0\0\0\0\0\xa1C\xc4\x02zz\xa3UID\xa2u1\
                 \xa1D\xc0";
    assert_eq!(decode::<LockArgs>(more), args("u1"));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,40}", Just(String::new())]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..300_u64]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arguments_round_trip(
        (uid, owner, source, waiter) in (text(), text(), text(), text()),
        resources in collection::vec(text(), 0..20),
        quorum in option::of(any::<i64>()),
        (leased, write, is_valid) in any::<(bool, bool, bool)>(),
        (token, proposed_token, ticket_time) in (number(), number(), number()),
        (epoch, list_hash) in (number(), number()),
    ) {
        let [token, proposed_token, ticket_time] =
            [token, proposed_token, ticket_time].map(Token::new);
        let args = LockArgs {
            uid, resources, owner, source, quorum, leased, write, token, proposed_token,
            ticket_time, waiter, is_valid, epoch, list_hash,
        };
        prop_assert_eq!(decode::<LockArgs>(&encode(&args)), args);
    }

    #[test]
    fn responses_round_trip(
        (code, error, reinstated, is_queued) in (any::<u8>(), text(), any::<bool>(), any::<bool>()),
        (token, highest_token, wall, lease_ms) in (number(), number(), number(), number()),
        (last_ticket, epoch, list_hash) in (number(), number(), number()),
    ) {
        let [token, highest_token, wall, last_ticket] =
            [token, highest_token, wall, last_ticket].map(Token::new);
        let response = LockResponse {
            code, error, token, highest_token, wall, lease_ms, reinstated, is_queued, last_ticket,
            epoch, list_hash,
        };
        prop_assert_eq!(decode::<LockResponse>(&encode(&response)), response);
    }

    #[test]
    fn random_bytes_are_an_error_and_no_panic(bytes in collection::vec(any::<u8>(), 0..60)) {
        let _ = rmp_serde::from_slice::<LockArgs>(&bytes);
        let _ = rmp_serde::from_slice::<LockResponse>(&bytes);
        // Half of them begin with a valid prefix.
        let prefix = &ARGS[..bytes.len().min(ARGS.len())];
        let _ = rmp_serde::from_slice::<LockArgs>(&[prefix, &bytes].concat());
    }
}

// ---- responses of a locker ----

const LOCK: u8 = 1;
const UNLOCK: u8 = 3;
const REFRESH: u8 = 5;
const FORCE_UNLOCK: u8 = 6;
const WAIT: u8 = 129;

/// Calls the first server's locker from the second, as any peer could.
async fn call(cluster: &Cluster, handler: u8, payload: Vec<u8>) -> Result<LockResponse, String> {
    let connection = cluster.servers[1].manager.connection(&cluster.urls[0]).expect("configured");
    connection.wait_connected().await.expect("both are up");
    let response = connection.request(HandlerId::new(handler), payload).timeout(TIMEOUT).await;
    response.map(|response| decode(&response)).map_err(|error| error.to_string())
}

async fn code(cluster: &Cluster, handler: u8, args: &LockArgs) -> u8 {
    call(cluster, handler, encode(args)).await.expect("a response").code
}

fn lock_of(uid: &str, resource: &str) -> LockArgs {
    let resources = vec![resource.to_owned()];
    LockArgs { resources, owner: "old".to_owned(), ..args(uid) }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_arguments_are_refused_with_the_reason() {
    let cluster = Cluster::start(2, &Limits::default()).await;
    let long = "x".repeat(3_000);
    let many = (0..1_001).map(|n| n.to_string()).collect();
    let wrong = [
        (args("u"), "at least one resource"),
        (lock_of("u", ""), "must not be empty"),
        (lock_of("u", &long), "2048 bytes, not 3000"),
        (LockArgs { resources: many, ..args("u") }, "1000 resources, not 1001"),
        (lock_of("", "a"), "needs a UID"),
        (lock_of(&long, "a"), "1024 bytes"),
        (LockArgs { owner: long.clone(), ..lock_of("u", "a") }, "1024 bytes"),
        (LockArgs { source: long.clone(), ..lock_of("u", "a") }, "1024 bytes"),
    ];
    for (args, text) in &wrong {
        for handler in [LOCK, WAIT] {
            let response = call(&cluster, handler, encode(args)).await.expect("a response");
            assert_eq!(response.code, wire::CODE_ERROR);
            assert!(response.error.contains(text), "{text}: {}", response.error);
        }
        let reinstated = LockArgs { leased: true, ..args.clone() };
        assert_eq!(code(&cluster, REFRESH, &reinstated).await, wire::CODE_ERROR, "{text}");
    }
    for handler in [UNLOCK, REFRESH] {
        assert_eq!(code(&cluster, handler, &args("")).await, wire::CODE_ERROR);
        assert_eq!(code(&cluster, handler, &args(&long)).await, wire::CODE_ERROR);
    }
    assert_eq!(code(&cluster, FORCE_UNLOCK, &args("")).await, wire::CODE_NOT_FOUND);
    let stats = cluster.servers[0].dsync.stats().locker.expect("it is a locker");
    assert_eq!((stats.grants, stats.waiters), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_payloads_fail_only_their_own_call() {
    let cluster = Cluster::start(2, &Limits::default()).await;
    let garbage: [&[u8]; 6] =
        [b"", b"\xc1", b"\x85\xa3UID", b"garbage", b"\x81\xa3UID\x05", b"\xdf\xff\xff\xff\xff"];
    for handler in [LOCK, 2, UNLOCK, 4, REFRESH, FORCE_UNLOCK, 128, WAIT, 130, 131, 134, 135, 136] {
        for payload in garbage {
            let response = call(&cluster, handler, payload.to_vec()).await;
            // A map with a key that the handler does not know is still a map.
            let has_unknown_key = handler >= 128 && payload.starts_with(b"\x81");
            assert!(
                has_unknown_key || response.is_err(),
                "{handler}: {payload:02x?}: {response:?}"
            );
        }
    }
    assert_eq!(code(&cluster, LOCK, &lock_of("u1", "a")).await, wire::CODE_OK, "others succeed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minio_holder_locks_refreshes_and_unlocks() {
    let cluster = Cluster::start(2, &Limits::default()).await;
    assert_eq!(code(&cluster, LOCK, &lock_of("u1", "a")).await, wire::CODE_OK);
    assert_eq!(code(&cluster, LOCK, &lock_of("u2", "a")).await, wire::CODE_CONFLICT);
    assert_eq!(code(&cluster, REFRESH, &args("u1")).await, wire::CODE_OK, "the id suffices");
    assert_eq!(code(&cluster, REFRESH, &args("u2")).await, wire::CODE_NOT_FOUND);
    let refused = cluster.mutex(0, "a").lock(within(30)).await;
    refused.expect_err("the MinIO holder's lock excludes it: one of two lockers refuses");
    assert_eq!(code(&cluster, UNLOCK, &args("u1")).await, wire::CODE_OK);
    drop(cluster.mutex(0, "a").lock(LockOptions::default()).await.expect("it is free"));
    assert_eq!(code(&cluster, LOCK, &lock_of("u3", "b")).await, wire::CODE_OK);
    let forced = LockArgs { resources: vec!["b".to_owned()], ..args("") };
    assert_eq!(code(&cluster, FORCE_UNLOCK, &forced).await, wire::CODE_OK);
    assert_eq!(code(&cluster, REFRESH, &args("u3")).await, wire::CODE_NOT_FOUND, "at once");
    assert_eq!(code(&cluster, LOCK, &lock_of("u4", "b")).await, wire::CODE_OK);
}

const LOCKER_STATE: u8 = 134;
const REFRESH_BATCH: u8 = 135;
const CANCEL_TICKET: u8 = 136;

fn leased(uid: &str, resource: &str) -> LockArgs {
    LockArgs { leased: true, write: true, quorum: Some(2), ..lock_of(uid, resource) }
}

#[tokio::test(flavor = "multi_thread")]
async fn b58_responses_report_the_place_of_a_ticket_and_a_cancellation_ends_it() {
    let cluster = Cluster::start(2, &Limits::default()).await;
    assert_eq!(code(&cluster, LOCK, &leased("1", "a")).await, wire::CODE_OK);
    let ticket_time = Token::new(1_000);
    let waiter = LockArgs { waiter: "w".to_owned(), ticket_time, ..leased("2", "a") };
    let queued = |response: LockResponse| (response.code, response.is_queued, response.last_ticket);
    let refused = call(&cluster, LOCK, encode(&waiter)).await.expect("a response");
    assert_eq!(queued(refused), (wire::CODE_CONFLICT, true, ticket_time));
    let unlock = LockArgs { write: true, ..waiter.clone() };
    let kept = call(&cluster, UNLOCK, encode(&unlock)).await.expect("a response");
    assert_eq!(queued(kept), (wire::CODE_OK, true, ticket_time));
    assert_eq!(
        code(&cluster, UNLOCK, &LockArgs { leased: true, ..args("1") }).await,
        wire::CODE_OK
    );
    let passed = call(&cluster, LOCK, encode(&leased("3", "a"))).await.expect("a response");
    assert_eq!(passed.code, wire::CODE_CONFLICT);
    assert!(passed.error.contains("older waiter"), "{}", passed.error);
    let cancel = LockArgs { leased: true, waiter: "w".to_owned(), ticket_time, ..args("") };
    let cancelled = call(&cluster, CANCEL_TICKET, encode(&cancel)).await.expect("a response");
    assert_eq!(queued(cancelled), (wire::CODE_OK, false, ticket_time));
    assert_eq!(code(&cluster, LOCK, &leased("4", "a")).await, wire::CODE_OK);
    assert_eq!(code(&cluster, CANCEL_TICKET, &args("")).await, wire::CODE_ERROR, "no ticket");
}

#[tokio::test(flavor = "multi_thread")]
async fn b52_a_batch_refreshes_each_of_its_locks_and_is_bounded() {
    let cluster = Cluster::start(2, &Limits::default()).await;
    for uid in ["1", "2"] {
        assert_eq!(code(&cluster, LOCK, &leased(uid, uid)).await, wire::CODE_OK);
    }
    let connection = cluster.servers[1].manager.connection(&cluster.urls[0]).expect("configured");
    let batch = async |refreshes: Vec<LockArgs>| {
        let args = wire::RefreshBatchArgs { refreshes };
        let request = connection.request(HandlerId::new(REFRESH_BATCH), encode(&args));
        let response = request.timeout(TIMEOUT).await.map_err(|error| error.to_string())?;
        let responses = decode::<wire::RefreshBatchResponse>(&response).responses;
        Ok::<_, String>(responses.into_iter().map(|one| one.code).collect::<Vec<_>>())
    };
    let wrong = LockArgs { quorum: Some(1), ..leased("1", "1") };
    let refreshes = vec![leased("2", "2"), args("unknown"), wrong, leased("1", "1")];
    let codes = batch(refreshes).await;
    let expected = [wire::CODE_OK, wire::CODE_NOT_FOUND, wire::CODE_ERROR, wire::CODE_OK];
    assert_eq!(codes, Ok(expected.to_vec()), "in order; one holder counts other lockers");
    let max = dsync::limits::REFRESHES_PER_BATCH;
    assert_eq!(batch(vec![args("unknown"); max]).await.map(|codes| codes.len()), Ok(max));
    let error = batch(vec![args("unknown"); max + 1]).await.expect_err("one too many");
    assert!(error.contains("256 refreshes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b53_a_server_reports_the_state_of_its_locker() {
    let cluster = Cluster::start(2, &Limits::default()).await;
    let connection = cluster.servers[1].manager.connection(&cluster.urls[0]).expect("configured");
    connection.wait_connected().await.expect("both are up");
    let query = encode(&wire::LockerStateArgs::default());
    let request = connection.request(HandlerId::new(LOCKER_STATE), query).timeout(TIMEOUT);
    let state: wire::LockerStateResponse = decode(&request.await.expect("a response"));
    assert!(state.is_locker && state.is_gate_open && state.highest_token > Token::default());
}

// ---- MinIO lockers ----

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    (listener, url)
}

fn manager(url: &str, urls: &[String]) -> Manager {
    let auth = Auth::shared_secret(b"what all servers know").expect("long enough");
    let builder = Manager::builder(url).servers(urls).auth(auth).path(LOCK_GRID_PATH);
    builder.build().expect("a valid configuration")
}

/// Returns a manager that responds like a MinIO locker, with two keys and nothing else. It refuses
/// the first `refusals` lock requests.
fn minio_locker(url: &str, urls: &[String], refusals: u64, unlocked: &Arc<AtomicU64>) -> Manager {
    let manager = manager(url, urls);
    let rpc = Arc::new(AtomicU64::new(0));
    for handler in 1..=5_u8 {
        let (rpc, unlocked) = (Arc::clone(&rpc), Arc::clone(unlocked));
        let response = move |_context, payload: Bytes| {
            let args: LockArgs = decode(&payload);
            assert!(!args.uid.is_empty());
            let is_refused = handler == LOCK && rpc.fetch_add(1, Ordering::Relaxed) < refusals;
            unlocked.fetch_add(u64::from(handler == UNLOCK), Ordering::Relaxed);
            let response: &[u8] =
                if is_refused { RESPONSE } else { b"\x82\xa4Code\x00\xa3Err\xa0" };
            async move { Ok(Bytes::from_static(response)) }
        };
        manager.register(Route::new(HandlerId::new(handler)), response).expect("a free handler");
    }
    manager
}

#[tokio::test(flavor = "multi_thread")]
async fn b55_minio_lockers_are_polled_and_their_responses_suffice_for_a_lock() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(listen().await);
    }
    let urls: Vec<_> = listeners.iter().map(|(_, url)| url.clone()).collect();
    let unlocked = Arc::new(AtomicU64::new(0));
    let mut managers = vec![manager(&urls[0], &urls)];
    managers.extend(urls[1..].iter().map(|url| minio_locker(url, &urls, 2, &unlocked)));
    let dsync = Dsync::builder(&managers[0]).lockers(&urls[1..]).build().expect("two lockers");
    for (manager, (listener, _)) in managers.iter().zip(listeners) {
        manager.start().expect("a runtime");
        tokio::spawn(manager.clone().serve(listener));
    }
    dsync.start();
    dsync.open();
    for url in &urls[1..] {
        let connection = managers[0].connection(url).expect("configured");
        connection.wait_connected().await.expect("it is up");
    }
    let guard = DRWMutex::new(&dsync, ["a"]).lock(LockOptions::default()).await.expect("polled");
    assert!(guard.is_held());
    let stats = dsync.stats();
    assert!(stats.attempts >= 2 && stats.notifications == 0, "{stats:?}");
    drop(guard);
    eventually("both are asked to release it", || unlocked.load(Ordering::Relaxed) >= 2).await;
}
