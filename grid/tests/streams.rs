//! Streams between real servers: messages both ways, half-close, ends, cancellation.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use grid::{HandlerId, Limits, Route};
use support::{Server, within};

const DOUBLE: HandlerId = HandlerId::new(210);

#[tokio::test]
async fn b22_b25_messages_both_ways_in_order_and_a_half_close() {
    let servers = Server::cluster(2, &Limits::default()).await;
    let (one, two) = (&servers[0], &servers[1]);
    two.manager
        .register_stream(Route::new(DOUBLE), |_, payload, mut input, mut output| async move {
            output.send(payload.unwrap_or_default()).await?;
            while let Some(message) = input.next().await {
                let message = message?;
                output.send(Bytes::from(message.repeat(2))).await?;
            }
            Ok(())
        })
        .expect("free");
    let connection = one.connected(&two.url).await;
    let stream = within("opening", async { connection.stream(DOUBLE, "first").await });
    let (mut sender, mut receiver) = stream.await.expect("it opens").split();
    let sending = tokio::spawn(async move {
        for number in 0..1000_u32 {
            sender.send(number.to_string()).await.expect("the handler takes it");
        }
        sender.finish().await.expect("the handler is there");
    });
    assert_eq!(receiver.next().await.expect("the payload").expect("well"), "first");
    for number in 0..1000_u32 {
        let message = within("a message", receiver.next()).await.expect("more").expect("well");
        assert_eq!(message, number.to_string().repeat(2));
    }
    assert!(within("the end", receiver.next()).await.is_none());
    sending.await.expect("no panic");
    drop(receiver);
    one.is_quiescent().await;
    two.is_quiescent().await;
}
