//! A source as clients see it: its health and the state of its credential, never its address or the credential itself.

use std::any::type_name;
use std::borrow::Cow;

use async_graphql::parser::types::Field;
use async_graphql::registry::{MetaEnumValue, MetaType, MetaTypeId, Registry};
use async_graphql::{ContextSelectionSet, Enum, Name, OutputType, Positioned, ServerResult, Value};

use crate::domain::id::SourceName;
use crate::domain::source::{self, BudgetUse, CredentialStatus};
use crate::domain::upstream::Upstream;
use crate::jobs::{SourceView, SweepStatus};

use crate::inbound::graphql::document::limits::field_cost::FieldCost;
use crate::inbound::graphql::plan::output::{ObjectField, OutputObject, output_enum, output_object};
use crate::inbound::graphql::plan::selection::SelectedField;
use crate::inbound::graphql::plan::writer::{AnswerWriter, WriteJson};

use super::scalars::DateTime;

/// An upstream API. The values of the enum in the schema are those of the list in `domain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GqlUpstream(Upstream);

impl GqlUpstream {
    fn value(self) -> String {
        self.0.profile().name.to_ascii_uppercase()
    }
}

impl OutputType for GqlUpstream {
    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("Upstream")
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Enum, |_| {
            let values = Upstream::ALL.iter().map(|upstream| {
                let mut value = MetaEnumValue::new(Self(*upstream).value());
                value.description = Some(upstream.profile().api.to_owned());
                (value.name.clone(), value)
            });
            MetaType::Enum {
                name: "Upstream".to_owned(),
                description: Some("The upstream APIs that the gateway supports.".to_owned()),
                enum_values: values.collect(),
                visible: None,
                inaccessible: false,
                tags: Vec::new(),
                rust_typename: Some(type_name::<Self>()),
                directive_invocations: Vec::new(),
                requires_scopes: Vec::new(),
            }
        })
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::Enum(Name::new(self.value())))
    }
}

impl WriteJson for GqlUpstream {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.quoted_text(&self.value());
    }
}

/// The health of a source, derived from its last calls.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(name = "SourceHealth", remote = "source::SourceHealth")]
pub enum GqlSourceHealth {
    /// The last call succeeded.
    Healthy,
    /// No call has been made yet.
    #[graphql(name = "UNKNOWN")]
    Untried,
    /// The source asked the gateway to wait, or its budget is used up.
    Throttled,
    /// The source responds, but its responses are invalid or do not come from the API.
    Degraded,
    /// The last calls failed, or calls cannot be sent with the present configuration.
    Unavailable,
    /// The source rejects the gateway's credential.
    CredentialRejected,
    /// The credential is missing or cannot be read, so no calls are made.
    Unconfigured,
}

/// The reasons why a call to a source can fail.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(name = "SourceErrorKind", remote = "source::SourceErrorKind")]
pub enum GqlSourceErrorKind {
    /// The connection failed: the host name cannot be resolved, or the address does not accept connections.
    Connect,
    /// The TLS handshake failed, for example because the certificate is not trusted.
    Tls,
    /// The response was not complete before the timeout.
    TimedOut,
    /// The connection was closed before the response was complete.
    Broken,
    /// The source responded with a server error.
    ServerError,
    /// The source responded with a redirect. Redirects are not followed.
    Redirect,
    /// The response does not come from the API, for example a proxy's error page.
    ForeignAnswer,
    /// The response comes from the API, but the gateway cannot interpret it, for example because of an unexpected status
    /// or a missing field.
    BadAnswer,
    /// The response is larger than the configured limit.
    TooLarge,
    /// The source rejects the gateway's credential.
    CredentialRejected,
    /// The source refused the call, but not the gateway's credential, for example because the credential gives no access
    /// to the job.
    Refused,
    /// The source rate-limited the gateway.
    Throttled,
    /// The request cannot be sent with the present configuration, for example because a certificate file cannot be read.
    Unsendable,
}

output_object! {
    /// The last failed call to a source.
    #[derive(Clone, Debug)]
    pub struct GqlSourceError = "SourceError" {
        /// The date and time when the call failed, by the gateway's clock.
        Free at: DateTime,
        /// The reason for the failure.
        Free kind: GqlSourceErrorKind,
        /// A description of the failure, with the error that the source reported. One line; secrets are removed. Can change;
        /// do not parse.
        Free message: String,
    }
}

