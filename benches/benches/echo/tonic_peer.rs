//! An echo through tonic: unary calls over one HTTP/2 connection, with its own defaults.
//!
//! It is spared what the code that it generates would add: the codec takes bytes as they are, where
//! protobuf would copy them, and there is one method and no router before it. Neither deadlines nor
//! checksums are asked of it, which grid has on.

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

use crate::load::Peer;

/// A client's connection to its server.
#[derive(Clone)]
pub(crate) struct TonicPeer {
    client: tonic::client::Grpc<Channel>,
}

impl TonicPeer {
    pub(crate) fn connect(server: &Runtime, client: &Runtime) -> Self {
        let listener =
            server.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        // The one setting that a listener of one's own does not take over from the server's.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        server.spawn(Server::builder().serve_with_incoming(Echo, incoming));
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        let channel = client.block_on(endpoint.connect()).expect("it listens");
        Self { client: tonic::client::Grpc::new(channel) }
    }
}

impl Peer for TonicPeer {
    const NAME: &'static str = "tonic";

    async fn echo(&mut self, payload: Bytes) -> Bytes {
        let path = PathAndQuery::from_static("/bench.Echo/Echo");
        self.client.ready().await.expect("the channel stands");
        let answer = self.client.unary(Request::new(payload), path, BytesCodec).await;
        answer.expect("an echo does not fail").into_inner()
    }
}

/// The server: an HTTP service, as tonic's generated ones are.
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

/// Its one method.
struct EchoMethod;

impl UnaryService<Bytes> for EchoMethod {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

/// The payload is the message.
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
