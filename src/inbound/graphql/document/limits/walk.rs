//! Measures the shape of a document with its fragments spread out: depth, aliases, root fields, directives. Its own
//! work is bounded: a fragment bomb costs at most `MAX_SELECTIONS` visits, whatever its unfolded size.

use async_graphql::Positioned;
use async_graphql::parser::types::{Directive, ExecutableDocument, Field, Selection, SelectionSet};

use super::document_limits::{DocumentLimits, exceeded};
use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// Selections of one document with every fragment spread out. Also bounds what the engine's validation visits.
const MAX_SELECTIONS: usize = 10_000;
/// Levels of fields, fragments and spreads together: the recursion here and in the engine.
const MAX_LEVELS: usize = 64;
/// Levels inside `__schema` and `__type`; the introspection query of current tools needs 15.
const MAX_INTROSPECTION_DEPTH: usize = 20;
/// How often the cycle of the introspection schema (a type's fields, their types, those types' fields …) may be
/// repeated. Each repetition multiplies the answer by the number of fields of the schema; tools need one.
const MAX_INTROSPECTION_ROUNDS: usize = 2;

/// Checks each operation of a document.
pub(super) fn check(document: &ExecutableDocument, limits: &DocumentLimits) -> Result<(), HttpRefusal> {
    let mut walk = LimitWalk {
        document,
        limits,
        selections: 0,
        totals: OperationTotals::default(),
        spreads: Vec::new(),
    };
    for (_, operation) in document.operations.iter() {
        walk.totals = OperationTotals::default();
        walk.directives(&operation.node.directives)?;
        for variable in &operation.node.variable_definitions {
            walk.directives(&variable.node.directives)?;
        }
        walk.set(
            &operation.node.selection_set.node,
            SelectionPosition { depth: 1, level: 1, introspection: None },
        )?;
    }
    Ok(())
}

/// The counters of a whole operation.
#[derive(Default)]
struct OperationTotals {
    aliases: usize,
    root_fields: usize,
    directives: usize,
}

/// The position of a selection.
#[derive(Clone, Copy)]
struct SelectionPosition {
    depth: usize,
    level: usize,
    introspection: Option<IntrospectionPosition>,
}

/// The position of a selection inside `__schema` or `__type`.
#[derive(Clone, Copy)]
struct IntrospectionPosition {
    depth: usize,
    rounds: usize,
}

struct LimitWalk<'a> {
    document: &'a ExecutableDocument,
    limits: &'a DocumentLimits,
    selections: usize,
    totals: OperationTotals,
    spreads: Vec<&'a str>,
}

