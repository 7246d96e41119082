//! How long and how often the pages of a list are requested. The first page is requested once, as `job get` does; a later
//! one again after an error that may pass, since a part of the list was printed already.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::duration;
use super::gateway::GatewayError;
use super::line;
use super::terminal::Terminal;

/// How often a later page is requested.
const ATTEMPTS: u32 = 6;
/// The ceiling of the first pause; each failure doubles it.
const BASE: Duration = Duration::from_secs(1);

/// The time limits of one command.
#[derive(Debug)]
pub(super) struct PageReader {
    /// The end of the command, and its length.
    deadline: Option<(Instant, Duration)>,
    /// The longest wait for one page.
    each: Duration,
    jitter: fn() -> f64,
}

impl PageReader {
    /// `limit` is that of the command, `each` that of one page.
    pub(super) fn new(limit: Option<Duration>, each: Duration, jitter: fn() -> f64) -> Self {
        let deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Self { deadline, each, jitter }
    }

    /// Requests the first page.
    pub(super) async fn first<T, F>(&self, request: impl Fn() -> F + Send + Sync) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, GatewayError>> + Send,
    {
        Ok(self.attempt(request()).await??)
    }

    /// Requests a later page, again if an error may pass. Each new error is printed once.
    pub(super) async fn next<T, F>(
        &self,
        terminal: &mut Terminal<'_>,
        request: impl Fn() -> F + Send + Sync,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, GatewayError>> + Send,
    {
        let mut complaint = None;
        let mut failures = 0;
        loop {
            let why = match self.attempt(request()).await? {
                Ok(page) => return Ok(page),
                Err(why) if failures + 1 < ATTEMPTS && why.is_retryable() => why,
                Err(why) => return Err(why.into()),
            };
            let unit = (self.jitter)();
            let wait = BASE.saturating_mul(2_u32.saturating_pow(failures)).mul_f64(0.5 + unit / 2.0);
            let wait = why.retry_after().map_or(wait, |requested| wait.max(requested + BASE.mul_f64(unit)));
            if complaint.as_ref() != Some(&why) {
                let seconds = wait.as_millis().div_ceil(1_000);
                terminal.complain(&line::visible(&format!("jobgate: {why}; retrying in {seconds}s")))?;
            }
            complaint = Some(why);
            failures += 1;
            if let Some((deadline, limit)) = self.deadline {
                timeout_at(deadline, sleep(wait)).await.map_err(|_| timed_out(limit))?;
            } else {
                sleep(wait).await;
            }
        }
    }

    async fn attempt<T, F>(&self, request: F) -> anyhow::Result<Result<T, GatewayError>>
    where
        F: Future<Output = Result<T, GatewayError>> + Send,
    {
        let (until, limit) = match self.deadline {
            Some(given) => given,
            None => (Instant::now() + self.each, self.each),
        };
        timeout_at(until, request).await.map_err(|_| timed_out(limit))
    }
}

fn timed_out(limit: Duration) -> anyhow::Error {
    anyhow::anyhow!("timed out after {}", duration::format(limit))
}
