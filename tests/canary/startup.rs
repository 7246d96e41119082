//! The output before or instead of serving: errors in files that contain secrets, a new key, a private key for TLS.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::scanner::{Canary, found};
use crate::public_listener::tls;
use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::Setup;
use crate::support::wire;

#[tokio::test]
async fn rejected_secret_files_are_not_quoted_in_error_messages() {
    let planted = ["a short one", "a private key", "a manifest", "a text in the place of yaml", "a variable"]
        .map(|name| Canary::new(name, ""));
    let [short, private, manifest, text, variable] = &planted;
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{0}\n-----END PRIVATE KEY-----\n{0}", private.secret);
    let list = serde_json::json!([manifest.secret]).to_string();
    let files = [&short.forms[0], &pem, &list, &text.secret].map(|text| Scratch::new(text));
    let [short_file, pem, list, text_file] = files.each_ref().map(Scratch::path);
    let quoted = Scratch::new(&format!("server: {{ listen: \"{}\n", text.secret));
    let server = "listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0";
    let sections = [
        format!("watch_tokens: {{ secret: {{ file: \"{short_file}\" }} }}"),
        "watch_tokens: { secret: { env: TWO_LINES } }".to_owned(),
        format!("server: {{ {server}, tls: {{ cert: \"{pem}\", key: \"{pem}\" }} }}"),
        format!("graphql: {{ trusted_documents: {{ manifest: \"{list}\" }} }}"),
        format!("graphql: {{ trusted_documents: {{ manifest: \"{text_file}\" }} }}"),
        format!("store: {{ kind: embedded, path: \"{text_file}\" }}"),
    ];
    let urls = ["http://127.0.0.1:1", "http://127.0.0.1:1"];
    let mut configs: Vec<Scratch> = Vec::new();
    for rest in sections {
        let setup = Setup { rest, ..Setup::default() };
        configs.push(Scratch::new(&setup.yaml(urls[0], urls[1])));
    }
    configs.extend([quoted, Scratch::new(&text.secret), Scratch::new(&format!("{:?}: [", text.secret))]);
    let lines = format!("{}\nand another", variable.secret);
    let env = [("MIND_TOKEN", variable.secret.as_str()), ("METRICS_KEY", &lines), ("TWO_LINES", &lines)];
    let mut leaks = Vec::new();
    for config in &configs {
        for args in [&["serve"] as &[&str], &["check"], &["check", "--print"], &["check", "--online"]] {
            let (code, output) = run(&[args, &["--config", config.path()]].concat(), &env).await;
            assert!(!matches!(code, None | Some(0)) && !output.is_empty(), "{args:?} {code:?} {output}");
            leaks.extend(found(&planted.each_ref(), &format!("{args:?}"), &output));
        }
    }
    assert_eq!(leaks, Vec::<String>::new());
}

#[tokio::test]
async fn key_new_prints_the_key_exactly_once() {
    let (code, output) = run(&["key", "new", "dashboard"], &[]).await;
    assert_eq!(code, Some(0));
    let (key, rest) = output.split_once('\n').unwrap();
    let canary = Canary::token("the key", key);
    assert_eq!(found(&[&canary], "key new", key).len(), 1);
    assert!(rest.contains("key_sha256"), "{rest}");
    assert_eq!(found(&[&canary], "key new", rest), Vec::<String>::new());
}

/// The key is in use, and the log suppresses nothing.
#[tokio::test]
async fn the_tls_private_key_is_never_printed_or_logged() {
    let files = tls::files();
    let pem = std::fs::read_to_string(files.key.path()).unwrap();
    let core = pem.lines().nth(1).and_then(|line| line.get(20..60)).unwrap();
    let mut canary = Canary::of("the private key", pem.clone(), core);
    // the bytes of the file as they would be printed
    let bytes = STANDARD.decode(core).unwrap();
    canary.forms.push(bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")));
    canary.forms.push(bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
    for format in ["text", "json"] {
        let rest = format!("{}\ntelemetry: {{ log_level: trace, log_format: {format} }}", files.option());
        let setup = Setup { rest, ..Setup::default() };
        let config = Scratch::new(&setup.yaml("http://127.0.0.1:1", "http://127.0.0.1:1"));
        let env = [("MIND_TOKEN", "t"), ("METRICS_KEY", "k")];
        let mut output = run(&["check", "--print", "--config", config.path()], &env).await.1;
        let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
        let to = gateway.address("public").await;
        let request = wire::request("GET", "/graphql?query=%7B__typename%7D", &[], "");
        let (_, _, answer) =
            tls::exchange(to, &files.roots, &[&rustls::version::TLS13], &request).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        wire::get(to, "/in-the-clear").await;
        gateway.signal("TERM").await;
        let (_, log) = gateway.ended().await;
        assert!(log.contains("DEBUG") && log.contains("tls handshake failed"), "{log}");
        output.push_str(&log);
        output.push_str(&answer);
        assert_eq!(found(&[&canary], "a gateway with tls", &output), Vec::<String>::new());
    }
}
