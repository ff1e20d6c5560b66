//! One of the processes: a server with a locker, which does what it is told on its standard input.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use dsync::{DRWMutex, Dsync, LockOptions};
use grid::{Auth, LOCK_GRID_PATH, Manager};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::order::{self, Mode, Order};

/// Of the runtime.
const WORKERS: usize = 2;

/// Time between two looks at whether the locker has heard of all that they hold nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Serves until this program's first process has ended.
pub(crate) fn run(mode: Mode) {
    let lines = lines();
    let next = || lines.recv().expect("it would have ended this process too");
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.expect("the system has threads").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        println!("{url}");
        let urls = next();
        let dsync = start(listener, &url, urls.split(' '), mode);
        while !dsync.is_open() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        println!("open");
        loop {
            let times = match Order::parse(&next()) {
                Order::Alone { locks } => alone(&dsync, locks).await,
                Order::Contended { tasks, locks_each } => {
                    contended(&dsync, tasks, locks_each).await
                }
            };
            println!("{}", order::text_of(&times));
        }
    });
}

/// What it is told. Whoever tells holds the other end as long as it lives, so the end of it is the end
/// of this process, whatever is under way.
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
    let auth = Auth::shared_secret(b"what all servers know").expect("long enough");
    let builder = Manager::builder(url).servers(urls).auth(auth).path(LOCK_GRID_PATH);
    let manager = builder.build().expect("they are servers");
    let builder = Dsync::builder(&manager).waiting(mode.waiting());
    let dsync = builder.build().expect("all are lockers");
    manager.start().expect("in a runtime");
    dsync.start();
    tokio::spawn(manager.serve(listener));
    dsync
}

/// From asking for a lock until it can be had again, as long as a user's request has to wait for it.
async fn alone(dsync: &Dsync, locks: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(locks);
    for number in 0..locks {
        let mutex = DRWMutex::new(dsync, [format!("bucket/object-{number}")]);
        let asked = Instant::now();
        let guard = mutex.lock(LockOptions::default()).await.expect("it is free");
        guard.unlock().await;
        times.push(asked.elapsed());
    }
    times
}

/// All want one lock, hold it for no time, and want it again.
async fn contended(dsync: &Dsync, tasks: usize, locks_each: usize) -> Vec<Duration> {
    let mutex = || DRWMutex::new(dsync, ["contended"]);
    let waits: JoinSet<_> = (0..tasks).map(|_| waits_of(mutex(), locks_each)).collect();
    waits.join_all().await.concat()
}

async fn waits_of(mutex: DRWMutex, locks: usize) -> Vec<Duration> {
    let mut waits = Vec::with_capacity(locks);
    for _ in 0..locks {
        let asked = Instant::now();
        let guard = mutex.lock(LockOptions::default().forever()).await.expect("its turn comes");
        waits.push(asked.elapsed());
        drop(guard);
    }
    waits
}
