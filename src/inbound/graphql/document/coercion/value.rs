//! Coerces one value to one type, by the "Input Coercion" of each kind of type in the GraphQL specification. Total:
//! defined for any value and any type. Errors use our own text and never quote a value.

use async_graphql::parser::types::{BaseType, Type};
use async_graphql::{Name, Value};

use super::input::{InputField, InputType};
use super::input_types::InputTypes;
use super::path::ValuePath;

/// The maximum nesting of a value. No input type of the schema contains itself, so none comes near.
pub(super) const MAX_DEPTH: usize = 64;

/// The longest name of an unknown field that a message repeats, in characters.
pub(super) const NAME_CHARS: usize = 64;

impl InputTypes {
    /// Checks that a value coerces to a type.
    ///
    /// # Errors
    /// Returns the position and its expected type.
    pub(super) fn coerces(&self, value: &Value, of: &Type, at: &ValuePath<'_>) -> Result<(), String> {
        if at.depth() > MAX_DEPTH {
            return Err(format!("{at} is nested deeper than {MAX_DEPTH} levels; nest less"));
        }
        match (&of.base, value) {
            (_, Value::Null) if of.nullable => Ok(()),
            (_, Value::Null) => Err(format!("{at} must not be null; it must be {}", article(of))),
            (BaseType::List(item), Value::List(values)) => {
                let mut values = values.iter().enumerate();
                values.try_for_each(|(index, value)| self.coerces(value, item, &ValuePath::Item(at, index)))
            }
            // a single value is coerced to a list of itself; the nesting of the type is bounded by the token limit
            (BaseType::List(item), value) => self.coerces(value, item, at),
            (BaseType::Named(name), value) => self.coerces_to_named(value, name, at),
        }
    }

    fn coerces_to_named(&self, value: &Value, name: &Name, at: &ValuePath<'_>) -> Result<(), String> {
        match self.types.get(name) {
            // not an input type: validation reports it
            None | Some(InputType::Opaque) => Ok(()),
            Some(InputType::BuiltIn { fits, .. }) if fits(value) => Ok(()),
            Some(InputType::BuiltIn { form, .. }) => Err(format!("{at} must be {}{form}", article(name))),
            Some(InputType::Text(read)) => {
                let Value::String(text) = value else {
                    return Err(format!("{at} must be {}, given as a string", article(name)));
                };
                read(text).map_err(|fault| format!("{at} {fault}"))
            }
            // JSON has no enums: the name is a string
            Some(InputType::Enum(names)) => {
                let known = matches!(value, Value::Enum(given) if names.contains(given))
                    || matches!(value, Value::String(given) if names.contains(given.as_str()));
                if known { Ok(()) } else { Err(format!("{at} must be one of the values of {name}")) }
            }
            Some(InputType::Object { fields, one_of }) => {
                let Value::Object(given) = value else {
                    return Err(format!("{at} must be {}, given as an object", article(name)));
                };
                if let Some(unknown) = given.keys().find(|key| fields.iter().all(|field| field.name != **key))
                {
                    let unknown: String = unknown.chars().take(NAME_CHARS).collect();
                    return Err(format!(
                        "{at} has a field {unknown:?}, which {name} does not have; remove it"
                    ));
                }
                if *one_of && given.len() != 1 {
                    return Err(format!("{at} must have exactly one of the fields of {name}"));
                }
                let mut fields = fields.iter();
                fields.try_for_each(|field| self.field(given.get(&field.name), field, *one_of, at))
            }
        }
    }

    fn field(
        &self,
        value: Option<&Value>,
        field: &InputField,
        one_of: bool,
        at: &ValuePath<'_>,
    ) -> Result<(), String> {
        let InputField { name, of, required } = field;
        let at = ValuePath::Field(at, name);
        match value {
            None if *required => Err(format!("{at} is missing; it must be {}", article(of))),
            None => Ok(()),
            Some(Value::Null) if one_of => {
                Err(format!("{at} must not be null, because it is the only field that is set"))
            }
            Some(value) => self.coerces(value, of, &at),
        }
    }
}

/// A type's name with an article: `an Int`, `a String!`.
pub(super) fn article(of: &impl ToString) -> String {
    let name = of.to_string();
    let article = if name.starts_with(['A', 'E', 'I', 'O', 'a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {name}")
}
