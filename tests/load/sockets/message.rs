//! What the clients read of a message, and the messages of the bare broadcaster, which have the gateway's shape and length.

use jiff::Timestamp;

/// The request to both servers. The broadcaster answers it without reading it.
pub(super) const QUERY: &str = "subscription Watch($refs: [JobRef!]!) { jobUpdates(refs: $refs) { kind sequence isFinal \
    result { ... on Job { externalId state nativeState isTerminal freshness { observedAt ageMs isStale } } \
    ... on MindBridgeJob { version } } } }";

/// The part of an update that is checked and measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Update {
    /// Grows with each update of a job.
    pub(super) sequence: u64,
    /// The number of the change in it.
    pub(super) version: u64,
    /// Whether it is the last.
    pub(super) is_final: bool,
    /// When the change was detected.
    pub(super) observed_at: Timestamp,
}

impl Update {
    /// Reads an update. Searches for the fields by name: a JSON parser would cost more than the servers it measures.
    pub(super) fn read(text: &str) -> Option<Self> {
        let after = |name: &str| text.split_once(name).map(|(_, rest)| rest);
        let number = |name: &str| {
            let rest = after(name)?.trim_start_matches('"');
            rest.split(|one: char| !one.is_ascii_digit()).next()?.parse().ok()
        };
        Some(Self {
            sequence: number("\"sequence\":")?,
            version: number("\"version\":")?,
            is_final: after("\"isFinal\":")?.starts_with("true"),
            observed_at: after("\"observedAt\":\"")?.split('"').next()?.parse().ok()?,
        })
    }
}

/// An update as the gateway would write it, detected at this moment.
pub(super) fn render(job: u32, version: u64, is_final: bool, at: Timestamp) -> String {
    let (kind, state, native) = match (version, is_final) {
        (1, _) => ("SNAPSHOT", "RUNNING", "IN_PROGRESS"),
        (_, false) => ("CHANGED", "RUNNING", "IN_PROGRESS"),
        (_, true) => ("ENDED", "SUCCEEDED", "COMPLETE"),
    };
    format!(
        r#"{{"data":{{"jobUpdates":{{"kind":"{kind}","sequence":{version},"isFinal":{is_final},"result":{{"externalId":"{}","state":"{state}","nativeState":"{native}","isTerminal":{is_final},"freshness":{{"observedAt":"{at}","ageMs":0,"isStale":false}},"version":{version}}}}}}}}}"#,
        id(job)
    )
}

/// An id in the vendor's form: 24 hexadecimal digits.
pub(super) fn id(job: u32) -> String {
    format!("65f0c0ffee{job:014x}")
}
