//! The object of one upstream's jobs, as a macro: the fields that the jobs of all upstreams have, and its own. Each field
//! is described once, for the engine and for plans.

/// Defines an object of the schema over a [`JobSnapshot`]: the fields of the `GqlJob` interface, and its own.
/// The named fields have a description for each upstream. Each own field states its cost, and whether it is `stable`, which
/// depends on the observation alone and is written once for all clients, or `live`, which is written each time. One that only
/// the engine can resolve follows `@engine`, with its resolver.
macro_rules! job_object {
    ($(#[$doc:meta])* $name:ident = $graphql:literal {
        $(#[$external_id:meta])* external_id;
        $(#[$created_at:meta])* created_at;
        $(#[$updated_at:meta])* updated_at;
        $(#[$finished_at:meta])* finished_at;
        $(#[$progress:meta])* progress;
        $(
            $(#[$own_doc:meta])*
            $cost:ident $kept:ident $own:ident: $own_type:ty = $own_value:expr;
        )*
        $(@engine $engine_cost:ident $engine:ident { $($resolver:tt)* })?
    }) => {
        $crate::inbound::graphql::schema::job_object::job_object! { @object
            $(#[$doc])* $name = $graphql {
                $(#[$external_id])*
                Free stable external_id: String = |this| this.job.key.external_id.as_str().to_owned();
                /// The state of the job.
                Free stable state: $crate::inbound::graphql::schema::job_fields::GqlJobState =
                    |this| this.job.state().into();
                /// Whether the state is terminal: the run is completed. A later report of the upstream can still correct
                /// the state: for example, another terminal state replaces `EXPIRED`, and the state of a restored backup
                /// replaces any other.
                Free stable is_terminal: bool = |this| this.job.is_terminal();
                /// The state as the upstream reports it, verbatim. Upstreams can add values at any time. Null if the
                /// upstream reports none.
                Free stable native_state: Option<$crate::inbound::graphql::schema::scalars::UpstreamText> =
                    |this| this.job.native_state.clone().map(Into::into);
                $(#[$created_at])*
                Free stable created_at: Option<$crate::inbound::graphql::schema::scalars::DateTime> =
                    |this| this.job.created_at.map($crate::inbound::graphql::schema::scalars::DateTime);
                $(#[$updated_at])*
                Free stable updated_at: Option<$crate::inbound::graphql::schema::scalars::DateTime> =
                    |this| this.job.updated_at.map($crate::inbound::graphql::schema::scalars::DateTime);
                $(#[$finished_at])*
                Free stable finished_at: Option<$crate::inbound::graphql::schema::scalars::DateTime> =
                    |this| this.job.finished_at.map($crate::inbound::graphql::schema::scalars::DateTime);
                /// The date and time when the gateway first observed this run, by the gateway's clock. Null if unknown.
                Free stable first_seen_at: Option<$crate::inbound::graphql::schema::scalars::DateTime> =
                    |this| this.sightings().first_seen_at.map($crate::inbound::graphql::schema::scalars::DateTime);
                /// The date and time when the gateway first observed the current state, by the gateway's clock. Null if
                /// unknown.
                Free stable state_since: Option<$crate::inbound::graphql::schema::scalars::DateTime> =
                    |this| this.sightings().state_since.map($crate::inbound::graphql::schema::scalars::DateTime);
                /// The date and time when the gateway first observed a terminal state of this run, by the gateway's
                /// clock. Null if the job is not terminal, or if unknown.
                Free stable terminal_seen_at: Option<$crate::inbound::graphql::schema::scalars::DateTime> =
                    |this| this.sightings().terminal_seen_at.map($crate::inbound::graphql::schema::scalars::DateTime);
                /// The changes of the state and of the native state that the gateway observed, oldest first, at most the last
                /// 50. Includes earlier runs of the same ID. Changes between two observations are not included. Empty if the
                /// gateway kept no history when it observed the current state.
                List(50) live transitions: Vec<$crate::inbound::graphql::schema::job_fields::JobTransition> =
                    |this| this.0.transitions().map(Into::into).collect();
                $(#[$progress])*
                Free stable progress: Option<$crate::inbound::graphql::schema::job_fields::JobProgress> =
                    |this| this.job.progress.map(Into::into);
                /// The failure as the upstream reports it. Null if `state` is not `FAILED`. Both fields of the failure can
                /// be null.
                Free stable failure: Option<$crate::inbound::graphql::schema::job_fields::JobFailure> =
                    |this| this.job.failure().map(Into::into);
                /// The age of this result, and whether it is stale.
                Free live freshness: $crate::inbound::graphql::schema::job_fields::GqlFreshness = |this| (&this.0).into();
                $($(#[$own_doc])* $cost $kept $own: $own_type = $own_value;)*
            }
            $(@engine $engine_cost $engine { $($resolver)* })?
        }
    };
    (@object $(#[$doc:meta])* $name:ident = $graphql:literal {
        $($(#[$field_doc:meta])* $cost:ident $(($length:expr))? $kept:ident $field:ident: $ty:ty = $value:expr;)*
    } $(@engine $engine_cost:ident $engine:ident { $($resolver:tt)* })?) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub(super) $crate::jobs::answer::JobSnapshot);

        $(#[$doc])*
        #[async_graphql::Object(name = $graphql)]
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

            /// When the job is expected to finish, as of this result. Null if the job is not queued or running, and if fewer
            /// than eight completed jobs of its kind took as long as it has taken.
            pub async fn estimate(
                &self,
                ctx: &async_graphql::Context<'_>,
            ) -> async_graphql::Result<Option<$crate::inbound::graphql::schema::job_fields::GqlEstimate>> {
                $crate::inbound::graphql::schema::job_fields::estimate_of(ctx, &self.0)
            }

            /// The grant that allows the client to read the job: one of `Viewer.grants`. Depends on the client. Null if the
            /// client is no longer allowed to read the job.
            pub async fn viewer_grant(
                &self,
                ctx: &async_graphql::Context<'_>,
            ) -> async_graphql::Result<Option<$crate::inbound::graphql::schema::viewer::GqlViewerGrant>> {
                $crate::inbound::graphql::schema::job_fields::viewer_grant_of(ctx, &self.0)
            }

            $(
                $(#[$field_doc])*
                pub async fn $field(&self) -> $ty {
                    $crate::inbound::graphql::schema::job_object::job_object!(@value $kept self: $ty = $value)
                }
            )*

            $($($resolver)*)?
        }

        impl $crate::inbound::graphql::plan::output::OutputObject for $name {
            const NAME: &'static str = $graphql;
            const FIELDS: &'static [$crate::inbound::graphql::plan::output::ObjectField<Self>] = &[
                $crate::inbound::graphql::plan::output::ObjectField {
                    name: "id",
                    cost: $crate::inbound::graphql::document::limits::field_cost::FieldCost::Free,
                    write: Some(|this, _, out| out.node_id(&this.job().key)),
                    is_live: false,
                },
                $crate::inbound::graphql::plan::output::ObjectField {
                    name: "source",
                    cost: $crate::inbound::graphql::document::limits::field_cost::FieldCost::Free,
                    write: Some(|this, field, out| {
                        $crate::inbound::graphql::schema::job_fields::write_source(&this.0, field, out);
                    }),
                    is_live: true,
                },
                $crate::inbound::graphql::plan::output::ObjectField {
                    name: "estimate",
                    cost: $crate::inbound::graphql::document::limits::field_cost::FieldCost::Free,
                    write: Some(|this, field, out| {
                        $crate::inbound::graphql::schema::job_fields::write_estimate(&this.0, field, out);
                    }),
                    is_live: true,
                },
                $crate::inbound::graphql::plan::output::ObjectField {
                    name: "viewer_grant",
                    cost: $crate::inbound::graphql::document::limits::field_cost::FieldCost::Free,
                    write: Some(|this, field, out| {
                        $crate::inbound::graphql::schema::job_fields::write_viewer_grant(&this.0, field, out);
                    }),
                    is_live: true,
                },
                $($crate::inbound::graphql::plan::output::ObjectField {
                    name: stringify!($field),
                    cost: $crate::inbound::graphql::document::limits::field_cost::FieldCost::$cost $(($length))?,
                    write: Some(|this, field, out| {
                        let value =
                            $crate::inbound::graphql::schema::job_object::job_object!(@value $kept this: $ty = $value);
                        $crate::inbound::graphql::plan::writer::WriteJson::write(&value, field, out);
                    }),
                    is_live: $crate::inbound::graphql::schema::job_object::job_object!(@is_live $kept),
                },)*
                $($crate::inbound::graphql::plan::output::ObjectField {
                    name: stringify!($engine),
                    cost: $crate::inbound::graphql::document::limits::field_cost::FieldCost::$engine_cost,
                    write: None,
                    is_live: true,
                },)?
            ];

            fn observed(&self) -> Option<$crate::inbound::graphql::plan::rendered::ObservedJob<'_>> {
                Some($crate::inbound::graphql::plan::rendered::ObservedJob::of(&self.0))
            }
        }

        impl $name {
            fn job(&self) -> &$crate::domain::job::Job {
                &self.0.observation.job
            }
        }
    };
    (@value stable $this:ident: $ty:ty = $value:expr) => {{
        let value: fn(&$crate::inbound::graphql::plan::rendered::ObservedJob<'_>) -> $ty = $value;
        value(&$crate::inbound::graphql::plan::rendered::ObservedJob::of(&$this.0))
    }};
    (@value live $this:ident: $ty:ty = $value:expr) => {{
        let value: fn(&Self) -> $ty = $value;
        value($this)
    }};
    (@is_live stable) => { false };
    (@is_live live) => { true };
}
pub(super) use job_object;
