//! The JSON Schema of the configuration file, generated from the types that read it, so that it cannot drift.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// Builds the schema of a file that is read as `T`. Options of `defaults`, the compiled-in file, are not required in an operator's file.
pub(super) fn json_schema<T: JsonSchema>(defaults: &Value) -> Value {
    let mut settings =
        SchemaSettings::draft2020_12().with_transform(RecursiveTransform(without_null_default));
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    optional(&mut schema);
    for (name, section) in properties(&mut schema) {
        optional(section);
        for (option, described) in properties(section) {
            let default = defaults.get(name).and_then(|section| section.get(option));
            with_default(described, default);
        }
    }
    schema
}

/// Adds a default to the description of its option; if that is a mapping of options, to the description of each.
fn with_default(described: &mut Value, default: Option<&Value>) {
    let Some(default) = default else { return };
    if default.is_object() && described.get("properties").is_some() {
        optional(described);
        for (option, described) in properties(described) {
            with_default(described, default.get(option));
        }
    } else if let Some(described) = described.as_object_mut() {
        described.insert("default".to_owned(), default.clone());
    }
}

/// A required option has no default, though its raw form is optional so that all missing ones are reported together.
fn without_null_default(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

fn optional(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.shift_remove("required");
    }
}

fn properties(schema: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
}
