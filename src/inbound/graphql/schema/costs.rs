//! The costs of all fields of the schema, which each type states beside its resolvers.

use crate::inbound::graphql::document::limits::field_cost::FieldCosts;

use super::{
    job, job_connection, job_fields, label, mindbridge, mutation, page, problem, query, rows, source,
    subscription, supermetrics, update,
};

/// The costs of all fields.
pub(in crate::inbound::graphql) fn all() -> FieldCosts {
    let types = [
        job::COSTS.as_slice(),
        job_connection::COSTS.as_slice(),
        job_fields::COSTS.as_slice(),
        label::COSTS.as_slice(),
        mindbridge::COSTS.as_slice(),
        mutation::COSTS.as_slice(),
        page::COSTS.as_slice(),
        problem::COSTS.as_slice(),
        query::COSTS.as_slice(),
        rows::COSTS.as_slice(),
        source::COSTS.as_slice(),
        subscription::COSTS.as_slice(),
        supermetrics::COSTS.as_slice(),
        update::COSTS.as_slice(),
    ];
    FieldCosts::new(&types.concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::inbound::graphql::schema;

    #[test]
    fn every_schema_field_states_its_cost() {
        let types = schema::input_types().unwrap();
        let fields =
            types.outputs().flat_map(|(parent, of)| of.fields.keys().map(move |name| (parent, name)));
        let fields: BTreeSet<String> = fields.map(|(parent, name)| format!("{parent}.{name}")).collect();
        let stated = all().stated();
        let without: Vec<_> = fields.difference(&stated).collect();
        assert!(without.is_empty(), "without a cost in COSTS beside its resolver: {without:?}");
        let unknown: Vec<_> = stated.difference(&fields).collect();
        assert!(unknown.is_empty(), "a cost for a field that the schema does not have: {unknown:?}");
    }
}
