//! Which tokens are taken, and why the others are not: tables. How keys are kept fresh is in `tests/freshness.rs`.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use self::mint::{Mint, base64, kid};
use super::keyring::Place;
use super::*;
use crate::config::JwksRef;
use crate::outbound::system::RuntimeSpawner;
use crate::ports::BoxFuture;

mod freshness;
mod mint;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://login.example";

/// A clock that stands still.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }
}

/// A key set that is read, as often as it is.
#[derive(Clone, Debug)]
struct Script(Arc<Mutex<(Result<Value, String>, usize)>>);

impl Script {
    fn new(keys: &[Value]) -> Self {
        Self(Arc::new(Mutex::new((Ok(json!({ "keys": keys })), 0))))
    }

    fn says(&self, answer: Result<Value, String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = answer;
    }

    fn reads(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl Place for Script {
    fn read(&self) -> BoxFuture<'_, Result<Bytes, String>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        let answer = state.0.clone().map(|set| Bytes::from(set.to_string()));
        Box::pin(std::future::ready(answer))
    }
}

fn config(algorithms: &[SigningAlgorithm], sources_claim: Option<&str>) -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.to_owned(),
        audience: vec!["jobgate".to_owned(), "https://jobs.example".to_owned()],
        jwks: JwksRef::File("./unread".into()),
        algorithms: algorithms.to_vec(),
        leeway: std::time::Duration::from_secs(30),
        refresh: std::time::Duration::from_mins(5),
        name_claim: "sub".to_owned(),
        sources: ["audit", "sales"].map(|name| SourceName::parse(name).unwrap()).into(),
        sources_claim: sources_claim.map(str::to_owned),
    }
}

/// One issuer whose keys have been read.
async fn issuers(config: &IssuerConfig, script: &Script) -> Issuers {
    let place = Box::new(script.clone());
    let spawner = RuntimeSpawner::default();
    let keys = Keyring::start(
        &config.issuer,
        place,
        config.refresh,
        Arc::default(),
        &spawner,
        &CancellationToken::new(),
    );
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(script.reads(), 1);
    Issuers { all: vec![Issuer::new(config, Arc::new(keys))], clock: Arc::new(Still) }
}

fn header(algorithm: &str) -> Value {
    json!({ "alg": algorithm, "typ": "JWT", "kid": kid(algorithm) })
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "jobgate", "sub": "alice", "exp": NOW + 300, "iat": NOW })
}

/// An object with another value for a member, or without it.
fn with(mut object: Value, name: &str, value: Option<Value>) -> Value {
    match value {
        Some(value) => drop(object.as_object_mut().unwrap().insert(name.to_owned(), value)),
        None => drop(object.as_object_mut().unwrap().remove(name)),
    }
    object
}

use SigningAlgorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};

const ALL: [(SigningAlgorithm, &str); 9] = [
    (Rs256, "RS256"),
    (Rs384, "RS384"),
    (Rs512, "RS512"),
    (Ps256, "PS256"),
    (Ps384, "PS384"),
    (Ps512, "PS512"),
    (Es256, "ES256"),
    (Es384, "ES384"),
    (EdDsa, "EdDSA"),
];

