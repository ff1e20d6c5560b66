//! Collection between servers, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use grid::{Auth, HandlerId, Manager, Route};
use resource_metrics::sample::{InterfaceCounters, Sample};
use resource_metrics::{
    BuildError, Collection, DownReason, Limits, Report, ResourceMetrics, ServerStatus,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Timeout of everything that should happen quickly on one machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

struct Server {
    manager: Manager,
    serving: JoinHandle<()>,
}

/// Returns managers configured with each other, and their listeners; none serves yet.
async fn managers(count: usize) -> Vec<(Manager, TcpListener)> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let urls: Vec<_> = listeners.iter().map(url).collect();
    let manager = |url: &String| {
        let auth = Auth::shared_secret(b"the servers' shared secret").expect("long enough");
        Manager::builder(url).servers(&urls).auth(auth).build().expect("a valid configuration")
    };
    urls.iter().map(manager).zip(listeners).collect()
}

impl Server {
    async fn start(manager: Manager, listener: TcpListener) -> Self {
        manager.start().expect("a runtime");
        let serving = tokio::spawn(manager.clone().serve(listener));
        Self { manager, serving }
    }

    fn name(&self) -> String {
        self.manager.local().to_string()
    }

    async fn kill(&self) {
        self.serving.abort();
        self.manager.shutdown(Duration::ZERO).await;
    }
}

/// Waits for a condition.
async fn eventually(state: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, wait)
        .await
        .unwrap_or_else(|_| panic!("not reached: {state}"));
}

async fn connected(servers: &[Server]) {
    for server in servers {
        for connection in server.manager.connections() {
            let waiting = tokio::time::timeout(TEST_TIMEOUT, connection.wait_connected());
            waiting.await.expect("in time").expect("a connection");
        }
    }
}

/// Returns a machine whose only interface has this name.
fn machine(interface: String) -> impl Fn() -> Sample + Send + Sync + 'static {
    move || {
        let interfaces = [(interface.clone(), InterfaceCounters::default())].into();
        Sample { interfaces: Some(interfaces), ..Sample::default() }
    }
}

fn limits(deadline: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.collect_deadline = deadline;
    limits.collect_ttl = Duration::ZERO;
    limits
}

/// Returns the number of inbound calls of a server.
fn served(servers: &[Server], by: usize) -> u64 {
    let stats = servers[by].manager.stats();
    stats.iter().map(|stats| stats.inbound_calls).sum()
}

fn down(collection: &Collection, server: &Server) -> DownReason {
    match &collection.servers[&server.name()] {
        ServerStatus::Down(down) => down.reason,
        ServerStatus::Up(report) => panic!("{} is up: {report:?}", server.name()),
    }
}

