//! Server processes that verify each other, agree on the deployment, and replicate IAM: with one
//! that starts late, one that is killed while it writes, and one with a different configuration.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs::File;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use support::{Directory, ProcessOutput, Server, eventually, free_addresses, get, gridwire};

/// Three servers, each with its own directory, started one by one.
struct ThreeServers {
    directory: Directory,
    addresses: [String; 3],
    secret_file: String,
    servers: [Option<Server>; 3],
}

const SECRET: &str = "a secret of all servers";

impl ThreeServers {
    fn new() -> Self {
        let directory = Directory::new();
        let secret_file = directory.file("secret", SECRET);
        let addresses = free_addresses();
        Self { directory, addresses, secret_file, servers: [None, None, None] }
    }

    /// Starts these servers, and waits until they are ready.
    fn ready(servers: &[usize]) -> Self {
        let mut cluster = Self::new();
        for server in servers {
            cluster.start(*server, |_| {});
        }
        for server in servers {
            cluster.server(*server).wait_ready(200);
        }
        cluster
    }

    fn url(&self, server: usize) -> String {
        format!("http://{}", self.addresses[server])
    }

    fn start(&mut self, server: usize, also: impl FnOnce(&mut Command)) {
        let log = File::create(self.log_path(server)).unwrap();
        let peers = [0, 1, 2].map(|server| self.url(server)).join(",");
        let mut command = gridwire(&["serve", "--listen", &self.addresses[server], "--initialise"]);
        command
            .args(["--name", &self.url(server), "--peers", &peers, "--lock-lease", "2s"])
            .args(["--data", &self.directory.path(&format!("pool-{server}"))])
            .args(["--secret-file", &self.secret_file])
            .stderr(log);
        also(&mut command);
        self.servers[server] = Some(Server::start(&self.addresses[server], command));
    }

    fn server(&self, server: usize) -> &Server {
        self.servers[server].as_ref().expect("it was started")
    }

    fn kill(&mut self, server: usize) {
        self.servers[server].as_mut().expect("it was started").kill();
    }

    fn restart(&mut self, server: usize) {
        self.servers[server].as_mut().expect("it was started").restart();
    }

    fn log_path(&self, server: usize) -> String {
        self.directory.path(&format!("server-{server}.log"))
    }

    fn log(&self, server: usize) -> String {
        std::fs::read_to_string(self.log_path(server)).unwrap()
    }

    fn readiness(&self, server: usize) -> Value {
        let response = get(&self.addresses[server], "/health/ready").expect("it responds");
        serde_json::from_str(&response.body).expect("JSON")
    }

    /// `gridwire iam` as the root account.
    fn iam(&self, server: usize, arguments: &[&str]) -> ProcessOutput {
        iam(&self.url(server), &self.secret_file, arguments)
    }

    /// Runs it as the root account with `--json`. Returns the output of a success.
    fn json(&self, server: usize, arguments: &[&str]) -> Value {
        let output = self.iam(server, &[arguments, &["--json"]].concat());
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        serde_json::from_str(&output.stdout).expect("JSON")
    }

    fn users(&self, server: usize) -> Vec<String> {
        users_of(&self.json(server, &["user", "list"]))
    }

    /// Waits until all three report the same content.
    fn wait_converged(&self) {
        eventually("all servers have the same content", || {
            let content = |server| self.json(server, &["whoami"])["content_hash"].clone();
            (content(0) == content(1) && content(1) == content(2)).then_some(())
        });
    }

    /// The error of one peer in the response to a change.
    fn peer_error(&self, response: &Value, server: usize) -> Value {
        let url = self.url(server);
        let peers = response["peers"].as_array().expect("a list");
        let peer = peers.iter().find(|peer| peer["peer"] == url.as_str());
        peer.expect("each peer is named")["error"].clone()
    }
}

fn users_of(list: &Value) -> Vec<String> {
    let users = list["items"].as_array().expect("a list").iter();
    users.map(|row| row["user"].as_str().expect("a name").to_owned()).collect()
}

fn iam(url: &str, secret_file: &str, arguments: &[&str]) -> ProcessOutput {
    let mut command = gridwire(&["iam", "--server", url, "--secret-file", secret_file]);
    command.args(arguments).output().expect("gridwire runs").into()
}

