//! One async result at one time: its fields, for filters and for answers.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::progress::{LifePosition, standing};
use crate::world::SimWorld;
use crate::{MindBridgeJob, MindBridgeStep, SimUpstream, SimUserInfo};

/// A field that a filter may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Version,
    CreationDate,
    LastModifiedDate,
    Type,
    Status,
    EntityId,
    EntityType,
    Error,
    ErrorMessage,
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValue<'a> {
    Absent,
    Number(i64),
    Text(&'a str),
    Time(Timestamp),
}

impl Field {
    const ALL: [Self; 10] = [
        Self::Id,
        Self::Version,
        Self::CreationDate,
        Self::LastModifiedDate,
        Self::Type,
        Self::Status,
        Self::EntityId,
        Self::EntityType,
        Self::Error,
        Self::ErrorMessage,
    ];

    /// The field with this name on the wire.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Version => "version",
            Self::CreationDate => "creationDate",
            Self::LastModifiedDate => "lastModifiedDate",
            Self::Type => "type",
            Self::Status => "status",
            Self::EntityId => "entityId",
            Self::EntityType => "entityType",
            Self::Error => "error",
            Self::ErrorMessage => "errorMessage",
        }
    }
}

/// An async result as it is at some time.
pub(super) struct SimAsyncResult<'a> {
    id: String,
    job: &'a MindBridgeJob,
    /// The steps until then, at least one.
    lived: &'a [MindBridgeStep],
    current: &'a MindBridgeStep,
    created: Timestamp,
    modified: Timestamp,
}

impl<'a> SimAsyncResult<'a> {
    /// The job with this id and birth at a time; `None` when it does not exist then.
    pub(super) fn at(
        world: &SimWorld,
        job: &'a MindBridgeJob,
        id: String,
        born: Duration,
        at: Duration,
    ) -> Option<Self> {
        let LifePosition { step, entered, .. } = standing(born, None, None, &job.moments(), at)?;
        if job.gone_at.is_some_and(|gone_at| at >= born.saturating_add(gone_at)) {
            return None;
        }
        let lived = job.steps.get(..=step)?;
        let wall = |at| world.wall(SimUpstream::MindBridge, at);
        Some(Self { id, job, lived, current: lived.last()?, created: wall(born), modified: wall(entered) })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The value of a field.
    pub(super) fn field(&self, field: Field) -> FieldValue<'_> {
        let text = |value: Option<&'a str>| value.map_or(FieldValue::Absent, FieldValue::Text);
        match field {
            Field::Id => FieldValue::Text(&self.id),
            Field::Version => {
                let changes = i64::try_from(self.lived.len() - 1).unwrap_or(i64::MAX);
                FieldValue::Number(self.job.first_version.saturating_add(changes))
            }
            Field::CreationDate => FieldValue::Time(self.created),
            Field::LastModifiedDate => FieldValue::Time(self.modified),
            Field::Type => FieldValue::Text(&self.job.kind),
            Field::Status => FieldValue::Text(&self.current.status),
            Field::EntityId => {
                let latest = self.lived.iter().rev().find_map(|step| step.entity_id.as_deref());
                text(latest.or(self.job.entity_id.as_deref()))
            }
            Field::EntityType => text(self.job.entity_type.as_deref()),
            Field::Error => text(self.current.error.as_deref()),
            Field::ErrorMessage => text(self.current.error_message.as_deref()),
        }
    }

    /// The wire form, with the fields in the order of the vendor's description.
    pub(super) fn to_json(&self) -> Value {
        let changed_by = self.lived.iter().rev().find_map(|step| step.last_modified_by.as_ref());
        let changed_by = changed_by.or(self.job.last_modified_by.as_ref()).unwrap_or(&self.job.created_by);
        let mut document = Map::new();
        for field in Field::ALL {
            if field == Field::Type {
                document.insert("createdUserInfo".to_owned(), person(&self.job.created_by));
                document.insert("lastModifiedUserInfo".to_owned(), person(changed_by));
            }
            let value = match self.field(field) {
                FieldValue::Absent => continue,
                FieldValue::Number(number) => number.into(),
                FieldValue::Text(text) => text.into(),
                FieldValue::Time(time) => time.to_string().into(),
            };
            document.insert(field.as_str().to_owned(), value);
        }
        Value::Object(document)
    }
}

fn person(user: &SimUserInfo) -> Value {
    json!({"userId": user.user_id, "userName": user.user_name})
}
