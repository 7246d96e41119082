//! `jwt`: trusted issuers of signed tokens, where their public keys are, and what their tokens may read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use url::Url;

use super::read::nearest;
use super::sources::is_loopback;
use super::validation::ValidationErrors;
use super::values::words;
use crate::domain::id::SourceName;

/// Longest issuer, audience and name of a claim, in bytes.
const TEXT_MAX: usize = 200;
/// Most scopes of a sign-in.
const SCOPES_MAX: usize = 20;

/// A trusted issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IssuerConfig {
    /// Required value of `iss`: 1 to 200 visible ASCII characters without `#`, `"` and `\`.
    pub issuer: String,
    /// Accepted values of `aud`.
    pub audience: Vec<String>,
    /// Where its public keys are.
    pub jwks: JwksRef,
    /// Accepted signing algorithms, all asymmetric.
    pub algorithms: Vec<SigningAlgorithm>,
    /// The claim with the client's name for logs and limits.
    pub name_claim: String,
    /// The sources that its tokens may read.
    #[serde(serialize_with = "as_names")]
    pub sources: BTreeSet<SourceName>,
    /// The claim with a list of sources that restricts `sources` for one token. None: every token may read all of them.
    pub sources_claim: Option<String>,
    /// How people sign in on the live page with it. None: they paste a token.
    pub login: Option<LoginConfig>,
}

/// The sign-in of the live page at an issuer: the authorization code flow of OpenID Connect, with PKCE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginConfig {
    /// The public client that the page is at the issuer.
    pub client_id: String,
    /// The requested scopes.
    pub scopes: Vec<String>,
}

/// Where an issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JwksRef {
    /// Fetched from this URL: https, or http to a loopback address.
    #[serde(serialize_with = "super::values::shown")]
    Url(Url),
    /// Read from this file.
    File(PathBuf),
}

words! {
    /// An asymmetric signing algorithm of RFC 7518 or RFC 8037.
    #[derive(Hash)]
    pub enum SigningAlgorithm {
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        Rs256 = "RS256",
        /// RSASSA-PKCS1-v1_5 with SHA-384.
        Rs384 = "RS384",
        /// RSASSA-PKCS1-v1_5 with SHA-512.
        Rs512 = "RS512",
        /// RSASSA-PSS with SHA-256.
        Ps256 = "PS256",
        /// RSASSA-PSS with SHA-384.
        Ps384 = "PS384",
        /// RSASSA-PSS with SHA-512.
        Ps512 = "PS512",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
        /// ECDSA on P-384 with SHA-384.
        Es384 = "ES384",
        /// Ed25519.
        EdDsa = "EdDSA",
    } else "must be RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA; other algorithms are not supported"
}

/// An issuer of tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Issuer", extend("required" = ["issuer", "audience", "jwks", "sources"]))]
pub(super) struct RawIssuer {
    /// Required value of the claim `iss`, compared exactly.
    #[schemars(required)]
    issuer: Option<String>,
    /// Accepted values of the claim `aud`: a string, or a list of which one must match.
    #[schemars(required)]
    audience: Option<Texts>,
    /// Where the public keys are: exactly one of `url` and `file`.
    #[schemars(required)]
    jwks: Option<RawJwks>,
    /// Accepted signing algorithms, of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384` and `EdDSA`.
    algorithms: Algorithms,
    /// The claim with the client's name for logs and limits. A token is refused unless the value of the claim is 1 to 128
    /// visible ASCII characters without `"` and `\`.
    name_claim: String,
    /// Names of the sources that the issuer's tokens may read.
    #[schemars(required)]
    sources: Option<Vec<String>>,
    /// The claim with a list of sources. A token may read the sources that are both in the claim and in `sources`. A token
    /// without the claim is refused. Null: every token may read all of `sources`.
    sources_claim: Option<String>,
    /// The sign-in of the live page at this issuer: OpenID Connect, authorization code with PKCE. Null: people paste a token.
    login: Option<RawLogin>,
}

/// The sign-in of the live page at an issuer, which must be a URL then.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Login", extend("required" = ["client_id"]))]
struct RawLogin {
    /// The id of the public client that is registered at the issuer, with the URL of the live page as its redirect URI.
    #[schemars(required)]
    client_id: Option<String>,
    /// The requested scopes.
    scopes: Vec<String>,
}

