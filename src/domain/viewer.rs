//! What a client may know of its own grants. The access check is made with the principal itself.

use std::collections::BTreeSet;

use super::id::{JobKey, SourceName};
use super::principal::{Grant, Principal, Scope};

/// A grant as its own client may know it. A client has at most one for each source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewerGrant {
    /// The source; `None` for every source.
    pub source: Option<SourceName>,
    /// The restrictions of the client within the source. Of a watch token: none, because those of the client that created it
    /// are not known to the holder.
    pub scope: Scope,
    /// The jobs of the source that a watch token can read; `None` for other credentials.
    pub jobs: Option<BTreeSet<JobKey>>,
}

impl ViewerGrant {
    /// All grants of a client, by source.
    pub fn all(principal: &Principal) -> Vec<Self> {
        let sources: BTreeSet<&SourceName> = match (&principal.credential().jobs, principal.grant()) {
            (Some(jobs), _) => jobs.iter().map(|job| &job.source).collect(),
            (None, Grant::Sources(sources)) => sources.keys().collect(),
            (None, Grant::All) => return vec![Self::default()],
        };
        sources.into_iter().filter_map(|source| Self::of(principal, source)).collect()
    }

    /// The grant of a client for a source; `None` if it may read none of its jobs.
    pub fn of(principal: &Principal, source: &SourceName) -> Option<Self> {
        if !principal.may_read(source) {
            return None;
        }
        let jobs = principal.credential().jobs.as_deref();
        Some(match (jobs, principal.grant()) {
            (Some(jobs), _) => Self {
                source: Some(source.clone()),
                scope: Scope::default(),
                jobs: Some(jobs.iter().filter(|job| job.source == *source).cloned().collect()),
            },
            (None, Grant::All) => Self::default(),
            (None, Grant::Sources(sources)) => Self {
                source: Some(source.clone()),
                scope: sources.get(source).cloned().unwrap_or_default(),
                jobs: None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::id::ExternalId;
    use crate::domain::principal::{CredentialInfo, CredentialKind};

    fn name(source: &str) -> SourceName {
        SourceName::parse(source).unwrap()
    }

    fn key(source: &str, id: &str) -> JobKey {
        JobKey { source: name(source), external_id: ExternalId::parse(id).unwrap() }
    }

    fn exports() -> Scope {
        Scope { kinds: ["EXPORT".to_owned()].into(), ..Scope::default() }
    }

    fn client() -> Principal {
        let sources = [(name("a"), Scope::default()), (name("b"), exports())];
        Principal::with_grant("client", Grant::Sources(Arc::new(sources.into())))
    }

    fn token_of(client: Principal, jobs: &[JobKey]) -> Principal {
        let jobs = Some(Arc::new(jobs.iter().cloned().collect()));
        client.with_credential(CredentialInfo {
            kind: CredentialKind::WatchToken,
            jobs,
            ..CredentialInfo::default()
        })
    }

    #[test]
    fn client_has_one_grant_for_each_source() {
        let client = client();
        let expected = [("a", Scope::default()), ("b", exports())].map(|(source, scope)| ViewerGrant {
            source: Some(name(source)),
            scope,
            jobs: None,
        });
        assert_eq!(ViewerGrant::all(&client), expected);
        assert_eq!(ViewerGrant::of(&client, &name("b")).as_ref(), expected.last());
        assert_eq!(ViewerGrant::of(&client, &name("c")), None);
    }

    #[test]
    fn without_clients_there_is_one_grant_for_every_source() {
        let local = Principal::local();
        assert_eq!(ViewerGrant::all(&local), [ViewerGrant::default()]);
        assert_eq!(ViewerGrant::of(&local, &name("a")), Some(ViewerGrant::default()));
    }

    #[test]
    fn watch_token_has_its_jobs_and_no_other_source_or_restriction() {
        let jobs = [key("b", "1"), key("b", "2"), key("c", "1")];
        let granted = |source: &str, jobs: &[JobKey]| ViewerGrant {
            source: Some(name(source)),
            scope: Scope::default(),
            jobs: Some(jobs.iter().cloned().collect()),
        };
        // its client may not read `c`
        assert_eq!(ViewerGrant::all(&token_of(client(), &jobs)), [granted("b", &jobs[..2])]);
        let local = token_of(Principal::local(), &jobs);
        assert_eq!(ViewerGrant::all(&local), [granted("b", &jobs[..2]), granted("c", &jobs[2..])]);
    }
}
