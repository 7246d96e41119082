//! Starts the export to a collector, from the configuration and the standard `OTEL_*` variables, and stops it within a
//! timeout. Disabled, and without cost, unless one of them names a collector.

mod variables;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Environment, SecretRef};
use crate::outbound::credentials::secret;
use crate::outbound::otlp::{self, OtlpTarget};
use crate::outbound::system::RuntimeSpawner;
use crate::ports::spawner::{Spawner as _, TaskKind};
use crate::telemetry::log::TraceLayer;
use crate::telemetry::meters;
use crate::telemetry::trace::TraceKey;
use crate::telemetry::trace::provider::{Sampling, TracePipeline};

use variables::{METRICS, OtelVariables, Signal, TRACES};

/// The timeout of the shutdown: what is not exported by then is lost.
const END_WITHIN: Duration = Duration::from_secs(3);

/// What is exported, before the export starts.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<(OtlpTarget, TracePipeline)>,
    metrics: Option<(OtlpTarget, Resource)>,
    ignored: BTreeMap<String, &'static str>,
}

impl Telemetry {
    /// Reads the configuration and the variables.
    ///
    /// # Errors
    /// Returns an error if a secret cannot be read, or an option is invalid; names the option.
    pub fn new(config: &Config, env: &Environment) -> anyhow::Result<Self> {
        let settings = OtlpSettings::new(config, env);
        let [traces, metrics] = [settings.target(&TRACES)?, settings.target(&METRICS)?];
        let resource = settings.resource();
        let pipeline = |target| {
            let (sampling, batches) = (settings.sampling(), settings.variables.batches());
            let pipeline = TracePipeline::new(resource.clone(), settings.trace_key()?, sampling, batches);
            anyhow::Ok((target, pipeline))
        };
        let traces = traces.map(pipeline).transpose()?;
        let ignored = settings.variables.ignored();
        Ok(Self { traces, metrics: metrics.map(|target| (target, resource)), ignored })
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
        for (variable, reason) in self.ignored {
            tracing::warn!(variable, reason, "environment variable ignored");
        }
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
    let settings = OtlpSettings::new(config, env);
    for signal in [&TRACES, &METRICS] {
        if let Some(target) = settings.target(signal)? {
            target.check().context("telemetry.otlp_headers")?;
        }
    }
    Ok(())
}

/// The configuration, with the variables as defaults.
struct OtlpSettings<'a> {
    config: &'a Config,
    env: &'a Environment,
    variables: OtelVariables<'a>,
}

impl<'a> OtlpSettings<'a> {
    fn new(config: &'a Config, env: &'a Environment) -> Self {
        Self { config, env, variables: OtelVariables::new(env) }
    }

    /// The destination of a signal; none unless it is configured.
    fn target(&self, signal: &Signal) -> anyhow::Result<Option<OtlpTarget>> {
        let telemetry = &self.config.telemetry;
        // read in any case, so that an unsupported value is reported
        let (none, of_variable) = (self.variables.is_none(signal), self.variables.endpoint(signal));
        let (endpoint, whole) = match (&telemetry.otlp_endpoint, of_variable) {
            (Some(endpoint), _) => (endpoint.as_str(), false),
            (None, Some(found)) if !none => found,
            (None, _) => return Ok(None),
        };
        if self.variables.is_disabled() {
            return Ok(None);
        }
        let grpc = self.variables.is_grpc(signal);
        let endpoint = match (grpc, whole) {
            (true, _) | (_, true) => endpoint.to_owned(),
            (false, false) => format!("{}{}", endpoint.trim_end_matches('/'), signal.path),
        };
        let headers = self.secret("telemetry.otlp_headers", telemetry.otlp_headers.as_ref())?;
        Ok(Some(OtlpTarget { endpoint, grpc, headers }))
    }

    fn secret(&self, option: &str, reference: Option<&SecretRef>) -> anyhow::Result<Option<SecretString>> {
        let Some(reference) = reference else { return Ok(None) };
        let read = secret::read(reference, self.env);
        read.map(Some).map_err(|reason| anyhow::anyhow!("{option}: {reference} {reason}"))
    }

    /// The key of the trace ids of jobs: from the secret that all replicas share, or a constant that all gateways share.
    fn trace_key(&self) -> anyhow::Result<TraceKey> {
        // nothing that a reload may change: replicas that started before and after it have to agree
        let secret = self.secret("watch_tokens.secret", self.config.watch_tokens.secret.as_ref())?;
        Ok(secret.map_or_else(
            || TraceKey::new(b"jobgate"),
            |secret| TraceKey::derived_from(secret.expose_secret().as_bytes()),
        ))
    }

    fn sampling(&self) -> Sampling {
        match self.config.telemetry.sample_ratio {
            Some(ratio) => Sampling { ratio: ratio.get(), parent_based: true },
            None => self.variables.sampling(),
        }
    }

    /// The resource: our attributes, and those of the variables, which have precedence.
    fn resource(&self) -> Resource {
        let instance = format!("{:032x}", fastrand::u128(..));
        let ours = [
            ("service.name", "jobgate"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", instance.as_str()),
        ];
        let mut attributes: BTreeMap<String, String> =
            ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        attributes.extend(self.variables.resource_attributes());
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)))
            .build()
    }
}
