//! Where a request came from: the address of its connection, or what a proxy that the operator trusts says of it. Used
//! for the log, for the limit on bad credentials and for what is of the same origin; never for who the client is.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::config::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Most entries of a forwarding header that are looked at, from its end; longer chains of proxies are not built.
const MOST_HOPS: usize = 16;

/// The connection of a request, as an extension that the listener puts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionPeer {
    /// The other end.
    pub address: SocketAddr,
    /// Whether it speaks TLS with us.
    pub tls: bool,
}

/// Where a request came from, as an extension of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address of whoever sent it, as far as it is known.
    pub address: IpAddr,
    /// Whether it was sent by `https`; none where nobody who is believed says.
    pub secure: Option<bool>,
}

/// The proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<Network>);

impl TrustedProxies {
    /// Finds out where a request came from. Of the addresses that proxies wrote down, the last counts that is no trusted
    /// proxy's own: what stands before it was written by somebody else, and can be anything.
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
            // no proxy says which hop its scheme belongs to; the nearest is the one that is believed
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
            // an entry that is no address hides who wrote it: whoever passed it on is the last that is known
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

/// What one proxy wrote down.
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

    /// The other end of the connection, the headers, and what comes of them
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
