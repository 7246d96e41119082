//! The requests, and the check of their answers. Not here: how they are sent.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use jobgate_simulator::{MindBridgeJob, MindBridgeTenant, Scenario};

/// The source of all jobs in the configuration.
pub(super) const SOURCE: &str = "audit";
/// Jobs of one `jobs` query: the most that the schema accepts.
const MANY: u32 = 200;
/// Eleven fields, about as many as a dashboard needs.
const FIELDS: &str = "... on Job { id externalId state isTerminal nativeState createdAt updatedAt finishedAt \
    progress { completed total } failure { code message } freshness { observedAt ageMs isStale } }";
/// The one value that differs between two answers to the same request.
const AGE: &[u8] = b"\"ageMs\":";

/// One kind of request.
#[derive(Debug)]
pub(super) struct Case {
    /// Its name in the report.
    pub(super) name: &'static str,
    ids: Vec<String>,
    state: &'static str,
}

/// All cases, in the order of the report.
pub(super) fn all() -> [Case; 3] {
    let done: Vec<_> = (0..MANY).map(|number| id(1, number)).collect();
    let running = (0..MANY).map(|number| id(2, number)).collect();
    [
        Case { name: "job", ids: done.iter().take(1).cloned().collect(), state: "SUCCEEDED" },
        Case { name: "jobs", ids: done, state: "SUCCEEDED" },
        Case { name: "jobs-running", ids: running, state: "RUNNING" },
    ]
}

/// The simulated upstream that knows every job of every case.
pub(super) fn scenario() -> Scenario {
    let [_, done, running] = all();
    let done = done.ids.iter().map(|id| MindBridgeJob::new(id, &[(0, "COMPLETE")]));
    let running = running.ids.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    let jobs = done.chain(running).collect();
    Scenario { mindbridge: MindBridgeTenant { jobs, ..MindBridgeTenant::default() }, ..Scenario::default() }
}

/// An id in the vendor's form: 24 hexadecimal digits.
fn id(group: u32, number: u32) -> String {
    format!("65f0c0ffee{group:06x}{number:08x}")
}

impl Case {
    /// The body of the request. The jobs are a variable, as a client's library sends them.
    pub(super) fn body(&self) -> String {
        let mut refs: Vec<Value> =
            self.ids.iter().map(|id| json!({ "external": { "source": SOURCE, "externalId": id } })).collect();
        let body = match (refs.len(), refs.pop()) {
            (1, Some(one)) => json!({
                "query": format!("query One($ref: JobRef!) {{ job(ref: $ref) {{ {FIELDS} }} }}"),
                "variables": { "ref": one },
            }),
            (_, last) => {
                refs.extend(last);
                json!({
                    "query": format!("query Many($refs: [JobRef!]!) {{ jobs(refs: $refs) {{ {FIELDS} }} }}"),
                    "variables": { "refs": refs },
                })
            }
        };
        body.to_string()
    }

    /// Checks that an answer is the expected one: every job, in order, in its state.
    pub(super) fn check(&self, answer: &[u8]) -> anyhow::Result<()> {
        let answer: Value = serde_json::from_slice(answer).context("the answer is not json")?;
        let data = &answer["data"];
        let jobs = match (&data["job"], &data["jobs"]) {
            (job @ Value::Object(_), _) => std::slice::from_ref(job),
            (_, Value::Array(jobs)) => jobs.as_slice(),
            _ => anyhow::bail!("the answer has no jobs: {answer}"),
        };
        ensure!(jobs.len() == self.ids.len(), "{} jobs were requested, not {}", self.ids.len(), jobs.len());
        for (id, job) in self.ids.iter().zip(jobs) {
            let right = job["externalId"] == id.as_str() && job["state"] == self.state;
            ensure!(right, "{id} should be {}, and the answer is {job}", self.state);
        }
        Ok(())
    }
}

/// An answer without its ages: what every later answer must equal.
#[derive(Debug)]
pub(super) struct Expected(Vec<Vec<u8>>);

impl Expected {
    /// Takes an answer as the expected one.
    pub(super) fn new(answer: &[u8]) -> Self {
        let (mut pieces, mut piece) = (Vec::new(), Vec::new());
        let mut rest = answer;
        while let Some((&byte, behind)) = rest.split_first() {
            piece.push(byte);
            rest = behind;
            if piece.ends_with(AGE) {
                rest = without_digits(rest);
                pieces.push(std::mem::take(&mut piece));
            }
        }
        pieces.push(piece);
        Self(pieces)
    }

    /// Whether an answer is the expected one, with any ages.
    pub(super) fn fits(&self, answer: &[u8]) -> bool {
        let mut rest = answer;
        for (number, piece) in self.0.iter().enumerate() {
            if number > 0 {
                rest = without_digits(rest);
            }
            let Some(behind) = rest.strip_prefix(piece.as_slice()) else { return false };
            rest = behind;
        }
        rest.is_empty()
    }
}

fn without_digits(text: &[u8]) -> &[u8] {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(digits).1
}
