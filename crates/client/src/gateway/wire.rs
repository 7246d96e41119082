//! The requests to a gateway and its responses, by `schema/schema.graphql`. Values that a later gateway may extend
//! (states, codes, kinds of job) stay text, so that an older command line keeps working.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The fields of a job that the text forms print.
const SHOWN: &str = "id source { name } externalId state isTerminal nativeState updatedAt finishedAt stateSince \
    progress { completed total } failure { code message } \
    estimate { expectedFinishAt earliest latest sampleSize } freshness { staleReason } \
    ... on MindBridgeJob { kind }";

/// All fields of a job except its rows and the grant of the client, for the JSON form; a test compares them with the schema.
const ALL: &str = "id source { name upstream } externalId state isTerminal nativeState createdAt updatedAt finishedAt \
    firstSeenAt stateSince terminalSeenAt progress { completed total } failure { code message } \
    estimate { expectedFinishAt earliest latest sampleSize } \
    freshness { observedAt ageMs isStale staleReason nextPollAt } \
    transitions { state nativeState observedAt upstreamAt } \
    ... on MindBridgeJob { kind entity { id type } version createdBy { userId userName } \
    lastModifiedBy { userId userName } error errorMessage } \
    ... on SupermetricsJob { requestId scheduleId queue { tasksScheduled tasksRunning } \
    query { startDate endDate accounts fields { id name dataType dataColumn } } \
    result { totalRows totalColumns runSeconds dataSampled cacheUsed cacheTime } }";

/// The fields of the problem that replaces a job.
const PROBLEM: &str =
    "... on JobProblem { ref { id source externalId } code message retryable retryAfterMs }";

/// The field that the text form prints of an answer to a query only: the updates of a stream are transitions themselves.
const TRANSITIONS: &str = "... on Job { transitions { state nativeState observedAt upstreamAt } }";

/// How many fields of a job are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldSet {
    /// Those that the text forms print.
    Shown,
    /// All of them.
    All,
}

impl FieldSet {
    const fn fields(self) -> &'static str {
        match self {
            Self::Shown => SHOWN,
            Self::All => ALL,
        }
    }

    /// The fragment `Result` with these fields.
    fn result(self) -> String {
        format!("fragment Result on JobResult {{ __typename ... on Job {{ {} }} {PROBLEM} }}", self.fields())
    }
}

/// The document of the query for jobs.
pub(super) fn query(set: FieldSet) -> String {
    let more = if set == FieldSet::Shown { TRANSITIONS } else { "" };
    format!(
        "query JobGet($refs: [JobRef!]!, $maxStaleness: Duration) {{ \
         jobs(refs: $refs, maxStaleness: $maxStaleness) {{ ...Result {more} }} }} {}",
        set.result()
    )
}

/// The document of the subscription that follows jobs.
pub(super) fn subscription(set: FieldSet) -> String {
    format!(
        "subscription JobWatch($refs: [JobRef!]!, $maxStaleness: Duration) {{ \
         jobUpdates(refs: $refs, maxStaleness: $maxStaleness) {{ kind sequence isFinal result {{ ...Result }} }} }} {}",
        set.result()
    )
}

/// The document of the query for a page of jobs.
pub(super) fn list(set: FieldSet) -> String {
    format!(
        "query JobList($filter: JobFilter, $orderBy: JobOrder, $first: Int!, $after: String, $count: Boolean!) {{ \
         jobList(filter: $filter, orderBy: $orderBy, first: $first, after: $after) {{ \
         totalCount @include(if: $count) pageInfo {{ hasNextPage endCursor }} \
         edges {{ origin labels {{ name value }} node {{ __typename {} }} }} }} }}",
        set.fields()
    )
}