/// The states of the gateway's credential for a source. A new value is verified before it becomes active.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(name = "CredentialState", remote = "source::CredentialState")]
pub enum GqlCredentialState {
    /// The newest value is active.
    #[graphql(name = "ACTIVE")]
    Active,
    /// The source rejects the active credential. The gateway retries every 30 seconds, and as soon as a new value is
    /// available.
    #[graphql(name = "REJECTED")]
    Refused,
    /// No valid credential is available.
    Missing,
    /// A new value was read and is not verified yet. The previous value stays active.
    #[graphql(name = "PENDING_VERIFICATION")]
    PendingVerification,
    /// The source rejects the new value. The previous value stays active.
    #[graphql(name = "PENDING_REJECTED")]
    PendingRejected,
    /// The new value cannot be read or is not a valid secret. The previous value stays active.
    #[graphql(name = "PENDING_INVALID")]
    PendingInvalid,
}

output_object! {
    /// The state of the gateway's credential for a source. The secret itself is never exposed.
    #[derive(Clone, Copy, Debug)]
    pub struct SourceCredential = "SourceCredential" {
        /// The state of the credential.
        Free state: GqlCredentialState,
        /// The date and time of the last change of `state`. Null if unknown.
        Free since: Option<DateTime>,
        /// The date and time when the active credential became active. Null if unknown, or if there is none.
        Free active_since: Option<DateTime>,
        /// The date and time when the active credential expires. Null if unknown, or if there is no active credential.
        Free expires_at: Option<DateTime>,
    }
}

output_enum!(GqlSourceHealth, GqlSourceErrorKind, GqlCredentialState);

output_object! {
    /// A configured account of an upstream.
    #[derive(Clone, Debug)]
    pub struct GqlSource = "Source" {
        /// The name of the source, as used in `ExternalJobRef.source`.
        Free name: String,
        /// The upstream API of the source.
        Free upstream: GqlUpstream,
        /// The health of the source.
        Free health: GqlSourceHealth,
        /// The state of the gateway's credential for the source.
        Free credential: SourceCredential,
        /// The call budget of the source and its usage. Null if the client is allowed to read only some jobs of the source.
        Free budget: Option<SourceBudget>,
        /// The date and time before which the gateway makes no call: the source asked for a pause, its hourly budget is used
        /// up, its circuit breaker is open, or its credential is rejected. Null if none of these applies. While the circuit
        /// breaker is open, a call for a client can be made earlier.
        Free throttled_until: Option<DateTime>,
        /// The last failed call, however long ago. Null if no call failed, or if the client is allowed to read only some jobs
        /// of the source.
        Free last_error: Option<GqlSourceError>,
        /// How the gateway lists what changed at the source, in place of polls of single jobs. Null if the source cannot be
        /// listed, or if the client is allowed to read only some jobs of the source.
        Free discovery: Option<SourceDiscovery>,
    }
}

/// The fields of a source that never change, which are the first of [`GqlSource`].
#[derive(Debug)]
pub struct ConstantSource {
    name: SourceName,
    upstream: GqlUpstream,
}

impl ConstantSource {
    /// Those of a configured source.
    pub fn new(name: &SourceName, upstream: Upstream) -> Self {
        Self { name: name.clone(), upstream: GqlUpstream(upstream) }
    }
}

impl OutputObject for ConstantSource {
    const NAME: &'static str = GqlSource::NAME;
    const FIELDS: &'static [ObjectField<Self>] = &[
        ObjectField {
            name: "name",
            cost: FieldCost::Free,
            write: Some(|this, _, out| out.quoted_text(this.name.as_str())),
            is_live: false,
        },
        ObjectField {
            name: "upstream",
            cost: FieldCost::Free,
            write: Some(|this, field, out| this.upstream.write(field, out)),
            is_live: false,
        },
    ];
}

output_object! {
    /// The sweeps of a source: lists of what changed, in place of polls of single jobs. They are made while they need fewer
    /// calls than polls. Replicas that share a store share them.
    #[derive(Clone, Copy, Debug)]
    pub struct SourceDiscovery = "SourceDiscovery" {
        /// Whether jobs that no client requested are discovered.
        Free enabled: bool,
        /// The date and time when the last sweep was completed. Null if none was completed since sweeps began.
        Free last_sweep_at: Option<DateTime>,
        /// The time of the latest change in a list, by the clock of the source. Null if no list was complete.
        Free watermark: Option<DateTime>,
        /// Whether the lists contained every change that the gateway found otherwise. While they are not trusted, jobs are
        /// polled.
        Free trusted: bool,
        /// The number of discovered jobs that are stored, as far as this replica knows: those that it discovered, and those of
        /// earlier processes that had not ended.
        Free jobs_discovered: i32,
        /// Whether no more jobs are discovered, because there are as many as configured. Jobs are discovered again when earlier
        /// ones are not stored any more.
        Free limit_reached: bool,
        /// The time in milliseconds between two reads of each followed job by its ID while the source is swept. Null while it
        /// is not.
        Free verify_interval_ms: Option<i32>,
    }
}

