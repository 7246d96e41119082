//! The Redis deployments that replicas can share: with user and password, with TLS, with sentinels, and a cluster.

use std::process::Command;

use jobgate::domain::job::Life;
use jobgate::outbound::redis::{RedisSettings, SharedStore, TopologyMode};
use jobgate::ports::feed::{ChangeNotification, FeedEvent, NotificationFeed as _, RemoteChange};
use jobgate::ports::leases::{Claim, LeaseManager as _, SkipIf};
use jobgate::ports::store::{JobStore as _, StoreOutcome};

use crate::redis_shared_store::{held, key, listens, run, seen, settings, until};
use crate::support::redis::{Redis, free_port};
use crate::support::streams::LIMIT;

/// A job that is stored and read by another replica, and a lease: what every deployment must support.
async fn works(make: impl Fn() -> SharedStore + Send + Sync) {
    let (one, other) = (make(), make());
    for (number, id) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let seen = seen(id, Life::Running, i64::try_from(number).unwrap());
        assert_eq!(one.store().keep(seen.clone()).await, StoreOutcome::New(None));
        assert!(!one.store().health().degraded);
        assert_eq!(held(&other, id).await, Some(seen), "job {id}");
        let claims = one.leases().claim(&[key(id)], SkipIf::Never).await;
        assert!(
            matches!(claims[..], [Claim::Acquired(jobgate::ports::leases::FencingToken::Epoch(_))]),
            "{claims:?}"
        );
        assert!(matches!(
            other.leases().claim(&[key(id)], SkipIf::Never).await[..],
            [Claim::HeldElsewhere { .. }]
        ));
    }
    let listener = other.leases();
    let _runs = run(&other);
    listens(&other).await;
    assert_eq!(listener.next().await, FeedEvent::Gap, "earlier messages are not delivered");
    one.store().keep(seen("f", Life::Running, 9)).await;
    let notification = ChangeNotification { key: key("f"), what: RemoteChange::Changed };
    // The nodes of a cluster forward messages with a delay: an earlier one may be received later.
    let received = async {
        while !matches!(listener.next().await, FeedEvent::Notifications(notifications) if notifications.contains(&notification))
        {
        }
    };
    assert!(tokio::time::timeout(LIMIT, received).await.is_ok(), "the notification is received");
}

/// A server with one user, who has few permissions; and its URL with a password.
async fn with_acl_user() -> (Redis, impl Fn(&str) -> String) {
    let redis = Redis::start().await;
    let user = ["jobgate", "on", ">pa55", "~test:*", "&test:*", "+@all", "-@dangerous", "-@admin"];
    let () = redis.execute(redis::cmd("ACL").arg("SETUSER").arg(&user)).await;
    let () = redis.execute(redis::cmd("ACL").arg("SETUSER").arg("default").arg("off")).await;
    let port = redis.port();
    (redis, move |password: &str| format!("redis://jobgate:{password}@127.0.0.1:{port}"))
}

/// Expects misses, and no failed request, of a store that the server rejects or that rejects the server.
async fn assert_degraded(store: &SharedStore) {
    assert_eq!((held(store, "a").await, held(store, "a").await), (None, None));
    assert!(store.store().health().degraded);
}

#[tokio::test]
async fn the_shared_store_works_with_a_restricted_acl_user() {
    let (_redis, url) = with_acl_user().await;
    works(|| SharedStore::new(settings(&url("pa55"))).unwrap()).await;
}

#[tokio::test]
async fn a_wrong_redis_password_degrades_the_shared_store() {
    let (_redis, url) = with_acl_user().await;
    assert_degraded(&SharedStore::new(settings(&url("wrong"))).unwrap()).await;
}

/// A server with a certificate of its own; its URL, and the certificate.
async fn with_tls() -> (Redis, String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir =
        std::env::temp_dir().join(format!("jobgate-tls-{}-{:x}", std::process::id(), fastrand::u64(..)));
    std::fs::create_dir_all(&dir).unwrap();
    let (certificate, secret) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&secret, made.signing_key.serialize_pem()).unwrap();
    let tls = free_port();
    let arguments = [
        "--tls-port",
        &tls.to_string(),
        "--tls-cert-file",
        certificate.to_str().unwrap(),
        "--tls-key-file",
        secret.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        certificate.to_str().unwrap(),
    ];
    let redis = Redis::with(&arguments).await;
    // it is read at the start
    std::fs::remove_dir_all(&dir).ok();
    (redis, format!("rediss://localhost:{tls}"), made.cert.pem())
}

#[tokio::test]
async fn the_shared_store_works_over_tls() {
    let (_redis, url, certificate) = with_tls().await;
    let trusting = || RedisSettings { authorities: Some(certificate.clone().into_bytes()), ..settings(&url) };
    works(|| SharedStore::new(trusting()).unwrap()).await;
}

