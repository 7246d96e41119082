//! The JSON Schema of the configuration file, generated from the types that read it, so that it cannot drift.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::RawConfig;

/// Builds the schema. `defaults` is the compiled-in file: what stands there need not stand in an operator's.
pub(super) fn json_schema(defaults: &Value) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<RawConfig>().to_value();
    optional(&mut schema);
    for (name, section) in properties(&mut schema) {
        optional(section);
        for (option, described) in properties(section) {
            let default = defaults.get(name).and_then(|section| section.get(option));
            if let (Some(default), Some(described)) = (default, described.as_object_mut()) {
                described.insert("default".to_owned(), default.clone());
            }
        }
    }
    schema
}

fn optional(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.shift_remove("required");
    }
}

fn properties(schema: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
}
