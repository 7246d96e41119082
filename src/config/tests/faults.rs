//! Validation errors: each invalid configuration with the exact lines that it gets; no line repeats a value.

use super::{HASH, read, source, with};
use crate::domain::upstream::{CredentialForm, Profile, names_of};

const SOURCE: &str = "upstream: mindbridge, base_url: 'https://a.example', credential: {bearer: {env: T}}";
const FILE: &str = "must be a path that starts with /, ./ or ../, never the secret itself";
const REFERENCE: &str = "must be a reference, { file: /path } or { env: NAME }, never the secret itself";
const CREDENTIAL: &str = "must be bearer or api_key with a reference, never the secret itself";
const DURATION: &str = "must be a duration with its unit, such as 250ms, 30s, 5m, 24h or 30d";
const SIZE: &str = "must be a size with its unit, such as 512B, 256KiB, 16MiB or 1GiB";
const KEY: &str = "must be the SHA-256 of a key as 64 hexadecimal digits in quotes, or a list of them, as `jobgate key new` prints it; never the key itself";
const LEVEL: &str =
    "must be off, error, warn, info, debug or trace, or a list such as info,jobgate::outbound=debug";
const ADDRESS: &str = "must be an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080";

#[test]
fn invalid_section_error_names_the_option_and_the_fix() {
    let cases: &[(&str, &str)] = &[
        ("server: { listen: localhost }", &format!("server.listen: {ADDRESS}")),
        ("server: { admin_listen: 9090 }", &format!("server.admin_listen: {ADDRESS}")),
        ("server: { lisen: '127.0.0.1:1' }", "server.lisen: is not an option; did you mean listen?"),
        ("server: { request_timeout: 30 }", &format!("server.request_timeout: {DURATION}")),
        ("server: { request_timeout: 30 s }", &format!("server.request_timeout: {DURATION}")),
        (
            "server: { request_timeout: 99999999999999999999s }",
            &format!("server.request_timeout: {DURATION}"),
        ),
        ("server: { drain_timeout: 0s }", "server.drain_timeout: must be from 1ms to 1h"),
        ("server: { drain_timeout: 1844674407370955161d }", "server.drain_timeout: must be from 1ms to 1h"),
        ("server: { max_body: 4096 }", &format!("server.max_body: {SIZE}")),
        ("server: { max_body: 4KB }", &format!("server.max_body: {SIZE}")),
        ("server: { max_body: 2GiB }", "server.max_body: must be from 1KiB to 1GiB"),
        (
            "server: { max_connections: 0 }",
            "server.max_connections: must be a whole number from 1 to 1000000",
        ),
        (
            "server: { max_connections: -1 }",
            "server.max_connections: must be a whole number from 1 to 1000000",
        ),
        (
            "server: { max_connections: 1.5 }",
            "server.max_connections: must be a whole number from 1 to 1000000",
        ),
        (
            "server: { max_connections: null }",
            "server.max_connections: must be a whole number from 1 to 1000000",
        ),
        (
            "server: { admin_listen: '127.0.0.1:8080' }",
            "server.admin_listen: uses the port of server.listen: choose another port",
        ),
        (
            "server: { admin_listen: '0.0.0.0:8080' }",
            "server.admin_listen: uses the port of server.listen: choose another port",
        ),
        (
            "server: { allowed_origins: ['app.example'] }",
            "server.allowed_origins[0]: must be an origin, https://host or https://host:port",
        ),
        (
            "server: { allowed_origins: ['https://*.example.com'] }",
            "server.allowed_origins[0]: must be one origin: patterns are not supported, so list each origin",
        ),
        (
            "server: { trusted_proxies: [10.0.0.0/33] }",
            "server.trusted_proxies[0]: must be an IP address or a range such as 10.0.0.0/8 or fd00::/8",
        ),
        ("server: { tls: { cert: a.pem } }", "server.tls: requires key: add it"),
        ("limits: { burst: 5 }", "limits.burst: must not be less than limits.requests_per_second"),
        ("graphql: { persisted_queries: on }", "graphql.persisted_queries: must be auto or off"),
        ("server: { answer_memory: 512KiB }", "server.answer_memory: must be from 1MiB to 1024GiB"),
        ("server: { header_timeout: 2h }", "server.header_timeout: must be from 1ms to 1h"),
        (
            "server: { listen: '0.0.0.0:80' }",
            "server.listen: is not a loopback address, and no clients are configured: configure clients or jwt, or listen on 127.0.0.1",
        ),
        (
            "server: { request_timeout: 15s }",
            "sources.audit.status_timeout: must be shorter than server.request_timeout (15s), or a request times out before its upstream call",
        ),
        ("server: fast", "server: must be a mapping of options, one `option: value` per line"),
        ("sever: {}", "sever: is not an option; did you mean server?"),
        (
            "rates: {}",
            "rates: is not an option; known options: server, sources, credentials, clients, jwt, watch_tokens, graphql, limits, streams, cache, poll, store, telemetry",
        ),
        ("graphql: { introspection: yes }", "graphql.introspection: must be auto, on or off"),
        ("graphql: { max_cost: '12' }", "graphql.max_cost: must be a whole number from 1 to 1000000"),
        ("credentials: { reload_interval: 50ms }", "credentials.reload_interval: must be from 100ms to 1m"),
        ("cache: { max_bytes: 1KiB }", "cache.max_bytes: must be from 1MiB to 1024GiB"),
        (
            "cache: { fresh_for: 5m, keep_unfinished: 1m }",
            "cache.keep_unfinished: must not be shorter than cache.fresh_for (5m)",
        ),
        (
            "store: { kind: redis }",
            "store.redis.url: is missing: set { file: /path } or { env: NAME } with the URL",
        ),
        ("store: { kind: radish }", "store.kind: must be embedded, redis or memory"),
        ("store: { redis: { url: 'redis://u:cAnaRy@h' } }", &format!("store.redis.url: {REFERENCE}")),
        ("store: { redis: { mode: sentry } }", "store.redis.mode: must be single, sentinel or cluster"),
        ("store: { redis: { lease: 10ms } }", "store.redis.lease: must be from 1s to 5m"),
        (
            "store: { redis: { prefix: 'a b' } }",
            "store.redis.prefix: must be 1 to 63 characters of A-Z, a-z, 0-9, -, _, . and :",
        ),
        (
            "store: { redis: { mode: sentinel, sentinel_name: '' } }",
            "store.redis.sentinel_name: must be the name under which the sentinels monitor the server",
        ),
        ("store: { path: '' }", "store.path: must be a folder, such as ./data"),
        ("store: { path: 3 }", "store.path: must be text; put it in quotes"),
        ("store: { max_bytes: 1MiB }", "store.max_bytes: must be from 8MiB to 16384GiB"),
        ("telemetry: { log_format: pretty }", "telemetry.log_format: must be text or json"),
        ("telemetry: { log_level: infoo }", &format!("telemetry.log_level: {LEVEL}")),
        ("telemetry: { log_level: 'info,=,' }", &format!("telemetry.log_level: {LEVEL}")),
        ("telemetry: { log_level: 3 }", "telemetry.log_level: must be text; put it in quotes"),
        (
            "telemetry: { otlp_endpoint: 'http://user:secret@c:4317' }",
            "telemetry.otlp_endpoint: must not contain a user or a password: put them into otlp_headers",
        ),
        ("server: {}\nserver: {}", "the configuration line 3: repeats a key of the same mapping: keep one"),
        (
            "server: [",
            "the configuration line 2: is not valid YAML here: check the indentation, the colons and the quotes",
        ),
    ];
    assert_eq!(
        read("hello", &[]).map(drop),
        Err("the configuration: must be a mapping of sections, such as `server:`".to_owned())
    );
    for (yaml, line) in cases {
        assert_eq!(read(&with(yaml), &[]).map(drop), Err((*line).to_owned()), "{yaml}");
    }
}

