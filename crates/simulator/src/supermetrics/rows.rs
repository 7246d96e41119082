//! The generated rows of a result: the same seed, run and position always give the same cells.

use jiff::{ToSpan, civil::date};
use serde_json::{Value, json};

use crate::{Column, ColumnKind, SimRows};

const CAMPAIGNS: [&str; 5] = ["Spring sale", "Brand", "Retargeting", "Newsletter, weekly", "Höst \"24\""];

/// The header row, which is the first of every page.
pub(super) fn header(rows: &SimRows) -> Value {
    rows.columns.iter().map(|column| Value::from(name(column))).collect()
}

/// The row at a zero-based position.
pub(super) fn row(rows: &SimRows, seed: u64, position: u64) -> Value {
    let mut random = fastrand::Rng::with_seed(seed ^ position.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut cell = |column: &Column| match column.kind {
        ColumnKind::Date => {
            // Wraps after some 27 years: a date must stay valid for any number of rows.
            let days = i64::try_from(position % 10_000).unwrap_or_default();
            Value::from(date(2026, 1, 1).saturating_add(days.days()).to_string())
        }
        ColumnKind::Text => random.choice(CAMPAIGNS).map_or(Value::Null, Value::from),
        ColumnKind::Integer => Value::from(random.u32(0..10_000)),
        ColumnKind::Decimal => Value::from(f64::from(random.u32(0..1_000_000)) / 100.0),
        ColumnKind::Boolean => Value::from(random.bool()),
        ColumnKind::Sparse => (position % 2 == 1).then(|| format!("note {position}")).into(),
    };
    rows.columns.iter().map(&mut cell).collect()
}

/// A column in the form of `meta.query.fields`.
pub(super) fn field(position: usize, column: &Column) -> Value {
    let (field_type, data_type) = match column.kind {
        ColumnKind::Date => ("dim", "string.time.date"),
        ColumnKind::Text | ColumnKind::Sparse => ("dim", "string.text.value"),
        ColumnKind::Integer => ("met", "int.number.value"),
        ColumnKind::Decimal => ("met", "float.number.value"),
        ColumnKind::Boolean => ("dim", "bool.boolean.value"),
    };
    json!({
        "field_id": column.id,
        "field_name": name(column),
        "field_type": field_type,
        "data_type": data_type,
        "data_column": position,
    })
}

fn name(column: &Column) -> &str {
    column.name.as_deref().unwrap_or(&column.id)
}
