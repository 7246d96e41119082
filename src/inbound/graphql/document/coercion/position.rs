//! Validates that every value in the document fits its argument, and every variable its position (GraphQL, "All
//! Variable Usages Are Allowed" and "Values of Correct Type"), before anything executes. The engine finds most of these
//! errors only when it calls the resolver, after earlier mutations have run (async-graphql 8.0.0-rc.5).

use async_graphql::parser::types::{
    BaseType, Directive, ExecutableDocument, Field as Selected, OperationDefinition, Selection, SelectionSet,
    Type, VariableDefinition,
};
use async_graphql::{Name, Pos, Positioned, Value as Constant, Variables};
use async_graphql_value::Value;

use super::input::{InputField, InputType};
use super::input_types::InputTypes;
use super::path::ValuePath;
use super::value::{MAX_DEPTH, NAME_CHARS, article};
use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// What is wrong with a value, and whether the document or the variables must change.
struct PositionError {
    kind: RefusalKind,
    message: String,
}

impl InputTypes {
    /// Checks the arguments of every operation without variables, whichever of them a request selects: so once for each
    /// text. For an operation with variables, all arguments are checked with each request.
    ///
    /// # Errors
    /// Returns the first that does not fit.
    pub(in crate::inbound::graphql) fn check_constant(
        &self,
        document: &ExecutableDocument,
    ) -> Result<(), HttpRefusal> {
        let operations = document.operations.iter().map(|(_, operation)| &operation.node);
        let mut constant = operations.filter(|operation| operation.variable_definitions.is_empty());
        constant.try_for_each(|operation| self.check_positions(document, operation, &Variables::default()))
    }

    /// Checks the arguments of an operation and its fragments; its variables are checked before, by [`Self::check`].
    /// Bounded by the walk that has checked the document. Names that the schema does not contain are left to
    /// validation.
    ///
    /// # Errors
    /// Returns the first that does not fit. The message contains the position and its type, and no value.
    pub(in crate::inbound::graphql) fn check_positions(
        &self,
        document: &ExecutableDocument,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Result<(), HttpRefusal> {
        let walk = PositionWalk { types: self, document, operation, variables };
        walk.directives(&operation.directives)?;
        walk.set(&operation.selection_set.node, self.outputs.root(operation.ty))
    }
}

/// The type of a position.
#[derive(Clone, Copy)]
struct ExpectedType<'a> {
    of: &'a Type,
    /// Whether the schema has a default for it.
    has_default: bool,
}

impl<'a> ExpectedType<'a> {
    const fn of(of: &'a Type) -> Self {
        Self { of, has_default: false }
    }
}

struct PositionWalk<'a> {
    types: &'a InputTypes,
    document: &'a ExecutableDocument,
    operation: &'a OperationDefinition,
    variables: &'a Variables,
}

