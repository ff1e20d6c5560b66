//! What Prometheus asks: `GET /v2/metrics/resource` (B71).

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use resource_metrics::{Format, ResourceMetrics, expose};

use super::text;
use crate::metrics_access::{Access, Verdict};

/// Where the metrics of all servers are.
pub(crate) const PATH: &str = "/v2/metrics/resource";

/// For whoever wants the collection as it is, `gridwire metrics` for example.
pub(crate) const JSON: &str = "application/json";

/// The metrics of all servers, and who may read them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) metrics: ResourceMetrics,
    pub(crate) access: Access,
}

impl Metrics {
    /// The latest values of all servers, to those who may have them.
    pub(super) async fn respond(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        match self.access.judge(headers) {
            Verdict::Allowed => {}
            Verdict::Unauthorized => {
                let mut refusal = text(StatusCode::UNAUTHORIZED, "a bearer token is needed\n");
                let challenge = HeaderValue::from_static("Bearer realm=\"metrics\"");
                refusal.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                return refusal;
            }
            Verdict::Forbidden => {
                return text(
                    StatusCode::FORBIDDEN,
                    "nobody may read this server's metrics: start it with --metrics-token-file or \
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

/// All `Accept` headers as one.
fn accepted(headers: &HeaderMap) -> String {
    let values = headers.get_all(header::ACCEPT).iter();
    let texts: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    texts.join(",")
}
