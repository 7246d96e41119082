//! The client kits and the examples against the real binary. Their tests are programs of their own languages
//! (`tests/clients/kits`), and run here in Node, in browsers and in Python. `tests/all.sh` installs what they need.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with the name of what `tests/all.sh` installs.
fn need(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run tests/all.sh, which installs it", path.display());
    path
}

/// Runs a program of tests to its end; returns its output of both streams if it succeeds.
async fn run(program: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).env("JOBGATE_BIN", env!("CARGO_BIN_EXE_jobgate"));
    command.envs(env.iter().copied());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await;
    assert!(output.is_ok(), "{} does not start ({output:?}): run tests/all.sh", program.display());
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{args:?} failed:\n{text}");
    text
}

/// Runs a file of tests in Node: each of its tests passes, and none is skipped.
async fn node(file: &str, env: &[(&str, &str)]) {
    need(root().join("tests/clients/node_modules/typescript/package.json"));
    need(root().join("target/tools/clients/bin/mypy"));
    let path = format!("tests/clients/kits/{file}");
    let args = ["--test", "--test-force-exit", "--test-reporter=tap", &path];
    let text = run(Path::new("node"), &args, env).await;
    let count = |what: &str| -> u32 {
        let mark = format!("# {what} ");
        let line = text.lines().rev().find_map(|line| line.strip_prefix(&mark));
        line.and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
    };
    let counts = ["fail", "cancelled", "skipped", "todo"].map(count);
    assert_eq!(counts, [0; 4], "{text}");
    let passed = count("pass");
    assert!((4..u32::MAX).contains(&passed), "the tests were run: {text}");
}

#[tokio::test]
async fn generated_files_types_and_packages_of_the_kits_are_complete() {
    node("sources.test.mjs", &[]).await;
}

#[tokio::test]
async fn the_typescript_kit_follows_jobs_in_node() {
    node("typescript.test.mjs", &[]).await;
}

#[tokio::test]
async fn the_typescript_kit_and_its_hooks_follow_jobs_in_chromium() {
    need("/usr/bin/chromium".into());
    node("browser.test.mjs", &[("KITS_BROWSER", "chromium")]).await;
}

#[tokio::test]
async fn the_typescript_kit_and_its_hooks_follow_jobs_in_firefox() {
    need("/usr/bin/firefox-esr".into());
    node("browser.test.mjs", &[("KITS_BROWSER", "firefox")]).await;
}

#[tokio::test]
async fn the_examples_and_the_printed_samples_run() {
    need("/usr/bin/chromium".into());
    node("examples.test.mjs", &[]).await;
}

#[tokio::test]
async fn the_python_kit_follows_jobs() {
    let python = need(root().join("target/tools/clients/bin/python"));
    let text = run(&python, &["-m", "unittest", "tests/clients/kits/test_python.py"], &[]).await;
    let ran = text.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|number| number > 10) && text.trim_end().ends_with("\nOK"), "{text}");
}
