//! As much of `MindBridge` QL as the collection query needs: comparisons, `$in`, `$contains`, `$and`, `$or`.

use std::cmp::Ordering;

use jiff::{Timestamp, civil::Date, tz::Offset};
use serde_json::{Map, Value};

use super::entity::{Field, FieldValue};

/// A filter that was parsed and is valid.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    All(Vec<Self>),
    Any(Vec<Self>),
    Test { field: Field, operator: Operator, operand: Vec<Literal> },
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

/// A value in a filter, of the type of its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Literal {
    Null,
    Number(i64),
    Text(String),
    Time(Timestamp),
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "$eq" => Self::Equal,
            "$ne" => Self::NotEqual,
            "$gt" => Self::Greater,
            "$gte" => Self::GreaterOrEqual,
            "$lt" => Self::Less,
            "$lte" => Self::LessOrEqual,
            "$in" => Self::In,
            "$nin" => Self::NotIn,
            "$contains" => Self::Contains,
            _ => return None,
        })
    }
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
        let field = Field::named(name).ok_or_else(|| format!("unknown field or operator {name:?}"))?;
        match value {
            Value::Object(tests) => Self::read_tests(field, tests),
            Value::Array(_) => Err(format!("{name:?}: write {{\"$in\": […]}} for a list")),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let operand = vec![Literal::read(field, value)?];
                Ok(Self::Test { field, operator: Operator::Equal, operand })
            }
        }
    }

    fn read_tests(field: Field, tests: &Map<String, Value>) -> Result<Self, String> {
        if tests.is_empty() {
            return Err(format!("{:?}: an operator is missing", field.as_str()));
        }
        let read = |(name, operand): (&String, &Value)| {
            let operator = Operator::named(name).ok_or_else(|| format!("unknown operator {name:?}"))?;
            let takes_list = matches!(operator, Operator::In | Operator::NotIn);
            let operand = match operand.as_array() {
                Some(list) if takes_list => {
                    list.iter().map(|it| Literal::read(field, it)).collect::<Result<_, _>>()?
                }
                None if !takes_list => vec![Literal::read(field, operand)?],
                Some(_) | None => {
                    return Err(format!("{name} takes {}", if takes_list { "a list" } else { "one value" }));
                }
            };
            if operator == Operator::Contains && !matches!(operand.as_slice(), [Literal::Text(_)]) {
                return Err(format!("$contains takes a text, and {:?} must be a text", field.as_str()));
            }
            Ok(Self::Test { field, operator, operand })
        };
        tests.iter().map(read).collect::<Result<_, _>>().map(Self::All)
    }

    /// Whether a job with these values matches.
    pub(super) fn holds<'v>(&self, value_of: &impl Fn(Field) -> FieldValue<'v>) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.holds(value_of)),
            Self::Any(filters) => filters.iter().any(|filter| filter.holds(value_of)),
            Self::Test { field, operator, operand } => {
                let value = value_of(*field);
                let listed = || operand.iter().any(|it| it.compare(value) == Some(Ordering::Equal));
                let order = || operand.first().and_then(|it| it.compare(value));
                match operator {
                    Operator::Equal | Operator::In => listed(),
                    Operator::NotEqual | Operator::NotIn => !listed(),
                    Operator::Greater => order() == Some(Ordering::Greater),
                    Operator::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
                    Operator::Less => order() == Some(Ordering::Less),
                    Operator::LessOrEqual => order().is_some_and(Ordering::is_le),
                    Operator::Contains => match (value, operand.first()) {
                        (FieldValue::Text(text), Some(Literal::Text(part))) => text.contains(part),
                        _ => false,
                    },
                }
            }
        }
    }

    /// The ids in the filter, in its order.
    pub(super) fn ids(&self) -> Vec<String> {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().flat_map(Self::ids).collect(),
            Self::Test { field: Field::Id, operator: Operator::Equal | Operator::In, operand } => {
                let text = |literal: &Literal| match literal {
                    Literal::Text(text) => Some(text.clone()),
                    Literal::Null | Literal::Number(_) | Literal::Time(_) => None,
                };
                operand.iter().filter_map(text).collect()
            }
            Self::Test { .. } => Vec::new(),
        }
    }

    /// Whether it can match no other jobs than those with [`Self::ids`].
    pub(super) fn is_by_id(&self) -> bool {
        match self {
            Self::All(filters) => filters.iter().any(Self::is_by_id),
            Self::Any(filters) => !filters.is_empty() && filters.iter().all(Self::is_by_id),
            Self::Test { field, operator, .. } => {
                *field == Field::Id && matches!(operator, Operator::Equal | Operator::In)
            }
        }
    }
}

impl Literal {
    /// Reads a value for a field: a date by its time, so that two spellings of one moment are equal.
    fn read(field: Field, value: &Value) -> Result<Self, String> {
        if value.is_null() {
            return Ok(Self::Null);
        }
        let name = field.as_str();
        match field {
            Field::Version => {
                let number =
                    value.as_i64().ok_or_else(|| format!("{name:?} is compared with a whole number"))?;
                Ok(Self::Number(number))
            }
            Field::CreationDate | Field::LastModifiedDate => {
                let time = value.as_str().and_then(moment);
                time.map(Self::Time).ok_or_else(|| format!("{name:?} is compared with an RFC 3339 date-time"))
            }
            Field::Id
            | Field::Type
            | Field::Status
            | Field::EntityId
            | Field::EntityType
            | Field::Error
            | Field::ErrorMessage => {
                let text = value.as_str().ok_or_else(|| format!("{name:?} is compared with a text"))?;
                Ok(Self::Text(text.to_owned()))
            }
        }
    }

