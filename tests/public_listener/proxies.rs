//! Requests that are rejected before their body was read, through nginx and haproxy, which reuse their connections to
//! the gateway: no client receives a 502, and each rejection arrives unchanged. `tests/all.sh` installs both.
//!
//! `JOBGATE_REFUSED_POSTS` is the number of rejected requests through each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::refusals::{Kept, good, long};
use super::rig;
use crate::support::redis::free_port;
use crate::support::scale;
use crate::support::scratch::ScratchFolder;

/// Clients with rejected requests, and as many with valid ones.
const CLIENTS: usize = 8;
const JSON: &str = "content-type: application/json";

/// Two proxies in front of a gateway, each with its own listener.
struct Proxies {
    nginx: SocketAddr,
    haproxy: SocketAddr,
    children: [Child; 2],
    _folder: ScratchFolder,
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

fn start(program: &str, args: &[&str], folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).kill_on_drop(true).stdin(Stdio::null());
    let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    assert!(started.is_ok(), "{program} does not start ({started:?}): run tests/all.sh, which installs it");
    started.unwrap()
}

impl Proxies {
    async fn start(gateway: SocketAddr) -> Self {
        let folder = ScratchFolder::new();
        let (nginx, haproxy) = (free(), free());
        let at = folder.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|name| format!("{name}_temp_path {at}/{name};")).join(" ");
        let nginx_conf = format!(
            "pid {at}/nginx.pid; error_log {at}/nginx.log; daemon off; worker_processes 1; events {{ worker_connections 512; }}
             http {{ access_log off; {temporary} client_max_body_size 10m; keepalive_requests 100000;
               upstream gateway {{ server {gateway}; keepalive 16; }}
               server {{ listen {nginx}; location / {{
                 proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection \"\";
                 proxy_set_header Host localhost; proxy_next_upstream off; }} }} }}"
        );
        let haproxy_conf = format!(
            "global\n  maxconn 512\ndefaults\n  mode http\n  retries 0\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
             frontend front\n  bind {haproxy}\n  default_backend back\n\
             backend back\n  http-reuse always\n  server gateway {gateway}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), nginx_conf).unwrap();
        std::fs::write(folder.path().join("haproxy.cfg"), haproxy_conf).unwrap();
        let (prefix, config) = (at.to_string(), format!("{at}/nginx.conf"));
        let mut children = [
            start("/usr/sbin/nginx", &["-p", &prefix, "-c", &config], folder.path()),
            start("/usr/sbin/haproxy", &["-db", "-f", "haproxy.cfg"], folder.path()),
        ];
        for (proxy, child) in [nginx, haproxy].into_iter().zip(&mut children) {
            while TcpStream::connect(proxy).await.is_err() {
                assert_eq!(child.try_wait().unwrap(), None, "a proxy exited");
                tokio::task::yield_now().await;
            }
        }
        Self { nginx, haproxy, children, _folder: folder }
    }
}

/// How often each status was answered, and whether a rejection for too many bad credentials had no `Retry-After`.
type Counts = BTreeMap<(u16, bool), usize>;

/// Sends requests one after the other, on one connection while it stays open.
async fn send(to: SocketAddr, count: usize, request: impl Fn(usize) -> Vec<u8>) -> Counts {
    let mut counts = Counts::new();
    let mut kept = Kept::open(to).await;
    for number in 0..count {
        kept.send(&request(number)).await;
        let (status, head, _) = kept.answer().await;
        let lost = status == 429 && !head.contains("\r\nretry-after: ");
        *counts.entry((status, lost)).or_default() += 1;
        if head.contains("connection: close") {
            kept = Kept::open(to).await;
        }
    }
    counts
}

fn sum(all: Vec<Counts>) -> Counts {
    let mut total = Counts::new();
    for (key, count) in all.into_iter().flatten() {
        *total.entry(key).or_default() += count;
    }
    total
}

#[tokio::test]
async fn no_refusal_becomes_a_502_behind_a_proxy() {
    let each = scale::scale("JOBGATE_REFUSED_POSTS", 400).div_ceil(CLIENTS);
    let limits = "limits: { requests_per_second: 100000, burst: 100000, concurrent_requests: 100 }";
    let rig = rig(format!("{limits}\n{}", super::clients())).await;
    let mut proxies = Proxies::start(rig.public).await;
    for (name, proxy) in [("nginx", proxies.nginx), ("haproxy", proxies.haproxy)] {
        let refused = |number: usize| {
            let (line, headers): (_, &[&str]) = match number % 6 {
                0 | 3 => ("POST /graphql", &[JSON]),
                1 | 4 => ("POST /graphql", &[JSON, "authorization: Bearer jg_nobody"]),
                2 => ("POST /nowhere", &[JSON]),
                _ => ("POST /graphql", &["content-type: text/plain", "authorization: Bearer jg_busy"]),
            };
            long(line, headers, number.is_multiple_of(2))
        };
        let bad = join_all((0..CLIENTS).map(|_| send(proxy, each, refused)));
        let others = join_all((0..CLIENTS).map(|_| send(proxy, each, |_| good())));
        let (bad, others) = tokio::join!(bad, others);
        let (bad, others) = (sum(bad), sum(others));
        let failed =
            bad.iter().chain(&others).filter(|((status, _), _)| *status >= 500).map(|(_, count)| count).sum();
        scale::report(&format!("{name}: 5xx among {bad:?} and {others:?}"), failed, 2 * each * CLIENTS);
        assert_eq!(others, Counts::from([((200, false), each * CLIENTS)]), "{name}");
        let as_sent = bad.keys().all(|(status, lost)| matches!(status, 401 | 404 | 415 | 429) && !lost);
        assert!(as_sent, "{name}: {bad:?}");
        assert!(bad.contains_key(&(429, false)) && bad.contains_key(&(401, false)), "{name}: {bad:?}");
    }
    for child in &mut proxies.children {
        assert_eq!(child.try_wait().unwrap(), None, "a proxy exited");
    }
}
