//! Supermetrics query status: one call an id, cheap by its row offsets, the body read before the status.
//!
//! Offsets as read here: the data row `n` has offset `n`, counted from 0 without the header, both ends included; every
//! page repeats the header. Not here: `paginate` links, which may hold a key and are never followed.

mod classify;
mod codes;
mod normalize;
mod readable;
mod rows;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Map, Value};
use tokio::time::Instant;

use self::classify::{Meaning, classify};
use self::readable::{Evidence, Readable};
use self::wire::{ErrorBody, Meta};
use super::bad_answer;
use super::distinct::Distinct;
use super::wire::{is_same_id, whole_members};
use super::words::Words;
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Job, Life};
use crate::domain::source::{SourceStatus, Upstream};
use crate::outbound::http::{Call, Query, Reply};
use crate::outbound::source::{AskError, Source, Told, Verdict};
use crate::ports::BoxFuture;
use crate::ports::credentials::Credential;
use crate::ports::upstream::{
    Asker, Detail, JobReader, Look, LookError, PollDemand, PollPacing, RowPage, RowRange,
};

/// What a limit without `Retry-After` means.
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);
/// How long nothing is asked after the upstream said that its hourly limit is used up; it does not say until when.
const USED_UP_PAUSE: Duration = Duration::from_mins(1);
/// An offset that no row has: a query has at most a million rows.
const BEHIND_ALL_ROWS: u32 = 1_000_000;
/// An id that no query has, for [`JobReader::probe`].
const NO_JOB: &str = "00000000000000000000000000000000";

/// A Supermetrics account.
#[derive(Debug)]
pub struct Supermetrics {
    source: Source,
    words: Words,
    /// It was seen to read `offset_end: 0` as "not set", and to send all rows.
    zero_is_unset: AtomicBool,
    readable: Readable,
    /// Held while another job is read for the sake of evidence.
    checking: tokio::sync::Mutex<()>,
    /// It was seen to give no rows behind the last one.
    honours_offsets: AtomicBool,
}

impl JobReader for Supermetrics {
    fn name(&self) -> &SourceName {
        &self.source.settings.name
    }

    fn upstream(&self) -> Upstream {
        self.source.upstream()
    }

    fn look<'a>(&'a self, ids: &'a [ExternalId], asker: &'a Asker) -> BoxFuture<'a, Vec<Look>> {
        Box::pin(async move {
            let distinct = Distinct::new(ids);
            let looks = join_all(distinct.ids.iter().map(|id| self.look_at(id, asker))).await;
            distinct.spread(&looks)
        })
    }

    /// Reads rows of a query that succeeded. One in any other state has none, and answers [`LookError::NotFound`] like
    /// one that is gone.
    fn rows<'a>(
        &'a self,
        id: &'a ExternalId,
        range: RowRange,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<RowPage, LookError>> {
        Box::pin(self.read_all(id, range, asker))
    }

    /// Asks for a query that cannot exist: whoever says so has taken the credential.
    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), LookError>> {
        Box::pin(async move {
            let judge = |reply: &Reply| {
                self.judge(reply, |meaning| match settle(meaning) {
                    Ok(_) | Err(LookError::NotFound) => Ok(()),
                    Err(error) => Err(error),
                })
            };
            let bounds = self.status_bounds();
            let call = self.call(NO_JOB, 0, 0, bounds.max_body);
            self.source.probe(other, &call, bounds.deadline, judge).await
        })
    }

    fn status(&self) -> SourceStatus {
        self.source.status()
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.source.pace_polls(demand)
    }

    fn take_recheck(&self) -> bool {
        self.source.take_recheck()
    }
}

/// Until when an answer must be there, and how large it may be.
#[derive(Clone, Copy)]
struct Bounds {
    deadline: Instant,
    max_body: usize,
}

/// What a meaning that is an answer says: the meta, and the reason if the query failed.
type Said = (Meta, Option<ErrorBody>);