/// The document of the query for a page of rows.
pub(super) fn rows() -> String {
    format!(
        "query JobRows($ref: JobRef!, $first: Int!, $after: String) {{ job(ref: $ref) {{ __typename \
         ... on Job {{ {SHOWN} }} ... on SupermetricsJob {{ firstSeenAt rows(first: $first, after: $after) {{ \
         header nodes {{ cells }} pageInfo {{ hasNextPage endCursor }} \
         problem {{ ref {{ id source externalId }} code message retryable retryAfterMs }} }} }} {PROBLEM} }} }}"
    )
}

/// A reference to a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WireRef {
    /// By the opaque id that a gateway issued.
    Id(String),
    /// By source and the upstream's own id.
    External {
        /// The name of a source.
        source: String,
        /// The upstream's own id.
        external_id: String,
    },
}

impl WireRef {
    /// The reference as a `JobRefInput`.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Id(id) => json!({ "id": id }),
            Self::External { source, external_id } => {
                json!({ "external": { "source": source, "externalId": external_id } })
            }
        }
    }
}

/// A `JobResult`: parsed, and as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WireResult {
    /// The parsed result.
    pub(crate) outcome: JobOutcome,
    /// The object as the gateway sent it.
    pub(crate) sent: Value,
}

/// A job, or the problem that replaces it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JobOutcome {
    /// A job of any upstream.
    Job(Box<WireJob>),
    /// The problem.
    Problem(WireProblem),
}

/// The fields of a job that are shown.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireJob {
    /// The opaque id.
    pub(crate) id: String,
    /// The source of the job.
    pub(crate) source: WireSource,
    /// The upstream's own id.
    pub(crate) external_id: String,
    /// A `JobState`.
    pub(crate) state: String,
    /// Whether the state is terminal.
    pub(crate) is_terminal: bool,
    /// The state as the upstream spells it.
    pub(crate) native_state: Option<String>,
    /// The progress.
    pub(crate) progress: Option<WireProgress>,
    /// Why it failed.
    pub(crate) failure: Option<WireFailure>,
    /// The kind of a MindBridge job.
    pub(crate) kind: Option<String>,
    /// When it was last updated, by the upstream's clock.
    pub(crate) updated_at: Option<String>,
    /// When it finished, by the upstream's clock.
    pub(crate) finished_at: Option<String>,
    /// When the gateway first observed the state.
    pub(crate) state_since: Option<String>,
    /// How fresh this is.
    pub(crate) freshness: WireFreshness,
    /// When it is expected to finish.
    pub(crate) estimate: Option<WireEstimate>,
    /// The transitions, oldest first; of an answer to a query only.
    #[serde(default)]
    pub(crate) transitions: Vec<WireTransition>,
}

/// A `JobEstimate`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireEstimate {
    /// The median.
    pub(crate) expected_finish_at: String,
    /// One job in ten finishes before.
    pub(crate) earliest: String,
    /// One job in ten finishes later.
    pub(crate) latest: String,
}

/// A `JobTransition`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireTransition {
    /// A `JobState`.
    pub(crate) state: String,
    /// The state as the upstream spelled it.
    pub(crate) native_state: Option<String>,
    /// When the gateway observed it.
    pub(crate) observed_at: String,
}

/// The fields of a source that are shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct WireSource {
    /// Its name.
    pub(crate) name: String,
}

/// A `JobProgress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct WireProgress {
    /// Completed parts.
    pub(crate) completed: u64,
    /// Parts known so far.
    pub(crate) total: u64,
}

/// A `JobFailure`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct WireFailure {
    /// The upstream's code.
    pub(crate) code: Option<String>,
    /// The upstream's message.
    pub(crate) message: Option<String>,
}

/// The fields of the freshness of a job that are shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireFreshness {
    /// A `StaleReason`, if the answer is older than requested.
    pub(crate) stale_reason: Option<String>,
}

/// A job and a page of its rows.
#[derive(Debug)]
pub(crate) struct WireRows {
    /// The job, or the problem that replaces it.
    pub(crate) answer: WireResult,
    /// When the gateway first observed this run of the job.
    pub(crate) run: Option<String>,
    /// The page; none if the job has no rows, or none yet.
    pub(crate) page: Option<WireRowPage>,
}

