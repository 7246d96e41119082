//! `jobgate health`: checks whether a running gateway is ready, for an image's `HEALTHCHECK` and for `helm test`, where
//! there is no shell and no curl.

use std::time::Duration;

use anyhow::Context as _;
use jobgate_client::Terminal;
use url::Url;

use super::exit::Exit;
use super::runtime;
use crate::outbound::http::UpstreamHttpClient;

/// Timeout of the request: a late answer is useless to a periodic check.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of the answer, in bytes: none of it is printed.
const BODY_MAX: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct HealthArguments {
    /// URL to request; a 2xx response within 2s means ready
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9090/readyz")]
    url: Url,
}

pub(super) fn run(arguments: &HealthArguments, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    let HealthArguments { url } = arguments;
    let http_client = UpstreamHttpClient::new().context("the HTTP client cannot be built")?;
    let response = runtime::start()?.block_on(http_client.fetch(url, BODY_MAX, TIMEOUT));
    let status = response.with_context(|| format!("no response from {url}"))?.status;
    terminal.say(&format!("{url}: {status}"))?;
    Ok(if status.is_success() { Exit::Done } else { Exit::Failed })
}
