//! `/metrics` on the admin listener: counters and current gauges, in the text format of Prometheus. Nothing is counted
//! here: see `telemetry::meters`.

mod gauges;

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};

use crate::inbound::streams::StreamRegistry;
use crate::jobs::Jobs;
use crate::telemetry::meters::{self, ExpositionFormat, GaugeSnapshot, ObservableSource};

/// The data that a scrape reads. A cheap clone.
#[derive(Clone, Debug)]
pub struct MetricsEndpoint {
    jobs: Jobs,
    streams: StreamRegistry,
}

impl MetricsEndpoint {
    /// The metrics of a gateway.
    pub const fn new(jobs: Jobs, streams: StreamRegistry) -> Self {
        Self { jobs, streams }
    }

    /// Registers the gauges for the export to a collector, if there is one.
    pub fn export_otlp(&self) {
        let read: Arc<dyn ObservableSource> = Arc::new(self.clone());
        meters::attach_readings(&read);
    }

    /// The response to a scrape, in the requested format.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let format = format(headers);
        match meters::write(format, self) {
            Ok(text) => {
                let headers =
                    [(header::CONTENT_TYPE, format.media_type()), (header::VARY, header::ACCEPT.as_str())];
                (headers, text).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "metrics exposition failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// `OpenMetrics` if `Accept` names it, unless with a weight of zero.
fn format(headers: &HeaderMap) -> ExpositionFormat {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|list| list.split(','));
    let names = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let named =
            parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        named && weight.is_none_or(|weight| weight > 0.0)
    };
    if ranges.any(names) { ExpositionFormat::OpenMetrics } else { ExpositionFormat::Classic }
}

impl ObservableSource for MetricsEndpoint {
    fn read(&self, out: &mut GaugeSnapshot) {
        gauges::read(&self.jobs, &self.streams, out);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn openmetrics_is_served_only_when_accepted() {
        for (accept, expected) in [
            (None, ExpositionFormat::Classic),
            (Some("*/*"), ExpositionFormat::Classic),
            (Some("text/plain;version=0.0.4"), ExpositionFormat::Classic),
            (Some("application/openmetrics-text; version=1.0.0"), ExpositionFormat::OpenMetrics),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                ),
                ExpositionFormat::OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0, text/plain"), ExpositionFormat::Classic),
        ] {
            let headers = accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept)));
            assert_eq!(format(&headers.into_iter().collect()), expected, "{accept:?}");
        }
    }
}
