//! The document of `/status` as a page for a person: first what needs attention, then each source, the load, and the rest.
//! Everything is made on the server; the page has no script and loads nothing.

use std::fmt::Write as _;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde_json::Value;

/// The page contains its own style, and may load nothing.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const STYLE: &str = include_str!("status.css");

/// What a state means to an operator; the colour and the icon of its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    /// As it should be.
    Good,
    /// It passes by itself, or can wait.
    Wait,
    /// It needs an operator.
    Bad,
    /// Nothing happened yet.
    Idle,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Wait => "wait",
            Self::Bad => "bad",
            Self::Idle => "idle",
        }
    }

    /// An icon beside the word, so that the colour is not the only sign.
    const fn icon(self) -> &'static str {
        match self {
            Self::Good => "M2 6l3 3 5-6",
            Self::Wait => "M6 2v5M6 9v1",
            Self::Bad => "M3 3l6 6M9 3l-6 6",
            Self::Idle => "M3 6h6",
        }
    }

    /// That of the health of a source.
    fn of_health(word: &str) -> Self {
        match word {
            "healthy" => Self::Good,
            "unknown" => Self::Idle,
            "throttled" => Self::Wait,
            _ => Self::Bad,
        }
    }

    /// That of the state of a credential.
    fn of_credential(word: &str) -> Self {
        match word {
            "active" => Self::Good,
            "pending_verification" => Self::Wait,
            _ => Self::Bad,
        }
    }
}

/// The response for a browser.
pub(super) fn response(document: &Value, now: Timestamp) -> Response {
    let mut response = page(document, now).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn page(document: &Value, now: Timestamp) -> String {
    let gateway = &document["jobgate"];
    let traffic = word(&gateway["traffic"]);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>jobgate: status</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head>\
         <body><header><h1>jobgate {}</h1>{}<span class=\"soft\">started {} ago</span>\
         <nav aria-label=\"Admin listener\"><a href=\"status\">Reload</a><a href=\"metrics\">Metrics</a></nav></header><main>",
        escaped(&word(&gateway["version"])),
        chip(if traffic == "ready" { Tone::Good } else { Tone::Bad }, &traffic),
        span(number(&gateway["uptimeSeconds"])),
    );
    attention(&mut html, document);
    sources(&mut html, &document["sources"], now);
    load(&mut html, document);
    rest(&mut html, document);
    writeln!(
        html,
        "<footer><p>As of {} UTC, of this process. As JSON: <code>curl -s ADDRESS/status</code></p></footer></main></body></html>",
        now.strftime("%Y-%m-%d %H:%M:%S")
    )
    .ok();
    html
}

/// What needs an operator, or soon will.
fn attention(html: &mut String, document: &Value) {
    let mut found: Vec<(bool, String)> = Vec::new();
    for source in list(&document["sources"]) {
        let (name, health) = (word(&source["name"]), word(&source["health"]));
        let tone = Tone::of_health(&health);
        if matches!(tone, Tone::Wait | Tone::Bad) {
            found.push((tone == Tone::Bad, format!("{name} is {}", spaced(&health))));
        }
        let credential = word(&source["credential"]);
        if Tone::of_credential(&credential) != Tone::Good {
            let message = format!("the credential of {name} is {}", spaced(&credential));
            found.push((Tone::of_credential(&credential) == Tone::Bad, message));
        }
        if source["discovery"]["trusted"] == Value::Bool(false) {
            found.push((
                false,
                format!("the lists of {name} are not trusted; its jobs are polled one by one"),
            ));
        }
    }
    if document["store"]["degraded"] == Value::Bool(true) {
        found.push((true, "the store cannot be written; jobs are kept in memory only".to_owned()));
    }
    for (field, what) in
        [("dropped", "records were dropped"), ("quarantined", "damaged store files were replaced")]
    {
        let count = number(&document["store"][field]);
        if count > 0 {
            found.push((true, format!("{} {what}", grouped(count))));
        }
    }
    if word(&document["lastReload"]["outcome"]) == "rejected" {
        found.push((true, "the newest configuration is invalid; an older one is active".to_owned()));
    }
    let errors = number(&document["log"]["errorsLastHour"]);
    if errors > 0 {
        found.push((true, format!("{} errors in the log of the last hour", grouped(errors))));
    }
    html.push_str("<h2>Needs attention</h2>");
    if found.is_empty() {
        write!(html, "<p>{}</p>", chip(Tone::Good, "nothing")).ok();
        return;
    }
    // the urgent ones first
    found.sort_by_key(|(urgent, _)| !urgent);
    html.push_str("<ul class=\"attention\">");
    for (urgent, message) in found {
        let class = if urgent { "" } else { " class=\"later\"" };
        write!(html, "<li{class}>{}</li>", escaped(&message)).ok();
    }
    html.push_str("</ul>");
}