/// A page of a `RowConnection`, with the cells as the upstream wrote them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireRowPage {
    /// The column names.
    pub(crate) header: Vec<Box<RawValue>>,
    /// The rows.
    pub(crate) nodes: Vec<WireRow>,
    /// The position of the page.
    pub(crate) page_info: WirePageInfo,
    /// Why rows are missing.
    pub(crate) problem: Option<WireProblem>,
}

/// A `Row`.
#[derive(Debug, Deserialize)]
pub(crate) struct WireRow {
    /// The cells.
    pub(crate) cells: Vec<Box<RawValue>>,
}

/// The fields of a `PageInfo` that are read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WirePageInfo {
    /// Whether there is another page.
    pub(crate) has_next_page: bool,
    /// The cursor of the last row.
    pub(crate) end_cursor: Option<String>,
}

/// The part of a response with the cells as they were sent; a parsed [`Value`] would change numbers.
#[derive(Debug, Deserialize)]
struct RawRows {
    data: RawRowsData,
}

#[derive(Debug, Deserialize)]
struct RawRowsData {
    job: RawRowsJob,
}

#[derive(Debug, Deserialize)]
struct RawRowsJob {
    rows: Option<WireRowPage>,
}

/// A page of a `JobConnection`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WireJobPage {
    /// The jobs.
    pub(crate) edges: Vec<WireJobEdge>,
    /// The number of jobs on all pages, if it was requested.
    pub(crate) total: Option<u64>,
    /// The cursor of the next page, if there is one.
    pub(crate) next: Option<String>,
}

/// A `JobEdge`: parsed, and as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WireJobEdge {
    /// The job.
    pub(crate) job: WireJob,
    /// A `JobOrigin`.
    pub(crate) origin: String,
    /// The labels.
    pub(crate) labels: Vec<WireLabel>,
    /// The object as the gateway sent it.
    pub(crate) sent: Value,
}

/// A `Label`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct WireLabel {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: String,
}

/// A `JobProblem`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireProblem {
    /// The reference as it was requested.
    #[serde(rename = "ref")]
    pub(crate) reference: WireProblemRef,
    /// A `JobProblemCode`.
    pub(crate) code: String,
    /// The message for people.
    pub(crate) message: String,
    /// Whether the same request can succeed later.
    #[serde(default)]
    pub(crate) retryable: bool,
    /// The pause before it, if it is known.
    pub(crate) retry_after_ms: Option<u64>,
}

/// A `WireProblemRef`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireProblemRef {
    /// The opaque id.
    pub(crate) id: Option<String>,
    /// The name of a source.
    pub(crate) source: Option<String>,
    /// The upstream's own id.
    pub(crate) external_id: Option<String>,
}

/// A `JobUpdate`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WireUpdate {
    /// The job, or the problem that replaces it.
    pub(crate) answer: WireResult,
    /// Whether no more updates of this job follow.
    pub(crate) is_final: bool,
    /// The object as the gateway sent it.
    pub(crate) sent: Value,
}

impl WireResult {
    /// Parses a `JobResult`; `None` if it is not one.
    pub(crate) fn read(sent: Value) -> Option<Self> {
        let outcome = if sent.get("__typename")? == "JobProblem" {
            JobOutcome::Problem(WireProblem::deserialize(&sent).ok()?)
        } else {
            JobOutcome::Job(Box::new(WireJob::deserialize(&sent).ok()?))
        };
        Some(Self { outcome, sent })
    }

    /// Returns whether this is about the job that `reference` names.
    pub(crate) fn concerns(&self, reference: &WireRef) -> bool {
        match (&self.outcome, reference) {
            (JobOutcome::Job(job), WireRef::Id(id)) => job.id == *id,
            (JobOutcome::Job(job), WireRef::External { source, external_id }) => {
                job.source.name == *source && job.external_id == *external_id
            }
            (JobOutcome::Problem(problem), WireRef::Id(id)) => problem.reference.id.as_ref() == Some(id),
            (JobOutcome::Problem(problem), WireRef::External { source, external_id }) => {
                problem.reference.source.as_ref() == Some(source)
                    && problem.reference.external_id.as_ref() == Some(external_id)
            }
        }
    }
}

