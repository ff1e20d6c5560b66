//! Servers as processes: they find each other, lose each other, and end in good order.
#![allow(clippy::expect_used, reason = "this is how tests fail")]

mod support;

use support::{Cluster, Directory, Server, eventually, free_addresses, get, gridwire, request, run};

#[test]
fn two_servers_survive_the_kill_of_either() {
    let mut cluster = Cluster::start();
    cluster.servers.iter().for_each(|server| server.wait_ready(200));
    cluster.echo(0, "hello");
    cluster.echo(1, "hello");
    // Who dials is decided by the names: one of these kills takes the dialler, one the other.
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

/// A server that has no peers.
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
    Server::start(&address, command).expect("a port that was free is still free")
}

#[test]
fn health_is_answered_beside_the_grid() {
    let directory = Directory::new();
    let server = start_alone(&directory);
    let live = get(&server.address, "/health/live").expect("an answer");
    assert_eq!((live.status, live.body.as_str()), (200, "live\n"));
    server.wait_ready(200);

    let ready = get(&server.address, "/health/ready").expect("an answer");
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
        let answer = request(&server.address, method, path).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

#[test]
fn a_server_that_misses_its_peers_is_not_ready_and_names_them() {
    let mut cluster = Cluster::start();
    cluster.servers[0].kill();
    cluster.servers[1].wait_ready(503);
    let answer = get(&cluster.servers[1].address, "/health/ready").expect("an answer");
    let json: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let peers = json["peers"].as_array().expect("a list");
    let missed = peers.iter().find(|peer| peer["remote"] == cluster.servers[0].url().as_str());
    let state = missed.expect("it is listed")["state"].as_str().expect("a text");
    assert!(["connecting", "backoff"].contains(&state), "{json}");
}

/// What `/health/ready` of a server says.
fn readiness(server: &Server) -> serde_json::Value {
    let answer = get(&server.address, "/health/ready").expect("an answer");
    serde_json::from_str(&answer.body).expect("JSON")
}

#[test]
fn servers_connect_for_locks_too_and_count_no_client() {
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
            assert_eq!(peers.as_array().expect("a list").len(), 1, "the client is none: {json}");
            assert_eq!(peers[0]["remote"], peer.url().as_str(), "{json}");
        }
    }
}

#[test]
fn signals_end_a_server_in_good_order() {
    let directory = Directory::new();
    for signal in ["TERM", "INT"] {
        assert_eq!(start_alone(&directory).end(signal), Some(0), "{signal}");
    }
}

#[test]
fn an_address_in_use_is_said_to_be() {
    let directory = Directory::new();
    let server = start_alone(&directory);
    let url = server.url();
    let secret_file = directory.path("secret");
    let ended = run(&[
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
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let expected = format!("cannot listen on {}", server.address);
    assert!(ended.stderr.contains(&expected), "{ended:?}");
    assert!(ended.stderr.contains("another process listens there already"), "{ended:?}");
}
