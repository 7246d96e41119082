//! The end of one try: what the limiter, the metrics, the health of the source and its last error learn from it, and
//! whether another try may help.

use std::sync::Arc;

use super::answers::About;
use super::reason::{self, is_foreign};
use super::{AskError, Source, Verdict};
use crate::domain::source::{SourceError, SourceErrorKind};
use crate::outbound::gate::{Outcome, Permit};
use crate::outbound::http::{Reply, SendError};
use crate::ports::credentials::Credential;
use crate::ports::upstream::{Detail, LookError};
use crate::telemetry::meters::CallEnd;

/// Characters of a message that is not about a reply.
const MESSAGE: usize = 300;

/// The end of one try.
pub(super) enum Concluded<T> {
    Final(Result<T, AskError>),
    Again(AskError),
    /// The credential was refused, and another one has come into force since.
    Renewed,
}

impl Source {
    /// Ends a try: tells the gate, and says whether another one may help.
    pub(super) fn conclude<T>(
        &self,
        permit: Permit,
        credential: Credential,
        about: About<'_>,
        sent: Result<Reply, SendError>,
        judge: impl Fn(&Reply) -> Verdict<T>,
    ) -> Concluded<T> {
        let fail = |error| Concluded::Final(Err(AskError::Look(error)));
        let reply = match sent {
            Ok(reply) => reply,
            Err(error) => return self.unanswered(permit, about, error),
        };
        // Whatever ails it, an upstream that says when to come back is taken at its word, for all of its calls.
        let verdict = match (judge(&reply), reply.retry_after(self.now())) {
            (Verdict::Sick(_), Some(pause)) => Verdict::Throttled(pause),
            (verdict, _) => verdict,
        };
        match verdict {
            Verdict::Spoke(said) => {
                let end = match &said {
                    Ok(_) | Err(LookError::NotFound) => {
                        self.usable(about);
                        CallEnd::Answered
                    }
                    Err(error) => self.refused_one(error, about, &reply),
                };
                permit.ended(end).finish(Outcome::Answered);
                Concluded::Final(said.map_err(AskError::Look))
            }
            Verdict::Throttled(retry_after) => {
                self.note_reply(SourceErrorKind::Throttled, about, &answered(&reply), &reply);
                permit.ended(CallEnd::Throttled).finish(Outcome::Throttled(retry_after));
                fail(LookError::Throttled { retry_after })
            }
            // it left with the one before
            Verdict::Rejected if self.current().is_some_and(|current| !current.is(&credential)) => {
                permit.ended(CallEnd::Rejected).finish(Outcome::Unknown);
                Concluded::Renewed
            }
            Verdict::Rejected => {
                self.note_reply(SourceErrorKind::CredentialRejected, about, &answered(&reply), &reply);
                self.refuse(credential);
                permit.ended(CallEnd::Rejected).finish(Outcome::Rejected);
                fail(LookError::CredentialRejected)
            }
            Verdict::Sick(detail) => {
                self.note_reply(SourceErrorKind::ServerError, about, &detail.text, &reply);
                permit.ended(CallEnd::Sick).finish(self.failed());
                Concluded::Again(AskError::Look(LookError::Unavailable(detail)))
            }
        }
    }

