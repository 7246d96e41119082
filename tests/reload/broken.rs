//! Invalid files: each error is reported with its path, and the previous configuration stays active.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{BUDGET, Gateway, assert_uninterrupted, client, file, mind, open_streams};
use crate::support::streams::{LIMIT, settles};

/// What the file is replaced by.
enum Put {
    Text(String),
    Bytes(Vec<u8>),
    /// What this function creates at the path.
    Made(fn(&Path)),
}

#[tokio::test]
async fn an_invalid_file_is_rejected_with_its_path_and_reason() {
    // by the signal alone, so that each is read once
    let server = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, watch_config: false }";
    let alice = client("alice", "[mind]");
    let rest = format!("{server}\nclients: [{alice}]");
    let gateway = Gateway::start(&rest).await;
    let streams = open_streams(&gateway, "jg_alice").await;
    let url = gateway.url(0);
    let source = mind(&url, "{ env: MIND_TOKEN }", BUDGET);
    let good = file(&[&source], &rest);
    let with = |source: &str| Put::Text(file(&[source], &rest));
    let without = |what: &str| Put::Text(good.replace(what, ""));
    let token = |token: &str| with(&mind(&url, token, BUDGET));
    let cases: Vec<(&str, Put, &str, &str)> = vec![
        ("a bracket too few", without("] "), "line", "is not valid YAML"),
        ("cut off half", Put::Text(good.chars().take(good.len() / 2).collect()), "jobgate.yaml", "YAML"),
        (
            "cut off before its clients",
            without(&format!("clients: [{alice}]")),
            "clients",
            "removes all clients",
        ),
        ("cut off before its sources", Put::Text(rest.clone()), "sources", "configure at least one source"),
        ("empty", Put::Text(String::new()), "sources", "configure at least one source"),
        ("a list", Put::Text("[1, 2]".into()), "jobgate.yaml", "must be a mapping"),
        (
            "an unknown key",
            Put::Text(format!("{good}\nlimts: {{ burst: 1 }}")),
            "limts",
            "did you mean limits",
        ),
        ("an unknown key below", with(&source.replace("base_url", "base_ulr")), "sources.mind", "base_ur"),
        (
            "a wrong value",
            with(&source.replace("per_second: 10000", "per_second: many")),
            "budget.per_second",
            "must be",
        ),
        (
            "a name twice",
            Put::Text(good.replace(&source, &format!("{source}\n  {source}"))),
            "line",
            "repeats a key",
        ),
        (
            "a client twice",
            Put::Text(good.replace(&alice, &format!("{alice}, {alice}"))),
            "clients[1]",
            "clients[0]",
        ),
        (
            "a grant of nothing",
            Put::Text(good.replace("[mind]", "[nowhere]")),
            "clients[0].sources[0]",
            "source",
        ),
        ("no such secret", token("{ file: /no/such/secret }"), "sources.mind.credential", "cannot be read"),
        ("no such variable", token("{ env: NOWHERE }"), "sources.mind.credential", "is not set"),
        ("a pipe for a secret", token("{ file: /dev/zero }"), "sources.mind.credential", "regular file"),
        ("a secret in the place of its name", token("cAnaRy"), "sources.mind.credential", "reference"),
        (
            "another upstream",
            with(&source.replace("mindbridge", "supermetrics")),
            "sources.mind.upstream",
            "another name",
        ),
        ("not UTF-8", Put::Bytes(b"sources: \xff\xfe".to_vec()), "jobgate.yaml", "UTF-8"),
        ("much too large", Put::Bytes(vec![b'#'; 50 << 20]), "jobgate.yaml", "larger than 4MiB"),
        ("gone", Put::Made(|_| ()), "jobgate.yaml", "cannot be read"),
        ("a folder", Put::Made(|path| fs::create_dir(path).unwrap()), "jobgate.yaml", "regular file"),
        ("a ring of links", Put::Made(|path| symlink(path, path).unwrap()), "jobgate.yaml", "cannot be read"),
        ("a device", Put::Made(|path| symlink("/dev/zero", path).unwrap()), "jobgate.yaml", "regular file"),
        ("a pipe", Put::Made(pipe), "jobgate.yaml", "regular file"),
    ];
    let path = gateway.folder.join("jobgate.yaml");
    for (number, (name, put, place, fix)) in cases.into_iter().enumerate() {
        remove(&path);
        match put {
            Put::Text(text) => fs::write(&path, text).unwrap(),
            Put::Bytes(bytes) => fs::write(&path, bytes).unwrap(),
            Put::Made(make) => make(&path),
        }
        let before = gateway.process.output().len();
        gateway.process.signal("HUP").await;
        let process = &gateway.process;
        let refused = || process.output().matches("configuration not reloaded").count() > number;
        settles(name, LIMIT, refused).await;
        let output = process.output().split_off(before);
        let fault =
            |line: &str| line.contains("invalid configuration") && line.contains(place) && line.contains(fix);
        assert!(output.lines().any(fault), "{name}: {place} and {fix} are not in {output}");
        assert!(!output.contains("cAnaRy"), "{name}: {output}");
        assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING", "{name}");
    }
    assert!(!gateway.process.output().contains("configuration reloaded"), "{}", gateway.process.output());

    assert_uninterrupted(&gateway, 0, streams).await;
}

#[tokio::test]
async fn a_valid_file_after_an_invalid_one_is_adopted() {
    let rest = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, watch_config: false }";
    let mut gateway = Gateway::start(rest).await;
    let good = file(&[&mind(&gateway.url(0), "{ env: MIND_TOKEN }", BUDGET)], rest);
    let path = gateway.folder.join("jobgate.yaml");
    for (text, logged) in [
        (String::new(), "configuration not reloaded"),
        (format!("{good}\nlimits: {{ burst: 900 }}\n"), " changed=limits.burst "),
    ] {
        remove(&path);
        fs::write(&path, text).unwrap();
        gateway.process.signal("HUP").await;
        gateway.process.find(logged, |line| line.contains(logged).then_some(())).await;
    }
}

fn remove(path: &Path) {
    if fs::remove_file(path).is_err() {
        fs::remove_dir(path).ok();
    }
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}