fn up<'a>(collection: &'a Collection, server: &Server) -> &'a Report {
    match &collection.servers[&server.name()] {
        ServerStatus::Up(report) => report,
        ServerStatus::Down(down) => panic!("{} is down: {down:?}", server.name()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b71_any_server_reports_for_the_cluster_and_which_server_is_down() {
    let (mut servers, mut metrics) = (Vec::new(), Vec::new());
    for (index, (manager, listener)) in managers(3).await.into_iter().enumerate() {
        let source = machine(format!("eth{index}"));
        let built = ResourceMetrics::builder(&manager).source(source).limits(limits(TEST_TIMEOUT));
        metrics.push(built.build().expect("valid limits"));
        servers.push(Server::start(manager, listener).await);
    }
    connected(&servers).await;
    for metrics in &metrics {
        metrics.sample_now().await;
    }
    for metrics in &metrics {
        let collection = metrics.collect().await.expect("no shutdown");
        assert_eq!(collection.servers.len(), 3);
        for (index, server) in servers.iter().enumerate() {
            let report = up(&collection, server);
            assert!(report.interfaces.contains_key(&format!("eth{index}")), "as it sampled");
            assert_eq!(report.drives.len(), 0);
        }
    }
    servers[2].kill().await;
    let name = servers[2].name();
    let lost = servers[0].manager.connection(&name).unwrap();
    eventually("the loss is noticed", || lost.state() != grid::ConnectionState::Connected).await;
    let collection = metrics[0].collect().await.expect("no shutdown");
    assert_eq!(down(&collection, &servers[2]), DownReason::NotConnected);
    assert!(up(&collection, &servers[1]).interfaces.contains_key("eth1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn b71_slow_failing_and_incompatible_servers_are_down_and_the_others_are_up() {
    let mut managers = managers(6).await.into_iter();
    let mut servers = Vec::new();
    let (manager, listener) = managers.next().unwrap();
    let metrics = ResourceMetrics::builder(&manager)
        .source(machine("eth0".to_owned()))
        .limits(limits(Duration::from_millis(500)))
        .build()
        .expect("valid limits");
    servers.push(Server::start(manager, listener).await);

    let route = || Route::new(HandlerId::new(44));
    let (slow, listener) = managers.next().unwrap();
    slow.register(route(), |_, _| std::future::pending()).expect("a free handler id");
    servers.push(Server::start(slow, listener).await);
    // As existing clusters respond: an array of maps.
    let (existing, listener) = managers.next().unwrap();
    existing.register(route(), |_, _| async { Ok(vec![0x91, 0x80].into()) }).expect("a free id");
    servers.push(Server::start(existing, listener).await);
    let (older, listener) = managers.next().unwrap();
    servers.push(Server::start(older, listener).await);
    let (failing, listener) = managers.next().unwrap();
    failing.register(route(), |_, _| async { Err("no".into()) }).expect("a free handler id");
    servers.push(Server::start(failing, listener).await);

    // By position the first number would be the start time.
    let (nameless, listener) = managers.next().unwrap();
    nameless.register(route(), |_, _| async { Ok(vec![0x91, 1].into()) }).expect("a free id");
    servers.push(Server::start(nameless, listener).await);

    connected(&servers).await;
    let collection = metrics.collect().await.expect("no shutdown");
    up(&collection, &servers[0]);
    let incompatible = DownReason::Incompatible;
    let reasons =
        [DownReason::Timeout, incompatible, incompatible, DownReason::Failed, incompatible];
    assert_eq!([1, 2, 3, 4, 5].map(|index| down(&collection, &servers[index])), reasons);
}

#[tokio::test(flavor = "multi_thread")]
async fn b71_many_scrapes_cost_each_server_one_request() {
    let mut servers = Vec::new();
    let mut managers = managers(2).await.into_iter();
    let (manager, listener) = managers.next().unwrap();
    let metrics = ResourceMetrics::builder(&manager)
        .source(Sample::default)
        .limits({
            let mut limits = limits(TEST_TIMEOUT);
            limits.collect_ttl = Duration::from_secs(3_600);
            limits
        })
        .build()
        .expect("valid limits");
    servers.push(Server::start(manager, listener).await);
    let (other, listener) = managers.next().unwrap();
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let route = Route::new(HandlerId::new(44));
    other
        .register(route, move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok(vec![0x80].into()) } // An empty report: only the requests are counted.
        })
        .expect("a free handler id");
    servers.push(Server::start(other, listener).await);
    connected(&servers).await;
    let scrapes = (0..50).map(|_| {
        let metrics = metrics.clone();
        tokio::spawn(async move { metrics.collect().await })
    });
    let scrapes: Vec<_> = scrapes.collect();
    for scrape in scrapes {
        scrape.await.expect("no panic").expect("no shutdown");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    assert_eq!(served(&servers, 1), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b70_samples_are_taken_from_the_start_until_the_last_clone_is_dropped() {
    let (manager, _listener) = managers(1).await.remove(0);
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let source = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Sample::default()
    };
    let metrics = ResourceMetrics::builder(&manager).source(source).build().expect("defaults");
    assert_eq!(taken.load(Ordering::SeqCst), 0);
    metrics.start();
    metrics.start();
    eventually("a sample", || taken.load(Ordering::SeqCst) == 1).await;
    eventually("the report has it", || metrics.latest().sample_time_seconds.is_some()).await;
}

#[tokio::test]
async fn only_the_managers_servers_can_be_configured() {
    let (manager, _listener) = managers(2).await.remove(0);
    let local = manager.local().to_string();
    let build = |servers: Vec<String>| ResourceMetrics::builder(&manager).servers(servers).build();
    let error = build(vec!["http://unknown:1".to_owned()]).expect_err("an unknown server");
    assert!(matches!(&error, BuildError::Unknown { name } if name == "http://unknown:1"));
    assert!(matches!(build(vec!["?".to_owned()]), Err(BuildError::Name(_))));
    let metrics = build(vec![local.clone()]).expect("this server is known");
    let collection = metrics.collect().await.expect("no shutdown");
    assert_eq!(
        collection.servers.keys().collect::<Vec<_>>(),
        [&local],
        "no other server is called"
    );
    assert!(matches!(build(Vec::new()), Err(BuildError::Register(_))), "it is already registered");
}
