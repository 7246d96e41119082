//! Writes the values of an answer as JSON, byte for byte as the engine's answer is serialized.

use std::cell::RefCell;
use std::fmt::{self, Display, Write as _};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::rendered::{LiveField, RenderedJobs};
use super::selection::SelectedField;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::principal::Principal;
use crate::domain::upstream::Upstream;
use crate::domain::viewer::ViewerGrant;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::{JobEstimate, Jobs, SourceView};

/// An answer that is being written.
pub(in crate::inbound::graphql) struct AnswerWriter<'a> {
    json: String,
    /// The size at which writing stops.
    max: usize,
    /// The bytes of texts of unlimited length.
    texts: usize,
    /// Whether something cannot be written without the engine.
    is_incomplete: bool,
    /// Whether something was read for the client.
    is_for_client: bool,
    client: AnswerClient<'a>,
}

thread_local! {
    /// The time that this thread wrote last, with its text as JSON: jobs that were read by one call have the same `observedAt`.
    static LAST_TIME: RefCell<(Option<Timestamp>, String)> = RefCell::default();
}

/// The client of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::inbound::graphql) struct AnswerClient<'a> {
    pub(in crate::inbound::graphql) jobs: &'a Jobs,
    pub(in crate::inbound::graphql) principal: &'a Principal,
    pub(in crate::inbound::graphql) rendered: &'a RenderedJobs,
}

/// A position in an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct WritePosition {
    bytes: usize,
    texts: usize,
}

/// Records what is written from a position on, without the live fields.
pub(super) struct Recorder {
    json: String,
    live: Vec<LiveField>,
    texts: usize,
    /// The end of what is recorded.
    end: WritePosition,
}

impl Recorder {
    /// Leaves out the live field that was just written.
    pub(super) fn live(&mut self, out: &AnswerWriter<'_>, index: usize, began: WritePosition) {
        self.record(out, began);
        self.live.push(LiveField { index, at: self.json.len() });
        self.end = out.position();
    }

    /// What was recorded: its JSON, its live fields and the bytes of its texts; `None` if it is not complete.
    pub(super) fn finish(mut self, out: &AnswerWriter<'_>) -> Option<(String, Vec<LiveField>, usize)> {
        self.record(out, out.position());
        (!out.is_incomplete && !out.is_full()).then_some((self.json, self.live, self.texts))
    }

    fn record(&mut self, out: &AnswerWriter<'_>, until: WritePosition) {
        self.json.push_str(out.json.get(self.end.bytes..until.bytes).unwrap_or_default());
        self.texts += until.texts.saturating_sub(self.end.texts);
    }
}

/// A written answer.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct WrittenJson {
    pub(in crate::inbound::graphql) json: String,
    /// The bytes of its texts of unlimited length.
    pub(in crate::inbound::graphql) texts: usize,
    /// Whether any client gets the same answer from the same values, at whatever time.
    pub(in crate::inbound::graphql) is_for_any_client: bool,
}

impl<'a> AnswerWriter<'a> {
    /// An empty answer of at most about `max` bytes.
    pub(in crate::inbound::graphql) fn new(max: usize, client: AnswerClient<'a>) -> Self {
        Self::with_capacity(0, max, client)
    }

    /// The same with room for this many bytes.
    pub(in crate::inbound::graphql) fn with_capacity(
        capacity: usize,
        max: usize,
        client: AnswerClient<'a>,
    ) -> Self {
        Self {
            json: String::with_capacity(capacity.max(512)),
            max,
            texts: 0,
            is_incomplete: false,
            is_for_client: false,
            client,
        }
    }

    /// The answer; `None` if only the engine can write it.
    pub(in crate::inbound::graphql) fn finish(self) -> Option<WrittenJson> {
        let Self { json, texts, is_incomplete, is_for_client, .. } = self;
        (!is_incomplete).then_some(WrittenJson { json, texts, is_for_any_client: !is_for_client })
    }