fn sources(html: &mut String, sources: &Value, now: Timestamp) {
    html.push_str("<h2>Sources</h2><div class=\"cards sources\">");
    for source in list(sources) {
        let (name, health) = (escaped(&word(&source["name"])), word(&source["health"]));
        let upstream = escaped(&word(&source["upstream"]));
        let credential = word(&source["credential"]);
        let (limit, left) = (number(&source["callsPerHour"]), number(&source["callsLeftThisHour"]));
        let used = limit.saturating_sub(left);
        write!(
            html,
            "<section class=\"card\"><div class=\"top\"><h3>{name}</h3><span class=\"soft\">{upstream}</span>{}</div>\
             <meter min=\"0\" max=\"{}\" low=\"{}\" high=\"{}\" optimum=\"0\" value=\"{used}\" aria-label=\"Budget of {name}\"></meter>\
             <span class=\"soft\">{} of {} calls this hour, {} in flight</span><dl>",
            chip(Tone::of_health(&health), &spaced(&health)),
            limit.max(1),
            limit / 4 * 3,
            limit / 10 * 9,
            grouped(used),
            grouped(limit),
            grouped(number(&source["callsInFlight"])),
        )
        .ok();
        let expiry = until(&source["credentialExpiresAt"], now, "expires in", "expired");
        let shown = format!("{}{expiry}", spaced(&credential));
        row(html, "credential", &shown);
        if !source["throttledUntil"].is_null() {
            row(
                html,
                "throttled",
                until(&source["throttledUntil"], now, "for", "until a moment ago").trim_start_matches(", "),
            );
        }
        let discovery = &source["discovery"];
        if !discovery["lastSweepAt"].is_null() {
            row(html, "last list", &ago(&discovery["lastSweepAt"], now));
        }
        if discovery["enabled"] == Value::Bool(true) {
            row(html, "discovered", &format!("{} jobs", grouped(number(&discovery["jobsDiscovered"]))));
        }
        let error = &source["lastError"];
        if !error.is_null() {
            let shown = format!(
                "{}, {}: {}",
                ago(&error["at"], now),
                spaced(&word(&error["kind"])),
                word(&error["message"])
            );
            row(html, "last error", &shown);
        }
        html.push_str("</dl></section>");
    }
    html.push_str("</div>");
}

fn load(html: &mut String, document: &Value) {
    html.push_str("<h2>Load</h2><div class=\"cards\">");
    let streams = &document["streams"];
    let kinds = ["websocket", "sse", "multipart"].map(|kind| number(&streams[kind]));
    let [websocket, sse, multipart] = kinds.map(grouped);
    figure(
        html,
        "Open streams",
        kinds.iter().sum(),
        &format!("WebSocket {websocket}, SSE {sse}, multipart {multipart}"),
    );
    figure(html, "Followed jobs", number(&document["jobs"]["followed"]), "polled or swept until they end");
    for (title, field) in [("Requests", "requests"), ("Connections", "connections")] {
        let places = &document["load"][field];
        let most = format!("of at most {}", grouped(number(&places["atMost"])));
        figure(html, title, number(&places["underWay"]), &most);
    }
    html.push_str("</div>");
}

