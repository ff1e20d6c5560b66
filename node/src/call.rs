//! `gridwire call`: one call to a running server, its answer on stdout.

use std::io;
use std::time::Duration;

use grid::{CallError, CallOptions, Connection, TypedCallError};

use crate::cli::{CallArgs, Callable};
use crate::handlers::{ECHO, SLEEP, SleepRequest};
use crate::probe::{Probe, ProbeError};
use crate::stdout;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailure {
    #[error("TEXT = {text:?} is wrong for sleep: it must be milliseconds, 0 to {}", u32::MAX)]
    Milliseconds { text: String },
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Typed(#[from] TypedCallError),
    #[error("cannot write the answer: {0}")]
    Write(#[from] io::Error),
}

impl CallFailure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Milliseconds { .. } => 2,
            Self::Probe(error) => error.exit_code(),
            Self::Call(_) | Self::Typed(_) | Self::Write(_) => 1,
        }
    }
}

/// What to send, once it is known to be well-formed.
enum Call<'a> {
    Echo(&'a str),
    Sleep(SleepRequest),
}

/// Calls, and prints the answer.
pub(crate) fn run(arguments: &CallArgs) -> Result<(), CallFailure> {
    let call = parse(arguments.handler, &arguments.text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(ProbeError::Runtime)?;
    let answer = runtime.block_on(async {
        let probe =
            Probe::connect(&arguments.peer, &arguments.probe.entry, arguments.probe.timeout)
                .await?;
        let answer = make(&probe.connection, call, arguments.probe.timeout).await;
        probe.leave().await;
        answer
    })?;
    Ok(stdout::line(&answer)?)
}

fn parse(handler: Callable, text: &str) -> Result<Call<'_>, CallFailure> {
    match handler {
        Callable::Echo => Ok(Call::Echo(text)),
        Callable::Sleep => match text.parse() {
            Ok(ms) => Ok(Call::Sleep(SleepRequest { ms })),
            Err(_) => Err(CallFailure::Milliseconds { text: text.to_owned() }),
        },
    }
}

async fn make(
    connection: &Connection,
    call: Call<'_>,
    timeout: Duration,
) -> Result<String, CallFailure> {
    match call {
        Call::Echo(text) => {
            let answer = connection.request(ECHO, text.to_owned()).timeout(timeout).await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        }
        Call::Sleep(request) => {
            let options = CallOptions::default().timeout(timeout);
            let answer = SLEEP.call_with(connection, &request, options).await?;
            Ok(format!("slept {} ms", answer.slept_ms))
        }
    }
}