#[test]
fn invalid_source_error_names_the_option_and_the_fix() {
    let takes_key = |profile: &Profile| profile.credential_forms.contains(&CredentialForm::ApiKey);
    let url =
        |url: &str| format!("upstream: mindbridge, credential: {{bearer: {{env: T}}}}, base_url: '{url}'");
    let of = |credential: &str| {
        format!("upstream: supermetrics, base_url: 'https://a.example', credential: {credential}")
    };
    let cases: &[(String, &str)] = &[
        (url("acme"), "base_url: must be a URL such as https://acme.example/api"),
        (url("ftp://a.example"), "base_url: must start with https://"),
        (
            url("https://u:p@a.example"),
            "base_url: must not contain a user or a password: put the secret under credential",
        ),
        (
            url("https://a.example/?k=v"),
            "base_url: must not contain a query or a fragment: end it before the ? or #",
        ),
        (
            url("https://a.example/#f"),
            "base_url: must not contain a query or a fragment: end it before the ? or #",
        ),
        (
            url("http://a.example"),
            "base_url: must start with https://, because plain HTTP exposes the credential; allow_plaintext: true permits it",
        ),
        (format!("{SOURCE}, allow_plaintext: maybe"), "allow_plaintext: must be true or false"),
        (
            format!("{SOURCE}, status_timeout: 30s"),
            "status_timeout: must be shorter than server.request_timeout (30s), or a request times out before its upstream call",
        ),
        (
            format!("{SOURCE}, budget: {{per_second: 0}}"),
            "budget.per_second: must be a whole number from 1 to 10000",
        ),
        (
            format!("{SOURCE}, budget: {{concurency: 1}}"),
            "budget.concurency: is not an option; did you mean concurrency?",
        ),
        (
            SOURCE.replace("mindbridge", "mindbrige"),
            &format!("upstream: must be {}", names_of("or", |_| true)),
        ),
        (of("abc"), &format!("credential: {CREDENTIAL}")),
        (of("{}"), "credential: is empty: set bearer or api_key to { file: /path } or { env: NAME }"),
        (of("{bearer: abc}"), &format!("credential.bearer: {REFERENCE}")),
        (of("{bearer: {}}"), "credential.bearer: is empty: set { file: /path } or { env: NAME }"),
        (of("{bearer: {file: /a, env: B}}"), "credential.bearer: has both file and env: keep one"),
        (of("{bearer: {file: /a}, api_key: {env: B}}"), "credential: has both bearer and api_key: keep one"),
        (of("{bearer: {file: abc}}"), &format!("credential.bearer.file: {FILE}")),
        (
            of("{bearer: {env: abc}}"),
            "credential.bearer.env: must be the name of an environment variable (A-Z, 0-9 and _), never the secret itself",
        ),
        (
            of("{bearer: {value: abc}}"),
            "credential.bearer: has an unknown key (not shown, because it may be a secret): use file or env",
        ),
        (
            of("{api_key: {env: K}}").replace("supermetrics", "mindbridge"),
            &format!("credential.api_key: is supported for {} only: use bearer", names_of("and", takes_key)),
        ),
    ];
    for (options, line) in cases {
        assert_eq!(read(&source(options), &[]).map(drop), Err(format!("sources.audit.{line}")), "{options}");
    }
    let named = source(SOURCE).replace("audit", "Audit");
    let line = "sources.Audit: has a name that may contain only a-z, 0-9, - and _, starting with a letter or a digit";
    assert_eq!(read(&named, &[]).map(drop), Err(line.to_owned()));
    assert!(read(&source(&url("http://[::1]:8080/")), &[]).is_ok(), "the simulator's address");
    assert!(read(&source(&format!("{}, allow_plaintext: true", url("http://a.example"))), &[]).is_ok());
}

