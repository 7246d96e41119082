//! Faults of a simulated upstream, and the requests that get them.
//!
//! This file defines the faults; `listener` and `reply` play them.

use std::{collections::BTreeMap, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact as period;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Endpoint, SimUpstream};

/// A fault and the requests that get it. Of several that match, only the first active one is played.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimFault {
    /// The upstream with the fault.
    pub upstream: SimUpstream,
    /// Only requests to this endpoint; all when absent.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// Only requests for one of these ids; all when empty.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Skips this many matching requests first.
    #[serde(default)]
    pub skip: u32,
    /// Ends after this many requests; never when absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens.
    pub kind: FaultKind,
}

impl SimFault {
    /// A fault for every request of an upstream.
    pub const fn always(upstream: SimUpstream, kind: FaultKind) -> Self {
        Self { upstream, endpoint: None, ids: Vec::new(), skip: 0, times: None, kind }
    }

    /// A fault for the next `times` requests of an upstream.
    pub const fn next(upstream: SimUpstream, times: u32, kind: FaultKind) -> Self {
        Self { upstream, endpoint: None, ids: Vec::new(), skip: 0, times: Some(times), kind }
    }

    /// Restricts the fault to one endpoint.
    #[must_use]
    pub const fn on(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Restricts the fault to requests for one of these ids.
    #[must_use]
    pub fn for_ids(mut self, ids: &[&str]) -> Self {
        self.ids = ids.iter().map(|id| (*id).to_owned()).collect();
        self
    }

    /// Skips the first `skip` matching requests.
    #[must_use]
    pub const fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Whether a request gets this fault; uses up one of its `skip` and `times`.
    pub(super) fn meets(&mut self, upstream: SimUpstream, endpoint: Endpoint, ids: &[String]) -> bool {
        let fits = self.upstream == upstream
            && self.endpoint.is_none_or(|only| only == endpoint)
            && (self.ids.is_empty() || ids.iter().any(|id| self.ids.contains(id)))
            && self.times != Some(0);
        if !fits {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// Answers this to every request: any status, envelope and throttle.
    Answer(MadeUpAnswer),
    /// Answers 302 to this address.
    Redirect {
        /// The `Location`.
        to: String,
    },
    /// The true answer, cut in the middle, with a `Content-Length` that matches what is sent.
    MalformedJson,
    /// Announces the length of the true answer, sends half of it, and closes the connection.
    TruncatedBody,
    /// Reads the request and closes the connection without a byte.
    CloseBeforeHeaders,
    /// Waits before the true answer.
    SlowHeaders {
        /// How long.
        #[serde(with = "period::required")]
        delay: Duration,
    },
    /// Sends the true answer in small pieces with a pause before each.
    SlowBody {
        /// Bytes in a piece.
        chunk: usize,
        /// The pause.
        #[serde(with = "period::required")]
        every: Duration,
    },
    /// Sends this many blanks before the true answer, without a `Content-Length`: valid, only too large.
    OversizedBody {
        /// How many blanks.
        bytes: u64,
    },
    /// The same, gzip-encoded to about a 160th, whatever the `Accept-Encoding`.
    GzipBomb {
        /// How many blanks, decoded.
        bytes: u64,
    },
    /// The true answer, gzip-encoded with another name of the encoding, whatever the `Accept-Encoding`.
    GzipAs {
        /// The `Content-Encoding`.
        encoding: String,
    },
    /// The true answer with another HTTP status.
    Status {
        /// The status.
        status: u16,
    },
    /// The true answer, with a text replaced by bytes that no JSON value can contain.
    Splice(Splice),
    /// Repeats the client's credential: in an error body, or with 200 in a text field of the answer.
    EchoCredential {
        /// The HTTP status.
        status: u16,
    },
    /// The true answer, with fields set or removed.
    Edit(Edit),
    /// Omits these ids from the collection query's `content`, or from the query history.
    Omit {
        /// The ids.
        ids: Vec<String>,
    },
    /// Returns pages of this size, whatever was requested.
    PageSize {
        /// Jobs on a page, at least one.
        size: u32,
    },
    /// Delays the request until `Handle::release` (or `POST /_sim/release`), then answers truly.
    Hold,
}

impl FaultKind {
    /// The name used in scenario files and in the record.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::Redirect { .. } => "redirect",
            Self::MalformedJson => "malformed_json",
            Self::TruncatedBody => "truncated_body",
            Self::CloseBeforeHeaders => "close_before_headers",
            Self::SlowHeaders { .. } => "slow_headers",
            Self::SlowBody { .. } => "slow_body",
            Self::OversizedBody { .. } => "oversized_body",
            Self::GzipBomb { .. } => "gzip_bomb",
            Self::GzipAs { .. } => "gzip_as",
            Self::Status { .. } => "status",
            Self::Splice(_) => "splice",
            Self::EchoCredential { .. } => "echo_credential",
            Self::Edit(_) => "edit",
            Self::Omit { .. } => "omit",
            Self::PageSize { .. } => "page_size",
            Self::Hold => "hold",
        }
    }

    /// An answer with this status and body.
    pub fn answer(status: u16, body: MadeUpBody) -> Self {
        Self::Answer(MadeUpAnswer { status, body, ..MadeUpAnswer::default() })
    }

    /// 429 with problem details and this `retry_after`.
    pub fn throttled(retry_after: Option<RetryAfter>) -> Self {
        let body = MadeUpBody::Problem { code: None, detail: None };
        Self::Answer(MadeUpAnswer { status: 429, retry_after, body, ..MadeUpAnswer::default() })
    }

    /// 429 as `MindBridge`'s hourly limit sends it: `X-User-Hour-Limit-Remaining` contains the seconds left.
    pub fn hour_limit(seconds: u64) -> Self {
        let headers = BTreeMap::from([("x-user-hour-limit-remaining".to_owned(), seconds.to_string())]);
        Self::Answer(MadeUpAnswer { status: 429, headers, ..MadeUpAnswer::default() })
    }

    /// A proxy's HTML page with this status.
    pub fn html(status: u16) -> Self {
        Self::answer(status, MadeUpBody::Html)
    }

    /// The answer of an ingress without a route, with this status: a line of plain text.
    pub fn no_route(status: u16) -> Self {
        let text = format!("default backend - {status}");
        Self::answer(status, MadeUpBody::Text { content_type: "text/plain; charset=utf-8".to_owned(), text })
    }

    /// Supermetrics' own error envelope with this status, 200 included.
    pub fn envelope(status: u16, code: &str) -> Self {
        Self::answer(status, MadeUpBody::Envelope { code: code.to_owned(), message: None, description: None })
    }

    /// Problem details (RFC 9457, or `MindBridge`'s dialect of it) with this status.
    pub fn problem(status: u16, code: &str) -> Self {
        Self::answer(status, MadeUpBody::Problem { code: Some(code.to_owned()), detail: None })
    }

    /// The true answer with a text replaced by bytes; see [`Splice`].
    pub fn splice(find: &str, bytes: &[u8]) -> Self {
        Self::Splice(Splice { find: find.to_owned(), bytes: bytes.to_vec() })
    }

    /// The true answer with the field at a pointer set; see [`Edit`].
    pub fn set(pointer: &str, value: Value) -> Self {
        let set = Map::from_iter([(pointer.to_owned(), value)]);
        Self::Edit(Edit { set, remove: Vec::new() })
    }

    /// The true answer without the field at a pointer; see [`Edit`].
    pub fn remove(pointer: &str) -> Self {
        Self::Edit(Edit { set: Map::new(), remove: vec![pointer.to_owned()] })
    }
}

/// A complete custom answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeUpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The `Retry-After` header; none when absent.
    #[serde(default)]
    pub retry_after: Option<RetryAfter>,
    /// The body.
    #[serde(default)]
    pub body: MadeUpBody,
}