#[tokio::test]
async fn a_redis_certificate_of_an_unknown_authority_is_rejected() {
    let (_redis, url, _) = with_tls().await;
    assert_degraded(&SharedStore::new(settings(&url)).unwrap()).await;
}

#[tokio::test]
async fn the_shared_store_works_on_a_redis_cluster() {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let bus = free_port().to_string();
        let arguments =
            ["--cluster-enabled", "yes", "--cluster-config-file", "DIR/nodes.conf", "--cluster-port", &bus];
        nodes.push(Redis::with(&arguments).await);
    }
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let made = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&addresses)
        .arg("--cluster-yes")
        .output();
    assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
    for node in &nodes {
        until("the cluster is available", || async {
            let info: String = node.execute(redis::cmd("CLUSTER").arg("INFO")).await;
            info.contains("cluster_state:ok").then_some(())
        })
        .await;
    }
    let urls: Vec<String> = nodes.iter().map(Redis::url).collect();
    works(|| {
        SharedStore::new(RedisSettings { mode: TopologyMode::Cluster, ..settings(&urls.join(",")) }).unwrap()
    })
    .await;
}

/// A sentinel with a password that monitors this server, on its port; and the file of its configuration.
async fn sentinel_of(first: &Redis) -> (Redis, u16, std::path::PathBuf) {
    let port = free_port();
    let file = std::env::temp_dir().join(format!("jobgate-sentinel-{port}.conf"));
    std::fs::write(
        &file,
        format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 60000\nsentinel failover-timeout mymaster 2000\n",
            first.port()
        ),
    )
    .unwrap();
    (Redis::on(port, &[file.to_str().unwrap(), "--sentinel"]).await, port, file)
}

async fn set_password(sentinel: &Redis) {
    let () = sentinel.execute(redis::cmd("ACL").arg("SETUSER").arg(&["default", "resetpass", ">pa55"])).await;
}

/// A shared store that finds its server by the sentinel on this port.
fn by_sentinel(port: u16, password: &str) -> SharedStore {
    let mode = TopologyMode::Sentinel("mymaster".to_owned());
    let url = format!("redis://127.0.0.1:{port}");
    SharedStore::new(RedisSettings { mode, sentinel_password: Some(password.into()), ..settings(&url) })
        .unwrap()
}

#[tokio::test]
async fn a_wrong_sentinel_password_degrades_the_shared_store() {
    let first = Redis::start().await;
    let (sentinel, port, file) = sentinel_of(&first).await;
    set_password(&sentinel).await;
    assert_degraded(&by_sentinel(port, "wrong")).await;
    std::fs::remove_file(&file).ok();
}

#[tokio::test]
async fn the_shared_store_follows_a_sentinel_failover() {
    let mut first = Redis::start().await;
    let second = Redis::with(&["--replicaof", "127.0.0.1", &first.port().to_string()]).await;
    let (sentinel, port, file) = sentinel_of(&first).await;
    // It must know the second server before the first may fail.
    until("the sentinel knows both", || async {
        let info: String = sentinel.execute(redis::cmd("INFO").arg("sentinel")).await;
        info.contains("slaves=1").then_some(())
    })
    .await;
    until("the second replicates the first", || async {
        let info: String = second.execute(redis::cmd("INFO").arg("replication")).await;
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    set_password(&sentinel).await;
    let make = || by_sentinel(port, "pa55");
    works(make).await;
    let one = make();
    let _runs = run(&one);
    let last = seen("z", Life::Succeeded, 9);
    one.store().keep(last.clone()).await;
    until("the second has it too", || async {
        let there: bool = second.execute(redis::cmd("EXISTS").arg("test:v1:{mind/z}")).await;
        there.then_some(())
    })
    .await;
    first.kill();
    // The short timeout is set only now: before, a server that was slow on a busy machine must not count as down.
    let hurry =
        redis::cmd("SENTINEL").arg(&["SET", "mymaster", "down-after-milliseconds", "3000"]).to_owned();
    let client = redis::Client::open(format!("redis://:pa55@127.0.0.1:{port}")).unwrap();
    let mut client = client.get_multiplexed_async_connection().await.unwrap();
    let () = hurry.query_async(&mut client).await.unwrap();
    until("the second is the new primary", || async {
        assert_eq!(held(&one, "z").await, Some(last.clone()), "answered throughout");
        one.store().keep(seen("y", Life::Running, 10)).await;
        let there: bool = second.execute(redis::cmd("EXISTS").arg("test:v1:{mind/y}")).await;
        there.then_some(())
    })
    .await;
    let tier = one.store().health().shared_store.unwrap();
    assert_eq!((tier.failovers, tier.connected), (1, true), "{tier:?}");
    std::fs::remove_file(&file).ok();
}
