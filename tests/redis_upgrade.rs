//! Two versions of jobgate on one Redis, as in a rolling upgrade: a record of a newer version is a cache miss for an
//! older one that cannot read it, and is not changed. The test makes the newer record from one of this version.

use aws_lc_rs::digest::{SHA256, digest};
use jobgate::domain::job::Life;
use jobgate::outbound::redis::{RedisSettings, SharedStore};
use jobgate::ports::leases::{Claim, LeaseManager as _, SkipIf};
use jobgate::ports::store::{JobStore as _, ListFilter, StoreOutcome};

use crate::redis_shared_store::{held, key, seen, settings};
use crate::support::redis::Redis;

/// The MAC, the layout, the state and the time; then a checksum of so many bytes, then JSON.
const HEAD: usize = 1 + 10;
const SUM: usize = 16;
const NAME: &str = "test:v1:{mind/a}";

fn tier(redis: &Redis) -> SharedStore {
    SharedStore::new(RedisSettings { record_secret: None, ..settings(&redis.url()) }).unwrap()
}

async fn record(redis: &Redis) -> Vec<u8> {
    redis.execute(redis::cmd("HGET").arg(NAME).arg("r")).await
}

/// The record as another version would have written it, complete and with the right checksum.
fn rewritten(record: &[u8], layout: Option<u8>, body: impl Fn(String) -> String) -> Vec<u8> {
    let mut head = record[..HEAD].to_vec();
    head[1] = layout.unwrap_or(head[1]);
    let body = body(String::from_utf8(record[HEAD + SUM..].to_vec()).unwrap());
    let key = b"mind\0a";
    let covered = [&(key.len() as u64).to_be_bytes()[..], key, &head[1..], body.as_bytes()].concat();
    [&head[..], &digest(&SHA256, &covered).as_ref()[..SUM], body.as_bytes()].concat()
}

/// Records of a newer version in Redis, one after the other, each with what is new.
async fn newer(redis: &Redis) -> [(&'static str, Vec<u8>); 2] {
    tier(redis).store().keep(seen("a", Life::Running, 1)).await;
    let ours = record(redis).await;
    let newer = [
        ("another layout", rewritten(&ours, Some(2), |body| body)),
        ("unknown native state", rewritten(&ours, None, |body| body.replace("\"running\"", "\"paused\""))),
    ];
    assert!(newer.iter().all(|(_, newer)| *newer != ours));
    newer
}

async fn put(redis: &Redis, record: &[u8]) {
    let _: i64 = redis.execute(redis::cmd("HSET").arg(NAME).arg("r").arg(record)).await;
}

#[tokio::test]
async fn an_unreadable_newer_record_is_a_cache_miss() {
    let redis = Redis::start().await;
    for (what, newer) in newer(&redis).await {
        put(&redis, &newer).await;
        let old = tier(&redis);
        assert_eq!(held(&old, "a").await, None, "{what}: a cache miss");
        assert_eq!(old.store().health().damaged, 0, "{what}: and no damage");
        let all = old.store().list(&ListFilter::default(), None, 10).await.unwrap();
        assert_eq!(all, [], "{what}: listed by replicas that can read it");
    }
}

#[tokio::test]
async fn an_unreadable_newer_record_is_not_overwritten() {
    let redis = Redis::start().await;
    for (what, newer) in newer(&redis).await {
        put(&redis, &newer).await;
        let old = tier(&redis);
        let Claim::Acquired(fencing_token) = old.leases().claim(&[key("a")], SkipIf::Never).await.remove(0)
        else {
            panic!("{what}: it may fetch by itself")
        };
        let end = seen("a", Life::Succeeded, 2);
        assert_eq!(
            old.store().keep_under(end.clone(), fencing_token).await,
            Some(StoreOutcome::New(None)),
            "{what}"
        );
        assert_eq!(held(&old, "a").await, Some(end), "{what}: it keeps its own observation in memory");
        old.store().note_missing(&key("a")).await;
        old.store().close().await;
        assert_eq!(record(&redis).await, newer, "{what}: the newer record is unchanged");
        let indexed: Option<f64> =
            redis.execute(redis::cmd("ZSCORE").arg("test:v1:index").arg(b"mind\0a")).await;
        assert!(indexed.is_some(), "{what}: the lists still contain it");
        let again = tier(&redis).leases().claim(&[key("a")], SkipIf::Never).await.remove(0);
        let Claim::Acquired(fencing_token) = again else { panic!("{what}: its lease has ended: {again:?}") };
        tier(&redis).leases().release(&key("a"), fencing_token).await;
        let _: i64 = redis.execute(redis::cmd("HDEL").arg(NAME).arg("o").arg("e").arg("x")).await;
    }
}

#[tokio::test]
async fn unknown_fields_of_a_record_are_ignored() {
    let redis = Redis::start().await;
    let running = seen("a", Life::Running, 1);
    tier(&redis).store().keep(running.clone()).await;
    let more = rewritten(&record(&redis).await, None, |body| body.replacen('{', "{\"later\":[1,2],", 1));
    let _: i64 = redis.execute(redis::cmd("HSET").arg(NAME).arg("r").arg(&more)).await;
    assert_eq!(held(&tier(&redis), "a").await, Some(running));
}
