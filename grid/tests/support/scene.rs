//! A server, an honest other server that is connected to it, and a scripted peer.

use grid::proto::handshake::Dialler;
use grid::proto::message::{Flags, Header, Op};
use grid::{Connection, Limits};

use super::{ECHO, Place, ScriptedPeer, Server, within};

/// A server, an honest other server that is connected to it, and a scripted peer.
pub struct Scene {
    pub server: Server,
    pub honest: Server,
    pub peer: ScriptedPeer,
    pub peer_url: String,
}

impl Scene {
    pub async fn new(limits: Limits) -> Self {
        let place = Place::new().await;
        let honest = Place::new().await;
        let scripted = Place::that(Dialler::Local, &place.url).await;
        let urls = [place.url.clone(), honest.url.clone(), scripted.url.clone()];
        let server = Server::start(place, &urls, limits.clone());
        let honest = Server::start(honest, &urls, limits);
        honest.connected(&server.url).await;
        server.connected(&honest.url).await;
        let peer = ScriptedPeer::dial(&server.url, &scripted.url).await;
        let scene = Self { server, honest, peer, peer_url: scripted.url };
        within("connecting", scene.connection().wait_connected()).await.expect("not shut down");
        scene
    }

    /// The server's connection to the scripted peer.
    pub fn connection(&self) -> Connection {
        self.server.connection(&self.peer_url)
    }

    pub async fn dial_again(&mut self) {
        self.peer = ScriptedPeer::dial(&self.server.url, &self.peer_url).await;
        within("connecting", self.connection().wait_connected()).await.expect("not shut down");
    }

    /// The peer is answered as any other.
    pub async fn peer_is_served(&mut self) {
        self.peer.send(request(1_000), b"are you there?").await;
        loop {
            let message = self.peer.next_message().await.expect("the connection goes on");
            if message.header.mux_id == 1_000 {
                assert_eq!(message.payload, &b"are you there?"[..]);
                return;
            }
        }
    }

    /// Nothing was left behind, and the honest server never noticed.
    pub async fn nothing_happened(&self) {
        let answer = self.honest.connection(&self.server.url).request(ECHO, "hello").await;
        assert_eq!(answer.expect("the honest server is served"), "hello");
        let answer = self.server.connection(&self.honest.url).request(ECHO, "hello").await;
        assert_eq!(answer.expect("the honest server serves"), "hello");
        assert_eq!(self.honest.connection(&self.server.url).stats().connections, 1);
        self.server.is_quiescent().await;
    }
}

/// A request for an echo.
pub fn request(mux_id: u64) -> Header {
    Header { handler: ECHO.get(), flags: Flags::EOF, ..Header::new(mux_id, Op::Request) }
}
