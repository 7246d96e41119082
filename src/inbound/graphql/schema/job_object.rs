//! The object of one upstream's jobs, as a macro: the fields that the jobs of all upstreams have, and its own.

/// The fields of every job, which are free: `source` reads what the gateway knows about the source.
pub(super) const FREE_FIELDS: [&str; 15] = [
    "id",
    "source",
    "externalId",
    "state",
    "isTerminal",
    "nativeState",
    "createdAt",
    "updatedAt",
    "finishedAt",
    "firstSeenAt",
    "stateSince",
    "terminalSeenAt",
    "progress",
    "failure",
    "freshness",
];

/// Defines an object of the schema over a [`JobSnapshot`]: the fields of the `GqlJob` interface, and its own.
/// The named fields have a description for each upstream.
macro_rules! job_object {
    ($(#[$doc:meta])* $name:ident {
        $(#[$external_id:meta])* external_id;
        $(#[$created_at:meta])* created_at;
        $(#[$updated_at:meta])* updated_at;
        $(#[$finished_at:meta])* finished_at;
        $(#[$progress:meta])* progress;
        $($own:tt)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub(super) $crate::jobs::answer::JobSnapshot);

        $(#[$doc])*
        #[async_graphql::Object]
        impl $name {
            /// The global node ID of the job: an opaque, stable string. Knowing an ID does not grant access.
            pub async fn id(&self) -> async_graphql::ID {
                async_graphql::ID(self.job().key.node_id())
            }

            /// The source that the job belongs to. An error if the source is no longer configured.
            pub async fn source(
                &self,
                ctx: &async_graphql::Context<'_>,
            ) -> async_graphql::Result<$crate::inbound::graphql::schema::source::GqlSource> {
                $crate::inbound::graphql::schema::job_fields::source_of(ctx, &self.0)
            }

            $(#[$external_id])*
            pub async fn external_id(&self) -> String {
                self.job().key.external_id.as_str().to_owned()
            }

            /// The state of the job.
            pub async fn state(&self) -> $crate::inbound::graphql::schema::job_fields::GqlJobState {
                self.job().state().into()
            }

            /// Whether the state is terminal: the run is completed. A later report of the upstream can still correct
            /// the state: for example, another terminal state replaces `EXPIRED`, and the state of a restored backup
            /// replaces any other.
            pub async fn is_terminal(&self) -> bool {
                self.job().is_terminal()
            }

            /// The state as the upstream reports it, verbatim. Upstreams can add values at any time. Null if the
            /// upstream reports none.
            pub async fn native_state(&self) -> Option<$crate::inbound::graphql::schema::scalars::UpstreamText> {
                self.job().native_state.clone().map(Into::into)
            }

            $(#[$created_at])*
            pub async fn created_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.job().created_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            $(#[$updated_at])*
            pub async fn updated_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.job().updated_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            $(#[$finished_at])*
            pub async fn finished_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.job().finished_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            /// The date and time when the gateway first observed this run, by the gateway's clock. Null if unknown.
            pub async fn first_seen_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.0.sightings.first_seen_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            /// The date and time when the gateway first observed the current state, by the gateway's clock. Null if
            /// unknown.
            pub async fn state_since(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.0.sightings.state_since.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            /// The date and time when the gateway first observed a terminal state of this run, by the gateway's
            /// clock. Null if the job is not terminal, or if unknown.
            pub async fn terminal_seen_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.0.sightings.terminal_seen_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            $(#[$progress])*
            pub async fn progress(&self) -> Option<$crate::inbound::graphql::schema::job_fields::JobProgress> {
                self.job().progress.map(Into::into)
            }

            /// The failure as the upstream reports it. Null if `state` is not `FAILED`. Both fields of the failure can
            /// be null.
            pub async fn failure(&self) -> Option<$crate::inbound::graphql::schema::job_fields::JobFailure> {
                self.job().failure().map(Into::into)
            }

            /// The age of this result, and whether it is stale.
            pub async fn freshness(&self) -> $crate::inbound::graphql::schema::job_fields::GqlFreshness {
                (&self.0).into()
            }

            $($own)*
        }

        impl $name {
            fn job(&self) -> &$crate::domain::job::Job {
                &self.0.observation.job
            }
        }
    };
}
pub(super) use job_object;