    /// The same where no whole answer came back.
    fn unanswered<T>(&self, permit: Permit, about: About<'_>, error: SendError) -> Concluded<T> {
        let fail = |error| Concluded::Final(Err(AskError::Look(error)));
        let kind = match &error {
            SendError::TooLarge { .. } => SourceErrorKind::TooLarge,
            SendError::TimedOut(_) => SourceErrorKind::TimedOut,
            SendError::Connect(_) => SourceErrorKind::Connect,
            SendError::Tls(_) => SourceErrorKind::Tls,
            SendError::Broken(_) => SourceErrorKind::Broken,
            SendError::Egress(_) | SendError::Unsendable(_) | SendError::Path => SourceErrorKind::Unsendable,
        };
        self.note(kind, about, reason::clean(&error.whole(), MESSAGE));
        match error {
            SendError::TooLarge { cap, head } => {
                self.unusable(about, false);
                permit.ended(CallEnd::TooLarge).finish(Outcome::Answered);
                Concluded::Final(Err(AskError::TooLarge { cap, head }))
            }
            SendError::TimedOut(_) => {
                permit.ended(CallEnd::TimedOut).finish(self.failed());
                fail(LookError::TimedOut)
            }
            error @ (SendError::Connect(_) | SendError::Tls(_) | SendError::Broken(_)) => {
                permit.ended(CallEnd::Broken).finish(self.failed());
                let source = Some(Arc::new(error) as _);
                let detail = Detail { text: "no response".to_owned(), source };
                Concluded::Again(AskError::Look(LookError::Unavailable(detail)))
            }
            error @ SendError::Egress(_) => {
                // `Source::status` reads the fault itself, so that the source recovers as soon as the files do
                permit.ended(CallEnd::Egress).finish(Outcome::Unknown);
                let source = Some(Arc::new(error) as _);
                let text = "the source cannot be called".to_owned();
                fail(LookError::Unavailable(Detail { text, source }))
            }
            error @ (SendError::Unsendable(_) | SendError::Path) => {
                tracing::error!(source = %self.settings.name, error = %error, "upstream call could not be sent");
                permit.ended(CallEnd::Unsendable).finish(Outcome::Unknown);
                fail(LookError::Unconfigured)
            }
        }
    }

    /// Keeps as the last error why no call can be sent, if none can. Whoever built the client has logged it.
    pub(super) fn note_egress_fault(&self) {
        if let Some(fault) = self.means.road.fault() {
            let message = reason::clean(&SendError::Egress(fault).whole(), MESSAGE);
            let (at, kind) = (self.now(), SourceErrorKind::Unsendable);
            self.answers.note(SourceError { at, kind, message });
        }
    }

    /// Takes in that one call was refused, or its answer cannot be used, and says how the call ended.
    fn refused_one(&self, error: &LookError, about: About<'_>, reply: &Reply) -> CallEnd {
        let (kind, end) = match error {
            LookError::BadAnswer(_) if reply.status.is_redirection() => {
                (SourceErrorKind::Redirect, CallEnd::BadAnswer)
            }
            LookError::BadAnswer(_) if is_foreign(reply) => {
                (SourceErrorKind::ForeignAnswer, CallEnd::BadAnswer)
            }
            LookError::BadAnswer(_) => (SourceErrorKind::BadAnswer, CallEnd::BadAnswer),
            LookError::CredentialRejected | LookError::Unconfigured => {
                (SourceErrorKind::Refused, CallEnd::Forbidden)
            }
            LookError::Throttled { .. } => (SourceErrorKind::Throttled, CallEnd::Throttled),
            LookError::Unavailable(_) | LookError::TimedOut => (SourceErrorKind::Refused, CallEnd::Sick),
            LookError::NotFound | LookError::ConflictingVersion => return CallEnd::Answered,
        };
        let text = match error {
            LookError::BadAnswer(detail) | LookError::Unavailable(detail) => detail.text.clone(),
            LookError::NotFound
            | LookError::ConflictingVersion
            | LookError::CredentialRejected
            | LookError::Unconfigured
            | LookError::Throttled { .. }
            | LookError::TimedOut => answered(reply),
        };
        self.note_reply(kind, about, &text, reply);
        if kind == SourceErrorKind::Throttled {
            self.usable(about);
        } else {
            self.unusable(about, end == CallEnd::BadAnswer && is_foreign(reply));
        }
        end
    }

    fn note_reply(&self, kind: SourceErrorKind, about: About<'_>, text: &str, reply: &Reply) {
        self.note(kind, about, reason::line(text, reply));
    }

    /// Keeps the error, and logs it if it is news.
    fn note(&self, kind: SourceErrorKind, about: About<'_>, message: String) {
        // what a credential on trial brings is told by whoever tries it
        if about == About::Trial {
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

    pub(super) fn usable(&self, about: About<'_>) {
        if self.answers.usable(about) {
            tracing::info!(source = %self.settings.name, "source no longer degraded");
        }
    }

    fn unusable(&self, about: About<'_>, foreign: bool) {
        if self.answers.unusable(about, foreign) {
            tracing::warn!(
                source = %self.settings.name,
                "source degraded; its responses cannot be used"
            );
        }
    }

    fn failed(&self) -> Outcome {
        Outcome::Failed(self.means.entropy.unit())
    }
}

fn answered(reply: &Reply) -> String {
    format!("it responded with {}", reply.status.as_u16())
}