    /// The order of a job's value relative to this one; values of different types have none.
    fn compare(&self, value: FieldValue<'_>) -> Option<Ordering> {
        match (value, self) {
            (FieldValue::Absent, Self::Null) => Some(Ordering::Equal),
            (FieldValue::Number(left), Self::Number(right)) => Some(left.cmp(right)),
            (FieldValue::Text(left), Self::Text(right)) => Some(left.cmp(right.as_str())),
            (FieldValue::Time(left), Self::Time(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}

/// A date-time with an offset, or a date, which is its midnight in UTC.
fn moment(text: &str) -> Option<Timestamp> {
    // A date parses also from a date-time, whose time it drops.
    let date = || Some(text).filter(|text| text.len() == "2026-01-01".len())?.parse::<Date>().ok();
    let midnight = || Offset::UTC.to_timestamp(date()?.at(0, 0, 0, 0)).ok();
    text.parse().ok().or_else(midnight)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A job with some of the fields.
    fn value_of(field: Field) -> FieldValue<'static> {
        match field {
            Field::Id => FieldValue::Text("a"),
            Field::Version => FieldValue::Number(3),
            Field::Status => FieldValue::Text("COMPLETE"),
            Field::CreationDate => FieldValue::Time("2026-01-02T00:00:00Z".parse().unwrap()),
            Field::LastModifiedDate => FieldValue::Time("2026-01-02T10:00:00.500Z".parse().unwrap()),
            Field::Type | Field::EntityId | Field::EntityType | Field::Error | Field::ErrorMessage => {
                FieldValue::Absent
            }
        }
    }

    #[test]
    fn filters_match_by_the_query_language() {
        let table = [
            (json!({}), true),
            (json!({"id": "a"}), true),
            (json!({"id": {"$eq": "b"}}), false),
            (json!({"id": {"$in": ["b", "a"]}}), true),
            (json!({"id": {"$nin": ["b", "a"]}}), false),
            (json!({"id": {"$in": []}}), false),
            (json!({"id": "a", "status": "ERROR"}), false),
            (json!({"status": {"$ne": "COMPLETE"}}), false),
            (json!({"$and": [{"id": "a"}, {"version": {"$gte": 3, "$lt": 4}}]}), true),
            (json!({"$or": [{"id": "b"}, {"version": {"$gt": 3}}]}), false),
            (json!({"$or": []}), false),
            (json!({"creationDate": {"$lt": "2026-01-03"}}), true),
            (json!({"status": {"$contains": "COMP"}}), true),
            (json!({"errorMessage": {"$ne": "x"}}), true),
            (json!({"errorMessage": null}), true),
            (json!({"errorMessage": {"$gt": "a"}}), false),
        ];
        for (filter, expected) in table {
            assert_eq!(Filter::read(&filter).map(|it| it.holds(&value_of)), Ok(expected), "{filter}");
        }
    }

    /// As texts, a fraction of a second is less than the `Z` after a whole one, and offsets have no order.
    #[test]
    fn dates_compare_as_time() {
        let table = [
            (json!({"$gt": "2026-01-02T10:00:00Z"}), true),
            (json!({"$lte": "2026-01-02T10:00:00Z"}), false),
            (json!({"$eq": "2026-01-02T10:00:00.5Z"}), true),
            (json!({"$in": ["2026-01-02T12:00:00.500+02:00"]}), true),
            (json!({"$gte": "2026-01-02T12:00:00+02:00", "$lt": "2026-01-02T10:00:01Z"}), true),
        ];
        for (tests, expected) in table {
            let filter = Filter::read(&json!({"lastModifiedDate": tests}));
            assert_eq!(filter.map(|it| it.holds(&value_of)), Ok(expected), "{tests}");
        }
    }

    #[test]
    fn unsupported_filter_is_refused() {
        for filter in [
            json!([]),
            json!({"unknown": 1}),
            json!({"$nor": []}),
            json!({"id": ["a"]}),
            json!({"id": 1}),
            json!({"id": {}}),
            json!({"id": {"$in": "a"}}),
            json!({"id": {"$eq": ["a"]}}),
            json!({"id": {"$eq": {"a": 1}}}),
            json!({"id": {"$regex": "a"}}),
            json!({"$and": {"id": "a"}}),
            json!({"version": "3"}),
            json!({"version": {"$contains": 3}}),
            json!({"lastModifiedDate": {"$gte": "yesterday"}}),
            json!({"lastModifiedDate": {"$gte": "2026-01-02T10:00:00"}}),
        ] {
            assert!(Filter::read(&filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn filter_by_id_differs_from_a_list() {
        for (filter, expected) in [
            (json!({"id": "a"}), true),
            (json!({"id": {"$in": ["a", "b"]}}), true),
            (json!({"id": {"$in": ["a"]}, "status": "COMPLETE"}), true),
            (json!({"$or": [{"id": "a"}, {"id": "b"}]}), true),
            (json!({"$or": [{"id": "a"}, {"status": "COMPLETE"}]}), false),
            (json!({"id": {"$ne": "a"}}), false),
            (json!({"status": "COMPLETE"}), false),
            (json!({}), false),
        ] {
            assert_eq!(Filter::read(&filter).map(|it| it.is_by_id()), Ok(expected), "{filter}");
        }
    }
}