#[tokio::test(start_paused = true)]
async fn each_algorithm_that_is_allowed_is_taken_and_no_other() {
    let mint = Mint::new();
    for (allowed, name) in ALL {
        let issuers = issuers(&config(&[allowed], None), &Script::new(&mint.published())).await;
        for (_, signed) in ALL {
            let token = mint.token(signed, &header(signed).to_string(), &claims().to_string());
            let expected = if signed == name { Ok(format!("{ISSUER}#alice")) } else { Err(Bad::Algorithm) };
            let found = issuers.recognise(&token).map(|principal| principal.name().to_owned());
            assert_eq!(found, expected, "{signed} where {name} is allowed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_good_in_every_form_it_may_have() {
    let mint = Mint::new();
    let issuers = issuers(&config(&[EdDsa], None), &Script::new(&mint.published())).await;
    let claim = |name, value| (header("EdDSA"), with(claims(), name, value));
    let head = |name, value| (with(header("EdDSA"), name, value), claims());
    for (header, claims) in [
        claim("aud", Some(json!(["other", "https://jobs.example"]))),
        claim("exp", Some(json!(NOW - 29))),
        claim("exp", Some(json!(1_800_000_000.5))),
        claim("nbf", Some(json!(NOW + 30))),
        claim("iat", None),
        claim("sub", Some(json!("auth0|5f7c8ec7c33c6c004bbafe82"))),
        head("typ", None),
        head("typ", Some(json!("at+JWT"))),
        head("kid", None),
        // pointers to keys are not followed
        head("jku", Some(json!("https://evil.example/keys"))),
        head("jwk", Some(json!({ "kty": "OKP" }))),
    ] {
        let token = mint.token("EdDSA", &header.to_string(), &claims.to_string());
        let principal = issuers.recognise(&token).map_err(|bad| format!("{header} {claims}: {bad}")).unwrap();
        let expires = Timestamp::from_second(NOW).unwrap().as_second() - 29;
        assert!(principal.pass().expires.unwrap().as_second() >= expires);
        assert_eq!(principal.pass().fingerprint, Some(keys::hash(&token)));
        assert!(principal.may_read(&SourceName::parse("sales").unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn bad_tokens_are_refused_each_for_its_reason() {
    let (mint, other) = (Mint::new(), Mint::new());
    let published = |kid: &str, changes: Value| {
        let mut key = mint.published()[0].clone();
        key["kid"] = kid.into();
        key.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        key
    };
    let mut set = mint.published();
    set.extend([
        published("enc", json!({ "use": "enc" })),
        published("ops", json!({ "key_ops": ["encrypt"] })),
        published("weak", json!({ "n": base64(&mint.modulus()[..128]) })),
        published("even", json!({ "e": base64([1, 0, 2]) })),
        published("private", json!({ "d": "AQAB" })),
        published("only256", json!({ "alg": "RS256" })),
        published("unfit", json!({ "alg": "ES256" })),
        json!({ "kty": "oct", "kid": "secret", "k": base64("secret") }),
        json!("no key at all"),
    ]);
    let allowed: Vec<_> = ALL.iter().map(|(allowed, _)| *allowed).filter(|one| *one != Ps512).collect();
    let issuers = issuers(&config(&allowed, None), &Script::new(&set)).await;

    let good = |algorithm: &str| mint.token(algorithm, &header(algorithm).to_string(), &claims().to_string());
    let raw = |header: &str, claims: &str| mint.token("ES256", header, claims);
    let head = |name: &str, value: Value| {
        raw(&with(header("ES256"), name, Some(value)).to_string(), &claims().to_string())
    };
    let claim = |name: &str, value: Option<Value>| {
        raw(&header("ES256").to_string(), &with(claims(), name, value).to_string())
    };
    let named = |algorithm: &str, kid: &str| {
        let header = with(header(algorithm), "kid", Some(kid.into()));
        mint.token(algorithm, &header.to_string(), &claims().to_string())
    };
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let [h, c, s] = <[String; 3]>::try_from(parts(&good("ES256"))).unwrap();
    let zeros = |algorithm: &str, length: usize| {
        format!("{}.{c}.{}", base64(header(algorithm).to_string()), base64(vec![0; length]))
    };
    let unsigned = |alg: &str| format!("{}.{c}.", base64(header("ES256").to_string().replace("ES256", alg)));
    let foreign = |extra: &str, value: Value| {
        let header = with(header("ES256"), extra, Some(value));
        other.token("ES256", &header.to_string(), &claims().to_string())
    };
    let mut flipped = base64_bytes(&s);
    flipped[10] ^= 1;

    let cases: Vec<(&str, String, Bad)> = vec![
        ("two parts", format!("{h}.{c}"), Bad::Form),
        ("four parts", format!("{h}.{c}.{s}.{s}"), Bad::Form),
        ("nothing between dots", "..".to_owned(), Bad::Form),
        ("header no base64", format!("!{h}.{c}.{s}"), Bad::Form),
        ("header padded", format!("{h}=.{c}.{s}"), Bad::Form),
        ("header no json", raw("{", &claims().to_string()), Bad::Form),
        ("header a list", raw("[]", &claims().to_string()), Bad::Form),
        ("alg none, no signature", unsigned("none"), Bad::Form),
        ("alg None, no signature", unsigned("None"), Bad::Form),
        ("alg none, signed", head("alg", json!("none")), Bad::Form),
        ("no alg", raw(r#"{"kid":"p256"}"#, &claims().to_string()), Bad::Form),
        ("alg a number", head("alg", json!(256)), Bad::Form),
        ("alg in another case", head("alg", json!("es256")), Bad::Form),
        ("alg ES256K", head("alg", json!("ES256K")), Bad::Form),
        ("alg twice", raw(r#"{"alg":"ES256","alg":"none","kid":"p256"}"#, &claims().to_string()), Bad::Form),
        ("crit", head("crit", json!(["exp"])), Bad::Form),
        ("crit empty", head("crit", json!([])), Bad::Form),
        ("crit null", head("crit", Value::Null), Bad::Form),
        ("b64", head("b64", json!(false)), Bad::Form),
        ("typ of another kind of token", head("typ", json!("logout+jwt")), Bad::Form),
        ("typ of a proof", head("typ", json!("dpop+jwt")), Bad::Form),
        ("kid too long", head("kid", json!("k".repeat(257))), Bad::Form),
        ("kid a number", head("kid", json!(7)), Bad::Form),
        ("no signature", format!("{h}.{c}."), Bad::Form),
        ("signature padded", format!("{h}.{c}.{s}=="), Bad::Form),
        ("claims no base64", format!("{h}.{c}+.{s}"), Bad::Form),
        ("claims no json", raw(&header("ES256").to_string(), "exp"), Bad::Form),
        ("claims a list", raw(&header("ES256").to_string(), "[]"), Bad::Form),
        (
            "a claim twice",
            raw(&header("ES256").to_string(), &claims().to_string().replace('{', r#"{"sub":"root","#)),
            Bad::Form,
        ),
        ("too long", claim("pad", Some(json!("p".repeat(8 * 1024)))), Bad::Form),
        ("no iss", claim("iss", None), Bad::Issuer),
        ("another iss", claim("iss", Some(json!("https://evil.example"))), Bad::Issuer),
        ("iss with a slash", claim("iss", Some(json!("https://login.example/"))), Bad::Issuer),
        ("iss a list", claim("iss", Some(json!([ISSUER]))), Bad::Issuer),
        (
            "signed with the public key for a secret",
            mint.token("n", &header("HS256").to_string(), &claims().to_string()),
            Bad::Algorithm,
        ),
        ("an algorithm that is not allowed", good("PS512"), Bad::Algorithm),
        ("unknown kid", named("ES256", "other"), Bad::Key),
        ("empty kid", named("ES256", ""), Bad::Key),
        ("a kid of another kind of key", named("RS256", "p256"), Bad::Key),
        ("the same the other way", named("ES256", "rsa"), Bad::Key),
        ("another curve", named("ES256", "p384"), Bad::Key),
        ("a key for encryption", named("RS256", "enc"), Bad::Key),
        ("a key for other operations", named("RS256", "ops"), Bad::Key),
        ("a key of 1024 bits", named("RS256", "weak"), Bad::Key),
        ("an even exponent", named("RS256", "even"), Bad::Key),
        ("a private key that got out", named("RS256", "private"), Bad::Key),
        ("a key for another algorithm", named("RS384", "only256"), Bad::Key),
        ("a key whose algorithm does not fit it", named("RS256", "unfit"), Bad::Key),
        (
            "a secret in the key set",
            mint.token(
                "n",
                &with(header("HS256"), "kid", Some("secret".into())).to_string(),
                &claims().to_string(),
            ),
            Bad::Algorithm,
        ),
        (
            "no kid where two keys fit",
            mint.token("RS256", &with(header("RS256"), "kid", None).to_string(), &claims().to_string()),
            Bad::Key,
        ),
        ("a bit flipped", format!("{h}.{c}.{}", base64(&flipped)), Bad::Signature),
        (
            "other claims",
            format!("{h}.{}.{s}", base64(with(claims(), "sub", Some("root".into())).to_string())),
            Bad::Signature,
        ),
        (
            "another header",
            format!("{}.{c}.{s}", base64(with(header("ES256"), "typ", None).to_string())),
            Bad::Signature,
        ),
        ("a key of its own", foreign("jwk", other.published()[1].clone()), Bad::Signature),
        ("an address of a key", foreign("jku", json!("https://evil.example/keys")), Bad::Signature),
        ("a certificate's address", foreign("x5u", json!("https://evil.example/cert")), Bad::Signature),
        ("a certificate", foreign("x5c", json!(["MIIB"])), Bad::Signature),
        (
            "a signature in another form",
            format!("{h}.{c}.{}", base64(mint.sign("ASN1", format!("{h}.{c}").as_bytes()))),
            Bad::Signature,
        ),
        ("zeros, ES256", zeros("ES256", 64), Bad::Signature),
        ("zeros, ES384", zeros("ES384", 96), Bad::Signature),
        ("zeros, EdDSA", zeros("EdDSA", 64), Bad::Signature),
        ("zeros, RS256", zeros("RS256", 256), Bad::Signature),
        (
            "PKCS1 for PSS",
            mint.token("RS256", &header("PS256").to_string(), &claims().to_string()),
            Bad::Signature,
        ),
        ("no aud", claim("aud", None), Bad::Audience),
        ("another aud", claim("aud", Some(json!("Jobgate"))), Bad::Audience),
        ("an empty aud", claim("aud", Some(json!([]))), Bad::Audience),
        ("aud with a number", claim("aud", Some(json!(["jobgate", 7]))), Bad::Audience),
        ("aud an object", claim("aud", Some(json!({ "jobgate": true }))), Bad::Audience),
        ("no exp", claim("exp", None), Bad::Expired),
        ("expired", claim("exp", Some(json!(NOW - 30))), Bad::Expired),
        ("exp a text", claim("exp", Some(json!((NOW + 300).to_string()))), Bad::Expired),
        ("exp null", claim("exp", Some(Value::Null)), Bad::Expired),
        ("exp before time", claim("exp", Some(json!(-1))), Bad::Expired),
        ("exp beyond time", claim("exp", Some(json!(1e300))), Bad::Expired),
        ("too early", claim("nbf", Some(json!(NOW + 31))), Bad::TooEarly),
        ("nbf a text", claim("nbf", Some(json!("now"))), Bad::TooEarly),
        ("no sub", claim("sub", None), Bad::Name),
        ("an empty sub", claim("sub", Some(json!(""))), Bad::Name),
        ("a long sub", claim("sub", Some(json!("a".repeat(129)))), Bad::Name),
        ("a sub of two lines", claim("sub", Some(json!("alice\nlevel=ERROR"))), Bad::Name),
        ("a sub with a quote", claim("sub", Some(json!("alice\""))), Bad::Name),
        ("a sub that looks like another", claim("sub", Some(json!("\u{430}lice"))), Bad::Name),
        ("a sub that is a number", claim("sub", Some(json!(7))), Bad::Name),
    ];
    assert!(issuers.recognise(&good("ES256")).is_ok() && issuers.recognise(&good("RS256")).is_ok());
    assert!(cases.len() >= 80);
    for (name, token, bad) in cases {
        assert_eq!(
            issuers.recognise(&token).map(|principal| principal.name().to_owned()),
            Err(bad),
            "{name}"
        );
    }
}

fn base64_bytes(text: &str) -> Vec<u8> {
    keyset::decode(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_list_of_sources_in_the_token_narrows_what_its_issuer_may_grant() {
    let mint = Mint::new();
    let issuers = issuers(&config(&[EdDsa], Some("jobs")), &Script::new(&mint.published())).await;
    for (list, granted) in [
        (Some(json!(["sales"])), Ok(vec!["sales"])),
        (Some(json!(["sales", "audit", "foreign", "sales"])), Ok(vec!["audit", "sales"])),
        (Some(json!(["foreign"])), Ok(vec![])),
        (Some(json!([])), Ok(vec![])),
        (Some(json!("sales")), Err(Bad::Sources)),
        (Some(json!(["sales", 7])), Err(Bad::Sources)),
        (Some(Value::Null), Err(Bad::Sources)),
        (None, Err(Bad::Sources)),
    ] {
        let claims = with(claims(), "jobs", list.clone());
        let token = mint.token("EdDSA", &header("EdDSA").to_string(), &claims.to_string());
        let found = issuers.recognise(&token).map(|principal| match principal.grant() {
            Grant::All => vec!["everything".to_owned()],
            Grant::Sources(sources) => sources.keys().map(ToString::to_string).collect(),
        });
        assert_eq!(found, granted.map(|all| all.into_iter().map(str::to_owned).collect()), "{list:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_stands_until_it_expires_or_its_issuer_may_not_grant_it_any_more() {
    let mint = Mint::new();
    let script = Script::new(&mint.published());
    let whole = config(&[EdDsa], None);
    let narrowed = config(&[EdDsa], Some("jobs"));
    let token = |exp: i64| {
        let claims = with(with(claims(), "jobs", Some(json!(["sales"]))), "exp", Some(json!(exp)));
        mint.token("EdDSA", &header("EdDSA").to_string(), &claims.to_string())
    };
    let issuer = issuers(&whole, &script).await;
    let keys = Arc::clone(&issuer.all[0].keys);
    let now = |config: &IssuerConfig| Issuers {
        all: vec![Issuer::new(config, Arc::clone(&keys))],
        clock: Arc::new(Still),
    };
    let of = |issuers: &Issuers, exp| issuers.recognise(&token(exp)).unwrap();
    let (all, some) = (of(&now(&whole), NOW + 1), of(&now(&narrowed), NOW + 1));
    let sales = |mut config: IssuerConfig| {
        config.sources.retain(|source| source.as_str() == "sales");
        config
    };
    let elsewhere = IssuerConfig { issuer: "https://other.example".to_owned(), ..whole.clone() };
    for (config, all_stands, some_stands) in [
        (whole.clone(), true, true),
        (narrowed.clone(), true, true),
        (sales(whole.clone()), false, true),
        (sales(narrowed.clone()), false, true),
        (elsewhere, false, false),
    ] {
        let issuers = now(&config);
        assert_eq!((issuers.stand(&all), issuers.stand(&some)), (all_stands, some_stands), "{config:?}");
    }
    // the leeway is for clocks that differ, not for streams
    assert!(!issuer.stand(&of(&issuer, NOW)));
    assert!(!issuer.stand(&Principal::new("alice", whole.sources)));
}
