//! The one description of an output type: the name and the cost of each field, and how it is written. The same macro
//! defines the engine's resolvers, so that engine and plan have the same fields.

use std::borrow::Cow;

use super::rendered::{ObservedJob, RenderedJob};
use super::selection::{ObjectSelection, SelectedField, SelectedValue, Selection};
use super::writer::{AnswerWriter, WriteJson, WritePosition};
use crate::inbound::graphql::document::limits::field_cost::FieldCost;

/// Writes a field of a value.
pub(in crate::inbound::graphql) type FieldWriter<T> = fn(&T, &SelectedField, &mut AnswerWriter<'_>);

/// A field of an object type.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct ObjectField<T> {
    /// Its name in Rust; see [`graphql_name`].
    pub(in crate::inbound::graphql) name: &'static str,
    pub(in crate::inbound::graphql) cost: FieldCost,
    /// Writes it; `None` if only the engine can.
    pub(in crate::inbound::graphql) write: Option<FieldWriter<T>>,
    /// Whether it depends on more than the observation of a job: on the time, or on the client.
    pub(in crate::inbound::graphql) is_live: bool,
}

/// An object type of the schema.
pub(in crate::inbound::graphql) trait OutputObject: Sized + 'static {
    /// Its name in the schema.
    const NAME: &'static str;
    /// All of its fields.
    const FIELDS: &'static [ObjectField<Self>];

    /// The observation of a job, on which all fields depend that are not live.
    fn observed(&self) -> Option<ObservedJob<'_>> {
        None
    }
}

/// The description of an object type, without the Rust type.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) struct ObjectDescription {
    pub(in crate::inbound::graphql) name: &'static str,
    pub(in crate::inbound::graphql) fields: Vec<FieldDescription>,
}

/// The description of a field.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) struct FieldDescription {
    /// Its name in the schema.
    pub(in crate::inbound::graphql) name: Cow<'static, str>,
    pub(in crate::inbound::graphql) cost: FieldCost,
    /// Whether a plan can write it.
    pub(in crate::inbound::graphql) is_written: bool,
}

impl ObjectDescription {
    /// The description of a type.
    pub(in crate::inbound::graphql) fn of<T: OutputObject>() -> Self {
        let fields = T::FIELDS.iter().map(|field| FieldDescription {
            name: graphql_name(field.name),
            cost: field.cost,
            is_written: field.write.is_some(),
        });
        Self { name: T::NAME, fields: fields.collect() }
    }
}

impl<T: OutputObject> WriteJson for T {
    /// Writes the selected fields of the object.
    fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
        if out.is_full() {
            return;
        }
        let Some(selected) = of.below.of(T::NAME) else { return out.raw("{}") };
        match self.observed() {
            Some(observed) => write_observed(self, observed, selected, out),
            None => write_fields(self, selected, out, |_, _, _| {}),
        }
    }
}

/// Writes the selected fields of a job: those that are not live as the selection made them before.
fn write_observed<T: OutputObject>(
    value: &T,
    observed: ObservedJob<'_>,
    selected: &ObjectSelection,
    out: &mut AnswerWriter<'_>,
) {
    let rendered = out.rendered();
    let Some(kept) = rendered.get(selected.id, observed) else {
        let mut recorder = out.record();
        write_fields(value, selected, out, |out, index, began| recorder.live(out, index, began));
        if let Some((json, live, texts)) = recorder.finish(out) {
            rendered.keep(RenderedJob::new(selected.id, observed, json, live, texts));
        }
        return;
    };
    let mut from = 0;
    for live in &kept.live {
        out.raw(kept.json.get(from..live.at).unwrap_or_default());
        if let Some(field) = selected.fields.get(live.index) {
            write_field(value, field, out);
        }
        from = live.at;
    }
    out.raw(kept.json.get(from..).unwrap_or_default());
    out.count_texts(kept.texts);
}

