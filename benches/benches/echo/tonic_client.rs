//! Echo through tonic: unary calls over one HTTP/2 connection, with tonic's defaults.
//!
//! There is no generated code: the codec passes bytes through, where protobuf would copy them, and
//! the single method has no router. Deadlines and checksums are off here and on in grid.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::UnaryService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower_service::Service;

use crate::load::EchoClient;

/// A client's connection to its server.
#[derive(Clone)]
pub(crate) struct TonicClient {
    client: tonic::client::Grpc<Channel>,
}

impl TonicClient {
    pub(crate) fn connect(server: &Runtime, client: &Runtime) -> Self {
        let listener =
            server.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
        // The one server setting that does not apply to a listener opened by the application.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        server.spawn(Server::builder().serve_with_incoming(Echo, incoming));
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        let channel = client.block_on(endpoint.connect()).expect("the server listens");
        Self { client: tonic::client::Grpc::new(channel) }
    }
}

impl EchoClient for TonicClient {
    const NAME: &'static str = "tonic";

    async fn echo(&mut self, payload: Bytes) -> Bytes {
        let path = PathAndQuery::from_static("/bench.Echo/Echo");
        self.client.ready().await.expect("the channel is ready");
        let response = self.client.unary(Request::new(payload), path, BytesCodec).await;
        response.expect("an echo does not fail").into_inner()
    }
}

/// The server: an HTTP service like those that tonic generates.
#[derive(Clone)]
struct Echo;

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            let mut grpc = tonic::server::Grpc::new(BytesCodec);
            Ok(grpc.unary(EchoMethod, request).await)
        })
    }
}

/// The single method of [`Echo`].
struct EchoMethod;

impl UnaryService<Bytes> for EchoMethod {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

/// Passes the bytes of a message through unchanged.
#[derive(Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