#[test]
fn b61_b62_late_server_catches_up_and_the_others_do_not_wait_for_it() {
    let mut cluster = ThreeServers::ready(&[0, 1]);
    let response = cluster.json(0, &["user", "add", "alice"]);
    assert_eq!(cluster.peer_error(&response, 1), Value::Null, "{response}");
    let missed = cluster.peer_error(&response, 2);
    assert!(missed.as_str().is_some_and(|why| why.contains("not connected")), "{response}");
    let readiness = cluster.readiness(0);
    assert_eq!((&readiness["ready"], &readiness["connected"]), (&true.into(), &1.into()));

    cluster.start(2, |_| {});
    cluster.server(2).wait_ready(200);
    cluster.wait_converged();
    assert_eq!(cluster.users(2), ["alice"]);
    let deployment = readiness["deployment"].as_str().expect("it is known");
    assert_eq!(cluster.readiness(2)["deployment"], deployment);
    for server in 0..3 {
        let log = cluster.log(server);
        assert_eq!(log.matches("IAM is loaded").count(), 1, "{log}");
    }
}

/// Concurrent writers that add users until their server is killed, and the acknowledged users.
#[derive(Default)]
struct Writers {
    acknowledged: Mutex<Vec<String>>,
    next: AtomicUsize,
}

impl Writers {
    /// Writes until `count` more users are acknowledged. Then `kill` must end the server.
    fn write(&self, url: &str, secret_file: &str, count: usize, kill: impl FnOnce()) {
        const CONCURRENT_WRITERS: usize = 3;
        let write = || {
            loop {
                let user = format!("user-{}", self.next.fetch_add(1, Ordering::Relaxed));
                match iam(url, secret_file, &["user", "add", &user]).code {
                    Some(0) => self.acknowledged.lock().unwrap().push(user),
                    code => return assert!(matches!(code, Some(1 | 69)), "{code:?}"),
                }
            }
        };
        let acknowledged = || self.acknowledged.lock().unwrap().len();
        let enough = acknowledged() + count;
        std::thread::scope(|scope| {
            (0..CONCURRENT_WRITERS).for_each(|_| drop(scope.spawn(write)));
            eventually("changes are acknowledged", || (acknowledged() >= enough).then_some(()));
            kill();
        });
    }

    fn assert_all_in(&self, users: &[String]) {
        for user in self.acknowledged.lock().unwrap().iter() {
            assert!(users.contains(user), "{user} is lost: {users:?}");
        }
    }
}

/// Number of kills.
const KILLS: usize = 3;

#[test]
fn b61_b62_server_killed_while_writing_converges_with_the_others() {
    let mut cluster = ThreeServers::ready(&[0, 1, 2]);
    let writers = Writers::default();
    for _ in 0..KILLS {
        let (url, secret_file) = (cluster.url(0), cluster.secret_file.clone());
        writers.write(&url, &secret_file, 8, || cluster.kill(0));
        cluster.restart(0);
        cluster.server(0).wait_ready(200);
    }
    cluster.wait_converged();
    writers.assert_all_in(&cluster.users(2));
    assert!(!cluster.log(0).contains("corrupt"), "{}", cluster.log(0));
}

/// A single server: no peer can restore what it has not persisted.
#[test]
fn b61_single_server_killed_while_writing_keeps_acknowledged_changes() {
    let directory = Directory::new();
    let mut server = start_single(&directory, &["--data", &directory.path("data"), "--initialise"]);
    server.wait_ready(200);
    let writers = Writers::default();
    let (url, secret_file) = (server.url(), directory.path("secret"));
    for _ in 0..KILLS {
        writers.write(&url, &secret_file, 8, || server.kill());
        server.restart();
        server.wait_ready(200);
    }
    let listed = iam(&url, &secret_file, &["user", "list", "--json"]);
    let list: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    writers.assert_all_in(&users_of(&list));
    let log = std::fs::read_to_string(directory.path("log")).unwrap();
    assert!(log.contains("skipped=0") && !log.contains("corrupt"), "{log}");
}

#[test]
fn b62_deletion_missed_by_a_killed_server_is_not_undone() {
    let mut cluster = ThreeServers::ready(&[0, 1, 2]);
    cluster.json(0, &["user", "add", "alice"]);
    cluster.json(0, &["user", "add", "bob"]);
    cluster.wait_converged();
    assert_eq!(cluster.users(2), ["alice", "bob"]);
    cluster.kill(2);
    let response = cluster.json(0, &["user", "remove", "alice"]);
    assert!(cluster.peer_error(&response, 2).is_string(), "{response}");

    cluster.restart(2);
    cluster.server(2).wait_ready(200);
    cluster.wait_converged();
    for server in 0..3 {
        assert_eq!(cluster.users(server), ["bob"], "of server {server}");
    }
}

