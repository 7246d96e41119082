//! The URL of a gateway: the rules for what a person may give, and the GraphQL endpoint below it.

use url::Url;

/// The GraphQL endpoint of the gateway at `base`. A trailing `/` changes nothing.
///
/// # Errors
/// The rule that the URL breaks. Never contains the URL: there may be a password in it.
pub(super) fn endpoint(base: Url) -> Result<Url, &'static str> {
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
        return Err("must start with https:// or http:// and name a host");
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err("must hold no user name or password; give the key as --key-file or JOBGATE_KEY");
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err("must hold no ? and no #; /graphql is added to it");
    }
    let mut endpoint = base;
    if let Ok(mut path) = endpoint.path_segments_mut() {
        path.pop_if_empty().push("graphql");
    }
    Ok(endpoint)
}
