//! The reference to a source's credential, a file or an environment variable, and its expiry. The secret is not part of the
//! configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validation::ValidationErrors;
use super::values::Moment;
use crate::domain::upstream::{CredentialForm, Profile, Upstream, names_of};

/// The credential of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CredentialConfig {
    /// Its form, and the reference to the secret.
    #[serde(flatten)]
    pub form: CredentialRef,
    /// Expiry of the secret that the process starts with. It does not apply to a later secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The form of a source's credential, and the reference to the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialRef {
    /// Sent as `Authorization: Bearer …`.
    Bearer(SecretRef),
    /// Sent as the parameter `api_key` (Supermetrics only).
    ApiKey(SecretRef),
}

impl CredentialRef {
    /// The reference to the secret.
    pub const fn secret(&self) -> &SecretRef {
        match self {
            Self::Bearer(secret) | Self::ApiKey(secret) => secret,
        }
    }
}

/// A reference to a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// The content of a file.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// The credential: exactly one of `bearer` and `api_key`, and its expiry.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "bearer or api_key with a reference, never the secret itself")]
#[schemars(rename = "Credential", extend("oneOf" = [{ "required": ["bearer"] }, { "required": ["api_key"] }]))]
pub(super) struct RawCredential {
    /// Sent as `Authorization: Bearer …`.
    bearer: Option<RawSecretRef>,
    /// Sent as the query parameter `api_key` (Supermetrics only), so it is part of the URL. Prefer `bearer`.
    api_key: Option<RawSecretRef>,
    /// Expiry of the secret that jobgate starts with, as a date and time with its zone: `2027-01-31T00:00:00Z`. Not needed
    /// for a JWT, which contains its expiry. It does not apply to a later secret. Null: unknown, unless the secret is a JWT.
    #[serde(default, with = "Moment")]
    expires_at: Option<Timestamp>,
}

/// Reference to a secret: exactly one of `file` and `env`.
#[derive(Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "a reference, { file: /path } or { env: NAME }, never the secret itself"
)]
#[schemars(rename = "SecretReference", extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct RawSecretRef {
    /// Path of a file that contains only the secret; it starts with `/`, `./` or `../`. White space around the secret is
    /// ignored.
    file: Option<String>,
    /// Name of an environment variable that contains the secret: A-Z, 0-9 and _.
    env: Option<String>,
}

impl RawCredential {
    /// Checks the credential at `path`, also against the forms that its upstream accepts.
    pub(super) fn accept(
        self,
        path: &str,
        upstream: Option<Upstream>,
        faults: &mut ValidationErrors,
    ) -> Option<CredentialConfig> {
        let expires_at = self.expires_at;
        let form = self.form(path, upstream, faults)?;
        Some(CredentialConfig { form, expires_at })
    }

    fn form(
        self,
        path: &str,
        upstream: Option<Upstream>,
        faults: &mut ValidationErrors,
    ) -> Option<CredentialRef> {
        let takes_key = |profile: &Profile| profile.credential_forms.contains(&CredentialForm::ApiKey);
        match (self.bearer, self.api_key) {
            (Some(secret), None) => {
                secret.accept(&format!("{path}.bearer"), faults).map(CredentialRef::Bearer)
            }
            (None, Some(secret)) => {
                let path = format!("{path}.api_key");
                if upstream.is_some_and(|upstream| !takes_key(upstream.profile())) {
                    faults.add(
                        path,
                        format!("is supported for {} only: use bearer", names_of("and", takes_key)),
                    );
                    return None;
                }
                secret.accept(&path, faults).map(CredentialRef::ApiKey)
            }
            (None, None) => {
                faults.add(path, "is empty: set bearer or api_key to { file: /path } or { env: NAME }");
                None
            }
            (Some(_), Some(_)) => {
                faults.add(path, "has both bearer and api_key: keep one");
                None
            }
        }
    }
}

impl RawSecretRef {
    pub(super) fn accept(self, path: &str, faults: &mut ValidationErrors) -> Option<SecretRef> {
        // Both rules prevent that a secret pasted in place of its name is printed as a name.
        match (self.file, self.env) {
            (Some(file), None) if ["/", "./", "../"].iter().any(|start| file.starts_with(start)) => {
                return Some(SecretRef::File(Path::new(&file).to_owned()));
            }
            (None, Some(env)) if is_variable(&env) => return Some(SecretRef::Env(env)),
            (Some(_), None) => {
                faults.add(
                    format!("{path}.file"),
                    "must be a path that starts with /, ./ or ../, never the secret itself",
                );
            }
            (None, Some(_)) => faults.add(
                format!("{path}.env"),
                "must be the name of an environment variable (A-Z, 0-9 and _), never the secret itself",
            ),
            (None, None) => faults.add(path, "is empty: set { file: /path } or { env: NAME }"),
            (Some(_), Some(_)) => faults.add(path, "has both file and env: keep one"),
        }
        None
    }
}

fn is_variable(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(fits)
}