#[test]
fn b60_server_with_another_configuration_reports_itself_as_the_outlier() {
    let mut cluster = ThreeServers::new();
    cluster.start(0, |_| {});
    cluster.start(1, |_| {});
    cluster.start(2, |command| {
        command.args(["--root-user", "elsewhere"]);
    });
    cluster.server(0).wait_ready(200);
    cluster.server(1).wait_ready(200);
    eventually("the outlier reports itself", || {
        let readiness = cluster.readiness(2);
        let waiting = readiness["waiting"].as_str()?.to_owned();
        let is_reported =
            waiting.contains("this server is the outlier") && waiting.contains("--root-user");
        (is_reported && readiness["phase"] == "verifying").then_some(())
    });
    eventually("it is in its log", || {
        cluster.log(2).contains("this server is the outlier").then_some(())
    });
    cluster.server(2).wait_ready(503);
    assert!(!cluster.log(0).contains("this server is the outlier"));
    let refused = cluster.iam(2, &["user", "list"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("not ready: verifying"), "{refused:?}");

    cluster.kill(2);
    cluster.start(2, |_| {});
    cluster.server(2).wait_ready(200);
}

#[test]
fn b63_servers_that_start_together_stay_in_one_deployment() {
    let mut cluster = ThreeServers::ready(&[0, 1, 2]);
    let deployment =
        |cluster: &ThreeServers, server| cluster.readiness(server)["deployment"].clone();
    let first = deployment(&cluster, 0);
    assert!(first.is_string());
    for server in 1..3 {
        assert_eq!(deployment(&cluster, server), first);
    }
    (0..3).for_each(|server| cluster.kill(server));
    for server in 0..3 {
        cluster.restart(server);
    }
    for server in 0..3 {
        cluster.server(server).wait_ready(200);
        assert_eq!(deployment(&cluster, server), first);
    }
}

/// Starts a single server.
fn start_single(directory: &Directory, arguments: &[&str]) -> Server {
    let secret_file = directory.file("secret", SECRET);
    let [address] = free_addresses();
    let url = format!("http://{address}");
    let log = File::create(directory.path("log")).unwrap();
    let mut command = gridwire(&["serve", "--listen", &address, "--name", &url, "--peers", ""]);
    command.args(["--secret-file", &secret_file]).args(arguments).stderr(log);
    Server::start(&address, command)
}

/// Waits until the server is not ready and waits for something with these words.
fn waits_for(server: &Server, words: &str) {
    eventually(&format!("it waits and says: {words}"), || {
        let response = get(&server.address, "/health/ready")?;
        let json: Value = serde_json::from_str(&response.body).ok()?;
        let waiting = json["waiting"].as_str()?;
        (response.status == 503 && waiting.contains(words)).then_some(())
    });
}

#[test]
fn b61_directory_becomes_a_pool_only_with_initialise() {
    let directory = Directory::new();
    let data = directory.path("data");
    let mut server = start_single(&directory, &["--data", &data]);
    waits_for(&server, &format!("{data} is not initialised"));
    server.kill();

    let server = start_single(&directory, &["--data", &data, "--initialise"]);
    server.wait_ready(200);
}

#[test]
fn b61_server_waiting_for_a_pool_shuts_down_gracefully() {
    let directory = Directory::new();
    let (data, other) = (directory.path("data"), directory.path("other"));
    let mut server = start_single(&directory, &["--data", &data, "--initialise"]);
    server.wait_ready(200);
    server.kill();

    // The deployment id is in the first pool.
    let mut server = start_single(&directory, &["--data", &format!("{data},{other}")]);
    waits_for(&server, &format!("{other} is not initialised"));
    assert_eq!(server.end("TERM"), Some(0));
    let log = std::fs::read_to_string(directory.path("log")).unwrap();
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn b61_denied_requests_state_the_reason_and_no_secret_is_logged() {
    let directory = Directory::new();
    let server = start_single(&directory, &[]);
    server.wait_ready(200);
    let root = directory.path("secret");
    let alice = directory.file("alice", "correct horse battery");
    let wrong = directory.file("wrong", "wrong horse battery");
    let policy = directory.file(
        "policy",
        r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
            "Action": "admin:ListUsers", "Resource": "*"}}"#,
    );
    let typo = directory.file("typo", r#"{"Statement": {"Effect": "Alow"}}"#);
    let run = |secret: &str, arguments: &[&str], code: i32, says: &str| {
        let output = iam(&server.url(), secret, arguments);
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        let output = format!("{}{}", output.stdout, output.stderr);
        assert!(output.contains(says), "{arguments:?} says {says}: {output}");
        output
    };
    run(&root, &["user", "add", "alice", "--new-secret-file", &alice], 0, "user alice");
    run(&root, &["user", "add", "alice", "--new-secret-file", &alice], 1, "--replace");
    let as_alice = |more: &[&'static str]| [&["--access-key", "alice"], more].concat();
    run(&alice, &as_alice(&["whoami"]), 0, "alice");
    run(&alice, &as_alice(&["user", "list"]), 1, "admin:ListUsers");
    run(&root, &["policy", "set", "lister", &policy], 0, "policy lister");
    run(&root, &["policy", "attach", "lister", "--user", "alice"], 0, "alice");
    run(&alice, &as_alice(&["user", "list"]), 0, "lister");
    run(&alice, &as_alice(&["user", "add", "eve"]), 1, "admin:CreateUser");
    run(&root, &["is-allowed", "alice", "admin:ListUsers", "x"], 0, "allowed by statement 1");
    run(&root, &["is-allowed", "alice", "s3:GetObject", "x"], 1, "no statement of user alice");
    run(&root, &["policy", "remove", "lister"], 1, "detach it first");
    run(&root, &["policy", "attach", "missing", "--user", "alice"], 1, "no policy missing");
    run(&root, &["policy", "set", "typo", &typo], 2, "is not a policy");
    run(&root, &["user", "remove", "unused"], 1, "there is no user unused");

    // Neither the error nor the status shows whether the user exists.
    let known = run(&wrong, &as_alice(&["whoami"]), 1, "401 Unauthorized");
    let unknown = run(&wrong, &["--access-key", "unused", "whoami"], 1, "401 Unauthorized");
    assert_eq!(known, unknown);

    let log = std::fs::read_to_string(directory.path("log")).unwrap();
    assert!(log.contains("kept in memory only"), "{log}");
    for secret in [SECRET, "correct horse", "wrong horse"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn b61_invalid_arguments_and_unreachable_servers_have_distinct_exit_codes() {
    let directory = Directory::new();
    let secret_file = directory.file("secret", SECRET);
    let [address] = free_addresses();
    let unreachable = iam(&format!("http://{address}"), &secret_file, &["whoami"]);
    assert_eq!(unreachable.code, Some(69), "{unreachable:?}");
    assert!(unreachable.stderr.contains("cannot reach"), "{unreachable:?}");
    let missing = directory.path("missing");
    for (arguments, says) in [
        (&["iam", "whoami"][..], "--server"),
        (&["iam", "whoami", "--server", "http://a:1"][..], "--secret-file"),
        (&["iam", "whoami", "--server", "http://a:1", "--secret-file", &missing][..], "missing"),
        (&["iam", "policy", "attach", "p"][..], "--group"),
    ] {
        let output = support::run(arguments);
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(says), "{arguments:?}: {output:?}");
    }
}

/// Removes from a log what differs between two runs.
fn stable(log: &str, volatile: &[(&str, &str)]) -> String {
    let line = |line: &str| {
        let (_time, rest) = line.trim_start().split_once(' ').unwrap_or_default();
        let words = rest.split(' ').map(|word| match word.split_once('=') {
            Some(("took", _)) => "took=…".to_owned(),
            Some(("deployment", _)) => "deployment=…".to_owned(),
            _ => volatile.iter().fold(word.to_owned(), |word, (from, to)| word.replace(from, to)),
        });
        words.collect::<Vec<_>>().join(" ").trim().to_owned()
    };
    log.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn b61_startup_logs_each_step_once() {
    let directory = Directory::new();
    let data = directory.path("data");
    let server = start_single(&directory, &["--data", &data, "--initialise"]);
    server.wait_ready(200);
    let log = eventually("all is written", || {
        let log = std::fs::read_to_string(directory.path("log")).unwrap();
        log.contains("bootstrap: ready").then_some(log)
    });
    let log = stable(&log, &[(&data, "[data]"), (&server.address, "[address]")]);
    insta::assert_snapshot!(log, @r#"
    INFO gridwire::serve: serving name=http://[address] listen=[address] peers=0 clients=0 lockers=1
    INFO iam: enough peers run with compatible settings agree=0 differ=0 unreachable=0
    INFO bootstrap: deployment agreed deployment=…
    INFO dsync: locks are available
    INFO iam: pool format written pool="[data]" format=1
    INFO iam: IAM is loaded items=0 deleted=0 skipped=0 pools=1 retries=0 took=…
    INFO bootstrap: ready took=…
    "#);
}
