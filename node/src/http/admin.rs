//! Administration of IAM over HTTP: `POST /v2/iam/…` with a JSON body and a bearer token.
//!
//! This module authenticates callers and translates to HTTP; `iam::operations` executes the
//! requests. Bodies contain secrets: they are never logged.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use grid::Name;
use grid::env::Env;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use zeroize::Zeroizing;

use crate::iam::operations::{OperationError, Operations};
use crate::iam::token;
use crate::iam::wire::{self, IamResponse, Problem};
use crate::startup::Startup;

/// Largest body. The largest policy, as JSON text, is smaller.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest wait for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Handles authenticated requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    operations: Operations,
    env: Env,
}

impl Admin {
    pub(super) fn new(startup: Startup, server: Name, env: Env) -> Self {
        Self { operations: Operations::new(startup, server, env.clone()), env }
    }

    /// Handles one request.
    pub(super) async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.handle(request).await {
            Ok(response) => json(StatusCode::OK, &response),
            Err(error) => refuse(&error),
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<IamResponse, OperationError> {
        if request.method() != Method::POST {
            return Err(OperationError::MethodNotAllowed);
        }
        let caller = self.caller(request.headers())?;
        let path = request.uri().path().trim_start_matches(wire::PREFIX).to_owned();
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => Zeroizing::new(body.to_bytes().to_vec()),
            Ok(Err(_)) => return Err(OperationError::InvalidBody { max: BODY_BYTES_MAX }),
            Err(_) => {
                let text = format!("the body did not arrive within {BODY_TIMEOUT:?}");
                return Err(OperationError::Invalid(text));
            }
        };
        let Some(parsed) = wire::IamRequest::parse(&path, &body) else {
            return Err(OperationError::UnknownPath);
        };
        let request = parsed.map_err(|error| OperationError::Invalid(error.to_string()))?;
        self.operations.run(&caller, request).await
    }

    /// Returns the access key that signed the request's token.
    fn caller(&self, headers: &HeaderMap) -> Result<String, OperationError> {
        let now = self.env.wall();
        let snapshot = self.operations.snapshot()?;
        let token = token::bearer(headers).ok_or(OperationError::Unauthorized)?;
        let caller =
            token::check(token, now, |issuer| self.operations.secret_of(&snapshot, issuer));
        caller.ok_or(OperationError::Unauthorized)
    }
}

fn refuse(error: &OperationError) -> Response<Full<Bytes>> {
    let (status, code) = match error {
        OperationError::NotReady(_) | OperationError::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
        OperationError::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
        OperationError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
        OperationError::UnknownPath => (StatusCode::NOT_FOUND, "no-such-operation"),
        OperationError::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
        OperationError::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        OperationError::InvalidBody { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        OperationError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
        OperationError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
    };
    let problem = Problem { error: code.to_owned(), message: error.to_string() };
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
