//! The costs of all fields of the schema, which each type states where it is defined, and the object types that a plan
//! can write.

use super::job_connection::{JobConnection, JobEdge};
use super::job_fields::{GqlEstimate, GqlFreshness, JobFailure, JobProgress, JobTransition};
use super::label::Label;
use super::page::PageInfo;
use super::problem::{GqlProblemRef, JobProblem};
use super::rows::{GqlRow, RowConnection, RowEdge};
use super::source::{GqlSource, GqlSourceError, SourceBudget, SourceCredential, SourceDiscovery};
use super::update::JobUpdate;
use super::viewer::{GqlViewer, GqlViewerGrant};
use super::{job, mutation, query, subscription};
use crate::inbound::graphql::document::limits::field_cost::FieldCosts;
use crate::inbound::graphql::plan::output::ObjectDescription;

/// Every object type that is not a root type or the payload of a mutation.
pub(in crate::inbound::graphql) fn objects() -> Vec<ObjectDescription> {
    let common = vec![
        ObjectDescription::of::<JobConnection>(),
        ObjectDescription::of::<JobEdge>(),
        ObjectDescription::of::<JobProgress>(),
        ObjectDescription::of::<JobTransition>(),
        ObjectDescription::of::<GqlEstimate>(),
        ObjectDescription::of::<JobFailure>(),
        ObjectDescription::of::<GqlFreshness>(),
        ObjectDescription::of::<Label>(),
        ObjectDescription::of::<PageInfo>(),
        ObjectDescription::of::<JobProblem>(),
        ObjectDescription::of::<GqlProblemRef>(),
        ObjectDescription::of::<RowConnection>(),
        ObjectDescription::of::<RowEdge>(),
        ObjectDescription::of::<GqlRow>(),
        ObjectDescription::of::<GqlSource>(),
        ObjectDescription::of::<GqlSourceError>(),
        ObjectDescription::of::<SourceCredential>(),
        ObjectDescription::of::<SourceBudget>(),
        ObjectDescription::of::<SourceDiscovery>(),
        ObjectDescription::of::<JobUpdate>(),
        ObjectDescription::of::<GqlViewer>(),
        ObjectDescription::of::<GqlViewerGrant>(),
    ];
    [job::objects(), common].concat()
}

/// The costs of all fields.
pub(in crate::inbound::graphql) fn all() -> FieldCosts {
    let mut costs = FieldCosts::default();
    costs.root("Query", &query::COSTS);
    costs.root("Mutation", &mutation::COSTS);
    costs.root("Subscription", &subscription::COSTS);
    for (name, fields) in mutation::PAYLOAD_COSTS {
        costs.object(name, fields.iter().copied());
    }
    for object in objects() {
        costs.object(object.name, object.fields.iter().map(|field| (&*field.name, field.cost)));
    }
    costs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::inbound::graphql::schema;

    #[test]
    fn every_schema_field_states_its_cost() {
        let types = schema::input_types().unwrap();
        // an interface has the fields of its objects
        let fields = types.outputs().filter(|(_, of)| !of.is_abstract);
        let fields = fields.flat_map(|(parent, of)| of.fields.keys().map(move |name| (parent, name)));
        let fields: BTreeSet<String> = fields.map(|(parent, name)| format!("{parent}.{name}")).collect();
        let stated = all().stated();
        let without: Vec<_> = fields.difference(&stated).collect();
        assert!(
            without.is_empty(),
            "without a cost; an object is missing in the `objects` of its module, or a root field in COSTS: {without:?}"
        );
        let unknown: Vec<_> = stated.difference(&fields).collect();
        assert!(unknown.is_empty(), "a cost for a field that the schema does not have: {unknown:?}");
    }
}
