//! Users and their rights over HTTP: `POST /v2/iam/…`, a JSON body, a bearer token.
//!
//! This file lets in whom it should and puts answers into HTTP; `iam::operations` does what is asked.
//! Bodies hold secrets: they are never logged.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use grid::Name;
use grid::net::clock::SystemClock;
use grid::time::Clock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use zeroize::Zeroizing;

use crate::iam::operations::{Fault, Operations};
use crate::iam::token;
use crate::iam::wire::{self, Answer, Problem};
use crate::startup::Startup;

/// What the paths begin with.
pub(crate) const PREFIX: &str = "/v2/iam/";

/// Largest body. The largest policy, as JSON text, is smaller.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest wait for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers those who may ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    operations: Operations,
}

impl Admin {
    pub(super) fn new(startup: Startup, server: Name) -> Self {
        Self { operations: Operations::new(startup, server) }
    }

    /// Answers one request.
    pub(super) async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.answer(request).await {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(fault) => refuse(&fault),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Fault> {
        if request.method() != Method::POST {
            return Err(Fault::Method);
        }
        let caller = self.caller(request.headers())?;
        let path = request.uri().path().trim_start_matches(PREFIX).to_owned();
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => Zeroizing::new(body.to_bytes().to_vec()),
            Ok(Err(_)) => return Err(Fault::Body { max: BODY_BYTES_MAX }),
            Err(_) => return Err(Fault::Invalid("the body did not come in time".to_owned())),
        };
        let Some(read) = wire::Request::read(&path, &body) else { return Err(Fault::Path) };
        let request = read.map_err(|error| Fault::Invalid(error.to_string()))?;
        self.operations.run(&caller, request).await
    }

    /// Who has signed the request's token.
    fn caller(&self, headers: &HeaderMap) -> Result<String, Fault> {
        let now = SystemClock::new().wall();
        let snapshot = self.operations.snapshot()?;
        let token = token::bearer(headers).ok_or(Fault::Unauthorized)?;
        let caller =
            token::check(token, now, |issuer| self.operations.secret_of(&snapshot, issuer));
        caller.ok_or(Fault::Unauthorized)
    }
}

fn refuse(fault: &Fault) -> Response<Full<Bytes>> {
    let (status, error) = match fault {
        Fault::NotReady(_) | Fault::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
        Fault::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Fault::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
        Fault::Path => (StatusCode::NOT_FOUND, "no-such-operation"),
        Fault::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
        Fault::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        Fault::Body { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Fault::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
        Fault::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
    };
    let problem = Problem { error: error.to_owned(), message: fault.to_string() };
    let mut response = json(status, &problem);
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"iam\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(serde_json::json!(body).to_string() + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