output_object! {
    /// The call budget of a source, shared by all clients and including retries. Replicas that share a store share the budget;
    /// otherwise each replica has its own.
    #[derive(Clone, Copy, Debug)]
    pub struct SourceBudget = "SourceBudget" {
        /// The maximum number of calls per second, as configured, over all replicas that share a store.
        Free per_second: i32,
        /// The maximum number of calls per hour, as configured, over all replicas that share a store.
        Free per_hour: i32,
        /// The maximum number of concurrent calls, as configured, over all replicas that share a store.
        Free concurrency: i32,
        /// The number of calls in flight of this replica.
        Free in_flight: i32,
        /// The number of calls left within a sliding hour, over all replicas that share a store.
        Free left_this_hour: i32,
    }
}

impl From<SourceView> for GqlSource {
    fn from(SourceView { status, shows_budget, sweep, discovers }: SourceView) -> Self {
        Self {
            name: status.name.as_str().to_owned(),
            upstream: GqlUpstream(status.upstream),
            health: status.health.into(),
            credential: status.credential.into(),
            budget: shows_budget.then(|| status.budget.into()),
            throttled_until: status.throttled_until.map(DateTime),
            last_error: status.last_error.filter(|_| shows_budget).map(Into::into),
            discovery: sweep.map(|sweep| SourceDiscovery::new(sweep, discovers)),
        }
    }
}

impl SourceDiscovery {
    fn new(sweep: SweepStatus, enabled: bool) -> Self {
        let verify =
            sweep.in_force.then(|| i32::try_from(sweep.verify_interval.as_millis()).unwrap_or(i32::MAX));
        Self {
            enabled,
            last_sweep_at: sweep.swept_at.map(DateTime),
            watermark: sweep.watermark.map(DateTime),
            trusted: sweep.trusted,
            jobs_discovered: i32::try_from(sweep.discovered).unwrap_or(i32::MAX),
            limit_reached: sweep.is_full,
            verify_interval_ms: verify,
        }
    }
}

impl From<source::SourceError> for GqlSourceError {
    fn from(error: source::SourceError) -> Self {
        Self { at: DateTime(error.at), kind: error.kind.into(), message: error.message }
    }
}

impl From<BudgetUse> for SourceBudget {
    /// A number above the maximum of an `Int` becomes the maximum.
    fn from(budget: BudgetUse) -> Self {
        let BudgetUse { per_second, per_hour, concurrency, in_flight, left_this_hour } = budget;
        let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        Self {
            per_second: int(per_second),
            per_hour: int(per_hour),
            concurrency: int(concurrency),
            in_flight: int(in_flight),
            left_this_hour: int(left_this_hour),
        }
    }
}

impl From<CredentialStatus> for SourceCredential {
    fn from(status: CredentialStatus) -> Self {
        Self {
            state: status.state.into(),
            since: status.since.map(DateTime),
            active_since: status.active_since.map(DateTime),
            expires_at: status.expires_at.map(DateTime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_above_the_int_range_saturates() {
        let most = u32::MAX;
        let budget = BudgetUse {
            per_second: 7,
            per_hour: most,
            concurrency: most,
            in_flight: 0,
            left_this_hour: most,
        };
        let SourceBudget { per_second, per_hour, concurrency, in_flight, left_this_hour } = budget.into();
        assert_eq!((per_second, in_flight), (7, 0));
        assert_eq!([per_hour, concurrency, left_this_hour], [i32::MAX; 3]);
    }

    #[test]
    fn constant_fields_are_the_first_of_a_source() {
        let all = GqlSource::FIELDS.iter().map(|field| field.name);
        let constant: Vec<_> = ConstantSource::FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(all.take(constant.len()).collect::<Vec<_>>(), constant);
        assert_eq!(ConstantSource::NAME, GqlSource::NAME);
    }
}
