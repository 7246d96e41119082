//! Computes the upper bound of the values in the answer to an operation: every field, every item of a list, for every
//! item of the lists around it. It depends on the document, its variables and the schema, and is computed before
//! anything executes.

use async_graphql::Name;
use async_graphql::Variables;
use async_graphql::parser::types::{
    BaseType, ExecutableDocument, Field, OperationDefinition, Selection, SelectionSet,
};

use super::cost::FieldArguments;
use super::field_cost::{ListLength, MOST_PAGE, MOST_REFS};
use crate::inbound::graphql::document::coercion::{InputTypes, OutputField};

/// The length of a list that states none. A test fails for one.
const UNDECLARED: u64 = MOST_REFS;

/// The lists of introspection, by their usual length in this schema.
fn introspected(field: &str) -> Option<u64> {
    Some(match field {
        "types" => 70,
        "fields" | "enumValues" => 7,
        "inputFields" | "interfaces" | "possibleTypes" | "directives" | "locations" => 4,
        "args" => 2,
        _ => return None,
    })
}

/// Adds up an operation. Recursion and work are bounded by the walk that has checked the document.
pub(super) fn of(
    types: &InputTypes,
    document: &ExecutableDocument,
    operation: &OperationDefinition,
    variables: &Variables,
) -> u64 {
    let arguments = FieldArguments { operation, variables };
    let sum = AnswerCost { types, document, arguments };
    sum.set(
        &operation.selection_set.node,
        AnswerPosition { parent: types.root(operation.ty), times: 1, page: MOST_PAGE },
    )
}

/// The position of a selection.
#[derive(Clone, Copy)]
struct AnswerPosition<'a> {
    /// The type that is selected from; none for types that only introspection has.
    parent: Option<&'a Name>,
    /// How often it is evaluated.
    times: u64,
    /// The length of a page of the connection around it.
    page: u64,
}

struct AnswerCost<'a> {
    types: &'a InputTypes,
    document: &'a ExecutableDocument,
    arguments: FieldArguments<'a>,
}