impl WireRows {
    /// Reads a response: parsed, and as it was sent. `None` if it does not match the request.
    pub(super) fn read(result: &Value, body: &[u8]) -> Option<Self> {
        let answer = WireResult::read(result.pointer("/data/job")?.clone())?;
        let run = result.pointer("/data/job/firstSeenAt").and_then(Value::as_str).map(ToOwned::to_owned);
        let page = serde_json::from_slice::<RawRows>(body).ok()?.data.job.rows;
        Some(Self { answer, run, page })
    }
}

impl WireJobPage {
    /// Parses a `JobConnection`; `None` if it is not one.
    pub(crate) fn read(sent: &Value) -> Option<Self> {
        let edges: Option<Vec<WireJobEdge>> =
            sent.get("edges")?.as_array()?.iter().cloned().map(WireJobEdge::read).collect();
        let more = sent.pointer("/pageInfo/hasNextPage")?.as_bool()?;
        let cursor = sent.pointer("/pageInfo/endCursor").and_then(Value::as_str);
        let next = if more { Some(cursor?.to_owned()) } else { None };
        Some(Self { edges: edges?, total: sent.get("totalCount").and_then(Value::as_u64), next })
    }
}

impl WireJobEdge {
    fn read(sent: Value) -> Option<Self> {
        Some(Self {
            job: WireJob::deserialize(sent.get("node")?).ok()?,
            origin: sent.get("origin")?.as_str()?.to_owned(),
            labels: Vec::deserialize(sent.get("labels")?).ok()?,
            sent,
        })
    }
}

impl WireUpdate {
    /// Parses a `JobUpdate`; `None` if it is not one.
    pub(super) fn read(sent: Value) -> Option<Self> {
        let is_final = sent.get("isFinal")?.as_bool()?;
        let answer = WireResult::read(sent.get("result")?.clone())?;
        Some(Self { answer, is_final, sent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = include_str!("../../../../schema/schema.graphql");

    /// The fields of a type of the schema, without descriptions and arguments.
    fn fields(of: &str) -> Vec<&'static str> {
        let (_, body) = SCHEMA.split_once(&format!("\ntype {of} ")).unwrap();
        let (body, _) = body.split_once("\n}").unwrap();
        let code = body.split("\"\"\"").step_by(2).flat_map(str::lines);
        let name = |line: &'static str| {
            let field = line.strip_prefix('\t').filter(|field| !field.starts_with(['\t', ')']))?;
            field.split(['(', ':']).next().filter(|name| !name.is_empty())
        };
        code.filter_map(name).collect()
    }

    #[test]
    fn json_form_has_every_field_of_the_schema() {
        let words: Vec<&str> = ALL.split_whitespace().chain(["rows", "viewerGrant"]).collect();
        for of in [
            "MindBridgeJob",
            "SupermetricsJob",
            "JobProgress",
            "JobFailure",
            "JobEstimate",
            "JobTransition",
            "Freshness",
            "EntityRef",
            "UserInfo",
            "LicenceQueue",
            "QueryMeta",
            "QueryField",
            "QueryResult",
        ] {
            let missing: Vec<&str> = fields(of).into_iter().filter(|field| !words.contains(field)).collect();
            assert_eq!(missing, [""; 0], "of {of}");
        }
        let words: Vec<&str> = PROBLEM.split_whitespace().collect();
        assert!(fields("JobProblem").iter().all(|field| words.contains(field)));
        assert_eq!(fields("JobProgress"), ["completed", "total"]);
        assert!(["rows", "viewerGrant"].iter().all(|field| fields("SupermetricsJob").contains(field)));
    }
}
