//! Starts gridwire processes, and waits for conditions.
//!
//! Each condition is polled, with a deadline.
#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[cfg(unix)]
pub(crate) mod lock;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use grid::sync::Mutex;
use tokio::net::TcpSocket;

/// Longest wait for a condition. A dialing server tries at least every 5 s, and test machines are
/// slow.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// Polls until there is a result.
pub(crate) fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {WAIT_MAX:?}: {what}");
        // There is no notification from another process.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command for the binary, without the test's own GRIDWIRE variables.
pub(crate) fn gridwire(arguments: &[&str]) -> Command {
    gridwire_at(PROGRAM, arguments)
}

/// The binary.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_gridwire");

/// A command for a copy of the binary, as [`gridwire`].
pub(crate) fn gridwire_at(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("GRIDWIRE_") {
            command.env_remove(variable);
        }
    }
    command.env_remove("RUST_LOG").args(arguments).stdin(Stdio::null());
    command
}

/// The exit code and output of a process.
#[derive(Debug)]
pub(crate) struct ProcessOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for ProcessOutput {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs gridwire to its end.
pub(crate) fn run(arguments: &[&str]) -> ProcessOutput {
    gridwire(arguments).output().expect("gridwire runs").into()
}

/// A temporary directory, removed when dropped unless the test has failed.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("gridwire-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory is writable");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.0.join(name), content).expect("the directory is writable");
        self.path(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Sockets that reserve the ports of this process's tests.
static RESERVED: LazyLock<Mutex<Vec<TcpSocket>>> = LazyLock::new(Mutex::default);

/// Addresses on loopback whose ports belong to this process until it ends.
///
/// A port that was only free a moment ago can be given to another test, whose server then responds
/// in place of the one that failed to listen. So each stays bound, by a socket that never listens:
/// the system gives it to no other socket, but a server that names it may listen there.
pub(crate) fn free_addresses<const N: usize>() -> [String; N] {
    [(); N].map(|()| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("the option exists");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        RESERVED.lock().push(socket);
        address.to_string()
    })
}

/// A server process, killed when dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
    command: Command,
}

impl Server {
    /// Starts a server, and waits until it is live.
    pub(crate) fn start(address: &str, mut command: Command) -> Self {
        let child = command.spawn().expect("gridwire runs");
        let mut server = Self { address: address.to_owned(), child, command };
        assert!(wait_serving(&mut server.child, address), "the server at {address} ended");
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("waiting for the child succeeds");
        self.child.wait().expect("waiting for the child succeeds");
    }

    /// Restarts it with the same configuration.
    pub(crate) fn restart(&mut self) {
        self.child = eventually("the killed server's port is free again", || {
            let mut child = self.command.spawn().expect("gridwire runs");
            wait_serving(&mut child, &self.address).then_some(child)
        });
    }

    /// Sends a signal that does not end it.
    pub(crate) fn send(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Sends a signal that ends it. Returns the exit code.
    pub(crate) fn end(&mut self, name: &str) -> Option<i32> {
        signal(&self.child, name);
        let child = &mut self.child;
        eventually("the server ends after the signal", || {
            child.try_wait().expect("waiting for the child succeeds")
        })
        .code()
    }

    /// Waits until `/health/ready` has this status.
    pub(crate) fn wait_ready(&self, status: u16) {
        eventually(&format!("{} responds {status} to /health/ready", self.address), || {
            (get(&self.address, "/health/ready")?.status == status).then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the server is live. Returns false if it has ended instead.
fn wait_serving(child: &mut Child, address: &str) -> bool {
    eventually("a started server is alive or has output", || {
        if child.try_wait().expect("waiting for the child succeeds").is_some() {
            return Some(false);
        }
        (get(address, "/health/live")?.status == 200).then_some(true)
    })
}

/// Sends a signal such as `TERM`.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status()
        .expect("there is a kill command");
    assert!(status.success());
}

/// Number of client names of a cluster: one for each concurrent tool.
const CLIENTS: usize = 4;

/// Servers that are configured with each other and some client names.
pub(crate) struct ClusterOf<const N: usize> {
    pub(crate) servers: [Server; N],
    pub(crate) clients: [String; CLIENTS],
    pub(crate) secret_file: String,
    pub(crate) directory: Directory,
}

/// Two servers.
pub(crate) type Cluster = ClusterOf<2>;

impl<const N: usize> ClusterOf<N> {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts the servers with additional arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let secret_file = directory.file("secret", "a secret of all servers\n");
        let clients = free_addresses::<CLIENTS>().map(|address| format!("http://{address}"));
        let addresses: [String; N] = free_addresses();
        let urls = addresses.each_ref().map(|address| format!("http://{address}"));
        let start = |index: usize| {
            let log = File::create(directory.path(&format!("server-{index}.log")));
            let mut command = gridwire(&["serve", "--listen", &addresses[index]]);
            command
                .args(["--name", &urls[index], "--peers", &urls.join(","), "--clients"])
                .arg(clients.join(","))
                .args(arguments)
                .args(["--secret-file", &secret_file])
                .stderr(log.expect("the directory is writable"));
            Server::start(&addresses[index], command)
        };
        let servers = std::array::from_fn(start);
        Self { servers, clients, secret_file, directory }
    }

    /// Calls the echo handler of one server through `gridwire call`.
    pub(crate) fn echo(&self, server: usize, text: &str) {
        let url = self.servers[server].url();
        let output = run(&[
            "call",
            &url,
            "echo",
            text,
            "--name",
            &self.clients[0],
            "--secret-file",
            &self.secret_file,
            "--timeout",
            "30s",
        ]);
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(output.stdout, format!("{text}\n"));
    }
}

/// A response to a plain HTTP request.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends `GET path`; `None` without a response.
pub(crate) fn get(address: &str, path: &str) -> Option<HttpResponse> {
    request(address, "GET", path)
}

/// Sends a request without a body.
pub(crate) fn request(address: &str, method: &str, path: &str) -> Option<HttpResponse> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(WAIT_MAX)).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(HttpResponse { status, body: body.to_owned() })
}
