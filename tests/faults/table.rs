//! The rows of the fault table. `faults.rs` defines the columns and plays the rows.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use jobgate_simulator::{FaultKind, MadeUpAnswer, MadeUpBody, RetryAfter};
use serde_json::json;

/// A fault and its outcome.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) fault: FaultKind,
    /// The answer for the caller, in the form of `support::server::describe`.
    pub(crate) outcome: &'static str,
    /// Requests for the first job, and for another one right after it.
    pub(crate) calls: Calls,
    /// The timeout of the source is short, since the fault outlasts any. It is longer than a pause of the machine.
    pub(crate) hurried: bool,
}

/// A number of requests, and a range of them.
pub(crate) type Calls = (usize, RangeInclusive<usize>);

const fn row(what: &'static str, fault: FaultKind, outcome: &'static str, calls: Calls) -> Row {
    Row { what, fault, outcome, calls, hurried: false }
}

/// An answer is wrong, and the next one may not be: one call each time.
const ONCE: Calls = (1, 1..=1);
/// The source must not be called again for now.
const CLOSED: Calls = (1, 0..=0);
/// Two retries; then two more tries, and the breaker opens at the fifth failure. Its duration is random: the last retry
/// may come in time to be the breaker's probe.
const RETRIED: Calls = (3, 2..=3);

/// A job is denied, and the read of an earlier readable one proves that all are; once for both jobs.
const DENIED: Calls = (2, 1..=1);

fn status(status: u16) -> FaultKind {
    FaultKind::answer(status, MadeUpBody::Empty)
}

fn text(status: u16, text: &str) -> FaultKind {
    let body = MadeUpBody::Text { content_type: "application/json".to_owned(), text: text.to_owned() };
    FaultKind::answer(status, body)
}

fn throttled(form: RetryAfter) -> FaultKind {
    FaultKind::throttled(Some(form))
}

/// An answer with a text of more than the largest status body in the middle.
fn wide(before: &str, after: &str) -> FaultKind {
    text(200, &format!("{before}{}{after}", "x".repeat(1_200_000)))
}

fn described(status: u16, code: &str, description: &str) -> FaultKind {
    let description = Some(description.to_owned());
    FaultKind::answer(status, MadeUpBody::Envelope { code: code.to_owned(), message: None, description })
}