impl Default for RawLogin {
    fn default() -> Self {
        Self { client_id: None, scopes: vec!["openid".to_owned()] }
    }
}

/// Reference to keys: exactly one of `url` and `file`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a reference to keys, { url: https://… } or { file: /path }")]
#[schemars(rename = "Jwks", extend("minProperties" = 1, "maxProperties" = 1))]
struct RawJwks {
    /// URL of the key set: https, or http to a loopback address.
    url: Option<String>,
    /// Path of a file with the key set. It starts with `/`, `./` or `../`.
    file: Option<String>,
}

impl Default for RawIssuer {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            jwks: None,
            algorithms: Algorithms(vec![
                SigningAlgorithm::Rs256,
                SigningAlgorithm::Es256,
                SigningAlgorithm::EdDsa,
            ]),
            name_claim: "sub".to_owned(),
            sources: None,
            sources_claim: None,
            login: None,
        }
    }
}

/// Checks all issuers together: none may repeat.
pub(super) fn accept(
    raw: Vec<RawIssuer>,
    known: &BTreeSet<String>,
    faults: &mut ValidationErrors,
) -> Vec<IssuerConfig> {
    let mut seen = BTreeMap::new();
    let mut issuers = Vec::new();
    for (index, issuer) in raw.into_iter().enumerate() {
        let path = format!("jwt[{index}]");
        if let Some(name) = &issuer.issuer {
            let path = format!("{path}.issuer");
            if !is_issuer(name) {
                faults.add(path, "must be 1 to 200 visible ASCII characters without #, \" and \\");
            } else if let Some(first) = seen.insert(name.clone(), index) {
                faults.add(path, format!("is also the issuer of jwt[{first}]: put both in one entry"));
            }
        }
        issuers.extend(issuer.accept(&path, known, faults));
    }
    issuers
}

impl RawIssuer {
    fn accept(
        self,
        path: &str,
        known: &BTreeSet<String>,
        faults: &mut ValidationErrors,
    ) -> Option<IssuerConfig> {
        if self.issuer.is_none() {
            faults.add(format!("{path}.issuer"), "is missing: set the iss claim of the tokens");
        }
        if self.audience.is_none() {
            let message = "is missing: set the aud claim of tokens for jobgate";
            faults.add(format!("{path}.audience"), message);
        }
        let at = format!("{path}.jwks");
        let jwks = if let Some(jwks) = self.jwks {
            jwks.accept(&at, faults)
        } else {
            faults.add(at, "is missing: set { url: https://… } or { file: /path }");
            None
        };
        for (claim, name) in
            [("name_claim", Some(&self.name_claim)), ("sources_claim", self.sources_claim.as_ref())]
        {
            if name.is_some_and(|name| !(1..=TEXT_MAX).contains(&name.len())) {
                faults.add(format!("{path}.{claim}"), "must be the name of a claim, such as sub");
            }
        }
        let sources = sources(self.sources, &format!("{path}.sources"), known, faults);
        let login = self.login.and_then(|login| {
            let path = format!("{path}.login");
            if self.issuer.as_deref().is_some_and(|issuer| login_origin(issuer).is_none()) {
                let message =
                    "needs an issuer that is a URL: https, or http to a loopback address, without query";
                faults.add(path.clone(), message);
            }
            login.accept(&path, faults)
        });
        Some(IssuerConfig {
            issuer: self.issuer?,
            audience: self.audience?.0,
            jwks: jwks?,
            algorithms: self.algorithms.0,
            name_claim: self.name_claim,
            sources,
            sources_claim: self.sources_claim,
            login,
        })
    }
}