impl Supermetrics {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            words: Words::default(),
            zero_is_unset: AtomicBool::new(false),
            readable: Readable::default(),
            checking: tokio::sync::Mutex::default(),
            honours_offsets: AtomicBool::new(false),
        }
    }

    /// Looks at one job. An error that may speak of this job or of all of them ends the job only where another one can
    /// be read: then the job is what is refused.
    async fn look_at(&self, id: &ExternalId, asker: &Asker) -> Look {
        let bounds = self.status_bounds();
        let denied = Mutex::new(None);
        let judge = |reply: &Reply| {
            self.judge(reply, |meaning| {
                if let Meaning::Denied(meta, error) = meaning {
                    let text = denial(&error);
                    *denied.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, error));
                    return Err(LookError::Unavailable(Detail::new(text)));
                }
                self.read(id, meaning)
            })
        };
        let mut told = self.ask(id.as_str(), asker, (0, 0), bounds, judge).await;
        let job = match &told.outcome {
            Err(AskError::TooLarge { head, .. }) => self.read_head(id, head),
            Ok(_) | Err(AskError::Look(_)) => None,
        };
        match (job, &told.outcome) {
            (Some(job), _) => {
                self.source.read_after_all(id);
                told.outcome = Ok(job);
            }
            // its first row alone is too large, and stands before the status: behind the last row there is none
            (None, Err(AskError::TooLarge { head, .. }))
                if head.body.trim_ascii_start().starts_with(b"{") =>
            {
                let call = self.call(id.as_str(), BEHIND_ALL_ROWS, BEHIND_ALL_ROWS, bounds.max_body);
                told = self.source.ask(asker, &call, bounds.deadline, judge).await;
            }
            (None, _) => {}
        }
        let mut outcome = told.outcome.map_err(LookError::from);
        let denied = denied.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (&outcome, denied) {
            (Ok(job), _) if job.failure().is_none() => self.readable.note(id, told.sent),
            (Err(LookError::Unavailable(_)), Some((meta, error))) => {
                if self.another_reads(id, Instant::now(), asker, bounds).await {
                    outcome = check_echo(id, &meta).map(|()| self.failed(id, meta, &error));
                }
            }
            (Ok(_) | Err(_), _) => {}
        }
        Look { asked_at: told.asked_at, observed_at: told.observed_at, outcome }
    }

    /// Says whether a job other than `id` can be read, by a request sent after `denied`, the time at which the answer
    /// about `id` arrived: an earlier one may have been answered before the permission was lost.
    async fn another_reads(&self, id: &ExternalId, denied: Instant, asker: &Asker, bounds: Bounds) -> bool {
        // one check at a time: those who waited for it take its result
        let Ok(_turn) = tokio::time::timeout_at(bounds.deadline, self.checking.lock()).await else {
            return false;
        };
        let other = match self.readable.evidence(id, denied) {
            Evidence::OthersRead => return true,
            Evidence::None => return false,
            Evidence::Check(other) => other,
        };
        let judge = |reply: &Reply| self.judge(reply, |meaning| self.read(&other, meaning));
        let told = self.ask(other.as_str(), asker, (0, 0), bounds, judge).await;
        let reads = told.outcome.is_ok_and(|job| job.failure().is_none());
        if reads {
            self.readable.note(&other, told.sent);
        }
        reads
    }

    fn failed(&self, id: &ExternalId, meta: Meta, error: &ErrorBody) -> Arc<Job> {
        Arc::new(normalize::failed(self.key(id), meta, error))
    }

    fn key(&self, id: &ExternalId) -> JobKey {
        JobKey { source: self.name().clone(), external_id: id.clone() }
    }

    /// The job as the head of an answer describes it that is too large to be read to its end: a wide row must not keep a
    /// query from ending.
    fn read_head(&self, id: &ExternalId, head: &Reply) -> Option<Arc<Job>> {
        match classify(head.status, &whole_members(&head.body)?) {
            meaning @ Meaning::Status(_) => self.read(id, meaning).ok(),
            Meaning::QueryFailed(..)
            | Meaning::Denied(..)
            | Meaning::QueryLimited
            | Meaning::NotFound
            | Meaning::Rejected
            | Meaning::Forbidden
            | Meaning::Limited
            | Meaning::Trouble(_)
            | Meaning::Sick(_)
            | Meaning::Odd(_) => None,
        }
    }

    fn read(&self, id: &ExternalId, meaning: Meaning) -> Result<Arc<Job>, LookError> {
        let (meta, error) = settle(meaning)?;
        check_echo(id, &meta)?;
        let Some(error) = error else { return Ok(self.alive(id, meta)) };
        Ok(self.failed(id, meta, &error))
    }

    fn alive(&self, id: &ExternalId, meta: Meta) -> Arc<Job> {
        let job = normalize::job(self.key(id), meta);
        if job.life == Life::Unknown {
            self.words.note(self.name(), job.native_state.as_deref());
        }
        Arc::new(job)
    }

    /// Asks for the status of a query with a stretch of its rows, both ends included.
    ///
    /// Whether an end of 0 is read as "not set" is not documented. An answer that is too large for a stretch ending
    /// there says so: then the end is 1, once more now and from the start ever after.
    async fn ask<T: Send>(
        &self,
        id: &str,
        asker: &Asker,
        (first, last): (u32, u32),
        bounds: Bounds,
        judge: impl Fn(&Reply) -> Verdict<T> + Send + Sync,
    ) -> Told<T> {
        let known = self.zero_is_unset.load(Ordering::Relaxed);
        let end = if known { last.max(1) } else { last };
        let call = self.call(id, first, end, bounds.max_body);
        let told = self.source.ask(asker, &call, bounds.deadline, &judge).await;
        if end > 0 || !matches!(told.outcome, Err(AskError::TooLarge { .. })) {
            return told;
        }
        let call = self.call(id, first, 1, bounds.max_body);
        let again = self.source.ask(asker, &call, bounds.deadline, &judge).await;
        if again.outcome.is_ok() && !self.zero_is_unset.swap(true, Ordering::Relaxed) {
            tracing::warn!(source = %self.name(), "source ignores offset_end 0; offset_end 1 is sent");
        }
        again
    }

    fn call(&self, id: &str, first: u32, last: u32, max_body: usize) -> Call {
        let mut parameters = Map::new();
        parameters.insert("schedule_id".to_owned(), Value::from(id));
        parameters.insert("offset_start".to_owned(), Value::from(first));
        parameters.insert("offset_end".to_owned(), Value::from(last));
        Call {
            method: Method::GET,
            base: self.source.settings.base_url.clone(),
            segments: vec!["query".to_owned(), "status".to_owned()],
            query: Query::Json(parameters),
            body: None,
            max_body,
            about: Some(id.to_owned()),
        }
    }

    /// Decides what a reply means for the source; what it means for the question is for `read` to say.
    fn judge<T>(&self, reply: &Reply, read: impl FnOnce(Meaning) -> Result<T, LookError>) -> Verdict<T> {
        if reply.hour_is_used_up() {
            tracing::warn!(source = %self.name(), "hourly limit of the source exhausted");
            self.source.pause(USED_UP_PAUSE);
        }
        match classify(reply.status, &reply.body) {
            Meaning::Rejected => Verdict::Rejected,
            Meaning::Limited => Verdict::Throttled(self.pause(reply)),
            Meaning::QueryLimited => {
                Verdict::Spoke(Err(LookError::Throttled { retry_after: self.pause(reply) }))
            }
            Meaning::Sick(text) => Verdict::Sick(Detail::new(text)),
            meaning @ (Meaning::Status(_)
            | Meaning::QueryFailed(..)
            | Meaning::Denied(..)
            | Meaning::NotFound
            | Meaning::Forbidden
            | Meaning::Trouble(_)
            | Meaning::Odd(_)) => Verdict::Spoke(read(meaning)),
        }
    }

    fn pause(&self, reply: &Reply) -> Duration {
        reply.retry_after(self.source.now()).unwrap_or(DEFAULT_PAUSE)
    }

    fn status_bounds(&self) -> Bounds {
        let settings = &self.source.settings;
        Bounds { deadline: Instant::now() + settings.status_timeout, max_body: settings.max_status_body }
    }
}

