//! `clients[].sources`: a list of source names, or a mapping of source names to restrictions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::read::nearest;
use crate::config::validation::ValidationErrors;
use crate::domain::id::SourceName;
use crate::domain::principal::Scope;
use crate::domain::upstream::{Profile, Upstream, names_of};

/// The configured sources by name, each with its upstream as far as that could be read.
pub(crate) type KnownSources = BTreeMap<String, Option<Upstream>>;

/// The most kinds of one source.
const KINDS_MAX: usize = 100;
/// The longest kind, in bytes.
const KIND_MAX: usize = 100;
/// The most labels of one source, and the longest name or value, in bytes: what a tracked job can carry.
const LABELS_MAX: usize = 16;
const LABEL_MAX: usize = 63;

/// What a client may read.
pub(super) enum RawGrant {
    Whole(Vec<String>),
    Narrowed(BTreeMap<String, Option<RawScope>>),
}

/// Restrictions of a client on one source; all of them apply. Null or an empty mapping: no restriction.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Scope")]
pub(super) struct RawScope {
    /// Only jobs of these kinds, exactly as the upstream spells them; not for an upstream whose jobs have no kind, such as
    /// Supermetrics. If omitted: jobs of every kind.
    #[schemars(with = "Vec<String>", length(min = 1))]
    kinds: Option<Vec<String>>,
    /// Only tracked jobs that have all of these labels. If omitted: jobs with and without labels.
    #[schemars(with = "BTreeMap<String, String>", extend("minProperties" = 1))]
    labels: Option<BTreeMap<String, String>>,
}

impl RawGrant {
    /// Checks the grant at `path`.
    pub(super) fn accept(
        self,
        path: &str,
        known: &KnownSources,
        faults: &mut ValidationErrors,
    ) -> BTreeMap<SourceName, Scope> {
        let mut grant = BTreeMap::new();
        match self {
            Self::Whole(names) => {
                for (index, name) in names.into_iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    if is_known(&name, path, known, faults) {
                        grant.extend(SourceName::parse(&name).ok().map(|name| (name, Scope::default())));
                    }
                }
            }
            Self::Narrowed(scopes) => {
                for (name, scope) in scopes {
                    let path = format!("{path}.{name}");
                    if !is_known(&name, path.clone(), known, faults) {
                        continue;
                    }
                    let upstream = known.get(&name).copied().flatten();
                    let scope = scope.unwrap_or_default().accept(&path, upstream, faults);
                    grant.extend(SourceName::parse(&name).ok().map(|name| (name, scope)));
                }
            }
        }
        grant
    }
}

fn is_known(name: &str, path: String, known: &KnownSources, faults: &mut ValidationErrors) -> bool {
    if !known.contains_key(name) {
        let message = match nearest(name, known.keys().map(String::as_str)) {
            Some(nearest) => format!("names a source that is not configured; did you mean {nearest}?"),
            None => "names a source that is not configured".to_owned(),
        };
        faults.add(path, message);
    }
    known.contains_key(name)
}

impl RawScope {
    /// An empty list is refused: it reads as "no job", while an empty scope means "every job".
    fn accept(self, path: &str, upstream: Option<Upstream>, faults: &mut ValidationErrors) -> Scope {
        if let Some(kinds) = &self.kinds {
            let path = format!("{path}.kinds");
            let fits = |kind: &String| is_word(kind, KIND_MAX);
            if let Some(Profile { name, .. }) = upstream.map(Upstream::profile).filter(|one| !one.has_kinds) {
                let others = names_of("and", |profile| profile.has_kinds);
                let rule =
                    format!("is supported for {others} only, because {name} jobs have no kind: use labels");
                faults.add(path, rule);
            } else if kinds.is_empty() {
                faults.add(path, "is empty: list kinds, or omit it for jobs of every kind");
            } else if kinds.len() > KINDS_MAX || !kinds.iter().all(fits) {
                let rule = format!(
                    "must be at most {KINDS_MAX} strings of 1 to {KIND_MAX} bytes without control characters"
                );
                faults.add(path, rule);
            }
        }
        if let Some(labels) = &self.labels {
            let path = format!("{path}.labels");
            let fits =
                |(name, value): (&String, &String)| is_word(name, LABEL_MAX) && is_word(value, LABEL_MAX);
            if labels.is_empty() {
                faults.add(path, "is empty: list labels, or omit it for jobs with and without labels");
            } else if labels.len() > LABELS_MAX || !labels.iter().all(fits) {
                let rule = format!(
                    "must be at most {LABELS_MAX} labels, each name and value of 1 to {LABEL_MAX} bytes without control characters"
                );
                faults.add(path, rule);
            }
        }
        let kinds: BTreeSet<String> = self.kinds.unwrap_or_default().into_iter().collect();
        Scope { kinds, labels: self.labels.unwrap_or_default() }
    }
}

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl<'de> Deserialize<'de> for RawGrant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawGrant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of source names, or a mapping of source names to restrictions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RawGrant, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(RawGrant::Whole)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawGrant, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(RawGrant::Narrowed)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for RawGrant {
    fn schema_name() -> Cow<'static, str> {
        "Grant".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let scope = generator.subschema_for::<RawScope>();
        json_schema!({ "anyOf": [
            { "type": "array", "minItems": 1, "items": { "type": "string" } },
            { "type": "object", "minProperties": 1,
              "additionalProperties": { "anyOf": [scope, { "type": "null" }] } }
        ] })
    }
}

/// A scope in the form of the file.
#[derive(Serialize)]
struct WrittenGrant<'a> {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    kinds: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

/// Writes a grant in its shortest form.
pub(super) fn as_written<S: Serializer>(
    grant: &BTreeMap<SourceName, Scope>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if grant.values().all(Scope::is_whole) {
        return serializer.collect_seq(grant.keys().map(SourceName::as_str));
    }
    let mut map = serializer.serialize_map(Some(grant.len()))?;
    for (name, Scope { kinds, labels }) in grant {
        map.serialize_entry(name.as_str(), &WrittenGrant { kinds, labels })?;
    }
    map.end()
}