#[test]
fn invalid_client_error_names_the_option_and_the_fix() {
    let other = HASH.replace("ab", "cd");
    let cases: &[(String, &str)] = &[
        (
            format!("{{name: b c, key_sha256: {other}, sources: [audit]}}"),
            "clients[1].name: must be 1 to 63 letters, digits, -, _ or .",
        ),
        (
            format!("{{name: a, key_sha256: {other}, sources: [audit]}}"),
            "clients[1].name: is also the name of clients[0]: names must be unique",
        ),
        (
            format!("{{name: b, key_sha256: [{other}, {HASH}], sources: [audit]}}"),
            "clients[1].key_sha256: is also a key of clients[0]: create a new one with `jobgate key new`",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: [audits]}}"),
            "clients[1].sources[0]: names a source that is not configured; did you mean audit?",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: [audit, sales]}}"),
            "clients[1].sources[1]: names a source that is not configured",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: []}}"),
            "clients[1].sources: is missing: list at least one source that the client may read",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: audit}}"),
            "clients[1].sources: must be a list of source names, or a mapping of source names to restrictions",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{}}}}"),
            "clients[1].sources: is missing: list at least one source that the client may read",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audits: {{}}}}}}"),
            "clients[1].sources.audits: names a source that is not configured; did you mean audit?",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: {{kind: [A]}}}}}}"),
            "clients[1].sources.audit.kind: is not an option; did you mean kinds?",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: {{kinds: A}}}}}}"),
            "clients[1].sources.audit.kinds: must be a list",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: {{kinds: []}}}}}}"),
            "clients[1].sources.audit.kinds: is empty: list kinds, or omit it for jobs of every kind",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: {{kinds: ['']}}}}}}"),
            "clients[1].sources.audit.kinds: must be at most 100 strings of 1 to 100 bytes without control characters",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: {{labels: {{}}}}}}}}"),
            "clients[1].sources.audit.labels: is empty: list labels, or omit it for jobs with and without labels",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: {{labels: {{a: ''}}}}}}}}"),
            "clients[1].sources.audit.labels: must be at most 16 labels, each name and value of 1 to 63 bytes without control characters",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: {{labels: {{a: 1}}}}}}}}"),
            "clients[1].sources.audit.labels.a: must be text; put it in quotes",
        ),
        (
            format!("{{name: b, key_sha256: {other}, sources: {{audit: 1}}}}"),
            "clients[1].sources.audit: must be a mapping of options, one `option: value` per line",
        ),
        (
            "{name: b, key_sha256: jg_abc, sources: [audit]}".to_owned(),
            &format!("clients[1].key_sha256: {KEY}"),
        ),
        ("{name: b, key_sha256: [], sources: [audit]}".to_owned(), &format!("clients[1].key_sha256: {KEY}")),
        ("dashboard".to_owned(), "clients[1]: must be a mapping of options, one `option: value` per line"),
    ];
    for (client, line) in cases {
        let yaml = with(&format!("clients: [{{name: a, key_sha256: {HASH}, sources: [audit]}}, {client}]"));
        assert_eq!(read(&yaml, &[]).map(drop), Err((*line).to_owned()), "{client}");
    }
}