    /// What selections made of observations before.
    pub(super) const fn rendered(&self) -> &'a RenderedJobs {
        self.client.rendered
    }

    /// The position of the next byte.
    pub(super) const fn position(&self) -> WritePosition {
        WritePosition { bytes: self.json.len(), texts: self.texts }
    }

    /// Starts to record what is written.
    pub(super) const fn record(&self) -> Recorder {
        Recorder { json: String::new(), live: Vec::new(), texts: 0, end: self.position() }
    }

    /// Counts bytes of texts of unlimited length.
    pub(super) const fn count_texts(&mut self, bytes: usize) {
        self.texts += bytes;
    }

    /// Leaves the answer to the engine.
    pub(in crate::inbound::graphql) const fn leave_to_engine(&mut self) {
        self.is_incomplete = true;
    }

    /// The present state of a source; `None` if it is no longer configured.
    pub(in crate::inbound::graphql) fn source(&mut self, name: &SourceName) -> Option<SourceView> {
        self.is_for_client = true;
        self.client.jobs.source(self.client.principal, name)
    }

    /// The upstream of a source, which is the same for each client; `None` if it is no longer configured.
    pub(in crate::inbound::graphql) fn upstream_of(&self, name: &SourceName) -> Option<Upstream> {
        self.client.jobs.upstream_of(name)
    }

    /// The grant of the client that shows a job to it.
    pub(in crate::inbound::graphql) fn viewer_grant(&mut self, seen: &JobSnapshot) -> Option<ViewerGrant> {
        self.is_for_client = true;
        self.client.jobs.viewer_grant(self.client.principal, seen)
    }

    /// When a job is expected to finish. It is as of the snapshot, so any client that receives the same snapshot may
    /// receive the same bytes.
    pub(in crate::inbound::graphql) fn estimate(&self, seen: &JobSnapshot) -> Option<JobEstimate> {
        self.client.jobs.estimate(seen)
    }

    /// Writes JSON as it is.
    pub(in crate::inbound::graphql) fn raw(&mut self, json: &str) {
        self.json.push_str(json);
    }

    /// Writes an integer.
    pub(in crate::inbound::graphql) fn integer(&mut self, number: impl itoa::Integer) {
        self.json.push_str(itoa::Buffer::new().format(number));
    }

    /// Writes a date and time.
    pub(in crate::inbound::graphql) fn timestamp(&mut self, at: &Timestamp) {
        const PRINTER: DateTimePrinter = DateTimePrinter::new();
        LAST_TIME.with_borrow_mut(|(last, text)| {
            if last.replace(*at) != Some(*at) {
                text.clear();
                text.push('"');
                // writing to a string cannot fail
                PRINTER.print_timestamp(at, &mut *text).ok();
                text.push('"');
            }
            self.json.push_str(text);
        });
    }

    /// Writes a value whose text needs neither quotes nor an escape.
    pub(in crate::inbound::graphql) fn plain(&mut self, value: impl Display) {
        // writing to a string cannot fail
        write!(self.json, "{value}").ok();
    }

    /// Writes a value whose text needs quotes but no escape.
    pub(in crate::inbound::graphql) fn quoted(&mut self, value: impl Display) {
        self.json.push('"');
        self.plain(value);
        self.json.push('"');
    }

    /// Writes a string.
    pub(in crate::inbound::graphql) fn text(&mut self, text: &str) {
        if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            self.quoted_text(text);
        } else {
            // a string has a JSON form
            let json = serde_json::to_string(text).unwrap_or_default();
            self.json.push_str(&json);
        }
    }

    /// Writes a string of an upstream, of unlimited length.
    pub(in crate::inbound::graphql) fn upstream_text(&mut self, text: &str) {
        self.texts += text.len();
        self.text(text);
    }

    /// Writes JSON of an upstream as it is. `overhead` is counted as the engine counts it beside the text.
    pub(in crate::inbound::graphql) fn upstream_json(&mut self, json: &str, overhead: usize) {
        self.texts += json.len() + overhead;
        self.raw(json);
    }

    /// Whether it is longer than its limit already.
    pub(in crate::inbound::graphql) const fn is_full(&self) -> bool {
        self.json.len() > self.max
    }

    /// Writes the items of a list.
    pub(in crate::inbound::graphql) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.raw("[");
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            write(self, item);
        }
        self.raw("]");
    }

    /// Writes the node id of a job.
    pub(in crate::inbound::graphql) fn node_id(&mut self, key: &JobKey) {
        self.json.push('"');
        key.write_node_id(&mut self.json);
        self.json.push('"');
    }

    /// Writes a string that needs no escape.
    pub(in crate::inbound::graphql) fn quoted_text(&mut self, text: &str) {
        self.json.push('"');
        self.json.push_str(text);
        self.json.push('"');
    }
}

/// A value that a plan can write.
pub(in crate::inbound::graphql) trait WriteJson {
    /// Writes the value; `of` is what is selected from it.
    fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>);
}

impl<T: WriteJson> WriteJson for Option<T> {
    fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
        match self {
            Some(value) => value.write(of, out),
            None => out.raw("null"),
        }
    }
}

impl<T: WriteJson> WriteJson for Vec<T> {
    fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.list(self, |out, item| item.write(of, out));
    }
}

impl WriteJson for bool {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.raw(if *self { "true" } else { "false" });
    }
}

impl WriteJson for i32 {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.integer(*self);
    }
}

impl WriteJson for u32 {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.integer(*self);
    }
}

impl WriteJson for f64 {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        match serde_json::Number::from_f64(*self) {
            Some(number) => out.plain(number),
            None => out.raw("null"),
        }
    }
}

impl WriteJson for String {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.text(self);
    }
}

impl WriteJson for async_graphql::ID {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.text(self);
    }
}

impl fmt::Debug for AnswerWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerWriter").field("bytes", &self.json.len()).finish_non_exhaustive()
    }
}