impl<'a> AnswerCost<'a> {
    fn set(&self, set: &'a SelectionSet, position: AnswerPosition<'a>) -> u64 {
        set.items.iter().fold(0, |sum: u64, selection| {
            sum.saturating_add(match &selection.node {
                Selection::Field(field) => self.field(&field.node, position),
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let parent = condition.map(|condition| &condition.node.on.node).or(position.parent);
                    self.set(&inline.node.selection_set.node, AnswerPosition { parent, ..position })
                }
                Selection::FragmentSpread(spread) => {
                    let fragment = self.document.fragments.get(&spread.node.fragment_name.node);
                    fragment.map_or(0, |fragment| {
                        let parent = Some(&fragment.node.type_condition.node.on.node);
                        self.set(&fragment.node.selection_set.node, AnswerPosition { parent, ..position })
                    })
                }
            })
        })
    }

    fn field(&self, field: &'a Field, position: AnswerPosition<'a>) -> u64 {
        let name = &field.name.node;
        let of: Option<&OutputField> = position.parent.and_then(|parent| self.types.output(parent, name));
        let items = match (of, position.parent) {
            (Some(of), Some(parent)) if matches!(of.of.base, BaseType::List(_)) => {
                Some(match self.types.costs().length(parent, name).unwrap_or(ListLength::Items(UNDECLARED)) {
                    // a request with more items than the schema accepts has no answer
                    ListLength::Of(argument) => self.arguments.items(field, argument).min(MOST_REFS),
                    ListLength::Page => position.page,
                    ListLength::Items(items) => items,
                })
            }
            (Some(_), _) => None,
            (None, _) => introspected(name),
        };
        // the field, and the items of its list
        let times = position.times.saturating_mul(items.unwrap_or(1));
        let own = position.times.saturating_add(items.map_or(0, |_| times));
        let page = match field.get_argument("first") {
            Some(_) => self.arguments.page(field, "first").min(MOST_PAGE),
            None => position.page,
        };
        let below = AnswerPosition { parent: of.map(OutputField::innermost), times, page };
        own.saturating_add(self.set(&field.selection_set.node, below))
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;
    use crate::inbound::graphql::document::limits::DocumentLimits;
    use crate::inbound::graphql::schema;

    fn cost(text: &str) -> u64 {
        let variables = Variables::from_json(json!({ "refs": vec![json!({ "id": "x" }); 200], "n": 7 }));
        let document = parse_query(text).unwrap();
        let operation = document.operations.iter().next().unwrap().1;
        of(&schema::input_types().unwrap(), &document, &operation.node, &variables)
    }

    #[test]
    fn every_schema_list_has_a_maximum_length() {
        let types = schema::input_types().unwrap();
        let mut lists = 0;
        for (parent, of) in types.outputs() {
            for (name, field) in &of.fields {
                if matches!(field.of.base, BaseType::List(_)) {
                    lists += 1;
                    assert!(
                        types.costs().length(parent, name).is_some(),
                        "{parent}.{name} is a list that states no length"
                    );
                }
                // the length of a page is `first` of its connection
                if field.innermost().ends_with("Connection") {
                    assert!(
                        field.takes("first"),
                        "{parent}.{name} is a connection without the argument first"
                    );
                }
            }
        }
        assert!(lists > 10, "{lists}");
    }

    #[test]
    fn answer_cost_is_the_maximum_number_of_values() {
        for (text, values) in [
            ("{ job(ref: { id: 1 }) { __typename } }", 2),
            ("query($refs: X) { jobs(refs: $refs) { ... on Job { id } } }", 1 + 200 + 200),
            ("query($n: Int!) { jobList(first: $n) { nodes { id } } }", 1 + (1 + 7) + 7),
            (
                "{ jobList(first: 2) { edges { node { id } labels { name } } } }",
                1 + (1 + 2) + 2 + 2 + (2 + 32) + 32,
            ),
            ("{ ...F } fragment F on Query { jobs(refs: [{ id: 1 }, { id: 2 }]) { __typename } }", 1 + 2 + 2),
        ] {
            assert_eq!(cost(text), values, "{text}");
        }
    }

    /// The cost of rows of some jobs, in pages of a size, under some aliases.
    fn rows(refs: usize, page: usize, aliases: usize, inside: &str) -> u64 {
        let refs: Vec<_> = (0..refs).map(|_| "{id:1}").collect();
        let rows: Vec<_> =
            (0..aliases).map(|alias| format!("r{alias}: rows(first: {page}) {{ {inside} }}")).collect();
        let rows = rows.join(" ");
        cost(&format!("{{ jobs(refs: [{}]) {{ ... on SupermetricsJob {{ {rows} }} }} }}", refs.join(",")))
    }

    const NODES: &str = "nodes { cells }";
    const BOTH: &str = "nodes { cells } edges { node { cells } }";

    #[test]
    fn each_factor_multiplies_the_cost() {
        let one = rows(10, 10, 1, NODES);
        for more in [rows(20, 10, 1, NODES), rows(10, 20, 1, NODES), rows(10, 10, 2, NODES)] {
            assert!(more > one * 9 / 5, "{more} of {one}");
        }
        assert!(rows(10, 10, 1, BOTH) > one * 9 / 5);
    }

    #[test]
    fn cost_of_typical_queries_is_within_the_limit() {
        let limit = DocumentLimits::default().max_answer_cost;
        assert!(rows(1, 100, 1, NODES) < limit && rows(50, 100, 1, NODES) < limit);
        assert!(rows(200, 100, 4, BOTH) > limit, "and that of an excessive one is not");
    }

    #[test]
    fn full_introspection_fits_the_answer_cost_limit() {
        let of_type = format!("type {{ kind name {} }}", "ofType { kind name ".repeat(7) + &"}".repeat(7));
        let tools = format!(
            "{{ __schema {{ queryType {{ name }} types {{ kind name description specifiedByURL \
             fields(includeDeprecated: true) {{ name description args {{ name description {of_type} defaultValue }} {of_type} \
             isDeprecated deprecationReason }} inputFields {{ name description {of_type} defaultValue }} \
             interfaces {{ kind name }} enumValues {{ name description isDeprecated deprecationReason }} \
             possibleTypes {{ kind name }} }} directives {{ name description locations args {{ name {of_type} }} }} }} }}"
        );
        let (one, limit) = (cost(&tools), DocumentLimits::default().max_answer_cost);
        assert!(one < limit, "{one}");
        let often: String = (0..20)
            .map(|alias| tools.replacen("__schema", &format!("a{alias}: __schema"), 1))
            .map(|text| text.trim_start_matches('{').strip_suffix('}').unwrap().to_owned())
            .collect();
        assert!(cost(&format!("{{ {often} }}")) > limit);
    }
}