/// The forms of `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// Whole seconds.
    Seconds(u64),
    /// An HTTP-date this many seconds from now, on the simulator's wall clock.
    DateIn(u64),
    /// This text, valid or not.
    Text(String),
}

/// The body of a custom answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MadeUpBody {
    /// No bytes and no content type.
    #[default]
    Empty,
    /// A proxy's error page.
    Html,
    /// Problem details: RFC 9457 for Supermetrics, the RFC 7807 dialect for `MindBridge`.
    Problem {
        /// The `type`'s last part and `MindBridge`'s `problemType`; derived from the status when absent.
        #[serde(default)]
        code: Option<String>,
        /// The `detail` and `MindBridge`'s `reason`.
        #[serde(default)]
        detail: Option<String>,
    },
    /// `{"meta": …, "error": {code, message, description}}`.
    Envelope {
        /// The `error.code`.
        code: String,
        /// The `error.message`; repeats the code when absent.
        #[serde(default)]
        message: Option<String>,
        /// The `error.description`; omitted when absent.
        #[serde(default)]
        description: Option<String>,
    },
    /// These bytes, with this content type.
    Text {
        /// The `Content-Type`.
        content_type: String,
        /// The body.
        text: String,
    },
}

/// Changes to the bytes of a true answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splice {
    /// The text to replace, at its first occurrence; an empty one occurs at the start.
    pub find: String,
    /// Its replacement.
    pub bytes: Vec<u8>,
}

