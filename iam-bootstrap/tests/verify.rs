//! Servers compare their configurations, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grid::env::Env;
use grid::{Auth, Manager};
use iam_bootstrap::verify::wire::{SERVER_VERIFY, VerifyArgs, VerifyResponse};
use iam_bootstrap::verify::{VerifyError, VerifyOptions, proto::Tally, serve, verify};
use iam_bootstrap::{HashKey, SystemConfig};
use tokio::net::TcpListener;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

const SECRET: &[u8] = b"what all servers know";

/// Log output of this thread, which runs everything in these tests.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("iam=info")
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("task did not panic").clone())
            .expect("logs are text")
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("task did not panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

struct Cluster {
    managers: Vec<Manager>,
    configs: Vec<Arc<SystemConfig>>,
    urls: Vec<String>,
}

impl Cluster {
    /// Starts a server for each region, each with its own region in its configuration. Only the
    /// first `up` servers run.
    async fn start(regions: &[&str], up: usize) -> Self {
        let mut listeners = Vec::new();
        for _ in regions {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("port bound");
            listeners.push((
                format!("http://{}", listener.local_addr().expect("listener address")),
                listener,
            ));
        }
        listeners.sort_by(|(first, _), (second, _)| first.cmp(second));
        let urls: Vec<_> = listeners.iter().map(|(url, _)| url.clone()).collect();
        let (mut managers, mut configs) = (Vec::new(), Vec::new());
        for ((url, listener), region) in listeners.into_iter().zip(regions).take(up) {
            let manager = Manager::builder(&url)
                .servers(&urls)
                .auth(Auth::shared_secret(SECRET).expect("valid length"))
                .build()
                .expect("valid configuration");
            let config = SystemConfig::collect(&HashKey::from_shared_secret(SECRET))
                .endpoints(&urls)
                .secret_options(["--region"])
                .arguments(["serve", "--drives=4", "--region", region])
                .program("1.4.0", "e3b0c442")
                .finish();
            let config = Arc::new(config);
            serve(&manager, &config).expect("first registration");
            manager.start().expect("runtime");
            tokio::spawn(manager.clone().serve(listener));
            managers.push(manager);
            configs.push(config);
        }
        for manager in &managers {
            for connection in manager.connections() {
                if urls[..up].iter().any(|url| url == connection.remote().as_str()) {
                    connection.wait_connected().await.expect("not shut down");
                }
            }
        }
        Self { managers, configs, urls }
    }

    async fn verify(&self, server: usize, limit: Duration) -> Result<Tally, VerifyError> {
        let options = VerifyOptions { env: Env::system(), limit: Some(limit) };
        verify(&self.managers[server], &self.configs[server], options).await
    }

    /// Replaces the servers' addresses by letters, since their ports differ from run to run.
    fn named(&self, text: &str) -> String {
        let urls = self.urls.iter().zip('a'..);
        urls.fold(text.to_owned(), |text, (url, name)| text.replace(url, &format!("http://{name}")))
    }
}

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, wait)
        .await
        .unwrap_or_else(|_| panic!("not reached: {what}"));
}

#[tokio::test]
async fn b60_outlier_of_four_servers_reports_itself_and_the_others_start() {
    let cluster = Cluster::start(&["east", "east", "east", "west"], 4).await;

    let (log, guard) = Log::capture();
    let error = cluster.verify(3, Duration::from_secs(2)).await.expect_err("no peer agrees");
    assert!(error.tally.is_outlier && error.tally.differ == 3, "{error}");
    insta::assert_snapshot!(cluster.named(&log.text()).trim(), @r#"ERROR iam: this server is the outlier: most peers agree with each other, and not with it peers="http://a, http://b, http://c" responded=3 difference=argument --region is f250570dc5fb60145f77f3aa here and 10bb8b6290b0e3c39174bf95 there"#);
    insta::assert_snapshot!(cluster.named(&error.to_string()), @r#"of 2 peers that must run with the same configuration, 0 do; 3 run with another, 0 did not respond; this server is the outlier: http://a differs: argument --region is f250570dc5fb60145f77f3aa here and 10bb8b6290b0e3c39174bf95 there; http://b differs: argument --region is f250570dc5fb60145f77f3aa here and 10bb8b6290b0e3c39174bf95 there; http://c differs: argument --region is f250570dc5fb60145f77f3aa here and 10bb8b6290b0e3c39174bf95 there"#);
    drop(guard);

    let (log, _guard) = Log::capture();
    for server in 0..3 {
        let tally = cluster.verify(server, TEST_TIMEOUT).await.expect("two of three agree");
        assert!(tally.agree >= 2 && !tally.is_outlier, "{tally:?}");
    }
    let reports = || log.text().matches("run with another configuration").count();
    eventually("each other server reports the outlier", || reports() == 3).await;
    let text = cluster.named(&log.text());
    let line = text.lines().find(|line| line.contains("another")).expect("outlier is logged");
    insta::assert_snapshot!(line.trim(), @r#"WARN iam: peers run with another configuration peers="http://d" difference=argument --region is 10bb8b6290b0e3c39174bf95 here and f250570dc5fb60145f77f3aa there"#);
    for secret in ["east", "west"] {
        assert!(!text.contains(secret), "values of secret options are not logged: {text}");
    }
}

#[tokio::test]
async fn b60_server_starts_with_half_of_its_peers_and_not_with_fewer() {
    let cluster = Cluster::start(&["east"; 5], 3).await;
    let tally = cluster.verify(0, TEST_TIMEOUT).await.expect("two of four");
    assert_eq!((tally.needed, tally.agree, tally.unreachable), (2, 2, 2));
    let cluster = Cluster::start(&["east"; 5], 2).await;
    let error = cluster.verify(0, Duration::from_millis(300)).await.expect_err("one of four");
    assert_eq!((error.tally.needed, error.tally.agree), (2, 1));
    assert!(error.to_string().contains("not connected to"), "{error}");
}

#[tokio::test]
async fn b60_response_contains_the_configuration_only_if_it_differs() {
    let cluster = Cluster::start(&["east", "west"], 2).await;
    let connection = cluster.managers[0].connection(&cluster.urls[1]).expect("known server");
    let request_config = async |digest: String| {
        SERVER_VERIFY.call(&connection, &VerifyArgs { digest }).await.expect("peer responds")
    };
    let theirs = &cluster.configs[1];
    let same = request_config(theirs.digest()).await;
    assert_eq!(same, VerifyResponse { digest: theirs.digest(), config: None });
    assert_eq!(request_config(String::new()).await.into_config(""), Ok(Some((**theirs).clone())));
    VerifyResponse::default().into_config("ours").expect_err("empty response is malformed");
    let endless = SystemConfig { arguments: vec!["x".repeat(5_000)], ..SystemConfig::default() };
    let endless = VerifyResponse { config: Some(endless), ..VerifyResponse::default() };
    let error = endless.into_config("ours").expect_err("too long");
    assert_eq!(error, "its texts may have 1024 bytes each");
}