#[test]
fn invalid_issuer_error_names_the_option_and_the_fix() {
    let algorithm = "must be RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA; other algorithms are not supported";
    let whole = "issuer: b, audience: jobgate, jwks: {url: 'https://b.example/keys'}, sources: [audit]";
    let cases = [
        ("issuer: b", "issuer: a", "issuer: is also the issuer of jwt[0]: put both in one entry"),
        (
            "issuer: b",
            "issuer: 'b#c'",
            "issuer: must be 1 to 200 visible ASCII characters without #, \" and \\",
        ),
        ("issuer: b", "issuer: ''", "issuer: must be 1 to 200 visible ASCII characters without #, \" and \\"),
        ("issuer: b, ", "", "issuer: is missing: set the iss claim of the tokens"),
        ("audience: jobgate", "audience: []", "audience: must be a string or a non-empty list of strings"),
        (
            "audience: jobgate",
            "audience: [a, 7]",
            "audience: must be a string or a non-empty list of strings",
        ),
        ("audience: jobgate, ", "", "audience: is missing: set the aud claim of tokens for jobgate"),
        (
            "https://b",
            "http://b",
            "jwks.url: must start with https://, so that the keys cannot be replaced in transit",
        ),
        ("https://b", "https://u:p@b", "jwks.url: must not contain a user, a password or a fragment"),
        ("url: 'https:", "file: 'https:", "jwks.file: must be a path that starts with /, ./ or ../"),
        ("url: 'https://b.example/keys'", "", "jwks: is empty: set { url: https://… } or { file: /path }"),
        ("jwks: {", "jwks: {file: /keys, ", "jwks: has both url and file: keep one"),
        (
            "jwks: {url: 'https://b.example/keys'}",
            "jwks: /keys",
            "jwks: must be a reference to keys, { url: https://… } or { file: /path }",
        ),
        ("issuer: b", "algorithms: [HS256], issuer: b", &format!("algorithms: {algorithm}")),
        ("issuer: b", "algorithms: [none], issuer: b", &format!("algorithms: {algorithm}")),
        ("issuer: b", "algorithms: [], issuer: b", "algorithms: must be a list of at least one algorithm"),
        ("issuer: b", "name_claim: '', issuer: b", "name_claim: must be the name of a claim, such as sub"),
        (
            "sources: [audit]",
            "sources: []",
            "sources: is missing: list at least one source that the tokens may read",
        ),
        (
            "sources: [audit]",
            "sources: [audits]",
            "sources[0]: names a source that is not configured; did you mean audit?",
        ),
        (
            "issuer: b",
            "secret: x, issuer: b",
            "secret: is not an option; known options: issuer, audience, jwks, algorithms, name_claim, sources, sources_claim, login",
        ),
        (
            "issuer: b",
            "login: {client_id: page}, issuer: b",
            "login: needs an issuer that is a URL: https, or http to a loopback address, without query",
        ),
        (
            "issuer: b",
            "login: {scopes: [openid]}, issuer: https://b.example",
            "login.client_id: must be the id of the page at the issuer: 1 to 200 visible ASCII characters",
        ),
        (
            "issuer: b",
            "login: {client_id: page, scopes: []}, issuer: https://b.example",
            "login.scopes: must be a list of 1 to 20 scopes, such as [openid]",
        ),
    ];
    for (part, instead, line) in cases {
        let bad = whole.replacen(part, instead, 1);
        let first = whole.replace("issuer: b", "issuer: a");
        let found = read(&with(&format!("jwt: [{{{first}}}, {{{bad}}}]")), &[]).map(drop);
        assert_eq!(found, Err(format!("jwt[1].{line}")), "{bad}");
    }
    // issuers are enough to listen on other than loopback addresses
    read(&with(&format!("server: {{listen: '0.0.0.0:80'}}\njwt: [{{{whole}}}]")), &[]).unwrap();
}

