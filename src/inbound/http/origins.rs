//! The origins of pages that may call from a browser. CORS does not restrict a WebSocket, nor a request whose response
//! the page need not read, so the gateway checks the origin itself.

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// Which origins may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Each in the form of a browser: `https://host` or `https://host:port`.
    pub allowed: Vec<String>,
    /// Whether the gateway listens on loopback. Then pages of this machine may call, and a matching host is no proof:
    /// another site can make its own name resolve to 127.0.0.1.
    pub loopback: bool,
}

impl Origins {
    /// Accepts requests without an origin, and those of an allowed origin. `secure` is whether the request came by
    /// `https`, if that is known: a page with the other scheme is another site.
    ///
    /// # Errors
    /// 403 for every other origin, `null` included.
    pub fn check(&self, headers: &HeaderMap, secure: Option<bool>) -> Result<(), HttpRefusal> {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = sent.next() else { return Ok(()) };
        let fits =
            origin.to_str().is_ok_and(|origin| self.may(origin, headers, secure)) && sent.next().is_none();
        if fits {
            return Ok(());
        }
        let message = "the origin is not allowed; add it to server.allowed_origins, or omit the \
            origin header outside a browser";
        Err(HttpRefusal::new(RefusalKind::OriginNotAllowed, message))
    }

    /// Accepts a request to a gateway without clients only if its host is this machine, or the host of an allowed page:
    /// a page of any site can make its own name resolve to 127.0.0.1, and could then read everything as the local
    /// client.
    ///
    /// # Errors
    /// 403 for every other `Host`.
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), HttpRefusal> {
        let mut sent = headers.get_all(header::HOST).iter();
        let Some(host) = sent.next() else { return Ok(()) };
        let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
        let ours = |host: &str| {
            is_this_machine(host)
                || self
                    .allowed
                    .iter()
                    .filter_map(|origin| parts(origin))
                    .any(|(_, listed)| listed.host().eq_ignore_ascii_case(host))
        };
        if host.is_some_and(|host| ours(host.host())) && sent.next().is_none() {
            return Ok(());
        }
        let message = "without clients the gateway accepts only localhost as host name; use it, or \
            add the origin to server.allowed_origins";
        Err(HttpRefusal::new(RefusalKind::OriginNotAllowed, message))
    }

    fn may(&self, origin: &str, headers: &HeaderMap, secure: Option<bool>) -> bool {
        if self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let Some((port, authority)) = parts(origin) else { return false };
        if secure.is_some_and(|secure| secure != (port == 443)) {
            return false;
        }
        if self.loopback {
            return is_this_machine(authority.host());
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        // if Host has no port, it is the one of the page's scheme
        host.is_some_and(|host| {
            host.host().eq_ignore_ascii_case(authority.host())
                && host.port_u16().unwrap_or(port) == authority.port_u16().unwrap_or(port)
        })
    }
}

/// The scheme's default port and the authority of a web origin, which has no path.
fn parts(origin: &str) -> Option<(u16, Authority)> {
    let (scheme, authority) = origin.split_once("://")?;
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let uri: Uri = authority.parse().ok()?;
    let authority = uri.authority().filter(|found| found.as_str() == authority)?;
    (!authority.as_str().contains('@')).then(|| (port, authority.clone()))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LISTED: &str = "https://app.example:8443";

    #[test]
    fn only_same_origin_and_listed_origins_are_allowed() {
        for (loopback, host, origin, may) in [
            (false, "gw.example", None, true),
            (false, "gw.example", Some("https://gw.example"), true),
            (false, "GW.example", Some("http://gw.example"), true),
            (false, "gw.example:8080", Some("http://gw.example:8080"), true),
            (false, "gw.example:443", Some("https://gw.example"), true),
            (false, "gw.example:8080", Some("http://gw.example"), false),
            (false, "gw.example", Some("https://gw.example:444"), false),
            (false, "gw.example", Some("https://gw.example.evil"), false),
            (false, "gw.example", Some("https://gw.example/"), false),
            (false, "gw.example", Some("https://evil@gw.example"), false),
            (false, "gw.example", Some("null"), false),
            (false, "gw.example", Some(""), false),
            (false, "gw.example", Some("file://gw.example"), false),
            (false, "gw.example", Some(LISTED), true),
            (false, "gw.example", Some("HTTPS://app.example:8443"), true),
            (false, "gw.example", Some("https://app.example"), false),
            (false, "gw.example", Some("http://localhost:3000"), false),
            (true, "127.0.0.1:8080", Some("http://localhost:3000"), true),
            (true, "127.0.0.1:8080", Some("http://127.0.0.1:8080"), true),
            (true, "127.0.0.1:8080", Some("http://[::1]:8080"), true),
            (true, "127.0.0.1:8080", Some("http://localhost.evil:3000"), false),
            (true, "127.0.0.1:8080", Some("http://127.0.0.1.evil"), false),
            (true, "127.0.0.1:8080", Some(LISTED), true),
            // a name that resolves to this machine
            (true, "evil.example:8080", Some("http://evil.example:8080"), false),
        ] {
            let origins = Origins { allowed: vec![LISTED.to_owned()], loopback };
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            headers.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin))));
            assert_eq!(origins.check(&headers, None).is_ok(), may, "{loopback} {host} {origin:?}");
        }
    }

    #[test]
    fn repeated_origin_header_is_refused() {
        for (loopback, host, origin) in [
            (false, "gw.example", "https://gw.example"),
            (false, "gw.example", LISTED),
            (true, "127.0.0.1:8080", "http://localhost:3000"),
            (true, "127.0.0.1:8080", LISTED),
        ] {
            let origins = Origins { allowed: vec![LISTED.to_owned()], loopback };
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            for _ in 0..2 {
                headers.append(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert!(origins.check(&headers, None).is_err(), "{origin}");
        }
    }
    #[test]
    fn without_clients_only_loopback_and_listed_hosts_are_allowed() {
        let origins = Origins { allowed: vec!["https://gw.example:8443".to_owned()], loopback: true };
        for (host, may) in [
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("app.localhost:1", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("gw.example:8443", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("evillocalhost", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(origins.check_host(&headers).is_ok(), may, "{host}");
        }
    }

    #[test]
    fn own_origin_with_a_different_scheme_is_refused() {
        let origins = Origins { allowed: vec!["http://listed.example".to_owned()], loopback: false };
        for (origin, secure, may) in [
            ("https://gw.example", None, true),
            ("http://gw.example", None, true),
            ("https://gw.example", Some(true), true),
            ("http://gw.example", Some(true), false),
            ("https://gw.example", Some(false), false),
            ("http://listed.example", Some(true), true),
        ] {
            let headers = [(header::HOST, "gw.example"), (header::ORIGIN, origin)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let checked = origins.check(&HeaderMap::from_iter(headers), secure);
            assert_eq!(checked.is_ok(), may, "{origin} {secure:?}");
        }
    }
}
