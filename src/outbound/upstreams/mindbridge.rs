//! MindBridge async results: one id by GET, many by the query endpoint, page after page.
//!
//! The facts are in the vendor's reference; where it is silent, this is built so that either answer works: an id that
//! is absent from a query is confirmed by a GET before it is called missing, and a tenant that refuses the query
//! endpoint is asked one job at a time.

mod normalize;
mod parts;
mod problem;
mod query;
mod split;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use self::parts::OpenParts;
use self::problem::is_own_error;
use self::query::QueryEndpoint;
use self::split::ReadAlone;
use self::wire::AsyncResult;
use super::distinct::Distinct;
use super::wire::{is_same_id, object, whole_members};
use super::words::Words;
use super::{bad_answer, contained};
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Job, Life};
use crate::domain::source::{SourceStatus, Upstream};
use crate::outbound::http::{Call, Query, Reply};
use crate::outbound::source::{AskError, Source, Verdict};
use crate::ports::BoxFuture;
use crate::ports::credentials::Credential;
use crate::ports::upstream::{
    Asker, Detail, JobReader, Look, LookError, PollDemand, PollPacing, RowPage, RowRange,
};

/// What a 429 without any hint means: "retry after about 30 s".
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);
/// An id that no job has, for [`JobReader::probe`].
const NO_JOB: &str = "000000000000000000000000";

/// A MindBridge tenant.
#[derive(Debug)]
pub struct MindBridge {
    source: Source,
    words: Words,
    query_endpoint: QueryEndpoint,
    alone: ReadAlone,
    parts: OpenParts,
}

impl JobReader for MindBridge {
    fn name(&self) -> &SourceName {
        &self.source.settings.name
    }

    fn upstream(&self) -> Upstream {
        self.source.upstream()
    }

