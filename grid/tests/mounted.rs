//! The grid beside the routes of an application, in axum.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use grid::{Limits, Manager, Route};
use support::{ECHO, ReservedAddress, Server, auth, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_storage_server_mounts_the_grid_beside_its_own_routes() {
    let (mounted, plain) = (ReservedAddress::new().await, ReservedAddress::new().await);
    let urls = [mounted.url.clone(), plain.url.clone()];
    let manager = Manager::builder(&mounted.url)
        .servers(urls.to_vec())
        .auth(auth())
        .build()
        .expect("valid configuration");
    manager
        .register(Route::new(ECHO), |_, payload: Bytes| async move { Ok(payload) })
        .expect("free");
    manager.start().expect("in a runtime");
    let router = Router::new()
        .route("/bucket/object", get(|| async { "an object" }))
        .route_service(manager.path(), manager.service());
    let ReservedAddress { listener, url } = mounted;
    let server = axum::serve(listener, router);
    tokio::spawn(async move { server.await.expect("it serves") });

    // The grid works in both directions.
    let plain = Server::start(plain, &urls, Limits::default());
    let there = plain.wait_connected(&url).await;
    assert_eq!(there.request(ECHO, "hello").await.expect("an echo"), "hello");
    let back = manager.connection(&plain.url).expect("a server");
    within("connecting", back.wait_connected()).await.expect("not shut down");
    assert_eq!(back.request(ECHO, "hello").await.expect("an echo"), "hello");

    // The application's own routes work, on the same port.
    let authority = url.strip_prefix("http://").expect("a base URL");
    let mut stream = TcpStream::connect(authority).await.expect("the port is open");
    let get =
        format!("GET /bucket/object HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await.expect("it reads");
    let mut response = String::new();
    within("a response", stream.read_to_string(&mut response)).await.expect("a whole response");
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("an object"), "{response}");
}
