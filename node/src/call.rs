//! `gridwire call`: one call to a running server, with the response on stdout.

use std::io;
use std::time::Duration;

use grid::{CallError, CallOptions, Connection, TypedCallError};

use crate::cli::{CallArgs, CallHandler};
use crate::client::{Client, ClientError};
use crate::handlers::{ECHO, SLEEP, SleepRequest};
use crate::output;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailure {
    #[error("TEXT = {text:?} is invalid for sleep: it must be milliseconds, 0 to {}", u32::MAX)]
    Milliseconds { text: String },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Typed(#[from] TypedCallError),
    #[error("cannot write the response: {0}")]
    Write(#[from] io::Error),
}

impl CallFailure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Milliseconds { .. } => 2,
            Self::Client(error) => error.exit_code(),
            Self::Call(_) | Self::Typed(_) | Self::Write(_) => 1,
        }
    }
}

/// The validated request.
enum CallPayload<'a> {
    Echo(&'a str),
    Sleep(SleepRequest),
}

/// Calls the handler and prints the response.
pub(crate) fn run(arguments: &CallArgs) -> Result<(), CallFailure> {
    let call = parse(arguments.handler, &arguments.text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    let response = runtime.block_on(async {
        let client =
            Client::connect(&arguments.peer, &arguments.client.identity, arguments.client.timeout)
                .await?;
        let response = send(&client.connection, call, arguments.client.timeout).await;
        client.shutdown().await;
        response
    })?;
    Ok(output::print_line(&response)?)
}

fn parse(handler: CallHandler, text: &str) -> Result<CallPayload<'_>, CallFailure> {
    match handler {
        CallHandler::Echo => Ok(CallPayload::Echo(text)),
        CallHandler::Sleep => match text.parse() {
            Ok(ms) => Ok(CallPayload::Sleep(SleepRequest { ms })),
            Err(_) => Err(CallFailure::Milliseconds { text: text.to_owned() }),
        },
    }
}

async fn send(
    connection: &Connection,
    call: CallPayload<'_>,
    timeout: Duration,
) -> Result<String, CallFailure> {
    match call {
        CallPayload::Echo(text) => {
            let response = connection.request(ECHO, text.to_owned()).timeout(timeout).await?;
            Ok(String::from_utf8_lossy(&response).into_owned())
        }
        CallPayload::Sleep(request) => {
            let options = CallOptions::default().timeout(timeout);
            let response = SLEEP.call_with(connection, &request, options).await?;
            Ok(format!("slept {} ms", response.slept_ms))
        }
    }
}
