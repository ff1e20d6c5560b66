//! Servers that grant locks, and tools that hold them while a command runs.
//!
//! With four lockers, a writer's quorum is three. The commands and the tests synchronise through
//! files in the test's directory.

use std::process::{Child, Stdio};

use super::{ClusterOf, ProcessOutput, Server, eventually, get, gridwire, signal};

pub(crate) type Cluster = ClusterOf<4>;

/// Short enough for tests to see it end, long enough for busy machines to refresh in.
pub(crate) const LEASE: &str = "4s";

/// Exit code of the tool when the lock was lost.
pub(crate) const LOST: Option<i32> = Some(75);

/// Exit code for a lock that timed out, distinct from all others.
pub(crate) const CONFLICT: &str = "99";

pub(crate) fn start() -> Cluster {
    let cluster = Cluster::start_with(&["--lock-lease", LEASE]);
    cluster.servers.iter().for_each(wait_open);
    cluster
}

/// Waits until a server grants locks and reaches two others: with it, a quorum.
pub(crate) fn wait_open(server: &Server) {
    eventually("a server grants locks", || {
        let response = get(&server.address, "/health/ready")?;
        let json: serde_json::Value = serde_json::from_str(&response.body).ok()?;
        let locks = &json["locks"];
        (locks["open"] == true && locks["connected"].as_u64()? >= 2).then_some(())
    });
}

/// A running `gridwire lock`.
pub(crate) struct Tool {
    /// `None` once it has ended.
    child: Option<Child>,
    pub(crate) files: String,
}

/// A server, and the client name under which the tool connects to it.
#[derive(Clone, Copy)]
pub(crate) struct ToolEntry<'a> {
    cluster: &'a Cluster,
    server: usize,
    client: usize,
}

pub(crate) fn entry(cluster: &Cluster, server: usize, client: usize) -> ToolEntry<'_> {
    ToolEntry { cluster, server, client }
}

impl ToolEntry<'_> {
    pub(crate) fn command(self, tool: &str, arguments: &[&str]) -> std::process::Command {
        let Self { cluster, server, client } = self;
        let mut command = gridwire(&[tool]);
        command
            .args(["--peer", &cluster.servers[server].url(), "--name", &cluster.clients[client]])
            .args(["--secret-file", &cluster.secret_file])
            .args(arguments);
        command
    }

    /// Runs a shell script under a lock. In it, `$files` is the prefix of its files, and `say`
    /// writes one.
    pub(crate) fn lock(self, name: &str, arguments: &[&str], script: &str) -> Tool {
        let files = self.cluster.directory.path(name);
        let script = format!(
            "files={files}; say() {{ echo \"$2\" > $files.tmp; mv $files.tmp $files.$1; }}; {script}"
        );
        let child = self
            .command("lock", &["-E", CONFLICT])
            .args(unless_given("--timeout", arguments))
            .args(unless_given("--connect-timeout", arguments))
            .args(arguments)
            .args(["--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gridwire runs");
        Tool { child: Some(child), files }
    }

    pub(crate) fn locks(self, arguments: &[&str]) -> ProcessOutput {
        self.command("locks", &["--timeout", "30s"])
            .args(arguments)
            .output()
            .expect("gridwire runs")
            .into()
    }

    pub(crate) fn listing(self) -> serde_json::Value {
        let output = self.locks(&["--json"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        serde_json::from_str(&output.stdout).expect("JSON")
    }
}

/// A flag with its default for tests, unless it is among the arguments.
pub(crate) fn unless_given<'a>(flag: &'a str, arguments: &[&str]) -> Vec<&'a str> {
    let is_tried = flag == "--timeout" && arguments.contains(&"--try");
    if is_tried || arguments.contains(&flag) { Vec::new() } else { vec![flag, "30s"] }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Left over by a failed test. The tool ends its command on SIGTERM.
        if let Some(mut child) = self.child.take() {
            signal(&child, "TERM");
            signal(&child, "CONT");
            let _ = child.wait();
        }
    }
}

impl Tool {
    pub(crate) fn child(&self) -> &Child {
        self.child.as_ref().expect("it has not ended")
    }

    /// Waits until the script has written this file. Returns its content.
    pub(crate) fn wait_file(&self, name: &str) -> String {
        let file = format!("{}.{name}", self.files);
        eventually(&file, || std::fs::read_to_string(&file).ok()).trim_end().to_owned()
    }

    pub(crate) fn has_file(&self, name: &str) -> bool {
        std::fs::exists(format!("{}.{name}", self.files)).expect("the directory is accessible")
    }

    /// Creates a file that the script waits for.
    pub(crate) fn create_file(&self, name: &str) {
        std::fs::write(format!("{}.{name}", self.files), "").expect("the directory is accessible");
    }

    pub(crate) fn token(&self) -> u64 {
        self.wait_file("held").parse().expect("a number")
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child(), name);
    }

    pub(crate) fn end(mut self) -> ProcessOutput {
        let child = self.child.as_mut().expect("it has not ended");
        eventually("a tool ends", || child.try_wait().expect("waiting for the child succeeds"));
        let child = self.child.take().expect("it has just been there");
        child.wait_with_output().expect("waiting for the child succeeds").into()
    }
}

/// Reports that the lock is held, and waits for the file `go`.
pub(crate) const HOLD: &str =
    "say held $GRIDWIRE_LOCK_TOKEN; while [ ! -e $files.go ]; do sleep 0.05; done";

/// Likewise, and reports when it is terminated early.
pub(crate) const HOLD_TO_THE_END: &str = "trap 'say ended; exit 0' TERM; say held $GRIDWIRE_LOCK_TOKEN; \
                               while [ ! -e $files.go ]; do sleep 0.05; done";

/// Exits with 5 if it runs although the first command has not ended.
pub(crate) fn after(first: &Tool) -> String {
    format!("test -e {}.ended || exit 5; {HOLD}", first.files)
}

pub(crate) fn wait_for_waiter(entry: ToolEntry<'_>) {
    eventually("a waiter is listed", || {
        let listing = entry.listing();
        (!listing["waiters"].as_array().expect("a list").is_empty()).then_some(())
    });
}
