//! The `bug!` macro. A test binary of its own, because the count is global to the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::sync::{Arc, Mutex};

#[test]
fn b40_b41_a_bug_is_counted_and_logged_as_an_error_under_its_own_target() {
    let log: Arc<Mutex<Vec<u8>>> = Arc::default();
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Writer(Arc::clone(&writer)))
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        assert_eq!(grid::bug::count(), 0);
        grid::bug!("{} is impossible", "this");
    });
    assert_eq!(grid::bug::count(), 1);
    let log = String::from_utf8(log.lock().expect("no panic").clone()).expect("logs are text");
    assert!(log.contains("ERROR grid::bug: this is impossible"), "{log}");
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
