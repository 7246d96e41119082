//! A request as received, and its parsed form: parsed once, before anything is answered.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Auth, Endpoint, RecordedRequest, SimUpstream};

/// Headers that a correct client never sends to an upstream: each reveals something about our callers.
const NEVER_SENT: [&str; 6] = ["referer", "cookie", "origin", "forwarded", "x-forwarded-for", "x-api-key"];

/// A request with its whole body.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) peer: SocketAddr,
    /// The local address of the connection, which the links in answers contain.
    pub(super) local: SocketAddr,
}

impl Incoming {
    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The content of a request, its credential, and what is wrong with it.
pub(super) struct SimRequest {
    pub(super) upstream: SimUpstream,
    pub(super) endpoint: Endpoint,
    pub(super) path: String,
    pub(super) ids: Vec<String>,
    pub(super) page: Option<(u64, u64)>,
    pub(super) offsets: (Option<u64>, Option<u64>),
    /// The collection query's filter, if it is valid, or the parameters of the query history without the key.
    pub(super) filter: Option<Value>,
    /// Why the upstream rejects it with 400.
    pub(super) refusal: Option<String>,
    pub(super) wrong_method: bool,
    pub(super) bearer: Option<SecretString>,
    pub(super) api_key: Option<SecretString>,
    /// The local address of the connection, for links.
    pub(super) local: SocketAddr,
    auth: Auth,
    /// The number of the accepted credential in it.
    shown: Option<usize>,
    method: Method,
    violations: Option<String>,
}

impl SimRequest {
    /// Starts with the parts that are the same for both upstreams.
    pub(super) fn new(upstream: SimUpstream, incoming: &Incoming) -> Self {
        let mut question = Self {
            upstream,
            endpoint: Endpoint::Unexpected,
            path: incoming.path().to_owned(),
            ids: Vec::new(),
            page: None,
            offsets: (None, None),
            filter: None,
            refusal: None,
            wrong_method: false,
            bearer: None,
            api_key: None,
            local: incoming.local,
            auth: Auth::None,
            shown: None,
            method: incoming.method.clone(),
            violations: None,
        };
        for name in NEVER_SENT {
            if incoming.headers.contains_key(name) {
                question.violation(&format!("a {name} header"));
            }
        }
        if incoming.headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
            question.violation("two authorization headers");
        }
        if let Some(value) = incoming.header("authorization") {
            match value.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                    question.bearer = Some(SecretString::from(token));
                }
                _ => {
                    question.violation("an authorization header that is not a bearer token");
                    question.auth = Auth::Wrong;
                }
            }
        }
        question
    }

    /// Records what a correct client would not have done.
    pub(super) fn violation(&mut self, what: &str) {
        note(&mut self.violations, what);
    }

    pub(super) fn expect_method(&mut self, expected: &Method) {
        if self.method != *expected {
            self.wrong_method = true;
            self.violation("a method that is not expected here");
        }
    }

    /// Checks against the accepted credentials, each with its number. The header has precedence, as at the vendors.
    pub(super) fn authenticate(&mut self, accepted: &[(usize, SecretString)]) {
        let number = |given: &SecretString| {
            let right = |held: &&(usize, SecretString)| held.1.expose_secret() == given.expose_secret();
            accepted.iter().find(right).map(|(number, _)| *number)
        };
        (self.auth, self.shown) = match (&self.bearer, &self.api_key) {
            (Some(bearer), _) => match number(bearer) {
                Some(number) => (Auth::Bearer, Some(number)),
                None => (Auth::Wrong, None),
            },
            (None, Some(api_key)) => match number(api_key) {
                Some(number) => (Auth::ApiKey, Some(number)),
                None => (Auth::Wrong, None),
            },
            (None, None) => (self.auth, None),
        };
        if self.bearer.is_some() && self.api_key.is_some() {
            self.violation("both credentials at once");
        }
    }

    pub(super) fn auth_accepted(&self) -> bool {
        matches!(self.auth, Auth::Bearer | Auth::ApiKey)
    }

    /// The credential the client sent, right or wrong.
    pub(super) fn credential(&self) -> &str {
        self.bearer.as_ref().or(self.api_key.as_ref()).map_or("", ExposeSecret::expose_secret)
    }

    /// The entry for the record.
    pub(super) fn to_record(&self) -> RecordedRequest {
        RecordedRequest {
            upstream: self.upstream,
            endpoint: self.endpoint,
            method: self.method.to_string(),
            path: self.path.clone(),
            ids: self.ids.clone(),
            page: self.page,
            offsets: self.offsets,
            filter: self.filter.as_ref().filter(|_| self.endpoint == Endpoint::List).cloned(),
            auth: self.auth,
            credential: self.shown,
            violation: self.violations.clone(),
            fault: None,
            started: tokio::time::Instant::now(),
            ended: None,
            status: None,
        }
    }
}

impl fmt::Debug for SimRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SimRequest").field("request", &self.to_record()).finish_non_exhaustive()
    }
}

/// Adds a remark to a list of remarks, once.
pub(super) fn note(remarks: &mut Option<String>, what: &str) {
    match remarks {
        None => *remarks = Some(what.to_owned()),
        Some(existing) if existing.split("; ").any(|remark| remark == what) => {}
        Some(existing) => {
            existing.push_str("; ");
            existing.push_str(what);
        }
    }
}

/// Undoes percent-encoding. Invalid encodings stay; bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let encoded = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match encoded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_keeps_malformed_sequences() {
        for (sent, expected) in [
            ("abc", "abc"),
            ("a%2Fb", "a/b"),
            ("%2e%2E", ".."),
            ("100%", "100%"),
            ("%zz", "%zz"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode(sent), expected, "{sent}");
        }
    }
}