#[test]
fn all_validation_errors_are_reported_together_and_sorted() {
    let yaml = "
sources:
  audit: { upstream: mindbrige, credential: { bearer: s3cret }, budget: { per_hour: 0 } }
  audit: { upstream: mindbridge }
  sales: { status_timeout: 1 }
clients: [ { nane: x }, { name: y, key_sha256: z, sources: [audit, nope, 7] }, 5 ]
server: { listen: x, request_timeout: 1 }
";
    let lines = "clients[0].key_sha256: is missing: run `jobgate key new NAME` and copy the hash it prints
clients[0].name: is missing: set a name for the logs
clients[0].nane: is not an option; did you mean name?
clients[0].sources: is missing: list at least one source that the client may read
clients[1].key_sha256: KEY
clients[1].sources[1]: names a source that is not configured
clients[1].sources[2]: must be text; put it in quotes
clients[2]: must be a mapping of options, one `option: value` per line
environment variable JOBGATE_CACHE__FRESH_FOR: must be from 1ms to 1h
environment variable JOBGATE_CLIENTS__7__NAME: refers to a list entry that the file does not have
environment variable JOBGATE_GRAPHQL__MAX_COTS: is not an option; did you mean max_cost?
environment variable JOBGATE_LISTEN: is not an option: options are JOBGATE_<SECTION>__<KEY>, such as JOBGATE_SERVER__LISTEN
environment variable JOBGATE_SERVER__LISTEN__X: goes below an option that is not a mapping: remove the last part
server.listen: ADDRESS
server.request_timeout: DURATION
sources.audit.base_url: is missing: set the URL of the API, such as https://acme.example/api
sources.audit.budget.per_hour: must be a whole number from 1 to 10000000
sources.audit.credential.bearer: REFERENCE
sources.audit.upstream: must be UPSTREAM
sources.sales.base_url: is missing: set the URL of the API, such as https://acme.example/api
sources.sales.credential: is missing: set { bearer: { file: /path } } or { bearer: { env: NAME } }
sources.sales.status_timeout: DURATION
sources.sales.upstream: is missing: set UPSTREAM
the configuration line 4: repeats a key of the same mapping: keep one";
    let lines = lines.replace("ADDRESS", ADDRESS).replace("DURATION", DURATION);
    let lines = lines.replace("UPSTREAM", &names_of("or", |_| true));
    let lines = lines.replace("KEY\n", &format!("{KEY}\n")).replace("REFERENCE", REFERENCE);
    let env = [
        ("JOBGATE_CACHE__FRESH_FOR", "0s"),
        ("JOBGATE_CLIENTS__7__NAME", "x"),
        ("JOBGATE_GRAPHQL__MAX_COTS", "3"),
        ("JOBGATE_LISTEN", "x"),
        ("JOBGATE_SERVER__LISTEN__X", "x"),
    ];
    similar(&read(yaml, &env).unwrap_err(), &lines);
}

