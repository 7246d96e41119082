//! The proxies of the environment: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or the same in lower case. They apply to
//! calls without a configured proxy.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::{Host, Url};

use super::egress::is_proxy;
use super::environment::{Environment, NotUnicode};
use super::network::Network;
use super::sources::is_loopback;

/// The proxies of the environment. Their passwords are never printed.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentProxies {
    https: Option<Result<EnvironmentProxy, ProxyVariableError>>,
    http: Option<Result<EnvironmentProxy, ProxyVariableError>>,
    direct: Vec<NoProxyRule>,
}

/// One proxy of the environment.
#[derive(Clone)]
pub struct EnvironmentProxy {
    /// The variable that contains it.
    pub variable: &'static str,
    /// Its address, without user and password.
    pub url: Url,
    /// `user:password`, if the variable contains them.
    pub credential: Option<SecretString>,
}

/// A variable without a usable proxy. Its value, which may contain a password, is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {message}")]
pub struct ProxyVariableError {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with it, and what to do.
    pub message: &'static str,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NoProxyRule {
    Everything,
    /// A name and all below it, on one port or on any.
    Domain(String, Option<u16>),
    Addresses(Network, Option<u16>),
}

impl EnvironmentProxies {
    /// Reads the variables.
    pub fn read(env: &Environment) -> Self {
        let direct = text(env, ["NO_PROXY", "no_proxy"]).and_then(|(_, text)| text.ok());
        Self {
            https: text(env, ["HTTPS_PROXY", "https_proxy"]).map(read),
            http: text(env, ["HTTP_PROXY", "http_proxy"]).map(read),
            direct: rules(direct.unwrap_or_default()),
        }
    }

    /// The proxy for calls to a URL. None for loopback addresses and for the hosts of `NO_PROXY`.
    ///
    /// # Errors
    /// If the variable for the URL contains no usable proxy: the call must not bypass it.
    pub fn for_url(&self, url: &Url) -> Result<Option<&EnvironmentProxy>, ProxyVariableError> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let Some(proxy) = proxy else { return Ok(None) };
        if is_loopback(url) || self.direct.iter().any(|rule| rule.covers(url)) {
            return Ok(None);
        }
        proxy.as_ref().map(Some).map_err(|fault| *fault)
    }

    /// `user:password` of the proxy in a variable, if it contains them.
    pub fn credential_in(&self, variable: &str) -> Option<SecretString> {
        let all = [&self.https, &self.http].into_iter().flatten().filter_map(|proxy| proxy.as_ref().ok());
        all.filter(|proxy| proxy.variable == variable).find_map(|proxy| proxy.credential.clone())
    }
}

impl NoProxyRule {
    fn covers(&self, url: &Url) -> bool {
        let on = |port: &Option<u16>| port.is_none() || *port == url.port_or_known_default();
        match (self, url.host()) {
            (Self::Everything, _) => true,
            (Self::Domain(name, port), Some(Host::Domain(host))) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let above = host.strip_suffix(name.as_str());
                on(port) && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            (Self::Addresses(network, port), Some(Host::Ipv4(host))) => {
                on(port) && network.contains(IpAddr::V4(host))
            }
            (Self::Addresses(network, port), Some(Host::Ipv6(host))) => {
                on(port) && network.contains(IpAddr::V6(host))
            }
            (Self::Domain(..), Some(Host::Ipv4(_) | Host::Ipv6(_)) | None)
            | (Self::Addresses(..), Some(Host::Domain(_)) | None) => false,
        }
    }
}

impl fmt::Debug for EnvironmentProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvironmentProxy")
            .field("variable", &self.variable)
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

/// The first of the variables that is not empty.
fn text<'a>(
    env: &'a Environment,
    names: [&'static str; 2],
) -> Option<(&'static str, Result<&'a str, NotUnicode>)> {
    names.into_iter().find_map(|name| match env.get(name) {
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => Some((name, Ok(text.trim()))),
        Err(NotUnicode::Missing) => None,
        Err(NotUnicode::NotUnicode) => Some((name, Err(NotUnicode::NotUnicode))),
    })
}

fn read(
    (variable, text): (&'static str, Result<&str, NotUnicode>),
) -> Result<EnvironmentProxy, ProxyVariableError> {
    let message = "must be the URL of a proxy, such as http://proxy.example:3128: fix or unset it, or set proxy for each source (none for no proxy)";
    let fault = ProxyVariableError { variable, message };
    let text = text.map_err(|_| fault)?;
    // without a scheme it is the address of a plain proxy
    let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let mut url = url.ok().filter(is_proxy).ok_or(fault)?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let credential = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => Some(format!("{}:{}", decoded(user), decoded(password.unwrap_or_default()))),
    };
    let bare = url.set_username("").and_then(|()| url.set_password(None));
    bare.map_err(|()| fault)?;
    Ok(EnvironmentProxy { variable, url, credential: credential.map(SecretString::from) })
}