fn figure(html: &mut String, title: &str, value: u64, detail: &str) {
    write!(
        html,
        "<section class=\"card\"><h3>{title}</h3><span class=\"figure\">{}</span><span class=\"soft\">{}</span></section>",
        grouped(value),
        escaped(detail)
    )
    .ok();
}

fn rest(html: &mut String, document: &Value) {
    html.push_str("<h2>Store, log and configuration</h2><div class=\"cards\">");
    let store = &document["store"];
    let degraded = store["degraded"] == Value::Bool(true);
    card(html, "Store", Some(if degraded { (Tone::Bad, "degraded") } else { (Tone::Good, "ok") }));
    for (name, field) in [
        ("jobs on disk", "jobs"),
        ("bytes on disk", "bytes"),
        ("unwritten", "unwritten"),
        ("dropped", "dropped"),
        ("damaged", "damaged"),
        ("quarantined", "quarantined"),
    ] {
        row(html, name, &grouped(number(&store[field])));
    }
    html.push_str("</dl></section>");

    let log = &document["log"];
    card(html, "Log", None);
    let level = &log["level"];
    let restored = match number(&level["restoredInSeconds"]) {
        0 => String::new(),
        seconds => format!(", {} again in {}", word(&level["configured"]), span(seconds)),
    };
    row(html, "level", &format!("{}{restored}", word(&level["active"])));
    row(html, "errors, last hour", &grouped(number(&log["errorsLastHour"])));
    row(html, "warnings, last hour", &grouped(number(&log["warningsLastHour"])));
    row(html, "suppressed lines", &grouped(number(&log["linesSuppressed"])));
    row(html, "dropped lines", &grouped(number(&log["linesDropped"])));
    html.push_str("</dl></section>");

    let reload = &document["lastReload"];
    card(html, "Configuration", None);
    row(html, "started at", &clock_time(&document["jobgate"]["startedAt"]));
    let reloaded = if reload.is_null() {
        "not since the start".to_owned()
    } else {
        format!("{}, {} ago", word(&reload["outcome"]), span(number(&reload["secondsAgo"])))
    };
    row(html, "last reload", &reloaded);
    html.push_str("</dl></section></div>");
}

/// Opens a card with a list of rows.
fn card(html: &mut String, title: &str, state: Option<(Tone, &str)>) {
    let chip = state.map(|(tone, word)| chip(tone, word)).unwrap_or_default();
    write!(html, "<section class=\"card\"><div class=\"top\"><h3>{title}</h3>{chip}</div><dl>").ok();
}

fn row(html: &mut String, name: &str, value: &str) {
    write!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(value)).ok();
}

/// A word with its colour and icon.
fn chip(tone: Tone, text: &str) -> String {
    format!(
        "<span class=\"chip {}\"><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\"><path d=\"{}\"/></svg>{}</span>",
        tone.class(),
        tone.icon(),
        escaped(text)
    )
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("–").to_owned()
}

