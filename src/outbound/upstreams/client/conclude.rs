//! Concludes one try: updates the limiter, the metrics, the health of the source and its last error, and decides
//! whether another try may help.

use std::sync::Arc;

use super::answers::CallPurpose;
use super::endpoint::SourceEndpoint;
use super::reason::{self, is_foreign};
use super::verdict::{CallError, ReplyVerdict};
use crate::domain::source::{SourceError, SourceErrorKind};
use crate::outbound::http::{SendError, UpstreamReply};
use crate::outbound::upstreams::limiter::{CallOutcome, CallPermit};
use crate::ports::credentials::Credential;
use crate::ports::upstream::{Detail, FetchError};
use crate::telemetry::meters::CallEnd;

/// Characters of a message that is not about a reply.
const MESSAGE: usize = 300;

/// The outcome of one try.
pub(super) enum TryOutcome<T> {
    Final(Result<T, CallError>),
    Again(CallError),
    /// The credential was rejected, and another one has become active since.
    Renewed,
}

impl SourceEndpoint {
    /// Concludes a try: reports to the limiter, and returns whether another one may help.
    pub(super) fn conclude<T>(
        &self,
        permit: CallPermit,
        credential: Credential,
        about: CallPurpose<'_>,
        sent: Result<UpstreamReply, SendError>,
        classify: impl Fn(&UpstreamReply) -> ReplyVerdict<T>,
    ) -> TryOutcome<T> {
        let fail = |error| TryOutcome::Final(Err(CallError::Fetch(error)));
        let reply = match sent {
            Ok(reply) => reply,
            Err(error) => return self.unanswered(permit, about, error),
        };
        // Whatever the response, a pause that the upstream requests applies to all of its calls.
        let verdict = match (classify(&reply), reply.retry_after(self.now())) {
            (ReplyVerdict::Sick(_), Some(pause)) => ReplyVerdict::Throttled(pause),
            (verdict, _) => verdict,
        };
        match verdict {
            ReplyVerdict::Spoke(result) => {
                let end = match &result {
                    Ok(_) | Err(FetchError::NotFound) => {
                        self.usable(about);
                        CallEnd::Answered
                    }
                    Err(error) => self.refused_one(error, about, &reply),
                };
                permit.ended(end).finish(CallOutcome::Answered);
                TryOutcome::Final(result.map_err(CallError::Fetch))
            }
            ReplyVerdict::Refused(answer) => {
                permit.ended(CallEnd::Forbidden).finish(CallOutcome::Answered);
                TryOutcome::Final(Ok(answer))
            }
            ReplyVerdict::Throttled(retry_after) => {
                self.note_reply(SourceErrorKind::Throttled, about, &answered(&reply), &reply);
                permit.ended(CallEnd::Throttled).finish(CallOutcome::Throttled(retry_after));
                fail(FetchError::Throttled { retry_after })
            }
            // it was sent with the previous credential
            ReplyVerdict::Rejected if self.current().is_some_and(|current| !current.is(&credential)) => {
                permit.ended(CallEnd::Rejected).finish(CallOutcome::Unknown);
                TryOutcome::Renewed
            }
            ReplyVerdict::Rejected => {
                self.note_reply(SourceErrorKind::CredentialRejected, about, &answered(&reply), &reply);
                self.refuse(credential);
                permit.ended(CallEnd::Rejected).finish(CallOutcome::Rejected);
                fail(FetchError::CredentialRejected)
            }
            ReplyVerdict::Sick(detail) => {
                self.note_reply(SourceErrorKind::ServerError, about, &detail.text, &reply);
                permit.ended(CallEnd::Sick).finish(self.failed());
                TryOutcome::Again(CallError::Fetch(FetchError::Unavailable(detail)))
            }
        }
    }

