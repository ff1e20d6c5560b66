//! The cluster of the tests with a misbehaving peer.

use grid::proto::handshake::Dialer;
use grid::proto::message::{Flags, Header, Op};
use grid::{Connection, Limits};

use super::{ECHO, ReservedAddress, ScriptedPeer, Server, within};

/// The server under test, an honest server that is connected to it, and a scripted peer.
pub struct ScriptedCluster {
    pub server: Server,
    pub honest: Server,
    pub peer: ScriptedPeer,
    pub peer_url: String,
}

impl ScriptedCluster {
    pub async fn new(limits: Limits) -> Self {
        let address = ReservedAddress::new().await;
        let honest = ReservedAddress::new().await;
        let scripted = ReservedAddress::dialed_by(Dialer::Local, &address.url).await;
        let urls = [address.url.clone(), honest.url.clone(), scripted.url.clone()];
        let server = Server::start(address, &urls, limits.clone());
        let honest = Server::start(honest, &urls, limits);
        honest.wait_connected(&server.url).await;
        server.wait_connected(&honest.url).await;
        let peer = ScriptedPeer::dial(&server.url, &scripted.url).await;
        let cluster = Self { server, honest, peer, peer_url: scripted.url };
        within("connecting", cluster.connection().wait_connected()).await.expect("not shut down");
        cluster
    }

    /// Returns the server's connection to the scripted peer.
    pub fn connection(&self) -> Connection {
        self.server.connection(&self.peer_url)
    }

    pub async fn redial(&mut self) {
        self.peer = ScriptedPeer::dial(&self.server.url, &self.peer_url).await;
        within("connecting", self.connection().wait_connected()).await.expect("not shut down");
    }

    /// Asserts that a request of the scripted peer gets its response.
    pub async fn assert_peer_is_served(&mut self) {
        self.peer.send(request(1_000), b"are you there?").await;
        loop {
            let message = self.peer.next_message().await.expect("the connection stays open");
            if message.header.mux_id == 1_000 {
                assert_eq!(message.payload, &b"are you there?"[..]);
                return;
            }
        }
    }

    /// Asserts that nothing is left behind and that the honest server was not affected.
    pub async fn assert_unaffected(&self) {
        let response = self.honest.connection(&self.server.url).request(ECHO, "hello").await;
        assert_eq!(response.expect("a response to the honest server"), "hello");
        let response = self.server.connection(&self.honest.url).request(ECHO, "hello").await;
        assert_eq!(response.expect("a response of the honest server"), "hello");
        assert_eq!(self.honest.connection(&self.server.url).stats().connections, 1);
        self.server.assert_quiescent().await;
    }
}

/// The header of a request to the echo handler.
pub fn request(mux_id: u64) -> Header {
    Header { handler: ECHO.get(), flags: Flags::EOF, ..Header::new(mux_id, Op::Request) }
}
