//! Which tokens are accepted, and why the others are rejected: tables. Key refreshes are in `tests/freshness.rs`.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use self::mint::{Mint, base64, kid};
use super::keyring::JwksLocation;
use super::*;
use crate::config::JwksRef;
use crate::outbound::system::RuntimeSpawner;
use crate::ports::BoxFuture;

mod freshness;
mod mint;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://login.example";

/// A clock that does not move.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }
}

/// A scripted key set, with the number of its reads.
#[derive(Clone, Debug)]
struct JwksScript(Arc<Mutex<(Result<Value, String>, usize)>>);

impl JwksScript {
    fn new(keys: &[Value]) -> Self {
        Self(Arc::new(Mutex::new((Ok(json!({ "keys": keys })), 0))))
    }

    fn respond(&self, answer: Result<Value, String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = answer;
    }

    fn reads(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl JwksLocation for JwksScript {
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
        name_claim: "sub".to_owned(),
        sources: ["audit", "sales"].map(|name| SourceName::parse(name).unwrap()).into(),
        sources_claim: sources_claim.map(str::to_owned),
        login: None,
    }
}

/// One issuer whose keys have been read.
async fn issuers(config: &IssuerConfig, script: &JwksScript) -> Issuers {
    let location = Box::new(script.clone());
    let spawner = RuntimeSpawner::default();
    let keys = Keyring::start(&config.issuer, location, &spawner, &CancellationToken::new());
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

/// An object with one member replaced or removed.
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
async fn only_tokens_with_an_allowed_algorithm_are_accepted() {
    let mint = Mint::new();
    for (allowed, name) in ALL {
        let issuers = issuers(&config(&[allowed], None), &JwksScript::new(&mint.published())).await;
        for (_, signed) in ALL {
            let token = mint.token(signed, &header(signed).to_string(), &claims().to_string());
            let expected =
                if signed == name { Ok(format!("{ISSUER}#alice")) } else { Err(JwtError::Algorithm) };
            let found = issuers.authenticate(&token).map(|principal| principal.name().to_owned());
            assert_eq!(found, expected, "{signed} where {name} is allowed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn valid_token_is_accepted_in_every_permitted_form() {
    let mint = Mint::new();
    let issuers = issuers(&config(&[EdDsa], None), &JwksScript::new(&mint.published())).await;
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
        let principal =
            issuers.authenticate(&token).map_err(|bad| format!("{header} {claims}: {bad}")).unwrap();
        let expires = Timestamp::from_second(NOW).unwrap().as_second() - 29;
        assert!(principal.credential().expires.unwrap().as_second() >= expires);
        assert_eq!(principal.credential().fingerprint, Some(keys::hash(&token)));
        assert!(principal.may_read(&SourceName::parse("sales").unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn each_invalid_token_is_rejected_with_its_reason() {
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
    let issuers = issuers(&config(&allowed, None), &JwksScript::new(&set)).await;

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

    let cases: Vec<(&str, String, JwtError)> = vec![
        ("two parts", format!("{h}.{c}"), JwtError::Form),
        ("four parts", format!("{h}.{c}.{s}.{s}"), JwtError::Form),
        ("nothing between dots", "..".to_owned(), JwtError::Form),
        ("header no base64", format!("!{h}.{c}.{s}"), JwtError::Form),
        ("header padded", format!("{h}=.{c}.{s}"), JwtError::Form),
        ("header no json", raw("{", &claims().to_string()), JwtError::Form),
        ("header a list", raw("[]", &claims().to_string()), JwtError::Form),
        ("alg none, no signature", unsigned("none"), JwtError::Form),
        ("alg None, no signature", unsigned("None"), JwtError::Form),
        ("alg none, signed", head("alg", json!("none")), JwtError::Form),
        ("no alg", raw(r#"{"kid":"p256"}"#, &claims().to_string()), JwtError::Form),
        ("alg a number", head("alg", json!(256)), JwtError::Form),
        ("alg in another case", head("alg", json!("es256")), JwtError::Form),
        ("alg ES256K", head("alg", json!("ES256K")), JwtError::Form),
        (
            "alg twice",
            raw(r#"{"alg":"ES256","alg":"none","kid":"p256"}"#, &claims().to_string()),
            JwtError::Form,
        ),
        ("crit", head("crit", json!(["exp"])), JwtError::Form),
        ("crit empty", head("crit", json!([])), JwtError::Form),
        ("crit null", head("crit", Value::Null), JwtError::Form),
        ("b64", head("b64", json!(false)), JwtError::Form),
        ("typ of another kind of token", head("typ", json!("logout+jwt")), JwtError::Form),
        ("typ of a proof", head("typ", json!("dpop+jwt")), JwtError::Form),
        ("kid too long", head("kid", json!("k".repeat(257))), JwtError::Form),
        ("kid a number", head("kid", json!(7)), JwtError::Form),
        ("no signature", format!("{h}.{c}."), JwtError::Form),
        ("signature padded", format!("{h}.{c}.{s}=="), JwtError::Form),
        ("claims no base64", format!("{h}.{c}+.{s}"), JwtError::Form),
        ("claims no json", raw(&header("ES256").to_string(), "exp"), JwtError::Form),
        ("claims a list", raw(&header("ES256").to_string(), "[]"), JwtError::Form),
        (
            "a claim twice",
            raw(&header("ES256").to_string(), &claims().to_string().replace('{', r#"{"sub":"root","#)),
            JwtError::Form,
        ),
        ("too long", claim("pad", Some(json!("p".repeat(8 * 1024)))), JwtError::Form),
        ("no iss", claim("iss", None), JwtError::Issuer),
        ("another iss", claim("iss", Some(json!("https://evil.example"))), JwtError::Issuer),
        ("iss with a slash", claim("iss", Some(json!("https://login.example/"))), JwtError::Issuer),
        ("iss a list", claim("iss", Some(json!([ISSUER]))), JwtError::Issuer),
        (
            "signed with the public key for a secret",
            mint.token("n", &header("HS256").to_string(), &claims().to_string()),
            JwtError::Algorithm,
        ),
        ("an algorithm that is not allowed", good("PS512"), JwtError::Algorithm),
        ("unknown kid", named("ES256", "other"), JwtError::Key),
        ("empty kid", named("ES256", ""), JwtError::Key),
        ("a kid of another kind of key", named("RS256", "p256"), JwtError::Key),
        ("the same the other way", named("ES256", "rsa"), JwtError::Key),
        ("another curve", named("ES256", "p384"), JwtError::Key),
        ("a key for encryption", named("RS256", "enc"), JwtError::Key),
        ("a key for other operations", named("RS256", "ops"), JwtError::Key),
        ("a key of 1024 bits", named("RS256", "weak"), JwtError::Key),
        ("an even exponent", named("RS256", "even"), JwtError::Key),
        ("a private key that got out", named("RS256", "private"), JwtError::Key),
        ("a key for another algorithm", named("RS384", "only256"), JwtError::Key),
        ("a key whose algorithm does not fit it", named("RS256", "unfit"), JwtError::Key),
        (
            "a secret in the key set",
            mint.token(
                "n",
                &with(header("HS256"), "kid", Some("secret".into())).to_string(),
                &claims().to_string(),
            ),
            JwtError::Algorithm,
        ),
        (
            "no kid where two keys fit",
            mint.token("RS256", &with(header("RS256"), "kid", None).to_string(), &claims().to_string()),
            JwtError::Key,
        ),
        ("a bit flipped", format!("{h}.{c}.{}", base64(&flipped)), JwtError::Signature),
        (
            "other claims",
            format!("{h}.{}.{s}", base64(with(claims(), "sub", Some("root".into())).to_string())),
            JwtError::Signature,
        ),
        (
            "another header",
            format!("{}.{c}.{s}", base64(with(header("ES256"), "typ", None).to_string())),
            JwtError::Signature,
        ),
        ("a key of its own", foreign("jwk", other.published()[1].clone()), JwtError::Signature),
        ("an address of a key", foreign("jku", json!("https://evil.example/keys")), JwtError::Signature),
        ("a certificate's address", foreign("x5u", json!("https://evil.example/cert")), JwtError::Signature),
        ("a certificate", foreign("x5c", json!(["MIIB"])), JwtError::Signature),
        (
            "a signature in another form",
            format!("{h}.{c}.{}", base64(mint.sign("ASN1", format!("{h}.{c}").as_bytes()))),
            JwtError::Signature,
        ),
        ("zeros, ES256", zeros("ES256", 64), JwtError::Signature),
        ("zeros, ES384", zeros("ES384", 96), JwtError::Signature),
        ("zeros, EdDSA", zeros("EdDSA", 64), JwtError::Signature),
        ("zeros, RS256", zeros("RS256", 256), JwtError::Signature),
        (
            "PKCS1 for PSS",
            mint.token("RS256", &header("PS256").to_string(), &claims().to_string()),
            JwtError::Signature,
        ),
        ("no aud", claim("aud", None), JwtError::Audience),
        ("another aud", claim("aud", Some(json!("Jobgate"))), JwtError::Audience),
        ("an empty aud", claim("aud", Some(json!([]))), JwtError::Audience),
        ("aud with a number", claim("aud", Some(json!(["jobgate", 7]))), JwtError::Audience),
        ("aud an object", claim("aud", Some(json!({ "jobgate": true }))), JwtError::Audience),
        ("no exp", claim("exp", None), JwtError::Expired),
        ("expired", claim("exp", Some(json!(NOW - 30))), JwtError::Expired),
        ("exp a text", claim("exp", Some(json!((NOW + 300).to_string()))), JwtError::Expired),
        ("exp null", claim("exp", Some(Value::Null)), JwtError::Expired),
        ("exp before time", claim("exp", Some(json!(-1))), JwtError::Expired),
        ("exp beyond time", claim("exp", Some(json!(1e300))), JwtError::Expired),
        ("too early", claim("nbf", Some(json!(NOW + 31))), JwtError::TooEarly),
        ("nbf a text", claim("nbf", Some(json!("now"))), JwtError::TooEarly),
        ("no sub", claim("sub", None), JwtError::Name),
        ("an empty sub", claim("sub", Some(json!(""))), JwtError::Name),
        ("a long sub", claim("sub", Some(json!("a".repeat(129)))), JwtError::Name),
        ("a sub of two lines", claim("sub", Some(json!("alice\nlevel=ERROR"))), JwtError::Name),
        ("a sub with a quote", claim("sub", Some(json!("alice\""))), JwtError::Name),
        ("a sub that looks like another", claim("sub", Some(json!("\u{430}lice"))), JwtError::Name),
        ("a sub that is a number", claim("sub", Some(json!(7))), JwtError::Name),
    ];
    assert!(issuers.authenticate(&good("ES256")).is_ok() && issuers.authenticate(&good("RS256")).is_ok());
    assert!(cases.len() >= 80);
    for (name, token, bad) in cases {
        assert_eq!(
            issuers.authenticate(&token).map(|principal| principal.name().to_owned()),
            Err(bad),
            "{name}"
        );
    }
}

fn base64_bytes(text: &str) -> Vec<u8> {
    keyset::decode(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn sources_claim_narrows_the_grant_of_the_issuer() {
    let mint = Mint::new();
    let issuers = issuers(&config(&[EdDsa], Some("jobs")), &JwksScript::new(&mint.published())).await;
    for (list, granted) in [
        (Some(json!(["sales"])), Ok(vec!["sales"])),
        (Some(json!(["sales", "audit", "foreign", "sales"])), Ok(vec!["audit", "sales"])),
        (Some(json!(["foreign"])), Ok(vec![])),
        (Some(json!([])), Ok(vec![])),
        (Some(json!("sales")), Err(JwtError::Sources)),
        (Some(json!(["sales", 7])), Err(JwtError::Sources)),
        (Some(Value::Null), Err(JwtError::Sources)),
        (None, Err(JwtError::Sources)),
    ] {
        let claims = with(claims(), "jobs", list.clone());
        let token = mint.token("EdDSA", &header("EdDSA").to_string(), &claims.to_string());
        let found = issuers.authenticate(&token).map(|principal| match principal.grant() {
            Grant::All => vec!["everything".to_owned()],
            Grant::Sources(sources) => sources.keys().map(ToString::to_string).collect(),
        });
        assert_eq!(found, granted.map(|all| all.into_iter().map(str::to_owned).collect()), "{list:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_is_valid_until_expiry_or_a_reduced_issuer_grant() {
    let mint = Mint::new();
    let script = JwksScript::new(&mint.published());
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
    let of = |issuers: &Issuers, exp| issuers.authenticate(&token(exp)).unwrap();
    let (all, some) = (of(&now(&whole), NOW + 1), of(&now(&narrowed), NOW + 1));
    let sales = |mut config: IssuerConfig| {
        config.sources.retain(|source| source.as_str() == "sales");
        config
    };
    let elsewhere = IssuerConfig { issuer: "https://other.example".to_owned(), ..whole.clone() };
    for (config, all_are_valid, some_are_valid) in [
        (whole.clone(), true, true),
        (narrowed.clone(), true, true),
        (sales(whole.clone()), false, true),
        (sales(narrowed.clone()), false, true),
        (elsewhere, false, false),
    ] {
        let issuers = now(&config);
        assert_eq!(
            (issuers.is_valid(&all), issuers.is_valid(&some)),
            (all_are_valid, some_are_valid),
            "{config:?}"
        );
    }
    // the leeway is for clocks that differ, not for streams
    assert!(!issuer.is_valid(&of(&issuer, NOW)));
    assert!(!issuer.is_valid(&Principal::new("alice", whole.sources)));
}
