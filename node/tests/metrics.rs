//! Metrics of server processes: access, content, and the text output of the tool.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use support::{
    Cluster, Directory, ProcessOutput, Server, WAIT_MAX, eventually, free_addresses, gridwire, run,
};

const PATH: &str = "/v2/metrics/resource";
const TOKEN: &str = "0123456789abcdef";

/// Returns head and body of a response.
fn get(address: &str, method: &str, headers: &[(&str, &str)]) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(WAIT_MAX)).ok()?;
    let mut request = format!("{method} {PATH} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_lowercase(), body.to_owned()))
}

/// Starts a single server.
fn alone(directory: &Directory, arguments: &[&str]) -> Server {
    let secret_file = directory.file("secret", "a good secret");
    let [address] = free_addresses();
    let name = format!("http://{address}");
    let mut command = gridwire(&["serve", "--listen", &address, "--name", &name, "--peers", ""]);
    command.args(["--secret-file", &secret_file]).args(arguments);
    Server::start(&address, command)
}

/// Runs `gridwire metrics` against this address.
fn tool(address: &str, arguments: &[&str]) -> ProcessOutput {
    let url = format!("http://{address}");
    run(&[&["metrics", &url, "--timeout", "30s"], arguments].concat())
}

#[test]
fn b71_metrics_require_the_token() {
    let directory = Directory::new();
    let token_file = directory.file("token", &format!("{TOKEN}\n"));
    let server = alone(&directory, &["--metrics-token-file", &token_file]);
    let bearer = format!("Bearer {TOKEN}");
    for (method, headers, status) in [
        ("GET", &[][..], "401"),
        ("GET", &[("authorization", "Bearer 0123456789abcdee")][..], "401"),
        ("GET", &[("authorization", bearer.as_str())][..], "200"),
        ("HEAD", &[("authorization", bearer.as_str())][..], "200"),
        ("POST", &[("authorization", bearer.as_str())][..], "405"),
    ] {
        let (head, body) = get(&server.address, method, headers).expect("a response");
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{method} {headers:?}: {head}");
        assert_eq!(head.contains("www-authenticate: bearer"), status == "401", "{head}");
        assert_eq!(
            body.contains("resource_server_up"),
            status == "200" && method == "GET",
            "{body}"
        );
    }

    let refused = tool(&server.address, &[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("requires another token"), "{refused:?}");
    let shown = tool(&server.address, &["--token-file", &token_file]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
}

#[test]
fn b71_metrics_without_a_token_are_forbidden_unless_public() {
    let directory = Directory::new();
    let server = alone(&directory, &[]);
    let (head, body) = get(&server.address, "GET", &[]).expect("a response");
    assert!(head.starts_with("http/1.1 403 ") && body.contains("--metrics-public"), "{head}");
    let refused = tool(&server.address, &[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("responded 403"), "{refused:?}");
    let text = "this server's metrics are not readable";
    assert!(refused.stderr.contains(text), "quotes are not escaped: {refused:?}");

    let public = alone(&directory, &["--metrics-public"]);
    let (head, body) = get(&public.address, "GET", &[]).expect("a response");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(!body.contains("# EOF"));
    let accept = [("accept", "application/openmetrics-text; version=1.0.0, text/plain; q=0.5")];
    let (head, body) = get(&public.address, "GET", &accept).expect("a response");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
}

#[test]
fn b71_any_server_reports_for_the_whole_cluster() {
    let mut cluster = Cluster::start_with(&["--metrics-public", "--drives", "/"]);
    cluster.servers.iter().for_each(|server| server.wait_ready(200));
    let up = |server: &Server, value: u8| {
        format!("resource_server_up{{server=\"{}\"}} {value}\n", server.url())
    };
    for server in &cluster.servers {
        eventually("both are up, and have been sampled", || {
            let (_, body) = get(&server.address, "GET", &[])?;
            let mut all = cluster.servers.iter();
            let sample = |server: &Server| {
                format!("resource_sample_time_seconds{{server=\"{}\"}}", server.url())
            };
            all.all(|other| body.contains(&up(other, 1)) && body.contains(&sample(other)))
                .then_some(())
        });
    }
    let table = tool(&cluster.servers[0].address, &[]);
    assert_eq!(table.code, Some(0), "{table:?}");
    for server in &cluster.servers {
        assert!(table.stdout.contains(&format!("{}  since ", server.url())), "{table:?}");
    }
    assert!(!cluster.clients.iter().any(|client| table.stdout.contains(client)), "{table:?}");
    #[cfg(target_os = "linux")]
    for (server, name) in cluster.servers.iter().zip(["drive", "memory_used"]) {
        let (_, body) = get(&server.address, "GET", &[]).expect("a response");
        assert!(body.contains(&format!("resource_{name}")), "{body}");
        assert!(body.contains("drive=\"/\""), "{body}");
    }

    cluster.servers[1].kill();
    let (survivor, victim) = (&cluster.servers[0], &cluster.servers[1]);
    eventually("the loss is shown", || {
        let (_, body) = get(&survivor.address, "GET", &[])?;
        (body.contains(&up(survivor, 1)) && body.contains(&up(victim, 0))).then_some(())
    });
    let (_, body) = get(&survivor.address, "GET", &[]).expect("a response");
    let reason =
        format!("resource_server_down{{server=\"{}\",reason=\"not_connected\"}} 1", victim.url());
    assert!(body.contains(&reason), "{body}");
    let table = tool(&survivor.address, &[]);
    assert_eq!(table.code, Some(0), "a down server is not an error: {table:?}");
    assert!(
        table.stdout.contains(&format!("{}  DOWN, not connected: ", victim.url())),
        "{table:?}"
    );
    let json = tool(&survivor.address, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["servers"][victim.url()]["down"]["reason"], "not_connected");
    assert!(json["servers"][survivor.url()]["up"].is_object(), "{json}");
}

#[test]
fn errors_name_the_cause_and_have_distinct_exit_codes() {
    let directory = Directory::new();
    let [unused] = free_addresses().map(|address| format!("http://{address}"));
    let short = directory.file("short", "hushhh");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", listener.local_addr().expect("bound"));
    for (arguments, code, expected) in [
        (&["http://127.0.0.1:1/path"][..], 2, "without a path"),
        (&["https://127.0.0.1:1"][..], 2, "needs TLS"),
        (&[unused.as_str(), "--token-file", &short][..], 2, "the token has 6 bytes"),
        (&[unused.as_str(), "--token-file", "/no"][..], 2, "cannot be read"),
        (&[unused.as_str()][..], 1, "is it running?"),
        (&[silent.as_str(), "--timeout", "50ms"][..], 1, "did not respond within 50ms"),
    ] {
        let output = run(&[&["metrics"], arguments].concat());
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(expected), "{arguments:?}: {output:?}");
        assert!(!output.stderr.contains("hush"), "{output:?}");
    }
}
