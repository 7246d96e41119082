//! The connection to a collector: OTLP exporters of spans and of metrics, over gRPC or over HTTP with the crate's own
//! client. Not here: what is exported, how it is queued, and what happens if the collector does not accept it.

mod client;
mod error;
mod metrics;

use std::collections::HashMap;

use http::HeaderMap;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::{
    MetricExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use secrecy::{ExposeSecret as _, SecretString};

use self::client::OtlpClient;
pub use self::error::OtlpError;
pub use self::metrics::{MetricsExporter as CountedMetrics, provider};

/// The destination of one signal.
#[derive(Clone, Debug)]
pub struct OtlpTarget {
    /// The whole URL: for HTTP it includes the path of the signal.
    pub endpoint: String,
    /// gRPC if true, else HTTP.
    pub grpc: bool,
    /// Additional headers, as comma-separated `name=value`.
    pub headers: Option<SecretString>,
}

/// An exporter of one signal: the builders of both have the same steps, and no common trait.
macro_rules! exporter {
    ($Exporter:ident, $target:expr) => {{
        let target: &OtlpTarget = $target;
        let headers = target.headers()?;
        if target.grpc {
            $Exporter::builder()
                .with_tonic()
                .with_endpoint(&target.endpoint)
                .with_metadata(metadata(headers))
                .build()?
        } else {
            $Exporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_http_client(OtlpClient::new()?)
                .with_endpoint(&target.endpoint)
                .with_headers(texts(&headers))
                .build()?
        }
    }};
}

/// An exporter of spans. For gRPC a runtime must be entered.
///
/// # Errors
/// Returns an error if it cannot be built; it does not connect yet.
pub fn spans(target: &OtlpTarget) -> Result<SpanExporter, OtlpError> {
    Ok(exporter!(SpanExporter, target))
}

/// An exporter of metrics. For gRPC a runtime must be entered.
///
/// # Errors
/// Returns an error if it cannot be built; it does not connect yet.
pub fn metrics(target: &OtlpTarget) -> Result<MetricExporter, OtlpError> {
    Ok(exporter!(MetricExporter, target))
}

impl OtlpTarget {
    /// Validates the headers.
    ///
    /// # Errors
    /// Returns an error if they cannot be parsed.
    pub fn check(&self) -> Result<(), OtlpError> {
        self.headers().map(drop)
    }

    fn headers(&self) -> Result<HeaderMap, OtlpError> {
        let text = self.headers.as_ref().map_or("", |headers| headers.expose_secret());
        let mut headers = HeaderMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(OtlpError::Headers)?;
            let name = http::HeaderName::try_from(name.trim()).map_err(|_| OtlpError::Headers)?;
            let value = http::HeaderValue::try_from(value.trim()).map_err(|_| OtlpError::Headers)?;
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

fn metadata(headers: HeaderMap) -> MetadataMap {
    MetadataMap::from_headers(headers)
}

fn texts(headers: &HeaderMap) -> HashMap<String, String> {
    let text = |value: &http::HeaderValue| value.to_str().map(ToOwned::to_owned).ok();
    headers.iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otlp_headers_are_comma_separated_pairs() {
        let target = |text: &str| OtlpTarget {
            endpoint: String::new(),
            grpc: false,
            headers: Some(SecretString::from(text.to_owned())),
        };
        let read = target("api-key=s=1, x-tenant = a ,").headers().unwrap();
        assert_eq!((read["api-key"].as_bytes(), read["x-tenant"].as_bytes()), (&b"s=1"[..], &b"a"[..]));
        for wrong in ["secret", "bad name=1", "a=\u{7f}"] {
            let error = target(wrong).headers().unwrap_err().to_string();
            assert_eq!(error, "the headers must be name=value between commas", "{wrong}");
        }
    }
}
