//! Real processes of gridwire, and how to wait for them.
//!
//! Everything is waited for by looking at it until it is so, with a deadline.
#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::expect_used, clippy::panic, reason = "this is how tests fail")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything. A server that dials another tries every 5 s at least, and machines
/// that test are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a cluster's ports may turn out to be taken by somebody else.
const PORT_ATTEMPTS: usize = 5;

/// Looks every now and then until there is something to return.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        // Another process cannot wake us.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The binary, with nothing of the test's own environment.
pub(crate) fn gridwire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridwire"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("GRIDWIRE_") {
            command.env_remove(variable);
        }
    }
    command.env_remove("RUST_LOG").args(arguments).stdin(Stdio::null());
    command
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs gridwire to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    gridwire(arguments).output().expect("gridwire can be run").into()
}

/// A directory of this test, gone with the value unless the test fails.
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

/// `host:port` on loopback that were free a moment ago.
pub(crate) fn free_addresses<const N: usize>() -> [String; N] {
    // All are held until the last is found, or one could be found twice.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("it is bound").to_string())
}

/// A server that runs as a process, killed with the value.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
    command: Command,
}

impl Server {
    /// `None` if it ended instead of serving, as it does when its port is taken.
    pub(crate) fn start(address: &str, mut command: Command) -> Option<Self> {
        let child = command.spawn().expect("gridwire can be run");
        let mut server = Self { address: address.to_owned(), child, command };
        wait_serving(&mut server.child, address).then_some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again with the same configuration.
    pub(crate) fn restart(&mut self) {
        self.child = eventually("the killed server's port is free again", || {
            let mut child = self.command.spawn().expect("gridwire can be run");
            wait_serving(&mut child, &self.address).then_some(child)
        });
    }

    /// Sends a signal that does not end it.
    pub(crate) fn send(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Sends a signal that ends it, and returns the exit code.
    pub(crate) fn end(&mut self, name: &str) -> Option<i32> {
        signal(&self.child, name);
        let child = &mut self.child;
        eventually("a server ends when it is asked to", || {
            child.try_wait().expect("it is our child")
        })
        .code()
    }

    /// Waits until `/health/ready` answers so.
    pub(crate) fn wait_ready(&self, status: u16) {
        eventually(&format!("{} answers {status} to /health/ready", self.address), || {
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

/// Whether it serves, or has ended instead.
fn wait_serving(child: &mut Child, address: &str) -> bool {
    eventually("a started server is alive or has ended", || {
        if child.try_wait().expect("it is our child").is_some() {
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

/// Names that tools may take in a cluster: one for each tool that runs at once.
const CLIENTS: usize = 4;

/// Servers that know each other and some clients.
pub(crate) struct ClusterOf<const N: usize> {
    pub(crate) servers: [Server; N],
    pub(crate) clients: [String; CLIENTS],
    pub(crate) secret_file: String,
    pub(crate) directory: Directory,
}

/// Two of them.
pub(crate) type Cluster = ClusterOf<2>;

impl<const N: usize> ClusterOf<N> {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments for each server.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        for _ in 0..PORT_ATTEMPTS {
            if let Some(cluster) = Self::try_start(arguments) {
                return cluster;
            }
        }
        panic!("{PORT_ATTEMPTS} times, free ports were taken before they could be used");
    }

    fn try_start(arguments: &[&str]) -> Option<Self> {
        let directory = Directory::new();
        let secret_file = directory.file("secret", "what all servers know\n");
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
        let servers: Vec<_> = (0..N).map_while(start).collect();
        Some(Self { servers: servers.try_into().ok()?, clients, secret_file, directory })
    }

    /// Calls the echo handler of one server through `gridwire call`.
    pub(crate) fn echo(&self, server: usize, text: &str) {
        let url = self.servers[server].url();
        let ended = run(&[
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
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stdout, format!("{text}\n"));
    }
}

/// An answer to a plain HTTP request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `GET path`; `None` if there is no answer.
pub(crate) fn get(address: &str, path: &str) -> Option<Answer> {
    request(address, "GET", path)
}

/// Any method without a body.
pub(crate) fn request(address: &str, method: &str, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}
