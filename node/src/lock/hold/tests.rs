//! Tests of the client side of a held lock, against a scripted server.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grid::{Auth, HandlerError, Manager, TypedOutput};
use tokio::net::TcpListener;

use super::*;

type Input = TypedReceiver<Ping>;
type Output = TypedOutput<HoldResponse>;

/// A server and its client, both in this process.
struct Scripted {
    server: Manager,
    client: Manager,
}

impl Scripted {
    /// Creates a server that handles lock requests with `script`.
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
            let auth = Auth::shared_secret(b"the shared secret").expect("it is long enough");
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

    async fn acquire(&self) -> Result<LockHold, HoldError> {
        let connection = self.client.connection(self.server.local().as_str()).expect("it is known");
        connection.wait_connected().await.expect("both run");
        let request = HoldRequest {
            resources: vec!["bucket/object".to_owned()],
            read: false,
            timeout_ms: 10_000,
            source: "a test".to_owned(),
        };
        LockHold::acquire(&connection, &request).await
    }
}

fn granted() -> HoldResponse {
    HoldResponse::Granted { token: Some(7), uid: "the id".to_owned(), valid_for_ms: 3_600_000 }
}

/// Grants the lock, and responds to the next `pings` pings with this validity.
async fn grant(
    input: &mut Input,
    output: &mut Output,
    pings: u64,
    valid_for_ms: u64,
) -> Result<(), HandlerError> {
    output.send(&granted()).await?;
    for _ in 0..pings {
        let Some(ping) = input.next().await else { return Ok(()) };
        output.send(&HoldResponse::Pong { number: ping?.number, valid_for_ms }).await?;
    }
    Ok(())
}

const HOUR_MS: u64 = 3_600_000;

#[tokio::test]
async fn refusal_carries_its_reason() {
    let scripted = Scripted::new(|_input, mut output| async move {
        let why = "held by others".to_owned();
        Ok(output.send(&HoldResponse::Refused { reason: Refusal::TimedOut, why }).await?)
    });
    match scripted.await.acquire().await {
        Err(HoldError::Refused { reason: Refusal::TimedOut, why }) => {
            assert_eq!(why, "held by others");
        }
        other => panic!("{:?}", other.map(|hold| hold.grant)),
    }
}

#[tokio::test]
async fn grant_without_a_valid_pong_is_not_a_held_lock() {
    let scripted =
        Scripted::new(
            |mut input, mut output| async move { grant(&mut input, &mut output, 1, 0).await },
        );
    match scripted.await.acquire().await {
        Err(HoldError::LostBeforeStart(LossCause::Unconfirmed)) => {}
        other => panic!("{:?}", other.map(|hold| hold.grant)),
    }
}

#[tokio::test]
async fn lock_without_pongs_is_lost_in_time_for_the_command_to_end() {
    let scripted = Scripted::new(|mut input, mut output| async move {
        grant(&mut input, &mut output, 1, 500).await?;
        std::future::pending().await
    })
    .await;
    let mut hold = scripted.acquire().await.expect("it is granted");
    let mut reported = Vec::new();
    assert_eq!(hold.wait_lost(|deadlines| reported.push(deadlines)).await, LossCause::Unconfirmed);
    let deadlines = hold.deadlines().expect("it was confirmed once");
    assert!(SharedClock::now() >= deadlines.terminate_at, "it ends no earlier");
    assert_eq!(reported, [deadlines], "the watchdog gets them");
}

#[tokio::test]
async fn lock_lasts_while_confirmed_and_ends_when_reported_lost() {
    let scripted = Scripted::new(|mut input, mut output| async move {
        // A validity lasts for one ping interval, but not for two.
        grant(&mut input, &mut output, 3, 1_300).await?;
        Ok(output.send(&HoldResponse::Lost { why: "forced".to_owned() }).await?)
    })
    .await;
    let mut hold = scripted.acquire().await.expect("it is granted");
    assert_eq!(hold.grant, Grant { token: Some(7), uid: "the id".to_owned() });
    assert_eq!(hold.wait_lost(|_| ()).await, LossCause::Reported("forced".to_owned()));
}

#[tokio::test]
async fn disconnect_ends_the_lock_at_once() {
    let scripted = Scripted::new(|mut input, mut output| async move {
        grant(&mut input, &mut output, u64::MAX, HOUR_MS).await
    })
    .await;
    let mut hold = scripted.acquire().await.expect("it is granted");
    let Scripted { server, client: _client } = scripted;
    let (lost, ()) = tokio::join!(hold.wait_lost(|_| ()), server.shutdown(Duration::ZERO));
    assert!(matches!(lost, LossCause::Failed(_) | LossCause::StreamEnded), "{lost:?}");
}

#[tokio::test]
async fn release_returns_once_the_server_has_released() {
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
    hold.release(ReleaseWait::Long).await;
    assert!(is_released.load(Ordering::SeqCst));
}
