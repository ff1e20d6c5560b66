//! Invalid configurations of `gridwire serve`. Each is refused with exit code 2 and an error that
//! names the key, the value, and what is allowed.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use support::{Directory, ProcessOutput, gridwire};

const VALID: [(&str, &str); 4] = [
    ("listen", "127.0.0.1:1"),
    ("name", "http://127.0.0.1:1"),
    ("peers", "http://127.0.0.1:2,http://127.0.0.1:3"),
    ("clients", "http://127.0.0.1:9"),
];

const LISTEN: &str = "it must be an address and port, such as 0.0.0.0:9000";
const NAME: &str = "it must be a base URL without a path";
const PEERS: &str = "it must be the base URLs of all other servers, each once";
const CLIENTS: &str = "it must be base URLs that clients use as their names";
const LOCKERS: &str = "it must be at least one of the servers";
const LEASE: &str = "it must be a duration between 100ms and 1day, such as 60s";
const SECRET: &str = "it must be a readable file of at least 8 bytes";
const TOKEN: &str = "it must be a readable file with one token of at least 16 visible ASCII";
const PUBLIC: &str = "it must be true or false, and not true together with a metrics_token_file";
const INTERVAL: &str = "it must be a duration between 1s and 1day, such as 60s";
const DRIVES: &str = "it must be absolute paths of directories, each once, such as /data1";

/// A key, an invalid value, the problem, and what is allowed.
const INVALID: [(&str, &str, &str, &str); 36] = [
    ("listen", "", "it is empty", LISTEN),
    ("listen", "9000", "it is not an address with a port", LISTEN),
    ("listen", "localhost:9000", "it is not an address with a port", LISTEN),
    ("listen", "127.0.0.1:65536", "it is not an address with a port", LISTEN),
    ("name", "127.0.0.1:9000", "it must be a base URL such as", NAME),
    ("name", "ftp://a:1", "its scheme must be http", NAME),
    ("name", "http://a:1/path", "without a path", NAME),
    ("name", "http://A:1", "lower case", NAME),
    ("name", "https://a:1", "needs TLS, which gridwire does not have", NAME),
    ("peers", "http://a:1,b", "it must be a base URL such as", PEERS),
    ("peers", "http://a:1,", "it must be a base URL such as", PEERS),
    ("peers", "http://a:1,http://a:1", "http://a:1 is listed more than once", PEERS),
    ("peers", "https://a:1", "needs TLS, which gridwire does not have", PEERS),
    ("clients", "http://a:1,b", "it must be a base URL such as", CLIENTS),
    ("clients", "http://a:1,http://a:1", "http://a:1 is listed more than once", CLIENTS),
    ("clients", "http://127.0.0.1:3", "http://127.0.0.1:3 is among the peers too", CLIENTS),
    ("clients", "http://127.0.0.1:1", "http://127.0.0.1:1 is this server itself", CLIENTS),
    ("lockers", "", "it is empty", LOCKERS),
    ("lockers", "b", "it must be a base URL such as", LOCKERS),
    ("lockers", "http://127.0.0.1:1,http://127.0.0.1:1", "is listed more than once", LOCKERS),
    ("lockers", "http://127.0.0.1:4", "http://127.0.0.1:4 is not a server of this", LOCKERS),
    ("lockers", "http://127.0.0.1:9", "http://127.0.0.1:9 is a client", LOCKERS),
    ("lock_lease", "", "it is empty", LEASE),
    ("lock_lease", "60", "time unit needed", LEASE),
    ("lock_lease", "99ms", "between 100 ms and a day", LEASE),
    ("secret_file", "/does/not/exist", "cannot be read", SECRET),
    ("secret_file", "/", "cannot be read", SECRET),
    ("metrics_token_file", "", "it is empty", TOKEN),
    ("metrics_token_file", "/does/not/exist", "cannot be read", TOKEN),
    ("metrics_public", "yes", "it is neither true nor false", PUBLIC),
    ("metrics_interval", "60", "time unit needed", INTERVAL),
    ("metrics_interval", "999ms", "it is out of range", INTERVAL),
    ("metrics_interval", "2days", "it is out of range", INTERVAL),
    ("drives", "data1", "\"data1\" is not an absolute path", DRIVES),
    ("drives", "/data1,", "\"\" is not an absolute path", DRIVES),
    ("drives", "/data1,/data1", "/data1 is listed more than once", DRIVES),
];

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

fn variable(key: &str) -> String {
    format!("GRIDWIRE_{}", key.to_uppercase())
}

/// The valid values, with one replaced.
fn with_value<'a>(secret_file: &'a str, key: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let others = VALID.into_iter().chain([("secret_file", secret_file)]);
    others.filter(|(other, _)| *other != key).chain([(key, value)]).collect()
}