/// The faults of both upstreams. `too_large` is the number of requests for an answer that is too large.
fn both(too_large: &Calls) -> Vec<Row> {
    let headers = BTreeMap::from([("content-type".to_owned(), "text/html".to_owned())]);
    let page =
        FaultKind::Answer(MadeUpAnswer { status: 429, headers, retry_after: None, body: MadeUpBody::Html });
    let slow = Duration::from_mins(1);
    let away = FaultKind::Answer(MadeUpAnswer {
        status: 503,
        headers: BTreeMap::new(),
        retry_after: Some(RetryAfter::Seconds(9)),
        body: MadeUpBody::Empty,
    });
    let hurried = |row: Row| Row { hurried: true, ..row };
    vec![
        row("429 in seconds", throttled(RetryAfter::Seconds(7)), "THROTTLED after 7s", CLOSED),
        row("429 until a date", throttled(RetryAfter::DateIn(3600)), "THROTTLED after 3600s", CLOSED),
        row("429 at once", throttled(RetryAfter::Seconds(0)), "THROTTLED after 1s", CLOSED),
        row("429 for ever", throttled(RetryAfter::Text("9".repeat(40))), "THROTTLED after 86400s", CLOSED),
        row("429 soon", throttled(RetryAfter::Text("soon".to_owned())), "THROTTLED after 30s", CLOSED),
        row("429 negative", throttled(RetryAfter::Text("-5".to_owned())), "THROTTLED after 30s", CLOSED),
        row("429 with a body alone", FaultKind::throttled(None), "THROTTLED after 30s", CLOSED),
        row("429 empty", status(429), "THROTTLED after 30s", CLOSED),
        row("429 as a page", page, "THROTTLED after 30s", CLOSED),
        row("401 as problem details", FaultKind::problem(401, "UNAUTHORIZED"), "CREDENTIAL_REJECTED", CLOSED),
        row("401 empty", status(401), "CREDENTIAL_REJECTED", CLOSED),
        row("401 that echoes", FaultKind::EchoCredential { status: 401 }, "CREDENTIAL_REJECTED", CLOSED),
        row("403 as a page", FaultKind::html(403), "BAD_ANSWER", ONCE),
        row("403 empty", status(403), "CREDENTIAL_REJECTED", ONCE),
        row("400 as problem details", FaultKind::problem(400, "BAD_REQUEST"), "BAD_ANSWER", ONCE),
        row("500 as problem details", FaultKind::problem(500, "INTERNAL"), "UNAVAILABLE", RETRIED),
        row("500 empty", status(500), "UNAVAILABLE", RETRIED),
        row("502 as a page", FaultKind::html(502), "UNAVAILABLE", RETRIED),
        row("503 as a page", FaultKind::html(503), "UNAVAILABLE", RETRIED),
        row("503 with Retry-After", away, "THROTTLED after 9s", CLOSED),
        row("504 empty", status(504), "UNAVAILABLE", RETRIED),
        row("200 as a page", FaultKind::html(200), "BAD_ANSWER", ONCE),
        row("200 empty", status(200), "BAD_ANSWER", ONCE),
        row("200 and an empty object", text(200, "{}"), "BAD_ANSWER", ONCE),
        row("200 for maintenance", text(200, r#"{"message":"maintenance"}"#), "BAD_ANSWER", ONCE),
        row("200 of a health check", text(200, r#"{"status":"UP"}"#), "BAD_ANSWER", ONCE),
        row("404 as a page: no such path", FaultKind::html(404), "BAD_ANSWER", ONCE),
        row("404 empty", status(404), "BAD_ANSWER", ONCE),
        row("404 of an ingress", FaultKind::no_route(404), "BAD_ANSWER", ONCE),
        row("404 of a gateway, in JSON", text(404, r#"{"message":"no Route matched"}"#), "BAD_ANSWER", ONCE),
        row("410 as a page", FaultKind::html(410), "BAD_ANSWER", ONCE),
        row("410 of an ingress", FaultKind::no_route(410), "BAD_ANSWER", ONCE),
        row("410 empty", status(410), "BAD_ANSWER", ONCE),
        row("a list", text(200, "[]"), "BAD_ANSWER", ONCE),
        row("null", text(200, "null"), "BAD_ANSWER", ONCE),
        row("deeper than any reader goes", text(200, &"[".repeat(200_000)), "BAD_ANSWER", ONCE),
        row("half a document", FaultKind::MalformedJson, "BAD_ANSWER", ONCE),
        row("half the promised body", FaultKind::TruncatedBody, "UNAVAILABLE", RETRIED),
        row("closed without a byte", FaultKind::CloseBeforeHeaders, "UNAVAILABLE", RETRIED),
        hurried(row("slow headers", FaultKind::SlowHeaders { delay: slow }, "TIMED_OUT", ONCE)),
        hurried(row("a slow body", FaultKind::SlowBody { chunk: 1, every: slow }, "TIMED_OUT", ONCE)),
        hurried(row("held for ever", FaultKind::Hold, "TIMED_OUT", ONCE)),
        row("2 MiB", FaultKind::OversizedBody { bytes: 2 << 20 }, "BAD_ANSWER", too_large.clone()),
        // small on the wire, large in memory
        row("a gzip bomb", FaultKind::GzipBomb { bytes: 64 << 20 }, "BAD_ANSWER", too_large.clone()),
        row("a redirect", FaultKind::Redirect { to: "/elsewhere".to_owned() }, "BAD_ANSWER", ONCE),
        row(
            "429 until a date of another clock",
            dated(ANOTHER_CLOCK, "Sun, 06 Nov 1994 09:49:44 GMT"),
            "THROTTLED after 7s",
            CLOSED,
        ),
        row(
            "429 until a date of RFC 850",
            dated(ANOTHER_CLOCK, "Sunday, 06-Nov-94 09:49:44 GMT"),
            "THROTTLED after 7s",
            CLOSED,
        ),
        row(
            "429 until a date of asctime",
            dated("Sun Nov  6 09:49:37 1994", "Sun Nov  6 09:49:44 1994"),
            "THROTTLED after 7s",
            CLOSED,
        ),
        row("x-gzip", FaultKind::GzipAs { encoding: "x-gzip".to_owned() }, "RUNNING", ONCE),
        row("gzip in capitals", FaultKind::GzipAs { encoding: "GZIP".to_owned() }, "RUNNING", ONCE),
        row(
            "an encoding that was not accepted",
            FaultKind::GzipAs { encoding: "br".to_owned() },
            "BAD_ANSWER",
            ONCE,
        ),
        row("a good body under 201", FaultKind::Status { status: 201 }, "RUNNING", ONCE),
        row("a good body under 202", FaultKind::Status { status: 202 }, "RUNNING", ONCE),
        row("a good body under 203", FaultKind::Status { status: 203 }, "RUNNING", ONCE),
        row("a good body under 206", FaultKind::Status { status: 206 }, "RUNNING", ONCE),
        row("204", status(204), "BAD_ANSWER", ONCE),
        row("a byte order mark", FaultKind::splice("", b"\xEF\xBB\xBF"), "RUNNING", ONCE),
    ]
}

/// A date far from the clock of this process.
const ANOTHER_CLOCK: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

/// 429 until a date, in an answer with its own date.
fn dated(date: &str, until: &str) -> FaultKind {
    let headers = BTreeMap::from([("date".to_owned(), date.to_owned())]);
    let retry_after = Some(RetryAfter::Text(until.to_owned()));
    FaultKind::Answer(MadeUpAnswer { status: 429, headers, retry_after, body: MadeUpBody::Empty })
}

/// MindBridge, reading one job.
pub(crate) fn mindbridge() -> Vec<Row> {
    let hour_and_retry = FaultKind::Answer(MadeUpAnswer {
        status: 429,
        headers: BTreeMap::from([("x-user-hour-limit-remaining".to_owned(), "1200".to_owned())]),
        retry_after: Some(RetryAfter::Seconds(7)),
        body: MadeUpBody::Empty,
    });
    let mut rows = both(&ONCE);
    rows.extend([
        row("the hourly limit", FaultKind::hour_limit(1200), "THROTTLED after 1200s", CLOSED),
        row("both headers", hour_and_retry, "THROTTLED after 7s", CLOSED),
        row("404 as problem details", FaultKind::problem(404, "NOT_FOUND"), "NOT_FOUND after 5s", ONCE),
        row("the id in capitals", FaultKind::splice("\"new\"", b"\"NEW\""), "RUNNING", ONCE),
        row(
            "a latin-1 byte in a text",
            FaultKind::splice("\"type\":\"", b"\"error\":\"caf\xE9\",\"type\":\"\xE9"),
            "RUNNING",
            ONCE,
        ),
        row("half a character in a text", FaultKind::splice("\"type\":\"", br#""error":"\ud800","type":"\udc00"#), "RUNNING", ONCE),
        row("a raw line break in a text", FaultKind::splice("\"type\":\"", b"\"type\":\"one\ntwo"), "RUNNING", ONCE),
        row("a version as text", FaultKind::set("/version", json!("7")), "RUNNING", ONCE),
        row(
            "failed with a code and a message",
            text(200, r#"{"id":{},"version":2,"status":"ERROR","error":"INGESTION_FAILED","errorMessage":"column 7 is not a date"}"#),
            "FAILED (INGESTION_FAILED: column 7 is not a date)",
            ONCE,
        ),
        row("a long message behind the status", wide(r#"{"id":{},"version":2,"status":"ERROR","error":"TOO_LONG","errorMessage":""#, r#""}"#), "FAILED (TOO_LONG: TOO_LONG)", ONCE),
        row("a long message before the status", wide(r#"{"errorMessage":""#, r#"","status":"ERROR"}"#), "BAD_ANSWER", ONCE),
        row("empty values for structures", text(200, r#"{"id":{},"version":2,"status":"IN_PROGRESS","createdUserInfo":[],"lastModifiedUserInfo":"","entityId":false,"error":[],"errorMessage":{}}"#), "RUNNING", ONCE),
        row("410 as problem details", FaultKind::problem(410, "GONE"), "NOT_FOUND after 5s", ONCE),
        row("a version and an error of another service", text(200, r#"{"status":"error","version":"1.0","message":"down"}"#), "BAD_ANSWER", ONCE),
        row("a status as text in problem details", text(404, r#"{"title":"Not Found","status":"404"}"#), "NOT_FOUND after 5s", ONCE),
        row("200 and an error", text(200, r#"{"status":"error","message":"down"}"#), "BAD_ANSWER", ONCE),
        row("200 and problem details", FaultKind::problem(200, "NOT_FOUND"), "BAD_ANSWER", ONCE),
        row("an unknown status", FaultKind::set("/status", json!("AWAITING")), "UNKNOWN (AWAITING)", ONCE),
        row("no status", FaultKind::remove("/status"), "BAD_ANSWER", ONCE),
        row("a status that is none", FaultKind::set("/status", json!(3)), "BAD_ANSWER", ONCE),
        row("a status in small letters", FaultKind::set("/status", json!("in_progress")), "RUNNING", ONCE),
        row("an unknown type", FaultKind::set("/type", json!("LEDGER")), "RUNNING", ONCE),
        row("an unknown entity type", FaultKind::set("/entityType", json!("LEDGER")), "RUNNING", ONCE),
        row("the id is an object", FaultKind::set("/id", json!({})), "RUNNING", ONCE),
        row("no id", FaultKind::remove("/id"), "RUNNING", ONCE),
        row("another id", FaultKind::set("/id", json!("another")), "BAD_ANSWER", ONCE),
        row("no version", FaultKind::remove("/version"), "RUNNING", ONCE),
        row("a version of 2^64", FaultKind::set("/version", json!(u64::MAX)), "RUNNING", ONCE),
        row(
            "neither an id nor a version an integer holds",
            text(200, r#"{"status":"COMPLETE","version":1e400}"#),
            "BAD_ANSWER",
            ONCE,
        ),
        row("no people", FaultKind::remove("/createdUserInfo"), "RUNNING", ONCE),
        row("people of another form", FaultKind::set("/createdUserInfo", json!(["a"])), "RUNNING", ONCE),
        row("dates that are none", FaultKind::set("/creationDate", json!("yesterday")), "RUNNING", ONCE),
        row(
            "failed with error",
            text(200, r#"{"id":{},"version":2,"status":"ERROR","error":"why"}"#),
            "FAILED (why)",
            ONCE,
        ),
        row(
            "failed with errorMessage",
            text(200, r#"{"id":{},"version":2,"status":"ERROR","errorMessage":"why"}"#),
            "FAILED (why)",
            ONCE,
        ),
        row(
            "failed with an empty error",
            text(200, r#"{"id":{},"version":2,"status":"ERROR","error":"","errorMessage":"why"}"#),
            "FAILED (why)",
            ONCE,
        ),
        row("failed without a reason", FaultKind::set("/status", json!("ERROR")), "FAILED ()", ONCE),
        row("complete", FaultKind::set("/status", json!("Complete")), "SUCCEEDED", ONCE),
    ]);
    rows
}

/// Supermetrics, the status call.
pub(crate) fn supermetrics() -> Vec<Row> {
    let daily = |status, retry_after| {
        let code = "LICENSE_DAILY_QUERY_LIMIT_EXCEEDED".to_owned();
        let body = MadeUpBody::Envelope { code, message: None, description: None };
        FaultKind::Answer(MadeUpAnswer { status, headers: BTreeMap::new(), retry_after, body })
    };
    let day = Some(RetryAfter::Seconds(86_400));
    let envelope = FaultKind::envelope;
    let waiting = |code: &str| {
        let body = MadeUpBody::Envelope { code: code.to_owned(), message: None, description: None };
        let retry_after = Some(RetryAfter::Seconds(7));
        FaultKind::Answer(MadeUpAnswer { status: 429, headers: BTreeMap::new(), retry_after, body })
    };
    let beside_failure = |status, code: &str| {
        let body = format!(r#"{{"meta":{{"status_code":"FAILURE"}},"error":{{"code":"{code}"}}}}"#);
        text(status, &body)
    };
    let failed = "FAILED (QUERY_ACCOUNT_UNAVAILABLE: log in again)";
    let account = |status| described(status, "QUERY_ACCOUNT_UNAVAILABLE", "log in again");
    let word = |word: &str| FaultKind::set("/meta/status_code", json!(word));
    // Too large once may mean that the end 0 was read as unset: the end 1 is tried, see `docs/simulator.md`.
    let mut rows = both(&(2, 2..=2));
    rows.extend([
        row("the daily limit", daily(429, day), "THROTTLED after 86400s", CLOSED),
        row("the daily limit inside a 200", daily(200, None), "THROTTLED after 30s", CLOSED),
        row("401 API_KEY_INVALID", envelope(401, "API_KEY_INVALID"), "CREDENTIAL_REJECTED", CLOSED),
        row("401 API_KEY_REQUIRED", envelope(401, "API_KEY_REQUIRED"), "CREDENTIAL_REJECTED", CLOSED),
        row("401 ACCESS_TOKEN_INVALID", envelope(401, "ACCESS_TOKEN_INVALID"), "CREDENTIAL_REJECTED", CLOSED),
        row("403 API_KEY_DISABLED", envelope(403, "API_KEY_DISABLED"), "CREDENTIAL_REJECTED", CLOSED),
        row("403 LICENSE_EXPIRED", envelope(403, "LICENSE_EXPIRED"), "CREDENTIAL_REJECTED", CLOSED),
        row("403 with another code", envelope(403, "FORBIDDEN"), "CREDENTIAL_REJECTED", ONCE),
        row("API_KEY_INVALID inside a 200", envelope(200, "API_KEY_INVALID"), "CREDENTIAL_REJECTED", CLOSED),
        row("STATUS_NOT_FOUND under 400", envelope(400, "STATUS_NOT_FOUND"), "NOT_FOUND after 5s", ONCE),
        row("STATUS_NOT_FOUND under 404", envelope(404, "STATUS_NOT_FOUND"), "NOT_FOUND after 5s", ONCE),
        row("STATUS_NOT_FOUND under 500", envelope(500, "STATUS_NOT_FOUND"), "NOT_FOUND after 5s", ONCE),
        row("STATUS_NOT_FOUND inside a 200", envelope(200, "STATUS_NOT_FOUND"), "NOT_FOUND after 5s", ONCE),
        row("404 as problem details", FaultKind::problem(404, "NOT_FOUND"), "BAD_ANSWER", ONCE),
        row("410 as problem details", FaultKind::problem(410, "GONE"), "BAD_ANSWER", ONCE),
        row("400 with another code", envelope(400, "PARAMETER_INVALID"), "BAD_ANSWER", ONCE),
        row("the query's own error under 500", account(500), failed, ONCE),
        row("the query's own error under 400", account(400), failed, ONCE),
        row("the query's own error inside a 200", account(200), failed, ONCE),
        row("a query error with a code alone", envelope(500, "QUERY_X"), "FAILED (QUERY_X: QUERY_X)", ONCE),
        row("ACCOUNT_NOT_FOUND", envelope(500, "ACCOUNT_NOT_FOUND"), "FAILED (ACCOUNT_NOT_FOUND: ACCOUNT_NOT_FOUND)", ONCE),
        row("QUERY_ERROR under 429", envelope(429, "QUERY_ERROR"), "FAILED (QUERY_ERROR: QUERY_ERROR)", ONCE),
        row("FAILURE beside PERMISSION_DENIED", beside_failure(200, "PERMISSION_DENIED"), "FAILED (PERMISSION_DENIED)", ONCE),
        row("FAILURE beside LICENSE_EXPIRED", beside_failure(403, "LICENSE_EXPIRED"), "FAILED (LICENSE_EXPIRED)", ONCE),
        row("FAILURE beside an unknown code", beside_failure(500, "INTERNAL_ERROR"), "FAILED (INTERNAL_ERROR)", ONCE),
        row("FAILURE under 500", text(500, r#"{"meta":{"status_code":"FAILURE"}}"#), "FAILED ()", ONCE),
        row("every job denied", envelope(500, "PERMISSION_DENIED"), "UNAVAILABLE", DENIED),
        row("every job over its rows", envelope(403, "LICENSE_ROW_LIMIT_EXCEEDED"), "UNAVAILABLE", DENIED),
        row("every job over its accounts", envelope(403, "LICENSE_ACCOUNT_LIMIT_EXCEEDED"), "UNAVAILABLE", DENIED),
        row("every job over a limit without a row", envelope(403, "LICENSE_FIELD_LIMIT_EXCEEDED"), "UNAVAILABLE", DENIED),
        row("queries suspended", envelope(403, "LICENSE_QUERIES_SUSPENDED"), "UNAVAILABLE", DENIED),
        row("no license", envelope(500, "LICENSE_NOT_FOUND"), "UNAVAILABLE", DENIED),
        row("our address is refused", envelope(403, "ACCESS_DENIED_IP"), "UNAVAILABLE", ONCE),
        row("one query's limit", waiting("LICENSE_ROW_LIMIT_EXCEEDED"), "THROTTLED after 7s", ONCE),
        row("500 with another code", envelope(500, "INTERNAL_ERROR"), "UNAVAILABLE", RETRIED),
        row("another code inside a 200", envelope(200, "INTERNAL_ERROR"), "UNAVAILABLE", RETRIED),
        row("an error that is a text", text(200, r#"{"error":"oops"}"#), "UNAVAILABLE", RETRIED),
        row("problem details inside a 200", text(200, r#"{"title":"T","status":500}"#), "UNAVAILABLE", RETRIED),
        row("a failure without a reason", word("FAILURE"), "FAILED ()", ONCE),
        row("a process that exited", word("PROCESS_EXITED"), "FAILED ()", ONCE),
        row("stopped", word("STOPPED"), "CANCELED", ONCE),
        row("scheduled", word("SCHEDULED"), "QUEUED", ONCE),
        row("queued in small letters", word("queued"), "QUEUED", ONCE),
        row("an unknown word", word("PAUSED"), "UNKNOWN (PAUSED)", ONCE),
        row("no word", FaultKind::remove("/meta/status_code"), "BAD_ANSWER", ONCE),
        row("no meta", FaultKind::set("/meta", json!(null)), "BAD_ANSWER", ONCE),
        row("the id is an object", FaultKind::set("/meta/schedule_id", json!({})), "RUNNING", ONCE),
        row("another id", FaultKind::set("/meta/schedule_id", json!("another")), "BAD_ANSWER", ONCE),
        row("null data", FaultKind::set("/data", json!(null)), "RUNNING", ONCE),
        row("no data", FaultKind::remove("/data"), "RUNNING", ONCE),
        row("progress 0 of 0", FaultKind::set("/meta/progress/queries_total", json!(0)), "RUNNING", ONCE),
        row(
            "numbers no integer holds",
            text(
                200,
                r#"{"meta":{"status_code":"RUNNING","progress":{"queries_ready":1e400,"queries_total":18446744073709551616},"workflow":{"tasks_running":-1e400}}}"#,
            ),
            "RUNNING",
            ONCE,
        ),
        row("the id in another case", FaultKind::splice("\"new\"", b"\"NEW\""), "RUNNING", ONCE),
        row("an empty list for an error", FaultKind::set("/error", json!([])), "RUNNING", ONCE),
        row("an empty object for an error", FaultKind::set("/error", json!({})), "RUNNING", ONCE),
        row("an empty text for an error", FaultKind::set("/error", json!("")), "RUNNING", ONCE),
        row("an error without code and message", FaultKind::set("/error", json!({"code": 0, "message": ""})), "RUNNING", ONCE),
        row("empty values for structures", text(200, r#"{"error":false,"meta":{"status_code":"SUCCESS","progress":[],"workflow":"","query":false,"result":[],"paginate":[]},"data":[]}"#), "SUCCEEDED", ONCE),
        row("an empty list for the meta", text(200, r#"{"meta":[],"data":[]}"#), "BAD_ANSWER", ONCE),
        row("a latin-1 byte in a text", FaultKind::splice("\"request_id\":\"", b"\"request_id\":\"caf\xE9"), "RUNNING", ONCE),
        row("half a character in a text", FaultKind::splice("\"request_id\":\"", br#""request_id":"\ud800"#), "RUNNING", ONCE),
        row("numbers as text", text(200, r#"{"meta":{"status_code":"RUNNING","progress":{"queries_ready":"1","queries_total":"2"}}}"#), "RUNNING", ONCE),
        row("more sub-queries than an Int holds", FaultKind::set("/meta/progress/queries_total", json!(4_294_967_297_u64)), "RUNNING", ONCE),
        row("a failure with a reason in meta.error", text(200, r#"{"meta":{"status_code":"FAILURE","error":{"code":"QUERY_X","message":"why"}}}"#), "FAILED (QUERY_X: why)", ONCE),
        row("a failure with a reason in meta.error_info", text(200, r#"{"meta":{"status_code":"FAILURE","error_info":"why"}}"#), "FAILED (why)", ONCE),
        row("a failure with a reason in error_info", text(200, r#"{"meta":{"status_code":"FAILURE"},"error_info":{"code":"QUERY_X","message":"why"}}"#), "FAILED (QUERY_X: why)", ONCE),
        row("a failure with a text in error_info", text(200, r#"{"meta":{"status_code":"FAILURE"},"error_info":"why"}"#), "FAILED (why)", ONCE),
        // the ends 0 and 1 return the same wide row
        row("a row that is too wide", wide(r#"{"meta":{"status_code":"SUCCESS"},"data":[[""#, r#""]]}"#), "SUCCEEDED", (2, 2..=2)),
        row("a wide row before the meta", wide(r#"{"data":[[""#, r#""]],"meta":{"status_code":"SUCCESS"}}"#), "BAD_ANSWER", (3, 3..=3)),
        row("progress of another form", FaultKind::set("/meta/progress", json!([1, 2])), "RUNNING", ONCE),
    ]);
    rows
}

/// A batch of three of which no part can be read by a query: three, two, and each alone; then a read of each.
const SPLIT: (usize, usize) = (5, 3);

/// The same after three tries of the batch, and a read that checks whether the source answers.
const SICK: (usize, usize) = (7, 4);

type QueryRow = (&'static str, FaultKind, [&'static str; 3], (usize, usize));

/// MindBridge, reading many jobs in one request. Two run, and the third does not exist.
pub(crate) fn mindbridge_query() -> Vec<QueryRow> {
    let good = ["RUNNING", "RUNNING", "NOT_FOUND after 5s"];
    let page = |text: &str| self::text(200, text);
    vec![
        ("an id that is absent is confirmed", FaultKind::PageSize { size: 100 }, good, (1, 1)),
        ("pages of one", FaultKind::PageSize { size: 1 }, good, (2, 1)),
        ("left out, but there", FaultKind::Omit { ids: vec!["new".to_owned()] }, good, (1, 2)),
        ("403: one by one", FaultKind::problem(403, "FORBIDDEN"), good, (1, 3)),
        ("404: one by one", FaultKind::problem(404, "NOT_FOUND"), good, (1, 3)),
        ("405: one by one", FaultKind::problem(405, "METHOD_NOT_ALLOWED"), good, (1, 3)),
        ("410: one by one", FaultKind::problem(410, "GONE"), good, (1, 3)),
        ("404 of an ingress", FaultKind::no_route(404), ["BAD_ANSWER"; 3], (1, 0)),
        ("404 empty", status(404), ["BAD_ANSWER"; 3], (1, 0)),
        ("405 as a page", FaultKind::html(405), ["BAD_ANSWER"; 3], (1, 0)),
        (
            "an item without a status",
            FaultKind::remove("/content/0/status"),
            ["BAD_ANSWER", "RUNNING", "NOT_FOUND after 5s"],
            (1, 1),
        ),
        ("ids that are objects", FaultKind::set("/content/*/id", json!({})), good, (1, 3)),
        ("no content on the page", page(r#"{"content":[],"totalPages":9}"#), good, (1, 3)),
        ("a wrong number of pages", FaultKind::set("/totalPages", json!(u64::MAX)), good, (2, 1)),
        ("429", throttled(RetryAfter::Seconds(7)), ["THROTTLED after 7s"; 3], (1, 0)),
        ("401", status(401), ["CREDENTIAL_REJECTED"; 3], (1, 0)),
        ("400", FaultKind::problem(400, "BAD_REQUEST"), good, SPLIT),
        ("413", FaultKind::html(413), good, SPLIT),
        ("422", status(422), good, SPLIT),
        ("502", FaultKind::html(502), good, SICK),
        ("half a document", FaultKind::MalformedJson, good, SPLIT),
        ("a page", FaultKind::html(200), ["BAD_ANSWER"; 3], (1, 0)),
        ("half the promised body", FaultKind::TruncatedBody, good, SICK),
        ("no content at all", FaultKind::remove("/content"), good, SPLIT),
        ("a list", page("[]"), ["BAD_ANSWER"; 3], (1, 0)),
        ("2 MiB", FaultKind::OversizedBody { bytes: 2 << 20 }, good, SPLIT),
        ("a redirect", FaultKind::Redirect { to: "/elsewhere".to_owned() }, ["BAD_ANSWER"; 3], (1, 0)),
    ]
}
