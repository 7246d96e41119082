//! The plan of a subscription: its root fields with their arguments and the compiled selection of an update. The updates
//! are those of the engine's resolvers.

use std::fmt;

use async_graphql::parser::types::{OperationDefinition, OperationType, Selection as Selected};
use async_graphql::{Name, PathSegment, Pos, ServerError, Variables};
use futures_util::stream::{BoxStream, StreamExt as _};

use super::arguments::{DeclaredVariables, RootArguments};
use super::compile::{Compiler, NotCovered};
use super::selection::{SelectedField, SelectedValue};
use super::writer::{AnswerClient, AnswerWriter, WriteJson as _, WrittenJson};
use crate::inbound::graphql::schema::job_fields::SOURCE_REMOVED;
use crate::inbound::graphql::schema::reference::{JobRefInput, REFS_MAX};
use crate::inbound::graphql::schema::subscription;
use crate::inbound::graphql::schema::update::JobUpdate;
use crate::jobs::watch::WatchUpdate;

/// The plan of a subscription for certain values of the variables in its directives.
pub(in crate::inbound::graphql) struct SubscriptionPlan {
    roots: Vec<PlannedUpdates>,
}

/// One root field.
struct PlannedUpdates {
    name: SubscriptionRootField,
    key: Name,
    pos: Pos,
    arguments: RootArguments,
    selected: SelectedField,
}

#[derive(Clone, Copy)]
enum SubscriptionRootField {
    JobUpdates,
    JobFeed,
}

/// The updates of one root field.
pub(in crate::inbound::graphql) struct RootUpdates {
    /// The index of the root field.
    pub(in crate::inbound::graphql) root: usize,
    pub(in crate::inbound::graphql) updates: BoxStream<'static, WatchUpdate>,
}

impl SubscriptionPlan {
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
        let mut roots = Vec::new();
        let mut selected = operation.selection_set.node.items.iter();
        // the engine ignores fragments here, and delivers two fields of one key one by one
        if !selected.all(|one| matches!(one.node, Selected::Field(_))) {
            return Err(NotCovered);
        }
        for group in compiler.collect(&[&operation.selection_set.node], parent, parent)? {
            let [first] = group.fields.as_slice() else { return Err(NotCovered) };
            let name = match first.node.name.node.as_str() {
                "jobUpdates" => SubscriptionRootField::JobUpdates,
                "jobFeed" => SubscriptionRootField::JobFeed,
                _ => return Err(NotCovered),
            };
            let of = types.output(parent, &first.node.name.node).ok_or(NotCovered)?;
            let below = compiler.selection(of.innermost(), &group.fields)?;
            roots.push(PlannedUpdates {
                name,
                key: group.key.clone(),
                pos: first.pos,
                arguments: RootArguments::of(&first.node, &declared, compiler)?,
                selected: SelectedField::new(group.key, true, SelectedValue::TypeName, below),
            });
        }
        Ok(Self { roots })
    }

    /// Starts the updates of every root field; `None` if an argument is not valid, which the engine then reports.
    pub(in crate::inbound::graphql) fn start(
        &self,
        AnswerClient { jobs, principal }: AnswerClient<'_>,
        variables: &Variables,
    ) -> Option<Vec<RootUpdates>> {
        let start = |(root, plan): (usize, &PlannedUpdates)| {
            let arguments = &plan.arguments;
            let updates = match plan.name {
                SubscriptionRootField::JobUpdates => {
                    let refs: Vec<JobRefInput> = arguments.get(variables, "refs")?;
                    // reported by the engine, and counted once
                    if !(1..=REFS_MAX).contains(&refs.len()) {
                        return None;
                    }
                    let max_staleness = arguments.get(variables, "maxStaleness")?;
                    subscription::job_updates(jobs, principal, refs, max_staleness).ok()?.boxed()
                }
                SubscriptionRootField::JobFeed => {
                    subscription::job_feed(jobs, principal, arguments.get(variables, "filter")?).boxed()
                }
            };
            Some(RootUpdates { root, updates })
        };
        self.roots.iter().enumerate().map(start).collect()
    }

    /// Writes the answer for an update of a root field: `{"data":…}`, at most about `max` bytes.
    ///
    /// # Errors
    /// Returns an error if the source of the job is no longer configured.
    pub(in crate::inbound::graphql) fn write(
        &self,
        root: usize,
        update: WatchUpdate,
        client: AnswerClient<'_>,
        max: usize,
    ) -> Result<WrittenJson, ServerError> {
        let mut out = AnswerWriter::new(max, client);
        let Some(root) = self.roots.get(root) else { unreachable!("the root field of its updates") };
        out.raw("{\"data\":");
        out.raw(&root.selected.prefix);
        JobUpdate::from(update).write(&root.selected, &mut out);
        out.raw("}}");
        out.finish().ok_or_else(|| {
            let mut error = ServerError::new(SOURCE_REMOVED, Some(root.pos));
            error.path = vec![PathSegment::Field(root.key.to_string())];
            error
        })
    }
}

impl fmt::Debug for SubscriptionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionPlan").field("root_fields", &self.roots.len()).finish_non_exhaustive()
    }
}