/// `credential_rejected` as a person writes it.
fn spaced(word: &str) -> String {
    word.replace('_', " ").to_lowercase()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// A number with its thousands apart: `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A time span in its two largest units: `3 h 12 min`.
fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let largest = UNITS.iter().position(|(size, _)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in UNITS.iter().skip(largest).take(2) {
        let count = rest / size;
        rest %= size;
        if count > 0 || parts.is_empty() {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join(" ")
}

/// A time of the document, to the second.
fn clock_time(time: &Value) -> String {
    let parsed = time.as_str().and_then(|time| time.parse::<Timestamp>().ok());
    parsed.map_or_else(|| "–".to_owned(), |time| format!("{} UTC", time.strftime("%Y-%m-%d %H:%M:%S")))
}

/// The seconds from `from` to a time of the document; negative if that is earlier.
fn distance(time: &Value, from: Timestamp) -> Option<i64> {
    let time: Timestamp = time.as_str()?.parse().ok()?;
    Some(time.as_second().saturating_sub(from.as_second()))
}

fn ago(time: &Value, now: Timestamp) -> String {
    distance(time, now)
        .map_or_else(|| "–".to_owned(), |seconds| format!("{} ago", span(seconds.min(0).unsigned_abs())))
}

/// How long it is until a time, after a comma; nothing without a time.
fn until(time: &Value, now: Timestamp, ahead: &str, over: &str) -> String {
    match distance(time, now) {
        None => String::new(),
        Some(seconds) if seconds > 0 => format!(", {ahead} {}", span(seconds.unsigned_abs())),
        Some(_) => format!(", {over}"),
    }
}

fn escaped(text: &str) -> String {
    let mut html = String::new();
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn source(health: &str, credential: &str) -> Value {
        json!({
            "name": "audit", "upstream": "mindbridge", "health": health, "credential": credential,
            "credentialExpiresAt": "2026-01-03T01:00:00Z", "callsInFlight": 2, "callsLeftThisHour": 1950,
            "callsPerHour": 5000, "throttledUntil": null, "lastError": null,
            "discovery": { "enabled": true, "lastSweepAt": "2025-12-31T23:59:57Z", "trusted": true, "jobsDiscovered": 1234 },
        })
    }

    fn shown(document: &Value) -> String {
        page(document, now())
    }

    #[test]
    fn page_begins_with_what_needs_attention() {
        let quiet = json!({ "sources": [source("healthy", "active"), source("unknown", "active")] });
        assert!(shown(&quiet).contains("</svg>nothing</span>"), "{}", shown(&quiet));
        for (document, message) in [
            (json!({ "sources": [source("throttled", "active")] }), "<li class=\"later\">audit is throttled"),
            (
                json!({ "sources": [source("credential_rejected", "active")] }),
                "<li>audit is credential rejected",
            ),
            (json!({ "sources": [source("healthy", "missing")] }), "<li>the credential of audit is missing"),
            (json!({ "store": { "degraded": true } }), "<li>the store cannot be written"),
            (json!({ "store": { "dropped": 1200 } }), "<li>1,200 records were dropped"),
            (
                json!({ "lastReload": { "outcome": "rejected", "secondsAgo": 1 } }),
                "<li>the newest configuration is invalid",
            ),
            (json!({ "log": { "errorsLastHour": 3 } }), "<li>3 errors in the log"),
        ] {
            let page = shown(&document);
            assert!(page.contains(message) && !page.contains("</svg>nothing</span>"), "{message}: {page}");
        }
        let both = json!({ "sources": [source("throttled", "active"), source("unavailable", "active")] });
        let page = shown(&both);
        assert!(page.find("is unavailable") < page.find("is throttled"), "the urgent one is first");
    }

    #[test]
    fn page_shows_budget_expiry_and_list_of_a_source() {
        let page = shown(&json!({ "sources": [source("healthy", "active")] }));
        for part in [
            "3,050 of 5,000 calls this hour, 2 in flight",
            "active, expires in 2 d 1 h",
            "3 s ago",
            "1,234 jobs",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn page_escapes_messages_of_upstreams() {
        let mut failing = source("degraded", "active");
        failing["lastError"] = json!({ "at": "2025-12-31T23:00:00Z", "kind": "bad_answer", "message": "<script>alert('x')</script> & \"more\"" });
        failing["name"] = json!("\"><img src=x>");
        let page = shown(&json!({ "sources": [failing] }));
        assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
        assert!(
            page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;"),
            "{page}"
        );
    }

    #[test]
    fn page_of_an_empty_document_is_complete() {
        let page = shown(&Value::Null);
        assert!(page.ends_with("</body></html>\n") && page.contains("Followed jobs"), "{page}");
    }

    #[test]
    fn spans_and_numbers_are_written_for_people() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (90_061, "1 d 1 h"),
            (86_401, "1 d"),
        ] {
            assert_eq!(span(seconds), expected);
        }
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
