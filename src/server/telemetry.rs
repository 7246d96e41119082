//! Starts the export to a collector, from the configuration and the standard `OTEL_*` variables, and stops it within a
//! timeout. Disabled, and without cost, unless one of them names a collector.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Environment, OtlpProtocol, SecretRef, endpoint_fault};
use crate::outbound::credentials::secret;
use crate::outbound::otlp::{self, OtlpTarget};
use crate::outbound::system::RuntimeSpawner;
use crate::ports::spawner::{Spawner as _, TaskKind};
use crate::telemetry::log::TraceLayer;
use crate::telemetry::meters;
use crate::telemetry::trace::TraceKey;
use crate::telemetry::trace::provider::{Batches, Sampling, TracePipeline};

/// The timeout of the shutdown: what is not exported by then is lost.
const END_WITHIN: Duration = Duration::from_secs(3);

/// What is exported, before the export starts.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<(OtlpTarget, TracePipeline)>,
    metrics: Option<(OtlpTarget, Resource)>,
}

impl Telemetry {
    /// Reads the configuration and the variables.
    ///
    /// # Errors
    /// Returns an error if a secret cannot be read, or an address or a variable is invalid; names the option or the
    /// variable.
    pub fn new(config: &Config, env: &Environment) -> anyhow::Result<Self> {
        let settings = OtlpSettings { config, env };
        let [traces, metrics] = [settings.target(&TRACES)?, settings.target(&METRICS)?];
        if traces.is_none() && metrics.is_none() {
            return Ok(Self::default());
        }
        let resource = settings.resource();
        let pipeline = |target| {
            let (key, sampling) = (settings.trace_key()?, settings.sampling()?);
            let pipeline = TracePipeline::new(resource.clone(), key, sampling, settings.batches()?);
            anyhow::Ok((target, pipeline))
        };
        let traces = traces.map(pipeline).transpose()?;
        Ok(Self { traces, metrics: metrics.map(|target| (target, resource)) })
    }

    /// The layer that creates the spans; none if they are not exported.
    pub fn layer(&self) -> Option<TraceLayer> {
        self.traces.as_ref().map(|(_, pipeline)| -> TraceLayer { Box::new(pipeline.layer()) })
    }

    /// Starts the export. A runtime must be entered; does not connect yet.
    ///
    /// # Errors
    /// Returns an error if an exporter cannot be built.
    pub fn start(self) -> anyhow::Result<TelemetryGuard> {
        let mut guard = TelemetryGuard::default();
        if let Some((target, pipeline)) = self.traces {
            let exporter = otlp::spans(&target).context("traces cannot be exported")?;
            let exporting = pipeline.export(exporter).run(guard.stop.clone());
            guard.spawner.spawn(TaskKind::Telemetry, Box::pin(exporting));
        }
        if let Some((target, resource)) = self.metrics {
            let exporter = otlp::metrics(&target).context("metrics cannot be exported")?;
            let meters = otlp::provider(exporter, resource);
            opentelemetry::global::set_meter_provider(meters.clone());
            meters::attach();
            guard.meters = Some(meters);
        }
        Ok(guard)
    }
}

/// The export to a collector, while the process serves.
#[derive(Debug, Default)]
pub struct TelemetryGuard {
    spawner: RuntimeSpawner,
    stop: CancellationToken,
    meters: Option<SdkMeterProvider>,
}

impl TelemetryGuard {
    /// Exports the rest, within a few seconds.
    pub async fn end(mut self) {
        self.stop.cancel();
        let meters = self.meters.take();
        let flushed = async {
            // the library's reader waits for its thread
            let meters = tokio::task::spawn_blocking(move || meters.map(|meters| meters.shutdown()));
            tokio::join!(self.spawner.idle(), meters).1
        };
        if tokio::time::timeout(END_WITHIN, flushed).await.is_err() {
            tracing::warn!("stopped before all telemetry was exported");
        }
    }
}

/// Checks whether the export could be started. Does not connect.
///
/// # Errors
/// The same as for [`Telemetry::new`].
pub fn check(config: &Config, env: &Environment) -> anyhow::Result<()> {
    let settings = OtlpSettings { config, env };
    for signal in [&TRACES, &METRICS] {
        if let Some(target) = settings.target(signal)? {
            target.check().context("telemetry.otlp_headers")?;
            settings.trace_key()?;
            settings.sampling()?;
            settings.batches()?;
        }
    }
    Ok(())
}

/// The variable that selects which traces are exported.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";

/// The names of one signal in the variables, and its path.
struct Signal {
    word: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal { word: "TRACES", path: "/v1/traces" };
const METRICS: Signal = Signal { word: "METRICS", path: "/v1/metrics" };

/// The configuration, with the variables as defaults.
struct OtlpSettings<'a> {
    config: &'a Config,
    env: &'a Environment,
}