    /// The same without a complete response.
    fn unanswered<T>(&self, permit: CallPermit, about: CallPurpose<'_>, error: SendError) -> TryOutcome<T> {
        let fail = |error| TryOutcome::Final(Err(CallError::Fetch(error)));
        let kind = match &error {
            SendError::TooLarge { .. } => SourceErrorKind::TooLarge,
            SendError::TimedOut(_) => SourceErrorKind::TimedOut,
            SendError::Connect(_) => SourceErrorKind::Connect,
            SendError::Tls(_) => SourceErrorKind::Tls,
            SendError::Broken(_) => SourceErrorKind::Broken,
            SendError::Egress(_) | SendError::Unsendable(_) | SendError::Path => SourceErrorKind::Unsendable,
        };
        self.note(kind, about, reason::clean(&error.full_text(), MESSAGE));
        match error {
            SendError::TooLarge { cap, head } => {
                self.unusable(about, false);
                permit.ended(CallEnd::TooLarge).finish(CallOutcome::Answered);
                TryOutcome::Final(Err(CallError::TooLarge { cap, head }))
            }
            SendError::TimedOut(_) => {
                permit.ended(CallEnd::TimedOut).finish(self.failed());
                fail(FetchError::TimedOut)
            }
            error @ (SendError::Connect(_) | SendError::Tls(_) | SendError::Broken(_)) => {
                permit.ended(CallEnd::Broken).finish(self.failed());
                let source = Some(Arc::new(error) as _);
                let detail = Detail { text: "no response".to_owned(), source };
                TryOutcome::Again(CallError::Fetch(FetchError::Unavailable(detail)))
            }
            error @ SendError::Egress(_) => {
                // `SourceEndpoint::status` reads the error itself, so that the source recovers as soon as the files do
                permit.ended(CallEnd::Egress).finish(CallOutcome::Unknown);
                let source = Some(Arc::new(error) as _);
                let text = "the source cannot be called".to_owned();
                fail(FetchError::Unavailable(Detail { text, source }))
            }
            error @ (SendError::Unsendable(_) | SendError::Path) => {
                tracing::error!(source = %self.settings.name, error = %error, "upstream call could not be sent");
                permit.ended(CallEnd::Unsendable).finish(CallOutcome::Unknown);
                fail(FetchError::Unconfigured)
            }
        }
    }

    /// Records as the last error why no call can be sent, if none can. It was logged when the client was built.
    pub(super) fn note_egress_fault(&self) {
        if let Some(fault) = self.deps.http_client.fault() {
            let message = reason::clean(&SendError::Egress(fault).full_text(), MESSAGE);
            let (at, kind) = (self.now(), SourceErrorKind::Unsendable);
            self.answers.note(SourceError { at, kind, message });
        }
    }

    /// Records that one call was refused, or its response is unusable, and returns the outcome of the call.
    fn refused_one(&self, error: &FetchError, about: CallPurpose<'_>, reply: &UpstreamReply) -> CallEnd {
        let (kind, end) = match error {
            FetchError::BadAnswer(_) if reply.status.is_redirection() => {
                (SourceErrorKind::Redirect, CallEnd::BadAnswer)
            }
            FetchError::BadAnswer(_) if is_foreign(reply) => {
                (SourceErrorKind::ForeignAnswer, CallEnd::BadAnswer)
            }
            FetchError::BadAnswer(_) => (SourceErrorKind::BadAnswer, CallEnd::BadAnswer),
            FetchError::CredentialRejected | FetchError::Unconfigured => {
                (SourceErrorKind::Refused, CallEnd::Forbidden)
            }
            FetchError::Throttled { .. } => (SourceErrorKind::Throttled, CallEnd::Throttled),
            FetchError::Unavailable(_) | FetchError::TimedOut => (SourceErrorKind::Refused, CallEnd::Sick),
            FetchError::NotFound | FetchError::ConflictingVersion => return CallEnd::Answered,
        };
        let text = match error {
            FetchError::BadAnswer(detail) | FetchError::Unavailable(detail) => detail.text.clone(),
            FetchError::NotFound
            | FetchError::ConflictingVersion
            | FetchError::CredentialRejected
            | FetchError::Unconfigured
            | FetchError::Throttled { .. }
            | FetchError::TimedOut => answered(reply),
        };
        self.note_reply(kind, about, &text, reply);
        if kind == SourceErrorKind::Throttled {
            self.usable(about);
        } else {
            self.unusable(about, end == CallEnd::BadAnswer && is_foreign(reply));
        }
        end
    }

    fn note_reply(&self, kind: SourceErrorKind, about: CallPurpose<'_>, text: &str, reply: &UpstreamReply) {
        self.note(kind, about, reason::line(text, reply));
    }

    /// Records the error, and logs it if it is new.
    fn note(&self, kind: SourceErrorKind, about: CallPurpose<'_>, message: String) {
        // the caller that verifies a credential reports its errors
        if about == CallPurpose::Trial {
            return;
        }
        let error = SourceError { at: self.now(), kind, message };
        if self.answers.note(error.clone()) {
            tracing::warn!(
                source = %self.settings.name, kind = kind.word(), reason = %error.message,
                "upstream call failed"
            );
        }
    }

    pub(super) fn usable(&self, about: CallPurpose<'_>) {
        if self.answers.usable(about) {
            tracing::info!(source = %self.settings.name, "source no longer degraded");
        }
    }

    fn unusable(&self, about: CallPurpose<'_>, foreign: bool) {
        if self.answers.unusable(about, foreign) {
            tracing::warn!(
                source = %self.settings.name,
                "source degraded; its responses cannot be used"
            );
        }
    }

    fn failed(&self) -> CallOutcome {
        CallOutcome::Failed(self.deps.entropy.unit())
    }
}

fn answered(reply: &UpstreamReply) -> String {
    format!("it responded with {}", reply.status.as_u16())
}