    fn look<'a>(&'a self, ids: &'a [ExternalId], asker: &'a Asker) -> BoxFuture<'a, Vec<Look>> {
        Box::pin(async move {
            let deadline = self.deadline();
            let distinct = Distinct::new(ids);
            let chunks = distinct.ids.chunks(Upstream::MindBridge.ids_a_request());
            let looks = join_all(chunks.map(|chunk| self.look_at(chunk, asker, deadline))).await;
            distinct.spread(&looks.concat())
        })
    }

    fn rows<'a>(
        &'a self,
        _id: &'a ExternalId,
        _range: RowRange,
        _asker: &'a Asker,
    ) -> BoxFuture<'a, Result<RowPage, LookError>> {
        Box::pin(std::future::ready(Err(LookError::NotFound)))
    }

    /// Reads a job that cannot exist: a "not found" in MindBridge's own words has taken the credential. A wrong path under
    /// the right host may say the same, so this proves less about the base URL than about the credential.
    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), LookError>> {
        Box::pin(async move {
            let call = self.call(Method::GET, vec![NO_JOB.to_owned()]);
            self.source.probe(other, &call, self.deadline(), |reply| self.judge_probe(reply)).await
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

impl MindBridge {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            words: Words::default(),
            query_endpoint: QueryEndpoint::default(),
            alone: ReadAlone::default(),
            parts: OpenParts::default(),
        }
    }

    /// When a question that is asked now must have its answer, with all its pages and tries.
    fn deadline(&self) -> Instant {
        Instant::now() + self.source.settings.status_timeout
    }

    /// Looks at up to a chunk of different ids: same order, same length.
    async fn look_at(&self, ids: &[&ExternalId], asker: &Asker, deadline: Instant) -> Vec<Look> {
        let together: Vec<&ExternalId> = ids.iter().copied().filter(|id| !self.alone.holds(id)).collect();
        let mut looks = match together.as_slice() {
            [] | [_] => HashMap::new(),
            _ if self.query_endpoint.is_off() => HashMap::new(),
            together => self.query_in_parts(together, asker, deadline).await,
        };
        // what the query did not settle is settled one by one; the gate bounds how fast
        join_all(ids.iter().map(|id| {
            let settled = looks.remove(*id);
            async move {
                match settled {
                    Some(look) => look,
                    None => self.get(id, asker, deadline).await,
                }
            }
        }))
        .await
    }

    /// Looks at one job.
    async fn get(&self, id: &ExternalId, asker: &Asker, deadline: Instant) -> Look {
        let call = self.call(Method::GET, vec![id.as_str().to_owned()]);
        let judge = |reply: &Reply| self.judge_one(reply, |wire| self.read_one(id, wire));
        let told = self.source.ask(asker, &call, deadline, judge).await;
        let outcome = told.outcome.or_else(|error| self.read_head(id, error));
        Look { asked_at: told.asked_at, observed_at: told.observed_at, outcome }
    }

    /// What the answer to a read of one job means. That there is no such job is only what MindBridge's own error says:
    /// anybody on the way may answer 404.
    fn judge_one<T>(
        &self,
        reply: &Reply,
        read: impl FnOnce(AsyncResult) -> Result<T, LookError>,
    ) -> Verdict<T> {
        match reply.status {
            status if status.is_success() => {
                let wire = object(&reply.body).filter(AsyncResult::is_one);
                let text = "the body is not a JSON object that describes an async result; check base_url";
                Verdict::Spoke(wire.ok_or_else(|| bad_answer(text)).and_then(read))
            }
            status @ (StatusCode::NOT_FOUND | StatusCode::GONE) if is_own_error(status, &reply.body) => {
                Verdict::Spoke(Err(LookError::NotFound))
            }
            _ => self.judge_error(reply),
        }
    }

    /// What the answer to a read of [`NO_JOB`] means.
    fn judge_probe(&self, reply: &Reply) -> Verdict<()> {
        match self.judge_one(reply, |_| Ok(())) {
            Verdict::Spoke(Err(LookError::NotFound)) => Verdict::Spoke(Ok(())),
            verdict @ (Verdict::Spoke(_) | Verdict::Rejected | Verdict::Throttled(_) | Verdict::Sick(_)) => {
                verdict
            }
        }
    }

    /// The job as the head of an answer describes it that is too large to be read to its end: a long text must not keep
    /// a job from ending. The head has to say the status, and which job or version it is.
    fn read_head(&self, id: &ExternalId, error: AskError) -> Result<Arc<Job>, LookError> {
        if let AskError::TooLarge { head, .. } = &error
            && head.status.is_success()
            && let Some(members) = whole_members(&head.body)
            && let Some(wire) = object(&members).filter(AsyncResult::is_one)
        {
            self.source.read_after_all(id);
            return self.read_one(id, wire);
        }
        Err(error.into())
    }

    fn read_one(&self, id: &ExternalId, wire: AsyncResult) -> Result<Arc<Job>, LookError> {
        match wire.id.text.as_deref() {
            Some(told) if !is_same_id(told, id.as_str()) => {
                Err(bad_answer("the answer describes another id"))
            }
            // older pages show the id as an empty object: an artefact, not another job
            Some(_) | None => self.job(id, wire),
        }
    }

    /// Puts an answer into our words. One item that we cannot cope with must not cost its companions on the page.
    fn job(&self, id: &ExternalId, wire: AsyncResult) -> Result<Arc<Job>, LookError> {
        let key = JobKey { source: self.name().clone(), external_id: id.clone() };
        let job = contained(|| normalize::job(key, wire))?;
        if job.life == Life::Unknown {
            self.words.note(self.name(), job.native_state.as_deref());
        }
        Ok(Arc::new(job))
    }

    /// What any status but the expected ones means. The body is not required: which statuses carry one is not documented.
    fn judge_error<T>(&self, reply: &Reply) -> Verdict<T> {
        let status = reply.status;
        if status == StatusCode::UNAUTHORIZED {
            Verdict::Rejected
        } else if status == StatusCode::FORBIDDEN && is_page(&reply.body) {
            Verdict::Spoke(Err(bad_answer(
                "it responded with 403 and a body that is not a JSON object: a firewall or a proxy perhaps",
            )))
        } else if status == StatusCode::FORBIDDEN {
            // the token is good for other jobs perhaps, so the source goes on
            Verdict::Spoke(Err(LookError::CredentialRejected))
        } else if status == StatusCode::TOO_MANY_REQUESTS {
            let pause = reply.retry_after(self.source.now()).or_else(|| reply.user_hour_remaining());
            Verdict::Throttled(pause.unwrap_or(DEFAULT_PAUSE))
        } else if status.is_server_error() {
            Verdict::Sick(Detail::new(format!("it responded with {}", status.as_u16())))
        } else if status.is_redirection() {
            Verdict::Spoke(Err(bad_answer(
                "it responded with a redirect, which is not followed; check base_url",
            )))
        } else if is_own_error(status, &reply.body) {
            Verdict::Spoke(Err(bad_answer(format!("it responded with {}", status.as_u16()))))
        } else {
            let text = format!(
                "it responded with {} without MindBridge's own JSON error: a proxy's answer \
                    perhaps; check base_url",
                status.as_u16()
            );
            Verdict::Spoke(Err(bad_answer(text)))
        }
    }

    fn call(&self, method: Method, more: Vec<String>) -> Call {
        let about = more.first().filter(|_| method == Method::GET).cloned();
        let mut segments = vec!["v1".to_owned(), "async-results".to_owned()];
        segments.extend(more);
        Call {
            method,
            base: self.source.settings.base_url.clone(),
            segments,
            query: Query::None,
            body: None,
            max_body: self.source.settings.max_status_body,
            about,
        }
    }
}

/// Says whether a body is something else than an error of an API, which sends a JSON object or nothing.
fn is_page(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    !body.is_empty() && !body.starts_with(b"{")
}