fn similar(found: &str, expected: &str) {
    assert_eq!(found.lines().collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>());
}

#[test]
fn validation_errors_never_repeat_a_value() {
    let canary = "cAnaRy-31337";
    let places = [
        "credential: cAnaRy-31337",
        "credential: [cAnaRy-31337]",
        "credential: { bearer: cAnaRy-31337 }",
        "credential: { bearer: [cAnaRy-31337] }",
        "credential: { cAnaRy-31337 }",
        "credential: { cAnaRy-31337: { env: A } }",
        "credential: { bearer: { cAnaRy-31337 } }",
        "credential: { bearer: { token: cAnaRy-31337 } }",
        "credential: { bearer: { env: cAnaRy-31337 } }",
        "credential: { bearer: { file: cAnaRy-31337 } }",
        "credential: { bearer: { file: [cAnaRy-31337] } }",
        "credential: { api_key: { env: A, file: cAnaRy-31337 } }",
        "credential: { bearer: { env: A }, api_key: cAnaRy-31337 }",
        "credential: { bearer: { env: A } }, token: cAnaRy-31337",
        "base_url: 'https://u:cAnaRy-31337@a.example'",
        "base_url: 'https://a.example/?api_key=cAnaRy-31337'",
        "base_url: cAnaRy-31337",
        "upstream: cAnaRy-31337",
        "budget: { per_second: cAnaRy-31337 }",
        "budget: cAnaRy-31337",
        "allow_plaintext: cAnaRy-31337",
        "status_timeout: cAnaRy-31337",
        "max_status_body: [cAnaRy-31337]",
        "credential: { bearer: { env: A } }, credential: cAnaRy-31337",
        "credential: { bearer: cAnaRy-31337",
        "credential: \"cAnaRy-31337",
        "credential: !cAnaRy-31337 x",
        "credential: *cAnaRy-31337",
        "credential: !!int cAnaRy-31337",
        "credential: !!binary cAnaRy-31337",
    ];
    for place in places {
        let error = read(&source(place), &[]).unwrap_err();
        assert!(!error.contains(canary), "{place}: {error}");
    }
    for rest in [
        "clients: [cAnaRy-31337]",
        "clients: [{key_sha256: cAnaRy-31337}]",
        "clients: [{sources: [cAnaRy-31337]}]",
        "clients: [{name: [cAnaRy-31337]}]",
    ] {
        let error = read(&with(rest), &[]).unwrap_err();
        assert!(!error.contains(canary), "{rest}: {error}");
    }
    for name in [
        "JOBGATE_SOURCES__AUDIT__CREDENTIAL__BEARER",
        "JOBGATE_SOURCES__AUDIT__CREDENTIAL",
        "JOBGATE_TOKEN",
        "JOBGATE_SOURCES__AUDIT__TOKEN",
        "JOBGATE_SERVER",
    ] {
        let error = read(&with(""), &[(name, canary)]).unwrap_err();
        assert!(!error.contains(canary) && error.contains(name), "{name}: {error}");
    }
}