fn rules(text: &str) -> Vec<NoProxyRule> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(rule).collect()
}

fn rule(entry: &str) -> NoProxyRule {
    if entry == "*" {
        return NoProxyRule::Everything;
    }
    if let Ok(network) = entry.parse() {
        return NoProxyRule::Addresses(network, None);
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
        Some(_) | None => (entry, None),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(network) = bare.parse() {
        return NoProxyRule::Addresses(network, port);
    }
    let name = bare.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
    NoProxyRule::Domain(name.to_ascii_lowercase(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn proxies(variables: &[(&str, &str)]) -> EnvironmentProxies {
        EnvironmentProxies::read(&variables.iter().copied().collect())
    }

    /// The proxy's address for a URL, `direct`, or the error.
    fn through(proxies: &EnvironmentProxies, url: &str) -> String {
        match proxies.for_url(&Url::parse(url).unwrap()) {
            Ok(Some(proxy)) => proxy.url.to_string(),
            Ok(None) => "direct".to_owned(),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn proxy_variable_is_per_scheme() {
        let proxies = proxies(&[("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")]);
        assert_eq!(through(&proxies, "https://a.example/x"), "http://s:1/");
        assert_eq!(through(&proxies, "http://a.example/x"), "http://p:2/");
        let proxies = self::proxies(&[("https_proxy", "https://low:1/")]);
        assert_eq!(through(&proxies, "http://a.example/x"), "direct");
    }

    #[test]
    fn upper_case_proxy_variable_is_preferred_unless_empty() {
        let proxies = proxies(&[("HTTPS_PROXY", "http://s:1"), ("https_proxy", "http://no:1")]);
        assert_eq!(through(&proxies, "https://a.example/x"), "http://s:1/");
        let proxies = self::proxies(&[("HTTPS_PROXY", " "), ("https_proxy", "https://low:1/")]);
        assert_eq!(through(&proxies, "https://a.example/x"), "https://low:1/");
    }

    #[test]
    fn no_proxy_matches_hosts_networks_and_ports() {
        let listed = " a.example, .b.example,*.c.example , d.example:8443,10.0.0.0/8,192.0.2.7:80,[fd00::1]:443,fd11::/16";
        let proxies = proxies(&[("HTTPS_PROXY", "http://p:1"), ("no_proxy", listed)]);
        for (host, direct) in [
            ("a.example", true),
            ("A.example.", true),
            ("sub.a.example", true),
            ("nota.example", false),
            ("a.example.other", false),
            ("b.example", true),
            ("x.b.example", true),
            ("c.example", true),
            ("x.c.example", true),
            ("d.example:8443", true),
            ("d.example", false),
            ("10.1.2.3", true),
            ("11.1.2.3", false),
            ("192.0.2.7:80", true),
            ("192.0.2.7", false),
            ("[fd00::1]", true),
            ("[fd00::2]", false),
            ("[fd11::5]:1", true),
            ("localhost", true),
            ("127.0.0.9:1", true),
            ("[::1]:1", true),
        ] {
            let expected = if direct { "direct" } else { "http://p:1/" };
            assert_eq!(through(&proxies, &format!("https://{host}/api")), expected, "{host}");
        }
        let proxies = self::proxies(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "*")]);
        assert_eq!(through(&proxies, "https://a.example"), "direct");
    }

    fn with_credential() -> EnvironmentProxies {
        proxies(&[("HTTPS_PROXY", "http://me:cAn%40rY%3A1@proxy.example:3128")])
    }

    #[test]
    fn proxy_credential_is_decoded() {
        let proxies = with_credential();
        let proxy = proxies.for_url(&Url::parse("https://a.example").unwrap()).unwrap().unwrap();
        assert_eq!(proxy.credential.as_ref().unwrap().expose_secret(), "me:cAn@rY:1");
    }

    #[test]
    fn proxy_credential_is_never_printed() {
        let proxies = with_credential();
        let proxy = proxies.for_url(&Url::parse("https://a.example").unwrap()).unwrap().unwrap();
        let printed = format!("{proxies:?} {proxies:#?} {}", proxy.url);
        assert!(!printed.contains("cAn") && printed.contains("proxy.example:3128"), "{printed}");
    }

    #[test]
    fn invalid_proxy_url_is_an_error_only_for_calls_that_use_it() {
        for wrong in ["socks5://cAnaRy:1", "http://cAnaRy/path", "http://", "cAnaRy pass", "ftp://cAnaRy"] {
            let proxies = proxies(&[("https_proxy", wrong), ("NO_PROXY", "b.example")]);
            let message = through(&proxies, "https://a.example");
            assert!(message.starts_with("https_proxy: must be the URL of a proxy"), "{message}");
            assert!(!message.contains("cAnaRy"), "{message}");
            assert_eq!(through(&proxies, "https://b.example"), "direct");
            assert_eq!(through(&proxies, "http://a.example"), "direct");
        }
    }
}
