//! A real OTLP receiver, over gRPC or over HTTP: records every span and every byte.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use flate2::read::GzDecoder;
use http::{HeaderMap, header};
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// The limit of every wait for spans: only a broken exporter reaches it.
const LIMIT: Duration = Duration::from_mins(1);

/// One span as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) instance: String,
    pub(crate) team: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Trace and span of each.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
}

impl Got {
    pub(crate) fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// What was received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    spans: Arc<Mutex<Vec<Got>>>,
    metrics: Arc<Mutex<Vec<String>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
    headers: Arc<Mutex<Vec<String>>>,
}

/// A running receiver. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) received: Received,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Sink {
    pub(crate) async fn http() -> Self {
        let received = Received::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(received.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { received, address, _tasks: tasks }
    }

    pub(crate) async fn grpc() -> Self {
        let received = Received::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(
                TraceServiceServer::new(received.clone()).accept_compressed(CompressionEncoding::Gzip),
            )
            .add_service(
                MetricsServiceServer::new(received.clone()).accept_compressed(CompressionEncoding::Gzip),
            )
            .serve_with_incoming(TcpIncoming::from(listener));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server.await.unwrap() });
        Self { received, address, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans, once `enough` accepts them.
    pub(crate) async fn spans(&self, what: &str, enough: impl Fn(&[Got]) -> bool + Send + Sync) -> Vec<Got> {
        let wait = async {
            let mut again = tokio::time::interval(Duration::from_millis(20));
            loop {
                again.tick().await;
                let spans = self.received.spans.lock().unwrap().clone();
                if enough(&spans) {
                    return spans;
                }
            }
        };
        let spans = tokio::time::timeout(LIMIT, wait).await;
        assert!(spans.is_ok(), "not received: {what}; but {:#?}", self.received.spans.lock().unwrap());
        spans.unwrap()
    }

    /// The names of the metrics that were received.
    pub(crate) fn metrics(&self) -> Vec<String> {
        self.received.metrics.lock().unwrap().clone()
    }

    /// Every received byte, and separately every header.
    pub(crate) fn bytes(&self) -> (Vec<u8>, Vec<String>) {
        (self.received.bytes.lock().unwrap().clone(), self.received.headers.lock().unwrap().clone())
    }
}

impl Received {
    fn take_spans(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.spans.lock().unwrap();
        for of_resource in request.resource_spans {
            let resource = attributes(&of_resource.resource.unwrap().attributes);
            assert!(resource.contains_key("service.name"), "{resource:?}");
            let instance = resource["service.instance.id"].clone();
            let team = resource.get("team").cloned().unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Got {
                    instance: instance.clone(),
                    team: team.clone(),
                    attributes: attributes(&span.attributes),
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
                    began: time(span.start_time_unix_nano),
                    ended: time(span.end_time_unix_nano),
                    name: span.name,
                });
            }
        }
    }

    fn take_metrics(&self, request: ExportMetricsServiceRequest) {
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        let names = scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name);
        self.metrics.lock().unwrap().extend(names);
    }

    fn note(&self, bytes: &[u8], headers: &HeaderMap) {
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        let headers =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or_default()));
        self.headers.lock().unwrap().extend(headers);
    }
}

fn time(nanos: u64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| {
        let value = one.value.clone().unwrap().value.unwrap();
        if let any_value::Value::StringValue(text) = value {
            return text;
        }
        if let any_value::Value::IntValue(number) = value {
            return number.to_string();
        }
        format!("{value:?}")
    };
    attributes.iter().map(|one| (one.key.clone(), text(one))).collect()
}

/// The body without its content coding.
fn unpacked(headers: &HeaderMap, body: Bytes) -> Bytes {
    if headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding != "gzip") {
        return body;
    }
    let mut unpacked = Vec::new();
    GzDecoder::new(body.as_ref()).read_to_end(&mut unpacked).unwrap();
    unpacked.into()
}

const PROTOBUF: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/x-protobuf")];

async fn traces(
    State(received): State<Received>,
    headers: HeaderMap,
    body: Bytes,
) -> ([(header::HeaderName, &'static str); 1], Vec<u8>) {
    let body = unpacked(&headers, body);
    received.note(&body, &headers);
    received.take_spans(ExportTraceServiceRequest::decode(body).unwrap());
    (PROTOBUF, ExportTraceServiceResponse::default().encode_to_vec())
}

async fn metrics(
    State(received): State<Received>,
    headers: HeaderMap,
    body: Bytes,
) -> ([(header::HeaderName, &'static str); 1], Vec<u8>) {
    let body = unpacked(&headers, body);
    received.note(&body, &headers);
    received.take_metrics(ExportMetricsServiceRequest::decode(body).unwrap());
    (PROTOBUF, ExportMetricsServiceResponse::default().encode_to_vec())
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let request = request.into_inner();
        self.note(&request.encode_to_vec(), &headers);
        self.take_spans(request);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let request = request.into_inner();
        self.note(&request.encode_to_vec(), &headers);
        self.take_metrics(request);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
