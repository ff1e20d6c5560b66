//! Server processes that are upgraded one at a time, and servers whose settings do not fit.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::Value;
use support::{Directory, PROGRAM, Server, eventually, free_addresses, get, gridwire_at};

/// Servers, each with its own directory, which are restarted with other programs and arguments.
struct Servers<const N: usize> {
    directory: Directory,
    addresses: [String; N],
    secret_file: String,
    servers: Vec<Option<Server>>,
}

impl<const N: usize> Servers<N> {
    fn new() -> Self {
        let directory = Directory::new();
        let secret_file = directory.file("secret", "a secret of all servers");
        let servers = (0..N).map(|_| None).collect();
        Self { directory, addresses: free_addresses(), secret_file, servers }
    }

    fn start(&mut self, server: usize, program: &str, arguments: &[&str], site: Option<&str>) {
        let url = |address: &String| format!("http://{address}");
        let address = &self.addresses[server];
        let peers = self.addresses.each_ref().map(url).join(",");
        let mut command = gridwire_at(program, &["serve", "--listen", address, "--initialise"]);
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(server));
        command
            .args(["--name", &url(address), "--peers", &peers, "--lock-lease", "2s"])
            .args(["--data", &self.directory.path(&format!("pool-{server}"))])
            .args(["--secret-file", &self.secret_file])
            .args(arguments)
            .envs(site.map(|site| ("GRIDWIRE_SITE", site)))
            .stderr(log.expect("the directory is writable"));
        self.servers[server] = Some(Server::start(address, command));
    }

    fn log_path(&self, server: usize) -> String {
        self.directory.path(&format!("server-{server}.log"))
    }

    fn server(&self, server: usize) -> &Server {
        self.servers[server].as_ref().expect("it was started")
    }

    /// A copy of the program that differs in one line, as another build.
    fn other_build(&self) -> String {
        let path = self.directory.path("other-build");
        std::fs::copy(PROGRAM, &path).expect("the directory has room");
        let mut program = OpenOptions::new().append(true).open(&path).expect("it was copied");
        program.write_all(b"another build\n").expect("the directory has room");
        path
    }

    fn start_all(&mut self) {
        (0..N).for_each(|server| self.start(server, PROGRAM, &[], None));
        self.wait_all_ready();
    }

    fn wait_all_ready(&self) {
        for server in 0..N {
            self.server(server).wait_ready(200);
            eventually("its locks are open", || {
                (self.readiness(server)["locks"]["open"] == true).then_some(())
            });
        }
    }

    /// Restarts a server, and waits until it is ready, before any other is touched.
    fn replace(&mut self, server: usize, program: &str, site: Option<&str>) {
        let stopped = self.servers[server].as_mut().expect("it was started").end("TERM");
        assert_eq!(stopped, Some(0), "server {server}");
        self.start(server, program, &[], site);
        self.wait_all_ready();
    }

    fn readiness(&self, server: usize) -> Value {
        let response = get(&self.addresses[server], "/health/ready").expect("it responds");
        serde_json::from_str(&response.body).expect("JSON")
    }
}

#[test]
fn b60_each_server_of_a_rolling_upgrade_is_ready_before_the_next_is_touched() {
    let mut cluster = Servers::<4>::new();
    let other_build = cluster.other_build();
    cluster.start_all();
    cluster.replace(0, &other_build, None);
    let variations = cluster.readiness(0)["variations"].to_string();
    assert!(variations.contains("program checksum is"), "{variations}");
    cluster.replace(1, &other_build, None);
    // A rollback in the middle, and forward again.
    cluster.replace(0, PROGRAM, None);
    cluster.replace(0, &other_build, None);
    cluster.replace(2, &other_build, Some("a variable of one server"));
    cluster.replace(3, &other_build, None);
    let log = eventually("the variable is in its log", || {
        let log = std::fs::read_to_string(cluster.log_path(2)).ok()?;
        (log.contains("peers differ in build or environment") && log.contains("GRIDWIRE_SITE"))
            .then_some(log)
    });
    assert!(!log.contains("a variable of one server"), "values are shown as hashes alone: {log}");
}

#[test]
fn b60_cluster_of_two_servers_is_upgraded_one_at_a_time() {
    let mut cluster = Servers::<2>::new();
    let other_build = cluster.other_build();
    cluster.start_all();
    for (server, program) in
        [(0, &*other_build), (0, PROGRAM), (0, &*other_build), (1, &*other_build)]
    {
        cluster.replace(server, program, None);
    }
}

#[test]
fn b65_server_with_a_list_of_lockers_of_its_own_neither_serves_nor_locks_and_says_why() {
    let mut cluster = Servers::<3>::new();
    let own = format!("http://{}", cluster.addresses[0]);
    cluster.start(0, PROGRAM, &["--lockers", &own], None);
    cluster.start(1, PROGRAM, &[], None);
    cluster.start(2, PROGRAM, &[], None);
    for server in [1, 2] {
        cluster.server(server).wait_ready(200);
    }
    eventually("it says what differs", || {
        let readiness = cluster.readiness(0);
        let waiting = readiness["waiting"].as_str()?;
        (readiness["phase"] == "verifying" && waiting.contains("--lockers is")).then_some(())
    });
    let locks = &cluster.readiness(0)["locks"];
    assert_eq!(locks["open"], false);
    assert_eq!(locks["waiting"], "this server has not verified the cluster yet");
    for server in [1, 2] {
        eventually("the locks of the others are open", || {
            (cluster.readiness(server)["locks"]["open"] == true).then_some(())
        });
    }
}
