//! One of the processes: a server with a locker, which runs the commands from its standard input.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use dsync::{DRWMutex, Dsync, LockOptions};
use grid::{Auth, LOCK_GRID_PATH, Manager};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::command::{self, Mode, ServerCommand};

/// Worker threads of the runtime.
const WORKERS: usize = 2;

/// Interval at which to check whether the locker grants locks yet.
const OPEN_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Serves until the process that started this one exits.
pub(crate) fn run(mode: Mode) {
    let lines = lines();
    let next = || lines.recv().expect("the reader exits the process at the end of the input");
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.expect("the runtime builds").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
        println!("{url}");
        let urls = next();
        let dsync = start(listener, &url, urls.split(' '), mode);
        while !dsync.is_open() {
            tokio::time::sleep(OPEN_CHECK_INTERVAL).await;
        }
        println!("open");
        loop {
            let times = match ServerCommand::parse(&next()) {
                ServerCommand::Uncontended { locks } => uncontended(&dsync, locks).await,
                ServerCommand::Contended { tasks, locks_each } => {
                    contended(&dsync, tasks, locks_each).await
                }
            };
            println!("{}", command::format_times(&times));
        }
    });
}

/// Reads the commands. The starting process keeps the other end of the pipe open while it runs, so
/// the end of the input exits this process at once.
fn lines() -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receiver
}

fn start<'a>(
    listener: TcpListener,
    url: &str,
    urls: impl Iterator<Item = &'a str>,
    mode: Mode,
) -> Dsync {
    let auth = Auth::shared_secret(b"the cluster's secret").expect("long enough");
    let builder = Manager::builder(url).servers(urls).auth(auth).path(LOCK_GRID_PATH);
    let manager = builder.build().expect("valid servers");
    let builder = Dsync::builder(&manager).wait_mode(mode.wait_mode());
    let dsync = builder.build().expect("all servers are lockers");
    manager.start().expect("inside a runtime");
    dsync.start();
    dsync.open();
    tokio::spawn(manager.serve(listener));
    dsync
}

/// Times each uncontended lock and unlock together: the latency that locking adds to a client's
/// request.
async fn uncontended(dsync: &Dsync, locks: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(locks);
    for number in 0..locks {
        let mutex = DRWMutex::new(dsync, [format!("bucket/object-{number}")]);
        let start = Instant::now();
        let guard = mutex.lock(LockOptions::default()).await.expect("the lock is free");
        guard.unlock().await;
        times.push(start.elapsed());
    }
    times
}

/// Times the waits of `tasks` tasks that acquire one lock in a loop and release it at once.
async fn contended(dsync: &Dsync, tasks: usize, locks_each: usize) -> Vec<Duration> {
    let mutex = || DRWMutex::new(dsync, ["contended"]);
    let waits: JoinSet<_> = (0..tasks).map(|_| waits_of(mutex(), locks_each)).collect();
    waits.join_all().await.concat()
}

async fn waits_of(mutex: DRWMutex, locks: usize) -> Vec<Duration> {
    let mut waits = Vec::with_capacity(locks);
    for _ in 0..locks {
        let start = Instant::now();
        let guard =
            mutex.lock(LockOptions::default().forever()).await.expect("the lock is granted");
        waits.push(start.elapsed());
        drop(guard);
    }
    waits
}
