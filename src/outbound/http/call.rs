//! An HTTP request to an upstream, and how it becomes a URL. Contains no secret, except the result of
//! [`UpstreamCall::url_with_key`].

use reqwest::Method;
use serde_json::{Map, Value};
use url::Url;

/// The base URL of a source: `http` or `https`, a host, perhaps a path; no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

/// What is wrong with a base URL. Never contains the URL: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Another scheme, or no host.
    #[error("must start with https:// or http:// and name a host")]
    Scheme,
    /// A user name or a password.
    #[error("must hold no user name or password; give the secret as the source's credential")]
    UserInfo,
    /// A query or a fragment.
    #[error("must hold no ? and no #; the gateway adds the parameters itself")]
    Query,
}

impl BaseUrl {
    /// Parses a URL as a base. A trailing `/` changes nothing.
    ///
    /// # Errors
    /// Returns an error if it has another scheme, a user name or password, a query or a fragment.
    pub fn new(url: Url) -> Result<Self, BaseUrlError> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            Err(BaseUrlError::Scheme)
        } else if !url.username().is_empty() || url.password().is_some() {
            Err(BaseUrlError::UserInfo)
        } else if url.query().is_some() || url.fragment().is_some() {
            Err(BaseUrlError::Query)
        } else {
            Ok(Self(url))
        }
    }
}

impl BaseUrl {
    /// The host and the port.
    pub(in crate::outbound) fn place(&self) -> (&str, u16) {
        (self.0.host_str().unwrap_or_default(), self.0.port_or_known_default().unwrap_or_default())
    }
}

/// The parameters of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum CallQuery {
    /// None.
    None,
    /// One parameter `json` that contains an object; an API key is added to it as `api_key`.
    Json(Map<String, Value>),
    /// Plain pairs.
    Pairs(Vec<(&'static str, String)>),
}

/// One segment of the path of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlSegment {
    /// A constant of the API. It is recorded as it is.
    Constant(&'static str),
    /// An id. It is not recorded.
    Id(String),
}

impl UrlSegment {
    /// The text that the path contains, before it is percent-encoded.
    fn text(&self) -> &str {
        match self {
            Self::Constant(word) => word,
            Self::Id(id) => id,
        }
    }
}

/// One request to an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamCall {
    /// The method; the adapters only read, with any method.
    pub method: Method,
    /// The base URL of the source.
    pub base: BaseUrl,
    /// Appended to the base, each as exactly one path segment.
    pub segments: Vec<UrlSegment>,
    /// The parameters.
    pub query: CallQuery,
    /// A JSON body.
    pub body: Option<Value>,
    /// The largest decoded body that is read, in bytes.
    pub max_body: usize,
    /// The id of the job, if the call is about one job.
    pub about: Option<String>,
}

impl UpstreamCall {
    /// The path behind the base, with `{id}` for each id.
    pub(in crate::outbound) fn template(&self) -> String {
        let segment = |segment: &UrlSegment| match segment {
            UrlSegment::Constant(word) => format!("/{word}"),
            UrlSegment::Id(_) => "/{id}".to_owned(),
        };
        self.segments.iter().map(segment).collect()
    }

    /// The URL without any credential; `None` when a segment would not stay one segment
    /// (`docs/adr/0006-validated-external-ids.md`).
    pub(super) fn url(&self) -> Option<Url> {
        match &self.query {
            CallQuery::None => self.path(),
            CallQuery::Json(object) => self.with_json(object),
            CallQuery::Pairs(pairs) => {
                let mut url = self.path()?;
                url.query_pairs_mut().extend_pairs(pairs);
                Some(url)
            }
        }
    }

    /// The URL with an API key, which makes it a secret; `None` if the call cannot carry a key.
    pub(super) fn url_with_key(&self, key: &str) -> Option<Url> {
        match &self.query {
            CallQuery::None | CallQuery::Pairs(_) => None,
            CallQuery::Json(object) => {
                let mut object = object.clone();
                object.insert("api_key".to_owned(), Value::from(key));
                self.with_json(&object)
            }
        }
    }

    fn with_json(&self, object: &Map<String, Value>) -> Option<Url> {
        let text = serde_json::to_string(object).ok()?;
        let mut url = self.path()?;
        url.query_pairs_mut().append_pair("json", &text);
        Some(url)
    }

    fn path(&self) -> Option<Url> {
        let mut url = self.base.0.clone();
        let mut path = url.path_segments_mut().ok()?;
        path.pop_if_empty();
        for segment in &self.segments {
            path.push(segment.text());
        }
        drop(path);
        // the parser drops "." and ".." and strips tabs and newlines; ids are validated before, and this is the second
        // check
        let written = url.path_segments()?.rev();
        let stays = self.segments.iter().rev().map(UrlSegment::text).zip(written).all(|(given, written)| {
            !given.is_empty() && !given.contains(['\t', '\n', '\r']) && !matches!(written, "." | "..")
        });
        let depth = |url: &Url| url.path_segments().map_or(0, |all| all.filter(|s| !s.is_empty()).count());
        (stays && depth(&url) == depth(&self.base.0) + self.segments.len()).then_some(url)
    }
}
