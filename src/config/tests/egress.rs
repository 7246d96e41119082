//! Outbound connections: what is rejected, and what is printed as it was read.

use super::{read, source};

const SOURCE: &str = "upstream: mindbridge, base_url: 'https://a.example', credential: {bearer: {env: T}}";
const REFERENCE: &str = "must be a reference, { file: /path } or { env: NAME }, never the secret itself";

#[test]
fn invalid_egress_option_error_names_the_option_and_the_fix() {
    let path = "must be a path that starts with /, ./ or ../, never the content itself";
    let proxy = "must be none or the URL of a proxy without a path, such as http://proxy.example:3128";
    for (options, line) in [
        ("proxy: cAnaRy", &format!("proxy: {proxy}")),
        ("proxy: 'socks5://h:1'", &format!("proxy: {proxy}")),
        ("proxy: 'http://h:1/path'", &format!("proxy: {proxy}")),
        (
            "proxy: 'http://me:cAnaRy@h:1'",
            &"proxy: must not contain a user or a password: put them under proxy_credential".to_owned(),
        ),
        (
            "proxy_credential: { env: P }",
            &"proxy_credential: is set, but no proxy is: set proxy, or remove this".to_owned(),
        ),
        (
            "proxy: none, proxy_credential: { env: P }",
            &"proxy_credential: is set, but no proxy is: set proxy, or remove this".to_owned(),
        ),
        ("proxy: 'http://h:1', proxy_credential: 'me:cAnaRy'", &format!("proxy_credential: {REFERENCE}")),
        ("ca_file: cAnaRy", &format!("ca_file: {path}")),
        ("client_cert: /c", &"client_cert: requires client_key: add it".to_owned()),
        ("client_key: /k", &"client_key: requires client_cert: add it".to_owned()),
        ("client_cert: /c, client_key: '-----BEGIN cAnaRy'", &format!("client_key: {path}")),
    ] {
        let yaml = source(&format!("{SOURCE}, {options}"));
        let faults = read(&yaml, &[]).unwrap_err();
        let line = format!("sources.audit.{line}");
        assert!(faults.lines().any(|fault| fault.starts_with(&line)), "{faults}");
    }
}

#[test]
fn egress_option_error_never_repeats_a_value() {
    for options in [
        "proxy: cAnaRy",
        "proxy: 'http://me:cAnaRy@h:1'",
        "proxy: 'http://h:1', proxy_credential: 'me:cAnaRy'",
        "ca_file: cAnaRy",
        "client_cert: /c, client_key: '-----BEGIN cAnaRy'",
    ] {
        let faults = read(&source(&format!("{SOURCE}, {options}")), &[]).unwrap_err();
        assert!(!faults.contains("cAnaRy"), "{faults}");
    }
}

#[test]
fn certificate_option_without_tls_is_an_error() {
    let plain = SOURCE.replace("https://a.example", "http://localhost:1");
    for (options, fault) in [
        ("ca_file: /c", Some("ca_file: is not used, because base_url is http://")),
        ("ca_file: /c, proxy: 'https://h:1'", None),
        ("client_cert: /c, client_key: /k", Some("client_cert: is not used, because base_url is http://")),
    ] {
        let faults = read(&source(&format!("{plain}, {options}")), &[]).err();
        let named = fault.map(|fault| format!("sources.audit.{fault}"));
        assert_eq!(faults.is_some(), named.is_some(), "{options}: {faults:?}");
        assert!(faults.unwrap_or_default().starts_with(&named.unwrap_or_default()), "{options}");
    }
}

#[test]
fn effective_egress_options_load_as_the_same_configuration() {
    for (options, printed) in
        [("proxy: none", "none"), ("proxy: 'https://h:1'", "https://h:1/"), ("ca_file: /c", "null")]
    {
        let config = read(&source(&format!("{SOURCE}, {options}")), &[]).unwrap();
        let effective = config.effective().unwrap();
        let proxy =
            effective["sources"]["audit"].get("proxy").map_or("null", |proxy| proxy.as_str().unwrap());
        assert_eq!(proxy, printed);
        assert_eq!(read(&effective.to_string(), &[]).unwrap(), config);
    }
}

#[test]
fn invalid_environment_proxy_is_an_error_only_if_used() {
    let env = [("HTTPS_PROXY", "socks5://me:cAnaRy@h:1")];
    let faults = read(&source(SOURCE), &env).unwrap_err();
    assert!(faults.starts_with("HTTPS_PROXY: must be the URL of a proxy"), "{faults}");
    assert!(!faults.contains("cAnaRy"), "{faults}");
    read(&source(&format!("{SOURCE}, proxy: none")), &env).unwrap();
    read(&source(SOURCE), &[env[0], ("NO_PROXY", "a.example")]).unwrap();
}
