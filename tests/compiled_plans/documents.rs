//! Random valid documents of the schema, with their operations and the variables of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use async_graphql::parser::types::Type;
use fastrand::Rng;
use serde_json::{Map, Value};

use super::types::{OutputFieldType, SchemaTypes};
use super::values::{InputValue, References, Values};

/// A document.
pub(super) struct GeneratedDocument {
    pub(super) text: String,
    pub(super) operations: Vec<GeneratedOperation>,
}

/// An operation, with the variables that it declares.
pub(super) struct GeneratedOperation {
    pub(super) name: Option<String>,
    variables: Vec<(String, Variable)>,
}

#[derive(Clone)]
struct Variable {
    ty: Type,
    /// The name of the argument or input field that it is for.
    position: String,
    default: Option<InputValue>,
    /// Whether null can be used where it is.
    null_fits: bool,
}

/// What a selection uses.
#[derive(Clone, Default)]
struct Uses {
    variables: BTreeSet<String>,
    fragments: BTreeSet<usize>,
}

struct Fragment {
    on: String,
    body: String,
    uses: Uses,
}

/// A document that is being generated.
struct Draft<'a> {
    values: Values<'a>,
    /// The field and the arguments of each response key: the same everywhere, so that all selections can be merged.
    keys: BTreeMap<String, (String, String, Uses)>,
    fragments: Vec<Fragment>,
    variables: BTreeMap<String, Variable>,
    /// How many more selections it may have.
    left: usize,
}

/// Generates a document of at most about `size` selections.
pub(super) fn generate(
    rng: &mut Rng,
    types: &SchemaTypes,
    references: &References,
    size: usize,
) -> GeneratedDocument {
    let mut draft = Draft {
        values: Values { types, references },
        keys: BTreeMap::new(),
        fragments: Vec::new(),
        variables: BTreeMap::new(),
        left: size,
    };
    let count = if rng.u8(..5) == 0 { rng.usize(2..=3) } else { 1 };
    let mut operations = Vec::new();
    for index in 0..count {
        draft.left = draft.left.max(size / 2);
        let mut uses = Uses::default();
        let set = draft.set(rng, "Query", 0, &mut uses);
        let name = (count > 1 || rng.bool()).then(|| format!("Operation{index}"));
        operations.push((name, set, uses));
    }
    let mut parts = Vec::new();
    let mut generated = Vec::new();
    for (name, set, uses) in operations {
        let mut used = uses.variables;
        let mut pending: Vec<usize> = uses.fragments.into_iter().collect();
        while let Some(index) = pending.pop() {
            used.extend(draft.fragments[index].uses.variables.iter().cloned());
            pending.extend(draft.fragments[index].uses.fragments.iter().copied());
        }
        let variables: Vec<(String, Variable)> =
            used.into_iter().map(|name| (name.clone(), draft.variables[&name].clone())).collect();
        let declared: Vec<String> = variables
            .iter()
            .map(|(name, variable)| match &variable.default {
                Some(default) => format!("${name}: {} = {default}", variable.ty),
                None => format!("${name}: {}", variable.ty),
            })
            .collect();
        let declared = if declared.is_empty() { String::new() } else { format!("({})", declared.join(", ")) };
        let head = match &name {
            None if declared.is_empty() => String::new(),
            Some(name) => format!("query {name}{declared} "),
            None => format!("query{declared} "),
        };
        parts.push(format!("{head}{set}"));
        generated.push(GeneratedOperation { name, variables });
    }
    for (index, Fragment { on, body, .. }) in draft.fragments.iter().enumerate() {
        parts.push(format!("fragment F{index} on {on} {body}"));
    }
    rng.shuffle(&mut parts);
    GeneratedDocument { text: parts.join("\n"), operations: generated }
}

impl GeneratedOperation {
    /// Values of the variables; some are omitted.
    pub(super) fn variables(&self, rng: &mut Rng, types: &SchemaTypes, references: &References) -> Value {
        let values = Values { types, references };
        let mut given = Map::new();
        for (name, Variable { ty, position, default, null_fits }) in &self.variables {
            let is_optional = default.is_some() || ty.nullable;
            if is_optional && rng.u8(..3) == 0 {
                continue;
            }
            let of =
                Type { base: ty.base.clone(), nullable: ty.nullable && (*null_fits || rng.u8(..60) == 0) };
            given.insert(name.clone(), values.constant(rng, &of, position).to_json());
        }
        if rng.u8(..20) == 0 {
            given.insert("undeclared".to_owned(), Value::from(1));
        }
        Value::Object(given)
    }
}