/// The answer in a meaning, or the error that it is for this one question.
fn settle(meaning: Meaning) -> Result<Said, LookError> {
    match meaning {
        Meaning::Status(meta) => Ok((meta, None)),
        Meaning::QueryFailed(meta, error) => Ok((meta, Some(error))),
        Meaning::NotFound => Err(LookError::NotFound),
        Meaning::Rejected | Meaning::Forbidden => Err(LookError::CredentialRejected),
        Meaning::Limited | Meaning::QueryLimited => Err(LookError::Throttled { retry_after: DEFAULT_PAUSE }),
        Meaning::Denied(_, error) => Err(LookError::Unavailable(Detail::new(denial(&error)))),
        Meaning::Sick(text) | Meaning::Trouble(text) => Err(LookError::Unavailable(Detail::new(text))),
        Meaning::Odd(text) => Err(bad_answer(text)),
    }
}

fn denial(error: &ErrorBody) -> String {
    let code: String = error.code.as_deref().unwrap_or_default().chars().take(60).collect();
    format!("it refuses the query: {code:?}")
}

/// An answer about another query is none.
fn check_echo(id: &ExternalId, meta: &Meta) -> Result<(), LookError> {
    match meta.schedule_id.as_deref() {
        Some(told) if !is_same_id(told, id.as_str()) => Err(bad_answer("the answer describes another id")),
        Some(_) | None => Ok(()),
    }
}
