//! Why an exporter cannot be built.

use opentelemetry_otlp::ExporterBuildError;

/// Why an exporter cannot be built. Never contains addresses and secrets.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The HTTP client cannot be built.
    #[error("the http client could not be built")]
    Client,
    /// The text is not a valid list of headers.
    #[error("the headers must be name=value between commas")]
    Headers,
    /// The exporter's builder failed.
    #[error("the exporter cannot be built: check the endpoint and its certificate authorities")]
    Exporter,
}

impl From<ExporterBuildError> for OtlpError {
    // its message can contain the endpoint
    fn from(_: ExporterBuildError) -> Self {
        Self::Exporter
    }
}
