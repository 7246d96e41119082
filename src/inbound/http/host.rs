//! Determines the host of a request, by RFC 9112: in HTTP/1.1 it is in `Host`, and the authority of an absolute target
//! replaces it. From here on only `Host` contains it, so that all later checks use the same one.

use axum::extract::Request;
use http::uri::Authority;
use http::{HeaderValue, Uri, Version, header};

use super::error::{HttpRefusal, RefusalKind};

/// Copies the host from an absolute target, and checks that there is one.
///
/// # Errors
/// 400 if it is missing, sent twice, or not a host.
pub(super) fn settle(request: &mut Request) -> Result<(), HttpRefusal> {
    let bad = |message: &'static str| Err(HttpRefusal::new(RefusalKind::Unreadable, message));
    let mut sent = request.headers().get_all(header::HOST).iter();
    match (sent.next(), sent.next()) {
        (None, _) if request.version() < Version::HTTP_11 => {}
        (None, _) => return bad("the host header is missing; HTTP/1.1 requires it"),
        (Some(_), Some(_)) => return bad("the host header is sent twice; send it once"),
        (Some(host), None) if is_host(host) => {}
        (Some(_), None) => return bad("the host header must be a host with an optional port"),
    }
    let uri = request.uri();
    let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else { return Ok(()) };
    if authority.as_str().contains('@') {
        return bad("the request target must not contain user information");
    }
    let (Ok(host), Ok(target)) = (
        HeaderValue::try_from(authority.as_str()),
        Uri::try_from(uri.path_and_query().map_or("/", |target| target.as_str())),
    ) else {
        return bad("the request target is not a valid URL");
    };
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = target;
    Ok(())
}

/// An empty one is allowed: the target has no host then.
fn is_host(host: &HeaderValue) -> bool {
    // what nearly all clients send, without the parser
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let bytes = host.as_bytes();
    let name = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
    let (name, port) = bytes.split_at(name);
    if !name.is_empty() && name.iter().all(|byte| is_name(*byte)) && is_port(port) {
        return true;
    }
    let Ok(host) = host.to_str() else { return false };
    host.is_empty() || (!host.contains('@') && host.parse::<Authority>().is_ok())
}

/// Nothing, or a colon and a port.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    /// The target and the host of a request, unless it is refused.
    fn settled(version: Version, target: &str, hosts: &[&'static str]) -> Option<(String, String)> {
        let mut request = Request::new(Body::empty());
        *request.version_mut() = version;
        *request.uri_mut() = target.parse().unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_static(host));
        }
        settle(&mut request).ok().map(|()| {
            let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap());
            (request.uri().to_string(), host.unwrap_or_default().to_owned())
        })
    }

    #[test]
    fn request_needs_one_valid_host() {
        for (version, hosts, expected) in [
            (Version::HTTP_11, &["gw.example:80"][..], Some("gw.example:80")),
            (Version::HTTP_11, &[""], Some("")),
            (Version::HTTP_11, &[], None),
            (Version::HTTP_11, &["a", "a"], None),
            (Version::HTTP_11, &["a@b"], None),
            (Version::HTTP_11, &["a b"], None),
            (Version::HTTP_11, &["a, b"], None),
            (Version::HTTP_10, &[], Some("")),
            (Version::HTTP_10, &["a", "b"], None),
        ] {
            let expected = expected.map(|host| ("/graphql?a=b".to_owned(), host.to_owned()));
            assert_eq!(settled(version, "/graphql?a=b", hosts), expected, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn host_of_an_absolute_target_replaces_the_header() {
        for (target, hosts, expected) in [
            ("http://b.example/graphql", &["a"][..], Some(("/graphql", "b.example"))),
            ("http://[::1]:80/v1/x?y", &["a"], Some(("/v1/x?y", "[::1]:80"))),
            ("http://b.example", &["a"], Some(("/", "b.example"))),
            ("http://a@b.example/", &["b.example"], None),
            ("http://b.example/", &[], None),
        ] {
            let expected = expected.map(|(target, host)| (target.to_owned(), host.to_owned()));
            assert_eq!(settled(Version::HTTP_11, target, hosts), expected, "{target} {hosts:?}");
        }
    }
}
