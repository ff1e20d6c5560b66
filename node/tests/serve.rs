//! Server processes: they connect, lose each other, reconnect and shut down.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use support::{
    Cluster, Directory, Server, eventually, free_addresses, get, gridwire, request, run,
};

#[test]
fn two_servers_survive_the_kill_of_either() {
    let mut cluster = Cluster::start();
    cluster.servers.iter().for_each(|server| server.wait_ready(200));
    cluster.echo(0, "hello");
    cluster.echo(1, "hello");
    // The names decide which end is the dialer: one of these kills takes the dialer, one the
    // acceptor.
    for victim in [0, 1] {
        let survivor = 1 - victim;
        cluster.servers[victim].kill();
        cluster.servers[survivor].wait_ready(503);
        cluster.echo(survivor, "still here");
        cluster.servers[victim].restart();
        cluster.servers.iter().for_each(|server| server.wait_ready(200));
        cluster.echo(victim, "back again");
        cluster.echo(survivor, "as before");
    }
}

/// Starts a single server.
fn start_alone(directory: &Directory) -> Server {
    let secret_file = directory.file("secret", "a good secret");
    let [address] = free_addresses();
    let name = format!("http://{address}");
    let command = gridwire(&[
        "serve",
        "--listen",
        &address,
        "--name",
        &name,
        "--peers",
        "",
        "--secret-file",
        &secret_file,
    ]);
    Server::start(&address, command)
}

#[test]
fn health_endpoints_share_the_port_of_the_grid() {
    let directory = Directory::new();
    let server = start_alone(&directory);
    let live = get(&server.address, "/health/live").expect("a response");
    assert_eq!((live.status, live.body.as_str()), (200, "live\n"));
    server.wait_ready(200);

    let ready = get(&server.address, "/health/ready").expect("a response");
    assert_eq!(ready.status, 200, "{ready:?}");
    let json: serde_json::Value = serde_json::from_str(&ready.body).expect("JSON");
    assert_eq!(json["ready"], true);
    assert_eq!(json["peers"], serde_json::json!([]));
    assert_eq!(json["locks"], serde_json::json!({ "open": true, "connected": 0, "peers": [] }));

    for (method, path, status) in [
        ("HEAD", "/health/live", 200),
        ("POST", "/health/live", 405),
        ("GET", "/", 404),
        ("GET", "/health", 404),
        ("GET", "/minio/grid/v1", 426),
        ("GET", "/minio/grid/lock/v1", 426),
    ] {
        let response = request(&server.address, method, path).expect("a response");
        assert_eq!(response.status, status, "{method} {path}");
    }
}

#[test]
fn server_without_its_peers_is_not_ready_and_names_them() {
    let mut cluster = Cluster::start();
    cluster.servers[0].kill();
    cluster.servers[1].wait_ready(503);
    let response = get(&cluster.servers[1].address, "/health/ready").expect("a response");
    let json: serde_json::Value = serde_json::from_str(&response.body).expect("JSON");
    let peers = json["peers"].as_array().expect("a list");
    let missed = peers.iter().find(|peer| peer["remote"] == cluster.servers[0].url().as_str());
    let state = missed.expect("it is listed")["state"].as_str().expect("a text");
    assert!(["connecting", "backoff"].contains(&state), "{json}");
}

/// The body of `/health/ready` of a server.
fn readiness(server: &Server) -> serde_json::Value {
    let response = get(&server.address, "/health/ready").expect("a response");
    serde_json::from_str(&response.body).expect("JSON")
}

#[test]
fn servers_connect_on_the_lock_grid_and_do_not_count_clients() {
    let cluster = Cluster::start();
    for (server, peer) in [(0, 1), (1, 0)] {
        let (server, peer) = (&cluster.servers[server], &cluster.servers[peer]);
        eventually("the grid of the locks is connected", || {
            (readiness(server)["locks"]["connected"] == 1).then_some(())
        });
        server.wait_ready(200);
        let json = readiness(server);
        assert_eq!((&json["connected"], &json["needed"]), (&1.into(), &1.into()), "{json}");
        for peers in [&json["peers"], &json["locks"]["peers"]] {
            assert_eq!(
                peers.as_array().expect("a list").len(),
                1,
                "the client is not a peer: {json}"
            );
            assert_eq!(peers[0]["remote"], peer.url().as_str(), "{json}");
        }
    }
}

#[test]
fn signals_shut_a_server_down_gracefully() {
    let directory = Directory::new();
    for signal in ["TERM", "INT"] {
        assert_eq!(start_alone(&directory).end(signal), Some(0), "{signal}");
    }
}

#[test]
fn address_in_use_is_reported() {
    let directory = Directory::new();
    let server = start_alone(&directory);
    let url = server.url();
    let secret_file = directory.path("secret");
    let output = run(&[
        "serve",
        "--listen",
        &server.address,
        "--name",
        &url,
        "--peers",
        "",
        "--secret-file",
        &secret_file,
    ]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let expected = format!("cannot listen on {}", server.address);
    assert!(output.stderr.contains(&expected), "{output:?}");
    assert!(output.stderr.contains("another process listens there already"), "{output:?}");
}