impl Splice {
    /// Applies the change. An answer that does not contain the text stays unchanged.
    pub(super) fn apply(&self, answer: &str) -> Vec<u8> {
        match answer.split_once(&self.find) {
            Some((before, after)) => [before.as_bytes(), &self.bytes, after.as_bytes()].concat(),
            None => answer.as_bytes().to_vec(),
        }
    }
}

/// Changes to a true answer, by JSON pointer. The segment `*` stands for every item of an array.
///
/// A pointer whose parent does not exist changes nothing. Pointers that `set` go first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Edit {
    /// Pointer and new value; the last key is created when it does not exist.
    pub set: Map<String, Value>,
    /// Pointers of fields to remove.
    pub remove: Vec<String>,
}

impl Edit {
    /// Applies the changes.
    pub(super) fn apply(&self, document: &mut Value) {
        for (pointer, value) in &self.set {
            walk(document, pointer, &|parent, key| {
                if let Some(map) = parent.as_object_mut() {
                    map.insert(key.to_owned(), value.clone());
                }
            });
        }
        for pointer in &self.remove {
            walk(document, pointer, &|parent, key| {
                if let Some(map) = parent.as_object_mut() {
                    map.shift_remove(key);
                }
            });
        }
    }
}

/// Calls `change` with the parent and the last key of every value that a pointer matches.
fn walk(value: &mut Value, pointer: &str, change: &impl Fn(&mut Value, &str)) {
    let rest = pointer.strip_prefix('/').unwrap_or(pointer);
    let Some((first, rest)) = rest.split_once('/') else { return change(value, rest) };
    if first == "*" {
        for item in value.as_array_mut().into_iter().flatten() {
            walk(item, rest, change);
        }
    } else if let Some(inner) = value.pointer_mut(&format!("/{first}")) {
        walk(inner, rest, change);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn edits_apply_only_to_matching_items() {
        let edit = Edit {
            set: Map::from_iter([
                ("/content/*/id".to_owned(), json!({})),
                ("/content/1/type".to_owned(), json!("NEW_TYPE")),
                ("/absent/field".to_owned(), json!(1)),
            ]),
            remove: vec!["/content/*/version".to_owned(), "/totalPages".to_owned()],
        };
        let mut document = json!({"content": [{"id": "a", "version": 1}, {"id": "b"}], "totalPages": 1});
        edit.apply(&mut document);
        assert_eq!(document, json!({"content": [{"id": {}}, {"id": {}, "type": "NEW_TYPE"}]}));
    }

    #[test]
    fn fault_applies_only_to_matching_requests() {
        let ids = ["a".to_owned()];
        let mut fault = SimFault::next(SimUpstream::MindBridge, 2, FaultKind::Hold)
            .on(Endpoint::One)
            .for_ids(&["a", "b"])
            .after(1);
        assert!(!fault.meets(SimUpstream::Supermetrics, Endpoint::One, &ids));
        assert!(!fault.meets(SimUpstream::MindBridge, Endpoint::Query, &ids));
        assert!(!fault.meets(SimUpstream::MindBridge, Endpoint::One, &["c".to_owned()]));
        let met: Vec<bool> =
            (0..4).map(|_| fault.meets(SimUpstream::MindBridge, Endpoint::One, &ids)).collect();
        assert_eq!(met, [false, true, true, false]);
    }
}