impl RawLogin {
    fn accept(self, path: &str, faults: &mut ValidationErrors) -> Option<LoginConfig> {
        let is_word = |text: &String| {
            (1..=TEXT_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
        };
        let client_id = self.client_id.filter(is_word);
        if client_id.is_none() {
            let message = "must be the id of the page at the issuer: 1 to 200 visible ASCII characters";
            faults.add(format!("{path}.client_id"), message);
        }
        if !(1..=SCOPES_MAX).contains(&self.scopes.len()) || !self.scopes.iter().all(is_word) {
            let message = "must be a list of 1 to 20 scopes, such as [openid]";
            faults.add(format!("{path}.scopes"), message);
        }
        Some(LoginConfig { client_id: client_id?, scopes: self.scopes })
    }
}

/// The origin of an issuer that is a URL, for a content security policy. None for any other name.
pub fn login_origin(issuer: &str) -> Option<String> {
    let url = Url::parse(issuer).ok()?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    (is_plain && is_safe).then(|| url.origin().ascii_serialization())
}

impl RawJwks {
    fn accept(self, path: &str, faults: &mut ValidationErrors) -> Option<JwksRef> {
        match (self.url, self.file) {
            (Some(url), None) => return address(&url, &format!("{path}.url"), faults),
            (None, Some(file)) if ["/", "./", "../"].iter().any(|start| file.starts_with(start)) => {
                return Some(JwksRef::File(Path::new(&file).to_owned()));
            }
            (None, Some(_)) => {
                faults.add(format!("{path}.file"), "must be a path that starts with /, ./ or ../");
            }
            (None, None) => faults.add(path, "is empty: set { url: https://… } or { file: /path }"),
            (Some(_), Some(_)) => faults.add(path, "has both url and file: keep one"),
        }
        None
    }
}

fn address(text: &str, path: &str, faults: &mut ValidationErrors) -> Option<JwksRef> {
    let message = match Url::parse(text) {
        Err(_) => "must be a URL such as https://login.example/.well-known/jwks.json",
        Ok(url) if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() => {
            "must not contain a user, a password or a fragment"
        }
        Ok(url) if url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url) => {
            return Some(JwksRef::Url(url));
        }
        Ok(_) => "must start with https://, so that the keys cannot be replaced in transit",
    };
    faults.add(path, message);
    None
}

fn sources(
    listed: Option<Vec<String>>,
    path: &str,
    known: &BTreeSet<String>,
    faults: &mut ValidationErrors,
) -> BTreeSet<SourceName> {
    let listed = listed.unwrap_or_default();
    if listed.is_empty() {
        faults.add(path, "is missing: list at least one source that the tokens may read");
    }
    let mut sources = BTreeSet::new();
    for (index, name) in listed.iter().enumerate() {
        if known.contains(name) {
            sources.extend(SourceName::parse(name));
            continue;
        }
        let message = match nearest(name, known.iter().map(String::as_str)) {
            Some(nearest) => format!("names a source that is not configured; did you mean {nearest}?"),
            None => "names a source that is not configured".to_owned(),
        };
        faults.add(format!("{path}[{index}]"), message);
    }
    sources
}

/// The issuer is the part before the `#` in the names of its clients, for example in logs.
fn is_issuer(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'\\');
    (1..=TEXT_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// One text or a list of them, none empty.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let list = value.as_array().map_or_else(|| std::slice::from_ref(&value), Vec::as_slice);
        let text = |value: &Value| {
            let text = value.as_str().filter(|text| (1..=TEXT_MAX).contains(&text.len()));
            text.map(str::to_owned)
        };
        let texts = list.iter().map(text).collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty());
        texts.map(Self).ok_or_else(|| D::Error::custom("must be a string or a non-empty list of strings"))
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = json_schema!({ "type": "string", "minLength": 1, "maxLength": TEXT_MAX });
        json_schema!({ "anyOf": [text, { "type": "array", "minItems": 1, "items": text }] })
    }
}

/// The algorithms of one issuer, at least one.
struct Algorithms(Vec<SigningAlgorithm>);

impl<'de> Deserialize<'de> for Algorithms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let listed = value.as_array().filter(|list| !list.is_empty());
        let listed = listed.ok_or_else(|| D::Error::custom("must be a list of at least one algorithm"))?;
        let read = listed.iter().map(SigningAlgorithm::deserialize).collect::<Result<Vec<_>, _>>();
        read.map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Algorithms {
    fn schema_name() -> Cow<'static, str> {
        "Algorithms".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = SigningAlgorithm::json_schema(generator);
        json_schema!({ "type": "array", "minItems": 1, "items": word })
    }
}

fn as_names<S: Serializer>(names: &BTreeSet<SourceName>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(SourceName::as_str))
}