impl PositionWalk<'_> {
    fn set(&self, set: &SelectionSet, parent: Option<&Name>) -> Result<(), HttpRefusal> {
        for selection in &set.items {
            self.directives(selection.node.directives())?;
            match &selection.node {
                Selection::Field(field) => self.field(field, parent)?,
                Selection::InlineFragment(inline) => {
                    let condition =
                        inline.node.type_condition.as_ref().map(|condition| &condition.node.on.node);
                    self.set(&inline.node.selection_set.node, condition.or(parent))?;
                }
                Selection::FragmentSpread(spread) => {
                    let fragment = self.document.fragments.get(&spread.node.fragment_name.node);
                    let Some(fragment) = fragment.map(|fragment| &fragment.node) else { continue };
                    self.directives(&fragment.directives)?;
                    self.set(&fragment.selection_set.node, Some(&fragment.type_condition.node.on.node))?;
                }
            }
        }
        Ok(())
    }

    fn field(&self, field: &Positioned<Selected>, parent: Option<&Name>) -> Result<(), HttpRefusal> {
        let name = &field.node.name.node;
        let of = parent.and_then(|parent| self.types.outputs.get(parent));
        let Some(of) = of.and_then(|of| of.fields.get(name)) else {
            let hint =
                parent.and_then(|parent| Some((parent, self.types.outputs.fragment_for(parent, name)?)));
            let Some((parent, fragment)) = hint.filter(|_| name != "__typename") else {
                return self.set(&field.node.selection_set.node, None);
            };
            let message = format!(
                "{parent} is an abstract type and has no field \"{name}\"; select it in a fragment: \
                 ... on {fragment} {{ {name} }}"
            );
            return Err(HttpRefusal::new(RefusalKind::DocumentInvalid, message).at([field.pos]));
        };
        self.arguments(name, &field.node.arguments, &of.arguments)?;
        self.set(&field.node.selection_set.node, Some(of.innermost()))
    }

    fn directives(&self, directives: &[Positioned<Directive>]) -> Result<(), HttpRefusal> {
        for directive in directives {
            let name = &directive.node.name.node;
            if let Some(taken) = self.types.outputs.directive(name) {
                self.arguments(&format!("@{name}"), &directive.node.arguments, taken)?;
            }
        }
        Ok(())
    }

    fn arguments(
        &self,
        of: &str,
        given: &[(Positioned<Name>, Positioned<Value>)],
        taken: &[InputField],
    ) -> Result<(), HttpRefusal> {
        for (name, value) in given {
            let Some(argument) = taken.iter().find(|argument| argument.name == name.node) else { continue };
            let at = ValuePath::Argument(of, &name.node);
            let expected = ExpectedType { of: &argument.of, has_default: argument.has_default() };
            self.value(&value.node, expected, &at).map_err(|fault| fault.refusal(value.pos))?;
        }
        Ok(())
    }

    fn value(
        &self,
        value: &Value,
        expected: ExpectedType<'_>,
        at: &ValuePath<'_>,
    ) -> Result<(), PositionError> {
        let of = expected.of;
        if at.depth() > MAX_DEPTH {
            return Err(invalid(format!("{at} is nested deeper than {MAX_DEPTH} levels; nest less")));
        }
        match (value, &of.base) {
            (Value::Variable(name), _) => self.variable(name, expected, at),
            (Value::List(items), BaseType::List(item)) => {
                let mut items = items.iter().enumerate();
                items.try_for_each(|(index, value)| {
                    self.value(value, ExpectedType::of(item), &ValuePath::Item(at, index))
                })
            }
            // a single value is coerced to a list of itself
            (Value::Object(_), BaseType::List(item)) => self.value(value, ExpectedType::of(item), at),
            (Value::Object(given), BaseType::Named(name)) => match self.types.types.get(name) {
                Some(InputType::Object { fields, one_of }) => {
                    let given: Vec<_> = given.iter().collect();
                    self.object(&given, fields, *one_of, name, at)
                }
                // of an unknown form
                None | Some(InputType::Opaque) => Ok(()),
                Some(InputType::BuiltIn { .. } | InputType::Text(_) | InputType::Enum(_)) => {
                    Err(invalid(format!("{at} must be {}, not an object", article(name))))
                }
            },
            (Value::List(_), BaseType::Named(name)) => match self.types.types.get(name) {
                None | Some(InputType::Opaque) => Ok(()),
                Some(_) => Err(invalid(format!("{at} must be {}, not a list", article(name)))),
            },
            (value, _) => {
                let constant = value.clone().into_const().unwrap_or_default();
                self.types.coerces(&constant, of, at).map_err(invalid)
            }
        }
    }

    fn object(
        &self,
        given: &[(&Name, &Value)],
        fields: &[InputField],
        one_of: bool,
        name: &Name,
        at: &ValuePath<'_>,
    ) -> Result<(), PositionError> {
        let find = |wanted: &Name| given.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        if let Some((unknown, _)) =
            given.iter().find(|(key, _)| fields.iter().all(|field| field.name != **key))
        {
            let unknown: String = unknown.chars().take(NAME_CHARS).collect();
            return Err(invalid(format!(
                "{at} has a field {unknown:?}, which {name} does not have; remove it"
            )));
        }
        if one_of && given.len() != 1 {
            return Err(invalid(format!("{at} must have exactly one of the fields of {name}")));
        }
        for field in fields {
            let inside = ValuePath::Field(at, &field.name);
            match find(&field.name) {
                None if field.required => {
                    return Err(invalid(format!("{inside} is missing; it must be {}", article(&field.of))));
                }
                None => {}
                // the one field of such an object must have a value
                Some(value) if one_of => {
                    let of = Type { base: field.of.base.clone(), nullable: false };
                    self.value(value, ExpectedType::of(&of), &inside)?;
                }
                Some(value) => {
                    let expected = ExpectedType { of: &field.of, has_default: field.has_default() };
                    self.value(value, expected, &inside)?;
                }
            }
        }
        Ok(())
    }

    fn variable(
        &self,
        name: &Name,
        expected: ExpectedType<'_>,
        at: &ValuePath<'_>,
    ) -> Result<(), PositionError> {
        let of = expected.of;
        let mut declared = self.operation.variable_definitions.iter().map(|definition| &definition.node);
        // an undeclared one is left to validation
        let Some(declared) = declared.find(|declared| declared.name.node == *name) else { return Ok(()) };
        if !is_allowed(declared, expected) {
            let has = &declared.var_type.node;
            return Err(invalid(format!(
                "the variable \"${name}\" is of type \"{has}\", and {at} takes \"{of}\"; declare the variable as \"{of}\", or use \
                 another"
            )));
        }
        if of.nullable {
            return Ok(());
        }
        let fault = match self.variables.get(name) {
            // a default does not apply when null is given
            Some(Constant::Null) => format!("variables.{name} must not be null, because {at} takes \"{of}\""),
            // the engine applies the schema's default only for a field of an input object
            None if declared.default_value.is_none() && matches!(at, ValuePath::Argument(..)) => format!(
                "variables.{name} has no value, and {at} takes \"{of}\"; give the variable a value or a default, or leave out \
                 the argument"
            ),
            Some(_) | None => return Ok(()),
        };
        Err(PositionError { kind: RefusalKind::BadInput, message: fault })
    }
}

/// `IsVariableUsageAllowed` of the specification.
fn is_allowed(declared: &VariableDefinition, expected: ExpectedType<'_>) -> bool {
    let has = &declared.var_type.node;
    let default = declared.default_value.as_ref().map(|default| &default.node);
    let has_default = expected.has_default || default.is_some_and(|default| *default != Constant::Null);
    (expected.of.nullable || !has.nullable || has_default) && is_base_compatible(&has.base, &expected.of.base)
}

fn is_base_compatible(has: &BaseType, of: &BaseType) -> bool {
    match (has, of) {
        (BaseType::List(has), BaseType::List(of)) => {
            (of.nullable || !has.nullable) && is_base_compatible(&has.base, &of.base)
        }
        (BaseType::Named(has), BaseType::Named(of)) => has == of,
        (BaseType::List(_), BaseType::Named(_)) | (BaseType::Named(_), BaseType::List(_)) => false,
    }
}

const fn invalid(message: String) -> PositionError {
    PositionError { kind: RefusalKind::DocumentInvalid, message }
}

impl PositionError {
    fn refusal(self, at: Pos) -> HttpRefusal {
        HttpRefusal::new(self.kind, self.message).at([at])
    }
}
