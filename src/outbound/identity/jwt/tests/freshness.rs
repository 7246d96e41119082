//! How keys are refreshed: on a paused clock, with a key set that counts its reads.

use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn token(mint: &Mint, kid: &str) -> String {
    let header = with(header("EdDSA"), "kid", Some(kid.into()));
    mint.token("EdDSA", &header.to_string(), &claims().to_string())
}

fn set(mint: &Mint, kid: &str) -> Value {
    json!({ "keys": [with(mint.published()[3].clone(), "kid", Some(kid.into()))] })
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_trigger_at_most_one_fetch_per_thirty_seconds() {
    let mint = Mint::new();
    let script = JwksScript::new(&mint.published());
    let issuers = issuers(&config(&[EdDsa], None), &script).await;
    let head = header("EdDSA").to_string();
    let signed = token(&mint, "ed");
    let rest = signed.split_once('.').unwrap().1;
    for number in 0..10_000 {
        let hostile = format!("{}.{rest}", base64(head.replace("\"ed\"", &format!("\"k{number}\""))));
        assert_eq!(issuers.authenticate(&hostile).map(drop), Err(JwtError::Key));
        if number % 100 == 0 {
            // all of them within thirty seconds
            tokio::time::sleep(SECOND * 3 / 10).await;
        }
    }
    assert!(script.reads() <= 2, "{} refreshes, including the first", script.reads());
    tokio::time::sleep(SECOND * 31).await;
    assert!(script.reads() <= 3, "{} refreshes", script.reads());
    assert!(issuers.authenticate(&signed).is_ok());
}

#[tokio::test(start_paused = true)]
async fn new_key_is_loaded_on_its_first_use() {
    let [old, new] = [Mint::new(), Mint::new()];
    let script = JwksScript::new(&[set(&old, "old")["keys"][0].clone()]);
    let issuers = issuers(&config(&[EdDsa], None), &script).await;
    let [before, after] = [token(&old, "old"), token(&new, "new")];
    assert!(issuers.authenticate(&before).is_ok());
    script.respond(Ok(set(&new, "new")));
    assert_eq!(issuers.authenticate(&after).map(drop), Err(JwtError::Key));
    tokio::time::sleep(SECOND * 29).await;
    assert_eq!(script.reads(), 1, "not before thirty seconds have passed");
    tokio::time::sleep(SECOND * 2).await;
    assert!(issuers.authenticate(&after).is_ok());
    assert_eq!(issuers.authenticate(&before).map(drop), Err(JwtError::Key), "the old key is gone");
}

#[tokio::test(start_paused = true)]
async fn new_key_is_loaded_at_the_next_refresh() {
    let [old, new] = [Mint::new(), Mint::new()];
    let script = JwksScript::new(&[set(&old, "old")["keys"][0].clone()]);
    let issuers = issuers(&config(&[EdDsa], None), &script).await;
    script.respond(Ok(set(&new, "new")));
    tokio::time::sleep(SECOND * 295).await;
    assert_eq!(script.reads(), 1);
    tokio::time::sleep(SECOND * 6).await;
    assert!(issuers.authenticate(&token(&new, "new")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn cached_keys_stay_valid_while_the_key_set_is_unavailable() {
    let mint = Mint::new();
    let script = JwksScript::new(&mint.published());
    let issuers = issuers(&config(&[EdDsa], None), &script).await;
    let good = token(&mint, "ed");
    for failure in [
        Err("could not connect".to_owned()),
        Ok(json!("no key set")),
        Ok(json!({ "keys": [] })),
        Ok(json!({ "keys": [{ "kty": "oct", "kid": "ed", "k": "AAAA" }] })),
    ] {
        script.respond(failure.clone());
        let reads = script.reads();
        tokio::time::sleep(SECOND * 400).await;
        assert!(script.reads() > reads + 1, "the refresh is retried");
        assert!(issuers.authenticate(&good).is_ok(), "{failure:?}");
    }
    script.respond(Ok(json!({ "keys": mint.published() })));
    tokio::time::sleep(SECOND * 31).await;
    let reads = script.reads();
    drop(issuers);
    tokio::time::sleep(SECOND * 1000).await;
    assert_eq!(script.reads(), reads, "the keys of a removed issuer are not fetched any more");
}