impl OtlpSettings<'_> {
    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).ok().map(str::trim).filter(|text| !text.is_empty())
    }

    fn read<T: std::str::FromStr>(&self, name: &str, what: &str) -> anyhow::Result<Option<T>> {
        let Some(text) = self.variable(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| anyhow::anyhow!("{name}: must be {what}"))
    }

    /// The destination of a signal; none unless it is configured.
    fn target(&self, signal: &Signal) -> anyhow::Result<Option<OtlpTarget>> {
        let word = signal.word;
        let disabled =
            self.variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let none = self.variable(&format!("OTEL_{word}_EXPORTER")) == Some("none");
        let telemetry = &self.config.telemetry;
        let own = format!("OTEL_EXPORTER_OTLP_{word}_ENDPOINT");
        let (name, endpoint, whole) = if let Some(endpoint) = &telemetry.otlp_endpoint {
            ("telemetry.otlp_endpoint", endpoint.as_str(), false)
        } else if let Some(endpoint) = self.variable(&own) {
            (own.as_str(), endpoint, true)
        } else if let Some(endpoint) = self.variable("OTEL_EXPORTER_OTLP_ENDPOINT") {
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, false)
        } else {
            return Ok(None);
        };
        if disabled || (none && telemetry.otlp_endpoint.is_none()) {
            return Ok(None);
        }
        if let Some(fault) = endpoint_fault(endpoint) {
            anyhow::bail!("{name}: {fault}");
        }
        let grpc = self.protocol(signal)? == OtlpProtocol::Grpc;
        let endpoint = match (grpc, whole) {
            (true, _) | (_, true) => endpoint.to_owned(),
            (false, false) => format!("{}{}", endpoint.trim_end_matches('/'), signal.path),
        };
        let headers = self.secret("telemetry.otlp_headers", telemetry.otlp_headers.as_ref())?;
        Ok(Some(OtlpTarget { endpoint, grpc, headers }))
    }

    fn protocol(&self, signal: &Signal) -> anyhow::Result<OtlpProtocol> {
        if let Some(protocol) = self.config.telemetry.otlp_protocol {
            return Ok(protocol);
        }
        let own = format!("OTEL_EXPORTER_OTLP_{}_PROTOCOL", signal.word);
        for name in [own.as_str(), "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            match self.variable(name) {
                None => {}
                Some("grpc") => return Ok(OtlpProtocol::Grpc),
                Some("http/protobuf") => return Ok(OtlpProtocol::Http),
                Some(_) => anyhow::bail!("{name}: must be grpc or http/protobuf"),
            }
        }
        Ok(OtlpProtocol::Http)
    }

    fn secret(&self, option: &str, reference: Option<&SecretRef>) -> anyhow::Result<Option<SecretString>> {
        let Some(reference) = reference else { return Ok(None) };
        let read = secret::read(reference, self.env);
        read.map(Some).map_err(|reason| anyhow::anyhow!("{option}: {reference} {reason}"))
    }

    /// The key of the trace ids of jobs: the secret, or a constant that all gateways share.
    fn trace_key(&self) -> anyhow::Result<TraceKey> {
        let secret = self.secret("telemetry.trace_key", self.config.telemetry.trace_key.as_ref())?;
        if let Some(secret) = secret {
            return Ok(TraceKey::new(secret.expose_secret().as_bytes()));
        }
        // nothing that a reload may change: replicas that started before and after it have to agree
        Ok(TraceKey::new(b"jobgate"))
    }

    fn sampling(&self) -> anyhow::Result<Sampling> {
        if let Some(ratio) = self.config.telemetry.sample_ratio {
            return Ok(Sampling { ratio: ratio.get(), parent_based: true });
        }
        let what = "a number from 0 to 1";
        let argument = || self.read("OTEL_TRACES_SAMPLER_ARG", what).map(|ratio| ratio.unwrap_or(1.0));
        let (ratio, parent_based) = match self.variable(SAMPLER) {
            None | Some("parentbased_always_on") => (1.0, true),
            Some("always_on") => (1.0, false),
            Some("always_off") => (0.0, false),
            Some("parentbased_always_off") => (0.0, true),
            Some("traceidratio") => (argument()?, false),
            Some("parentbased_traceidratio") => (argument()?, true),
            Some(_) => anyhow::bail!(
                "{SAMPLER}: must be always_on, always_off, traceidratio, or one of these after parentbased_"
            ),
        };
        anyhow::ensure!((0.0..=1.0).contains(&ratio), "OTEL_TRACES_SAMPLER_ARG: must be {what}");
        Ok(Sampling { ratio, parent_based })
    }

    fn batches(&self) -> anyhow::Result<Batches> {
        let usual = Batches::default();
        let count = |name: &str, usual: usize| {
            Ok::<_, anyhow::Error>(self.read::<usize>(name, "a whole number")?.unwrap_or(usual).max(1))
        };
        let time = |name: &str, usual: Duration| {
            let read = self.read::<u64>(name, "a number of milliseconds")?;
            Ok::<_, anyhow::Error>(read.map_or(usual, Duration::from_millis))
        };
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", usual.queue)?;
        Ok(Batches {
            queue,
            at_most: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", usual.at_most)?.min(queue),
            every: time("OTEL_BSP_SCHEDULE_DELAY", usual.every)?,
            within: time("OTEL_BSP_EXPORT_TIMEOUT", usual.within)?,
        })
    }

    /// The resource: the library adds the values of `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
    fn resource(&self) -> Resource {
        let attributes = self.variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let has_attribute = |name: &str| attributes.split(',').any(|pair| pair.trim().starts_with(name));
        let mut resource = Resource::builder();
        if self.variable("OTEL_SERVICE_NAME").is_none() && !has_attribute("service.name=") {
            resource = resource.with_service_name("jobgate");
        }
        if !has_attribute("service.version=") {
            resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        }
        if !has_attribute("service.instance.id=") {
            let id = format!("{:032x}", fastrand::u128(..));
            resource = resource.with_attribute(KeyValue::new("service.instance.id", id));
        }
        resource.build()
    }
}
