//! The plan of a subscription: its root fields with their arguments and the compiled selection of an update. The updates
//! are those of the engine's resolvers.

use std::fmt;

use async_graphql::parser::types::{OperationDefinition, OperationType, Selection as Selected};
use async_graphql::{ServerError, Variables};
use futures_util::stream::{BoxStream, StreamExt as _};

use super::arguments::DeclaredVariables;
use super::compile::{Compiler, NotCovered};
use super::root::PlannedRoot;
use super::writer::{AnswerClient, AnswerWriter, WriteJson as _, WrittenJson};
use crate::inbound::graphql::schema::job_fields::SOURCE_REMOVED;
use crate::inbound::graphql::schema::reference::{JobRefInput, is_count};
use crate::inbound::graphql::schema::subscription::{self, LastEventId};
use crate::inbound::graphql::schema::update::JobUpdate;
use crate::jobs::watch::{FeedUpdate, WatchUpdate};

/// The plan of a subscription for certain values of the variables in its directives.
pub(in crate::inbound::graphql) struct SubscriptionPlan {
    roots: Vec<PlannedRoot<SubscriptionRootField>>,
}

#[derive(Clone, Copy)]
enum SubscriptionRootField {
    JobUpdates,
    JobFeed,
}

/// An update of one root field.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) enum RootUpdate {
    /// Of `jobUpdates`. Other subscribers can receive the same.
    Watch(WatchUpdate),
    /// Of `jobFeed`.
    Feed(FeedUpdate),
}

impl SubscriptionPlan {
    /// A plan without a root field.
    #[cfg(test)]
    pub(in crate::inbound::graphql) const fn empty() -> Self {
        Self { roots: Vec::new() }
    }

    /// Compiles a subscription of a valid document.
    ///
    /// # Errors
    /// Returns an error if only the engine can execute it.
    pub(in crate::inbound::graphql) fn compile<'a>(
        compiler: &mut Compiler<'a>,
        operation: &'a OperationDefinition,
    ) -> Result<Self, NotCovered> {
        let types = compiler.types;
        let parent = types.root(OperationType::Subscription).ok_or(NotCovered)?;
        let declared = DeclaredVariables::of(operation);
        let mut selected = operation.selection_set.node.items.iter();
        // the engine ignores fragments here, and delivers two fields of one key one by one
        if !selected.all(|one| matches!(one.node, Selected::Field(_))) {
            return Err(NotCovered);
        }
        let mut roots = Vec::new();
        for group in compiler.collect(&[&operation.selection_set.node], parent, parent)? {
            if group.fields.len() > 1 {
                return Err(NotCovered);
            }
            let field = SubscriptionRootField::of;
            roots.push(PlannedRoot::compile(compiler, parent, &group, true, &declared, field)?);
        }
        Ok(Self { roots })
    }

    /// Starts the updates of every root field. `deliver` takes the index of a field, and returns the function that converts
    /// its updates. `None` if an argument is not valid, which the engine then reports.
    pub(in crate::inbound::graphql) fn start<T: 'static, D: Fn(RootUpdate) -> T + Send + 'static>(
        &self,
        AnswerClient { jobs, principal, .. }: AnswerClient<'_>,
        variables: &Variables,
        last_event_id: Option<&LastEventId>,
        deliver: impl Fn(usize) -> D,
    ) -> Option<Vec<BoxStream<'static, T>>> {
        let start = |(root, plan): (usize, &PlannedRoot<SubscriptionRootField>)| {
            let (arguments, deliver) = (&plan.arguments, deliver(root));
            Some(match plan.field {
                SubscriptionRootField::JobUpdates => {
                    let refs: Vec<JobRefInput> = arguments.get(variables, "refs")?;
                    // reported by the engine, and counted once
                    if !is_count(refs.len()) {
                        return None;
                    }
                    let max_staleness = arguments.get(variables, "maxStaleness")?;
                    let updates = subscription::job_updates(jobs, principal, refs, max_staleness).ok()?;
                    updates.map(move |update| deliver(RootUpdate::Watch(update))).boxed()
                }
                SubscriptionRootField::JobFeed => {
                    let filter = arguments.get(variables, "filter")?;
                    let after: Option<String> = arguments.get(variables, "after")?;
                    let after = last_event_id.map(|last| &*last.0).or(after.as_deref());
                    let updates = subscription::job_feed(jobs, principal, filter, after).ok()?;
                    updates.map(move |update| deliver(RootUpdate::Feed(update))).boxed()
                }
            })
        };
        self.roots.iter().enumerate().map(start).collect()
    }

    /// Whether it has one root field, so that the cursor of an update is that of the subscription.
    pub(in crate::inbound::graphql) const fn has_one_root(&self) -> bool {
        self.roots.len() == 1
    }

    /// Writes the answer for an update of a root field: `{"data":…}`, at most about `max` bytes.
    ///
    /// # Errors
    /// Returns an error if the source of the job is no longer configured.
    pub(in crate::inbound::graphql) fn write(
        &self,
        root: usize,
        update: RootUpdate,
        client: AnswerClient<'_>,
        max: usize,
    ) -> Result<WrittenJson, ServerError> {
        let mut out = AnswerWriter::new(max, client);
        let Some(root) = self.roots.get(root) else { unreachable!("the root field of its updates") };
        out.raw("{\"data\":");
        out.raw(&root.selected.prefix);
        let update: JobUpdate = match update {
            RootUpdate::Watch(update) => update.into(),
            RootUpdate::Feed(update) => update.into(),
        };
        update.write(&root.selected, &mut out);
        out.raw("}}");
        out.finish().ok_or_else(|| root.error(async_graphql::Error::new(SOURCE_REMOVED)))
    }
}

impl SubscriptionRootField {
    fn of(name: &str) -> Option<Self> {
        match name {
            "jobUpdates" => Some(Self::JobUpdates),
            "jobFeed" => Some(Self::JobFeed),
            _ => None,
        }
    }
}

impl fmt::Debug for SubscriptionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionPlan").field("root_fields", &self.roots.len()).finish_non_exhaustive()
    }
}
