//! Determines the peer of a request: the address of its connection, or the address that a trusted proxy reports. Used
//! for the log, for the limit on bad credentials and for the same-origin check; never for authentication.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::config::Network;
use crate::inbound::auth::last_credential::LastCredential;
use crate::inbound::streams::ConnectionPermit;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The most entries of a forwarding header that are read, from its end; longer chains of proxies do not occur.
const MOST_HOPS: usize = 16;

/// The connection of a request.
#[derive(Debug)]
pub struct Connection {
    /// Who opened it.
    pub peer: ConnectionPeer,
    /// The permit that counts it.
    pub permit: ConnectionPermit,
    /// The credential of its last request.
    pub last_credential: LastCredential,
}

/// The remote end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionPeer {
    /// The remote address.
    pub address: SocketAddr,
    /// Whether the connection uses TLS.
    pub tls: bool,
}

/// The peer of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address of the sender, as far as it is known.
    pub address: IpAddr,
    /// Whether it was sent by `https`; none if no trusted proxy reports it.
    pub secure: Option<bool>,
}

/// The proxies that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<Network>);

impl TrustedProxies {
    /// Determines the peer of a request. Of the forwarded addresses, the last one that is not a trusted proxy's is
    /// used: the entries before it come from an untrusted party, and can be anything.
    pub fn peer(&self, connection: ConnectionPeer, headers: &HeaderMap) -> Peer {
        let direct = connection.address.ip().to_canonical();
        let secure = connection.tls.then_some(true);
        if !self.trusts(direct) {
            return Peer { address: direct, secure };
        }
        let hop_list = if headers.contains_key(header::FORWARDED) {
            forwarded(headers)
        } else {
            let address = |text: &str| Hop { address: address(text), secure: None };
            let mut hops: Vec<Hop> = last_first(headers, &X_FORWARDED_FOR).map(address).collect();
            // no proxy reports which hop its scheme belongs to; that of the nearest trusted proxy is used
            if let (Some(nearest), Some(scheme)) =
                (hops.first_mut(), last_first(headers, &X_FORWARDED_PROTO).next())
            {
                nearest.secure = is_https(scheme);
            }
            hops
        };
        let mut peer = Peer { address: direct, secure };
        for hop in hop_list {
            peer.secure = peer.secure.or(hop.secure);
            // an entry that is not an address hides its writer: the hop after it is the last known one
            let Some(address) = hop.address else { break };
            peer.address = address;
            if !self.trusts(address) {
                break;
            }
        }
        peer
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// One entry of a forwarding header.
struct Hop {
    address: Option<IpAddr>,
    secure: Option<bool>,
}

/// The entries of a list header, from its end.
fn last_first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim).take(MOST_HOPS)
}

/// `Forwarded` (RFC 7239), from its end.
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let hop = |entry: &str| {
        let pair = |name: &str| {
            let mut pairs = entry.split(';').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(found, _)| found.trim().eq_ignore_ascii_case(name))?;
            Some(value.trim().trim_matches('"').to_owned())
        };
        Hop {
            address: pair("for").and_then(|value| address(&value)),
            secure: pair("proto").and_then(|value| is_https(&value)),
        }
    };
    last_first(headers, &header::FORWARDED).map(hop).collect()
}

fn is_https(scheme: &str) -> Option<bool> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

/// Reads an address with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    inside.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The remote address, the headers, and the expected result
    type PeerCase<'a> = (&'a str, &'a [(&'static str, &'static str)], &'a str, Option<bool>);

    #[test]
    fn forwarded_address_is_used_only_from_trusted_proxies() {
        let proxies = TrustedProxies(["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).into());
        let [xff, forwarded, proto] = ["x-forwarded-for", "forwarded", "x-forwarded-proto"];
        let cases: &[PeerCase<'_>] = &[
            ("203.0.113.9", &[], "203.0.113.9", None),
            ("203.0.113.9", &[(xff, "1.2.3.4"), (proto, "https")], "203.0.113.9", None),
            ("203.0.113.9", &[(forwarded, "for=1.2.3.4;proto=https")], "203.0.113.9", None),
            ("10.0.0.1", &[], "10.0.0.1", None),
            ("::ffff:10.0.0.1", &[(xff, "1.2.3.4")], "1.2.3.4", None),
            ("10.0.0.1", &[(xff, "9.9.9.9, 1.2.3.4"), (proto, "https")], "1.2.3.4", Some(true)),
            ("10.0.0.1", &[(xff, "9.9.9.9"), (xff, "1.2.3.4, 10.0.0.7")], "1.2.3.4", None),
            ("10.0.0.1", &[(xff, "9.9.9.9, unknown, 10.0.0.7")], "10.0.0.7", None),
            ("10.0.0.1", &[(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3", None),
            ("10.0.0.1", &[(xff, "1.2.3.4:5678"), (proto, "HTTP")], "1.2.3.4", Some(false)),
            ("10.0.0.1", &[(xff, "garbage")], "10.0.0.1", None),
            (
                "fd00::1",
                &[(forwarded, "for=9.9.9.9, For=\"[2001:db8::1]:80\";Proto=https")],
                "2001:db8::1",
                Some(true),
            ),
            ("10.0.0.1", &[(forwarded, "for=1.2.3.4"), (xff, "9.9.9.9")], "1.2.3.4", None),
            ("10.0.0.1", &[(forwarded, "for=_hidden;proto=https"), (xff, "9.9.9.9")], "10.0.0.1", Some(true)),
        ];
        for (direct, sent, expected, secure) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *sent {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let connection =
                ConnectionPeer { address: SocketAddr::new(direct.parse().unwrap(), 1), tls: false };
            let peer = proxies.peer(connection, &headers);
            assert_eq!(
                peer,
                Peer { address: expected.parse().unwrap(), secure: *secure },
                "{direct} {sent:?}"
            );
            let untrusted =
                TrustedProxies::default().peer(ConnectionPeer { tls: true, ..connection }, &headers);
            assert_eq!(
                (untrusted.address, untrusted.secure),
                (connection.address.ip().to_canonical(), Some(true))
            );
        }
    }
}