impl Draft<'_> {
    /// A selection set on a type.
    fn set(&mut self, rng: &mut Rng, on: &str, depth: usize, uses: &mut Uses) -> String {
        let mut text = "{".to_owned();
        for _ in 0..rng.usize(1..=5) {
            let item = self.item(rng, on, depth, uses);
            text.push_str(space(rng));
            text.push_str(&item);
            if self.left == 0 {
                break;
            }
        }
        text.push_str(space(rng));
        text.push('}');
        text
    }

    fn item(&mut self, rng: &mut Rng, on: &str, depth: usize, uses: &mut Uses) -> String {
        self.left = self.left.saturating_sub(1);
        let has_fields = self.values.types.composite(on).is_some_and(|of| !of.fields.is_empty());
        let chance = rng.u8(..100);
        if self.left == 0 || depth > 7 || chance < 8 {
            return self.field(rng, "__typename", None, "", uses);
        }
        let fields_below = if has_fields { 66 } else { 0 };
        if chance < fields_below {
            self.any_field(rng, on, depth, uses)
        } else {
            self.fragment(rng, on, depth, uses)
        }
    }

    fn any_field(&mut self, rng: &mut Rng, on: &str, depth: usize, uses: &mut Uses) -> String {
        let types = self.values.types;
        if on == "Query" && rng.u8(..60) == 0 {
            let introspection = ["__schema { queryType { name } }", "__type(name: \"Job\") { kind name }"];
            return introspection[rng.usize(..2)].to_owned();
        }
        let fields = &types.composite(on).unwrap().fields;
        let mut field = &fields[rng.usize(..fields.len())];
        if field.name == "rows" && rng.u8(..8) > 0 {
            field = &fields[0];
        }
        let field = field.clone();
        // again a field that is selected elsewhere, with its arguments
        let known: Vec<_> = self.keys.iter().filter(|(_, (name, ..))| *name == field.name).collect();
        let again = (!known.is_empty() && (rng.u8(..4) == 0 || known.len() > 6))
            .then(|| known[rng.usize(..known.len())])
            .map(|(key, (_, arguments, used))| (key.clone(), arguments.clone(), used.clone()));
        let (key, arguments) = if let Some((key, arguments, used)) = again {
            uses.variables.extend(used.variables);
            (key, arguments)
        } else {
            let mut used = Uses::default();
            let arguments = self.arguments(rng, &field, &mut used);
            uses.variables.extend(used.variables.iter().cloned());
            (self.key(rng, &field.name, &arguments, used), arguments)
        };
        let below = match types.composite(&field.of) {
            Some(_) => format!(" {}", self.set(rng, &field.of, depth + 1, uses)),
            None => String::new(),
        };
        self.field(rng, &field.name, Some(&key), &format!("{arguments}\u{0}{below}"), uses)
    }

    /// A response key for a field with these arguments: its name, the name of another field, or an alias.
    fn key(&mut self, rng: &mut Rng, name: &str, arguments: &str, uses: Uses) -> String {
        let alias = match rng.u8(..12) {
            0 => "id".to_owned(),
            1 => "state".to_owned(),
            2 => format!("alias{}", rng.u8(..4)),
            _ => name.to_owned(),
        };
        let fits = |key: &str| {
            self.keys.get(key).is_none_or(|(known, given, _)| known == name && given == arguments)
        };
        let key = if fits(&alias) { alias } else { format!("alias{}", self.keys.len() + 10) };
        self.keys.insert(key.clone(), (name.to_owned(), arguments.to_owned(), uses));
        key
    }

    /// A field: `rest` is its arguments, a NUL, and its selection set.
    fn field(&mut self, rng: &mut Rng, name: &str, key: Option<&str>, rest: &str, uses: &mut Uses) -> String {
        let alias = key.filter(|key| *key != name).map(|key| format!("{key}: ")).unwrap_or_default();
        let (arguments, below) = rest.split_once('\u{0}').unwrap_or_default();
        // the engine does not see a variable that only a directive of `__typename` uses
        let directives = if name == "__typename" { String::new() } else { self.directives(rng, uses) };
        format!("{alias}{name}{arguments}{directives}{below}")
    }

    fn fragment(&mut self, rng: &mut Rng, on: &str, depth: usize, uses: &mut Uses) -> String {
        let types = self.values.types;
        if rng.u8(..6) == 0 {
            let directives = self.directives(rng, uses);
            return format!("...{directives} {}", self.set(rng, on, depth + 1, uses));
        }
        let is_named = rng.u8(..3) == 0;
        if is_named && rng.u8(..3) > 0 {
            let fitting: Vec<usize> = (0..self.fragments.len())
                .filter(|&index| types.can_spread(on, &self.fragments[index].on))
                .collect();
            if !fitting.is_empty() {
                let index = fitting[rng.usize(..fitting.len())];
                uses.fragments.insert(index);
                return format!("...F{index}{}", self.directives(rng, uses));
            }
        }
        let conditions = types.conditions(on);
        let condition = conditions[rng.usize(..conditions.len())].to_owned();
        if is_named {
            let mut used = Uses::default();
            let body = self.set(rng, &condition, depth + 1, &mut used);
            // complete only now, so that no fragment contains itself
            self.fragments.push(Fragment { on: condition, body, uses: used });
            let index = self.fragments.len() - 1;
            uses.fragments.insert(index);
            return format!("...F{index}{}", self.directives(rng, uses));
        }
        let directives = self.directives(rng, uses);
        format!("... on {condition}{directives} {}", self.set(rng, &condition, depth + 1, uses))
    }

    fn directives(&mut self, rng: &mut Rng, uses: &mut Uses) -> String {
        let mut text = String::new();
        for name in ["skip", "include"] {
            if rng.u8(..20) > 0 {
                continue;
            }
            let boolean = Type::new("Boolean!").unwrap();
            let value = match self.variable(rng, &boolean, "if", true, false) {
                Some(name) => {
                    uses.variables.insert(name.clone());
                    InputValue::Variable(name)
                }
                None => InputValue::Scalar(Value::from((rng.u8(..4) == 0) == (name == "skip"))),
            };
            write!(text, " @{name}(if: {value})").unwrap();
        }
        text
    }

    fn arguments(&mut self, rng: &mut Rng, field: &OutputFieldType, uses: &mut Uses) -> String {
        let mut given = Vec::new();
        for argument in &field.arguments {
            let is_optional = argument.ty.nullable || (argument.has_default && argument.name != "timeout");
            if is_optional && rng.bool() {
                continue;
            }
            let values = Values { types: self.values.types, references: self.values.references };
            let value = values.value(rng, &argument.ty, &argument.name, &mut |rng, ty, name, strict| {
                let always = ty.base.to_string() == "Boolean";
                let variable = self.variable(rng, ty, name, always, strict);
                uses.variables.extend(variable.clone());
                variable
            });
            given.push(format!("{}: {value}", argument.name));
        }
        rng.shuffle(&mut given);
        if given.is_empty() { String::new() } else { format!("({})", given.join(", ")) }
    }

    /// A variable for a position, or none for a literal. `strict`: its own type must not be nullable.
    fn variable(
        &mut self,
        rng: &mut Rng,
        ty: &Type,
        position: &str,
        often: bool,
        strict: bool,
    ) -> Option<String> {
        if rng.u8(..10) >= if often { 6 } else { 2 } {
            return None;
        }
        let fits = |variable: &Variable| variable.position == position && variable.ty == *ty;
        let known: Vec<&String> =
            self.variables.iter().filter(|(_, variable)| fits(variable)).map(|(name, _)| name).collect();
        if !known.is_empty() && rng.u8(..3) == 0 {
            return Some(known[rng.usize(..known.len())].clone());
        }
        // the engine ignores the default of a variable in a directive
        let has_default = position != "if" && rng.u8(..3) == 0;
        // a nullable type with a default can be used where null cannot; a required one everywhere
        let nullable = match (ty.nullable, strict) {
            (_, true) => false,
            (true, false) => rng.u8(..4) > 0,
            (false, false) => has_default && position != "timeout" && rng.bool(),
        };
        let own = Type { base: ty.base.clone(), nullable };
        let required = Type { base: ty.base.clone(), nullable: nullable && ty.nullable };
        let default = has_default.then(|| self.values.constant(rng, &required, position));
        let name = format!("v{}", self.variables.len());
        let variable = Variable { ty: own, position: position.to_owned(), default, null_fits: ty.nullable };
        self.variables.insert(name.clone(), variable);
        Some(name)
    }
}

/// Space between two selections, so that each has another position.
fn space(rng: &mut Rng) -> &'static str {
    match rng.u8(..12) {
        0 => "\n    ",
        1 => ", ",
        2 => " # a comment {\n",
        _ => " ",
    }
}
