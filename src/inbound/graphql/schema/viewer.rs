//! The client that sends a request, as it sees itself: never another client, a secret or a hash.

use async_graphql::{Enum, ID};

use crate::domain::principal::{self, Principal};
use crate::domain::viewer::ViewerGrant;

use crate::inbound::graphql::plan::output::{output_enum, output_object};

use super::label::Label;
use super::scalars::DateTime;

/// The ways in which a client can be authenticated.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(name = "AuthenticationMethod", remote = "principal::CredentialKind")]
pub enum GqlAuthenticationMethod {
    /// No credential is required, because neither clients nor issuers are configured.
    None,
    /// A client key.
    ClientKey,
    /// A JSON Web Token of a configured issuer.
    Jwt,
    /// A watch token, created with `createWatchToken`.
    WatchToken,
}

output_enum!(GqlAuthenticationMethod);

output_object! {
    /// The client that sends the request.
    #[derive(Clone, Debug)]
    pub struct GqlViewer = "Viewer" {
        /// The name of the client. With a JWT: the issuer, `#`, and the name in the token. With a watch token: the name of the
        /// client that created it. `local` if no credential is required.
        Free name: String,
        /// What the client is authenticated by.
        Free authenticated_by: GqlAuthenticationMethod,
        /// The date and time when the credential expires. Null if it does not expire.
        Free expires_at: Option<DateTime>,
        /// The grants of the client, ordered by source: at most one for each source.
        List(50) grants: Vec<GqlViewerGrant>,
    }
}

output_object! {
    /// A grant: the client is allowed to read the jobs that meet all of its conditions.
    #[derive(Clone, Debug)]
    pub struct GqlViewerGrant = "ViewerGrant" {
        /// The name of the source of the jobs. Null for jobs of every source.
        Free source: Option<String>,
        /// The kinds of job that are readable, verbatim. Null for jobs of every kind.
        List(100) kinds: Option<Vec<String>>,
        /// The labels that a job must have, all of them. Null for jobs with and without labels.
        List(16) labels: Option<Vec<Label>>,
        /// With a watch token: the global node IDs of its jobs. They are readable as long as the client that created the token
        /// is allowed to read them; its own conditions are not listed here. Null with any other credential.
        List(50) job_ids: Option<Vec<ID>>,
    }
}

impl GqlViewer {
    /// The client of a request.
    pub(in crate::inbound::graphql) fn of(principal: &Principal) -> Self {
        let credential = principal.credential();
        Self {
            name: principal.name().to_owned(),
            authenticated_by: credential.kind.into(),
            expires_at: credential.expires.map(DateTime),
            grants: ViewerGrant::all(principal).into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ViewerGrant> for GqlViewerGrant {
    fn from(grant: ViewerGrant) -> Self {
        let ViewerGrant { source, scope, jobs } = grant;
        let kinds: Vec<String> = scope.kinds.into_iter().collect();
        let labels: Vec<Label> =
            scope.labels.into_iter().map(|(name, value)| Label { name, value }).collect();
        Self {
            source: source.map(|source| source.as_str().to_owned()),
            kinds: Some(kinds).filter(|kinds| !kinds.is_empty()),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            job_ids: jobs.map(|jobs| jobs.iter().map(|job| ID(job.node_id())).collect()),
        }
    }
}
