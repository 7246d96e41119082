//! The command line from the point of view of a person or a script: what is printed where, and the exit codes.

use super::*;
use crate::config::Config;
use crate::outbound::identity::keys;

struct Ended {
    code: u8,
    out: String,
    err: String,
}

fn jobgate(line: &str, env: &[(&str, &str)]) -> Ended {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = std::iter::once("jobgate").chain(line.split_whitespace()).map(OsString::from);
    let terminal = Terminal::new(&mut out, &mut err, false);
    let code = run_on(args, &env.iter().copied().collect(), terminal);
    Ended { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

#[test]
fn key_new_prints_a_config_line_that_matches_its_key() {
    for name in ["dashboard", "7", "null", "1e3", "-", "a.b_c"] {
        let ended = jobgate(&format!("key new -- {name}"), &[]);
        let key = ended.out.lines().next().unwrap();
        let line = ended.out.lines().last().unwrap().replace("sources: []", "sources: [audit]");
        let yaml = format!(
            "sources: {{ audit: {{ upstream: mindbridge, base_url: 'https://a.example', credential: {{ bearer: {{ env: T }} }} }} }}\nclients:\n  {line}"
        );
        let config = Config::from_yaml(&yaml, &Environment::default()).unwrap();
        assert_eq!((config.clients[0].name.as_str(), ended.code, ended.err.as_str()), (name, 0, ""));
        assert_eq!(config.clients[0].key_sha256, [keys::hash(key)]);
        assert_eq!(ended.out.matches(key).count(), 1, "printed once");
    }
}

#[test]
fn each_command_has_its_exit_code_and_output_stream() {
    type CliCase = (&'static str, &'static [(&'static str, &'static str)], u8, &'static str, &'static str);
    const EXAMPLE: (&str, &str) = ("JOBGATE_CONFIG", "config/example.yaml");
    let cases: [CliCase; 14] = [
        ("--version", &[], 0, "jobgate 0.1.0\n", ""),
        ("--help", &[], 0, "check", ""),
        ("config-schema", &[], 0, "\"additionalProperties\": false", ""),
        (
            "check --config config/example.yaml",
            &[("MARKETING_KEY", "k")],
            78,
            "",
            "sources.audit.credential: file /run/secrets/audit-token cannot be read",
        ),
        ("check", &[EXAMPLE], 78, "", "environment variable MARKETING_KEY is not set"),
        (
            "check",
            &[EXAMPLE, ("JOBGATE_SERVER__LISTEN", "x")],
            78,
            "",
            "environment variable JOBGATE_SERVER__LISTEN: must be",
        ),
        ("check --config no/such/file", &[EXAMPLE], 78, "", "no/such/file: cannot be read"),
        ("key new a/b", &[], 2, "", "a name must be 1 to 63"),
        ("chekc", &[], 2, "", "check"),
        ("completions bash", &[], 0, "--updated-since", ""),
        ("completions tcsh", &[], 2, "", "zsh"),
        ("man", &[], 0, ".TH jobgate 1", ""),
        (
            "man config/default.yaml/pages",
            &[],
            1,
            "",
            "config/default.yaml/pages: the pages cannot be written",
        ),
        ("job list --first 0", &[], 2, "", "--first"),
    ];
    for (line, env, code, out, err) in cases {
        let ended = jobgate(line, env);
        assert_eq!(ended.code, code, "{line}: {}{}", ended.out, ended.err);
        for (found, wanted) in [(&ended.out, out), (&ended.err, err)] {
            assert!(
                found.contains(wanted) && found.is_empty() == wanted.is_empty(),
                "{line}: {found:?} without {wanted:?}"
            );
        }
    }
}

#[test]
fn check_print_shows_references_instead_of_secrets() {
    let ended = jobgate(
        "check --print --config config/example.yaml",
        &[("MARKETING_KEY", "cAnaRy"), ("JOBGATE_CACHE__FRESH_FOR", "3s")],
    );
    let printed: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(printed["cache"]["fresh_for"], "3s");
    assert_eq!(
        printed["sources"]["marketing"]["credential"],
        serde_json::json!({ "api_key": { "env": "MARKETING_KEY" } })
    );
    assert!(!ended.out.contains("cAnaRy") && !ended.err.contains("cAnaRy"));
}

#[test]
fn completions_of_each_shell_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = jobgate(&format!("completions {shell}"), &[]);
        assert_eq!(ended.code, 0, "{shell}: {}", ended.err);
        for command in CommandLine::command().get_subcommands() {
            assert!(ended.out.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
    }
}

#[test]
fn man_writes_a_page_for_each_command() {
    let directory = std::env::temp_dir().join(format!("jobgate-man-{}", std::process::id()));
    let ended = jobgate(&format!("man {}", directory.display()), &[]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "", ""));
    for (page, word) in [
        ("jobgate.1", "completions"),
        ("jobgate-serve.1", "SIGTERM"),
        ("jobgate-job.1", "await"),
        ("jobgate-job-list.1", "NAME=VALUE"),
        ("jobgate-key-new.1", "63 letters"),
    ] {
        let text = std::fs::read_to_string(directory.join(page)).unwrap();
        assert!(text.contains(".TH jobgate") && text.contains(word), "{page}: {text}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// The exit code of an invalid `job` command, and its two outputs.
fn job(line: &[&str], env: &[(&'static str, &'static str)]) -> (u8, Vec<u8>, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["jobgate", "job"].iter().chain(line).map(OsString::from);
    let terminal = Terminal::new(&mut out, &mut err, false);
    let code = run_on(args, &env.iter().copied().collect(), terminal);
    (code, out, String::from_utf8(err).unwrap())
}

#[test]
fn invalid_job_usage_exits_with_2_and_names_the_error() {
    type JobCase = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
    let cases: [JobCase; 9] = [
        (&["get"], &[], "REF"),
        (&["get", ""], &[], "is empty"),
        (&["watch", "mind/"], &[], "has an empty part"),
        (&["await", "mind/a", "--timeout", "10"], &[], "must be a duration with its unit"),
        (&["get", "mind/a", "--url", "hunter2"], &[], "--url is not a URL"),
        (&["get", "mind/a", "--url", "http://me:hunter2@there"], &[], "must hold no user name or password"),
        (&["get", "mind/a"], &[("JOBGATE_URL", "hunter2")], "JOBGATE_URL is not a URL"),
        (&["get", "mind/a"], &[("JOBGATE_KEY", "hunter 2")], "the key must be one line"),
        (&["get", "mind/a", "--key-file", "/dev/null"], &[], "is empty"),
    ];
    for (line, env, expected) in cases {
        let (code, out, err) = job(line, env);
        assert_eq!((code, out.is_empty(), err.contains(expected)), (2, true, true), "{line:?}: {err}");
    }
}

#[test]
fn invalid_job_usage_error_prints_no_secret() {
    for (line, env) in [
        (&["get", "mind/a", "--url", "hunter2"][..], &[][..]),
        (&["get", "mind/a", "--url", "http://me:hunter2@there"], &[]),
        (&["get", "mind/a"], &[("JOBGATE_URL", "hunter2")]),
        (&["get", "mind/a"], &[("JOBGATE_KEY", "hunter 2")]),
    ] {
        let (_, _, err) = job(line, env);
        assert!(!err.is_empty() && !err.contains("hunter"), "{line:?}: {err}");
    }
}
