//! The lock as the tool sees it, against a server that does as it is told.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grid::{Auth, HandlerError, Manager, TypedOutput};
use tokio::net::TcpListener;

use super::*;

type Input = TypedReceiver<Ping>;
type Output = TypedOutput<HoldAnswer>;

/// A server and a client of it, both in this process.
struct Scripted {
    server: Manager,
    client: Manager,
}

impl Scripted {
    /// The server answers those who want a lock with `script`.
    async fn new<F, Fut>(script: F) -> Self
    where
        F: Fn(Input, Output) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
            TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
        ];
        let names = listeners
            .each_ref()
            .map(|listener| format!("http://{}", listener.local_addr().expect("it is bound")));
        let [server, client] = names.each_ref().map(|name| {
            let auth = Auth::shared_secret(b"what both know").expect("it is long enough");
            Manager::builder(name).servers(names.clone()).auth(auth).build().expect("names differ")
        });
        HOLD_LOCK
            .register(&server, move |_context, _request, input, output| script(input, output))
            .expect("nothing else is registered");
        for (manager, listener) in [&server, &client].into_iter().zip(listeners) {
            manager.start().expect("there is a runtime");
            tokio::spawn(manager.clone().serve(listener));
        }
        Self { server, client }
    }

    async fn acquire(&self) -> Result<Hold, HoldError> {
        let connection = self.client.connection(self.server.local().as_str()).expect("it is known");
        connection.wait_connected().await.expect("both run");
        let request = HoldRequest {
            resources: vec!["bucket/object".to_owned()],
            read: false,
            timeout_ms: 10_000,
            source: "a test".to_owned(),
        };
        Hold::acquire(&connection, &request).await
    }
}

fn granted() -> HoldAnswer {
    HoldAnswer::Granted { token: 7, uid: "the id".to_owned(), valid_for_ms: 3_600_000 }
}

/// Grants, and answers the next `pings` pings with this time.
async fn grant(
    input: &mut Input,
    output: &mut Output,
    pings: u64,
    valid_for_ms: u64,
) -> Result<(), HandlerError> {
    output.send(&granted()).await?;
    for _ in 0..pings {
        let Some(ping) = input.next().await else { return Ok(()) };
        output.send(&HoldAnswer::Pong { number: ping?.number, valid_for_ms }).await?;
    }
    Ok(())
}

const HOUR_MS: u64 = 3_600_000;

#[tokio::test]
async fn a_lock_that_is_refused_says_why() {
    let scripted = Scripted::new(|_input, mut output| async move {
        let why = "held by others".to_owned();
        Ok(output.send(&HoldAnswer::Refused { reason: Refusal::TimedOut, why }).await?)
    });
    match scripted.await.acquire().await {
        Err(HoldError::Refused { reason: Refusal::TimedOut, why }) => {
            assert_eq!(why, "held by others");
        }
        other => panic!("{:?}", other.map(|hold| hold.grant)),
    }
}

#[tokio::test]
async fn a_grant_is_worth_nothing_before_its_first_pong() {
    let scripted =
        Scripted::new(
            |mut input, mut output| async move { grant(&mut input, &mut output, 1, 0).await },
        );
    match scripted.await.acquire().await {
        Err(HoldError::LostAtOnce(Lost::Unconfirmed)) => {}
        other => panic!("{:?}", other.map(|hold| hold.grant)),
    }
}

#[tokio::test]
async fn silence_ends_the_lock_when_its_certainty_ends_and_not_earlier() {
    let scripted = Scripted::new(|mut input, mut output| async move {
        grant(&mut input, &mut output, 1, 500).await?;
        std::future::pending().await
    })
    .await;
    let begun = Instant::now();
    let mut hold = scripted.acquire().await.expect("it is granted");
    assert_eq!(hold.until_lost().await, Lost::Unconfirmed);
    assert!(begun.elapsed() >= Duration::from_millis(495), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_lock_lasts_as_long_as_it_is_confirmed_and_ends_at_the_server_s_word() {
    let scripted = Scripted::new(|mut input, mut output| async move {
        // Each alone would end before the next ping but one.
        grant(&mut input, &mut output, 3, 1_900).await?;
        Ok(output.send(&HoldAnswer::Lost { why: "forced".to_owned() }).await?)
    })
    .await;
    let mut hold = scripted.acquire().await.expect("it is granted");
    assert_eq!(hold.grant, Grant { token: 7, uid: "the id".to_owned() });
    assert_eq!(hold.until_lost().await, Lost::Told("forced".to_owned()));
}

#[tokio::test]
async fn a_server_that_is_gone_ends_the_lock_at_once() {
    let scripted = Scripted::new(|mut input, mut output| async move {
        grant(&mut input, &mut output, u64::MAX, HOUR_MS).await
    })
    .await;
    let mut hold = scripted.acquire().await.expect("it is granted");
    let Scripted { server, client: _client } = scripted;
    let (lost, ()) = tokio::join!(hold.until_lost(), server.shutdown(Duration::ZERO));
    assert!(matches!(lost, Lost::Failed(_) | Lost::Ended), "{lost:?}");
}

#[tokio::test]
async fn a_release_returns_when_the_server_has_let_go() {
    let is_released = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&is_released);
    let scripted = Scripted::new(move |mut input, mut output| {
        let released = Arc::clone(&released);
        async move {
            grant(&mut input, &mut output, u64::MAX, HOUR_MS).await?;
            tokio::task::yield_now().await;
            released.store(true, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    let hold = scripted.acquire().await.expect("it is granted");
    assert!(!is_released.load(Ordering::SeqCst));
    hold.release().await;
    assert!(is_released.load(Ordering::SeqCst));
}