/// Writes the selected fields of an object, and calls `after_live` after each live one with its index and its start.
fn write_fields<T: OutputObject>(
    value: &T,
    selected: &ObjectSelection,
    out: &mut AnswerWriter<'_>,
    mut after_live: impl FnMut(&AnswerWriter<'_>, usize, WritePosition),
) {
    for (index, field) in selected.fields.iter().enumerate() {
        out.raw(&field.prefix);
        let began = out.position();
        write_field(value, field, out);
        let is_live = match field.value {
            SelectedValue::TypeName => false,
            SelectedValue::Field(of) => T::FIELDS.get(of).is_some_and(|field| field.is_live),
        };
        if is_live {
            after_live(out, index, began);
        }
    }
    out.raw("}");
}

fn write_field<T: OutputObject>(value: &T, field: &SelectedField, out: &mut AnswerWriter<'_>) {
    match field.value {
        SelectedValue::TypeName => out.quoted_text(T::NAME),
        SelectedValue::Field(index) => match T::FIELDS.get(index).and_then(|field| field.write) {
            Some(write) => write(value, field, out),
            None => out.leave_to_engine(),
        },
    }
}

/// Whether a field of an object type is selected, by its name in Rust.
pub(super) fn selects<T: OutputObject>(selection: &Selection, name: &str) -> bool {
    let is_it = |field: &SelectedField| match field.value {
        SelectedValue::TypeName => false,
        SelectedValue::Field(index) => T::FIELDS.get(index).is_some_and(|field| field.name == name),
    };
    selection.of(T::NAME).is_some_and(|selected| selected.fields.iter().any(is_it))
}

/// Whether nothing but the fields of an object type `B` is selected from an `A`, of which these are the first fields.
pub(in crate::inbound::graphql) fn selects_only<A: OutputObject, B: OutputObject>(
    selection: &Selection,
) -> bool {
    let is_first = |field: &SelectedField| match field.value {
        SelectedValue::TypeName => true,
        SelectedValue::Field(index) => index < B::FIELDS.len(),
    };
    selection.of(A::NAME).is_none_or(|selected| selected.fields.iter().all(is_first))
}

/// The name of a field in the schema: camel case, as the engine derives it.
pub(in crate::inbound::graphql) fn graphql_name(name: &'static str) -> Cow<'static, str> {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default();
    let rest = words.flat_map(|word| {
        let mut chars = word.chars();
        chars.next().map(|initial| initial.to_ascii_uppercase()).into_iter().chain(chars)
    });
    if name.contains('_') { Cow::Owned(first.chars().chain(rest).collect()) } else { Cow::Borrowed(name) }
}

/// Defines an object type by its struct. Each field states its cost, which is a variant of [`FieldCost`], before its
/// name, and its name in the schema where the engine would derive another.
macro_rules! output_object {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident = $graphql:literal {
            $(
                $(#[$field_meta:meta])*
                $cost:ident $(($length:expr))? $field:ident $(as $renamed:literal)? : $ty:ty
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(async_graphql::SimpleObject)]
        #[graphql(name = $graphql)]
        $vis struct $name {
            $(
                $(#[$field_meta])*
                $(#[graphql(name = $renamed)])?
                pub $field: $ty,
            )*
        }

        impl $crate::inbound::graphql::plan::output::OutputObject for $name {
            const NAME: &'static str = $graphql;
            const FIELDS: &'static [$crate::inbound::graphql::plan::output::ObjectField<Self>] = &[
                $($crate::inbound::graphql::plan::output::ObjectField {
                    name: $crate::inbound::graphql::plan::output::output_object!(@name $field $($renamed)?),
                    cost: $crate::inbound::graphql::document::limits::field_cost::FieldCost::$cost $(($length))?,
                    write: Some(|this, field, out| {
                        $crate::inbound::graphql::plan::writer::WriteJson::write(&this.$field, field, out);
                    }),
                    is_live: false,
                },)*
            ];
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $renamed:literal) => { $renamed };
}
pub(in crate::inbound::graphql) use output_object;

/// Writes the values of an enum by the names that the engine uses.
macro_rules! output_enum {
    ($($name:ident),* $(,)?) => {
        $(impl $crate::inbound::graphql::plan::writer::WriteJson for $name {
            fn write(
                &self,
                _: &$crate::inbound::graphql::plan::selection::SelectedField,
                out: &mut $crate::inbound::graphql::plan::writer::AnswerWriter<'_>,
            ) {
                let mut items = <Self as async_graphql::resolver_utils::EnumType>::items().iter();
                match items.find(|item| item.value == *self) {
                    Some(item) => out.quoted_text(item.name),
                    None => out.leave_to_engine(),
                }
            }
        })*
    };
}
pub(in crate::inbound::graphql) use output_enum;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_camel_case() {
        for (name, expected) in
            [("id", "id"), ("is_terminal", "isTerminal"), ("retry_after_ms", "retryAfterMs")]
        {
            assert_eq!(graphql_name(name), expected);
        }
    }
}