fn assert_refused(output: &ProcessOutput, expected: &[&str]) {
    assert_eq!(output.code, Some(2), "{output:?}");
    for expected in expected {
        assert!(output.stderr.contains(expected), "{expected:?} in {output:?}");
    }
}

#[test]
fn invalid_value_is_named_with_its_origin() {
    let directory = Directory::new();
    let secret_file = directory.file("secret", "a good secret");
    for (key, value, problem, allowed) in INVALID {
        let values = with_value(&secret_file, key, value);
        let shown = format!("{key} = {value:?}");

        let mut by_flags = gridwire(&["serve"]);
        by_flags.args(values.iter().flat_map(|(key, value)| [flag(key), (*value).to_owned()]));
        let output = by_flags.output().expect("gridwire runs").into();
        assert_refused(&output, &[&shown, &format!("from {}", flag(key)), problem, allowed]);

        let mut by_environment = gridwire(&["serve"]);
        by_environment.envs(values.iter().map(|(key, value)| (variable(key), value)));
        let output = by_environment.output().expect("gridwire runs").into();
        assert_refused(&output, &[&shown, &format!("from {}", variable(key)), problem, allowed]);

        let lines = values.iter().map(|(key, value)| format!("{key} = {value:?}\n"));
        let file = directory.file("gridwire.toml", &lines.collect::<String>());
        let by_file = gridwire(&["serve", "--config", &file]).output().expect("gridwire runs");
        assert_refused(&by_file.into(), &[&shown, &format!("from {file}"), problem, allowed]);
    }
}

#[test]
fn missing_value_is_named_with_its_flag_and_variable() {
    let directory = Directory::new();
    let secret_file = directory.file("secret", "a good secret");
    for key in ["listen", "name", "peers", "secret_file"] {
        let mut values = with_value(&secret_file, key, "");
        values.pop();
        let mut command = gridwire(&["serve"]);
        command.args(values.iter().flat_map(|(key, value)| [flag(key), (*value).to_owned()]));
        let output = command.output().expect("gridwire runs").into();
        let expected = [&format!("{key} is missing"), &flag(key), &variable(key)];
        assert_refused(&output, &expected.map(String::as_str));
    }
}

#[test]
fn short_secret_is_rejected_and_not_printed() {
    let directory = Directory::new();
    for (content, problem) in [
        ("", "the file is empty"),
        ("\n", "the file is empty"),
        ("hushhh\n", "the secret has 6 bytes, at least 8 are needed"),
    ] {
        let secret_file = directory.file("secret", content);
        let mut command = gridwire(&["serve"]);
        let values = with_value(&secret_file, "secret_file", &secret_file);
        command.args(values.iter().flat_map(|(key, value)| [flag(key), (*value).to_owned()]));
        let output: ProcessOutput = command.output().expect("gridwire runs").into();
        assert_refused(&output, &["secret_file", &secret_file, problem, SECRET]);
        assert!(!output.stderr.contains("hush"), "{output:?}");
    }
}

#[test]
fn file_with_an_unknown_key_or_a_wrong_type_is_rejected() {
    let directory = Directory::new();
    let file = directory.path("gridwire.toml");
    for (content, expected) in [
        (
            "lisen = '127.0.0.1:1'",
            ["lisen = ", "unknown key", "listen, name, peers, clients, lockers, lock_lease, sec"],
        ),
        ("listen = 9000", ["listen = 9000", "it has the type integer", "a quoted string"]),
        ("peers = [1, 2]", ["peers = [1, 2]", "it has the type array", "an array of strings"]),
        ("peers = {}", ["peers = {}", "it has the type table", "an array of strings"]),
        ("clients = [1]", ["clients = [1]", "it has the type array", "an array of strings"]),
        ("lockers = true", ["lockers = true", "it has the type boolean", "an array of strings"]),
        ("name = ['http://a:1']", ["name = [", "it has the type array", "a quoted string"]),
        ("drives = [1]", ["drives = [1]", "it has the type array", "an array of strings"]),
        ("metrics_public = 1", ["metrics_public = 1", "it has the type integer", "true or false"]),
        ("listen", ["config = ", "is invalid", "it must be a readable TOML file"]),
        ("[server]\nlisten = ''", ["server = ", "unknown key", "listen, name, peers"]),
    ] {
        directory.file("gridwire.toml", content);
        let output =
            gridwire(&["serve", "--config", &file]).output().expect("gridwire runs").into();
        assert_refused(&output, &expected);
        assert_refused(&output, &[&file]);
    }
}

#[test]
fn unreadable_file_is_named() {
    let output = gridwire(&["serve"])
        .env("GRIDWIRE_CONFIG", "/does/not/exist.toml")
        .output()
        .expect("gridwire runs")
        .into();
    let expected = ["config = \"/does/not/exist.toml\"", "from GRIDWIRE_CONFIG", "cannot be read"];
    assert_refused(&output, &expected);
}
