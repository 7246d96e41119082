//! The committed schema matches the code, and every element has a description.

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
use jobgate::inbound::graphql::schema::sdl;

/// Update the file with `cargo run -- schema > schema/schema.graphql`.
#[test]
fn the_committed_schema_matches_the_code() {
    let committed = include_str!("../schema/schema.graphql");
    assert!(committed == sdl(), "schema/schema.graphql is out of date");
}

#[test]
fn every_type_field_argument_and_value_is_described() {
    let document = parse_schema(sdl()).unwrap();
    let mut bare = Vec::new();
    let mut note = |described: bool, name: String| {
        if !described {
            bare.push(name);
        }
    };
    for definition in &document.definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let definition = &definition.node;
        let name = definition.name.node.as_str();
        note(definition.description.is_some(), name.to_owned());
        let fields = match &definition.kind {
            TypeKind::Object(object) => object.fields.as_slice(),
            TypeKind::Interface(interface) => interface.fields.as_slice(),
            TypeKind::Enum(choice) => {
                for value in &choice.values {
                    note(value.node.description.is_some(), format!("{name}.{}", value.node.value.node));
                }
                &[]
            }
            TypeKind::InputObject(input) => {
                for field in &input.fields {
                    note(field.node.description.is_some(), format!("{name}.{}", field.node.name.node));
                }
                &[]
            }
            TypeKind::Scalar | TypeKind::Union(_) => &[],
        };
        for field in fields {
            let field = &field.node;
            let field_name = format!("{name}.{}", field.name.node);
            note(field.description.is_some(), field_name.clone());
            for argument in &field.arguments {
                note(
                    argument.node.description.is_some(),
                    format!("{field_name}({})", argument.node.name.node),
                );
            }
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}
