//! What a watch token permits, and that no other text is accepted as one.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const MINUTE: Duration = Duration::from_mins(1);

fn tokens() -> WatchTokens {
    WatchTokens::shared(&SECRET.into()).unwrap()
}

fn key(source: &str, id: &str) -> JobKey {
    JobKey { source: SourceName::parse(source).unwrap(), external_id: ExternalId::parse(id).unwrap() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// `ui` may read `audit`.
fn ui() -> Principal {
    Principal::new("ui", [SourceName::parse("audit").unwrap()])
}

fn only(principal: &Principal) -> impl Fn(&str) -> Option<Grant> + use<'_> {
    move |name| (name == principal.name()).then(|| principal.grant().clone())
}

fn no_grant(_: &str) -> Option<Grant> {
    None
}

/// A token for two jobs of which its creator may read one, with its principal.
fn minted() -> (WatchTokens, WatchToken, Principal) {
    let (tokens, jobs) = (tokens(), BTreeSet::from([key("audit", "a"), key("sales", "s")]));
    let made = tokens.mint(&ui(), &jobs, MINUTE, at(0), only(&ui())).unwrap();
    let principal = tokens.read(&made.token, at(59), only(&ui())).unwrap();
    (tokens, made, principal)
}

fn admits(principal: &Principal, job: &JobKey) -> bool {
    principal.source_grant(&job.source).is_some_and(|grant| grant.admits_key(job))
}

/// The creator, without the source of the job.
fn narrower() -> Principal {
    Principal::new("ui", [SourceName::parse("other").unwrap()])
}

#[test]
fn token_grants_its_jobs_within_the_creators_current_grant() {
    let (tokens, made, principal) = minted();
    for (job, may) in [(key("audit", "a"), true), (key("audit", "b"), false), (key("sales", "s"), false)] {
        assert_eq!(admits(&principal, &job), may, "{job}");
    }
    let later = tokens.read(&made.token, at(1), only(&narrower())).unwrap();
    assert!(!admits(&later, &key("audit", "a")), "its client lost the source");
}

#[test]
fn token_identifies_its_creator_and_only_watches() {
    let (_, made, principal) = minted();
    assert_eq!((principal.name(), principal.only_watches()), ("ui", true));
    assert_eq!(principal.credential().fingerprint, Some(keys::hash(made.token.expose_secret())));
}

#[test]
fn token_is_rejected_once_it_has_expired() {
    let (tokens, made, _) = minted();
    assert_eq!(made.expires_at, at(60));
    assert_eq!(tokens.read(&made.token, at(60), only(&ui())), Err(AuthError::Expired));
}

#[test]
fn token_is_rejected_once_its_creator_is_not_listed() {
    let (tokens, made, _) = minted();
    assert_eq!(tokens.read(&made.token, at(1), no_grant), Err(AuthError::Unknown));
}

#[test]
fn principal_of_a_token_is_valid_while_token_and_grant_are() {
    let (.., principal) = minted();
    for (now, grant_of, is_valid) in [
        (at(59), Some(ui()), true),
        (at(60), Some(ui()), false),
        (at(1), Some(narrower()), false),
        (at(1), None, false),
    ] {
        let grant_of = |name: &str| grant_of.as_ref().and_then(|client| only(client)(name));
        assert_eq!(WatchTokens::is_valid(&principal, now, grant_of), is_valid);
    }
}

/// A client of an issuer that may read some jobs of one source and all of another, for thirty seconds.
fn bearer() -> (Principal, Scope) {
    let scope = Scope { kinds: ["EXPORT".to_owned()].into(), labels: [("team".into(), "a".into())].into() };
    let [audit, sales] = ["audit", "sales"].map(|name| SourceName::parse(name).unwrap());
    let scopes = BTreeMap::from([(audit, scope.clone()), (sales, Scope::default())]);
    let credential = CredentialInfo { expires: Some(at(30)), ..CredentialInfo::default() };
    let bearer = Principal::with_grant("ui", Grant::Sources(Arc::new(scopes))).with_credential(credential);
    (bearer, scope)
}

/// Mints a token of that client; a listed client of the same name is a different client, whatever it may read.
fn minted_by_bearer(check: impl Fn(&WatchToken, &Scope)) {
    let (bearer, scope) = bearer();
    for grant_of in [None, Some(bearer.clone()), Some(ui())] {
        let grant_of = |name: &str| grant_of.as_ref().and_then(|client| only(client)(name));
        let jobs = BTreeSet::from([key("audit", "a")]);
        check(&tokens().mint(&bearer, &jobs, MINUTE, at(0), grant_of).unwrap(), &scope);
    }
}

#[test]
fn token_of_an_unlisted_client_has_its_scope_of_one_source() {
    let [audit, sales] = ["audit", "sales"].map(|name| SourceName::parse(name).unwrap());
    minted_by_bearer(|made, scope| {
        let principal = tokens().read(&made.token, at(29), no_grant).unwrap();
        assert_eq!(principal.scope(&audit), Some(scope));
        assert!(!principal.may_read(&sales), "only the sources of the jobs are passed on");
    });
}

#[test]
fn token_of_an_unlisted_client_expires_with_its_credential() {
    minted_by_bearer(|made, _| {
        assert_eq!(made.expires_at, at(30));
        let principal = tokens().read(&made.token, at(29), no_grant).unwrap();
        assert!(WatchTokens::is_valid(&principal, at(29), no_grant));
        assert!(!WatchTokens::is_valid(&principal, at(30), no_grant));
        assert_eq!(tokens().read(&made.token, at(30), no_grant), Err(AuthError::Expired));
    });
}

#[test]
fn unlisted_client_with_every_grant_mints_no_token() {
    let all = Principal::local()
        .with_credential(CredentialInfo { expires: Some(at(30)), ..CredentialInfo::default() });
    let jobs = BTreeSet::from([key("audit", "a")]);
    assert_eq!(tokens().mint(&all, &jobs, MINUTE, at(0), no_grant).unwrap_err(), WatchTokenError::NotMade);
}

#[test]
fn altered_or_forged_token_is_rejected() {
    let (tokens, jobs) = (tokens(), BTreeSet::from([key("audit", "a"), key("audit", "b")]));
    let made = tokens.mint(&ui(), &jobs, MINUTE, at(0), only(&ui())).unwrap();
    let good = made.token.expose_secret();
    let refused = |text: &str| {
        assert_eq!(tokens.read(&text.into(), at(1), only(&ui())), Err(AuthError::Unknown), "{text:?}");
    };
    let mut changed = 0;
    for index in 0..good.len() {
        for byte in (0..=127_u8).filter(|byte| *byte != good.as_bytes()[index]) {
            let mut bytes = good.as_bytes().to_vec();
            bytes[index] = byte;
            refused(std::str::from_utf8(&bytes).unwrap());
            changed += 1;
        }
        refused(good.get(..index).unwrap());
        refused(good.get(index + 1..).unwrap());
    }
    assert_eq!(changed, good.len() * 127);
    let (signed, tag) = good.rsplit_once('.').unwrap();
    for text in [
        format!("{good}A"),
        format!("{good}."),
        format!("{good}="),
        format!("{good} "),
        format!("{signed}."),
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 32])),
        format!("{signed}.{signed}.{tag}"),
        format!("{good}.{tag}"),
        good.to_uppercase(),
        format!("{MARK}.{tag}"),
        "jgw_".to_owned(),
        "jgw_.".to_owned(),
        format!("jgw_{}", "A".repeat(LONGEST)),
    ] {
        refused(&text);
    }
    // signed by the same key, but with a payload that the gateway does not create
    let signed = |payload: &str| {
        let signed = format!("{MARK}{}", URL_SAFE_NO_PAD.encode(payload));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&tokens.key, signed.as_bytes())))
    };
    let payload = |v: u8, id: &str| {
        format!(r#"{{"v":{v},"by":{{"client":"ui"}},"until":60,"jobs":{{"audit":["{id}"]}}}}"#)
    };
    tokens.read(&signed(&payload(1, "a")).into(), at(1), only(&ui())).unwrap();
    for payload in [
        payload(2, "a"),
        payload(1, ".."),
        payload(1, "a").replace('}', ""),
        payload(1, "a").replace("by", "of"),
    ] {
        refused(&signed(&payload));
    }
    let elsewhere = WatchTokens::of_this_process().unwrap();
    assert_eq!(elsewhere.read(&made.token, at(1), only(&ui())), Err(AuthError::Unknown), "another key");
}

#[test]
fn token_too_long_for_a_header_is_not_minted() {
    let jobs = |length: usize| -> BTreeSet<JobKey> {
        (0..50).map(|number| key("audit", &format!("{number:0length$}"))).collect()
    };
    let made = tokens().mint(&ui(), &jobs(48), MINUTE, at(0), only(&ui())).unwrap();
    assert!(made.token.expose_secret().len() <= LONGEST);
    let error = tokens().mint(&ui(), &jobs(200), MINUTE, at(0), only(&ui())).unwrap_err();
    assert_eq!(error, WatchTokenError::TooLong(4096));
    assert!(error.to_string().starts_with("refs "));
}

#[test]
fn secret_shorter_than_32_bytes_is_refused() {
    let short = SecretString::from("0123456789abcdef0123456789abcde");
    assert_eq!(WatchTokens::shared(&short).map(drop), Err(ShortSecret));
}

#[test]
fn debug_output_contains_neither_secret_nor_token() {
    let made = tokens().mint(&ui(), &[key("audit", "a")].into(), MINUTE, at(0), only(&ui())).unwrap();
    let shown = format!("{:?} {made:?}", tokens());
    assert!(!shown.contains(made.token.expose_secret()) && !shown.contains("0123"), "{shown}");
}
