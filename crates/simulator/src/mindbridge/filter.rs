//! As much of `MindBridge` QL as the collection query needs: comparisons, `$in`, `$contains`, `$and`, `$or`.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// The fields that a filter may contain.
const FIELDS: [&str; 10] = [
    "id",
    "version",
    "creationDate",
    "lastModifiedDate",
    "type",
    "status",
    "entityId",
    "entityType",
    "error",
    "errorMessage",
];

/// A filter that was parsed and is valid.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    All(Vec<Self>),
    Any(Vec<Self>),
    Test { field: String, operator: Operator, operand: Value },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    In,
    NotIn,
    Contains,
}

impl Filter {
    /// Parses a filter, or returns what is wrong with it.
    pub(super) fn read(document: &Value) -> Result<Self, String> {
        let map = document.as_object().ok_or("a filter is a JSON object")?;
        map.iter()
            .map(|(name, value)| Self::read_member(name, value))
            .collect::<Result<_, _>>()
            .map(Self::All)
    }

    fn read_member(name: &str, value: &Value) -> Result<Self, String> {
        if let "$and" | "$or" = name {
            let list = value.as_array().ok_or_else(|| format!("{name} takes a list of filters"))?;
            let filters = list.iter().map(Self::read).collect::<Result<_, _>>()?;
            return Ok(if name == "$and" { Self::All(filters) } else { Self::Any(filters) });
        }
        if !FIELDS.contains(&name) {
            return Err(format!("unknown field or operator {name:?}"));
        }
        match value {
            Value::Object(tests) => Self::read_tests(name, tests),
            Value::Array(_) => Err(format!("{name:?}: write {{\"$in\": […]}} for a list")),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Ok(Self::Test { field: name.to_owned(), operator: Operator::Equal, operand: value.clone() })
            }
        }
    }

    fn read_tests(field: &str, tests: &Map<String, Value>) -> Result<Self, String> {
        let read = |(name, operand): (&String, &Value)| {
            let operator = match name.as_str() {
                "$eq" => Operator::Equal,
                "$ne" => Operator::NotEqual,
                "$gt" => Operator::Greater,
                "$gte" => Operator::GreaterOrEqual,
                "$lt" => Operator::Less,
                "$lte" => Operator::LessOrEqual,
                "$in" => Operator::In,
                "$nin" => Operator::NotIn,
                "$contains" => Operator::Contains,
                _ => return Err(format!("unknown operator {name:?}")),
            };
            let takes_list = matches!(operator, Operator::In | Operator::NotIn);
            if takes_list != operand.is_array() || operand.is_object() {
                return Err(format!("{name} takes {}", if takes_list { "a list" } else { "one value" }));
            }
            Ok(Self::Test { field: field.to_owned(), operator, operand: operand.clone() })
        };
        tests.iter().map(read).collect::<Result<_, _>>().map(Self::All)
    }

    /// Whether a job, in its wire form, matches.
    pub(super) fn holds(&self, job: &Value) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.holds(job)),
            Self::Any(filters) => filters.iter().any(|filter| filter.holds(job)),
            Self::Test { field, operator, operand } => {
                let value = job.get(field).unwrap_or(&Value::Null);
                let listed = || operand.as_array().is_some_and(|list| list.contains(value));
                match operator {
                    Operator::Equal => value == operand,
                    Operator::NotEqual => value != operand,
                    Operator::Greater => order(value, operand) == Some(Ordering::Greater),
                    Operator::GreaterOrEqual => order(value, operand).is_some_and(Ordering::is_ge),
                    Operator::Less => order(value, operand) == Some(Ordering::Less),
                    Operator::LessOrEqual => order(value, operand).is_some_and(Ordering::is_le),
                    Operator::In => listed(),
                    Operator::NotIn => !listed(),
                    Operator::Contains => {
                        value.as_str().zip(operand.as_str()).is_some_and(|(text, part)| text.contains(part))
                    }
                }
            }
        }
    }

    /// The ids in the filter, in its order.
    pub(super) fn ids(&self) -> Vec<String> {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().flat_map(Self::ids).collect(),
            Self::Test { field, operator: Operator::Equal | Operator::In, operand } if field == "id" => {
                let one = std::slice::from_ref(operand);
                let texts = operand.as_array().map_or(one, Vec::as_slice).iter().filter_map(Value::as_str);
                texts.map(str::to_owned).collect()
            }
            Self::Test { .. } => Vec::new(),
        }
    }
}

/// Numbers by size, texts (RFC 3339 dates among them) lexicographically; nothing else has an order.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        return Some(left.cmp(&right));
    }
    if let (Some(left), Some(right)) = (left.as_f64(), right.as_f64()) {
        return left.partial_cmp(&right);
    }
    Some(left.as_str()?.cmp(right.as_str()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filters_match_by_the_query_language() {
        let job =
            json!({"id": "a", "version": 3, "status": "COMPLETE", "creationDate": "2026-01-02T00:00:00Z"});
        let table = [
            (json!({}), true),
            (json!({"id": "a"}), true),
            (json!({"id": {"$eq": "b"}}), false),
            (json!({"id": {"$in": ["b", "a"]}}), true),
            (json!({"id": {"$nin": ["b", "a"]}}), false),
            (json!({"id": {"$in": []}}), false),
            (json!({"id": "a", "status": "ERROR"}), false),
            (json!({"$and": [{"id": "a"}, {"version": {"$gte": 3, "$lt": 4}}]}), true),
            (json!({"$or": [{"id": "b"}, {"version": {"$gt": 3}}]}), false),
            (json!({"creationDate": {"$lt": "2026-01-03"}}), true),
            (json!({"status": {"$contains": "COMP"}}), true),
            (json!({"errorMessage": {"$ne": "x"}}), true),
        ];
        for (filter, expected) in table {
            assert_eq!(Filter::read(&filter).map(|it| it.holds(&job)), Ok(expected), "{filter}");
        }
    }

    #[test]
    fn unsupported_filter_is_refused() {
        for filter in [
            json!([]),
            json!({"unknown": 1}),
            json!({"$nor": []}),
            json!({"id": ["a"]}),
            json!({"id": {"$in": "a"}}),
            json!({"id": {"$eq": ["a"]}}),
            json!({"id": {"$regex": "a"}}),
            json!({"$and": {"id": "a"}}),
        ] {
            assert!(Filter::read(&filter).is_err(), "{filter}");
        }
    }
}