impl<'a> LimitWalk<'a> {
    fn set(&mut self, set: &'a SelectionSet, position: SelectionPosition) -> Result<(), HttpRefusal> {
        if position.level > MAX_LEVELS {
            return Err(complex("max_levels", MAX_LEVELS, "levels of fields and fragments"));
        }
        let inside = SelectionPosition { level: position.level + 1, ..position };
        for selection in &set.items {
            self.selections += 1;
            if self.selections > MAX_SELECTIONS {
                return Err(complex("max_selections", MAX_SELECTIONS, "selections with fragments expanded"));
            }
            self.directives(selection.node.directives())?;
            match &selection.node {
                Selection::Field(field) => self.field(&field.node, position)?,
                Selection::InlineFragment(fragment) => {
                    self.set(&fragment.node.selection_set.node, inside)?;
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    // a spread of an unknown fragment is left to validation, which reports it
                    let Some(fragment) = self.document.fragments.get(name) else { continue };
                    if self.spreads.contains(&name) {
                        let message = format!("fragment \"{name}\" spreads itself; remove the cycle");
                        return Err(HttpRefusal::new(RefusalKind::DocumentInvalid, message).at([spread.pos]));
                    }
                    self.directives(&fragment.node.directives)?;
                    self.spreads.push(name);
                    self.set(&fragment.node.selection_set.node, inside)?;
                    self.spreads.pop();
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &'a Field, position: SelectionPosition) -> Result<(), HttpRefusal> {
        let limits = self.limits;
        if position.depth > limits.max_depth && position.introspection.is_none() {
            return Err(complex("max_depth", limits.max_depth, "levels of fields"));
        }
        if position.depth == 1 {
            self.totals.root_fields += 1;
            if self.totals.root_fields > limits.max_root_fields {
                return Err(complex("max_root_fields", limits.max_root_fields, "root fields"));
            }
        }
        if field.alias.is_some() {
            self.totals.aliases += 1;
            if self.totals.aliases > limits.max_aliases {
                return Err(complex("max_aliases", limits.max_aliases, "aliases"));
            }
        }
        let introspection = introspect(field.name.node.as_str(), position)?;
        if introspection.is_some() && !limits.introspection {
            let message = "introspection is disabled; `jobgate schema` prints the schema";
            return Err(HttpRefusal::new(RefusalKind::DocumentInvalid, message));
        }
        let below = SelectionPosition { depth: position.depth + 1, level: position.level + 1, introspection };
        self.set(&field.selection_set.node, below)
    }

    fn directives(&mut self, directives: &[Positioned<Directive>]) -> Result<(), HttpRefusal> {
        self.totals.directives += directives.len();
        if self.totals.directives > self.limits.max_directives {
            return Err(complex("max_directives", self.limits.max_directives, "directives"));
        }
        Ok(())
    }
}

fn introspect(name: &str, position: SelectionPosition) -> Result<Option<IntrospectionPosition>, HttpRefusal> {
    let Some(mut inside) = position.introspection else {
        let opens = position.depth == 1 && matches!(name, "__schema" | "__type");
        return Ok(opens.then_some(IntrospectionPosition { depth: 1, rounds: 0 }));
    };
    inside.depth += 1;
    if inside.depth > MAX_INTROSPECTION_DEPTH {
        return Err(complex("max_introspection_depth", MAX_INTROSPECTION_DEPTH, "levels of introspection"));
    }
    if matches!(name, "fields" | "inputFields" | "interfaces" | "possibleTypes") {
        inside.rounds += 1;
        if inside.rounds > MAX_INTROSPECTION_ROUNDS {
            return Err(complex(
                "max_introspection_rounds",
                MAX_INTROSPECTION_ROUNDS,
                "nested introspection lists",
            ));
        }
    }
    Ok(Some(inside))
}

fn complex(name: &'static str, limit: usize, what: &str) -> HttpRefusal {
    exceeded(RefusalKind::DocumentTooComplex, name, limit as u64, what)
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use tokio::time::Instant;

    use super::*;

    fn verdict(text: &str) -> &'static str {
        let document = parse_query(text).unwrap();
        match check(&document, &DocumentLimits::default()) {
            Ok(()) => "ok",
            Err(refusal) => refusal.kind().code(),
        }
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "{a".repeat(depth), "}".repeat(depth))
    }

    fn times(count: usize, one: &str) -> String {
        (0..count)
            .map(|index| format!(" {}", one.replace('#', &index.to_string())))
            .collect::<Vec<_>>()
            .concat()
    }

    /// Each limit at its last accepted value and one above, both directly and through a fragment.
    #[test]
    fn each_limit_is_exact_at_its_boundary() {
        for (text, expected) in [
            (nested(12), "ok"),
            (nested(13), "DOCUMENT_TOO_COMPLEX"),
            (format!("{{...F}} fragment F on Q {}", nested(12)), "ok"),
            (format!("{{...F}} fragment F on Q {}", nested(13)), "DOCUMENT_TOO_COMPLEX"),
            (format!("{{x{{{}}}}}", times(50, "a#:b")), "ok"),
            (format!("{{x{{{}}}}}", times(51, "a#:b")), "DOCUMENT_TOO_COMPLEX"),
            (
                format!("{{x{{...F}} y{{...F}}}} fragment F on Q {{{}}}", times(26, "a#:b")),
                "DOCUMENT_TOO_COMPLEX",
            ),
            (format!("{{{}}}", times(20, "f#")), "ok"),
            (format!("{{...F}} fragment F on Q {{{}}}", times(21, "f#")), "DOCUMENT_TOO_COMPLEX"),
            (format!("{{a{}}}", times(20, "@d#")), "ok"),
            (format!("query{}{{a @d}}", times(20, "@d#")), "DOCUMENT_TOO_COMPLEX"),
            (
                format!("{{a}} query B {}", nested(13)).replacen("{a}", "query A{a}", 1),
                "DOCUMENT_TOO_COMPLEX",
            ),
            (
                "{...F} fragment F on Q {a{...G}} fragment G on Q {b{...F}}".to_owned(),
                "GRAPHQL_VALIDATION_FAILED",
            ),
            ("{...Unknown}".to_owned(), "ok"),
        ] {
            assert_eq!(verdict(&text), expected, "{text}");
        }
    }

    #[test]
    fn only_non_recursive_introspection_is_allowed() {
        let of_type = format!("type{{{}name{}", "ofType{".repeat(9), "}".repeat(10));
        let tools =
            format!("{{__schema{{types{{fields{{args{{{of_type}}}{of_type}}}inputFields{{{of_type}}}}}}}}}");
        let bomb = "{__schema{types{fields{type{fields{type{fields{name}}}}}}}}";
        assert_eq!((verdict(&tools), verdict(bomb)), ("ok", "DOCUMENT_TOO_COMPLEX"));
    }

    /// Unfolded, the last one has 2^60 fields. The time limit is four orders of magnitude above the time that each
    /// needs.
    #[test]
    fn document_bombs_are_refused_in_bounded_time() {
        let chain = |link: fn(usize, usize) -> String| {
            let links: Vec<_> = (0..60).map(|index| link(index, index + 1)).collect();
            format!("{{...F0}} {} fragment F60 on Q{{a}}", links.concat())
        };
        let doubling =
            chain(|this, next| format!("fragment F{this} on Q{{a{{b ...F{next}}} c{{...F{next}}}}}"));
        let wide = chain(|this, next| format!("fragment F{this} on Q{{...F{next} ...F{next}}}"));
        for text in [
            format!("{{x{{{}}}}}", times(10_000, "a#:b")),
            format!("{{a{}}}", "@skip(if:false)".repeat(20_000)),
            doubling,
            wide,
        ] {
            let document = parse_query(&text).unwrap();
            let start = Instant::now();
            assert_eq!(
                check(&document, &DocumentLimits::default()).unwrap_err().kind(),
                RefusalKind::DocumentTooComplex
            );
            assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
        }
    }
}
