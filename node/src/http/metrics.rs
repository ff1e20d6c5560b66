//! The endpoint for Prometheus: `GET /v2/metrics/resource` ([B71]).
//!
//! [B71]: resource_metrics::rules#b71

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use resource_metrics::{Format, ResourceMetrics, expose};

use super::text;
use crate::metrics_access::{Access, AccessCheck};

/// Path of the metrics of all servers.
pub(crate) const PATH: &str = "/v2/metrics/resource";

/// Media type of the collection as JSON, for example for `gridwire metrics`.
pub(crate) const JSON: &str = "application/json";

/// The metrics of all servers, and the access rule. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) metrics: ResourceMetrics,
    pub(crate) access: Access,
}

impl Metrics {
    /// Responds with the latest values of all servers, if the access rule allows it.
    pub(super) async fn respond(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        match self.access.check(headers) {
            AccessCheck::Allowed => {}
            AccessCheck::Unauthorized => {
                let mut refusal = text(StatusCode::UNAUTHORIZED, "a bearer token is required\n");
                let challenge = HeaderValue::from_static("Bearer realm=\"metrics\"");
                refusal.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                return refusal;
            }
            AccessCheck::Forbidden => {
                return text(
                    StatusCode::FORBIDDEN,
                    "this server's metrics are not readable: start it with --metrics-token-file or \
                     --metrics-public\n",
                );
            }
        }
        let Ok(collection) = self.metrics.collect().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "this server is shutting down\n");
        };
        let accept = accepted(headers);
        let (body, kind) = match accept.split(',').any(|range| range.trim() == JSON) {
            true => (serde_json::json!(*collection).to_string() + "\n", JSON),
            false => {
                let format = Format::negotiate(&accept);
                (expose(&collection, format), format.content_type())
            }
        };
        let mut response = Response::new(Full::from(body));
        let kind = HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// Joins all `Accept` headers.
fn accepted(headers: &HeaderMap) -> String {
    let values = headers.get_all(header::ACCEPT).iter();
    let texts: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    texts.join(",")
}
